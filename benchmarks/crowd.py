"""Crowds of clients: some stay and do nothing, some come and go."""

from __future__ import annotations

import socket
import time
from collections import Counter

from benchmarks.client import LOCALHOST, LoadClient, log_in
from benchmarks.load import Control

VISITORS = 100
"""Accounts that those who come and go log in to."""


def idle_names(count: int) -> list[bytes]:
    """Return the accounts that `idle` needs for `count` connections."""
    return [b"idle-%d" % i for i in range(count)]


def visitor_names() -> list[bytes]:
    """Return the accounts that `come_and_go` needs."""
    return [b"visitor-%d" % i for i in range(VISITORS)]


def idle(control: Control, port: int, places: range, source: str, is_anonymous: bool) -> int:
    """Hold connections, from the address `source`, and return how many were lost.

    :param places: which of `idle_names` they log in as, unless they stay anonymous
    """
    clients = [
        LoadClient(port, source) if is_anonymous else log_in(port, b"idle-%d" % i, source)
        for i in places
    ]
    control.ready()
    control.wait()
    lost = 0
    for client in clients:
        client.set_blocking(False)
        try:
            lost += client.receive_now() is not None
        except (OSError, EOFError):
            lost += 1
    return lost


def come_and_go(control: Control, port: int, number: int, rate: float, source: str) -> Counter[str]:
    """Come and go `rate` times a second, one connection after the other; count what was done.

    Of ten connections six are handshaken, two of these with a close that is a reset; two log in;
    one goes away in the midst of the handshake, and one before it.

    :param number: of this process: each logs in to accounts of its own
    """
    done: Counter[str] = Counter()
    control.ready()
    due = time.monotonic()
    i = 0
    while control.is_running:
        time.sleep(max(0.0, due - time.monotonic()))
        due = max(due + 1 / rate, time.monotonic() - 1)  # It may catch up with a second.
        kind = i % 10
        try:
            if kind < 6:
                client = LoadClient(port, source)
                if kind < 2:
                    client.reset()
                else:
                    client.close()
                done["handshakes"] += 1
            elif kind < 8:
                name = b"visitor-%d" % ((i // 10 + number * 13) % VISITORS)
                log_in(port, name, source).close()
                done["logins"] += 1
            else:
                with socket.create_connection((LOCALHOST, port), 10, (source, 0)) as half:
                    if kind == 8:
                        half.sendall(bytes.fromhex("16030100"))  # The head of a TLS record.
                done["half way"] += 1
        except (OSError, EOFError, AssertionError) as error:
            done["failed"] += 1
            done[f"failed: {type(error).__name__} {error}"[:120]] += 1
        i += 1
    return done

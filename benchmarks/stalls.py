"""Clients that push and do not read, all of them in one process."""

from __future__ import annotations

import selectors
import time
from dataclasses import dataclass

from benchmarks.client import LoadClient, log_in, open_chat
from benchmarks.load import Control
from chatserver.packets import Command, Packet, encode

KINDS = ("partner", "own answers", "both")
"""Who does not read: the partner of one who writes; one alone, who writes; both of a chat, who
write."""

HELD_AFTER = 2.0
"""Seconds in which nobody could send anything: then all are held, and there is no more to see."""

_MESSAGES = memoryview(encode(Packet(Command.MESSAGE, bytes(32_000))) * 4)
_QUESTIONS = memoryview(encode(Packet(0x77)) * 10_000)
"""Unknown commands are the smallest packets whose answer is larger than they are."""


@dataclass
class Pushed:
    """What came of it: by how many, how much in all, whether it came to a standstill, how many
    connections the server has cut off, and how many were told that their partner is gone.
    """

    writers: int
    megabytes: float = 0.0
    is_held: bool = False
    cut_off: int = 0
    told: int = 0


def names(count: int) -> list[bytes]:
    """Return the accounts that `push` needs for `count` pairs."""
    return [b"stall-%d-%s" % (i, side) for i in range(count) for side in (b"a", b"b")]


def push(control: Control, port: int, kind: str, count: int, most: int, goes_on: bool) -> Pushed:
    """Send as much as is taken, `most` bytes for each client at most.

    :param goes_on: whether to go on when nothing is taken any more, until the server lets go
    """
    names_ = names(count)
    others: list[LoadClient] = []
    if kind == "own answers":
        writers = [log_in(port, name) for name in names_[::2]]
    else:
        pairs = [open_chat(port, *names_[i : i + 2]) for i in range(0, len(names_), 2)]
        writers, others = [a for a, _ in pairs], [b for _, b in pairs]
    if kind == "both":
        writers, others = writers + others, []
    data = _QUESTIONS if kind == "own answers" else _MESSAGES
    events = selectors.EVENT_WRITE | (selectors.EVENT_READ if kind == "partner" else 0)
    pushed = Pushed(len(writers))
    sent = dict.fromkeys(writers, 0)
    control.ready()
    progress = time.monotonic()
    with selectors.DefaultSelector() as selector:
        for client in writers:
            client.set_blocking(False)
            selector.register(client, events, client)
        while control.is_running and selector.get_map():
            for key, ready in selector.select(0.1):
                client = key.data
                is_over = False
                try:
                    if ready & selectors.EVENT_READ:
                        is_over = _has_heard_exit(client)
                        pushed.told += is_over
                    if ready & selectors.EVENT_WRITE and not is_over:
                        begin = sent[client] % len(data)
                        # One record at a time: what TLS could not send must be offered again.
                        size = client.send_some(data[begin : begin + 16384])
                        sent[client] += size
                        if size:
                            progress = time.monotonic()
                        is_over = sent[client] >= most
                except (OSError, EOFError):
                    pushed.cut_off += 1
                    is_over = True
                if is_over:
                    selector.unregister(client)
            if time.monotonic() > progress + HELD_AFTER:
                pushed.is_held = True
                if not goes_on:
                    break
    pushed.megabytes = sum(sent.values()) / 1e6
    for client in others:  # Only to keep them until here.
        client.close()
    return pushed


def _has_heard_exit(client: LoadClient) -> bool:
    """Read what has come, and tell whether the partner is gone."""
    while (packet := client.receive_now()) is not None:
        if packet == Packet(Command.ERROR, b"EXIT"):
            return True
    return False

"""The chats of those who do no harm: how long their messages take is what the others cost them."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from itertools import chain, repeat

from benchmarks.client import LoadClient, open_chat
from benchmarks.load import Control, Load
from benchmarks.report import percentile
from chatserver.packets import Command

PAIRS = 8
"""How many chats are measured."""

INTERVAL = 0.02
"""Seconds from one message of a chat to its next: 400 a second in all are little work for the
server, and a chat falls behind only when a message takes longer than this."""

TEXT = bytes(64)

WARM_UP = 0.25
"""Seconds at the start of a span that are not counted, until the load is as it will be."""

Measurement = tuple[float, float]
"""When a message was due (`time.monotonic`), and in how many seconds its partner had it."""


def names() -> list[bytes]:
    """Return the accounts that `chat` needs."""
    return [b"chat-%d-%s" % (i, side) for i in range(PAIRS) for side in (b"a", b"b")]


def chat(control: Control, port: int) -> list[Measurement]:
    """Send messages in `PAIRS` chats, and return what they took."""
    names_ = names()
    pairs = [open_chat(port, *names_[i : i + 2]) for i in range(0, len(names_), 2)]
    control.ready()
    with ThreadPoolExecutor(PAIRS) as threads:
        starts = [time.monotonic() + INTERVAL * i / PAIRS for i in range(PAIRS)]
        measured = list(threads.map(_talk, repeat(control), pairs, starts))
    return sorted(chain.from_iterable(measured))


def _talk(control: Control, pair: tuple[LoadClient, LoadClient], due: float) -> list[Measurement]:
    """Send a message every `INTERVAL` s, the next when the last has arrived and is acknowledged.

    While one takes longer, those are counted as well that would have been sent meanwhile: else a
    pause of the server, in which many would have waited, would count as one slow message.
    """
    sender, receiver = pair
    measured = []
    while control.is_running:
        time.sleep(max(0.0, due - time.monotonic()))
        sent = time.monotonic()
        sender.send(Command.MESSAGE, TEXT)
        message = receiver.receive()
        latency = time.monotonic() - sent
        answer = sender.receive()
        if message is None or answer is None:
            raise AssertionError("the server has closed a chat")
        if (message.command, answer.body) != (Command.MESSAGE, b"OK"):
            raise AssertionError(f"{message} came, and was answered with {answer}")
        due = max(due + INTERVAL, time.monotonic())
        while latency > 0:
            measured.append((sent, latency))
            sent += INTERVAL
            latency -= INTERVAL
    return measured


class MeasuredChats:
    """Runs `chat` in a process of its own, and tells how long messages took in spans of time."""

    def __init__(self, port: int) -> None:
        self._load = Load(chat, port, first=True)
        self._load.begin()
        self._measured: list[Measurement] = []

    def __enter__(self) -> MeasuredChats:
        return self

    def __exit__(self, *error: object) -> None:
        self._load.__exit__(*error)

    def end(self) -> None:
        """Measure no more. Only then `latencies` can be asked."""
        self._measured = self._load.end()

    def latencies(self, *spans: tuple[float, float]) -> list[float]:
        """Return in ms, in order, how long the messages took that were due in any of `spans`."""
        return sorted(
            seconds * 1000
            for begin, end in spans
            for due, seconds in self._measured
            if begin + WARM_UP <= due < end
        )


def figures(latencies: list[float]) -> dict[str, float | int]:
    """Return what a table shows of `latencies`, in ms and in order."""
    return {
        "messages": len(latencies),
        "p50_ms": percentile(latencies, 50),
        "p99_ms": percentile(latencies, 99),
        "p99.9_ms": percentile(latencies, 99.9),
    }

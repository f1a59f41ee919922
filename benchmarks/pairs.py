"""Pairs of clients of which one talks, as fast as the server lets them."""

from __future__ import annotations

import selectors
import time
from dataclasses import dataclass

from benchmarks.client import LoadClient
from benchmarks.dialects import Counter, Dialect, ExactCounter, LostError
from benchmarks.load import Control

SILENCE = 5.0
"""Seconds without a byte after which what has not come is lost: a thousand times what it takes."""


@dataclass(frozen=True)
class Talk:
    """How pairs talk: so many of them, texts of so many bytes, so many messages in each write.

    The next write follows when all of the last one has been delivered, and acknowledged if the
    server does that. The load never sleeps, unless it `may_sleep`: a server that had to wake it
    with each message would pay for that.
    """

    pairs: int
    size: int
    batch: int
    may_sleep: bool = False


@dataclass
class Outcome:
    """How many messages were delivered from the start on, and how long each write of them took,
    from the sender's write until its receiver had all of it, in seconds. How many were lost, or
    came twice, or were not acknowledged: a pair in which that happens talks no more, and what is
    wrong with its last write is counted, as one at least.
    """

    delivered: int
    latencies: list[float]
    lost: int = 0


class _Pair:
    """A sender and its receiver."""

    def __init__(self, dialect: Dialect, port: int, names: tuple[bytes, bytes], talk: Talk) -> None:
        texts = [(b"%d " % i).ljust(talk.size, b"x")[: talk.size] for i in range(talk.batch)]
        self.sender, self.receiver = dialect.open(port, *names)
        self.delivered: Counter = dialect.counter(names[0], texts)
        self.answered: Counter | None = None
        if answers := dialect.answers(1):
            self.answered = ExactCounter([answers])
        self._batch = talk.batch
        self._data = b"".join(dialect.say(*names, text) for text in texts)
        self.missing = self.unanswered = 0
        self._unsent = memoryview(b"")
        self.began = 0.0
        for client in (self.sender, self.receiver):
            client.set_blocking(False)

    def say(self) -> None:
        """Send the next messages."""
        self.missing = self._batch
        self.unanswered = self._batch if self.answered else 0
        self._unsent = memoryview(self._data)
        self.began = time.perf_counter()
        self.send()

    def send(self) -> None:
        """Send what is not sent yet."""
        while self._unsent and (sent := self.sender.send_some(self._unsent)):
            self._unsent = self._unsent[sent:]

    @property
    def is_done(self) -> bool:
        """Whether all has arrived and is acknowledged."""
        return not (self.missing or self.unanswered)


def talk(control: Control, dialect: Dialect, port: int, plan: Talk) -> Outcome:
    """Let pairs talk."""
    names = dialect.names(plan.pairs)
    pairs = [
        _Pair(dialect, port, (names[2 * i], names[2 * i + 1]), plan) for i in range(plan.pairs)
    ]
    selector = selectors.DefaultSelector()
    for pair in pairs:
        for client in (pair.sender, pair.receiver):
            selector.register(client, selectors.EVENT_READ, pair)
    control.ready()
    outcome = Outcome(0, [])
    for pair in pairs:
        pair.say()
    talking = set(pairs)
    broken: set[_Pair] = set()
    heard = time.monotonic()
    while talking and time.monotonic() < heard + SILENCE:
        for key, _ in selector.select(0.1 if plan.may_sleep else 0):
            heard = time.monotonic()
            pair = key.data
            if key.fileobj is pair.sender:
                pair.send()
            try:
                _receive(pair, key.fileobj, outcome)
            except LostError:
                talking.discard(pair)
                broken.add(pair)
                for client in (pair.sender, pair.receiver):
                    selector.unregister(client)
                break  # What was selected may be of this pair, too.
            if pair.is_done:
                if control.is_running:
                    pair.say()
                else:
                    talking.discard(pair)
    outcome.lost = sum(max(1, abs(pair.missing)) for pair in talking | broken)
    return outcome


def _receive(pair: _Pair, client: LoadClient, outcome: Outcome) -> None:
    """Count what has come for `client`."""
    while (data := client.receive_some()) is not None:
        if not data:
            raise EOFError("the server has closed a connection")
        if client is pair.sender:
            if pair.answered is not None:
                pair.unanswered -= pair.answered.feed(data)
        else:
            count = pair.delivered.feed(data)
            pair.missing -= count
            outcome.delivered += count
            if pair.missing < 0:
                raise LostError("more has come than was sent")
            if count and not pair.missing:
                outcome.latencies.append(time.perf_counter() - pair.began)

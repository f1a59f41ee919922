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


@dataclass(frozen=True)
class Plan:
    """What `push` is to do: who does not read, how many pairs or clients there are, how many bytes
    each that writes sends at most, and whether it goes on when nothing is taken any more, until
    the server lets go.
    """

    kind: str
    count: int
    most: int
    goes_on: bool


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


def push(control: Control, port: int, plan: Plan) -> Pushed:
    """Send as much as is taken."""
    clients, silent = _connect(port, plan)
    data = _QUESTIONS if plan.kind == "own answers" else _MESSAGES
    events = selectors.EVENT_WRITE | (selectors.EVENT_READ if plan.kind == "partner" else 0)
    pushed = Pushed(len(clients))
    for client in silent or clients:
        client.take_little()
    writers = [_Writer(client, data, plan.most) for client in clients]
    control.ready()
    progress = time.monotonic()
    with selectors.DefaultSelector() as selector:
        for writer in writers:
            writer.client.set_blocking(False)
            selector.register(writer.client, events, writer)
        while control.is_running and selector.get_map():
            for key, ready in selector.select(0.1):
                writer = key.data
                before = writer.sent
                if writer.is_over(ready, pushed):
                    selector.unregister(writer.client)
                if writer.sent > before:
                    progress = time.monotonic()
            if time.monotonic() > progress + HELD_AFTER:
                pushed.is_held = True
                if not plan.goes_on:
                    break
    pushed.megabytes = sum(writer.sent for writer in writers) / 1e6
    for client in silent:  # Only to keep them until here.
        client.close()
    return pushed


def _connect(port: int, plan: Plan) -> tuple[list[LoadClient], list[LoadClient]]:
    """Return those who will write, and those who only are there."""
    names_ = names(plan.count)
    if plan.kind == "own answers":
        return [log_in(port, name) for name in names_[::2]], []
    pairs = [open_chat(port, *names_[i : i + 2]) for i in range(0, len(names_), 2)]
    inviters, invitees = [a for a, _ in pairs], [b for _, b in pairs]
    return (inviters + invitees, []) if plan.kind == "both" else (inviters, invitees)


class _Writer:
    """A client that sends `data` over and over, `most` bytes of it at most."""

    def __init__(self, client: LoadClient, data: memoryview, most: int) -> None:
        self.client = client
        self.sent = 0
        self._data = data
        self._most = most

    def is_over(self, ready: int, pushed: Pushed) -> bool:
        """Do what can be done at once, and tell whether there is no more to do, and in `pushed`
        why.
        """
        try:
            if ready & selectors.EVENT_READ and self._has_heard_exit():
                pushed.told += 1
                return True
            if ready & selectors.EVENT_WRITE:
                begin = self.sent % len(self._data)
                # One record at a time: what TLS could not send must be offered again.
                self.sent += self.client.send_some(self._data[begin : begin + 16384])
        except (OSError, EOFError):
            pushed.cut_off += 1
            return True
        return self.sent >= self._most

    def _has_heard_exit(self) -> bool:
        """Read what has come, and tell whether the partner is gone."""
        while (packet := self.client.receive_now()) is not None:
            if packet == Packet(Command.ERROR, b"EXIT"):
                return True
        return False

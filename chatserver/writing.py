"""When what is written is sent: at once, and all that one read has caused in one go.

Twisted sends nothing before the reactor has found that the socket can take it, and joins small
writes by waiting for the reactor's next turn. That is three calls to the system for each write and
two turns for each message. But a socket can nearly always take what is written, and what belongs
together is known: what was written while something was read.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, TypeVar

from twisted.internet import tcp
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from chatserver.turns import PendingCall

if TYPE_CHECKING:
    _Connection = tcp.Server
else:
    _Connection = object

T = TypeVar("T")


class WriteThrough(_Connection):
    """Lets a connection send at once, and ask the reactor only about what is left."""

    bytes_written = 0
    """How many bytes it was given, sent or not."""

    def write(self, data: bytes) -> None:
        """Send `data`, or keep what can't be sent now."""
        is_open = self.connected and not self._writeDisconnected
        if is_open:
            self.bytes_written += len(data)
        if is_open and data and not (self.dataBuffer or self._tempDataLen):
            sent = self.writeSomeData(data)
            # An error is met again, and handled, when the reactor writes.
            if not isinstance(sent, Exception):
                if sent == len(data):
                    return
                data = data[sent:]
        super().write(data)  # type: ignore[no-untyped-call]


@cache
def write_through(connection: type[tcp.Server]) -> type[WriteThrough]:
    """Return a class of Twisted's connections (TCP's, a UNIX socket's) that sends at once."""
    return type(f"WriteThrough{connection.__name__}", (WriteThrough, connection), {})


class WriteBatch:
    """Calls functions at the end of the read that is under way, or else in the next turn.

    In Twisted's TLS it takes the place of the clock, which is there to send, 0 seconds later, what
    was written until then.

    :param clock: makes the calls outside of any read
    """

    _log = Logger()

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._is_open = False
        self._calls: list[PendingCall] = []

    def callLater(self, seconds: float, call: Callable[[], object]) -> PendingCall | IDelayedCall:
        """Call `call`, unless what this returns is cancelled before."""
        if not self._is_open:
            return self._clock.callLater(seconds, call)
        batched = PendingCall(call)
        self._calls.append(batched)
        return batched

    def run(self, read: Callable[[T], None], data: T) -> None:
        """Call `read` with `data`, and then what it has asked for."""
        if self._is_open:  # A read in a read: its writes go with the others.
            read(data)
            return
        self._is_open = True
        try:
            read(data)
        finally:
            self._is_open = False
            calls, self._calls = self._calls, []
            for each in calls:
                try:
                    each.make()
                except Exception:  # It is one connection's, and the others' wait.
                    self._log.failure("Could not send")

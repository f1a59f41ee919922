"""Finds the client that takes nothing of what waits for it."""

from __future__ import annotations

import struct
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

try:
    from fcntl import ioctl
    from termios import TIOCOUTQ
except ImportError:  # Windows, where only Twisted's buffers are known.
    ioctl = None  # type: ignore[assignment]

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from chatserver.limits import STALL_LOOKS


@dataclass(frozen=True, eq=False)
class SendingPosition:
    """Where a transport is in sending what waits.

    :ivar buffer_size: bytes in the buffer that Twisted is handing to the operating system
    :ivar offset: how many of them it has
    :ivar behind: what was written since, and has not gone into that buffer yet
    :ivar in_system: bytes that the operating system has, and the client does not
    """

    buffer_size: int
    offset: int
    behind: list[bytes]
    in_system: int

    def is_done(self) -> bool:
        """Tell whether nothing waits."""
        return not (self.behind or self.in_system or self.buffer_size > self.offset)

    def is_after(self, earlier: SendingPosition) -> bool:
        """Tell whether anything was sent since the transport was at `earlier`."""
        # Twisted begins a new list whenever it sends the last of the buffer, and else moves on
        # in it. What only was written meanwhile changes neither.
        return (
            self.behind is not earlier.behind
            or self.offset != earlier.offset
            or self.buffer_size != earlier.buffer_size
            or self.in_system != earlier.in_system
        )


def sending_position(transport: Any) -> SendingPosition | None:
    """Return where `transport`, TLS over TCP, is in sending, or None if it can't be known.

    A transport tells when all is sent, but not that some is: a reader that is slow would look
    like one that has stalled. So this reads what `twisted.internet.abstract` keeps; the TLS layer
    passes the names through. The operating system's own queue counts as well: it takes no more
    from Twisted before a good part of it, often megabytes, has gone to the client.
    """
    try:
        return SendingPosition(
            len(transport.dataBuffer),
            transport.offset,
            transport._tempDataBuffer,
            _bytes_in_system(transport.fileno()),
        )
    except AttributeError:
        return None


def _bytes_in_system(descriptor: int) -> int:
    """Return how many bytes of a socket are not sent, or not acknowledged; 0 if unknown."""
    if ioctl is not None:
        with suppress(OSError, ValueError):  # It has no such queue, or is no descriptor any more.
            (size,) = struct.unpack("i", ioctl(descriptor, TIOCOUTQ, bytes(4)))
            return int(size)
    return 0


class StallWatch:
    """Looks at intervals whether a connection sends what waits, and tells when it does not.

    It runs only while something waits, so that idle connections cost nothing.

    :param clock: the clock to look by
    :param timeout: seconds in which nothing is sent until `stalled` is called
    :param position: where the connection is in sending, as `sending_position` says
    :param stalled: called once, a tenth of `timeout` late at most
    """

    def __init__(
        self,
        clock: IReactorTime,
        timeout: float,
        position: Callable[[], SendingPosition | None],
        stalled: Callable[[], object],
    ) -> None:
        self._clock = clock
        self._interval = timeout / STALL_LOOKS
        self._position = position
        self._stalled = stalled
        self._next_look: IDelayedCall | None = None
        self._last: SendingPosition | None = None
        self._looks_left = STALL_LOOKS

    def start(self) -> None:
        """Something was written: look, unless that happens already."""
        if self._next_look is None:
            self._last = None
            self._next_look = self._clock.callLater(self._interval, self._look)

    def stop(self) -> None:
        """Look no more: the connection is closing."""
        if self._next_look is not None:
            self._next_look.cancel()
            self._next_look = None

    def _look(self) -> None:
        self._next_look = None
        position = self._position()
        if position is None or position.is_done():
            return
        if self._last is None or position.is_after(self._last):
            self._looks_left = STALL_LOOKS
        self._last = position
        self._looks_left -= 1
        if self._looks_left < 0:
            self._stalled()
        else:
            self._next_look = self._clock.callLater(self._interval, self._look)

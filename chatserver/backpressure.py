"""Bounds what waits for a client, and finds the client that takes nothing of it."""

from __future__ import annotations

import struct
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NamedTuple

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from chatserver.limits import BUFFER_SIZE, STALL_LOOKS

try:
    from fcntl import ioctl
    from termios import TIOCOUTQ
except ImportError:  # Windows, where only Twisted's buffers are known.
    ioctl = None  # type: ignore[assignment]


def bound_buffers(transport: Any) -> None:
    """Let `transport`, TLS over TCP, read `BUFFER_SIZE` bytes at once, and no more than that wait
    in it before it pauses its producer.
    """
    while (below := getattr(transport, "transport", None)) is not None:  # TLS, a PROXY header
        transport = below
    transport.bufferSize = BUFFER_SIZE


class Progress(NamedTuple):
    """How many bytes wait for a client, and how many it has taken."""

    waiting: int
    taken: int


def progress(transport: Any) -> Progress:
    """Return how far what was given to `transport`, TLS over TCP, has come to the client.

    A transport tells when all is sent, but not that some is: a reader that is slow would look
    like one that has stalled. So this reads what `twisted.internet.abstract` and `WriteThrough`
    keep; the TLS layer passes the names through, and where they are missing nothing is known to
    wait. What the operating system has waits as well: often megabytes, of which the client takes
    its time to acknowledge any.
    """
    try:
        unsent = len(transport.dataBuffer) - transport.offset + transport._tempDataLen
        written = transport.bytes_written
        descriptor = transport.fileno()
    except AttributeError:
        return Progress(0, 0)
    waiting = int(unsent) + _count_unacknowledged(descriptor)
    return Progress(waiting, written - waiting)


def _count_unacknowledged(descriptor: int) -> int:
    """Return how many bytes of a socket the other side has not acknowledged; 0 if unknown."""
    if ioctl is not None:
        with suppress(OSError, ValueError):  # It has no such queue, or is no descriptor any more.
            (size,) = struct.unpack("i", ioctl(descriptor, TIOCOUTQ, bytes(4)))
            return int(size)
    return 0


class StallWatch:
    """Looks at intervals whether a client takes some of what waits for it, and tells when not.

    It runs only while something waits, so that idle connections cost nothing.

    :param clock: the clock to look by
    :param timeout: seconds in which nothing is taken until `stalled` is called; None is never
    :param look: how far the client has come, as `progress` says
    :param stalled: called once, a tenth of `timeout` late at most
    """

    def __init__(
        self,
        clock: IReactorTime,
        timeout: float | None,
        look: Callable[[], Progress],
        stalled: Callable[[], object],
    ) -> None:
        self._clock = clock
        self._interval = None if timeout is None else timeout / STALL_LOOKS
        self._progress = look
        self._stalled = stalled
        self._next_look: IDelayedCall | None = None
        self._taken: int | None = None
        self._looks_left = STALL_LOOKS

    def wrote(self) -> None:
        """Something was written: look from now on, unless that happens already."""
        if self._next_look is None:
            self._taken = None
            self._look_later()

    def stop(self) -> None:
        """Look no more: the connection is closing."""
        if self._next_look is not None:
            self._next_look.cancel()
            self._next_look = None

    def _look(self) -> None:
        self._next_look = None
        waiting, taken = self._progress()
        if not waiting:
            return
        if self._taken is None or taken > self._taken:
            self._taken = taken
            self._looks_left = STALL_LOOKS
        self._looks_left -= 1
        if self._looks_left < 0:
            self._stalled()
        else:
            self._look_later()

    def _look_later(self) -> None:
        if self._interval is not None:
            self._next_look = self._clock.callLater(self._interval, self._look)

"""Finds the client that takes nothing of what waits for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from chatserver.limits import STALL_LOOKS


def sending_position(transport: Any) -> tuple[int, int] | None:
    """Return where `transport`, TLS over TCP, is in sending what waits, or None if nothing does.

    Two positions are equal when nothing was sent between them.
    """
    # A transport tells when all was sent, but not that some was: a reader that is slow would
    # look like one that has stalled. So this reads what twisted.internet.abstract keeps; the
    # TLS layer passes the names through. Where they are missing nothing is known to wait.
    try:
        size, offset = len(transport.dataBuffer), transport.offset
        if size > offset or transport._tempDataLen:
            return size, offset
    except AttributeError:
        pass
    return None


class StallWatch:
    """Looks at intervals whether a connection sends what waits, and tells when it does not.

    It runs only while something waits, so that idle connections cost nothing.

    :param clock: the clock to look by
    :param timeout: seconds without progress until `stalled` is called
    :param position: where the connection is in sending, as `sending_position` says
    :param stalled: called once, when nothing was sent for `timeout` seconds
    """

    def __init__(
        self,
        clock: IReactorTime,
        timeout: float,
        position: Callable[[], tuple[int, int] | None],
        stalled: Callable[[], object],
    ) -> None:
        self._clock = clock
        self._interval = timeout / STALL_LOOKS
        self._position = position
        self._stalled = stalled
        self._next_look: IDelayedCall | None = None
        self._last_position: tuple[int, int] | None = None
        self._looks_left = STALL_LOOKS

    def start(self) -> None:
        """Something was written: look, unless that happens already."""
        if self._next_look is None:
            self._last_position = None
            self._next_look = self._clock.callLater(self._interval, self._look)

    def stop(self) -> None:
        """Look no more: the connection is closing."""
        if self._next_look is not None:
            self._next_look.cancel()
            self._next_look = None

    def _look(self) -> None:
        self._next_look = None
        position = self._position()
        if position is None:
            return
        if position != self._last_position:
            self._last_position = position
            self._looks_left = STALL_LOOKS
        self._looks_left -= 1
        if self._looks_left < 0:
            self._stalled()
        else:
            self._next_look = self._clock.callLater(self._interval, self._look)

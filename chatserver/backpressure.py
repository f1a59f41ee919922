"""Finds the client that takes nothing of what waits for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from chatserver.limits import STALL_LOOKS


@dataclass(frozen=True, eq=False)
class SendingPosition:
    """Where a transport is in sending what waits.

    :ivar buffer_size: bytes in the buffer that is being sent
    :ivar offset: how many of them are sent
    :ivar behind: what was written since, and has not gone into that buffer yet
    """

    buffer_size: int
    offset: int
    behind: list[bytes]

    def is_after(self, earlier: SendingPosition) -> bool:
        """Tell whether the transport could send at all since it was at `earlier`."""
        # It begins a new list whenever it sends the last of the buffer, and else moves on in
        # it. What only was written meanwhile changes neither.
        return (
            self.behind is not earlier.behind
            or self.offset != earlier.offset
            or self.buffer_size != earlier.buffer_size
        )


def sending_position(transport: Any) -> SendingPosition | None:
    """Return where `transport`, TLS over TCP, is in sending what waits, or None if nothing does.

    A transport tells when all is sent, but not that some is: a reader that is slow would look
    like one that has stalled. So this reads what `twisted.internet.abstract` keeps; the TLS layer
    passes the names through. Where they are missing nothing is known to wait.
    """
    try:
        position = SendingPosition(
            len(transport.dataBuffer), transport.offset, transport._tempDataBuffer
        )
    except AttributeError:
        return None
    return position if position.behind or position.buffer_size > position.offset else None


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
        if position is None:
            return
        if self._last is None or position.is_after(self._last):
            self._looks_left = STALL_LOOKS
        self._last = position
        self._looks_left -= 1
        if self._looks_left < 0:
            self._stalled()
        else:
            self._next_look = self._clock.callLater(self._interval, self._look)

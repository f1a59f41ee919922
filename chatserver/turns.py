"""Calls that wait for their turn."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from twisted.internet.interfaces import IReactorTime

from chatserver.limits import TURN_TIME


class PendingCall:
    """A call that is still to be made, unless it is cancelled.

    :param function: what is called
    """

    __slots__ = ("function",)

    def __init__(self, function: Callable[[], object]) -> None:
        self.function: Callable[[], object] | None = function

    def cancel(self) -> None:
        """Don't make it."""
        self.function = None

    def make(self) -> None:
        """Make it, if it has not been cancelled."""
        if self.function is not None:
            self.function()


class TurnQueue:
    """Makes calls in each turn of the reactor for `TURN_TIME`, the first come first.

    For what may take so long that others would notice if several were made in a row. What takes
    next to nothing has no turn of its own: many such calls would keep the others from theirs.

    :param clock: the reactor's
    """

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._waiting: deque[PendingCall] = deque()
        self._is_scheduled = False

    def call(self, function: Callable[[], object]) -> PendingCall:
        """Call `function` when it is its turn: the next one at the earliest."""
        pending = PendingCall(function)
        self._waiting.append(pending)
        self._schedule()
        return pending

    def _schedule(self) -> None:
        if self._waiting and not self._is_scheduled:
            self._is_scheduled = True
            self._clock.callLater(0, self._make_next)

    def _make_next(self) -> None:
        self._is_scheduled = False
        end = self._clock.seconds() + TURN_TIME
        try:
            while self._waiting:
                pending = self._waiting.popleft()
                pending.make()
                if pending.function is not None and self._clock.seconds() >= end:
                    break
        finally:
            self._schedule()

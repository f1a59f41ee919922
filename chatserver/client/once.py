"""Something that happens once, and that any number may wait for."""

from __future__ import annotations

from typing import Generic, TypeVar

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

_Result = TypeVar("_Result")


class Once(Generic[_Result]):
    """Fires once, with a result or an exception; who asks later hears the same."""

    def __init__(self) -> None:
        self._outcome: list[_Result | Failure] = []
        self._waiters: list[Deferred[_Result]] = []

    def when_fired(self) -> Deferred[_Result]:
        """Return a new Deferred that fires when this does."""
        waiter: Deferred[_Result] = Deferred()
        self._waiters.append(waiter)
        self._tell()
        return waiter

    def fire(self, outcome: _Result | Failure) -> None:
        """Tell all who wait. What comes after the first time counts for nothing."""
        if not self._outcome:
            self._outcome.append(outcome)
            self._tell()

    def _tell(self) -> None:
        for outcome in self._outcome:
            waiters, self._waiters = self._waiters, []
            for waiter in waiters:
                waiter.callback(outcome)

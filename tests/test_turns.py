"""Tests for `chatserver.turns`."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from chatserver.limits import TURN_TIME
from chatserver.turns import PendingCall, TurnQueue


class Turns(Clock):
    """A clock whose turns are the test's: what is asked for in one is done in the next."""

    def turn(self) -> None:
        """Make all calls that are due, and none that they ask for."""
        calls, self.calls = self.calls, []
        for call in calls:
            call.called = 1
            call.func()


class TurnQueueTests(SynchronousTestCase):
    """Calls of which some are made in a turn."""

    def setUp(self) -> None:
        self.clock = Turns()
        self.queue = TurnQueue(self.clock)
        self.called: list[int] = []

    def call(self, number: int, seconds: float = TURN_TIME) -> PendingCall:
        """Call what takes some time."""

        def function() -> None:
            self.called.append(number)
            self.clock.rightNow += seconds

        return self.queue.call(function)

    def test_long_calls(self) -> None:
        """One long call is made in each turn, in their order; what comes meanwhile waits behind."""
        for number in range(3):
            self.call(number)
        self.assertEqual(self.called, [])
        for count in range(1, 4):
            self.clock.turn()
            self.assertEqual(self.called, list(range(count)))
            if count == 1:
                self.call(3)
        self.clock.turn()
        self.assertEqual(self.called, [0, 1, 2, 3])
        self.assertEqual(self.clock.calls, [])

    def test_short_calls(self) -> None:
        """Calls that take less time are made in a turn until it is over."""
        for number in range(10):
            self.call(number, TURN_TIME / 4)
        for count in (4, 8, 10):
            self.clock.turn()
            self.assertEqual(self.called, list(range(count)))
        self.assertEqual(self.clock.calls, [])

    def test_cancel(self) -> None:
        """What is cancelled takes no turn."""
        calls = [self.call(number) for number in range(4)]
        for number in (0, 1, 3):
            calls[number].cancel()
        self.clock.turn()
        self.assertEqual(self.called, [2])
        self.clock.turn()
        self.assertEqual(self.clock.calls, [])

    def test_fault(self) -> None:
        """A call that fails keeps no other from being made."""
        self.queue.call(lambda: 1 // 0)
        self.queue.call(lambda: self.called.append(1))
        self.assertRaises(ZeroDivisionError, self.clock.turn)
        self.clock.turn()
        self.assertEqual(self.called, [1])

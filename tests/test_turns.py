"""Tests for `chatserver.turns`."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from chatserver.turns import TurnQueue


class Turns(Clock):
    """A clock whose turns are the test's: what is asked for in one is done in the next."""

    def turn(self) -> None:
        """Make all calls that are due, and none that they ask for."""
        calls, self.calls = self.calls, []
        for call in calls:
            call.called = 1
            call.func()


class TurnQueueTests(SynchronousTestCase):
    """Calls that are made one in a turn."""

    def setUp(self) -> None:
        self.clock = Turns()
        self.queue = TurnQueue(self.clock)
        self.called: list[int] = []

    def test_one_in_a_turn(self) -> None:
        """One call is made in each turn, in their order; what comes meanwhile waits behind."""
        for number in range(3):
            self.queue.call(lambda number=number: self.called.append(number))
        self.assertEqual(self.called, [])
        for count in range(1, 4):
            self.clock.turn()
            self.assertEqual(self.called, list(range(count)))
            if count == 1:
                self.queue.call(lambda: self.called.append(3))
        self.clock.turn()
        self.assertEqual(self.called, [0, 1, 2, 3])
        self.assertEqual(self.clock.calls, [])

    def test_cancel(self) -> None:
        """What is cancelled takes no turn."""
        calls = [self.queue.call(lambda n=n: self.called.append(n)) for n in range(4)]
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

"""Tests for `chatserver.steady`."""

from __future__ import annotations

import time
from types import SimpleNamespace

from twisted.internet.base import DelayedCall
from twisted.internet.selectreactor import SelectReactor
from twisted.trial.unittest import SynchronousTestCase

from chatserver.steady import steady


class SteadyTests(SynchronousTestCase):
    """The time of a reactor."""

    def test_clock_is_set(self) -> None:
        """It goes on from the time of day, and stays with it when somebody sets the clock."""
        reactor = SimpleNamespace(seconds=time.time)
        before = time.time()
        steady(reactor)
        self.assertGreaterEqual(reactor.seconds(), before - 0.001)
        for step in (-3600.0, 3600.0):
            now = reactor.seconds()
            self.patch(time, "time", lambda step=step: before + step)
            self.assertGreaterEqual(reactor.seconds(), now)
            self.assertLess(reactor.seconds(), now + 60)

    def test_real_reactor(self) -> None:
        """Twisted's own reactor times its calls by it."""
        reactor = SelectReactor()
        self.addCleanup(reactor.removeAll)
        steady(reactor)
        self.patch(time, "time", lambda: 0.0)
        call = reactor.callLater(10, self.fail)
        assert isinstance(call, DelayedCall)
        self.assertTrue(5 < (reactor.timeout() or 0.0) <= 10)
        call.cancel()

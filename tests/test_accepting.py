"""Tests for `chatserver.accepting`."""

from __future__ import annotations

import errno
from typing import Any
from unittest import mock

from twisted.internet import tcp
from twisted.internet.interfaces import IPushProducer
from twisted.internet.task import Clock
from twisted.logger import Logger
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from chatserver.accepting import AcceptBackoff
from chatserver.limits import ACCEPT_BACKOFF
from tests.logs import keep_texts


@implementer(IPushProducer)
class Port:
    """Notes whether it accepts clients."""

    accepts = True

    def pauseProducing(self) -> None:
        self.accepts = False

    def resumeProducing(self) -> None:
        self.accepts = True

    def stopProducing(self) -> None:
        raise NotImplementedError


class AcceptBackoffTests(SynchronousTestCase):
    """A port at which accept fails."""

    def setUp(self) -> None:
        self.port, self.clock = Port(), Clock()
        self.rest = AcceptBackoff(self.port, self.clock)  # type: ignore[arg-type]
        self.rest.start()

    def fail_to_accept(self) -> None:
        """Log what Twisted logs."""
        Logger().info("Could not accept new connection ({acceptError})", acceptError="ENFILE")

    def test_rest(self) -> None:
        """It accepts nobody for a while, each time that accept fails, and then goes on."""
        for _ in range(2):
            self.fail_to_accept()
            self.assertFalse(self.port.accepts)
            self.clock.advance(ACCEPT_BACKOFF / 2)
            self.fail_to_accept()
            self.assertEqual(len(self.clock.getDelayedCalls()), 1)
            self.clock.advance(ACCEPT_BACKOFF / 2)
            self.assertTrue(self.port.accepts)
        self.rest.stop()

    def test_reserve(self) -> None:
        """What to do is told, now and then, also while Twisted can close who waits."""
        told = keep_texts(self)
        for times in (1, 2):
            for _ in range(10):
                self.use_reserve()
            self.assertEqual(sum("raise the file limit" in each for each in told), times)
            self.assertTrue(self.port.accepts)
            self.clock.advance(ACCEPT_BACKOFF)
        self.rest.stop()

    def use_reserve(self) -> None:
        """Let Twisted log what it does when accept fails and there is a file in reserve."""
        listener: Any = mock.Mock()
        listener.accept.side_effect = [OSError(errno.EMFILE, ""), BlockingIOError(errno.EAGAIN, "")]
        reserve = tcp._FileDescriptorReservation(mock.Mock)
        reserve.reserve()
        self.assertEqual(list(tcp._accept(Logger(), range(2), listener, reserve)), [])

    def test_stop(self) -> None:
        """When the server stops the port is let alone, also in the midst of a rest."""
        self.fail_to_accept()
        self.rest.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertFalse(self.port.accepts)
        self.port.resumeProducing()
        self.fail_to_accept()
        self.assertTrue(self.port.accepts)

    def test_other_events(self) -> None:
        """Nothing else that is logged makes it rest, nor a client that went before its turn."""
        Logger().info("Could not accept")
        Logger().info("Could not accept ({acceptError})", acceptError="ECONNABORTED")
        self.assertTrue(self.port.accepts)
        self.rest.stop()

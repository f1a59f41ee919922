"""Tests for `chatserver.backpressure` on a real socket; tests.test_protocol has the rest."""

from __future__ import annotations

import select
import socket
from types import SimpleNamespace
from typing import Any

from twisted.trial.unittest import TestCase

from chatserver import backpressure
from chatserver.backpressure import sending_position


class SendingPositionTests(TestCase):
    """`sending_position` and what the operating system has."""

    def setUp(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self.sender = socket.create_connection(listener.getsockname())
            self.reader, _ = listener.accept()
        self.addCleanup(self.sender.close)
        self.addCleanup(self.reader.close)
        self.sender.setblocking(False)
        self.transport = SimpleNamespace(
            dataBuffer=b"", offset=0, _tempDataBuffer=[], fileno=self.sender.fileno
        )

    def position(self) -> Any:
        return sending_position(self.transport)

    def fill(self) -> None:
        """Send until the operating system takes no more."""
        while select.select([], [self.sender], [], 0.1)[1]:
            self.sender.send(bytes(2**20))

    def test_nothing_waits(self) -> None:
        """When the client has all, and Twisted has nothing, it is done."""
        self.assertTrue(self.position().is_done())

    def test_system_moves(self) -> None:
        """A client that reads a little moves on, though Twisted can't send anything yet."""
        if backpressure.ioctl is None:
            self.skipTest("this system does not tell what it has not sent")
        self.fill()
        before = self.position()
        self.assertFalse(before.is_done())
        self.assertFalse(self.position().is_after(before))
        while not self.position().is_after(before):
            self.assertTrue(self.reader.recv(2**16))

    def test_twisted_moves(self) -> None:
        """What was only written does not move on; what Twisted began to send does."""
        self.transport._tempDataBuffer.append(b"one")
        before = self.position()
        self.assertFalse(before.is_done())
        self.transport._tempDataBuffer.append(b"two")
        self.assertFalse(self.position().is_after(before))
        self.transport.dataBuffer, self.transport._tempDataBuffer = b"onetwo", []
        sending = self.position()
        self.assertTrue(sending.is_after(before))
        self.transport.offset = 3
        self.assertTrue(self.position().is_after(sending))

    def test_closed(self) -> None:
        """A socket that is closed has nothing in the operating system."""
        self.sender.close()
        self.assertTrue(self.position().is_done())

    def test_other_transports(self) -> None:
        """Of a transport that is not like Twisted's own nothing is known."""
        self.assertIsNone(sending_position(object()))

"""Tests for `chatserver.writing`."""

from __future__ import annotations

from typing import Any

from twisted.internet.task import Clock
from twisted.internet.tcp import Server
from twisted.trial.unittest import SynchronousTestCase

from chatserver.writing import WriteBatch, write_through


class Socket:
    """Takes `room` bytes, and is broken if that is negative."""

    def __init__(self, room: int) -> None:
        self.room = room
        self.sent = b""

    def send(self, data: bytes) -> int:
        if self.room < 0:
            raise ConnectionResetError(104, "reset")
        if not self.room:
            raise BlockingIOError(11, "would block")
        taken = bytes(data[: self.room])
        self.room -= len(taken)
        self.sent += taken
        return len(taken)

    def __getattr__(self, name: str) -> Any:
        return lambda *_: 0


class Reactor(Clock):
    """Notes who waits to write."""

    def __init__(self) -> None:
        super().__init__()
        self.writers: set[Any] = set()
        self.addWriter = self.writers.add
        self.removeWriter = self.writers.discard
        self.addReader = self.removeReader = lambda _: None


class WriteThroughTests(SynchronousTestCase):
    """A connection that sends at once."""

    def connection(self, room: int) -> Any:
        """Return a connection whose socket takes `room` bytes."""
        self.reactor = Reactor()
        self.socket = Socket(room)
        return write_through(Server)(
            self.socket,
            None,
            ("192.0.2.1", 1),
            None,
            0,
            self.reactor,  # type: ignore[arg-type]
        )

    def test_at_once(self) -> None:
        """What the socket can take is sent, and the reactor has nothing to do."""
        connection = self.connection(100)
        connection.write(b"hello")
        connection.write(b"")
        self.assertEqual(self.socket.sent, b"hello")
        self.assertEqual(self.reactor.writers, set())

    def test_rest(self) -> None:
        """What is left waits for the reactor, and what is written then waits behind it."""
        connection = self.connection(3)
        for text in (b"hello", b", ", b"world"):
            connection.write(text)
        self.assertEqual(self.socket.sent, b"hel")
        self.assertEqual(self.reactor.writers, {connection})
        self.socket.room = 100
        connection.write(b"!")
        self.assertEqual(self.socket.sent, b"hel")
        connection.doWrite()
        self.assertEqual(self.socket.sent, b"hello, world!")
        self.assertEqual(self.reactor.writers, set())
        connection.write(b"?")
        self.assertEqual(self.socket.sent, b"hello, world!?")

    def test_producer(self) -> None:
        """A producer is paused while more than its share is left, and not by what is sent."""
        told: list[str] = []

        class Producer:
            pauseProducing = staticmethod(lambda: told.append("pause"))
            resumeProducing = staticmethod(lambda: told.append("resume"))
            stopProducing = staticmethod(lambda: None)

        connection = self.connection(1000)
        connection.bufferSize = 10
        connection.registerProducer(Producer(), True)
        connection.write(bytes(990))
        self.assertEqual(told, [])
        connection.write(bytes(30))
        self.assertEqual(told, ["pause"])
        self.socket.room = 100
        connection.doWrite()
        self.assertEqual(told, ["pause", "resume"])

    def test_writing_side_closed(self) -> None:
        """Once its writing side is closed, nothing is sent any more."""
        connection = self.connection(100)
        connection.loseWriteConnection()
        connection.doWrite()
        connection.write(b"hello")
        self.assertEqual(self.socket.sent, b"")

    def test_broken(self) -> None:
        """A socket that is broken is found so by the reactor, not in the midst of a write."""
        connection = self.connection(-1)
        connection.write(b"hello")
        self.assertTrue(connection.connected)
        self.assertEqual(self.reactor.writers, {connection})
        self.assertIsInstance(connection.doWrite(), Exception)


class BatchTests(SynchronousTestCase):
    """Calls at the end of a read."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.batch = WriteBatch(self.clock)
        self.called: list[object] = []

    def call(self, what: object) -> Any:
        """Ask for a call."""
        return self.batch.callLater(0, lambda: self.called.append(what))

    def read(self, data: bytes) -> None:
        """Ask for two calls, one of which is cancelled."""
        self.call("cancelled").cancel()
        self.call(data)
        self.assertEqual(self.called, [])

    def test_read(self) -> None:
        """What was asked for in a read is done at its end."""
        self.batch.run(self.read, b"data")
        self.assertEqual(self.called, [b"data"])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_outside(self) -> None:
        """What is asked for at any other time is done in the next turn."""
        self.call("later")
        self.assertEqual(self.called, [])
        self.clock.advance(0)
        self.assertEqual(self.called, ["later"])

    def test_read_in_a_read(self) -> None:
        """A read that another one causes is a part of that."""

        def outer(data: bytes) -> None:
            self.batch.run(self.read, data)
            self.assertEqual(self.called, [])

        self.batch.run(outer, b"data")
        self.assertEqual(self.called, [b"data"])

    def test_fault(self) -> None:
        """A read that fails does not keep what others wrote in it."""

        def fail(data: bytes) -> None:
            self.call(data)
            raise ValueError

        self.assertRaises(ValueError, self.batch.run, fail, b"data")
        self.assertEqual(self.called, [b"data"])
        self.call("later")
        self.assertEqual(self.called, [b"data"])

    def test_call_that_fails(self) -> None:
        """One connection's trouble does not keep what is written to another."""

        def read(data: bytes) -> None:
            self.batch.callLater(0, lambda: 1 / 0)
            self.call(data)

        self.batch.run(read, b"data")
        self.assertEqual(self.called, [b"data"])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

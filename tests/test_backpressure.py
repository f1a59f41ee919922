"""Tests for `chatserver.backpressure`; tests.test_protocol has those over whole connections."""

from __future__ import annotations

import select
import socket
from types import SimpleNamespace

from twisted.internet.abstract import FileDescriptor
from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase

from chatserver import backpressure
from chatserver.backpressure import Progress, StallWatch, bound_buffers, progress
from chatserver.limits import BUFFER_SIZE


class BoundBuffersTests(TestCase):
    """`bound_buffers`."""

    def test_lowest(self) -> None:
        """The size is that of the transport that has the socket, whatever is on top of it."""
        tcp = SimpleNamespace(bufferSize=2**16)
        bound_buffers(SimpleNamespace(transport=SimpleNamespace(transport=tcp)))
        self.assertEqual(tcp.bufferSize, BUFFER_SIZE)

    def test_twisted(self) -> None:
        """Twisted's transports do have it, and read and pause their producers by it."""
        self.assertIsInstance(FileDescriptor.bufferSize, int)


class ProgressTests(TestCase):
    """`progress`, on a real socket."""

    def setUp(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self.sender = socket.create_connection(listener.getsockname())
            self.reader, _ = listener.accept()
        self.addCleanup(self.sender.close)
        self.addCleanup(self.reader.close)
        self.sender.setblocking(False)
        self.transport = SimpleNamespace(
            dataBuffer=b"", offset=0, _tempDataLen=0, bytes_written=0, fileno=self.sender.fileno
        )

    def test_nothing(self) -> None:
        """Nothing waits when the client has all, and Twisted has nothing."""
        self.assertEqual(progress(self.transport), (0, 0))

    def test_in_twisted(self) -> None:
        """What Twisted has not handed over waits."""
        self.transport.dataBuffer, self.transport.offset = b"123456", 2
        self.transport._tempDataLen = 10
        self.transport.bytes_written = 20
        self.assertEqual(progress(self.transport), (14, 6))

    def test_in_system(self) -> None:
        """What the operating system has waits too, and less of it when the client has read."""
        if backpressure.ioctl is None:
            self.skipTest("this system does not tell what it has not sent")
        while select.select([], [self.sender], [], 0.1)[1]:
            self.sender.send(bytes(2**20))
        full = progress(self.transport).waiting
        self.assertGreater(full, 0)
        while progress(self.transport).waiting >= full:
            self.assertTrue(self.reader.recv(2**16))

    def test_closed(self) -> None:
        """Of a socket that is closed nothing waits."""
        self.sender.close()
        self.assertEqual(progress(self.transport), (0, 0))

    def test_other_transports(self) -> None:
        """Of a transport that is not like Twisted's own nothing is known to wait."""
        self.assertEqual(progress(object()), (0, 0))


class StallWatchTests(TestCase):
    """`StallWatch`, with a clock."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.waiting = self.written = 0
        self.stalled: list[float] = []
        self.watch = StallWatch(
            self.clock, 60, self.look, lambda: self.stalled.append(self.clock.seconds())
        )

    def look(self) -> Progress:
        """See `progress`."""
        return Progress(self.waiting, self.written - self.waiting)

    def write(self, size: int, taken: int) -> None:
        """Write `size` bytes to a client that takes `taken`."""
        self.written += size
        self.waiting += size - taken
        self.watch.wrote()

    def test_nothing_taken(self) -> None:
        """A client that takes nothing is told of, once, after the time-out and a tenth at most."""
        self.write(100, taken=0)
        self.clock.pump([1] * 200)
        self.assertEqual(self.stalled, [66])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_nothing_taken_while_more_comes(self) -> None:
        """It is the same when now and then more is written."""
        for _ in range(70):
            self.write(10, taken=0)
            self.clock.advance(1)
        self.assertEqual(self.stalled, [66])

    def test_little_taken(self) -> None:
        """A client that takes a little each minute is not told of."""
        self.write(1000, taken=0)
        for _ in range(10):
            self.clock.pump([1] * 59)
            self.waiting -= 1
        self.assertEqual(self.stalled, [])

    def test_all_taken_but_the_newest(self) -> None:
        """A client that takes all is not told of, though something new waits at each look."""
        self.write(10, taken=0)
        for _ in range(100):
            self.write(10, taken=10)
            self.clock.advance(6)
        self.assertEqual(self.stalled, [])

    def test_less_taken_than_written(self) -> None:
        """A client that takes some all the time is not told of, however much more is written."""
        for _ in range(100):
            self.write(1000, taken=1)
            self.clock.advance(6)
        self.assertEqual(self.stalled, [])

    def test_done(self) -> None:
        """When nothing waits, nothing runs; it begins again with the next write."""
        self.write(10, taken=10)
        self.clock.advance(6)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.write(10, taken=0)
        self.clock.pump([1] * 70)
        self.assertEqual(self.stalled, [72])

    def test_stop(self) -> None:
        """Once stopped, it tells nothing."""
        self.write(10, taken=0)
        self.watch.stop()
        self.clock.pump([1] * 70)
        self.assertEqual(self.stalled, [])

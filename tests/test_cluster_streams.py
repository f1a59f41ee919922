"""Tests for `chatserver.cluster.streams`: two machines, and a network that loses messages."""

from __future__ import annotations

from collections import deque
from random import Random

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from chatserver.cluster.messages import (
    UnreadableError,
    Withdraw,
    decode_body,
    decode_frame,
    encode_frame,
)
from chatserver.cluster.streams import Stream
from chatserver.limits import CLUSTER_BEAT_INTERVAL


class End:
    """One machine's end of a stream, and what has come there since it broke last."""

    def __init__(self, name: str, clock: Clock) -> None:
        self.under_way: deque[bytes] = deque()
        self.received: list[int] = []
        self.sent: list[int] = []
        self.breaks: list[str] = []
        self.stream = Stream(name * 12, clock, self.under_way.append, self.broken)

    def broken(self, reason: str) -> None:
        self.breaks.append(reason)
        self.received.clear()
        self.sent.clear()

    def send(self, number: int) -> None:
        """Send a message that can be told from others."""
        self.sent.append(number)
        self.stream.send(Withdraw(number))

    def take(self, data: bytes) -> None:
        """Take what came from the other machine."""
        frame = decode_frame(data)
        if self.stream.follows(frame):
            body = decode_body(frame)
            assert isinstance(body, Withdraw)
            self.received.append(body.invitation)


class StreamTests(SynchronousTestCase):
    """Two ends."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.a, self.b = End("a", self.clock), End("b", self.clock)
        self.ways = ((self.a, self.b), (self.b, self.a))

    def carry(self) -> None:
        """Carry all that is under way, both ways."""
        while self.a.under_way or self.b.under_way:
            for source, target in self.ways:
                while source.under_way:
                    target.take(source.under_way.popleft())

    def beat(self) -> None:
        """Let both tell how far they are, and let that arrive."""
        self.clock.advance(CLUSTER_BEAT_INTERVAL)
        self.a.stream.beat()
        self.b.stream.beat()
        self.carry()

    def test_order(self) -> None:
        """What is sent arrives once and in order, with beats in between, and nothing breaks."""
        for number in range(10):
            self.a.send(number)
            self.b.send(100 + number)
            self.beat()
        self.assertEqual(self.b.received, list(range(10)))
        self.assertEqual(self.a.received, list(range(100, 110)))
        self.assertEqual((self.a.breaks, self.b.breaks), ([], []))

    def test_missing(self) -> None:
        """When a message is missing both ends break, once, and then go on."""
        self.a.send(1)
        self.carry()
        self.a.send(2)
        self.a.under_way.clear()
        self.a.send(3)
        self.b.send(4)
        self.carry()
        self.assertEqual(self.b.breaks, ["messages are missing"])
        self.assertEqual(self.a.breaks, ["it has begun anew"])
        self.a.send(5)
        self.b.send(6)
        self.carry()
        self.assertEqual((self.a.received, self.b.received), ([6], [5]))

    def test_last_one_missing(self) -> None:
        """The next beat shows that the last message is missing."""
        self.a.send(1)
        self.a.under_way.clear()
        self.beat()
        self.assertEqual(len(self.a.breaks), 1)
        self.assertEqual(len(self.b.breaks), 1)

    def test_beats_may_get_lost(self) -> None:
        """A beat that is lost breaks nothing."""
        for number in range(3):
            self.a.stream.beat()
            self.a.under_way.clear()
            self.a.send(number)
            self.carry()
        self.assertEqual(self.b.received, [0, 1, 2])
        self.assertEqual(self.b.breaks, [])

    def test_begun_while_nobody_hears(self) -> None:
        """Who begins anew while nothing arrives is heard with its next message."""
        self.a.send(1)
        self.carry()
        self.a.stream.begin()
        self.a.stream.beat()
        self.a.under_way.clear()
        self.a.send(2)
        self.carry()
        self.assertEqual(self.b.received, [2])
        self.assertEqual(self.b.breaks, ["it has begun anew"])

    def test_both_begin(self) -> None:
        """When both begin anew at once they are in the same generation."""
        for end in (self.a, self.b):
            end.stream.begin()
            end.stream.beat()
            end.send(1)
        self.carry()
        self.assertEqual((self.a.received, self.b.received), ([1], [1]))
        self.assertEqual((self.a.breaks, self.b.breaks), ([], []))

    def test_lie(self) -> None:
        """A generation that can't be is refused, and changes nothing."""
        self.a.send(1)
        self.carry()
        frame = encode_frame("a" * 12, 2**63 - 1, 1, Withdraw(2))
        self.assertRaises(UnreadableError, self.b.take, frame)
        self.a.send(3)
        self.carry()
        self.assertEqual(self.b.received, [1, 3])

    def test_random(self) -> None:
        """Whatever is lost, in the end each has all that the other has sent since both broke, and
        there is no flood of beats.
        """
        for seed in range(300):
            random = Random(seed)
            self.setUp()
            carried = 0
            for number in range(200):
                end = random.choice((self.a, self.b))
                chance = random.random()
                if chance < 0.6:
                    end.send(number)
                elif chance < 0.7:
                    end.stream.beat()
                elif chance < 0.72:
                    end.broken("it is silent")
                    end.stream.begin()
                    end.stream.beat()
                elif chance < 0.75 and end.under_way:
                    end.under_way.popleft()
                self.clock.advance(random.choice((0, 0, 0.1, 1)))
                for source, target in self.ways:
                    for _ in range(random.randint(0, 3)):
                        if source.under_way:
                            target.take(source.under_way.popleft())
                            carried += 1
            for _ in range(3):
                self.beat()
            self.assertEqual(self.a.received, self.b.sent, seed)
            self.assertEqual(self.b.received, self.a.sent, seed)
            self.assertLess(carried, 800)

"""How a connection to NATS does what it is asked for, one after the other."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from twisted.internet.task import Clock
from twisted.logger import LogEvent, formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from chatserver.cluster import bus as cluster_bus
from chatserver.cluster.bus import Heard, NatsAddress, NatsBus
from chatserver.writing import WriteBatch


class SlowClient:
    """A connection to a NATS that takes what it is told only when the test says so."""

    is_connected = True
    is_reconnecting = False
    max_payload = 1 << 20
    connected_url = None

    def __init__(self, *_: object) -> None:
        self.said: list[bytes] = []
        self.can_go_on = asyncio.Event()
        self.heard: dict[str, Callable[[Any], Awaitable[None]]] = {}

    async def connect(self, **_: object) -> None:
        """Connect."""

    async def close(self) -> None:
        """Close."""

    async def publish(self, _subject: str, data: bytes, _reply: str) -> None:
        """Take `data`, once that may be."""
        await self.can_go_on.wait()
        self.said.append(data)

    async def subscribe(self, subject: str, cb: Callable[[Any], Awaitable[None]]) -> None:
        """Listen."""
        self.heard[subject] = cb


class Message:
    """What NATS hands over."""

    headers = None

    def __init__(self, subject: str) -> None:
        self.subject = subject
        self.data = b"data"


class NatsBusTests(SynchronousTestCase):
    """A bus with a connection that is slow."""

    def setUp(self) -> None:
        self.lines: list[str] = []

        def observe(event: LogEvent) -> None:
            self.lines.append(formatEvent(event))

        globalLogPublisher.addObserver(observe)
        self.addCleanup(globalLogPublisher.removeObserver, observe)
        self.patch(cluster_bus, "NatsClient", SlowClient)

    def play(self, script: Callable[[NatsBus, Any], Awaitable[None]]) -> None:
        """Run `script` with a bus and its connection."""

        async def run() -> None:
            bus = NatsBus(NatsAddress(("nats://localhost",), "prefix"), WriteBatch(Clock()))
            bus.start()
            await asyncio.sleep(0)
            await script(bus, bus._client)
            assert bus._task is not None
            bus._task.cancel()

        asyncio.run(run())

    async def turn(self) -> None:
        """Let what can be done be done."""
        for _ in range(5):
            await asyncio.sleep(0)

    def test_full(self) -> None:
        """What is too much is lost and logged, once; later all goes on."""
        self.patch(cluster_bus, "BUS_QUEUE", 3)

        async def script(bus: NatsBus, client: SlowClient) -> None:
            await self.turn()
            for letter in (b"a", b"b", b"c", b"d", b"e", b"f"):
                bus.publish("user.x", letter)
                await self.turn()
            client.can_go_on.set()
            await self.turn()
            self.assertEqual(client.said, [b"a", b"b", b"c", b"d"])  # One was being said.
            bus.publish("user.x", b"g")
            await self.turn()
            self.assertEqual(client.said[4:], [b"g"])

        self.play(script)
        told = [line for line in self.lines if "takes too little" in line]
        self.assertEqual(len(told), 1)

    def test_subscribed_while_connecting(self) -> None:
        """What is listened to while others are told of to a new connection is not forgotten."""

        async def script(bus: NatsBus, client: SlowClient) -> None:
            await self.turn()
            self.assertEqual(sorted(client.heard), ["prefix.one", "prefix.two"])

        subscribe = SlowClient.subscribe

        async def subscribe_more(
            client: SlowClient, subject: str, cb: Callable[[Any], Awaitable[None]]
        ) -> None:
            if subject == "prefix.one":
                self.bus.subscribe("two", lambda _: None)
            await subscribe(client, subject, cb)

        self.patch(SlowClient, "subscribe", subscribe_more)
        start = NatsBus.start

        def start_with_one(bus: NatsBus) -> None:
            self.bus = bus
            bus.subscribe("one", lambda _: None)
            start(bus)

        self.patch(SlowClient, "is_connected", False)

        async def connect(_: SlowClient, **__: object) -> None:
            self.patch(SlowClient, "is_connected", True)

        self.patch(SlowClient, "connect", connect)
        self.patch(NatsBus, "start", start_with_one)
        self.play(script)

    def test_fault(self) -> None:
        """A fault of the server's in what is heard is logged as that, and the next is heard."""
        heard: list[Heard] = []

        def hear(message: Heard) -> None:
            heard.append(message)
            raise RuntimeError("a fault")

        async def script(bus: NatsBus, client: SlowClient) -> None:
            bus.subscribe("user.*", hear)
            await self.turn()
            for word in ("a", "b"):
                await client.heard["prefix.user.*"](Message(f"prefix.user.{word}"))

        self.play(script)
        self.assertEqual([each.subject for each in heard], ["user.a", "user.b"])
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 2)

"""How a connection to NATS does what it is asked for, one after the other."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, cast

import nats.errors
from nats.aio.client import Client
from nats.aio.transport import TcpTransport
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from chatserver.cluster import bus as cluster_bus
from chatserver.cluster.bus import Heard, NatsAddress, NatsBus
from chatserver.writing import WriteBatch
from tests.logs import keep_texts


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

    async def connect(self, closed_cb: Callable[[], Awaitable[None]], **_: object) -> None:
        """Connect."""
        self.closed_cb = closed_cb

    async def close(self) -> None:
        """Close, as nats-py does it."""
        if self.is_connected:
            self.is_connected = False
            await self.closed_cb()

    async def flush(self, _timeout: float) -> None:
        """Wait until NATS has taken all."""
        await self.can_go_on.wait()

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
        self.lines = keep_texts(self)
        self.patch(cluster_bus, "NatsClient", SlowClient)

    def play(self, script: Callable[[NatsBus, Any], Awaitable[None]]) -> None:
        """Run `script` with a bus and its connection."""

        async def run() -> None:
            bus = NatsBus(NatsAddress(("nats://localhost",), "prefix"), WriteBatch(Clock()))
            bus.start()
            await asyncio.sleep(0)
            await asyncio.wait_for(script(bus, cast(Any, bus._client)), 10)
            assert bus._task is not None
            bus._task.cancel()

        asyncio.run(run())

    async def turn(self) -> None:
        """Let what can be done be done."""
        for _ in range(5):
            await asyncio.sleep(0)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait for `condition`."""
        while not condition():
            await asyncio.sleep(0.001)

    def test_private_names(self) -> None:
        """nats-py has what is used of it though it is private."""
        for name in ("_process_op_err", "_connect_command"):
            self.assertTrue(callable(getattr(Client, name)))
        self.assertIn("_io_writer", vars(TcpTransport()))

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

        async def connect(client: SlowClient, **_: object) -> None:
            client.is_connected = True

        self.patch(SlowClient, "connect", connect)
        self.patch(NatsBus, "start", start_with_one)
        self.play(script)

    def test_settle(self) -> None:
        """It has settled when NATS has taken all, or after a while, or at once if NATS is away."""
        self.patch(cluster_bus, "BUS_CONNECT_TIMEOUT", 0.01)
        settled: list[str] = []

        async def script(bus: NatsBus, client: SlowClient) -> None:
            await self.turn()
            bus.settle(lambda: settled.append("late"))
            await self.turn()
            self.assertEqual(settled, [])
            await self.until(lambda: bool(settled))
            self.assertEqual(settled, ["late"])
            client.can_go_on.set()
            await self.turn()
            self.patch(cluster_bus, "BUS_CONNECT_TIMEOUT", 60)
            bus.settle(lambda: settled.append("known"))
            self.assertEqual(settled, ["late"])
            await self.turn()
            client.is_connected = False
            bus.settle(lambda: settled.append("away"))
            self.assertEqual(settled, ["late", "known", "away"])

        self.play(script)

    def test_stopped_while_it_hangs(self) -> None:
        """The end does not wait for a NATS that takes nothing."""
        self.patch(cluster_bus, "BUS_CONNECT_TIMEOUT", 0.01)

        async def script(bus: NatsBus, client: SlowClient) -> None:
            bus.publish("user.x", b"a")
            await self.turn()
            bus._is_stopping = True
            await bus._stop()

        self.play(script)

    def test_closed(self) -> None:
        """When nats-py has given up the connection is made anew, and who wants to know is told."""
        self.patch(cluster_bus, "BUS_RENEW_INTERVAL", 0.01)
        returned: list[NatsBus] = []

        async def script(bus: NatsBus, client: SlowClient) -> None:
            bus.on_return(lambda: returned.append(bus))
            await self.turn()
            bus.subscribe("one", lambda _: None)
            await self.turn()
            await client.close()
            await self.until(lambda: bool(returned))
            assert isinstance(bus._client, SlowClient)
            self.assertIsNot(bus._client, client)
            self.assertEqual(list(bus._client.heard), ["prefix.one"])

        self.play(script)
        self.assertEqual(len(returned), 1)

    def test_broken_while_connecting(self) -> None:
        """A connection that breaks before all is listened to is made anew, once."""
        self.patch(cluster_bus, "BUS_RETRY_INTERVAL", 0.001)
        subscribe = SlowClient.subscribe
        outcomes = [ConnectionError("broken"), None]

        async def fail_once(
            client: SlowClient, subject: str, cb: Callable[[Any], Awaitable[None]]
        ) -> None:
            if error := outcomes.pop(0):
                raise error
            await subscribe(client, subject, cb)

        self.patch(SlowClient, "subscribe", fail_once)
        start = NatsBus.start

        def start_with_one(bus: NatsBus) -> None:
            bus.subscribe("one", lambda _: None)
            start(bus)

        self.patch(SlowClient, "is_connected", False)
        connect = SlowClient.connect

        async def be_connected(client: SlowClient, **options: Any) -> None:
            await connect(client, **options)
            client.is_connected = True

        self.patch(SlowClient, "connect", be_connected)
        self.patch(NatsBus, "start", start_with_one)

        async def script(bus: NatsBus, _: SlowClient) -> None:
            await self.until(lambda: bus.is_up and not outcomes)
            self.assertIsNone(bus._renewing)

        self.play(script)
        self.assertEqual(outcomes, [])

    def test_reasons(self) -> None:
        """While NATS is away each reason is logged once, and again the next time."""

        async def script(bus: NatsBus, client: SlowClient) -> None:
            for _ in range(2):
                client.is_connected = False
                for reason in ("lost", "wrong token", "lost", "wrong token"):
                    await bus._failed(ConnectionError(reason))
                client.is_connected = True
                await bus._connected()

        self.play(script)
        told = [line for line in self.lines if "lost" in line or "token" in line]
        self.assertEqual(len(told), 4)
        self.assertTrue(told[0].startswith("NATS is away: lost"))
        self.assertEqual(told[1], "NATS: wrong token")

    def test_work_that_fails(self) -> None:
        """What goes wrong with one thing is logged, and the next is done."""

        async def script(bus: NatsBus, client: SlowClient) -> None:
            client.can_go_on.set()
            await self.turn()

            async def fail(error: Exception) -> None:
                raise error

            bus.do(lambda: fail(RuntimeError("a fault")))
            bus.do(lambda: fail(nats.errors.Error("refused")))
            bus.publish("user.x", b"a")
            await self.turn()
            self.assertEqual(client.said, [b"a"])

        self.play(script)
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
        self.assertIn("NATS: refused", self.lines)

    def test_fault_when_it_returns(self) -> None:
        """A fault of who wants to know that NATS is back keeps nobody from going on."""

        async def script(bus: NatsBus, client: SlowClient) -> None:
            bus.on_return(lambda: 1 // 0)
            client.can_go_on.set()
            await bus._connected()
            bus.publish("user.x", b"a")
            await self.turn()
            self.assertEqual(client.said, [b"a"])

        self.play(script)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

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

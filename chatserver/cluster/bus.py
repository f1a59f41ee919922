"""What carries messages between the machines: NATS, as far as it is needed."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription as NatsPySubscription
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from chatserver.errors import OperatorError
from chatserver.limits import (
    BUS_CONNECT_TIMEOUT,
    BUS_LEAST_PAYLOAD,
    BUS_PENDING,
    BUS_PING_INTERVAL,
    BUS_QUEUE,
    BUS_RENEW_INTERVAL,
    BUS_RETRY_INTERVAL,
)
from chatserver.writing import WriteBatch

# With TLS nats-py lets asyncio warn at the end of each connection, and nothing is wrong.
logging.getLogger("asyncio").addFilter(lambda record: "eof_received" not in record.getMessage())


@dataclass(frozen=True, slots=True)
class Heard:
    """What was heard on `subject`. A refusal has no data: nobody listens to what was said."""

    subject: str
    data: bytes
    is_refusal: bool = False


class Subscription(Protocol):
    """That somebody listens to a subject."""

    def cancel(self) -> None:
        """Listen no more. Nothing is heard any more, also of what is under way."""


class Bus(Protocol):
    """Carries messages to whoever listens, once at most, each sender's of a subject in their order.

    Nobody hears what they say themselves.
    """

    @property
    def is_up(self) -> bool:
        """Whether what is said now can be heard."""

    def publish(self, subject: str, data: bytes, answer_to: str = "") -> None:
        """Say `data` to all who listen to `subject`.

        :param answer_to: the subject on which to refuse it, if nobody does
        """

    def subscribe(self, subject: str, hear: Callable[[Heard], None]) -> Subscription:
        """Call `hear` with what is said on `subject`, in which a ``*`` is any word."""

    def settle(self, settled: Callable[[], None]) -> None:
        """Call `settled` once the bus knows all that was said and subscribed to so far.

        While it is not up that is at once.
        """

    def on_return(self, returned: Callable[[], None]) -> None:
        """Call `returned` when the bus is up again after a time in which it was not."""


class BusError(OperatorError):
    """NATS can't be used. The text is one line for the operator, without a password."""

    option = "cluster"


@dataclass(frozen=True)
class NatsAddress:
    """Where NATS is, and what it wants to be shown.

    :param servers: URLs, ``nats://`` or ``tls://``
    :param prefix: what the subjects of this cluster begin with
    :param tls: what its certificate is checked against, if it has one
    :param token: a token; empty is none
    :param credentials: the path of a file with a user's JWT and seed; empty is none
    """

    servers: tuple[str, ...]
    prefix: str
    tls: ssl.SSLContext | None = None
    token: str = field(default="", repr=False)
    credentials: str = ""

    def options(self) -> dict[str, Any]:
        """Return the options of a connection."""
        options: dict[str, Any] = {
            "servers": list(self.servers),
            "name": "asyncchat",
            "no_echo": True,
            "connect_timeout": BUS_CONNECT_TIMEOUT,
            "ping_interval": BUS_PING_INTERVAL,
            "pending_size": BUS_PENDING,
        }
        if self.tls is not None:
            options["tls"] = self.tls
        if self.token:
            options["token"] = self.token
        if self.credentials:
            options["user_credentials"] = self.credentials
        return options


_TWO_TRIES: dict[str, Any] = {
    "allow_reconnect": False,
    "max_reconnect_attempts": 1,
    "reconnect_time_wait": 0.1,
}
"""Of each server. (With 0 for the number nats-py would go on for ever.)"""


def try_bus(address: NatsAddress) -> None:
    """Connect to NATS and close. This blocks, in an event loop of its own.

    :raises BusError: that does not work
    """
    asyncio.run(_try(address))


class NatsClient(Client):
    """nats-py's client, but one that never goes without TLS where that is wanted.

    nats-py itself takes a server's word for it that there is none, and shows it the token.

    :param address: where it connects to, and whether TLS is wanted there
    """

    def __init__(self, address: NatsAddress) -> None:
        super().__init__()
        self._needs_tls = address.tls is not None
        self.reason: Exception | None = None
        """Why the connection was left."""

    def _connect_command(self) -> bytes:
        if self._needs_tls and not self._server_info.get("tls_required"):
            raise nats.errors.Error("TLS is wanted, and that server has none")
        return super()._connect_command()

    async def _process_op_err(self, e: Exception) -> None:
        # nats-py looks for another server only when all that was written is taken: by a NATS that
        # hangs that is never.
        writer = getattr(self._transport, "_io_writer", None)
        if writer is not None:
            writer.transport.abort()
        self.reason = e
        await super()._process_op_err(e)


async def _try(address: NatsAddress) -> None:
    where = ", ".join(address.servers)
    told: list[Exception] = []

    async def tell(error: Exception) -> None:
        told.append(error)

    client = NatsClient(address)
    try:
        await asyncio.wait_for(
            client.connect(
                **address.options(),
                **_TWO_TRIES,
                error_cb=tell,
            ),
            len(address.servers) * 2 * BUS_CONNECT_TIMEOUT,
        )
        if client.max_payload < BUS_LEAST_PAYLOAD:
            raise BusError(_too_small(client.max_payload))
        refused = asyncio.Event()

        async def hear(_: Msg) -> None:
            refused.set()

        for kind in ("user", "machine", "lookup"):  # All that is listened to, and spoken to.
            subject = f"{address.prefix}.{kind}.try"
            await client.subscribe(subject, cb=hear)
            await client.publish(f"{subject}.not", b"", reply=subject)
        await client.flush(BUS_CONNECT_TIMEOUT)  # What is not permitted is said before that ends.
        if told:
            raise told[0]
        await asyncio.wait_for(refused.wait(), BUS_CONNECT_TIMEOUT)
    except Exception as error:  # nats-py, TLS, the file of credentials: each has its own.
        raise BusError(_explain(where, [*told, error])) from None
    finally:
        await _close(client)


def _too_small(max_payload: int) -> str:
    return (
        f"messages may have {max_payload} bytes there, which is too few: set max_payload to"
        f" {BUS_LEAST_PAYLOAD} at least"
    )


def _explain(where: str, errors: list[Exception]) -> str:
    """Return in one line what is wrong, from the first error that says something."""
    texts = [text for error in errors if (text := str(error).strip())]
    why = texts[0].splitlines()[0] if texts else type(errors[-1]).__name__
    why = why.removeprefix("nats: ")
    if isinstance(errors[-1], asyncio.TimeoutError) and not texts:
        why = "no answer"
    return f"NATS at {where} cannot be used: {why}; see whether it runs, and who may use it"


_SUBSCRIPTION_LOST = "permissions violation for subscription"
"""What NATS says when it takes a subscription away, or does not give one."""


class NatsSubscription:
    """A subscription of a `NatsBus`.

    :param subject: what is listened to, with the prefix
    :param heard: called with what is said there
    """

    def __init__(self, bus: NatsBus, subject: str, heard: Callable[[Msg], Awaitable[None]]) -> None:
        self._bus = bus
        self._subject = subject
        self._heard = heard
        self._made: NatsPySubscription | None = None
        self.is_cancelled = False

    def cancel(self) -> None:
        """See `Subscription`."""
        self.is_cancelled = True
        self._bus.forget(self)
        self._bus.do(self._end)

    async def make(self, client: Client) -> None:
        """Begin to listen, on a connection that has not had this yet."""
        if not self.is_cancelled:
            self._made = await client.subscribe(self._subject, cb=self._heard)

    async def _end(self) -> None:
        if self._made is not None:
            await self._made.unsubscribe()


async def _close(client: Client) -> None:
    """Close a connection. (After a failed handshake nats-py would wait for ever.)"""
    with suppress(Exception):
        await asyncio.wait_for(client.close(), BUS_CONNECT_TIMEOUT)


class NatsBus:
    """A `Bus` that is a connection to NATS. It is made in `start`, and made anew when it breaks.

    :param address: where NATS is
    :param writes: sends to clients at the end of what is heard, and not some turns later
    """

    _log = Logger()

    def __init__(self, address: NatsAddress, writes: WriteBatch) -> None:
        self._address = address
        self._writes = writes
        self._prefix = f"{address.prefix}."
        self._client = NatsClient(address)
        self._subscriptions: set[NatsSubscription] = set()
        self._returned: list[Callable[[], None]] = []
        self._told: set[str] = set()  # why the bus is away
        self._is_stopping = False
        # What is to be done, in its order: nats-py's own methods wait in between.
        self._work: asyncio.Queue[Callable[[], Awaitable[None]]] = asyncio.Queue()
        self._queued = 0  # bytes of it that are to be said
        self._is_full = False
        self._task: asyncio.Task[None] | None = None
        self._renewing: asyncio.TimerHandle | None = None

    @property
    def is_up(self) -> bool:
        """See `Bus`."""
        return bool(self._client.is_connected)

    def start(self) -> None:
        """Connect, and go on trying until that succeeds. The reactor must be asyncio's."""
        self._task = asyncio.get_running_loop().create_task(self._run())

    def stop(self) -> Deferred[None]:
        """Send what waits, and close the connection. Fires when that is done."""
        self._is_stopping = True
        return Deferred.fromFuture(asyncio.ensure_future(self._stop()))

    def publish(self, subject: str, data: bytes, answer_to: str = "") -> None:
        """See `Bus`. While NATS is away that is for nothing: it would be old when it came there."""
        if not self.is_up:
            return
        if self._queued + len(data) > BUS_QUEUE:
            self._tell_full()
            return
        reply = self._prefix + answer_to if answer_to else ""

        async def publish() -> None:
            self._queued -= len(data)
            await self._client.publish(self._prefix + subject, data, reply)

        self._queued += len(data)
        self.do(publish)

    def subscribe(self, subject: str, hear: Callable[[Heard], None]) -> NatsSubscription:
        """See `Bus`."""

        async def heard(message: Msg) -> None:
            if not subscription.is_cancelled:
                is_refusal = (message.headers or {}).get("Status") == "503"
                subject = message.subject.removeprefix(self._prefix)
                try:
                    self._writes.run(hear, Heard(subject, message.data, is_refusal))
                except Exception:
                    self._log.failure("A fault of the server's, towards another machine")

        subscription = NatsSubscription(self, self._prefix + subject, heard)
        self._subscriptions.add(subscription)
        client = self._client
        if client.is_connected or client.is_reconnecting:  # Else it is made with the connection.
            self.do(lambda: subscription.make(client))
        return subscription

    def forget(self, subscription: NatsSubscription) -> None:
        """Don't make `subscription` on the next connection."""
        self._subscriptions.discard(subscription)

    def settle(self, settled: Callable[[], None]) -> None:
        """See `Bus`. It takes `BUS_CONNECT_TIMEOUT` at most."""
        if not self.is_up:
            settled()
            return
        is_settled = False

        async def ask() -> None:
            answered = asyncio.ensure_future(self._client.flush(BUS_CONNECT_TIMEOUT))
            answered.add_done_callback(finish)

        def finish(answered: asyncio.Future[None] | None = None) -> None:
            nonlocal is_settled
            if answered is not None and not answered.cancelled():
                answered.exception()  # What is wrong is told elsewhere.
            if not is_settled:
                is_settled = True
                late.cancel()
                settled()

        late = asyncio.get_running_loop().call_later(BUS_CONNECT_TIMEOUT, finish)
        self.do(ask)

    def on_return(self, returned: Callable[[], None]) -> None:
        """See `Bus`."""
        self._returned.append(returned)

    def do(self, work: Callable[[], Awaitable[None]]) -> None:
        """Do `work` behind all that is to be done already."""
        self._work.put_nowait(work)

    async def _run(self) -> None:
        """Connect, and do what is to be done, one after the other."""
        await self._connect()
        while True:
            work = await self._work.get()
            try:
                await work()
            except nats.errors.Error as error:
                self._tell(error)
            except Exception:
                self._log.failure("A fault of the server's, towards NATS")

    async def _connect(self) -> None:
        """Make a connection, and all subscriptions on it."""
        while not self._is_stopping:
            client = NatsClient(self._address)
            try:
                await client.connect(
                    **self._address.options(),
                    max_reconnect_attempts=-1,
                    reconnect_time_wait=BUS_RETRY_INTERVAL,
                    disconnected_cb=self._disconnected,
                    reconnected_cb=self._connected,
                    closed_cb=partial(self._closed, client),
                    error_cb=self._failed,
                )
                self._client = client
                for subscription in list(self._subscriptions):
                    await subscription.make(client)
            except Exception as error:
                self._tell(error)
                await _close(client)
                self._cancel_renewal()  # Which that has booked: it is tried again here.
                await asyncio.sleep(BUS_RETRY_INTERVAL)
            else:
                await self._connected()
                return

    async def _stop(self) -> None:
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        async def finish() -> None:
            if not done.done():  # It may have taken too long.
                done.set_result(None)

        self.do(finish)
        with suppress(Exception):
            await asyncio.wait_for(done, BUS_CONNECT_TIMEOUT)
        self._cancel_renewal()
        if self._task is not None:
            self._task.cancel()
        await _close(self._client)

    async def _connected(self) -> None:
        if self._client.max_payload < BUS_LEAST_PAYLOAD:
            self._log.error("NATS: {reason}", reason=_too_small(self._client.max_payload))
        where = self._client.connected_url
        self._log.info("NATS: connected to {where}", where="" if where is None else where.netloc)
        self._told.clear()
        self._is_full = False
        for each in self._returned:
            try:
                each()
            except Exception:
                self._log.failure("A fault of the server's, when NATS is back")

    async def _disconnected(self) -> None:
        self._tell(self._client.reason or ConnectionError("the connection is lost"))

    async def _closed(self, client: Client) -> None:
        # nats-py gives up for good when NATS says why it closes: a slow consumer, say.
        if client is self._client:
            self._connect_later()

    async def _failed(self, error: Exception) -> None:
        is_lost = _SUBSCRIPTION_LOST in str(error).lower()
        if is_lost and self._renewing is not None:
            return  # It has been said of another one.
        self._tell(error)
        if is_lost:
            # NATS does not say when it would give them back: they are tried on a new connection.
            self._connect_later()

    def _connect_later(self) -> None:
        """Make a new connection, but not at once: what was wrong may be so still."""
        if self._renewing is None and not self._is_stopping:
            loop = asyncio.get_running_loop()
            self._renewing = loop.call_later(BUS_RENEW_INTERVAL, self.do, self._renew)

    def _cancel_renewal(self) -> None:
        if self._renewing is not None:
            self._renewing.cancel()
            self._renewing = None

    async def _renew(self) -> None:
        await _close(self._client)
        self._renewing = None
        await self._connect()

    def _tell_full(self) -> None:
        """Log that too much waits; once until the bus was away."""
        if not self._is_full:
            self._is_full = True
            self._log.error(
                "NATS takes too little: {count} bytes wait for it, and what is more gets lost",
                count=self._queued,
            )

    def _tell(self, error: Exception) -> None:
        """Log `error`; while the bus is away each reason once."""
        reason = (str(error) or type(error).__name__).removeprefix("nats: ")
        if self._is_stopping or reason in self._told:
            return
        is_first = not self._told
        if not self.is_up:
            self._told.add(reason)
        if self.is_up or not is_first:
            self._log.warn("NATS: {reason}", reason=reason)
        else:
            self._log.error(
                "NATS is away: {reason}; users of other machines can't be reached",
                reason=reason,
            )

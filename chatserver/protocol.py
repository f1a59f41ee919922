"""A connection: bytes to packets and back, and what its conversation needs of it."""

from __future__ import annotations

import random
from collections.abc import Iterable
from enum import Enum, auto
from typing import Any
from typing import Protocol as TypingProtocol

from OpenSSL import SSL
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import (
    IAddress,
    IDelayedCall,
    IHandshakeListener,
    IPushProducer,
    IReactorTime,
    ITCPTransport,
)
from twisted.internet.protocol import Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from chatserver.addresses import Address, parse_address
from chatserver.backpressure import StallWatch, bound_buffers, progress
from chatserver.conversation import (
    Authenticator,
    Core,
    Directory,
    Hold,
    converse,
    packets_received,
)
from chatserver.keepalive import keep_alive
from chatserver.limits import (
    CLOSE_TIMEOUT,
    KEEP_ALIVE_TIMEOUT,
    PACKETS_PER_TURN,
    READ_AHEAD,
    SLOWDOWN_PAUSE,
    STRANGERS_PER_TURN,
    ConnectionLimits,
)
from chatserver.packets import BadPacketError, Packet, PacketDecoder, encode
from chatserver.tls import client_subject


class _Transport(TypingProtocol):
    """What a connection uses of its transport: Twisted's TLS over TCP."""

    def write(self, data: bytes, /) -> None: ...
    def loseConnection(self) -> None: ...
    def abortConnection(self) -> None: ...
    def pauseProducing(self) -> None: ...
    def resumeProducing(self) -> None: ...
    def limitReading(self, most: int | None, /) -> None: ...
    def registerProducer(self, producer: object, streaming: bool, /) -> None: ...
    def unregisterProducer(self) -> None: ...
    def getPeer(self) -> IAddress: ...
    def getHandle(self) -> SSL.Connection: ...


class Connections(TypingProtocol):
    """Who keeps count of the connections."""

    def opened(self, connection: ChatProtocol, /) -> None:
        """`connection` is there."""

    def located(self, connection: ChatProtocol, address: Address, /) -> bool:
        """The client of `connection`, known by its proxy so far, is at `address`.

        Return whether there is room for it.
        """

    def ended(self, connection: ChatProtocol, /) -> None:
        """`connection` is gone. This may be told more than once."""


class PacketReceiver(Protocol):
    """Receives packets, in the manner of `Int32StringReceiver`; Messages in a row come together.

    While it is held it hands over none, and after `READ_AHEAD` bytes it reads none.

    :param clock: what puts off packets to the next turn of the reactor
    """

    transport: _Transport  # type: ignore[assignment]

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._decoder = PacketDecoder()
        self._holds: set[Hold] = set()
        self._is_delivering = False
        self._next_delivery: IDelayedCall | None = None
        self._is_paused = False
        self._has_ended = False

    @property
    def packetsPerTurn(self) -> int:
        """How many packets are handed over in a turn of the reactor. Override it for less."""
        return PACKETS_PER_TURN

    def packetsReceived(self, command: int, bodies: list[bytes]) -> None:
        """Override: one packet came, or Messages in a row."""
        raise NotImplementedError

    def badPacketReceived(self, reason: str) -> None:
        """Override: something came that is not a packet. Nothing will come after it."""
        raise NotImplementedError

    def streamEnded(self) -> None:
        """Override: nothing more will come, and all that came is handed over."""
        raise NotImplementedError

    def sendPackets(self, packets: Iterable[Packet], times: int = 1) -> None:
        """Send `packets` to the other side, so many times."""
        self.transport.write(b"".join(map(encode, packets)) * times)

    def dataReceived(self, data: bytes) -> None:
        """Take the next bytes of the stream."""
        self._decoder.feed(data)
        if self._next_delivery is None:
            self._deliver()
        else:
            self._pause_or_resume()

    def endStream(self) -> None:
        """Nothing more will come: hand over what has come, whoever does not read."""
        self._has_ended = True
        # Back-pressure counts no more: these are the client's last packets, and its partner
        # hears right after them that it is gone. What waits behind an outcome is dropped.
        self._holds &= {Hold.OUTCOME}
        self._deliver()

    def hold(self, reason: Hold) -> None:
        """Hand over no packet until every reason for it is released."""
        if not self._has_ended or reason is Hold.OUTCOME:
            self._holds.add(reason)

    def release(self, reason: Hold) -> None:
        """`reason` holds no more. If nothing else does, hand over soon what has come."""
        self._holds.discard(reason)
        # Soon and not now: the caller is in the middle of an input, which must end before the
        # next packet means anything. (If that input is a packet, `_deliver` goes on by itself.)
        if not self._holds and not self._is_delivering:
            self._deliver_soon()

    def _deliver_soon(self) -> None:
        if self._next_delivery is None:
            self._next_delivery = self._clock.callLater(0, self._deliver)

    def _deliver(self) -> None:
        """Hand over packets that have come, as long as nothing holds them, some in each turn."""
        if self._next_delivery is not None and self._next_delivery.active():
            self._next_delivery.cancel()
        self._next_delivery = None
        self._is_delivering = True
        try:
            is_all = self._deliver_some()
        except BadPacketError as error:
            is_all = True
            self.badPacketReceived(str(error))
        finally:
            self._is_delivering = False
        if not is_all:
            self._deliver_soon()
        elif self._has_ended:
            self._decoder.stop()
            self.streamEnded()
        self._pause_or_resume()

    def _deliver_some(self) -> bool:
        """Hand over `packetsPerTurn` packets at most. Return whether that is all for now."""
        left = self.packetsPerTurn
        while left:
            if self._holds or not self._decoder:
                return True
            if (received := self._decoder.next_packets(left)) is None:
                return True
            self.packetsReceived(*received)
            left -= len(received.bodies)
        return False

    def _pause_or_resume(self) -> None:
        """Read from the transport, unless enough waits to be handed over."""
        is_waiting = bool(self._holds) or self._next_delivery is not None
        is_full = is_waiting and len(self._decoder) > READ_AHEAD
        if is_full and not self._is_paused:
            self.transport.pauseProducing()
        elif self._is_paused and not is_full:
            self.transport.resumeProducing()
        self._is_paused = is_full


class _Phase(Enum):
    HANDSHAKE = auto()  # TLS is not there yet.
    OPEN = auto()
    CLOSED = auto()  # By us: it is sent nothing more, and hears a goodbye.
    GONE = auto()  # It has ended TLS, and is sent nothing more.
    LOST = auto()  # There is no connection any more.


@implementer(IHandshakeListener, IPushProducer)
class ChatProtocol(PacketReceiver):
    """One client's connection, and the `Wire` of its conversation.

    It is the producer of its transport, and so hears when too much waits to be sent.

    :param authenticator: who may use the server
    :param directory: who is online
    :param connections: who keeps count of this one
    :param clock: where deadlines run
    :param limits: what the connection may take
    """

    _log = Logger()

    def __init__(
        self,
        authenticator: Authenticator,
        directory: Directory,
        connections: Connections,
        clock: IReactorTime,
        limits: ConnectionLimits,
    ) -> None:
        super().__init__(clock)
        self.address = Address("", None)
        self._core = Core(self, authenticator, directory)
        self._conversation = converse(self._core)
        self._limits = limits
        self._stall_watch = StallWatch(
            clock, limits.stall_timeout, lambda: progress(self.transport), self._stalled
        )
        self._connections = connections
        self._deadline: IDelayedCall | None = None
        self._login_deadline: IDelayedCall | None = None
        self._pause_end: IDelayedCall | None = None
        self._close_timeout: float | None = CLOSE_TIMEOUT
        self._cut_off_because: str | None = None
        self._phase = _Phase.HANDSHAKE

    def __str__(self) -> str:
        """Return for a log line who the client is, as far as that is known."""
        name = self._core.name
        return f"{name.decode()!r} ({self.address})" if name else str(self.address)

    def _who(self) -> dict[str, Any]:
        """Return for a log event who the client is; see `LineRates`."""
        return {"client": str(self), "network": self.address.network}

    @property
    def packetsPerTurn(self) -> int:
        """See `PacketReceiver`: fewer until there is a name."""
        return PACKETS_PER_TURN if self._core.name else STRANGERS_PER_TURN

    # --- The connection's life, as Twisted tells it -----------------------------------------

    def connectionMade(self) -> None:
        """Wait for the TLS handshake, but not for ever."""
        self.address = address_of(self.transport.getPeer())
        self._connections.opened(self)
        self._log.info("Client connected: {client}", **self._who())
        self._set_deadline(self._limits.handshake_timeout, "the handshake was not done")

    def located(self) -> bool:
        """See `LocationListener`: the proxy has said where the client is."""
        proxy, address = str(self), address_of(self.transport.getPeer())
        if not self._connections.located(self, address):
            return False
        self.address = address
        self._log.info("Client located: {client}, behind {proxy}", **self._who(), proxy=proxy)
        return True

    def not_located(self, reason: str) -> None:
        """See `LocationListener`."""
        self.address = address_of(self.transport.getPeer())
        self._cut_off(reason)

    def handshakeCompleted(self) -> None:
        """Begin the conversation: the connection is secure."""
        self._phase = _Phase.OPEN
        self._cancel_deadline()
        tls = self.transport.getHandle()
        subject = client_subject(tls)
        self._log.info(
            "Handshake done: {client}, {version}{certificate}",
            **self._who(),
            version=tls.get_protocol_version_name(),
            certificate="" if subject is None else f", certificate of {subject}",
        )
        if ITCPTransport.providedBy(self.transport):
            # One small packet follows another: Nagle's algorithm would keep the second back.
            self.transport.setTcpNoDelay(True)
            bound_buffers(self.transport)
            keep_alive(self.transport, self._patience_of_tcp())
        self.transport.registerProducer(self, True)
        if self._limits.login_timeout is not None:
            self._login_deadline = self._clock.callLater(
                self._limits.login_timeout, self._time_out_login
            )

    def packetsReceived(self, command: int, bodies: list[bytes]) -> None:
        """Let the conversation answer."""
        try:
            packets_received(self._conversation, command, bodies)
        except Exception:
            self._log.failure("Cut off, a fault of the server's: {client}", **self._who())
            self._decoder.stop()
            if self._phase in (_Phase.OPEN, _Phase.CLOSED):  # Else a deadline does it, if need be.
                self.transport.abortConnection()

    def badPacketReceived(self, reason: str) -> None:
        """Let the conversation end."""
        self._log.warn("Bad packet: {client}, {reason}", **self._who(), reason=reason)
        self._conversation.bad_packet()

    def tlsEnded(self) -> None:
        """The client sends nothing more: it is gone, whether it still reads or not."""
        if self._phase is _Phase.OPEN:
            self._phase = _Phase.GONE
            self._stall_watch.stop()
            # Else the transport would resume its producer, and forget to close, once all is sent.
            self.transport.unregisterProducer()
            self._set_deadline(CLOSE_TIMEOUT, "what was left was not taken")
            self.endStream()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The client is gone. Its last packets may still be waiting for their turn."""
        was_secure = self._phase is not _Phase.HANDSHAKE
        self._phase = _Phase.LOST
        self._stall_watch.stop()
        self._cancel_deadline()
        for call in (self._login_deadline, self._pause_end):
            if call is not None and call.active():
                call.cancel()
        end = describe_end(reason)
        if self._cut_off_because is not None:
            end = f"cut off: {self._cut_off_because}"
        if was_secure:
            self._log.info("Disconnected: {client}, {end}", **self._who(), end=end)
        else:
            self._log.error("Handshake failed: {client}, {end}", **self._who(), end=end)
        self.endStream()

    def streamEnded(self) -> None:
        """Let the conversation end. Only then the connection does not count any more."""
        self._conversation.connection_lost()
        if self._phase is _Phase.LOST:
            self._connections.ended(self)

    def shut_down(self) -> None:
        """End the connection: the server is going down. All that waits is sent before."""
        if self._phase is not _Phase.HANDSHAKE:
            self._close_timeout = self._limits.drain_timeout
            self._conversation.shut_down()
        else:
            self.transport.abortConnection()

    # --- What the conversation needs (`Wire`) -----------------------------------------------

    def send(self, *packets: Packet, times: int = 1) -> None:
        """See `Wire`."""
        if self._phase is _Phase.OPEN:
            self.sendPackets(packets, times)
            self._stall_watch.wrote()

    def pause(self) -> None:
        """See `Wire`. It lasts `SLOWDOWN_PAUSE`."""
        if self._phase is _Phase.OPEN:
            self.hold(Hold.PAUSE)
            seconds = random.uniform(*SLOWDOWN_PAUSE)
            self._pause_end = self._clock.callLater(seconds, self.release, Hold.PAUSE)

    def finish(self) -> None:
        """See `Wire`. A client that is not gone after `CLOSE_TIMEOUT` is cut off.

        When the server is going down it is the drain time-out.
        """
        self._decoder.stop()
        if self._phase in (_Phase.OPEN, _Phase.CLOSED):
            # What still comes must be read, if only to be thrown away: the goodbye is behind it.
            self._holds.clear()
            self.transport.limitReading(None)
            self._pause_or_resume()
            self._set_deadline(self._close_timeout, "the goodbye was not taken")

    def close(self) -> None:
        """See `Wire`."""
        self.finish()
        if self._phase is _Phase.OPEN:
            self._phase = _Phase.CLOSED
            self._stall_watch.stop()
            self.transport.unregisterProducer()
            self.transport.loseConnection()

    # --- Back-pressure, as the transport tells it (`IPushProducer`) -------------------------

    def pauseProducing(self) -> None:
        """Take no more packets: the client does not read the answers."""
        self.hold(Hold.BACKLOG)
        self.transport.limitReading(READ_AHEAD)
        self._conversation.backlogged()

    def resumeProducing(self) -> None:
        """Go on: all that waited is sent."""
        self._conversation.drained()
        self.transport.limitReading(None)
        self.release(Hold.BACKLOG)

    def stopProducing(self) -> None:
        """Nothing to do: `connectionLost` follows."""

    # --- Deadlines --------------------------------------------------------------------------

    def _stalled(self) -> None:
        self._log.warn(
            "Stalled: {client} took nothing for {seconds:g} s and is cut off",
            **self._who(),
            seconds=self._limits.stall_timeout,
        )
        self.transport.abortConnection()

    def _patience_of_tcp(self) -> float | None:
        """Return the seconds that TCP waits for a client: not less than `StallWatch` does."""
        stall_timeout = self._limits.stall_timeout
        return None if stall_timeout is None else max(stall_timeout, KEEP_ALIVE_TIMEOUT)

    def _time_out_login(self) -> None:
        if not self._core.name:
            self._log.warn(
                "Not logged in after {seconds:g} s: {client}",
                **self._who(),
                seconds=self._limits.login_timeout,
            )
        self._conversation.login_timed_out()

    def _set_deadline(self, seconds: float | None, otherwise: str) -> None:
        self._cancel_deadline()
        if seconds is not None:
            self._deadline = self._clock.callLater(
                seconds, self._cut_off, f"{otherwise} in {seconds:g} s"
            )

    def _cancel_deadline(self) -> None:
        if self._deadline is not None and self._deadline.active():
            self._deadline.cancel()

    def _cut_off(self, reason: str) -> None:
        self._cut_off_because = reason
        self.transport.abortConnection()


def address_of(address: IAddress | None) -> Address:
    """Return where a client is whose transport has `address` for its peer."""
    if isinstance(address, IPv4Address | IPv6Address):
        return parse_address(address.host, address.port)
    return Address(str(address), None)


def describe_end(reason: Failure) -> str:
    """Return in a few words why a connection ended."""
    error = reason.value
    if isinstance(error, ConnectionDone):
        return "closed"
    if isinstance(error, ConnectionAborted):
        return "cut off"
    if isinstance(error, ConnectionLost):
        return "connection lost"
    if isinstance(error, SSL.Error) and error.args and error.args[0]:
        # OpenSSL's errors are a list of (library, function, reason).
        return str(error.args[0][-1][-1])
    return str(error)

"""Connects to a server: TCP, TLS, the certificate, and packets from bytes."""

from __future__ import annotations

from typing import Any

from OpenSSL import SSL
from twisted.internet import error as twisted_errors
from twisted.internet.defer import CancelledError, Deferred, fail
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.internet.interfaces import (
    IAddress,
    IDelayedCall,
    IHandshakeListener,
    IReactorTime,
    IStreamClientEndpoint,
    ITCPTransport,
)
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from chatserver.client.client import ChatClient, Handler, open_conversation
from chatserver.client.conversation import packet_received
from chatserver.client.errors import (
    BrokenStreamError,
    CertificateError,
    ChatError,
    ConnectError,
    ConnectionLostError,
)
from chatserver.client.trust import SystemRoots, Trust, Verifier
from chatserver.keepalive import keep_alive
from chatserver.limits import CLOSE_TIMEOUT
from chatserver.packets import BadPacketError, Packet, PacketDecoder, encode

DEFAULT_PORT = 5555
"""The port of a server whose operator chose no other: the reference server's."""

HANDSHAKE_TIMEOUT = 15.0
"""Seconds for the TLS handshake: somewhat longer than the server allows, which then closes."""

USER_TIMEOUT = 60.0
"""Seconds that what was sent may go unacknowledged before the connection counts as lost."""


def connect(
    reactor: Any,
    host: str,
    port: int = DEFAULT_PORT,
    *,
    trust: Trust | None = None,
    handler: Handler | None = None,
    endpoint: IStreamClientEndpoint | None = None,
) -> Deferred[ChatClient]:
    """Connect to the server at `host` and `port`.

    :param trust: how to know that it is the right one; None is `SystemRoots`
    :param handler: hears what comes unasked; None does nothing about it
    :param endpoint: another way there than TCP to `host` and `port`, which still say who is
        expected at its other end. TLS is put on top.
    :return: fires once the server has shown a certificate to trust. It fails with
        `ConnectError`; if it is for the certificate, with `CertificateError`.
    """
    try:
        factory = ClientFactory(reactor, host, port, trust, handler)
    except ConnectError as error:
        return fail(error)
    connecting: Deferred[Any] = factory.secure(endpoint).connect(factory)
    connecting.addCallback(lambda protocol: protocol.when_ready())
    connecting.addErrback(factory.explain)

    # Endpoints tell of a cancellation as they like: as a host that does not exist, for one.
    def cancel(outcome: Deferred[ChatClient]) -> None:
        outcome.errback(CancelledError())
        connecting.cancel()

    def settle(result: Any) -> None:
        if not outcome.called:
            outcome.callback(result)

    outcome: Deferred[ChatClient] = Deferred(cancel)
    connecting.addBoth(settle)
    return outcome


class ClientFactory(Factory):
    """Makes connections to one server. For the parameters see `connect`.

    :raises ConnectError: `host` is not a valid host name
    :raises CertificateError: `trust` can't be used: its file can't be read, say
    """

    noisy = False

    def __init__(
        self,
        reactor: Any,
        host: str,
        port: int,
        trust: Trust | None,
        handler: Handler | None,
    ) -> None:
        self._reactor = reactor
        self._host = host
        self._port = port
        try:
            self._verifier = (trust or SystemRoots()).verifier(host, port)
        except UnicodeError as error:  # of IDNA
            raise ConnectError(f"{host!r} is no name of a host") from error
        self._handler = handler or _Nobody()

    def secure(self, endpoint: IStreamClientEndpoint | None) -> IStreamClientEndpoint:
        """Return `endpoint`, or the usual one if it is None, with TLS on top."""
        if endpoint is None:
            endpoint = HostnameEndpoint(self._reactor, self._host, self._port)
        secured: IStreamClientEndpoint = wrapClientTLS(self._verifier, endpoint, self._reactor)
        return secured

    def buildProtocol(self, addr: IAddress | None) -> ClientProtocol:
        """Make a connection."""
        return ClientProtocol(self._reactor, self._verifier, self._handler)

    def explain(self, failure: Failure) -> Failure:
        """Return why connecting failed, as a `ConnectError` that tells it to a person."""
        error = failure.value
        if isinstance(error, ChatError | CancelledError):
            return failure
        where = f"{self._host}, port {self._port}"
        if isinstance(error, SSL.Error):
            return Failure(_explain_tls(error, where))
        if isinstance(error, twisted_errors.ConnectionRefusedError):
            text = f"nobody listens at {where}"
        elif isinstance(error, twisted_errors.DNSLookupError):
            text = f"there is no host {self._host}"
        elif isinstance(error, twisted_errors.TimeoutError | twisted_errors.TCPTimedOutError):
            text = f"no answer from {where}"
        elif isinstance(error, twisted_errors.ConnectionDone | twisted_errors.ConnectionLost):
            text = f"{where}: closed the connection at once; is it a server of this kind?"
        else:
            text = f"{where}: {error or type(error).__name__}"
        return Failure(ConnectError(text))


class _Nobody(Handler):
    """Does nothing about what comes unasked."""


def _explain_tls(error: SSL.Error, where: str) -> ConnectError:
    """Return what OpenSSL says, as an error for people."""
    reasons = [each[-1] for each in error.args[0]] if error.args else []
    if "certificate verify failed" in reasons:
        return CertificateError(
            f"the certificate of {where} is vouched for by nobody who is trusted here,"
            " or is not valid today"
        )
    return ConnectError(f"{where}: no TLS: {', '.join(reasons) or error}; is it the right port?")


@implementer(IHandshakeListener)
class ClientProtocol(Protocol):
    """A connection to a server, and the `Wire` of its conversation."""

    transport: Any

    def __init__(self, clock: IReactorTime, verifier: Verifier, handler: Handler) -> None:
        self.client, self._session, self._core = open_conversation(self, handler)
        self._clock = clock
        self._verifier = verifier
        self._decoder = PacketDecoder()
        self._ready: Deferred[ChatClient] = Deferred(self._give_up)
        self._is_ready = False
        self._deadline: IDelayedCall | None = None
        self._refusal: Exception | None = None

    def when_ready(self) -> Deferred[ChatClient]:
        """Return a Deferred that fires with the client once the server is one to trust."""
        return self._ready

    # --- The connection's life, as Twisted tells it -----------------------------------------

    def connectionMade(self) -> None:
        """Wait for the handshake, but not for ever."""
        self._refuse_after(HANDSHAKE_TIMEOUT, ConnectError("the server does not answer in TLS"))

    def handshakeCompleted(self) -> None:
        """Look at the certificate, before anything is sent."""
        self._cancel_deadline()
        try:
            self._verifier.check(self.transport.getHandle())
        except CertificateError as error:
            self._refusal = error
            self.transport.abortConnection()
            return
        if ITCPTransport.providedBy(self.transport):
            self.transport.setTcpNoDelay(True)
            keep_alive(self.transport, USER_TIMEOUT)
        self._is_ready = True
        self._ready.callback(self.client)

    def dataReceived(self, data: bytes) -> None:
        """Take the next bytes of the stream."""
        if not self._is_ready:  # It was refused, but the abort is still to come.
            return
        self._decoder.feed(data)
        try:
            while (packet := self._decoder.next_packet()) is not None:
                packet_received(self._session, self._core, packet)
        except BadPacketError as error:
            self.abandon(BrokenStreamError(f"what the server sends is broken: {error}"))

    def abandon(self, reason: ChatError) -> None:
        """Close the connection, and tell the application `reason`."""
        self._session.close(reason)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Tell the client, or whoever waits for one."""
        self._cancel_deadline()
        if self._is_ready:
            error = ConnectionLostError()
            error.__cause__ = reason.value
            self._session.connection_lost(error)
        elif not self._ready.called:
            self._ready.errback(self._refusal or reason)

    # --- What the conversation needs (`Wire`) -----------------------------------------------

    def send(self, packet: Packet) -> None:
        """See `Wire`."""
        self.transport.write(encode(packet))

    def close(self) -> None:
        """See `Wire`. A server that does not close its side is not waited for long."""
        self._decoder.stop()
        self.transport.loseConnection()
        self._deadline = self._clock.callLater(CLOSE_TIMEOUT, self.transport.abortConnection)

    # --- Deadlines --------------------------------------------------------------------------

    def _give_up(self, _: object) -> None:
        """Nobody waits for the connection any more: connecting was cancelled."""
        self.transport.abortConnection()

    def _refuse_after(self, seconds: float, refusal: Exception) -> None:
        def refuse() -> None:
            self._refusal = refusal
            self.transport.abortConnection()

        self._deadline = self._clock.callLater(seconds, refuse)

    def _cancel_deadline(self) -> None:
        if self._deadline is not None and self._deadline.active():
            self._deadline.cancel()

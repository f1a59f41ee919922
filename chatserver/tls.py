"""TLS for the server's connections, which tells when it has ended."""

from __future__ import annotations

from typing import Protocol, cast

from OpenSSL import SSL, crypto
from twisted.internet.interfaces import (
    IAddress,
    IOpenSSLServerConnectionCreator,
    IReactorTime,
    ITransport,
)
from twisted.internet.protocol import Factory
from twisted.protocols.tls import BufferingTLSTransport, TLSMemoryBIOFactory
from twisted.python.failure import Failure

from chatserver.certificates import describe_subject
from chatserver.writing import WriteBatch

_VERIFICATION_ERRORS = {
    number: name.removeprefix("ERR_").lower().replace("_", " ")
    for name, number in vars(SSL.X509VerificationCodes).items()
    if name.startswith("ERR_")
}


class TLSEndListener(Protocol):
    """A protocol that is told of the end of TLS."""

    def tlsEnded(self) -> None:
        """The client has said goodbye (close_notify), or sent what is not TLS.

        Nothing more will come from it. This may be told more than once.
        """


class TLSTransport(BufferingTLSTransport):
    """Twisted's TLS, on which its end is an event of its own.

    Twisted closes the connection then, but not before all that waits is sent, and tells only
    after that: a client that does not read would stay as if it were there.
    """

    factory: TLSFactory
    _refusal: str | None = None

    def makeConnection(self, transport: ITransport) -> None:
        """Begin, with the handshake."""
        super().makeConnection(transport)  # type: ignore[no-untyped-call]
        tls = self.getHandle()  # type: ignore[no-untyped-call]
        if tls.get_verify_mode() != SSL.VERIFY_NONE:
            tls.set_verify(tls.get_verify_mode(), self._note_refusal)

    def dataReceived(self, data: bytes) -> None:
        """Take what came from the network."""
        self.factory.writes.run(super().dataReceived, data)
        if self.transport.disconnecting:  # type: ignore[union-attr]
            cast(TLSEndListener, self.wrappedProtocol).tlsEnded()

    def _tlsShutdownFinished(self, reason: Failure | None) -> None:
        # Twisted 26.10 looks for the arguments of OpenSSL's error, and a goodbye in the midst of
        # the handshake is one without any: its IndexError would be in the log.
        if reason is not None and not reason.value.args:  # type: ignore[union-attr]
            reason = Failure(SSL.Error([("", "", "goodbye in the handshake")]))
        if reason is not None and self._refusal is not None:
            reason = Failure(SSL.Error([("", "", self._refusal)]))
        super()._tlsShutdownFinished(reason)  # type: ignore[no-untyped-call]

    def _note_refusal(
        self, _: SSL.Connection, certificate: crypto.X509, error: int, _depth: int, is_good: int
    ) -> bool:
        """Keep why the client's certificate is refused: OpenSSL's error does not tell that."""
        if not is_good:
            reason = _VERIFICATION_ERRORS.get(error, f"error {error}")
            subject = describe_subject(certificate.to_cryptography())
            self._refusal = f"certificate refused: {reason}: {subject}"
        return bool(is_good)


def client_subject(connection: SSL.Connection) -> str | None:
    """Return the subject of the client's certificate (RFC 4514); None if it has shown none.

    One that was not asked for one has not.
    """
    certificate = connection.get_peer_certificate(as_cryptography=True)
    return None if certificate is None else describe_subject(certificate)


class TLSFactory(TLSMemoryBIOFactory):
    """Makes the connections of another factory, with TLS below them.

    :param factory: makes a protocol for each client, or None if it takes no more of them
    :param creator: makes the TLS of each connection
    :param clock: where writes wait for others that can go with them
    """

    protocol = TLSTransport

    def __init__(
        self, factory: Factory, creator: IOpenSSLServerConnectionCreator, clock: IReactorTime
    ) -> None:
        self.writes = WriteBatch(clock)
        super().__init__(creator, False, factory, cast(IReactorTime, self.writes))

    def buildProtocol(self, addr: IAddress | None) -> TLSTransport | None:  # type: ignore[override]
        """Put TLS below the protocol for a client at `addr`; none if there is no protocol."""
        protocol = self.wrappedFactory.buildProtocol(addr)
        return None if protocol is None else self.protocol(self, protocol)

"""TLS for the server's connections, which tells when it has ended."""

from __future__ import annotations

from typing import Protocol, cast

from OpenSSL import SSL
from twisted.internet.interfaces import (
    IAddress,
    IOpenSSLServerConnectionCreator,
    IReactorTime,
)
from twisted.internet.protocol import Factory
from twisted.protocols.tls import BufferingTLSTransport, TLSMemoryBIOFactory
from twisted.python.failure import Failure


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

    def dataReceived(self, data: bytes) -> None:
        """Take what came from the network."""
        super().dataReceived(data)  # type: ignore[no-untyped-call]
        if self.transport.disconnecting:  # type: ignore[union-attr]
            cast(TLSEndListener, self.wrappedProtocol).tlsEnded()

    def _tlsShutdownFinished(self, reason: Failure | None) -> None:
        # Twisted 26.10 looks for the arguments of OpenSSL's error, and a goodbye in the midst of
        # the handshake is one without any: its IndexError would be in the log.
        if reason is not None and not reason.value.args:  # type: ignore[union-attr]
            reason = Failure(SSL.Error([("", "", "goodbye in the handshake")]))
        super()._tlsShutdownFinished(reason)  # type: ignore[no-untyped-call]


class TLSFactory(TLSMemoryBIOFactory):
    """Twisted's, for factories that take no more connections at times."""

    protocol = TLSTransport

    def buildProtocol(self, addr: IAddress | None) -> TLSTransport | None:  # type: ignore[override]
        """Put TLS below the protocol for a client at `addr`; none if there is no protocol."""
        protocol = self.wrappedFactory.buildProtocol(addr)
        return None if protocol is None else self.protocol(self, protocol)


def add_tls(
    factory: Factory, creator: IOpenSSLServerConnectionCreator, clock: IReactorTime
) -> TLSFactory:
    """Return a factory that makes the connections of `factory`, with TLS below them."""
    return TLSFactory(creator, False, factory, clock)

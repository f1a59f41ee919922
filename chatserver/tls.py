"""TLS for the server's connections, which tells when a client says goodbye."""

from __future__ import annotations

from typing import Protocol, cast

from OpenSSL import SSL
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator, IReactorTime
from twisted.internet.protocol import Factory
from twisted.protocols.tls import BufferingTLSTransport, TLSMemoryBIOFactory


class GoodbyeListener(Protocol):
    """A protocol that is told of its client's goodbye."""

    def goodbyeReceived(self) -> None:
        """The client has ended TLS, and sends nothing more. It may be told more than once."""


class TLSTransport(BufferingTLSTransport):
    """Twisted's TLS, on which a client's goodbye (close_notify) is an event of its own.

    Twisted closes the connection then, but not before all that waits is sent, and tells only
    after that: a client that says goodbye and does not read would stay as if it were there.
    """

    def dataReceived(self, data: bytes) -> None:
        """Take what came from the network."""
        super().dataReceived(data)  # type: ignore[no-untyped-call]
        connection: SSL.Connection = self.getHandle()  # type: ignore[no-untyped-call]
        if connection.get_shutdown() & SSL.RECEIVED_SHUTDOWN:
            cast(GoodbyeListener, self.wrappedProtocol).goodbyeReceived()


def add_tls(
    factory: Factory, creator: IOpenSSLServerConnectionCreator, clock: IReactorTime
) -> TLSMemoryBIOFactory:
    """Return a factory that makes the connections of `factory`, with TLS below them."""
    wrapped = TLSMemoryBIOFactory(creator, False, factory, clock)
    wrapped.protocol = TLSTransport
    return wrapped

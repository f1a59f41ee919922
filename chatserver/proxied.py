"""Connections through a proxy, which says in a header where the client is (the PROXY protocol).

Twisted reads the header, for ports named with ``haproxy:``. But the connection is there before
that, when all that is known is the proxy: it counts, and its deadline runs, from then on.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol as TypingProtocol
from typing import cast

from twisted.internet.interfaces import IAddress, ITCPTransport
from twisted.internet.protocol import Protocol
from zope.interface import implementer

from chatserver.protocol import address_of
from chatserver.tls import TLSFactory, TLSTransport


@implementer(IAddress)
@dataclass(frozen=True, slots=True)
class ProxyAddress:
    """Where a proxy is that has not said yet where its client is."""

    address: IAddress

    def __str__(self) -> str:
        return f"a proxy at {address_of(self.address)}"


class LocationListener(TypingProtocol):
    """A protocol that is told where its client is."""

    def located(self) -> bool:
        """The transport's peer is the client now. Return whether the connection may go on."""


class ProxiedTransport(TLSTransport):
    """TLS with a client behind a proxy. Until the header has come its peer is a `ProxyAddress`."""

    _is_located = False

    def getPeer(self) -> IAddress:
        """Return where the client is, or its proxy."""
        peer: IAddress = super().getPeer()  # type: ignore[no-untyped-call]
        return peer if self._is_located else ProxyAddress(peer)

    def dataReceived(self, data: bytes) -> None:
        """Take what came from behind the header."""
        if not self._is_located:
            self._is_located = True
            if not cast(LocationListener, self.wrappedProtocol).located():
                self.abortConnection()  # type: ignore[no-untyped-call]
                return
        super().dataReceived(data)


class ProxiedTLSFactory(TLSFactory):
    """Makes the connections of clients behind proxies, with TLS below them."""

    protocol = ProxiedTransport

    def buildProtocol(self, addr: IAddress | None) -> Protocol:  # type: ignore[override]
        """Make the connection of a client whose proxy is at `addr`."""
        protocol = super().buildProtocol(None if addr is None else ProxyAddress(addr))
        # Twisted's reader of the header needs one in any case.
        return Refused() if protocol is None else protocol


class Refused(Protocol):
    """A connection that can't be taken."""

    transport: ITCPTransport

    def connectionMade(self) -> None:
        """End it."""
        self.transport.abortConnection()

"""Connections through a proxy, which says in a header where the client is (the PROXY protocol).

Twisted reads the header, for ports named with ``haproxy:``, but takes what is none for one. And
the connection is there before that, when all that is known is the proxy: it counts, and its
deadline runs, from then on.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Protocol as TypingProtocol
from typing import cast

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import IAddress, ITCPTransport
from twisted.internet.protocol import Protocol
from twisted.protocols.haproxy._exceptions import InvalidProxyHeader
from twisted.protocols.haproxy._info import ProxyInfo
from twisted.protocols.haproxy._v1parser import V1Parser
from twisted.protocols.haproxy._wrapper import HAProxyProtocolWrapper, HAProxyWrappingFactory
from zope.interface import implementer

from chatserver.protocol import address_of
from chatserver.tls import TLSFactory, TLSTransport

_HEADER = re.compile(
    rb"PROXY (UNKNOWN( .*)?|TCP[46]( [0-9A-Fa-f.:]+){2}( [0-9]{1,5}){2})", re.DOTALL
)
"""Version 1 of the header, without the line's end."""


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

    def not_located(self, reason: str) -> None:
        """Where the client is will not be known: end the connection. The peer is the proxy now."""


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

    def not_located(self, reason: str) -> None:
        """End the connection: there is no header that says where the client is."""
        self._is_located = True  # As far as it will ever be.
        cast(LocationListener, self.wrappedProtocol).not_located(reason)


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


class HeaderParser(V1Parser):
    """Reads a header of version 1. Twisted's takes any text for an IP address."""

    @classmethod
    def parse(cls, line: bytes) -> ProxyInfo:
        """Return what `line`, the header without its end, says.

        :raises InvalidProxyHeader: it is malformed
        """
        if not _HEADER.fullmatch(line):
            raise InvalidProxyHeader
        info = super().parse(line + b" ")  # Which Twisted wants to see behind UNKNOWN.
        for address in (info.source, info.destination):
            if address is not None and not _is_valid(address):
                raise InvalidProxyHeader
        return info


def _is_valid(address: IAddress) -> bool:
    """Tell whether there can be an address of TCP like that."""
    assert isinstance(address, IPv4Address | IPv6Address)
    version = 4 if isinstance(address, IPv4Address) else 6
    try:
        return ip_address(address.host).version == version and address.port <= 0xFFFF
    except ValueError:
        return False


class HeaderReader(HAProxyProtocolWrapper):
    """Twisted's reader of the header, which ends the connection at once if it is malformed."""

    def dataReceived(self, data: bytes) -> None:
        """Take what the proxy sends."""
        if self._parser is None and data.startswith(HeaderParser.PROXYSTR):
            self._parser = HeaderParser()
        super().dataReceived(data)
        if self.disconnecting and self._proxyInfo is None:
            reason = "no PROXY header" if self._parser is None else "malformed PROXY header"
            cast(ProxiedTransport, self.wrappedProtocol).not_located(reason)

    def getPeer(self) -> IAddress:
        """Return where the header says that the client is; the proxy's address if that is no IP."""
        peer: IAddress = super().getPeer()
        if isinstance(peer, IPv4Address | IPv6Address):
            return peer
        return cast(ITCPTransport, self.transport).getPeer()


class HeaderFactory(HAProxyWrappingFactory):
    """Reads the header of each connection of another factory, a `ProxiedTLSFactory`."""

    protocol = HeaderReader  # type: ignore[assignment]

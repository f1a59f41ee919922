"""Tests for `chatserver.factory` and `chatserver.proxied`: how many connections there may be."""

from __future__ import annotations

from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IAddress
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.logger import LogEvent, formatEvent, globalLogPublisher
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase

from chatserver.factory import ChatFactory
from chatserver.limits import ConnectionLimits
from chatserver.proxied import HeaderFactory, ProxiedTLSFactory
from chatserver.testing import server_certificate
from chatserver.tls import TLSFactory

PROXY = IPv4Address("TCP", "10.0.0.1", 1)


def ipv4(number: int) -> IPv4Address:
    return IPv4Address("TCP", f"192.0.2.{number}", 50000)


class CountingCase(TestCase):
    """A test with a factory, and TLS on it, whose connections are counted."""

    TLS = TLSFactory

    def make_factory(self, **limits: Any) -> None:
        """Make a factory with `limits`."""
        self.clock = Clock()
        nobody: Any = None
        online: Any = type("Online", (), {"close": lambda _: None})()
        self.chat_factory = ChatFactory(nobody, online, self.clock, ConnectionLimits(**limits))
        self.factory: Any = self.TLS(
            self.chat_factory, server_certificate().tls_options, self.clock
        )

    def come(self, address: IAddress) -> StringTransport | None:
        """Return the transport of a client at `address`, or None if it is not taken."""
        protocol = self.factory.buildProtocol(address)
        if protocol is None:
            return None
        transport = StringTransport(peerAddress=address)
        transport.protocol = protocol
        protocol.makeConnection(transport)
        return transport

    def go(self, transport: StringTransport | None) -> None:
        """Let the client of `transport` go."""
        assert transport is not None
        transport.protocol.connectionLost(Failure(ConnectionDone()))


class ConnectionsTests(CountingCase):
    """Connections that come directly."""

    def test_per_address(self) -> None:
        """An address may have so many; when one goes, another may come. Others are not touched."""
        self.make_factory(per_address=2)
        clients = [self.come(ipv4(1)), self.come(IPv6Address("TCP", "::ffff:192.0.2.1", 1))]
        self.assertIsNone(self.come(ipv4(1)))
        self.assertIsNotNone(self.come(ipv4(2)))
        self.go(clients[0])
        self.assertIsNotNone(self.come(ipv4(1)))
        self.assertIsNone(self.come(ipv4(1)))

    def test_ipv6(self) -> None:
        """IPv6 is counted by /64."""
        self.make_factory(per_address=1)
        self.assertIsNotNone(self.come(IPv6Address("TCP", "2001:db8::1", 1)))
        self.assertIsNone(self.come(IPv6Address("TCP", "2001:db8::ffff:1", 1)))
        self.assertIsNotNone(self.come(IPv6Address("TCP", "2001:db8:0:1::1", 1)))

    def test_unix(self) -> None:
        """Who comes through a UNIX socket is not counted by address."""
        self.make_factory(per_address=1)
        self.assertIsNotNone(self.come(UNIXAddress("")))
        self.assertIsNotNone(self.come(UNIXAddress("")))

    def test_total(self) -> None:
        """There are so many connections in all."""
        self.make_factory(total=2)
        clients = [self.come(ipv4(number)) for number in (1, 2)]
        self.assertIsNone(self.come(ipv4(3)))
        self.go(clients[0])
        self.assertIsNotNone(self.come(ipv4(3)))

    def test_no_limit(self) -> None:
        """Both can be switched off."""
        self.make_factory(per_address=None, total=None)
        self.assertNotIn(None, [self.come(ipv4(1)) for _ in range(200)])

    def test_nothing_is_kept(self) -> None:
        """An address whose connections have gone is forgotten."""
        self.make_factory()
        for number in range(10):
            self.go(self.come(ipv4(number)))
        self.assertEqual(len(self.chat_factory._by_network), 0)
        self.assertEqual(self.clock.getDelayedCalls(), [])


class ProxiedTests(CountingCase):
    """Connections that come through a proxy."""

    TLS = ProxiedTLSFactory

    def make_factory(self, **limits: Any) -> None:
        """Make a factory, with the reader of the header on top."""
        super().make_factory(**limits)
        self.factory = HeaderFactory(self.factory)

    def come_through(self, header: bytes) -> StringTransport:
        """Return the transport of a client behind a proxy, which sends `header`."""
        transport = self.come(PROXY)
        assert transport is not None
        transport.protocol.dataReceived(header)
        return transport

    def header(self, number: int) -> bytes:
        """Return the header for a client, and the first byte of what that sends."""
        return b"PROXY TCP4 192.0.2.%d 10.0.0.1 50000 5555\r\n\x16" % number

    def addresses(self) -> list[str]:
        """Return where the clients are."""
        return sorted(str(each.address) for each in self.chat_factory._connections)

    def test_per_address(self) -> None:
        """Clients are counted by the address in the header, and not by the proxy's."""
        self.make_factory(per_address=1)
        first, second, third = (self.come_through(self.header(number)) for number in (1, 2, 1))
        self.assertEqual([each.disconnected for each in (first, second)], [False, False])
        self.assertTrue(third.disconnected)
        self.go(third)
        self.assertEqual(self.addresses(), ["192.0.2.1:50000", "192.0.2.2:50000"])
        self.go(first)
        self.assertFalse(self.come_through(self.header(1)).disconnected)

    def test_connections_of_the_proxy(self) -> None:
        """A proxy that speaks for itself, as to see whether the server is there, is a client."""
        self.make_factory(per_address=1)
        for is_refused in (False, True):
            client = self.come_through(b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0\x16")  # LOCAL
            self.assertIs(client.disconnected, is_refused)
        self.assertIn("10.0.0.1:1", self.addresses())

    def test_header_awaited(self) -> None:
        """A connection counts from the start, before the header; but not by address."""
        self.make_factory(per_address=1, total=2)
        first, second = self.come(PROXY), self.come(PROXY)
        self.assertEqual(self.addresses(), ["a proxy at 10.0.0.1:1"] * 2)
        refused = self.come(PROXY)
        assert refused is not None
        self.assertTrue(refused.disconnected)
        self.go(refused)
        self.go(first)
        self.go(second)
        self.assertEqual(self.addresses(), [])
        self.assertIsNotNone(self.come(PROXY))

    def test_no_header(self) -> None:
        """What begins with anything else is cut off."""
        self.assert_refused(b"\x16\x03\x01" + bytes(20), "no PROXY header")

    def test_malformed(self) -> None:
        """A header that can't be is refused, and so is what is no IP address."""
        for line in (
            *(b"TCP4 192.0.2.1 192.0.2.9 %s 5555" % port for port in (b"x", b"-1", b"99999", b"")),
            *(b"TCP4 192.0.2.1 192.0.2.9 %s 5555" % port for port in (b"+1", b"1_0", b"\t1")),
            b"TCP4 192.0.2.1 192.0.2.9 50000 99999",
            *(b"TCP4 %s 192.0.2.9 50000 5555" % host for host in (b"host", b"", b"\x1b[31m", b"1")),
            *(b"TCP4 %s 192.0.2.9 50000 5555" % host for host in (b"\xff", b"::1", b"256.0.0.1")),
            b"TCP4 192.0.2.1 host 50000 5555",
            *(b"TCP6 %s ::1 50000 5555" % host for host in (b"192.0.2.1", b"::1%\x1b[31m", b":::")),
            b"TCP4 192.0.2.1 192.0.2.9 50000",
            b"UDP4 192.0.2.1 192.0.2.9 50000 5555",
            b"UNKNOWNS",
            b"",
        ):
            self.assert_refused(b"PROXY %s\r\n\x16" % line, "malformed PROXY header")
        self.assert_refused(b"PROXY " + bytes(200), "malformed PROXY header")
        version_2 = b"\r\n\r\n\0\r\nQUIT\n\x2f\x11\0\0"
        self.assert_refused(version_2, "malformed PROXY header")

    def assert_refused(self, header: bytes, reason: str) -> None:
        """Who sends `header` is cut off, and one line tells why."""
        self.make_factory()
        told: list[LogEvent] = []
        globalLogPublisher.addObserver(told.append)
        transport = self.come_through(header)
        self.assertTrue(transport.disconnected, header)
        self.go(transport)
        globalLogPublisher.removeObserver(told.append)
        self.assertEqual(self.addresses(), [])
        self.assertEqual(
            [(formatEvent(each), each.get("network")) for each in told],
            [
                ("Client connected: a proxy at 10.0.0.1:1", None),
                (f"Handshake failed: 10.0.0.1:1, cut off: {reason}", "10.0.0.1"),
            ],
        )

    def test_unknown(self) -> None:
        """A proxy that does not know where the client is counts as the client itself."""
        for header in (b"PROXY UNKNOWN", b"PROXY UNKNOWN ", b"PROXY UNKNOWN some \xff thing"):
            self.make_factory()
            client = self.come_through(header)
            client.protocol.dataReceived(b"\r\n\x16")
            self.assertFalse(client.disconnected)
            self.assertEqual(self.addresses(), ["10.0.0.1:1"])
            self.go(client)

    def test_ipv6(self) -> None:
        """Clients with IPv6 are known by their address too, in any way to write it."""
        for host in (b"2001:db8::1", b"2001:0DB8:0:0:0:0:0:1", b"2001:db8::0.0.0.1"):
            self.make_factory()
            client = self.come_through(b"PROXY TCP6 %s ::1 0 65535\r\n\x16" % host)
            self.assertFalse(client.disconnected)
            self.assertEqual(self.addresses(), ["[2001:db8::1]:0"])
            self.go(client)

    def test_deadline(self) -> None:
        """The time for the handshake runs from the start: a header does not begin it anew."""
        self.make_factory(handshake_timeout=10)
        silent, slow = self.come(PROXY), self.come(PROXY)
        assert silent is not None
        assert slow is not None
        self.clock.advance(9)
        slow.protocol.dataReceived(self.header(1))
        self.assertEqual([silent.disconnected, slow.disconnected], [False, False])
        self.clock.advance(1)
        self.assertEqual([silent.disconnected, slow.disconnected], [True, True])
        self.go(silent)
        self.go(slow)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_shut_down(self) -> None:
        """When the server stops, it ends those too whose header has not come."""
        self.make_factory()
        silent = self.come(PROXY)
        assert silent is not None
        gone = self.chat_factory.shut_down()
        self.assertTrue(silent.disconnected)
        self.assertNoResult(gone)
        self.go(silent)
        self.successResultOf(gone)

"""Tests for `chatserver.addresses`."""

from twisted.trial.unittest import TestCase

from chatserver.addresses import parse_address


class AddressTests(TestCase):
    """Where a client is."""

    def test_ipv4(self) -> None:
        """An IPv4 address counts for itself, also if it came by IPv6."""
        for host in ("192.0.2.1", "::ffff:192.0.2.1", "::ffff:c000:201"):
            address = parse_address(host, 5)
            self.assertEqual((str(address), address.network), ("192.0.2.1:5", "192.0.2.1"))

    def test_ipv6(self) -> None:
        """An IPv6 address counts for its /64, whatever its form and scope."""
        for host, text, network in (
            ("2001:db8:0:0:1::2", "[2001:db8::1:0:0:2]:5", "2001:db8::/64"),
            ("2001:db8::ffff:ffff:ffff:ffff", "[2001:db8::ffff:ffff:ffff:ffff]:5", "2001:db8::/64"),
            ("2001:db8:0:1::2", "[2001:db8:0:1::2]:5", "2001:db8:0:1::/64"),
            ("fe80::1%eth0", "[fe80::1%eth0]:5", "fe80::/64"),
            ("::1", "[::1]:5", "::/64"),
        ):
            address = parse_address(host, 5)
            self.assertEqual((str(address), address.network), (text, network))

    def test_name(self) -> None:
        """What is no IP address is taken as it is."""
        address = parse_address("somewhere", 5)
        self.assertEqual((str(address), address.network), ("somewhere:5", "somewhere"))

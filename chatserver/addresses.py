"""Where clients are: for the log, and for the limits that count by address."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv6Address, IPv6Network, ip_address

from chatserver.limits import IPV6_NETWORK_BITS


@dataclass(frozen=True, slots=True)
class Address:
    """Where a client is. As text it is what stands in log lines.

    `network` is what limits count by: an IPv4 address, or the /64 that an IPv6 address is in.
    It is None where nothing is known that tells clients apart, as at a UNIX socket.
    """

    text: str
    network: str | None

    def __str__(self) -> str:
        return self.text


def parse_address(host: str, port: int) -> Address:
    """Return the address of a client at `host`, an IP address, and `port`.

    An IPv4 address that came by IPv6 (``::ffff:192.0.2.1``) is taken as what it is.
    """
    try:
        ip = ip_address(host)
    except ValueError:
        return Address(f"{host}:{port}", host)
    if isinstance(ip, IPv6Address):
        if ip.ipv4_mapped is None:
            return Address(f"[{ip}]:{port}", _network(ip))
        ip = ip.ipv4_mapped
    return Address(f"{ip}:{port}", str(ip))


def _network(ip: IPv6Address) -> str:
    # By number, since an address of one link only has a scope (fe80::1%eth0), a network none.
    return str(IPv6Network((int(ip), IPV6_NETWORK_BITS), strict=False))

"""Lets the operating system find out when the other side of a connection is not there any more."""

from __future__ import annotations

import socket
from contextlib import suppress
from typing import Any

from chatserver.limits import KEEP_ALIVE

_MOST = 2**31 - 1
"""The greatest value of an option of a socket: in milliseconds, 24 days."""


def keep_alive(transport: Any, user_timeout: float | None) -> None:
    """Look after the connection of `transport`, TLS over TCP, by `KEEP_ALIVE`.

    :param user_timeout: seconds that what was sent may go unacknowledged, or wait because the
        other side takes nothing (TCP_USER_TIMEOUT, RFC 5482), where the system knows that. None
        leaves it at the system's own, about a quarter of an hour.
    """
    transport.setTcpKeepAlive(True)
    with suppress(AttributeError, OSError):  # It is no socket, or can't have that.
        handle = transport.transport.getHandle()  # below TLS
        options = KEEP_ALIVE.copy()
        if user_timeout is not None:
            options["TCP_USER_TIMEOUT"] = min(int(user_timeout * 1000), _MOST)
        for name, value in options.items():
            if (option := getattr(socket, name, None)) is not None:
                handle.setsockopt(socket.IPPROTO_TCP, option, value)

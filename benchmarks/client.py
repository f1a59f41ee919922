"""Clients for making load: blocking, and as cheap as they can be."""

from __future__ import annotations

import socket
import ssl

from chatserver.packets import Command, Packet
from tests.blocking import Client, make_context

PASSWORD = b"password of everybody"
"""The password of every account that a benchmark makes."""

LOCALHOST = "127.0.0.1"

_CONTEXT = make_context()
_CONTEXT.minimum_version = ssl.TLSVersion.TLSv1_3


class LoadClient(Client):
    """A connection to the server at `port`, its handshake done.

    :param source: the address that it comes from; anything in 127.0.0.0/8 can be had
    """

    def __init__(self, port: int, source: str = LOCALHOST) -> None:
        super().__init__(port, context=_CONTEXT, source=source)

    def fileno(self) -> int:
        """Return the socket's descriptor, for a selector."""
        return self._socket.fileno()

    def log_in(self, name: bytes) -> None:
        """Log in as `name`, whose account must be there."""
        answer = self.ask(Command.LOGIN, name + b":" + PASSWORD)
        if answer != Packet(Command.ACK, b"OK"):
            raise AssertionError(f"{name!r} could not log in: {answer}")

    def take_little(self) -> None:
        """Let the system keep little of what is not received: the rest waits at the server."""
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)

    def set_blocking(self, blocking: bool) -> None:
        """Let `send_some` and `receive_some` return at once if there is nothing to do, or not."""
        self._socket.setblocking(blocking)

    def receive_now(self) -> Packet | None:
        """Return the next packet if it has come. (What a selector tells of may be TLS's own.)

        :raises EOFError: nothing more will come
        """
        while (packet := self._decoder.next_packet()) is None:
            data = self.receive_some()
            if data is None:
                return None
            if not data:
                raise EOFError("the server has closed the connection")
            self._decoder.feed(data)
        return packet

    def send_some(self, data: memoryview) -> int:
        """Send the beginning of `data` and return how many bytes; 0 if none can be sent now."""
        try:
            return self._socket.send(data)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return 0

    def receive_some(self) -> bytes | None:
        """Return what has come: None if that is nothing yet, empty at the end."""
        try:
            return self._socket.recv(65536)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return None


def log_in(port: int, name: bytes, source: str = LOCALHOST) -> LoadClient:
    """Return a connection that is logged in as `name`."""
    client = LoadClient(port, source)
    client.log_in(name)
    return client


def open_chat(
    port: int, inviter: bytes, invitee: bytes, invitee_port: int | None = None
) -> tuple[LoadClient, LoadClient]:
    """Return the connections of two who have logged in and now chat."""
    a, b = log_in(port, inviter), log_in(invitee_port or port, invitee)
    steps = (
        (a.ask(Command.CHAT_REQUEST, invitee), Packet(Command.ACK, b"SENT")),
        (b.receive(), Packet(Command.FIND_PEER, inviter)),
        (b.ask(Command.CHAT_ACCEPT, inviter), Packet(Command.CHAT_ACCEPT, inviter)),
        (a.receive(), Packet(Command.CHAT_ACCEPT, invitee)),
    )
    for heard, expected in steps:
        if heard != expected:
            raise AssertionError(f"{heard} instead of {expected}")
    return a, b

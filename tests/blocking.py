"""A client that blocks, over real TLS: for tests of a server in another process or thread."""

from __future__ import annotations

import hashlib
import os
import socket
import ssl
import struct
from types import TracebackType

from chatserver.packets import Packet, PacketDecoder, encode

TIMEOUT = 10.0
"""Seconds that any one step may take: far more than it needs on a machine under load."""


def make_context() -> ssl.SSLContext:
    """Return TLS for clients that take any certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def reset(connection: socket.socket) -> None:
    """Cut `connection` off with a TCP reset."""
    linger = struct.pack("hh" if os.name == "nt" else "ii", 1, 0)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    connection.close()


class Client:
    """A connection to the server at `port` of this machine, its handshake done.

    Any certificate is taken. A step that takes longer than `TIMEOUT` raises TimeoutError.

    :param greeting: what is sent before the handshake, as a proxy does
    :param context: for many clients, so that each need not make one of its own
    :param source: the address to come from, if it matters
    """

    def __init__(
        self,
        port: int,
        host: str = "127.0.0.1",
        greeting: bytes = b"",
        context: ssl.SSLContext | None = None,
        source: str = "",
    ) -> None:
        self._decoder = PacketDecoder()
        context = context or make_context()
        connection = socket.create_connection(
            (host, port), TIMEOUT, (source, 0) if source else None
        )
        try:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.sendall(greeting)
            self._socket = context.wrap_socket(connection)
        except BaseException:
            connection.close()
            raise

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def fingerprint(self) -> str:
        """The SHA-256 of the server's certificate, as the server's log shows it."""
        certificate = self._socket.getpeercert(binary_form=True)
        assert certificate is not None
        return hashlib.sha256(certificate).digest().hex(":").upper()

    def send(self, command: int, body: bytes = b"") -> None:
        """Send one packet."""
        self.send_bytes(encode(Packet(command, body)))

    def send_bytes(self, data: bytes) -> None:
        """Send `data` as it is."""
        self._socket.sendall(data)

    def receive(self) -> Packet | None:
        """Return the next packet, or None at the end of the stream.

        :raises EOFError: the stream ended in the midst of a packet.
        :raises ConnectionResetError: the server aborted the connection.
        """
        while (packet := self._decoder.next_packet()) is None:
            data = self._socket.recv(65536)
            if not data:
                if self._decoder:
                    raise EOFError(f"{len(self._decoder)} bytes of a packet that is not whole")
                return None
            self._decoder.feed(data)
        return packet

    def ask(self, command: int, body: bytes = b"") -> Packet | None:
        """Send one packet and return the next one that comes."""
        self.send(command, body)
        return self.receive()

    def close(self) -> None:
        """Close the connection, without TLS's goodbye. A second time there is nothing to do.

        As with any socket, the server sees a reset if something has come that was not received.
        """
        self._socket.close()

    def reset(self) -> None:
        """Cut the connection off with a TCP reset, as a machine that restarts does."""
        reset(self._socket)

    def shutdown_write(self) -> None:
        """Close the sending half of the TCP connection, and go on receiving."""
        # Not SSLSocket's own, which would drop TLS for the other half too.
        socket.socket.shutdown(self._socket, socket.SHUT_WR)

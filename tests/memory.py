"""A whole server in memory: real TLS, real transports' buffers, a clock that tests advance."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from functools import cache
from tempfile import TemporaryDirectory
from typing import Any

from OpenSSL import SSL
from twisted.internet import main
from twisted.internet.abstract import FileDescriptor
from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionAborted
from twisted.internet.interfaces import ITCPTransport
from twisted.internet.protocol import Protocol
from twisted.internet.ssl import CertificateOptions
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from zope.interface import implementer

from chatserver.certificates import load_or_create
from chatserver.conversation import Conversation
from chatserver.directory import LocalDirectory
from chatserver.factory import ChatFactory
from chatserver.limits import INVITATION_TIMEOUT, STALL_TIMEOUT
from chatserver.packets import Command, ErrorCode, Packet, PacketDecoder, encode
from chatserver.tls import add_tls


@cache
def server_tls() -> CertificateOptions:
    """Return what a server with a certificate of its own needs; made once for all tests."""
    with TemporaryDirectory() as folder:
        paths = os.path.join(folder, "server.crt"), os.path.join(folder, "server.key")
        certificate, _ = load_or_create(*paths, None, datetime.now(UTC))
    return certificate.tls_options


class MemoryAuthenticator:
    """Lets in everybody whose password is ``password``, at once or when the test says so."""

    def __init__(self) -> None:
        self.is_slow = False
        self.waiting: list[tuple[Conversation, Command, bytes]] = []

    def register(self, conversation: Conversation, body: bytes, address: str) -> None:
        self._decide(conversation, Command.REGISTER, body)

    def log_in(self, conversation: Conversation, body: bytes, address: str) -> None:
        self._decide(conversation, Command.LOGIN, body)

    def _decide(self, conversation: Conversation, command: Command, body: bytes) -> None:
        self.waiting.append((conversation, command, body))
        if not self.is_slow:
            self.decide()

    def decide(self) -> None:
        """Decide what waits longest."""
        conversation, command, body = self.waiting.pop(0)
        name, _, password = body.partition(b":")
        if password == b"password":
            conversation.admitted(name)
        else:
            conversation.refused(command, ErrorCode.NOT_AUTHENTICATED)


@implementer(ITCPTransport)
class MemoryTransport(FileDescriptor):
    """The server's end of a connection in memory, with the buffers of a real one.

    `room` is how many bytes the network still takes; `sent` is what it took.
    """

    def __init__(self, clock: Clock, protocol: Protocol, port: int) -> None:
        super().__init__(reactor=self)
        self.clock = clock
        self.protocol = protocol
        self.room = float("inf")
        self.sent = bytearray()
        self.is_reading = self.is_writing = False
        self.has_no_delay = False
        self._port = port
        self.connected = 1
        self.startReading()
        protocol.makeConnection(self)

    # What a FileDescriptor asks of its reactor.
    def addReader(self, _: object) -> None:
        self.is_reading = True

    def removeReader(self, _: object) -> None:
        self.is_reading = False

    def addWriter(self, _: object) -> None:
        self.is_writing = True

    def removeWriter(self, _: object) -> None:
        self.is_writing = False

    # What a socket does.
    def writeSomeData(self, data: bytes) -> int:
        taken = int(min(len(data), self.room))
        self.sent += data[:taken]
        self.room -= taken
        return taken

    def run(self) -> bool:
        """Do what a reactor does when the socket is writable. Return whether anything happened."""
        if not (self.is_writing and self.connected and (self.room or not self.dataBuffer)):
            return False
        before = len(self.sent)
        if (end := self.doWrite()) is not None:
            self.connectionLost(Failure(end))
        return len(self.sent) > before or not self.connected

    def abortConnection(self) -> None:
        if self.connected and not self.disconnected:
            self.stopReading()
            self.stopWriting()
            self.clock.callLater(0, self.connectionLost, Failure(ConnectionAborted()))

    def connectionLost(self, reason: Failure) -> None:
        if self.connected:
            super().connectionLost(reason)
            self.protocol.connectionLost(reason)

    def setTcpNoDelay(self, enabled: bool) -> None:
        self.has_no_delay = enabled

    def getPeer(self) -> IPv4Address:
        return IPv4Address("TCP", "192.0.2.1", self._port)

    def getHost(self) -> IPv4Address:
        return IPv4Address("TCP", "192.0.2.2", 5555)


class MemoryClient:
    """A client whose TLS is OpenSSL's and whose network is the test.

    `packets` is what it has received; `has_ended` tells that the server said goodbye.
    """

    def __init__(self, server: MemoryServer, port: int) -> None:
        self._server = server
        context = SSL.Context(SSL.TLS_METHOD)
        self._tls = SSL.Connection(context, None)
        self._tls.set_connect_state()
        self._decoder = PacketDecoder()
        self.packets: list[Packet] = []
        self.has_ended = False
        protocol: Any = server.tls_factory.buildProtocol(IPv4Address("TCP", "192.0.2.1", port))
        self.transport = MemoryTransport(server.clock, protocol, port)

    def handshake(self) -> None:
        """Do the TLS handshake."""
        try:
            self._tls.do_handshake()
        except SSL.WantReadError:
            self._server.run()
            self._tls.do_handshake()
        self._server.run()

    def send(self, *packets: Packet) -> None:
        """Send `packets` in one write."""
        self.send_bytes(b"".join(map(encode, packets)))

    def send_bytes(self, data: bytes) -> None:
        """Send any bytes, in one write."""
        if data:
            self._tls.sendall(data)
        self._server.run()

    def take(self) -> list[Packet]:
        """Return the packets that came since the last time."""
        packets, self.packets = self.packets, []
        return packets

    def stop_reading(self) -> None:
        """Take nothing more from the network."""
        self.transport.room = 0

    def start_reading(self, room: float = float("inf")) -> None:
        """Take what waits, at most `room` bytes of it."""
        self.transport.room = room
        self._server.run()

    def say_goodbye(self) -> None:
        """End the TLS connection, but leave TCP alone."""
        self._tls.shutdown()
        self._server.run()

    def close(self) -> None:
        """Close TCP's sending side, with nothing said in TLS."""
        self._server.run()
        self.transport.connectionLost(Failure(main.CONNECTION_DONE))
        self._server.run()

    def reset(self) -> None:
        """Break the connection off."""
        self.transport.connectionLost(Failure(main.CONNECTION_LOST))
        self._server.run()

    def exchange(self) -> bool:
        """Carry bytes both ways. Return whether there were any."""
        happened = self.transport.run()
        if self.transport.is_reading and self.transport.connected:
            try:
                data = self._tls.bio_read(2**16)
            except SSL.WantReadError:
                pass
            else:
                happened = True
                self.transport.protocol.dataReceived(data)
        if self.transport.sent:
            happened = True
            self._tls.bio_write(bytes(self.transport.sent))
            self.transport.sent.clear()
            self._read()
        return happened

    def _read(self) -> None:
        try:
            while True:
                self._decoder.feed(self._tls.recv(2**16))
        except SSL.WantReadError:
            pass
        except SSL.Error:  # A goodbye, or an alert.
            self.has_ended = True
        while (packet := self._decoder.next_packet()) is not None:
            self.packets.append(packet)


class MemoryServer:
    """A server and its clients, and the network between them."""

    def __init__(
        self,
        invitation_timeout: float = INVITATION_TIMEOUT,
        stall_timeout: float = STALL_TIMEOUT,
    ) -> None:
        self.clock = Clock()
        self.authenticator = MemoryAuthenticator()
        self.online = LocalDirectory(self.clock, invitation_timeout)
        self.factory = ChatFactory(self.authenticator, self.online, self.clock, stall_timeout)
        self.tls_factory = add_tls(self.factory, server_tls(), self.clock)
        self.clients: list[MemoryClient] = []

    def connect(self, handshake: bool = True) -> MemoryClient:
        """Return a new client, connected."""
        client = MemoryClient(self, 50000 + len(self.clients))
        self.clients.append(client)
        if handshake:
            client.handshake()
        return client

    def log_in(self, name: str) -> MemoryClient:
        """Return a new client, logged in as `name`."""
        client = self.connect()
        client.send(Packet(Command.LOGIN, name.encode() + b":password"))
        assert client.take() == [Packet(Command.ACK, b"OK")]
        return client

    def run(self) -> None:
        """Carry bytes, and let time stand still, until nothing happens any more."""
        happened = True
        while happened:
            self.clock.advance(0)
            happened = False
            for client in self.clients:
                happened = client.exchange() or happened

    def advance(self, seconds: float) -> None:
        """Let time pass, an eighth of a second at a time: so the steps add up exactly."""
        for _ in range(round(seconds * 8)):
            self.clock.advance(1 / 8)
            self.run()

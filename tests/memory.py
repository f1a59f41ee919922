"""A whole server in memory, with clients whose every byte is the test's."""

from __future__ import annotations

from OpenSSL import SSL
from twisted.internet import main
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from chatserver.addresses import Address
from chatserver.conversation import Conversation
from chatserver.directory import LocalDirectory
from chatserver.limits import INVITATION_TIMEOUT, ConnectionLimits
from chatserver.packets import Command, ErrorCode, Packet, PacketDecoder, encode
from chatserver.rates import Rate
from chatserver.testing import MemoryNetwork


class MemoryAuthenticator:
    """Lets in everybody whose password is ``password``, at once or when the test says so."""

    def __init__(self) -> None:
        self.is_slow = False
        self.waiting: list[tuple[Conversation, Command, bytes]] = []

    def register(self, conversation: Conversation, body: bytes, address: Address) -> None:
        self._decide(conversation, Command.REGISTER, body)

    def log_in(self, conversation: Conversation, body: bytes, address: Address) -> None:
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
        self.transport = server.accept(port)

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


class MemoryServer(MemoryNetwork):
    """A server and its clients, and the network between them."""

    def __init__(
        self,
        limits: ConnectionLimits | None = None,
        invitation_timeout: float = INVITATION_TIMEOUT,
        invitations: Rate | None = None,
    ) -> None:
        self.authenticator = MemoryAuthenticator()
        clock = Clock()
        online = LocalDirectory(clock, invitation_timeout, invitations)
        super().__init__(clock, self.authenticator, online, limits)

    def connect(self, handshake: bool = True) -> MemoryClient:
        """Return a new client, connected."""
        client = MemoryClient(self, 50000 + len(self.connections))
        self.connections.append(client)
        if handshake:
            client.handshake()
        return client

    def log_in(self, name: str) -> MemoryClient:
        """Return a new client, logged in as `name`."""
        client = self.connect()
        client.send(Packet(Command.LOGIN, name.encode() + b":password"))
        assert client.take() == [Packet(Command.ACK, b"OK")]
        return client

    def shut_down(self) -> bool:
        """Let the server go down. Return whether all connections have ended."""
        return bool(self.factory.shut_down().called)

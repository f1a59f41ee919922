"""A server that knows what the reference server (the C++ AsyncChatServer) knows, and no more.

For the client library's tests: docs/protocol.md says how it differs from this project's server.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure

from chatserver.packets import AckCode, Command, ErrorCode, Packet, PacketDecoder, encode


class ReferenceProtocol(Protocol):
    """A connection to the reference server.

    It takes one packet from each read. What came behind that in the same read is lost, as it
    is in the original. (A packet must come whole: those of tests do.)
    """

    factory: ReferenceFactory

    def __init__(self) -> None:
        self.name = b""
        self.peer: ReferenceProtocol | None = None
        self.newest_inviter: ReferenceProtocol | None = None

    def dataReceived(self, data: bytes) -> None:
        decoder = PacketDecoder()
        decoder.feed(data)
        packet = decoder.next_packet()
        self.factory.lost_bytes += len(decoder)
        if packet is not None:
            self.factory.received.append(packet)
            answer = _ANSWERS.get(packet.command, ReferenceProtocol.unknown)
            answer(self, packet.body)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.end_chat()
        if self.factory.online.get(self.name) is self:
            del self.factory.online[self.name]

    def tell(self, command: Command, body: bytes = b"") -> None:
        self.transport.write(encode(Packet(command, body)))  # type: ignore[union-attr]

    def refuse(self, code: ErrorCode) -> None:
        self.tell(Command.ERROR, code)

    def end_chat(self) -> None:
        """Tell the peer, if there is one, that the chat is over."""
        if self.peer is not None:
            self.peer.peer = None
            self.peer.refuse(ErrorCode.PEER_LEFT)
            self.peer = None

    # --- Packets ----------------------------------------------------------------------------

    def register(self, body: bytes) -> None:
        name, colon, password = body.partition(b":")
        if not (name and colon and password):
            self.refuse(ErrorCode.MALFORMED)
        elif name in self.factory.accounts:
            self.refuse(ErrorCode.NAME_TAKEN)
        else:
            self.factory.accounts[name] = password
            self.come_online(name)

    def log_in(self, body: bytes) -> None:
        name, colon, password = body.partition(b":")
        if not (name and colon and password):
            self.refuse(ErrorCode.MALFORMED)
        elif self.factory.accounts.get(name) != password:
            self.refuse(ErrorCode.NOT_AUTHENTICATED)
        else:
            self.come_online(name)

    def come_online(self, name: bytes) -> None:
        self.name = name
        self.factory.online[name] = self
        self.tell(Command.ACK, AckCode.OK)

    def message(self, text: bytes) -> None:
        if self.peer is None:
            self.refuse(ErrorCode.NOT_IN_CHAT)
        elif text == b"/exit":
            self.end_chat()
            self.tell(Command.ACK, AckCode.BYE)
        else:
            self.peer.tell(Command.MESSAGE, self.name + b": " + text)
            self.tell(Command.ACK, AckCode.OK)

    def find_peer(self, name: bytes) -> None:
        """Invite: answered only when it fails."""
        invitee = self.factory.online.get(name)
        if not self.name:
            self.refuse(ErrorCode.NOT_LOGGED_IN)
        elif invitee is self:
            self.refuse(ErrorCode.YOURSELF)
        elif invitee is None:
            self.refuse(ErrorCode.NOT_ONLINE)
        else:
            invitee.newest_inviter = self
            invitee.tell(Command.FIND_PEER, self.name)

    def ack(self, _: bytes) -> None:
        """Accept the newest invitation."""
        inviter, self.newest_inviter = self.newest_inviter, None
        if inviter is None:
            return
        if not inviter.transport.connected or inviter.peer is not None:  # type: ignore[union-attr]
            self.refuse(ErrorCode.LOST)
            return
        self.peer, inviter.peer = inviter, self
        for each in (self, inviter):
            each.tell(Command.ACK, AckCode.CHAT)

    def error(self, _: bytes) -> None:
        """Decline the newest invitation."""
        inviter, self.newest_inviter = self.newest_inviter, None
        if inviter is not None:
            inviter.refuse(ErrorCode.DECLINED)

    def unknown(self, _: bytes) -> None:
        self.refuse(ErrorCode.UNKNOWN)


_ANSWERS: dict[int, Callable[[ReferenceProtocol, bytes], None]] = {
    Command.REGISTER: ReferenceProtocol.register,
    Command.LOGIN: ReferenceProtocol.log_in,
    Command.MESSAGE: ReferenceProtocol.message,
    Command.ACK: ReferenceProtocol.ack,
    Command.ERROR: ReferenceProtocol.error,
    Command.FIND_PEER: ReferenceProtocol.find_peer,
}


class ReferenceFactory(Factory):
    """The reference server. `received` is what it took, `lost_bytes` what it lost."""

    protocol = ReferenceProtocol
    noisy = False

    def __init__(self) -> None:
        self.accounts: dict[bytes, bytes] = {}
        self.online: dict[bytes, ReferenceProtocol] = {}
        self.received: list[Packet] = []
        self.lost_bytes = 0

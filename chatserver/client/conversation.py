"""The client's side of a conversation: a machine that knows where it stands.

It does no I/O. `ChatClient` puts requests in, `packet_received` what the server sends, and it
tells a `Handler` what happens. It goes by what it has heard: the server may be a step ahead. Where
that could let a text reach somebody else than was meant, a request is refused on this side::

                    Register, Login: OK              ChatAccept, CHAT
    unauthenticated ───────────────▶ authenticated ───────────────────▶ in chat
                                          ▲  ▲                            │  │
                                          │  └───────── EXIT ─────────────┘  │ leave
                                          └─ BYE, NOCHAT, EXIT ── leaving ◀──┘

    closing, closed: from anywhere
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from automat import TypeMachineBuilder
from twisted.python.failure import Failure

from chatserver.client.chat import Chat, Invitation, Message
from chatserver.client.errors import (
    CONNECTION_ENDS,
    INVITATION_ENDS,
    REFUSALS,
    BrokenStreamError,
    BusyError,
    ChatError,
    LoginTimeoutError,
    NotInChatError,
    PeerLeftError,
    TimedOutError,
    WithdrawnError,
)
from chatserver.client.exchange import Answer, Dialect, Exchange, Request
from chatserver.client.once import Once
from chatserver.packets import SEPARATOR, AckCode, Command, ErrorCode, Packet

_ABOUT_INVITATIONS = (Command.CHAT_REQUEST, Command.CHAT_ACCEPT, Command.CHAT_DECLINE)


class Session(Protocol):
    """The inputs of the machine: all that can happen to the client's side."""

    # What the application wants.

    def ask(self, request: Request) -> None:
        """Invite, accept or decline."""

    def sign_in(self, request: Request) -> None:
        """Register or log in."""

    def say(self, request: Request) -> None:
        """Say something to the chat partner."""

    def leave(self, request: Request) -> None:
        """Leave the chat."""

    def close(self, reason: ChatError) -> None:
        """End the connection."""

    # What came of a request.

    def admitted(self, request: Request) -> None:
        """Register or Login has succeeded."""

    def invitation_sent(self, request: Request) -> None:
        """The invitation was delivered."""

    def declined(self, request: Request) -> None:
        """The invitation was declined, or withdrawn."""

    def left(self, request: Request) -> None:
        """This side has left the chat."""

    # What came unasked.

    def invited(self, inviter: bytes) -> None:
        """Somebody wants to chat."""

    def invitation_ended(self, error: ChatError) -> None:
        """The own invitation has ended without a chat."""

    def timed_out(self) -> None:
        """The own invitation was not answered in time; before login, there was no login."""

    def chat_opened(self, peer: bytes, accept: Request | None) -> None:
        """A chat with `peer` begins. `accept` is the request that it answers, if it is one."""

    def message_received(self, body: bytes) -> None:
        """The chat partner said something."""

    def peer_left(self) -> None:
        """The chat partner has left."""

    def connection_lost(self, reason: ChatError) -> None:
        """The connection is gone."""


class Wire(Protocol):
    """What a conversation needs of its connection."""

    def send(self, packet: Packet) -> None:
        """Send `packet`."""

    def close(self) -> None:
        """Close the connection."""


class Events(Protocol):
    """Whom the conversation tells what happens: an application's `Handler`, in the end."""

    def invited(self, inviter: str) -> None:
        """See `Handler`."""

    def chat_began(self, chat: Chat) -> None:
        """See `Handler`."""

    def message_received(self, chat: Chat, message: Message) -> None:
        """See `Handler`."""

    def chat_ended(self, chat: Chat, reason: ChatError | None) -> None:
        """See `Handler`."""

    def connection_lost(self, reason: ChatError) -> None:
        """See `Handler`."""


@dataclass
class Core:
    """What a conversation knows, and whom it talks to."""

    wire: Wire
    events: Events

    exchange: Exchange = field(init=False)
    name: bytes = b""
    invitee: bytes = b""
    """Whom one's own invitation waits at; empty if there is none."""
    answered: Once[Chat] = field(default_factory=Once)
    """What comes of that invitation."""
    chat: Chat | None = None
    reason: ChatError | None = None

    def end_invitation(self, outcome: Chat | ChatError) -> None:
        """The own invitation, if there is one, has come to `outcome`."""
        self.invitee = b""
        self.answered.fire(outcome if isinstance(outcome, Chat) else Failure(outcome))

    def end_chat(self, reason: ChatError | None) -> None:
        """The chat is over."""
        chat, self.chat = self.chat, None
        if chat is not None:
            chat.is_open = False
            for request in self.exchange.take_back(Command.MESSAGE):
                request.outcome.errback(NotInChatError())
            for request in self.exchange.take_back(Command.EXIT_CHAT):
                request.outcome.callback(None)
            self.events.chat_ended(chat, reason)


def decode_name(name: bytes) -> str:
    """Return a name as text from which `encode_name` makes the same bytes again."""
    return name.decode("utf-8", "surrogateescape")


def encode_name(name: str) -> bytes:
    """Return the bytes of a name."""
    return name.encode("utf-8", "surrogateescape")


def _make_machine() -> Callable[[Core], Session]:  # noqa: PLR0912, PLR0915 - one table
    """Build the machine, a maker of sessions."""
    machine = TypeMachineBuilder(Session, Core)

    unauthenticated = machine.state("unauthenticated")
    authenticated = machine.state("authenticated")
    in_chat = machine.state("in chat")
    leaving = machine.state("leaving")
    closing = machine.state("closing")
    closed = machine.state("closed")

    open_ = (unauthenticated, authenticated, in_chat, leaving)
    outside = (unauthenticated, authenticated)
    inside = (in_chat, leaving)

    # --- What the application wants ---------------------------------------------------------

    for state in open_:

        @state.upon(Session.sign_in).loop()
        def sign_in(s: Session, core: Core, request: Request) -> None:
            core.exchange.submit(request)

    for state in (*outside, leaving):

        @state.upon(Session.ask).loop()
        def ask(s: Session, core: Core, request: Request) -> None:
            core.exchange.submit(request)

        @state.upon(Session.say).loop()
        @state.upon(Session.leave).loop()
        def refuse_outside_chat(s: Session, core: Core, request: Request) -> None:
            request.outcome.errback(NotInChatError())

    # The peer may have left, which has not been heard yet. The server would then invite another,
    # who could accept before the next text, meant for this peer, arrives.
    @in_chat.upon(Session.ask).loop()
    def refuse_as_busy(s: Session, core: Core, request: Request) -> None:
        request.outcome.errback(BusyError())

    @in_chat.upon(Session.say).loop()
    def say(s: Session, core: Core, request: Request) -> None:
        core.exchange.submit(request)

    @in_chat.upon(Session.leave).to(leaving)
    def leave(s: Session, core: Core, request: Request) -> None:
        assert core.chat is not None
        core.chat.is_open = False
        core.exchange.submit(request)

    for state in open_:

        @state.upon(Session.close).to(closing)
        def close(s: Session, core: Core, reason: ChatError) -> None:
            core.reason = reason
            core.wire.close()

    # --- What came of a request -------------------------------------------------------------

    @unauthenticated.upon(Session.admitted).to(authenticated)
    def log_in(s: Session, core: Core, request: Request) -> None:
        core.name = request.body.partition(b":")[0]
        request.outcome.callback(None)

    for state in (authenticated, *inside):
        # No server says so. The state stays what it is, and nobody waits in vain.
        @state.upon(Session.admitted).loop()
        def succeed(s: Session, core: Core, request: Request) -> None:
            request.outcome.callback(None)

    for state in open_:

        @state.upon(Session.invitation_sent).loop()
        def begin_invitation(s: Session, core: Core, request: Request) -> None:
            core.end_invitation(WithdrawnError("withdrawn: a newer invitation took its place"))
            core.invitee, core.answered = request.other, Once()
            request.outcome.callback(Invitation(decode_name(request.other), core.answered))

        @state.upon(Session.declined).loop()
        def decline(s: Session, core: Core, request: Request) -> None:
            # If each has invited the other, this ends both.
            if core.invitee == request.other:
                core.end_invitation(WithdrawnError())
            request.outcome.callback(None)

    for state in inside:

        @state.upon(Session.left).to(authenticated)
        def end_chat(s: Session, core: Core, request: Request) -> None:
            core.end_chat(None)
            request.outcome.callback(None)

    for state in outside:
        # The peer has left first.
        @state.upon(Session.left).loop()
        def has_left(s: Session, core: Core, request: Request) -> None:
            request.outcome.callback(None)

    # --- What came unasked ------------------------------------------------------------------

    unauthenticated.upon(Session.invited).loop().returns(None)

    for state in (authenticated, *inside):

        @state.upon(Session.invited).loop()
        def tell_of_invitation(s: Session, core: Core, inviter: bytes) -> None:
            core.exchange.newest_inviter = inviter
            core.events.invited(decode_name(inviter))

    for state in open_:

        @state.upon(Session.invitation_ended).loop()
        def end_invitation(s: Session, core: Core, error: ChatError) -> None:
            core.end_invitation(error)

    for state in (authenticated, *inside):

        @state.upon(Session.timed_out).loop()
        def time_out_invitation(s: Session, core: Core) -> None:
            core.end_invitation(TimedOutError())

    @unauthenticated.upon(Session.timed_out).to(closing)
    def time_out_login(s: Session, core: Core) -> None:
        core.reason = LoginTimeoutError()
        core.wire.close()

    @authenticated.upon(Session.chat_opened).to(in_chat)
    def open_chat(s: Session, core: Core, peer: bytes, accept: Request | None) -> None:
        begin_chat(s, core, peer, accept)

    @unauthenticated.upon(Session.chat_opened).to(closing)
    def break_off(s: Session, core: Core, peer: bytes, accept: Request | None) -> None:
        core.reason = BrokenStreamError("the server opens a chat for nobody")
        if accept is not None:
            accept.outcome.errback(core.reason)
        core.wire.close()

    for state in inside:
        # It should have told of the end of the chat before.
        @state.upon(Session.chat_opened).to(in_chat)
        def change_chat(s: Session, core: Core, peer: bytes, accept: Request | None) -> None:
            core.end_chat(PeerLeftError())
            begin_chat(s, core, peer, accept)

    def begin_chat(s: Session, core: Core, peer: bytes, accept: Request | None) -> None:
        name = decode_name(peer)
        chat = core.chat = Chat(name, decode_name(core.name), s.say, s.leave)
        for request in core.exchange.take_back(*_ABOUT_INVITATIONS):
            request.outcome.errback(BusyError())
        core.events.chat_began(chat)
        core.end_invitation(chat if core.invitee == peer else WithdrawnError())
        if accept is not None:
            accept.outcome.callback(chat)

    for state in inside:

        @state.upon(Session.message_received).loop()
        def tell_of_message(s: Session, core: Core, body: bytes) -> None:
            assert core.chat is not None
            sender, _, text = body.partition(SEPARATOR)
            core.events.message_received(core.chat, Message(decode_name(sender), text))

        @state.upon(Session.peer_left).to(authenticated)
        def peer_left(s: Session, core: Core) -> None:
            core.end_chat(PeerLeftError())

    for state in outside:
        state.upon(Session.message_received).loop().returns(None)
        state.upon(Session.peer_left).loop().returns(None)

    # --- The end ----------------------------------------------------------------------------

    def end(s: Session, core: Core, reason: ChatError) -> None:
        core.reason = core.reason or reason
        for request in core.exchange.end():
            request.outcome.errback(core.reason)
        core.end_invitation(core.reason)
        core.end_chat(core.reason)
        core.events.connection_lost(core.reason)

    for state in (*open_, closing):

        @state.upon(Session.connection_lost).to(closed)
        def lose_connection(s: Session, core: Core, reason: ChatError) -> None:
            end(s, core, reason)

    for state in (closing, closed):
        for wanted in (Session.ask, Session.sign_in, Session.say, Session.leave):

            @state.upon(wanted).loop()
            def refuse_at_the_end(s: Session, core: Core, request: Request) -> None:
                assert core.reason is not None
                request.outcome.errback(core.reason)

        state.upon(Session.close).loop().returns(None)
        for answered in (
            Session.admitted,
            Session.invitation_sent,
            Session.declined,
            Session.left,
        ):
            state.upon(answered).loop().returns(None)
        for unasked in (
            Session.invited,
            Session.invitation_ended,
            Session.timed_out,
            Session.chat_opened,
            Session.message_received,
            Session.peer_left,
        ):
            state.upon(unasked).loop().returns(None)

    closed.upon(Session.connection_lost).loop().returns(None)

    return machine.build()


_begin = _make_machine()


def converse(wire: Wire, events: Events) -> tuple[Session, Core]:
    """Begin the client's side of a conversation."""
    core = Core(wire, events)
    session = _begin(core)
    core.exchange = Exchange(
        wire.send,
        settle=lambda request, code: _settle(session, core, request, code),
        invitee=lambda: core.invitee,
    )
    return session, core


def packet_received(session: Session, core: Core, packet: Packet) -> None:
    """Give `packet`, just received, to the request that it answers, or to `session` as news.

    What this version does not know is ignored: docs/protocol.md, "Advice for clients".
    """
    match packet.command:
        case Command.MESSAGE:
            session.message_received(packet.body)
        case Command.FIND_PEER:
            session.invited(packet.body)
        case Command.CHAT_ACCEPT:
            if not core.exchange.accept_received(packet.body):
                session.chat_opened(packet.body, None)
        case Command.ACK if packet.body in _ACK_CODES:
            code = AckCode(packet.body)
            is_news = not core.exchange.answer_received(code)
            if is_news and code is AckCode.CHAT and core.invitee:
                # The reference server does not say who has accepted: the one who was invited.
                session.chat_opened(core.invitee, None)
        case Command.ERROR if packet.body in _ERROR_CODES:
            _error_received(session, core, ErrorCode(packet.body))


_ACK_CODES = {code.value for code in AckCode}
_ERROR_CODES = {code.value for code in ErrorCode}


def _error_received(session: Session, core: Core, code: ErrorCode) -> None:
    match code:
        case ErrorCode.PEER_LEFT:
            session.peer_left()
        case ErrorCode.TIMED_OUT:
            session.timed_out()
        case ErrorCode.UNKNOWN:
            core.exchange.unknown_received()
        case _ if code in INVITATION_ENDS:
            session.invitation_ended(INVITATION_ENDS[code]())
        case _ if code in CONNECTION_ENDS:
            session.close(CONNECTION_ENDS[code]())
        case _:
            if (
                not core.exchange.answer_received(code)
                and core.exchange.dialect is Dialect.REFERENCE
            ):
                # What it has to say against an invitation, which it does not answer else.
                session.invitation_ended(REFUSALS[code]())


def _settle(session: Session, core: Core, request: Request, code: Answer) -> None:
    """Tell `session`, or the one who asked, what came of `request`."""
    match request.command, code:
        case ((Command.REGISTER | Command.LOGIN), AckCode.OK):
            session.admitted(request)
        case Command.CHAT_REQUEST, AckCode.SENT:
            session.invitation_sent(request)
        case Command.CHAT_ACCEPT, AckCode.CHAT:
            session.chat_opened(request.other, request)
        case Command.CHAT_DECLINE, AckCode.OK:
            session.declined(request)
        case Command.MESSAGE, AckCode.OK:
            request.outcome.callback(None)
        case ((Command.MESSAGE | Command.EXIT_CHAT), AckCode.BYE):
            session.left(request)
        case Command.EXIT_CHAT, ErrorCode.NOT_IN_CHAT:
            session.left(request)
        case Command.CHAT_ACCEPT, ErrorCode.BUSY if _is_in_chat_with(core, request.other):
            # They accepted one's own invitation a moment before: it is the chat that was meant.
            request.outcome.callback(core.chat)
        case _, ErrorCode():
            request.outcome.errback(REFUSALS[code]())


def _is_in_chat_with(core: Core, name: bytes) -> bool:
    return core.chat is not None and core.chat.peer == decode_name(name)

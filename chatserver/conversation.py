"""The conversation of one connection: what each state answers to each packet.

A conversation does no I/O. It talks to the world through the `Wire`, `Authenticator` and
`Directory` that it is given, and hears from it through the inputs of `Conversation`: the
client's packets, what became of something that it asked for, and what others did.

An outcome may come at once, within the call that asked for it, or later. Either way

* no packet is handled in between when its meaning depends on the outcome: the states
  `authenticating` and `deciding` hold the wire until that is there;
* the answers leave in the order of the packets that they answer: `Answers` sees to it;
* the directory keeps what others do for after the outcome: see `Directory`.

docs/protocol.md has the table that `make_machine` writes down.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from enum import Enum
from functools import cache
from typing import Any, Protocol

from automat import TypeMachineBuilder

from chatserver.addresses import Address
from chatserver.packets import (
    EXIT_TEXT,
    MAX_BODY,
    SEPARATOR,
    AckCode,
    Command,
    ErrorCode,
    Packet,
)

_GRANTED = {
    Command.CHAT_REQUEST: Packet(Command.ACK, AckCode.SENT),
    Command.CHAT_DECLINE: Packet(Command.ACK, AckCode.OK),
}
"""What is answered when the directory did what was asked; other commands hear nothing."""


_DELIVERED = Packet(Command.ACK, AckCode.OK)
_LOST = Packet(Command.ERROR, ErrorCode.LOST)


class Conversation(Protocol):
    """The inputs of the machine: all that can happen to the conversation of a connection."""

    # The client's packets, by command. The argument is the packet's body.

    def register(self, body: bytes) -> None:
        """Make a new account and log in to it."""

    def log_in(self, body: bytes) -> None:
        """Log in to an account."""

    def messages(self, texts: Sequence[bytes]) -> None:
        """Say each of `texts` to the chat partner, or leave the chat: `EXIT_TEXT` comes alone."""

    def ack(self, inviter: bytes) -> None:
        """Accept an invitation, as clients of the reference server do."""

    def error(self, inviter: bytes) -> None:
        """Decline an invitation, as clients of the reference server do."""

    def find_peer(self, invitee: bytes) -> None:
        """Invite somebody, as clients of the reference server do."""

    def chat_request(self, invitee: bytes) -> None:
        """Invite somebody."""

    def chat_accept(self, inviter: bytes) -> None:
        """Accept an invitation."""

    def chat_decline(self, other: bytes) -> None:
        """Decline an invitation or withdraw one's own."""

    def exit_chat(self, body: bytes) -> None:
        """Leave the chat."""

    def unknown(self, body: bytes) -> None:
        """Ask for something that this server does not know."""

    # The rest of what happens on the wire.

    def bad_packet(self) -> None:
        """Something came that is not a packet."""

    def backlogged(self) -> None:
        """The client does not read what it is sent: too much is waiting."""

    def drained(self) -> None:
        """The client has read all that was waiting."""

    def login_timed_out(self) -> None:
        """The client has had its time to log in."""

    def connection_lost(self) -> None:
        """The connection is gone."""

    def shut_down(self) -> None:
        """The server is going down."""

    # What became of something that this conversation asked for.

    def admitted(self, name: bytes) -> None:
        """`Authenticator` made the account `name`, or found its password right."""

    def entered(self) -> None:
        """The `Directory` knows that this conversation is online."""

    def granted(self, command: Command) -> None:
        """The `Directory` did what `command` asked for."""

    def refused(self, command: Command, code: ErrorCode) -> None:
        """What `command` asked for was not done."""

    # What others did.

    def invited(self, inviter: bytes) -> None:
        """`inviter` wants to chat."""

    def invitation_ended(self, code: ErrorCode) -> None:
        """The own invitation was declined, timed out, or the invited one is not free any more."""

    def chat_opened(self, peer: bytes, command: Command) -> None:
        """A chat with `peer` begins; `command` is what this side invited or accepted with."""

    def messages_arrived(self, sender: bytes, texts: Sequence[bytes]) -> None:
        """The chat partner said each of `texts`."""

    def peer_left(self) -> None:
        """The chat partner left the chat, or its connection is gone."""

    def peer_backlogged(self) -> None:
        """The chat partner does not read what it is sent."""

    def peer_drained(self) -> None:
        """The chat partner has read all that was waiting for it."""

    def replaced(self) -> None:
        """The account has logged in on another connection."""


class Hold(Enum):
    """Why no packet is taken from a connection for the moment."""

    OUTCOME = "what the last packet asked for is not decided"
    BACKLOG = "the client does not read what it is sent"
    PEER_BACKLOG = "the chat partner does not read what it is sent"
    PAUSE = "the client asks for too much"


class Wire(Protocol):
    """What a conversation needs of its connection."""

    @property
    def address(self) -> Address:
        """Where the client is."""

    def send(self, *packets: Packet, times: int = 1) -> None:
        """Send `packets`, so many times. On a connection that is closed or gone nothing happens."""

    def finish(self) -> None:
        """Take nothing more from the client. What is still sent must not take long."""

    def close(self) -> None:
        """Finish, send what is waiting, and close."""

    def hold(self, reason: Hold) -> None:
        """Hand over no packet until every reason for it is released."""

    def release(self, reason: Hold) -> None:
        """`reason` does not hold any more. Nothing happens if it did not before."""

    def pause(self) -> None:
        """Hold for a moment: the client was told to slow down."""


class Authenticator(Protocol):
    """Says who may use the server. Each call ends, now or later, in `admitted` or `refused`.

    `address` says where the client is.
    """

    def register(self, conversation: Conversation, body: bytes, address: Address) -> None:
        """Make the account that `body`, a Register packet's, asks for."""

    def log_in(self, conversation: Conversation, body: bytes, address: Address) -> None:
        """Check the credentials in `body`, a Login packet's."""


class Directory(Protocol):
    """Who is online, who has invited whom and who chats with whom.

    What comes of a call is told to the conversations that it concerns, as inputs of theirs,
    now or later. A conversation that waits for an outcome hears that first, and only then of
    chats that others open with it; and it hears nothing of a chat that it has not been told of.
    """

    def enter(self, name: bytes, conversation: Conversation, address: Address) -> None:
        """`conversation`, of a client at `address`, is now `name`'s: `entered` or `refused`.

        An older one of the same name is `replaced`.
        """

    def turn_back(self, conversation: Conversation) -> None:
        """`conversation` is gone. If it has not entered yet it will not, and hears nothing more."""

    def depart(self, name: bytes) -> None:
        """`name` is not online any more."""

    def invite(self, name: bytes, invitee: bytes, command: Command) -> None:
        """`name` invites `invitee`: `granted` or `refused`."""

    def accept(self, name: bytes, inviter: bytes, command: Command) -> None:
        """`name` accepts the invitation of `inviter`, or the newest: `chat_opened` or `refused`."""

    def decline(self, name: bytes, other: bytes, command: Command) -> None:
        """`name` declines the invitation of `other`, or withdraws: `granted` or `refused`."""

    def relay(self, name: bytes, texts: Sequence[bytes], ticket: Ticket) -> None:
        """`name` says each of `texts` to its chat partner: `Ticket.delivered` or `undelivered`."""

    def leave(self, name: bytes) -> None:
        """`name` leaves its chat."""

    def backlogged(self, name: bytes) -> None:
        """`name` does not read what it is sent."""

    def drained(self, name: bytes) -> None:
        """`name` has read all that was waiting."""

    def close(self) -> None:
        """The server goes down: forget everybody, and tell nobody."""


class Ticket:
    """The place of the answers to messages that are being relayed.

    Whether they are delivered depends on no state, so this is no input of the machine.

    :param answers: where they have their place
    :param count: how many messages it is
    """

    __slots__ = ("_answers", "answer", "count")

    def __init__(self, answers: Answers, count: int, answer: Packet | None = None) -> None:
        self._answers = answers
        self.count = count
        self.answer = answer

    def delivered(self) -> None:
        """Each of the messages was handed to the peer's connection."""
        self._answers.redeem(self, _DELIVERED)

    def undelivered(self) -> None:
        """The messages can't be delivered any more."""
        self._answers.redeem(self, _LOST)


class Answers:
    """Sends the answers to a client's packets in the order of the packets."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._waiting: deque[Ticket] = deque()
        self._is_ending = False

    def now(self, packet: Packet) -> None:
        """Answer the newest packet."""
        if self._waiting:
            self._waiting.append(Ticket(self, 1, packet))
        else:
            self._wire.send(packet)

    def later(self, count: int) -> Ticket:
        """Return a ticket for the answers to the `count` newest packets, which `redeem` gives."""
        ticket = Ticket(self, count)
        self._waiting.append(ticket)
        return ticket

    def redeem(self, ticket: Ticket, packet: Packet) -> None:
        """Answer each packet that `ticket` is for with `packet`, behind all that came before."""
        ticket.answer = packet
        while self._waiting and (answer := self._waiting[0].answer) is not None:
            self._wire.send(answer, times=self._waiting.popleft().count)
        if self._is_ending and not self._waiting:
            self._wire.close()

    def last(self, packet: Packet) -> None:
        """Send `packet` behind all that is still to be answered, and close."""
        self.now(packet)
        if self._waiting:
            self._is_ending = True
            self._wire.finish()
        else:
            self._wire.close()


@dataclass
class Core:
    """What a conversation knows and whom it talks to."""

    wire: Wire
    authenticator: Authenticator
    directory: Directory

    name: bytes = b""
    is_backlogged: bool = False
    answers: Answers = field(init=False)

    def __post_init__(self) -> None:
        self.answers = Answers(self.wire)

    def ask(
        self, question: Callable[[bytes, bytes, Command], None], other: bytes, command: Command
    ) -> None:
        """Ask the directory for something with `other`, and wait for the outcome."""
        self.wire.hold(Hold.OUTCOME)
        question(self.name, other, command)

    def answer_ack(self, code: AckCode) -> None:
        """Answer the newest packet with an Ack."""
        self.answers.now(Packet(Command.ACK, code))

    def answer_error(self, code: ErrorCode) -> None:
        """Answer the newest packet with an Error."""
        self.answers.now(Packet(Command.ERROR, code))

    def tell_error(self, code: ErrorCode) -> None:
        """Send an Error that nobody asked for."""
        self.wire.send(Packet(Command.ERROR, code))

    def end_with_error(self, code: ErrorCode) -> None:
        """Send an Error as the last packet, and close."""
        self.answers.last(Packet(Command.ERROR, code))


_INPUTS: dict[int, Callable[[Conversation, bytes], None]] = {
    Command.REGISTER: lambda conversation, body: conversation.register(body),
    Command.LOGIN: lambda conversation, body: conversation.log_in(body),
    Command.ACK: lambda conversation, body: conversation.ack(body),
    Command.ERROR: lambda conversation, body: conversation.error(body),
    Command.FIND_PEER: lambda conversation, body: conversation.find_peer(body),
    Command.CHAT_REQUEST: lambda conversation, body: conversation.chat_request(body),
    Command.CHAT_ACCEPT: lambda conversation, body: conversation.chat_accept(body),
    Command.CHAT_DECLINE: lambda conversation, body: conversation.chat_decline(body),
    Command.EXIT_CHAT: lambda conversation, body: conversation.exit_chat(body),
}


def packets_received(conversation: Conversation, command: int, bodies: list[bytes]) -> None:
    """Give what was received to `conversation` as the input that it is.

    :param bodies: that of one packet, or those of Messages that came in a row
    """
    if command == Command.MESSAGE:
        conversation.messages(bodies)
        return
    (body,) = bodies
    if (give := _INPUTS.get(command)) is None:
        conversation.unknown(body)
    else:
        give(conversation, body)


def _told_of_chat(peer: bytes, command: Command) -> Packet:
    """Return how one who invited or accepted with `command` is told of the chat with `peer`."""
    if command in (Command.CHAT_REQUEST, Command.CHAT_ACCEPT):
        return Packet(Command.CHAT_ACCEPT, peer)
    return Packet(Command.ACK, AckCode.CHAT)


def make_machine() -> Callable[[Core], Conversation]:  # noqa: PLR0912, PLR0915 - one table
    """Build the machine, a maker of conversations."""
    machine = TypeMachineBuilder(Conversation, Core)

    unauthenticated = machine.state("unauthenticated")
    authenticating = machine.state("authenticating")
    authenticated = machine.state("authenticated")
    deciding = machine.state("deciding")
    in_chat = machine.state("in chat")
    closed = machine.state("closed")

    online = (authenticated, deciding, in_chat)
    open_ = (unauthenticated, authenticating, *online)

    about_invitations = (
        Conversation.find_peer,
        Conversation.chat_request,
        Conversation.chat_accept,
        Conversation.chat_decline,
    )

    # --- Packets that only get an Error, or nothing ---------------------------------------

    for command in (*about_invitations, Conversation.exit_chat):

        @unauthenticated.upon(command).loop()
        def refuse_before_login(c: Conversation, core: Core, body: bytes) -> None:
            core.answer_error(ErrorCode.NOT_LOGGED_IN)

    for command in about_invitations:

        @in_chat.upon(command).loop()
        def refuse_as_busy(c: Conversation, core: Core, body: bytes) -> None:
            core.answer_error(ErrorCode.BUSY)

    @unauthenticated.upon(Conversation.messages).loop()
    @authenticated.upon(Conversation.messages).loop()
    def refuse_outside_chat(c: Conversation, core: Core, texts: Sequence[bytes]) -> None:
        for _ in texts:
            core.answer_error(ErrorCode.NOT_IN_CHAT)

    @authenticated.upon(Conversation.exit_chat).loop()
    def refuse_to_leave(c: Conversation, core: Core, body: bytes) -> None:
        core.answer_error(ErrorCode.NOT_IN_CHAT)

    for state in (authenticated, in_chat):
        for command in (Conversation.register, Conversation.log_in):

            @state.upon(command).loop()
            def refuse_second_login(c: Conversation, core: Core, body: bytes) -> None:
                core.answer_error(ErrorCode.ALREADY_LOGGED_IN)

    for state in (unauthenticated, authenticated, in_chat):

        @state.upon(Conversation.unknown).loop()
        def refuse_unknown(c: Conversation, core: Core, body: bytes) -> None:
            core.answer_error(ErrorCode.UNKNOWN)

    # An Ack or an Error is not answered with an Error, so that two programs can't send
    # each other errors for ever.
    for state in (unauthenticated, in_chat):
        state.upon(Conversation.ack).loop().returns(None)
        state.upon(Conversation.error).loop().returns(None)

    # --- Logging in -----------------------------------------------------------------------

    @unauthenticated.upon(Conversation.register).to(authenticating)
    def register_account(c: Conversation, core: Core, body: bytes) -> None:
        core.wire.hold(Hold.OUTCOME)
        core.authenticator.register(c, body, core.wire.address)

    @unauthenticated.upon(Conversation.log_in).to(authenticating)
    def check_credentials(c: Conversation, core: Core, body: bytes) -> None:
        core.wire.hold(Hold.OUTCOME)
        core.authenticator.log_in(c, body, core.wire.address)

    @authenticating.upon(Conversation.admitted).loop()
    def enter_directory(c: Conversation, core: Core, name: bytes) -> None:
        core.name = name
        core.directory.enter(name, c, core.wire.address)

    @authenticating.upon(Conversation.entered).to(authenticated)
    def come_online(c: Conversation, core: Core) -> None:
        if core.is_backlogged:
            core.directory.backlogged(core.name)
        core.answer_ack(AckCode.OK)
        core.wire.release(Hold.OUTCOME)

    # --- Inviting, accepting, declining ---------------------------------------------------

    @authenticated.upon(Conversation.find_peer).to(deciding)
    def invite_silently(c: Conversation, core: Core, invitee: bytes) -> None:
        core.ask(core.directory.invite, invitee, Command.FIND_PEER)

    @authenticated.upon(Conversation.chat_request).to(deciding)
    def invite(c: Conversation, core: Core, invitee: bytes) -> None:
        core.ask(core.directory.invite, invitee, Command.CHAT_REQUEST)

    @authenticated.upon(Conversation.ack).to(deciding)
    def accept_silently(c: Conversation, core: Core, inviter: bytes) -> None:
        core.ask(core.directory.accept, inviter, Command.ACK)

    @authenticated.upon(Conversation.chat_accept).to(deciding)
    def accept(c: Conversation, core: Core, inviter: bytes) -> None:
        core.ask(core.directory.accept, inviter, Command.CHAT_ACCEPT)

    @authenticated.upon(Conversation.error).to(deciding)
    def decline_silently(c: Conversation, core: Core, inviter: bytes) -> None:
        core.ask(core.directory.decline, inviter, Command.ERROR)

    @authenticated.upon(Conversation.chat_decline).to(deciding)
    def decline(c: Conversation, core: Core, other: bytes) -> None:
        core.ask(core.directory.decline, other, Command.CHAT_DECLINE)

    @deciding.upon(Conversation.granted).to(authenticated)
    def answer_granted(c: Conversation, core: Core, command: Command) -> None:
        if command in _GRANTED:
            core.answers.now(_GRANTED[command])
        core.wire.release(Hold.OUTCOME)

    @authenticating.upon(Conversation.refused).to(unauthenticated)
    def answer_not_entered(c: Conversation, core: Core, command: Command, code: ErrorCode) -> None:
        core.name = b""
        answer_refused(c, core, command, code)

    @deciding.upon(Conversation.refused).to(authenticated)
    def answer_refused(c: Conversation, core: Core, command: Command, code: ErrorCode) -> None:
        # These Errors also answer an Ack: the client must learn that it is not in the chat that
        # it accepted. They can't repeat, as the invitation is forgotten.
        is_told = command not in (Command.ACK, Command.ERROR)
        if is_told or code in (ErrorCode.LOST, ErrorCode.FAILED):
            core.answer_error(code)
        if code is ErrorCode.SLOW_DOWN:
            core.wire.pause()
        core.wire.release(Hold.OUTCOME)

    @deciding.upon(Conversation.chat_opened).to(in_chat)
    def answer_chat_opened(c: Conversation, core: Core, peer: bytes, command: Command) -> None:
        core.answers.now(_told_of_chat(peer, command))
        core.wire.release(Hold.OUTCOME)

    @authenticated.upon(Conversation.chat_opened).to(in_chat)
    def tell_chat_opened(c: Conversation, core: Core, peer: bytes, command: Command) -> None:
        core.wire.send(_told_of_chat(peer, command))

    for state in (authenticated, deciding):

        @state.upon(Conversation.invited).loop()
        def tell_invited(c: Conversation, core: Core, inviter: bytes) -> None:
            core.wire.send(Packet(Command.FIND_PEER, inviter))

        @state.upon(Conversation.invitation_ended).loop()
        def tell_invitation_ended(c: Conversation, core: Core, code: ErrorCode) -> None:
            core.tell_error(code)

    # --- In the chat ----------------------------------------------------------------------

    @in_chat.upon(Conversation.messages).loop()
    def say(c: Conversation, core: Core, texts: Sequence[bytes]) -> None:
        if texts[0] == EXIT_TEXT:
            c.exit_chat(b"")
            return
        longest = MAX_BODY - len(core.name) - len(SEPARATOR)
        if max(map(len, texts)) <= longest:
            core.directory.relay(core.name, texts, core.answers.later(len(texts)))
            return
        for text in texts:
            if len(text) > longest:
                core.answer_error(ErrorCode.TOO_LONG)
            else:
                core.directory.relay(core.name, [text], core.answers.later(1))

    @in_chat.upon(Conversation.messages_arrived).loop()
    def hear(c: Conversation, core: Core, sender: bytes, texts: Sequence[bytes]) -> None:
        said = sender + SEPARATOR
        core.wire.send(*[Packet(Command.MESSAGE, said + text) for text in texts])

    @in_chat.upon(Conversation.exit_chat).to(authenticated)
    def leave(c: Conversation, core: Core, body: bytes) -> None:
        core.directory.leave(core.name)
        core.answer_ack(AckCode.BYE)
        core.wire.release(Hold.PEER_BACKLOG)

    @in_chat.upon(Conversation.peer_left).to(authenticated)
    def tell_peer_left(c: Conversation, core: Core) -> None:
        core.tell_error(ErrorCode.PEER_LEFT)
        core.wire.release(Hold.PEER_BACKLOG)

    # --- Back-pressure --------------------------------------------------------------------

    for state in (unauthenticated, authenticating):

        @state.upon(Conversation.backlogged).loop()
        def remember_backlogged(c: Conversation, core: Core) -> None:
            core.is_backlogged = True

        @state.upon(Conversation.drained).loop()
        def remember_drained(c: Conversation, core: Core) -> None:
            core.is_backlogged = False

    for state in online:

        @state.upon(Conversation.backlogged).loop()
        def report_backlogged(c: Conversation, core: Core) -> None:
            core.directory.backlogged(core.name)

        @state.upon(Conversation.drained).loop()
        def report_drained(c: Conversation, core: Core) -> None:
            core.directory.drained(core.name)

    @in_chat.upon(Conversation.peer_backlogged).loop()
    def wait_for_peer(c: Conversation, core: Core) -> None:
        core.wire.hold(Hold.PEER_BACKLOG)

    @in_chat.upon(Conversation.peer_drained).loop()
    def go_on(c: Conversation, core: Core) -> None:
        core.wire.release(Hold.PEER_BACKLOG)

    # --- The end --------------------------------------------------------------------------

    @unauthenticated.upon(Conversation.bad_packet).to(closed)
    def reject_stream(c: Conversation, core: Core) -> None:
        core.end_with_error(ErrorCode.BAD_PACKET)

    for state in (authenticated, in_chat):

        @state.upon(Conversation.bad_packet).to(closed)
        def reject_stream_and_depart(c: Conversation, core: Core) -> None:
            core.directory.depart(core.name)
            core.end_with_error(ErrorCode.BAD_PACKET)

    unauthenticated.upon(Conversation.connection_lost).to(closed).returns(None)

    @unauthenticated.upon(Conversation.login_timed_out).to(closed)
    def end_unknown(c: Conversation, core: Core) -> None:
        core.end_with_error(ErrorCode.TIMED_OUT)

    @authenticating.upon(Conversation.connection_lost).to(closed)
    def turn_back(c: Conversation, core: Core) -> None:
        core.directory.turn_back(c)

    @authenticating.upon(Conversation.login_timed_out).to(closed)
    def end_and_turn_back(c: Conversation, core: Core) -> None:
        core.directory.turn_back(c)
        core.end_with_error(ErrorCode.TIMED_OUT)

    for state in (*online, closed):
        state.upon(Conversation.login_timed_out).loop().returns(None)

    for state in online:

        @state.upon(Conversation.connection_lost).to(closed)
        def depart(c: Conversation, core: Core) -> None:
            core.directory.depart(core.name)

        @state.upon(Conversation.replaced).to(closed)
        def make_way(c: Conversation, core: Core) -> None:
            core.end_with_error(ErrorCode.REPLACED)

    for state in open_:

        @state.upon(Conversation.shut_down).to(closed)
        def say_shutdown(c: Conversation, core: Core) -> None:
            core.end_with_error(ErrorCode.SHUTDOWN)

    # What else was under way when the connection closed means nothing any more. (By the kinds of
    # arguments, and one by one where there are no two of a kind: so mypy can check it.)
    for late in (
        *about_invitations,
        Conversation.register,
        Conversation.log_in,
        Conversation.ack,
        Conversation.error,
        Conversation.exit_chat,
        Conversation.unknown,
        Conversation.admitted,
        Conversation.invited,
    ):
        closed.upon(late).loop().returns(None)
    for event in (
        Conversation.bad_packet,
        Conversation.backlogged,
        Conversation.drained,
        Conversation.connection_lost,
        Conversation.shut_down,
        Conversation.peer_left,
        Conversation.peer_backlogged,
        Conversation.peer_drained,
        Conversation.replaced,
    ):
        closed.upon(event).loop().returns(None)
    closed.upon(Conversation.granted).loop().returns(None)
    closed.upon(Conversation.refused).loop().returns(None)
    closed.upon(Conversation.invitation_ended).loop().returns(None)
    closed.upon(Conversation.chat_opened).loop().returns(None)
    closed.upon(Conversation.messages).loop().returns(None)
    closed.upon(Conversation.messages_arrived).loop().returns(None)

    built = machine.build()
    _look_up_once(built)
    return built


def _look_up_once(machine: Any) -> None:
    """Let `machine` look up each transition once.

    Automat 25.4 goes through all transitions at every input: 20 us with as many as these, and to
    relay a message takes three inputs. The attribute is private to Automat; without it the
    machine works all the same, only slower.
    """
    with suppress(AttributeError):
        automaton = machine.__automat_automaton__
        automaton.outputForInput = cache(automaton.outputForInput)


converse = make_machine()
"""Begin a conversation: takes its `Core`, gives the `Conversation`."""

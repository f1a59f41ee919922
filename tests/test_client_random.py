"""The client library at random: whole clients on a server in memory, and one beside a script.

What the clients ask for and the bytes on their way are interleaved by Hypothesis, so that answers
and news cross in all ways. The suite plays a few interleavings, the same ones each time. To play
20 000 others, of each kind:

    python -m tests.test_client_random 20000

It stops at the first that breaks a rule, and shows a short one that does.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import globalLogPublisher
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from chatserver.client import (
    BusyError,
    Chat,
    ChatClient,
    ChatError,
    ConnectionEndedError,
    Handler,
    Invitation,
    InvitationError,
    Message,
    NotInChatError,
    NotOnlineError,
    PeerLeftError,
    RefusedError,
    connect,
)
from chatserver.client.errors import INVITATION_ENDS, REFUSALS
from chatserver.packets import AckCode, Command, Packet
from chatserver.testing import HOST, PASSWORD, Connection, MemoryServer
from tests.recording import WiredClient

NAMES = ("alice", "bob", "carol", "dave")
INVITATION_TIMEOUT = 8.0

SETTINGS = settings(
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)


# --- Whole clients on a server ----------------------------------------------------------------


@dataclass(eq=False)
class Asked:
    """A Deferred of the library's, and what came of it."""

    what: str
    whom: str
    outcome: list[Any] = field(default_factory=list)
    deferred: Deferred[Any] | None = None

    def watch(self, deferred: Deferred[Any]) -> Asked:
        """Note what `deferred` fires with."""
        self.deferred = deferred
        deferred.addBoth(self._fired)
        return self

    def _fired(self, result: Any) -> None:
        assert not self.outcome, f"{self} fires twice"
        self.outcome.append(result.value if isinstance(result, Failure) else result)

    @property
    def is_open(self) -> bool:
        return not self.outcome

    def __str__(self) -> str:
        return f"{self.what} {self.whom}"


@dataclass(eq=False)
class Text:
    """A text that was sent in `chat`, by `sender`."""

    sender: str
    chat: Chat
    data: bytes
    asked: Asked
    ended_before: int
    """How many connections of the peer had ended when the chat began."""


class Session(Handler):
    """A connection of a user, and the application on it.

    :param habits: what the application does by itself, as letters
    """

    def __init__(self, game: Game, name: str, habits: str) -> None:
        self.game = game
        self.name = name
        self.habits = habits
        self.client: ChatClient | None = None
        self.chats: list[Chat] = []
        self.left: set[Chat] = set()
        self.ended: list[tuple[Chat, ChatError | None]] = []
        self.asked: list[Asked] = []
        self.invitations: list[Asked] = []
        self.received: list[tuple[Chat, bytes]] = []
        self.inviters: list[str] = []
        self.is_lost = False
        self.energy = 6
        """How often the application still does something by itself."""
        server = game.server
        connecting = connect(
            server.clock, HOST, trust=server.trust, handler=self, endpoint=server.endpoint()
        )
        self.connection: Connection = server.connections[-1]
        self.connecting = Asked("connect", name)
        self.connecting.watch(connecting.addCallback(self._connected))

    def _connected(self, client: ChatClient) -> None:
        self.client = client
        self.asked.append(Asked("when_closed", "").watch(client.when_closed()))
        self.ask("log_in", self.name, PASSWORD)

    @property
    def is_online(self) -> bool:
        """Whether the client thinks that it is logged in."""
        return self.client is not None and not self.is_lost and bool(self.client.name)

    # --- What the application asks for ------------------------------------------------------

    def ask(self, what: str, whom: str, *others: str) -> Asked | None:
        """Call a method of the client about `whom`."""
        if self.client is None:
            return None
        asked = Asked(what, whom)
        self.asked.append(asked)
        deferred = getattr(self.client, what)(whom, *others)
        if what == "invite":
            deferred.addCallback(self._delivered, whom)
        asked.watch(deferred)
        return asked

    def _delivered(self, invitation: Invitation, whom: str) -> Invitation:
        assert invitation.invitee == whom, (invitation.invitee, whom)
        asked = Asked("invitation", whom)
        self.invitations.append(asked)
        asked.watch(invitation.when_answered())
        return invitation

    def send(self, chat: Chat | None = None) -> Asked | None:
        """Say something new in `chat`, or else in the last one."""
        if chat is None and not self.chats:
            return None
        chat = chat or self.chats[-1]
        asked = Asked("send", chat.peer)
        game = self.game
        data = f"{self.name} to {chat.peer}, {len(game.texts)}".encode()
        game.texts[data] = Text(self.name, chat, data, asked, game.ended_when_began[chat])
        self.asked.append(asked)
        asked.watch(chat.send(data))
        return asked

    def leave(self, chat: Chat | None = None) -> None:
        """Leave `chat`, or else the last one."""
        if chat is None and not self.chats:
            return
        chat = chat or self.chats[-1]
        if chat.is_open:
            self.left.add(chat)
        asked = Asked("leave", chat.peer)
        self.asked.append(asked)
        asked.watch(chat.leave())

    def close(self) -> None:
        """Close the connection, also before it is there."""
        if self.client is None:
            if self.connecting.deferred is not None and self.connecting.is_open:
                self.connecting.deferred.cancel()
        else:
            self.asked.append(Asked("close", "").watch(self.client.close()))

    def cancel(self, number: int) -> None:
        """Wait no more for something."""
        waiting = [each for each in (*self.asked, *self.invitations) if each.is_open]
        if waiting:
            chosen = waiting[number % len(waiting)]
            assert chosen.deferred is not None
            self.game.cancelled.add(chosen)
            chosen.deferred.cancel()

    def _wants(self, habit: str) -> bool:
        if habit in self.habits and self.energy:
            self.energy -= 1
            return True
        return False

    # --- What it hears ----------------------------------------------------------------------

    def invited(self, client: ChatClient, inviter: str) -> None:
        assert client is self.client
        assert not self.is_lost
        self.inviters.append(inviter)
        if self._wants("a"):
            self.ask("accept", inviter)
        elif self._wants("d"):
            self.ask("decline", inviter)

    def chat_began(self, chat: Chat) -> None:
        assert not self.is_lost
        assert self.client is not None
        assert self.client.chat is chat
        assert chat.is_open
        assert len(self.ended) == len(self.chats), "the chat before has not ended"
        self._check_wanted(chat.peer)
        self.chats.append(chat)
        self.game.ended_when_began[chat] = self.game.ended[chat.peer]
        if self._wants("g"):
            self.send(chat)
        if self._wants("l"):
            self.leave(chat)

    def _check_wanted(self, peer: str) -> None:
        """Check that this side has asked for a chat with `peer`, and not heard a no."""
        wanted = [each for each in self.asked if each.what in ("accept", "invite")]
        wanted += self.invitations
        open_ = [each for each in wanted if each.whom == peer and each.is_open]
        cancelled = [each for each in wanted if each.whom == peer and each in self.game.cancelled]
        assert open_ or cancelled, f"{self.name} did not want a chat with {peer} any more"

    def message_received(self, chat: Chat, message: Message) -> None:
        assert not self.is_lost
        assert self.client is not None
        assert self.client.chat is chat
        assert self.chats[-1] is chat
        assert message.sender == chat.peer
        self.received.append((chat, message.data))
        if self._wants("r") and chat.is_open:
            self.send(chat)
        if self._wants("x") and chat.is_open:
            self.leave(chat)

    def chat_ended(self, chat: Chat, reason: ChatError | None) -> None:
        assert not self.is_lost
        assert self.client is not None
        assert self.client.chat is None
        assert not chat.is_open
        assert self.chats[len(self.ended) :] == [chat], "it has not begun, or ended before"
        if reason is None:
            assert chat in self.left, f"{self.name} did not leave the chat with {chat.peer}"
        else:
            assert isinstance(reason, PeerLeftError | ConnectionEndedError)
        self.ended.append((chat, reason))
        if self._wants("i"):
            self.ask("invite", chat.peer)

    def connection_lost(self, client: ChatClient, reason: ChatError) -> None:
        assert client is self.client
        assert not self.is_lost
        assert isinstance(reason, ConnectionEndedError)
        assert len(self.ended) == len(self.chats), "its chat has not ended before"
        self.is_lost = True
        self.game.ended[self.name] += 1


class Game:
    """Plays steps, and checks what the clients make of them.

    :param habits: those of the application of each user
    """

    def __init__(self, habits: list[str]) -> None:
        self.server = MemoryServer(INVITATION_TIMEOUT)
        for name in NAMES:
            self.server.accounts[name] = PASSWORD.encode()
        self.names = NAMES[: len(habits)]
        self.habits = dict(zip(self.names, habits, strict=True))
        self.sessions: list[Session] = []
        self.texts: dict[bytes, Text] = {}
        self.ended = dict.fromkeys(NAMES, 0)
        self.ended_when_began: dict[Chat, int] = {}
        self.cancelled: set[Asked] = set()
        for name in self.names:
            self.connect(name)
        self.settle()

    def connect(self, name: str) -> None:
        """Connect `name`, who is then online on the newest connection."""
        self.sessions.append(Session(self, name, self.habits[name]))

    def name(self, number: int) -> str:
        """Return one of the names, or now and then that of nobody."""
        return (*self.names, "nobody")[number % (len(self.names) + 1)]

    def step(self, what: str, who: int, number: int) -> None:  # noqa: PLR0912 - one table
        """Play one step of the user `who`. What `number` is depends on the step."""
        name = self.names[who % len(self.names)]
        session = [each for each in self.sessions if each.name == name][-1]
        match what:
            case "invite" | "accept" | "decline" | "withdraw":
                session.ask(what, self.name(number))
            case "answer":
                if session.inviters:
                    session.ask("accept", session.inviters[-1 - number % len(session.inviters)])
            case "cross":
                self._cross(session, self.names[number % len(self.names)])
            case "send":
                session.send()
            case "leave":
                session.leave()
            case "cancel":
                session.cancel(number)
            case "close":
                session.close()
            case "break":
                session.connection.lose()
            case "connect":
                self.connect(name)
            case "replace":
                self.connect(name)
                self.server.run()
            case "pass":
                self.server.clock.advance(number / 8)
            case "settle":
                self.settle()
            case "up":
                self.carry(name, number, Connection.to_server)
            case "down":
                self.carry(name, number, Connection.to_client)

    def _cross(self, session: Session, other: str) -> None:
        """Let `session` and the user `other` invite each other, and hear of it."""
        last = [each for each in self.sessions if each.name == other][-1]
        session.ask("invite", other)
        last.ask("invite", session.name)
        self.server.run()

    def carry(self, name: str, most: int, carry: Callable[[Connection, int], bool]) -> None:
        """Carry some bytes of the connections of `name`."""
        self.server.clock.advance(0)
        for session in self.sessions:
            if session.name == name and not session.is_lost:
                carry(session.connection, most)
        self.server.clock.advance(0)

    # --- The rules --------------------------------------------------------------------------

    def settle(self) -> None:
        """Carry everything, and check that all agree."""
        self.server.run()
        self._check_outcomes()
        self._check_server()
        self._check_texts()

    def end(self) -> None:
        """Close all connections, and check that nobody waits for anything."""
        self.settle()
        self._probe()
        self.settle()
        for session in self.sessions:
            session.close()
        self.server.run()
        self.server.advance(20)
        self._check_outcomes()
        for session in self.sessions:
            for asked in (session.connecting, *session.asked, *session.invitations):
                assert not asked.is_open, f"{session.name}: {asked} never fires"
            assert session.is_lost or session.client is None
            assert len(session.ended) == len(session.chats)
        assert not self.server.online._users
        assert not self.server.clock.getDelayedCalls(), self.server.clock.getDelayedCalls()

    def _probe(self) -> None:
        """Check that each client can still do a request, and gets the right answer."""
        for session in self.sessions:
            session.energy = 0
        for session in self.sessions:
            if not session.is_online:
                continue
            assert session.client is not None
            chat = session.client.chat
            asked = session.ask("invite", "nobody")
            said = session.send(chat) if chat is not None else None
            self.server.run()
            assert asked is not None
            (answer,) = asked.outcome
            assert isinstance(answer, NotOnlineError if chat is None else BusyError), repr(answer)
            assert said is None or said.outcome == [None], said.outcome

    def _check_outcomes(self) -> None:
        """Check that each request has fired, and with something that fits."""
        for session in self.sessions:
            for asked in session.asked:
                if asked.what in ("when_closed", "close") and not session.is_lost:
                    continue
                assert not asked.is_open, f"{session.name}: {asked} has no answer"
                (outcome,) = asked.outcome
                if isinstance(outcome, Exception) and asked.what not in ("when_closed", "close"):
                    expected = (RefusedError, ConnectionEndedError, CancelledError)
                    assert isinstance(outcome, expected), repr(outcome)
                elif asked.what == "accept":
                    assert outcome.peer == asked.whom
            for asked in session.invitations:
                for outcome in asked.outcome:
                    if isinstance(outcome, Chat):
                        assert outcome.peer == asked.whom
                    else:
                        expected = (InvitationError, ConnectionEndedError, CancelledError)
                        assert isinstance(outcome, expected), repr(outcome)

    def _check_server(self) -> None:
        """Check that the clients know what the server knows: chats and invitations."""
        users = self.server.online._users
        online = [session for session in self.sessions if session.is_online]
        assert {session.name.encode() for session in online} == set(users), set(users)
        assert len(online) == len(users)
        for session in online:
            assert session.client is not None
            user = users[session.name.encode()]
            partner = None if user.partner is None else user.partner.name.decode()
            chat = session.client.chat
            assert (chat and chat.peer) == partner, f"{session.name}: {chat} and {partner}"
            sent = [] if user.sent is None else [user.sent.invitee.name.decode()]
            waiting = [each.whom for each in session.invitations if each.is_open]
            known = session.client._core.invitee.decode()
            assert sent in ([], [known]), f"{session.name}: {sent}"
            assert waiting in ([], sent), f"{session.name} waits for {waiting}, not {sent}"
            assert not known or sent, f"{session.name} still waits for {known}"

    def _check_texts(self) -> None:
        """Check who has received which text."""
        received: dict[bytes, list[tuple[Session, Chat]]] = {}
        for session in self.sessions:
            for chat, data in session.received:
                received.setdefault(data, []).append((session, chat))
                assert data in self.texts
        for data, text in self.texts.items():
            places = received.get(data, [])
            assert len(places) <= 1, f"{data} was received {len(places)} times"
            for session, chat in places:
                assert session.name == text.chat.peer, f"{session.name} received {data}"
                assert chat.peer == text.sender
            (outcome,) = text.asked.outcome
            if isinstance(outcome, NotInChatError):
                assert not places, f"{data} was received, although it was refused"
            if outcome is None and not places:
                ended = self.ended[text.chat.peer]
                assert ended > text.ended_before, f"{data} was not received"
        for session in self.sessions:
            for chat in session.chats:
                got = [self.texts[data] for where, data in session.received if where is chat]
                if not got:
                    continue
                assert len({text.chat for text in got}) == 1, "texts of two chats in one"
                all_ = [text for text in self.texts.values() if text.chat is got[0].chat]
                assert got == all_[: len(got)], "they came in another order"


USER = st.integers(0, 3)

STEPS = st.one_of(
    st.tuples(st.just("invite"), USER, USER),
    st.tuples(st.just("invite"), USER, st.integers(0, 4)),
    st.tuples(st.just("answer"), USER, st.integers(0, 2)),
    st.tuples(st.just("answer"), USER, st.just(0)),
    st.tuples(st.sampled_from(["cross", "answer", "answer"]), USER, USER),
    st.tuples(st.sampled_from(["accept", "decline", "withdraw"]), USER, st.integers(0, 4)),
    st.tuples(st.sampled_from(["send", "leave", "send"]), USER, st.just(0)),
    st.tuples(st.sampled_from(["send", "leave", "cancel"]), USER, st.integers(0, 3)),
    st.tuples(st.sampled_from(["up", "down"]), USER, st.integers(1, 200)),
    st.tuples(st.sampled_from(["up", "down"]), USER, st.just(10000)),
    st.tuples(st.sampled_from(["up", "down"]), USER, st.just(10000)),
    st.one_of(
        st.tuples(st.sampled_from(["close", "break", "connect", "replace"]), USER, st.just(0)),
        st.tuples(st.sampled_from(["pass"]), st.just(0), st.integers(1, 20)),
        st.tuples(st.just("settle"), st.just(0), st.just(0)),
        st.tuples(st.just("settle"), st.just(0), st.just(0)),
    ),
)

HABITS = st.lists(
    st.sampled_from(["", "", "a", "d", "ag", "gr", "agr", "gl", "ax", "agx", "i", "aigl", "agri"]),
    min_size=3,
    max_size=4,
)


def play_server(habits: list[str], steps: list[tuple[str, int, int]]) -> None:
    """Play `steps` with whole clients and a server."""
    with _NoFaults():
        game = Game(habits)
        for step in steps:
            game.step(*step)
        game.end()


class _NoFaults:
    """Raises what is logged as a fault."""

    def __enter__(self) -> None:
        self._faults: list[Failure] = []
        globalLogPublisher.addObserver(self._observe)

    def __exit__(self, kind: object, error: object, traceback: object) -> None:
        globalLogPublisher.removeObserver(self._observe)
        if self._faults:
            # The first is the cause: a check that failed in a handler is logged as well.
            raise AssertionError(self._faults[0].getTraceback())

    def _observe(self, event: dict[str, Any]) -> None:
        if "log_failure" in event:
            self._faults.append(event["log_failure"])


SERVER_GAMES = {
    "habits": HABITS,
    "steps": st.lists(STEPS, min_size=25, max_size=90),
}


# --- One client beside a script ---------------------------------------------------------------


@dataclass(eq=False)
class Sent:
    """A request of the client's, on its way through the script."""

    command: Command
    body: bytes
    peer: bytes = b""
    """With whom the chat is that it is about."""

    is_on_wire: bool = False
    answer: bytes | None = None
    """What the script has answered: the name of the Ack or Error, or ``CHAT``."""

    is_taken_as_answered: bool = False
    """Whether news came that looked like the answer: docs/protocol.md, "Pipelining"."""

    outcome: list[Any] = field(default_factory=list)

    def __str__(self) -> str:
        return f"{self.command.name} {self.body!r}"


Item = tuple[Packet, Sent | None]
"""A packet from the server, and what it answers, if it is an answer."""


class Script(Handler):
    """A client of the library, and a server that says what it likes within the protocol.

    It keeps of the rules only what decides which answer and which news is possible: who the
    client is in a chat with, and whom it has invited.
    """

    def __init__(self) -> None:
        self.to_server: deque[Sent] = deque()
        self.to_client: deque[Item] = deque()
        self.requests: list[Sent] = []
        self.on_wire: list[Sent] = []
        self.partner = b""
        self.invitee = b""
        self.is_logged_in = False
        self.left: set[Chat] = set()
        self.heard: list[Any] = []
        self.expected: list[Any] = []
        self.client = WiredClient(self, self)
        self._texts = 0

    # --- The wire of the client -------------------------------------------------------------

    def send(self, packet: Packet) -> None:
        for each in self.requests:
            same = (each.command, each.body) == (packet.command, packet.body)
            if same and not each.is_on_wire and not each.outcome:
                each.is_on_wire = True
                self.on_wire.append(each)
                self.to_server.append(each)
                return
        # The library asks this by itself, if each has invited the other.
        assert packet == Packet(Command.LOGIN), f"nobody has asked for {packet}"
        request = Sent(Command.LOGIN, b"", is_on_wire=True, outcome=[None])
        self.on_wire.append(request)
        self.to_server.append(request)

    def close(self) -> None:
        raise AssertionError("the connection was closed")

    # --- What the handler hears -------------------------------------------------------------

    def invited(self, client: ChatClient, inviter: str) -> None:
        self.heard.append(("invited", inviter.encode()))

    def message_received(self, chat: Chat, message: Message) -> None:
        self.heard.append((chat.peer.encode(), message.data))

    def chat_ended(self, chat: Chat, reason: ChatError | None) -> None:
        assert isinstance(reason, PeerLeftError) or (reason is None and chat in self.left)

    # --- Steps ------------------------------------------------------------------------------

    def step(self, what: str, name: bytes, number: int) -> None:
        """Play one step."""
        match what:
            case "serve":
                if self.to_server:
                    self._serve(self.to_server.popleft(), number)
            case "news":
                if self.is_logged_in:
                    self._news(name, number)
            case "deliver":
                if self.to_client:
                    self._deliver()
            case "ask":
                self._ask(name, number)

    def begin(self) -> None:
        """Log in, and let the client learn which commands the server understands."""
        self._start("log_in", Command.LOGIN, b"me:password", "me", PASSWORD)
        self.step("serve", b"", 0)
        self.step("deliver", b"", 0)
        self._start("decline", Command.CHAT_DECLINE, b"nobody", "nobody")
        self.step("serve", b"", 1)
        self.step("deliver", b"", 0)

    def end(self) -> None:
        """Answer and deliver all."""
        while self.to_server or self.to_client:
            while self.to_client:
                self._deliver()
            if self.to_server:
                self._serve(self.to_server.popleft(), 0)
        for each in self.requests:
            assert each.outcome, f"{each} has no answer"
        assert self.heard == self.expected, (self.heard, self.expected)
        chat = self.client.chat
        assert (chat.peer.encode() if chat else b"") == self.partner
        assert self.client._core.invitee == self.invitee

    def _ask(self, name: bytes, number: int) -> None:
        """Let the application ask for something that makes sense, as `number` says."""
        chat = self.client.chat
        if chat is not None:
            possible = ["send", "send", "send", "leave", "leave", "invite"]
        elif self.client.name:
            possible = ["invite", "invite", "accept", "accept", "decline", "log_in"]
        else:
            possible = ["log_in", "log_in", "log_in", "log_in", "invite", "accept"]
        match possible[number % len(possible)]:
            case "log_in":
                self._start("log_in", Command.LOGIN, b"me:password", "me", PASSWORD)
            case "invite":
                self._start("invite", Command.CHAT_REQUEST, name, name.decode())
            case "accept":
                self._start("accept", Command.CHAT_ACCEPT, name, name.decode())
            case "decline":
                self._start("decline", Command.CHAT_DECLINE, name, name.decode())
            case "send":
                assert chat is not None
                self._texts += 1
                text = b"%d to %s" % (self._texts, chat.peer.encode())
                self._start("send", Command.MESSAGE, text, text, of=chat)
            case "leave":
                assert chat is not None
                self.left.add(chat)
                self._start("leave", Command.EXIT_CHAT, b"", of=chat)

    def _start(
        self, method: str, command: Command, body: bytes, *arguments: Any, of: Any = None
    ) -> None:
        request = Sent(command, body, of.peer.encode() if of else b"")
        self.requests.append(request)
        deferred = getattr(of or self.client, method)(*arguments)
        deferred.addBoth(self._fired, request)

    # --- The server -------------------------------------------------------------------------

    def _serve(self, request: Sent, number: int) -> None:  # noqa: PLR0912 - one table
        """Answer `request` with one of the answers that are possible, as `number` says."""
        possible: list[bytes] = []
        match request.command:
            case Command.LOGIN if self.is_logged_in:
                possible = [b"ALREADY"]
            case Command.LOGIN:
                possible = [b"OK", b"AUTH!", b"SLOWDOWN", b"FAILED", b"BADF"]
            case Command.MESSAGE if self.partner:
                possible = [b"OK", b"OK", b"OK", b"LOST", b"TOOLONG"]
            case Command.MESSAGE:
                possible = [b"NOCHAT"]
            case _ if not self.is_logged_in:
                possible = [b"NOLOG"]
            case Command.EXIT_CHAT:
                possible = [b"BYE" if self.partner else b"NOCHAT"]
            case _ if self.partner:
                possible = [b"BUSY"]
            case Command.CHAT_REQUEST:
                possible = [b"SENT", b"SENT", b"NOPE", b"BUSY", b"SELF"]
            case Command.CHAT_ACCEPT:
                possible = [b"CHAT", b"CHAT", b"LOST", b"NOINVITE"]
            case Command.CHAT_DECLINE if request.body == self.invitee:
                possible = [b"OK"]
            case Command.CHAT_DECLINE:
                possible = [b"OK", b"NOINVITE"]
        # With whom the server thinks the client is in a chat, and whom the client means.
        assert self.partner in (b"", request.peer) or not request.peer, (self.partner, request)
        code = possible[number % len(possible)]
        match request.command, code:
            case Command.LOGIN, b"OK":
                self.is_logged_in = True
            case Command.CHAT_REQUEST, b"SENT":
                self.invitee = request.body
            case Command.CHAT_ACCEPT, b"CHAT":
                self.partner, self.invitee = request.body, b""
            case Command.CHAT_DECLINE, b"OK" if request.body == self.invitee:
                self.invitee = b""
            case Command.EXIT_CHAT, b"BYE":
                self.partner = b""
        if code == b"CHAT":
            packet = Packet(Command.CHAT_ACCEPT, request.body)
        elif code in {each.value for each in AckCode}:
            packet = Packet(Command.ACK, code)
        else:
            packet = Packet(Command.ERROR, code)
        request.answer = code
        self.to_client.append((packet, request))

    def _news(self, name: bytes, number: int) -> None:
        """Say one of the news that are possible, as `number` says."""
        news = [
            Packet(Command.FIND_PEER, name),
            Packet(0x42, b"what nobody knows"),
            Packet(Command.ACK, b"NEW"),
            Packet(Command.ERROR, b"NEW"),
        ]
        if self.partner:
            text = b"text %d" % len(self.to_client)
            news += 2 * [Packet(Command.MESSAGE, self.partner + b": " + text)]
            news += 4 * [Packet(Command.ERROR, b"EXIT")]
        if self.invitee:
            news += [Packet(Command.ERROR, code) for code in INVITATION_ENDS]
            news += 6 * [Packet(Command.CHAT_ACCEPT, self.invitee)]
        packet = news[-1 - number % len(news)]
        match packet:
            case Packet(command=Command.ERROR, body=b"EXIT"):
                self.partner = b""
            case Packet(command=Command.CHAT_ACCEPT):
                self.partner, self.invitee = self.invitee, b""
            case Packet(command=Command.ERROR, body=b"DENY" | b"GONE" | b"TIMEOUT"):
                self.invitee = b""
            case Packet(command=Command.FIND_PEER):
                self.expected.append(("invited", packet.body))
            case Packet(command=Command.MESSAGE):
                peer, _, text = packet.body.partition(b": ")
                self.expected.append((peer, text))
        self.to_client.append((packet, None))

    # --- What the client makes of it --------------------------------------------------------

    def _fired(self, result: Any, request: Sent) -> None:
        request.outcome.append(result.value if isinstance(result, Failure) else result)

    def _deliver(self) -> None:
        """Give the client the next packet, and check who has an answer then, and which."""
        packet, request = self.to_client.popleft()
        before = {each for each in self.requests if each.outcome}
        expected = None
        if request is not None and not request.is_taken_as_answered:
            expected = request
        elif packet.command == Command.CHAT_ACCEPT:
            # It is news, but may look like the answer to what was asked first.
            waiting = [each for each in self.on_wire if not each.outcome]
            if waiting and (waiting[0].command, waiting[0].body) == (packet.command, packet.body):
                expected = waiting[0]
                expected.is_taken_as_answered = True
        chat = self.client.chat
        self.client.packet_received(packet)
        for each in self.requests:
            assert len(each.outcome) <= 1, f"{each} fires twice"
            if each.outcome and each not in before:
                if each is expected:
                    self._check(each, chat)
                else:
                    assert not each.is_on_wire, f"{packet} is no answer to {each}"
                    local = type(None) if each.command == Command.EXIT_CHAT else RefusedError
                    assert isinstance(each.outcome[0], local)
        assert expected is None or expected.outcome, f"{packet} is the answer to {expected}"

    def _check(self, request: Sent, chat: Chat | None) -> None:
        """Check that `request`, asked while the client was in `chat`, has its own answer."""
        (outcome,) = request.outcome
        match request.command, request.answer:
            case Command.CHAT_ACCEPT, b"CHAT":
                is_right = isinstance(outcome, Chat) and outcome.peer.encode() == request.body
            case Command.CHAT_ACCEPT, _ if request.is_taken_as_answered:
                is_right = isinstance(outcome, Chat) and outcome.peer.encode() == request.body
            case Command.CHAT_ACCEPT, b"BUSY" if chat and chat.peer.encode() == request.body:
                is_right = outcome is chat
            case Command.CHAT_REQUEST, b"SENT":
                is_right = (
                    isinstance(outcome, Invitation) and outcome.invitee.encode() == request.body
                )
            case (_, b"OK" | b"BYE") | (Command.EXIT_CHAT, b"NOCHAT"):
                is_right = outcome is None
            case _, code:
                is_right = code is not None and type(outcome) is REFUSALS[code]
        assert is_right, f"{request} was answered {request.answer!r}, and fired {outcome!r}"


NAME = st.sampled_from([b"ann", b"ann", b"ben"])

SCRIPT_STEPS = st.one_of(
    st.tuples(st.just("ask"), NAME, st.integers(0, 5)),
    st.tuples(st.just("ask"), NAME, st.integers(0, 5)),
    st.tuples(st.just("serve"), NAME, st.integers(0, 4)),
    st.tuples(st.just("serve"), NAME, st.just(0)),
    st.tuples(st.just("news"), NAME, st.integers(0, 11)),
    st.tuples(st.sampled_from(["deliver"]), NAME, st.just(0)),
    st.tuples(st.sampled_from(["deliver"]), NAME, st.just(0)),
)

SCRIPTS = {"steps": st.lists(SCRIPT_STEPS, min_size=10, max_size=80), "is_fresh": st.booleans()}


def play_script(steps: list[tuple[str, bytes, int]], is_fresh: bool) -> None:
    """Play `steps` with one client. One that is not fresh is logged in, and knows the server."""
    with _NoFaults():
        script = Script()
        if not is_fresh:
            script.begin()
        for step in steps:
            script.step(*step)
        script.end()


LEAVING_LATE = [
    ("ask", b"ann", 0),  # invites her,
    ("serve", b"", 0),
    ("deliver", b"", 0),
    ("ask", b"ben", 0),  # and invites him, and while that is under way
    ("news", b"", 0),  # she accepts:
    ("deliver", b"", 0),
    ("ask", b"", 3),  # the client leaves her,
    ("news", b"", 0),  # as she does,
    ("serve", b"", 0),
    ("news", b"", 0),  # and he accepts.
]
"""What must not leave the chat with ben."""

STRAY_ANSWER = [
    ("ask", b"ann", 0),  # invites her,
    ("serve", b"", 0),
    ("deliver", b"", 0),
    ("ask", b"ann", 2),  # and accepts hers, and while that is under way
    ("news", b"", 0),  # she accepts,
    ("news", b"", 0),  # and leaves:
    ("deliver", b"", 0),
    ("deliver", b"", 0),
    ("ask", b"ben", 2),  # the client accepts his,
    ("serve", b"", 3),  # and is told that hers is gone.
]
"""What must not be taken as the answer to the accept of ben's invitation."""


# --- The tests --------------------------------------------------------------------------------


class RandomTests(SynchronousTestCase):
    """Random interleavings."""

    def test_clients(self) -> None:
        """However the bytes of several clients cross, each request fires once, each text gets to
        the one whom it was meant for, handlers hear of chats in order, and in the end the clients
        know what the server knows.
        """
        settings(SETTINGS, max_examples=20)(given(**SERVER_GAMES)(play_server))()

    def test_answers(self) -> None:
        """Whatever a server says within the protocol, each request gets its own answer, and news
        none of them.
        """
        play_script(LEAVING_LATE, False)
        play_script(STRAY_ANSWER, False)
        settings(SETTINGS, max_examples=250)(given(**SCRIPTS)(play_script))()


def main() -> None:
    """Play as many interleavings of each kind as the command line says."""
    examples = int(sys.argv[1])
    many = settings(SETTINGS, max_examples=examples, derandomize=False)
    many(given(**SCRIPTS)(play_script))()
    many(given(**SERVER_GAMES)(play_server))()


if __name__ == "__main__":
    main()

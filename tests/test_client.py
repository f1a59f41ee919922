"""Tests for `chatserver.client`, over a whole server in memory or with packets by hand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, fail
from twisted.logger import LogEvent, LogLevel, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from chatserver.client import (
    AlreadyLoggedInError,
    BrokenStreamError,
    BusyError,
    Chat,
    ChatClient,
    ChatError,
    ClosedError,
    ConnectError,
    ConnectionLostError,
    DeclinedError,
    Handler,
    Invitation,
    LoginTimeoutError,
    LostError,
    MalformedCredentialsError,
    Message,
    NameTakenError,
    NoInvitationError,
    NotAuthenticatedError,
    NotFreeError,
    NotInChatError,
    NotLoggedInError,
    NotOnlineError,
    PeerLeftError,
    ReplacedError,
    ReservedTextError,
    ShutdownError,
    TimedOutError,
    TooLongError,
    WithdrawnError,
    YourselfError,
    connect,
)
from chatserver.client.connection import HANDSHAKE_TIMEOUT
from chatserver.client.errors import CONNECTION_ENDS, INVITATION_ENDS, REFUSALS
from chatserver.client.exchange import Answer, Dialect, Exchange, Request
from chatserver.limits import CLOSE_TIMEOUT, INVITATION_TIMEOUT, MAX_RECEIVED_INVITATIONS
from chatserver.packets import MAX_BODY, AckCode, Command, ErrorCode, Packet
from chatserver.testing import HOST, MemoryServer
from tests.recording import Event, ListWire, Recorder, WiredClient

OK = Packet(Command.ACK, b"OK")
BYE = Packet(Command.ACK, b"BYE")
SENT = Packet(Command.ACK, b"SENT")
LOGIN = Packet(Command.LOGIN, b"alice:password")


def error(code: str) -> Packet:
    return Packet(Command.ERROR, code.encode())


def chat_with(name: str) -> Packet:
    return Packet(Command.CHAT_ACCEPT, name.encode())


def invited_by(name: str) -> Packet:
    return Packet(Command.FIND_PEER, name.encode())


class ClientCase(SynchronousTestCase):
    """A test with a server in memory, and handlers that note what they hear."""

    def setUp(self) -> None:
        self.server = MemoryServer()
        self.heard: dict[str, Recorder] = {}

    def log_in(self, *names: str) -> list[ChatClient]:
        """Return clients that are logged in. The server hears the first one first."""
        self.heard.update((name, Recorder()) for name in names)
        return [self.server.log_in(name, self.heard[name]) for name in names]

    def heard_by(self, name: str) -> list[Event]:
        """Return the events of a client since the last time."""
        return self.heard[name].take()

    def refused(self, waiting: Deferred[Any], *errors: type[Exception]) -> Exception:
        """Carry bytes, and return the error that `waiting` has failed with."""
        self.server.run()
        failure = self.failureResultOf(waiting, *errors)
        return failure.value  # type: ignore[no-any-return]

    def invite(self, inviter: ChatClient, invitee: ChatClient) -> Deferred[Chat]:
        """Let one client invite another. Return what tells of the answer."""
        return self.server.result(inviter.invite(invitee.name)).when_answered()

    def open_chat(self, inviter: ChatClient, invitee: ChatClient) -> tuple[Chat, Chat]:
        """Return both sides of a new chat."""
        answer = self.invite(inviter, invitee)
        there = self.server.result(invitee.accept(inviter.name))
        here = self.successResultOf(answer)
        for recorder in self.heard.values():
            recorder.take()
        return here, there


class SigningInTests(ClientCase):
    """Registering and logging in."""

    def test_register(self) -> None:
        """Who registers is logged in with that, and can log in with the same password later."""
        alice = self.server.connect()
        self.assertEqual(alice.name, "")
        self.server.result(alice.register("alice", "long:enough"))
        self.assertEqual((alice.name, alice.chat), ("alice", None))
        self.assertEqual(self.server.accounts, {"alice": b"long:enough"})
        again = self.server.connect()
        self.server.result(again.log_in("alice", "long:enough"))
        self.assertEqual(again.name, "alice")

    def test_password_is_normalized(self) -> None:
        """A password as text is sent as NFC in UTF-8, whatever keyboard it came from; bytes as is.

        Names are sent as they are: it is the server's to refuse them.
        """
        for password, sent in (("cafe\u0301cafe", "cafécafe".encode()), (b"\xff" * 8, b"\xff" * 8)):
            client = self.server.connect()
            self.server.result(client.register(f"n{len(self.server.accounts)}", password))
            self.assertEqual(list(self.server.accounts.values())[-1], sent)
        decomposed = client.register("cafe\u0301", "password")
        self.refused(decomposed, AlreadyLoggedInError)

    def test_refusals(self) -> None:
        """What the server has against a name or password comes as an error, and one can go on."""
        self.server.accounts["alice"] = b"password"
        client = self.server.connect()
        self.refused(client.register("alice", "password"), NameTakenError)
        self.refused(client.register("bob", "short"), MalformedCredentialsError)
        self.refused(client.register("no spaces", "password"), MalformedCredentialsError)
        self.refused(client.log_in("", "password"), MalformedCredentialsError)
        self.refused(client.log_in("\udcff", "password"), MalformedCredentialsError)
        self.refused(client.log_in("alice", "wrong"), NotAuthenticatedError)
        self.refused(client.log_in("nobody", "password"), NotAuthenticatedError)
        self.assertEqual(client.name, "")
        self.server.result(client.log_in("alice", "password"))
        self.refused(client.log_in("alice", "password"), AlreadyLoggedInError)
        self.refused(client.register("carol", "password"), AlreadyLoggedInError)
        self.assertEqual(client.name, "alice")

    def test_refused_here(self) -> None:
        """A name with a colon would be another name to the server; it and too much are not sent."""
        wire = ListWire()
        client = WiredClient(wire, Recorder())
        for name, password in (("a:b", "password"), ("a", "x" * MAX_BODY)):
            for ask in (client.register, client.log_in):
                self.failureResultOf(ask(name, password), MalformedCredentialsError)
        self.assertEqual(wire.sent, [])

    def test_not_logged_in(self) -> None:
        """Who is not logged in can't invite, accept, decline or withdraw."""
        client = self.server.connect()
        for ask in (client.invite, client.accept, client.decline, client.withdraw):
            self.refused(ask("bob"), NotLoggedInError)

    def test_all_at_once(self) -> None:
        """One need not wait for the login before one invites."""
        self.log_in("bob")
        self.server.accounts["alice"] = b"password"
        alice = self.server.connect()
        waiting = [alice.log_in("alice", "wrong"), alice.log_in("alice", "password")]
        inviting = alice.invite("bob")
        self.refused(waiting[0], NotAuthenticatedError)
        self.successResultOf(waiting[1])
        self.assertEqual(self.successResultOf(inviting).invitee, "bob")


class CodeTests(SynchronousTestCase):
    """Each code of the protocol has its class."""

    def test_classes(self) -> None:
        """Each Error code is that of one class, by the kind of thing that it ends."""
        connection = {b"BADPACKET", b"REPLACED", b"SHUTDOWN", b"TIMEOUT"}
        invitation = {b"DENY", b"GONE", b"TIMEOUT"}
        unasked = connection | invitation | {b"EXIT"}
        self.assertEqual(set(REFUSALS), {code.value for code in ErrorCode} - unasked)
        self.assertEqual(set(INVITATION_ENDS), invitation)
        self.assertEqual(set(CONNECTION_ENDS), connection)
        self.assertEqual(PeerLeftError.code, ErrorCode.PEER_LEFT)
        for table in (REFUSALS, INVITATION_ENDS, CONNECTION_ENDS):
            for code, cls in table.items():
                self.assertEqual(cls.code, code)
                self.assertNotEqual(str(cls()), ChatError.text)

    def test_refusals(self) -> None:
        """A request fails with the class of each code that docs/protocol.md says may answer it."""
        for method, codes in {
            "register": "BADF USER! ALREADY SLOWDOWN CLOSED FAILED UNKN",
            "log_in": "BADF AUTH! ALREADY SLOWDOWN FAILED UNKN",
            "invite": "NOLOG NOPE SELF BUSY UNKN",
            "accept": "NOLOG NOINVITE LOST BUSY UNKN",
            "decline": "NOLOG NOINVITE BUSY UNKN",
            "withdraw": "NOLOG NOINVITE BUSY UNKN",
        }.items():
            for code in codes.split():
                if code == "UNKN" and method in ("register", "log_in"):
                    continue  # All servers know these.
                client = WiredClient(ListWire(), Recorder())
                # The server is of today: it has answered a new command.
                client.decline("nobody").addErrback(lambda _: None)
                client.packet_received(error("NOLOG"))
                arguments = ("bob", "password") if method in ("register", "log_in") else ("bob",)
                outcome = getattr(client, method)(*arguments)
                client.packet_received(error(code))
                found = self.failureResultOf(outcome).value
                self.assertIs(type(found), REFUSALS[code.encode()], f"{method}: {code}")
                self.assertEqual(found.code, ErrorCode(code.encode()))

    def test_refused_messages(self) -> None:
        """So does a message: the chat goes on, and the answers fit the messages."""
        client, wire = ScriptedCase.in_chat()
        sent = [client.chat.send(text) for text in "abcd"]
        for packet in (error("LOST"), OK, error("TOOLONG"), error("NOCHAT")):
            client.packet_received(packet)
        self.failureResultOf(sent[0], LostError)
        self.assertIsNone(self.successResultOf(sent[1]))
        self.failureResultOf(sent[2], TooLongError)
        self.failureResultOf(sent[3], NotInChatError)
        self.assertTrue(client.chat.is_open)
        self.assertEqual([packet.body for packet in wire.take()], [b"a", b"b", b"c", b"d"])


class InvitingTests(ClientCase):
    """Inviting, and what comes of it."""

    def test_accepted(self) -> None:
        """An invitation that is accepted becomes the chat, at both sides."""
        alice, bob = self.log_in("alice", "bob")
        invitation = self.server.result(alice.invite("bob"))
        answers = [invitation.when_answered(), invitation.when_answered()]
        self.assertEqual(self.heard_by("bob"), [("invited", "alice")])
        self.assertNoResult(answers[0])
        there = self.server.result(bob.accept("alice"))
        answers.append(invitation.when_answered())
        for answer in answers:
            self.assertIs(self.successResultOf(answer), alice.chat)
        self.assertEqual((alice.chat.peer, there.peer), ("bob", "alice"))
        self.assertIs(bob.chat, there)
        self.assertEqual(self.heard_by("alice"), [("chat_began", "bob")])
        self.assertEqual(self.heard_by("bob"), [("chat_began", "alice")])

    def test_ends(self) -> None:
        """Each way in which an invitation ends without a chat is an error of its own."""

        def accept_carol(bob: ChatClient, carol: ChatClient) -> None:
            self.server.result(carol.invite("bob"))
            self.server.result(bob.accept("carol"))

        ways: dict[type[ChatError], Sequence[Callable[..., Any]]] = {
            DeclinedError: [lambda alice, bob, carol: bob.decline("alice")],
            TimedOutError: [lambda *_: self.server.advance(INVITATION_TIMEOUT)],
            NotFreeError: [
                lambda alice, bob, carol: bob.close(),
                lambda alice, bob, carol: accept_carol(bob, carol),
                lambda *_: self.server.log_in("bob"),
            ],
            WithdrawnError: [
                lambda alice, bob, carol: alice.withdraw("bob"),
                lambda alice, bob, carol: alice.invite("carol"),
                lambda alice, bob, carol: alice.invite("bob"),
                lambda alice, bob, carol: (carol.invite("alice"), alice.accept("carol")),
            ],
            ClosedError: [lambda alice, bob, carol: alice.close()],
            ConnectionLostError: [lambda *_: self.server.connections[2].lose()],
        }
        for expected, actions in ways.items():
            for action in actions:
                self.setUp()
                carol, bob, alice = self.log_in("carol", "bob", "alice")
                invitation = self.server.result(alice.invite("bob"))
                before = invitation.when_answered()
                action(alice, bob, carol)
                self.refused(before, expected)
                self.failureResultOf(invitation.when_answered(), expected)

    def test_same_user_again(self) -> None:
        """Inviting the same user again ends the first invitation; the second can be accepted."""
        alice, bob = self.log_in("alice", "bob")
        first, second = self.invite(alice, bob), self.invite(alice, bob)
        self.failureResultOf(first, WithdrawnError)
        self.server.result(bob.accept("alice"))
        self.assertEqual(self.successResultOf(second).peer, "bob")

    def test_failed_one_changes_nothing(self) -> None:
        """An invitation that is refused leaves the one before as it is."""
        alice, bob = self.log_in("alice", "bob")
        answer = self.invite(alice, bob)
        self.refused(alice.invite("nobody"), NotOnlineError)
        self.refused(alice.invite("alice"), YourselfError)
        self.assertNoResult(answer)
        self.server.result(bob.accept("alice"))
        self.assertEqual(self.successResultOf(answer).peer, "bob")

    def test_refused(self) -> None:
        """Nobody can be invited who is not online, oneself, in a chat or has too much waiting."""
        alice, bob, carol = self.log_in("alice", "bob", "carol")
        self.refused(alice.invite("nobody"), NotOnlineError)
        self.refused(alice.invite("alice"), YourselfError)
        self.open_chat(bob, carol)
        self.refused(alice.invite("bob"), BusyError)
        for number in range(MAX_RECEIVED_INVITATIONS):
            self.server.result(self.server.log_in(f"u{number}").invite("alice"))
        late = self.server.log_in("late")
        self.refused(late.invite("alice"), BusyError)

    def test_no_name(self) -> None:
        """An empty name means nobody. (To the server it would mean the newest invitation.)"""
        alice, bob = self.log_in("alice", "bob")
        self.invite(bob, alice).addErrback(lambda _: None)
        for name in ("", "x" * (MAX_BODY + 1)):
            self.failureResultOf(alice.invite(name), NotOnlineError)
            for ask in (alice.accept, alice.decline, alice.withdraw):
                self.failureResultOf(ask(name), NoInvitationError)
        self.server.result(alice.decline("bob"))

    def test_two_at_once(self) -> None:
        """Of two invitations sent at once the second stands; each is told its own fate."""
        alice, bob, carol = self.log_in("alice", "bob", "carol")
        inviting = [alice.invite("bob"), alice.invite("nobody"), alice.invite("carol")]
        self.server.run()
        self.failureResultOf(inviting[1], NotOnlineError)
        self.failureResultOf(self.successResultOf(inviting[0]).when_answered(), WithdrawnError)
        self.server.result(carol.accept("alice"))
        self.refused(bob.accept("alice"), LostError)
        answer = self.successResultOf(inviting[2]).when_answered()
        self.assertEqual(self.successResultOf(answer).peer, "carol")

    def test_timeout_after_login(self) -> None:
        """A time-out of an invitation ends nothing but that."""
        alice, bob = self.log_in("alice", "bob")
        self.invite(alice, bob).addErrback(lambda _: None)
        self.server.advance(INVITATION_TIMEOUT)
        self.assertNoResult(alice.when_closed())
        self.assertEqual(self.open_chat(alice, bob)[0].peer, "bob")


class AnsweringTests(ClientCase):
    """Accepting, declining and withdrawing."""

    def test_by_name(self) -> None:
        """The invitation that is named is accepted, not the newest; the other inviter is told."""
        alice, bob, carol = self.log_in("alice", "bob", "carol")
        first, second = self.invite(bob, alice), self.invite(carol, alice)
        self.assertEqual(self.server.result(alice.accept("bob")).peer, "bob")
        self.assertEqual(self.successResultOf(first).peer, "alice")
        self.failureResultOf(second, NotFreeError)

    def test_no_invitation(self) -> None:
        """What there is no invitation for can't be accepted, declined or withdrawn."""
        alice, _ = self.log_in("alice", "bob")
        for ask in (alice.accept, alice.decline, alice.withdraw):
            for name in ("bob", "nobody", "alice", "\udcff"):
                self.refused(ask(name), NoInvitationError)

    def test_gone(self) -> None:
        """To accept an invitation that was withdrawn or has timed out comes too late."""
        alice, bob = self.log_in("alice", "bob")
        self.invite(alice, bob).addErrback(lambda _: None)
        self.server.result(alice.withdraw("bob"))
        self.refused(bob.accept("alice"), LostError)
        self.refused(bob.accept("alice"), NoInvitationError)
        self.invite(alice, bob).addErrback(lambda _: None)
        self.server.advance(INVITATION_TIMEOUT)
        self.refused(bob.accept("alice"), LostError)
        self.assertEqual(self.open_chat(alice, bob)[1].peer, "alice")

    def test_decline(self) -> None:
        """A declined invitation is over for both, and may be sent again."""
        alice, bob = self.log_in("alice", "bob")
        answer = self.invite(alice, bob)
        self.assertIsNone(self.server.result(bob.decline("alice")))
        self.failureResultOf(answer, DeclinedError)
        self.refused(bob.accept("alice"), NoInvitationError)
        self.assertEqual(self.open_chat(alice, bob)[0].peer, "bob")

    def test_decline_another(self) -> None:
        """To decline somebody's invitation leaves one's own to another as it is."""
        alice, bob, carol = self.log_in("alice", "bob", "carol")
        own, theirs = self.invite(alice, bob), self.invite(carol, alice)
        self.server.result(alice.decline("carol"))
        self.failureResultOf(theirs, DeclinedError)
        self.server.result(bob.accept("alice"))
        self.assertEqual(self.successResultOf(own).peer, "bob")

    def test_withdraw_at_once(self) -> None:
        """An invitation may be withdrawn before it is known to be delivered."""
        alice, bob = self.log_in("alice", "bob")
        inviting, withdrawing = alice.invite("bob"), alice.withdraw("bob")
        answer = self.server.result(inviting).when_answered()
        self.assertIsNone(self.successResultOf(withdrawing))
        self.failureResultOf(answer, WithdrawnError)
        self.refused(bob.accept("alice"), LostError)

    def test_own_is_accepted_first(self) -> None:
        """Who accepts while somebody accepts their own invitation is in that other chat."""
        bob, alice, carol = self.log_in("bob", "alice", "carol")
        own, theirs = self.invite(alice, bob), self.invite(carol, alice)
        accepted, accepting = bob.accept("alice"), alice.accept("carol")
        self.refused(accepting, BusyError)
        self.assertEqual(self.successResultOf(own).peer, "bob")
        self.assertIs(self.successResultOf(accepted), bob.chat)
        self.failureResultOf(theirs, NotFreeError)
        self.assertEqual(self.heard_by("alice"), [("invited", "carol"), ("chat_began", "bob")])
        self.server.result(alice.chat.send("hi"))
        self.assertEqual(self.heard_by("bob")[-1], ("message", "alice", b"hi"))

    def cross(self) -> list[ChatClient]:
        """Return alice and bob, who have invited each other, and carol."""
        clients = self.log_in("alice", "bob", "carol")
        self.answers = [self.invite(clients[0], clients[1]), self.invite(clients[1], clients[0])]
        return clients

    def test_crossed(self) -> None:
        """If each has invited the other, an accept from either opens the chat."""
        for accepting in (0, 1):
            self.setUp()
            clients = self.cross()
            chat = self.server.result(clients[accepting].accept(clients[1 - accepting].name))
            self.assertIs(self.successResultOf(self.answers[accepting]), chat)
            other = self.successResultOf(self.answers[1 - accepting])
            self.assertEqual(other.peer, clients[accepting].name)

    def test_crossed_both_accept(self) -> None:
        """If both accept at once, both get the chat, once, and what follows is answered rightly."""
        alice, bob, carol = self.cross()
        accepting = [alice.accept("bob"), bob.accept("alice")]
        self.server.run()
        for waiting, answer, client in zip(accepting, self.answers, (alice, bob), strict=True):
            self.assertIs(self.successResultOf(waiting), client.chat)
            self.assertIs(self.successResultOf(answer), client.chat)
        self.assertEqual(self.heard_by("alice"), [("invited", "bob"), ("chat_began", "bob")])
        self.assertEqual(self.heard_by("bob"), [("invited", "alice"), ("chat_began", "alice")])
        saying = [bob.chat.send("1"), alice.chat.send("2"), bob.chat.send("3")]
        leaving, inviting = bob.chat.leave(), bob.invite("carol")
        self.server.run()
        for waiting in (*saying, leaving):
            self.assertIsNone(self.successResultOf(waiting))
        self.assertEqual(self.successResultOf(inviting).invitee, "carol")
        self.refused(bob.accept("alice"), NoInvitationError)
        self.refused(alice.accept("bob"), NoInvitationError)
        self.assertEqual(self.server.result(carol.accept("bob")).peer, "bob")

    def test_crossed_accepted_and_left(self) -> None:
        """The other may accept first and leave, before one's own accept comes: that is nobody's
        answer, and an invitation of a third can be accepted."""
        alice, bob, carol = self.cross()
        connection = self.server.connections[1]
        accepting = bob.accept("alice")
        self.server.clock.advance(0)
        connection.is_cut = True  # The accept is still under way.
        self.server.result(alice.accept("bob"))
        self.server.result(alice.chat.leave())
        theirs = self.invite(carol, bob)
        connection.is_cut = False
        while connection.to_client():
            self.server.clock.advance(0)
        self.assertEqual(self.successResultOf(accepting).peer, "alice")
        self.assertEqual(self.heard_by("bob")[-1], ("invited", "carol"))
        self.assertIs(self.server.result(bob.accept("carol")), bob.chat)
        self.assertEqual(self.successResultOf(theirs).peer, "bob")

    def test_crossed_declined(self) -> None:
        """A decline between two who have invited each other ends both invitations."""
        alice, bob, _ = self.cross()
        self.server.result(alice.decline("bob"))
        self.failureResultOf(self.answers[0], WithdrawnError)
        self.failureResultOf(self.answers[1], DeclinedError)
        self.refused(bob.accept("alice"), LostError)
        self.assertEqual(self.open_chat(alice, bob)[0].peer, "bob")

    def test_crossed_both_decline(self) -> None:
        """If both decline at once, nobody waits any more."""
        alice, bob, _ = self.cross()
        declining = [alice.decline("bob"), bob.decline("alice")]
        self.server.run()
        for waiting in declining:
            self.assertIsNone(self.successResultOf(waiting))
        self.failureResultOf(self.answers[0], WithdrawnError, DeclinedError)
        self.failureResultOf(self.answers[1], DeclinedError)
        self.assertEqual(self.open_chat(alice, bob)[0].peer, "bob")

    def test_crossed_accept_and_decline(self) -> None:
        """If one accepts while the other declines, the server's order counts, and all are told."""
        for first in ("accept", "decline"):
            self.setUp()
            alice, bob, _ = self.cross()
            second = "decline" if first == "accept" else "accept"
            here, there = getattr(alice, first)("bob"), getattr(bob, second)("alice")
            self.server.run()
            if first == "accept":
                self.assertIs(self.successResultOf(here), alice.chat)
                self.failureResultOf(there, BusyError)
                self.assertEqual(
                    [self.successResultOf(each).peer for each in self.answers], ["bob", "alice"]
                )
            else:
                self.assertIsNone(self.successResultOf(here))
                self.failureResultOf(there, LostError)
                self.failureResultOf(self.answers[0], WithdrawnError)
                self.failureResultOf(self.answers[1], DeclinedError)


class ChatTests(ClientCase):
    """Talking and leaving."""

    def setUp(self) -> None:
        super().setUp()
        self.alice, self.bob = self.log_in("alice", "bob")
        self.here, self.there = self.open_chat(self.alice, self.bob)

    def texts(self, name: str) -> list[bytes]:
        """Return what a client was told, and that it was nothing else."""
        events = self.heard_by(name)
        self.assertEqual({event[0] for event in events} - {"message"}, set())
        return [event[2] for event in events]

    def test_many_at_once(self) -> None:
        """A thousand texts each way, sent without waiting, arrive in order and are confirmed."""
        texts = [b"%d" % number for number in range(1000)]
        sent = [chat.send(text) for text in texts for chat in (self.here, self.there)]
        self.server.run()
        self.assertEqual(self.texts("alice"), texts)
        self.assertEqual(self.texts("bob"), texts)
        for each in sent:
            self.assertIsNone(self.successResultOf(each))

    def test_texts(self) -> None:
        """Text goes as UTF-8; bytes and the empty text arrive unchanged, colons and all."""
        sent = ["grüß dich", "", b"", b"\xff\x00\xfe", "\udcff", "a: b", "/exit ", "/EXIT", b" "]
        arrived = ["grüß dich".encode(), b"", b"", b"\xff\x00\xfe", b"\xff", b"a: b", b"/exit "]
        for text in sent:
            self.server.result(self.here.send(text))
        self.assertEqual(self.texts("bob"), [*arrived, b"/EXIT", b" "])

    def test_message(self) -> None:
        """A message has its sender, its bytes, and them as text, whatever they are."""
        message = Message("alice", b"gr\xc3\xbc\xc3\x9f\xff")
        self.assertEqual((message.sender, message.text), ("alice", "grüß\ufffd"))
        self.assertEqual(message, Message("alice", message.data))

    def test_exit_text(self) -> None:
        """What the protocol has taken for leaving can't be said, and is not sent."""
        for text in ("/exit", b"/exit"):
            self.failureResultOf(self.here.send(text), ReservedTextError)
        self.server.run()
        self.assertTrue(self.here.is_open)
        self.assertEqual(self.texts("bob"), [])

    def test_too_long(self) -> None:
        """The longest text that fits arrives; one byte more is refused here, and not sent."""
        for names in (("alice", "bob"), ("дзай", "carol")):
            self.setUp()
            here, _ = self.open_chat(*self.log_in(*names)) if "carol" in names else (self.here, 0)
            longest = bytes(MAX_BODY - len(f"{names[0]}: ".encode()))
            self.assertEqual(here.room, len(longest))
            self.failureResultOf(here.send(longest + b"x"), TooLongError)
            self.failureResultOf(here.send("é" * MAX_BODY), TooLongError)
            self.server.result(here.send(longest))
            self.assertEqual(self.texts(names[1]), [longest])

    def test_leave(self) -> None:
        """Who leaves is told that it is done, the other that they have left, and both are free."""
        for leaving, staying in (("alice", "bob"), ("bob", "alice")):
            self.setUp()
            chat = self.here if leaving == "alice" else self.there
            self.assertIsNone(self.server.result(chat.leave()))
            self.assertEqual(self.heard_by(leaving), [("chat_ended", staying, None)])
            self.assertEqual(self.heard_by(staying), [("chat_ended", leaving, PeerLeftError)])
            self.assertEqual((self.alice.chat, self.bob.chat), (None, None))
            self.assertEqual((self.here.is_open, self.there.is_open), (False, False))
            self.assertEqual(self.open_chat(self.bob, self.alice)[0].peer, "alice")

    def test_after_the_end(self) -> None:
        """A chat that is over, or being left, takes nothing more, also when another one is open."""
        leaving = self.here.leave()
        self.assertFalse(self.here.is_open)
        self.failureResultOf(self.here.send("late"), NotInChatError)
        self.failureResultOf(self.here.leave(), NotInChatError)
        self.server.result(leaving)
        self.open_chat(self.alice, self.bob)
        for chat in (self.here, self.there):
            self.failureResultOf(chat.send("late"), NotInChatError)
            self.failureResultOf(chat.leave(), NotInChatError)
        self.server.run()
        self.assertEqual(self.texts("alice") + self.texts("bob"), [])
        self.assertTrue(self.alice.chat is not None and self.alice.chat.is_open)

    def test_both_leave_at_once(self) -> None:
        """If both leave at once, both have left, and hear of the end once."""
        leaving = [self.here.leave(), self.there.leave()]
        self.server.run()
        for waiting in leaving:
            self.assertIsNone(self.successResultOf(waiting))
        self.assertEqual(self.heard_by("alice"), [("chat_ended", "bob", None)])
        self.assertEqual(self.heard_by("bob"), [("chat_ended", "alice", PeerLeftError)])
        self.assertEqual(self.open_chat(self.alice, self.bob)[0].peer, "bob")

    def test_texts_before_leaving(self) -> None:
        """What is said right before one leaves still arrives, and what comes meanwhile is heard."""
        waiting = [self.here.send("bye"), self.here.leave()]
        crossing = self.there.send("wait")
        self.server.run()
        for each in waiting:
            self.assertIsNone(self.successResultOf(each))
        self.assertEqual(
            self.heard_by("bob"),
            [("message", "alice", b"bye"), ("chat_ended", "alice", PeerLeftError)],
        )
        self.failureResultOf(crossing, NotInChatError)

    def test_peer_is_gone(self) -> None:
        """A peer whose connection ends has left; a text that was under way has not arrived."""
        self.server.connections[0].lose()
        text = self.there.send("are you there?")
        self.refused(text, NotInChatError)
        self.assertEqual(self.heard_by("bob"), [("chat_ended", "alice", PeerLeftError)])

    def test_busy(self) -> None:
        """In a chat one can't invite, accept or decline; that is not even sent."""
        carol = self.log_in("carol")[0]
        for ask in (self.alice.invite, self.alice.accept, self.alice.decline, self.alice.withdraw):
            self.failureResultOf(ask("carol"), BusyError)
        self.refused(carol.invite("alice"), BusyError)
        self.assertEqual(self.heard_by("carol"), [])

    def test_leave_and_go_on(self) -> None:
        """One may leave and invite the next at once."""
        carol = self.log_in("carol")[0]
        leaving, inviting = self.here.leave(), self.alice.invite("carol")
        self.server.result(leaving)
        answer = self.successResultOf(inviting).when_answered()
        self.server.result(carol.accept("alice"))
        self.assertEqual(self.successResultOf(answer).peer, "carol")


class ScriptedCase(SynchronousTestCase):
    """A test that plays the server by hand, packet by packet."""

    @staticmethod
    def logged_in(handler: Handler | None = None) -> tuple[ChatClient, ListWire]:
        """Return a client that is logged in as alice, to a server that knows all commands."""
        wire = ListWire()
        client = WiredClient(wire, handler or Recorder())
        client.log_in("alice", "password")
        client.packet_received(OK)
        client.decline("nobody").addErrback(lambda _: None)
        client.packet_received(error("NOINVITE"))
        wire.sent.clear()
        return client, wire

    @staticmethod
    def in_chat(handler: Handler | None = None) -> tuple[Any, ListWire]:
        """Return a client that is in a chat with bob."""
        client, wire = ScriptedCase.logged_in(handler)
        client.packet_received(invited_by("bob"))
        client.accept("bob")
        client.packet_received(chat_with("bob"))
        wire.sent.clear()
        return client, wire

    def receive(self, client: ChatClient, *packets: Packet) -> None:
        for packet in packets:
            client.packet_received(packet)


class OrderTests(ScriptedCase):
    """Answers and news in every order that a server may send them in."""

    def test_no_answer_is_left_over(self) -> None:
        """What comes behind a crossed accept is nobody's answer, whatever was asked for since.

        A Login, which does nothing, shows when it can't come any more; all else waits for that.
        """
        for left_over in ([], [error("BUSY")], [error("NOINVITE")], [error("LOST")]):
            client, wire = self.logged_in()
            self.receive(client, invited_by("bob"))
            inviting, accepting = client.invite("bob"), client.accept("bob")
            self.receive(client, SENT)
            wire.take()
            self.receive(client, chat_with("bob"))
            chat = self.successResultOf(accepting)
            self.assertIs(
                self.successResultOf(self.successResultOf(inviting).when_answered()), chat
            )
            self.receive(client, error("EXIT"))
            declining, next_one = client.decline("carol"), client.invite("dan")
            self.assertEqual(wire.take(), [Packet(Command.LOGIN)])
            self.receive(client, *left_over)
            self.assertNoResult(declining)
            self.receive(client, error("ALREADY"))
            self.assertEqual([packet.body for packet in wire.take()], [b"carol", b"dan"])
            self.receive(client, OK, SENT)
            self.assertIsNone(self.successResultOf(declining))
            self.assertEqual(self.successResultOf(next_one).invitee, "dan")

    def test_busy_with_the_right_one(self) -> None:
        """BUSY to an accept of the one with whom the chat has just begun is no failure."""
        client, _ = self.logged_in()
        inviting = client.invite("bob")
        self.receive(client, SENT, invited_by("bob"))
        declining, accepting = client.decline("carol"), client.accept("bob")
        self.receive(client, chat_with("bob"))
        self.assertNoResult(accepting)
        self.receive(client, error("BUSY"), error("BUSY"))
        self.failureResultOf(declining, BusyError)
        self.assertIs(self.successResultOf(accepting), client.chat)
        self.assertEqual(self.successResultOf(inviting).invitee, "bob")

    def test_chat_of_the_accept_or_of_the_invitation(self) -> None:
        """ChatAccept is the answer to the accept if it names that user, else news."""
        recorder = Recorder()
        client, _ = self.logged_in(recorder)
        inviting = client.invite("bob")
        self.receive(client, SENT, invited_by("carol"))
        answer = self.successResultOf(inviting).when_answered()
        accepting = client.accept("carol")
        self.receive(client, chat_with("bob"))
        self.assertNoResult(accepting)
        self.assertEqual(self.successResultOf(answer).peer, "bob")
        # Bob leaves again before the server sees the accept, which then is a chat with Carol.
        self.receive(client, error("EXIT"), chat_with("carol"))
        self.assertEqual(self.successResultOf(accepting).peer, "carol")
        self.assertEqual(
            recorder.take(),
            [
                ("invited", "carol"),
                ("chat_began", "bob"),
                ("chat_ended", "bob", PeerLeftError),
                ("chat_began", "carol"),
            ],
        )

    def test_text_behind_an_accept(self) -> None:
        """A text for one who accepted waits for the answer to one's own accept of another.

        Should that open another chat, the text is never sent.
        """
        for answer, sent in ((error("BUSY"), [b"hi"]), (chat_with("carol"), [])):
            client, wire = self.logged_in()
            inviting = client.invite("bob")
            self.receive(client, SENT, invited_by("carol"))
            accepting = client.accept("carol")
            self.receive(client, chat_with("bob"))
            wire.take()
            text = client.chat.send("hi")
            self.assertEqual(wire.take(), [])
            self.receive(client, answer)
            self.assertEqual([packet.body for packet in wire.take()], sent)
            if sent:
                self.failureResultOf(accepting, BusyError)
                self.assertNoResult(text)
            else:
                self.failureResultOf(text, NotInChatError)
                self.assertEqual(self.successResultOf(accepting).peer, "carol")
            self.assertEqual(self.successResultOf(inviting).invitee, "bob")

    def test_text_behind_an_invitation(self) -> None:
        """A text waits until an invitation before it is answered, lest its invitee gets it."""
        client, wire = self.logged_in()
        client.invite("bob")
        self.receive(client, SENT)
        second = client.invite("carol")
        self.receive(client, chat_with("bob"))
        wire.take()
        chat = client.chat
        text = chat.send("hi bob")
        # Bob leaves at once; then the server sees the invitation, and Carol accepts it.
        self.receive(client, error("EXIT"))
        self.failureResultOf(text, NotInChatError)
        self.receive(client, SENT, chat_with("carol"))
        self.assertEqual(self.successResultOf(second).invitee, "carol")
        self.assertEqual((wire.take(), client.chat.peer), ([], "carol"))

    def test_leaving_behind_an_invitation(self) -> None:
        """Leaving waits too, lest it ends another chat; if the peer leaves first, it is done."""
        client, wire = self.logged_in()
        client.invite("bob")
        self.receive(client, SENT)
        client.invite("carol")
        self.receive(client, chat_with("bob"))
        wire.take()
        leaving = client.chat.leave()
        self.assertNoResult(leaving)
        self.receive(client, error("EXIT"))
        self.assertIsNone(self.successResultOf(leaving))
        self.receive(client, SENT, chat_with("carol"))
        self.assertEqual((wire.take(), client.chat.peer), ([], "carol"))

    def test_not_sent_yet(self) -> None:
        """What waits behind an accept is refused, not sent, when that opens a chat."""
        client, wire = self.logged_in()
        self.receive(client, invited_by("bob"))
        client.accept("bob")
        behind = [client.invite("carol"), client.accept("dan"), client.decline("eve")]
        self.assertEqual(wire.take(), [Packet(Command.CHAT_ACCEPT, b"bob")])
        self.receive(client, chat_with("bob"))
        for waiting in behind:
            self.failureResultOf(waiting, BusyError)
        self.assertEqual(wire.take(), [])

    def test_next_behind_a_lost_accept(self) -> None:
        """What waits behind an accept is sent once that has failed."""
        client, wire = self.logged_in()
        accepting, inviting = client.accept("bob"), client.invite("carol")
        wire.take()
        self.receive(client, error("LOST"))
        self.failureResultOf(accepting, LostError)
        self.assertEqual(wire.take(), [Packet(Command.CHAT_REQUEST, b"carol")])
        self.receive(client, SENT)
        self.assertEqual(self.successResultOf(inviting).invitee, "carol")

    def test_new_chat_instead_of_exit(self) -> None:
        """A chat that begins ends one that was thought to go on: a server need not say EXIT."""
        recorder = Recorder()
        client, _ = self.in_chat(recorder)
        old = client.chat
        recorder.take()
        self.receive(client, chat_with("carol"))
        self.assertEqual((old.is_open, client.chat.peer), (False, "carol"))
        self.assertEqual(
            recorder.take(), [("chat_ended", "bob", PeerLeftError), ("chat_began", "carol")]
        )

    def test_exit_while_leaving(self) -> None:
        """EXIT and then NOCHAT mean to one who leaves that they have left."""
        recorder = Recorder()
        client, _ = self.in_chat(recorder)
        recorder.take()
        leaving = client.chat.leave()
        self.receive(client, error("EXIT"))
        self.assertNoResult(leaving)
        self.receive(client, error("NOCHAT"))
        self.assertIsNone(self.successResultOf(leaving))
        self.assertEqual(recorder.take(), [("chat_ended", "bob", PeerLeftError)])

    def test_news_between_answers(self) -> None:
        """News between answers moves no answer to another request."""
        recorder = Recorder()
        client, _ = self.in_chat(recorder)
        recorder.take()
        texts = [client.chat.send(text) for text in "ab"]
        heard = Packet(Command.MESSAGE, b"bob: x: y")
        self.receive(client, heard, OK, heard, error("EXIT"), error("NOCHAT"), heard)
        self.assertIsNone(self.successResultOf(texts[0]))
        self.failureResultOf(texts[1], NotInChatError)
        message = ("message", "bob", b"x: y")
        self.assertEqual(recorder.take(), [message, message, ("chat_ended", "bob", PeerLeftError)])

    def test_newer_server(self) -> None:
        """Commands, Ack bodies and codes of a newer server are ignored, as is what fits nothing."""
        recorder = Recorder()
        client, wire = self.logged_in(recorder)
        inviting = client.invite("bob")
        wire.take()
        strange = [
            Packet(0x7F, b"?"),
            Packet(0x10),
            Packet(Command.LOGIN, b"x:y"),
            Packet(Command.ACK, b"NEW"),
            Packet(Command.ACK),
            Packet(Command.ACK, b"CHAT"),
            error("NEWER"),
            error(""),
            error("USER!"),
            error("EXIT"),
            error("DENY"),
            OK,
            BYE,
            Packet(Command.MESSAGE, b"bob: hi"),
        ]
        self.receive(client, *strange, SENT)
        self.assertEqual(self.successResultOf(inviting).invitee, "bob")
        self.assertEqual((recorder.take(), wire.take(), wire.is_closed), ([], [], False))

    def test_answer_without_request(self) -> None:
        """Answers and UNKN that nobody waits for change nothing."""
        client, wire = self.logged_in()
        self.receive(client, OK, SENT, BYE, error("UNKN"), error("BUSY"), error("NOPE"))
        declining = client.decline("bob")
        self.receive(client, OK)
        self.assertIsNone(self.successResultOf(declining))
        self.assertEqual(wire.take(), [Packet(Command.CHAT_DECLINE, b"bob")])

    def test_login_timeout(self) -> None:
        """TIMEOUT before the login ends the connection, with a reason of its own."""
        recorder, wire = Recorder(), ListWire()
        client = WiredClient(wire, recorder)
        logging_in = client.log_in("alice", "password")
        closed = client.when_closed()
        self.receive(client, error("TIMEOUT"))
        self.assertTrue(wire.is_closed)
        client.lost(ConnectionLostError())
        self.failureResultOf(logging_in, LoginTimeoutError)
        self.assertIsInstance(self.successResultOf(closed), LoginTimeoutError)
        self.assertEqual(recorder.take(), [("connection_lost", LoginTimeoutError)])

    def test_names_that_are_no_text(self) -> None:
        """A name that is not UTF-8 goes back to the server as it came."""
        recorder = Recorder()
        client, wire = self.logged_in(recorder)
        self.receive(client, Packet(Command.FIND_PEER, b"\xff\xc3"))
        client.accept("\udcff\udcc3")
        self.assertEqual(wire.take(), [Packet(Command.CHAT_ACCEPT, b"\xff\xc3")])
        self.receive(client, Packet(Command.CHAT_ACCEPT, b"\xff\xc3"))
        self.receive(client, Packet(Command.MESSAGE, b"\xff\xc3: \xff"))
        self.assertEqual(
            recorder.take(),
            [
                ("invited", "\udcff\udcc3"),
                ("chat_began", "\udcff\udcc3"),
                ("message", "\udcff\udcc3", b"\xff"),
            ],
        )


class HandlerTests(ClientCase):
    """What an application's handler may do."""

    def test_in_order(self) -> None:
        """The handler hears all that comes unasked, in the order in which it happens."""
        alice, bob, carol = self.log_in("alice", "bob", "carol")
        self.invite(carol, alice).addErrback(lambda _: None)
        self.invite(bob, alice)
        self.server.result(alice.accept("bob"))
        self.server.result(bob.chat.send("hi"))
        self.server.result(alice.chat.send("hello"))
        self.server.result(bob.chat.send("bye"))
        self.server.result(bob.chat.leave())
        self.open_chat_quietly(alice, carol)
        self.server.result(alice.close())
        self.assertEqual(
            self.heard_by("alice"),
            [
                ("invited", "carol"),
                ("invited", "bob"),
                ("chat_began", "bob"),
                ("message", "bob", b"hi"),
                ("message", "bob", b"bye"),
                ("chat_ended", "bob", PeerLeftError),
                ("chat_began", "carol"),
                ("chat_ended", "carol", ClosedError),
                ("connection_lost", ClosedError),
            ],
        )
        self.assertEqual(
            self.heard_by("carol"),
            [("invited", "alice"), ("chat_began", "alice"), ("chat_ended", "alice", PeerLeftError)],
        )

    def open_chat_quietly(self, inviter: ChatClient, invitee: ChatClient) -> None:
        """Open a chat, and forget no events."""
        self.invite(inviter, invitee)
        self.server.result(invitee.accept(inviter.name))

    def test_default(self) -> None:
        """A handler need override nothing, and a client needs no handler."""

        class Silent(Handler):
            pass

        alice, bob = self.server.log_in("alice", Silent()), self.server.log_in("bob")
        here, there = self.open_chat(alice, bob)
        self.server.result(here.send("hi"))
        self.server.result(there.send("hi"))
        self.server.result(here.leave())
        self.assertIsInstance(self.server.result(alice.close()), ClosedError)

    def test_errors_are_logged(self) -> None:
        """A handler that fails, now or later, is logged, and hears the next event all the same."""
        later: Deferred[None] = Deferred()

        class Failing(Recorder):
            def invited(self, client: ChatClient, inviter: str) -> object:
                super().invited(client, inviter)
                raise RuntimeError("at once")

            async def chat_began(self, chat: Chat) -> object:  # type: ignore[override]
                super().chat_began(chat)
                await later
                raise RuntimeError("in an async def")

            def message_received(self, chat: Chat, message: Message) -> object:
                super().message_received(chat, message)
                return fail(RuntimeError("in a Deferred"))

        failing = Failing()
        alice, bob = self.server.log_in("alice", failing), self.server.log_in("bob")
        here, there = self.open_chat(bob, alice)
        self.server.result(here.send("hi"))
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 2)
        later.callback(None)
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
        self.assertEqual(
            failing.take(), [("invited", "bob"), ("chat_began", "bob"), ("message", "bob", b"hi")]
        )
        self.assertTrue(there.is_open)

    def test_refusals_are_warnings(self) -> None:
        """What the server refuses a handler, and nobody took, is a warning with its reason."""

        class Refused(Handler):
            def invited(self, client: ChatClient, inviter: str) -> object:
                return client.accept("nobody")

        events: list[LogEvent] = []
        globalLogPublisher.addObserver(events.append)
        self.addCleanup(globalLogPublisher.removeObserver, events.append)
        alice, bob = self.server.log_in("alice", Refused()), self.server.log_in("bob")
        self.invite(bob, alice)
        warnings = [event for event in events if event["log_level"] is LogLevel.warn]
        self.assertEqual([str(event["error"]) for event in warnings], [str(NoInvitationError())])

    def test_asking_again_from_inside(self) -> None:
        """A handler may ask for anything from within: what it asks for happens, in order."""

        class Host(Recorder):
            def invited(self, client: ChatClient, inviter: str) -> object:
                super().invited(client, inviter)
                return client.accept(inviter)

            def chat_began(self, chat: Chat) -> object:
                super().chat_began(chat)
                return chat.send("welcome")

            def message_received(self, chat: Chat, message: Message) -> object:
                super().message_received(chat, message)
                chat.send(message.data)
                return chat.send("more?")

        host = Host()
        self.server.log_in("host", host)
        [alice] = self.log_in("alice")
        chat = self.server.result(self.invite_by_name(alice, "host"))
        self.server.result(chat.send("hi"))
        self.assertEqual(
            self.heard_by("alice"),
            [
                ("chat_began", "host"),
                ("message", "host", b"welcome"),
                ("message", "host", b"hi"),
                ("message", "host", b"more?"),
            ],
        )
        self.assertEqual(
            host.take(),
            [("invited", "alice"), ("chat_began", "alice"), ("message", "alice", b"hi")],
        )

    def invite_by_name(self, inviter: ChatClient, name: str) -> Deferred[Chat]:
        return self.server.result(inviter.invite(name)).when_answered()

    def test_inviting_at_the_end_of_a_chat(self) -> None:
        """A handler may invite again as soon as a chat has ended, whoever has left."""
        invitations: list[Deferred[Invitation]] = []

        class Persistent(Handler):
            def chat_ended(self, chat: Chat, reason: ChatError | None) -> object:
                invitations.append(client.invite(chat.peer))
                return None

        client = self.server.log_in("persistent", Persistent())
        [bob] = self.log_in("bob")
        here, there = self.open_chat(client, bob)
        self.server.result(there.leave())
        self.server.result(bob.accept("persistent"))
        self.server.result(client.chat.leave())  # type: ignore[union-attr]
        self.assertEqual([self.successResultOf(each).invitee for each in invitations], ["bob"] * 2)
        self.assertFalse(here.is_open)

    def test_leaving_from_inside(self) -> None:
        """A handler that leaves at a message hears nothing more of that chat but its end."""

        class Shy(Recorder):
            def message_received(self, chat: Chat, message: Message) -> object:
                super().message_received(chat, message)
                left.append(chat.leave())
                refused.extend([chat.send("?"), chat.leave()])
                return None

        left: list[Deferred[None]] = []
        refused: list[Deferred[None]] = []
        shy = Shy()
        alice, bob = self.server.log_in("alice", shy), self.server.log_in("bob")
        here, there = self.open_chat(alice, bob)
        self.server.result(there.send("boo"))
        self.assertIsNone(self.successResultOf(left[0]))
        for waiting in refused:
            self.failureResultOf(waiting, NotInChatError)
        self.assertEqual(shy.take()[-2:], [("message", "bob", b"boo"), ("chat_ended", "bob", None)])
        self.assertFalse(here.is_open)

    def test_closing_from_inside(self) -> None:
        """A handler that closes at a message hears no other message, and the end once."""

        class Closing(Recorder):
            def message_received(self, chat: Chat, message: Message) -> object:
                super().message_received(chat, message)
                return client.close()

        closing = Closing()
        client = self.server.log_in("alice", closing)
        [bob] = self.log_in("bob")
        _, there = self.open_chat(client, bob)
        closing.take()
        sent = [there.send(text) for text in ("a", "b", "c")]
        self.server.run()
        self.assertEqual(
            closing.take(),
            [
                ("message", "bob", b"a"),
                ("chat_ended", "bob", ClosedError),
                ("connection_lost", ClosedError),
            ],
        )
        self.assertIsNone(self.successResultOf(sent[0]))
        for waiting in sent[1:]:
            waiting.addErrback(lambda failure: failure.trap(NotInChatError) and None)
            self.successResultOf(waiting)
        self.assertEqual(self.heard_by("bob")[-1], ("chat_ended", "alice", PeerLeftError))

    def test_asking_at_the_end(self) -> None:
        """What a handler asks for when the connection is over fails with the reason."""

        class Late(Handler):
            def connection_lost(self, client: ChatClient, reason: ChatError) -> object:
                asked.extend([client.invite("bob"), client.log_in("alice", "password")])
                closed.append(client.close())
                return None

        asked: list[Deferred[Any]] = []
        closed: list[Deferred[ChatError]] = []
        self.server.log_in("alice", Late())
        self.server.connections[0].lose()
        for waiting in asked:
            self.failureResultOf(waiting, ConnectionLostError)
        self.assertIsInstance(self.successResultOf(closed[0]), ConnectionLostError)

    def test_asking_when_an_answer_comes(self) -> None:
        """A callback of an answer may ask for the next thing, also when the answer is an error."""
        alice, bob = self.log_in("alice", "bob")
        asking = alice.accept("bob")
        asking.addErrback(lambda _: alice.invite("bob"))
        asking.addCallback(lambda invitation: invitation.when_answered())
        asking.addCallback(lambda chat: chat.send("hi").addCallback(lambda _: chat.leave()))
        self.server.run()
        self.server.result(bob.accept("alice"))
        self.assertIsNone(self.successResultOf(asking))
        self.assertEqual(
            self.heard_by("bob"),
            [
                ("invited", "alice"),
                ("chat_began", "alice"),
                ("message", "alice", b"hi"),
                ("chat_ended", "alice", PeerLeftError),
            ],
        )


class EndTests(ClientCase):
    """How a connection ends."""

    def ask_for_everything(self) -> list[Deferred[Any]]:
        """Return what is under way when the connection of alice ends: dropped, without a server."""
        alice, carol = self.log_in("alice", "carol")
        answer = self.invite(alice, carol)
        self.server.connections[0].is_cut = True
        asked = [
            alice.register("x", "password"),
            alice.log_in("x", "password"),
            alice.invite("bob"),
            alice.accept("bob"),
            alice.decline("bob"),
            alice.withdraw("bob"),
            answer,
        ]
        self.server.run()
        for waiting in asked:
            self.assertNoResult(waiting)
        self.alice = alice
        return asked

    def test_under_way(self) -> None:
        """All that is under way when the connection ends fails with the reason, once, and what is
        asked for later does too."""
        asked = self.ask_for_everything()
        fired: list[object] = []
        for waiting in asked:
            waiting.addErrback(lambda failure: fired.append(failure.value))
        closed = self.alice.when_closed()
        self.server.connections[0].lose()
        self.server.run()
        reason = self.successResultOf(closed)
        self.assertIsInstance(reason, ConnectionLostError)
        self.assertEqual(fired, [reason] * len(asked))
        for waiting in (self.alice.invite("bob"), self.alice.log_in("x", "password")):
            self.failureResultOf(waiting, ConnectionLostError)
        self.assertIs(self.successResultOf(self.alice.when_closed()), reason)
        self.assertEqual(self.heard_by("alice"), [("connection_lost", ConnectionLostError)])

    def test_in_chat(self) -> None:
        """So do texts and leaving; the chat ends before the connection does."""
        alice, bob = self.log_in("alice", "bob")
        here, _ = self.open_chat(alice, bob)
        self.server.connections[0].is_cut = True
        asked = [here.send("a"), here.send("b"), here.leave()]
        self.server.connections[0].lose()
        for waiting in asked:
            self.failureResultOf(waiting, ConnectionLostError)
        self.failureResultOf(here.send("late"), NotInChatError)
        self.assertEqual(
            self.heard_by("alice"),
            [("chat_ended", "bob", ConnectionLostError), ("connection_lost", ConnectionLostError)],
        )

    def test_close(self) -> None:
        """Who closes is told when it is done; again and later it is the same."""
        [alice] = self.log_in("alice")
        waiting = [alice.when_closed(), alice.close(), alice.close()]
        self.failureResultOf(alice.invite("bob"), ClosedError)
        self.assertNoResult(waiting[1])
        self.server.run()
        for each in (*waiting, alice.close(), alice.when_closed()):
            self.assertIsInstance(self.successResultOf(each), ClosedError)
        self.assertEqual(self.heard_by("alice"), [("connection_lost", ClosedError)])
        self.assertEqual(self.server.clock.getDelayedCalls(), [])

    def test_texts_before_close(self) -> None:
        """What was said right before one closes still arrives."""
        alice, bob = self.log_in("alice", "bob")
        here, _ = self.open_chat(alice, bob)
        here.send("bye").addErrback(lambda _: None)
        self.server.result(alice.close())
        self.assertEqual(
            self.heard_by("bob"),
            [("message", "alice", b"bye"), ("chat_ended", "alice", PeerLeftError)],
        )

    def test_close_without_network(self) -> None:
        """A server that can't be reached any more is not waited for long."""
        [alice] = self.log_in("alice")
        self.server.connections[0].is_cut = True
        closing = alice.close()
        self.server.advance(CLOSE_TIMEOUT - 1)
        self.assertNoResult(closing)
        self.server.advance(1)
        self.assertIsInstance(self.successResultOf(closing), ClosedError)

    def test_replaced(self) -> None:
        """Who logs in elsewhere ends the older connection, which learns why."""
        [alice] = self.log_in("alice")
        closed = alice.when_closed()
        recorder = self.heard["alice"]
        again = self.server.log_in("alice")
        self.server.run()
        self.assertIsInstance(self.successResultOf(closed), ReplacedError)
        self.assertEqual(recorder.take(), [("connection_lost", ReplacedError)])
        self.assertEqual(again.name, "alice")

    def test_shutdown(self) -> None:
        """A server that goes down says so: the chat and the connection end with that reason."""
        alice, bob = self.log_in("alice", "bob")
        self.open_chat(alice, bob)
        self.server.result(self.server.factory.shut_down())
        for name, peer in (("alice", "bob"), ("bob", "alice")):
            self.assertEqual(
                self.heard_by(name),
                [("chat_ended", peer, ShutdownError), ("connection_lost", ShutdownError)],
            )

    def test_broken_stream(self) -> None:
        """Bytes that are no packet end the connection as broken, whichever side has sent them."""
        for side in ("client", "server"):
            self.setUp()
            [alice] = self.log_in("alice")
            inviting = alice.invite("alice")
            tls = getattr(self.server.connections[0], side).protocol
            tls.write(b"HTTP/1.1 400 Bad Request")
            self.server.run()
            self.assertIsInstance(self.successResultOf(alice.when_closed()), BrokenStreamError)
            self.failureResultOf(inviting, YourselfError, BrokenStreamError)
            self.assertFalse(self.server.connections[0].client.connected)
            self.assertEqual(self.heard_by("alice"), [("connection_lost", BrokenStreamError)])

    def test_packet_before_garbage(self) -> None:
        """What stood before the broken bytes counts, and nothing behind them."""
        self.log_in("alice")
        from_server = self.server.connections[0].server.protocol
        good = bytes.fromhex("4d414743 06 0003 626f62 d9fa7393")  # FindPeer bob
        from_server.write(good + good[:-1] + b"x" + good)
        self.server.run()
        self.assertEqual(
            self.heard_by("alice"), [("invited", "bob"), ("connection_lost", BrokenStreamError)]
        )

    def test_nothing_twice(self) -> None:
        """After the end nothing more is told, whatever still comes."""
        for closes in (True, False):
            recorder = Recorder()
            client, wire = ScriptedCase.in_chat(recorder)
            chat = client.chat
            recorder.take()
            if closes:
                client.close()
            else:
                client.lost(ConnectionLostError())
            late = [
                OK,
                SENT,
                BYE,
                error("EXIT"),
                error("DENY"),
                error("TIMEOUT"),
                error("REPLACED"),
                invited_by("carol"),
                chat_with("carol"),
                Packet(Command.MESSAGE, b"bob: hi"),
            ]
            for packet in late:
                client.packet_received(packet)
            client.lost(ConnectionLostError())
            client.lost(ConnectionLostError())
            reason = ClosedError if closes else ConnectionLostError
            self.assertEqual(
                recorder.take(), [("chat_ended", "bob", reason), ("connection_lost", reason)]
            )
            self.assertEqual((chat.is_open, client.chat, wire.take()), (False, None, []))

    def test_first_reason_counts(self) -> None:
        """Why a connection ends is what was heard first: not that it was closed after that."""
        recorder = Recorder()
        client, wire = ScriptedCase.logged_in(recorder)
        client.packet_received(error("REPLACED"))
        client.packet_received(error("SHUTDOWN"))
        closed = client.close()
        client.lost(ConnectionLostError())
        self.assertIsInstance(self.successResultOf(closed), ReplacedError)
        self.assertTrue(wire.is_closed)


class CancellingTests(ClientCase):
    """Deferreds that an application gives up."""

    def cancel(self, waiting: Deferred[Any]) -> None:
        waiting.cancel()
        self.failureResultOf(waiting, CancelledError)

    def test_requests(self) -> None:
        """A request that is given up is done all the same, and disturbs no other."""
        alice, bob = self.log_in("alice", "bob")
        inviting, refused = alice.invite("bob"), alice.invite("nobody")
        self.cancel(inviting)
        self.refused(refused, NotOnlineError)
        self.assertEqual(self.heard_by("bob"), [("invited", "alice")])
        accepting = bob.accept("alice")
        self.cancel(accepting)
        self.server.run()
        self.assertEqual((alice.chat.peer, bob.chat.peer), ("bob", "alice"))
        texts = [alice.chat.send(text) for text in "abc"]
        self.cancel(texts[1])
        self.server.run()
        self.assertIsNone(self.successResultOf(texts[2]))
        self.assertEqual([event[-1] for event in self.heard_by("bob")[1:]], [b"a", b"b", b"c"])

    def test_waiting(self) -> None:
        """One who waits for an answer or the end no more leaves the others waiting."""
        alice, bob = self.log_in("alice", "bob")
        invitation = self.server.result(alice.invite("bob"))
        answers = [invitation.when_answered(), invitation.when_answered()]
        self.cancel(answers[0])
        self.server.result(bob.accept("alice"))
        self.assertEqual(self.successResultOf(answers[1]).peer, "bob")
        ends = [alice.when_closed(), alice.when_closed()]
        self.cancel(ends[0])
        self.server.result(alice.close())
        self.assertIsInstance(self.successResultOf(ends[1]), ClosedError)

    def test_at_the_end(self) -> None:
        """What was given up does not fail again when the connection ends."""
        [alice] = self.log_in("alice")
        self.server.connections[0].is_cut = True
        inviting = alice.invite("bob")
        self.cancel(inviting)
        self.server.connections[0].lose()
        self.assertIsInstance(self.successResultOf(alice.when_closed()), ConnectionLostError)


class ConnectingTests(ClientCase):
    """Connecting to a server in memory. Certificates are tested in `test_client_trust`."""

    def connect(self) -> Deferred[ChatClient]:
        return connect(
            self.server.clock, HOST, trust=self.server.trust, endpoint=self.server.endpoint()
        )

    def test_transport(self) -> None:
        """The connection sends small packets at once, and finds out when the server is gone."""
        self.server.result(self.connect())
        transport = self.server.connections[0].client
        self.assertTrue(transport.has_no_delay and transport.is_kept_alive)

    def test_no_answer(self) -> None:
        """A server that says nothing in TLS is given up after a while."""
        connecting = self.connect()
        self.server.connections[0].is_cut = True
        self.server.advance(HANDSHAKE_TIMEOUT - 1)
        self.assertNoResult(connecting)
        self.server.advance(1)
        self.failureResultOf(connecting, ConnectError)
        self.assertFalse(self.server.connections[0].client.connected)

    def test_lost_in_the_handshake(self) -> None:
        """A connection that ends in the handshake is one that did not come about."""
        connecting = self.connect()
        self.server.connections[0].lose()
        self.failureResultOf(connecting, ConnectError)
        self.server.run()
        self.assertEqual(self.server.clock.getDelayedCalls(), [])

    def test_unreachable(self) -> None:
        """Where nobody listens, that is said."""
        self.server.is_reachable = False
        reason = self.failureResultOf(self.connect(), ConnectError).value
        self.assertIn("nobody listens at localhost, port 5555", str(reason))

    def test_cancelled(self) -> None:
        """An attempt that is given up in the handshake leaves no connection behind."""
        connecting = self.connect()
        connecting.cancel()
        self.failureResultOf(connecting, CancelledError)
        self.server.run()
        self.assertFalse(self.server.connections[0].client.connected)
        self.assertEqual(self.server.clock.getDelayedCalls(), [])


class ExchangeCase(SynchronousTestCase):
    """A test of an `Exchange` alone, whose wire is a list."""

    def setUp(self) -> None:
        self.wire = ListWire()
        self.settled: list[tuple[Command, bytes, Answer]] = []
        self.invitee = b""
        self.exchange = Exchange(
            self.wire.send,
            lambda request, code: self.settled.append((request.command, request.body, code)),
            lambda: self.invitee,
        )

    def submit(self, command: Command, body: str = "") -> None:
        self.exchange.submit(Request(command, body.encode()))

    def sent(self) -> list[str]:
        """Return what was sent since the last time, each as its command and body."""
        return [
            f"{Command(packet.command).name} {packet.body.decode()}".strip()
            for packet in self.wire.take()
        ]

    def become(self, dialect: Dialect) -> None:
        """Let the exchange find out what the server understands."""
        self.submit(Command.EXIT_CHAT)
        if dialect is Dialect.CURRENT:
            self.exchange.answer_received(ErrorCode.NOT_IN_CHAT)
        else:
            self.exchange.unknown_received()
            self.exchange.answer_received(ErrorCode.NOT_IN_CHAT)
        self.assertIs(self.exchange.dialect, dialect)
        self.wire.take()
        self.settled.clear()


class ExchangeTests(ExchangeCase):
    """What is held back, what answers what, and what the server understands."""

    def test_one_at_a_time_at_first(self) -> None:
        """Until the server is known, one request is sent at a time; a login tells nothing."""
        for command in (Command.LOGIN, Command.CHAT_DECLINE, Command.CHAT_REQUEST):
            self.submit(command, "x")
        self.submit(Command.CHAT_REQUEST, "y")
        self.assertEqual(self.sent(), ["LOGIN x"])
        self.assertTrue(self.exchange.answer_received(AckCode.OK))
        self.assertEqual(
            (self.sent(), self.exchange.dialect), (["CHAT_DECLINE x"], Dialect.UNKNOWN)
        )
        self.exchange.answer_received(ErrorCode.NO_INVITATION)
        self.assertEqual(
            (self.sent(), self.exchange.dialect),
            (["CHAT_REQUEST x", "CHAT_REQUEST y"], Dialect.CURRENT),
        )
        self.assertEqual(
            self.settled,
            [
                (Command.LOGIN, b"x", AckCode.OK),
                (Command.CHAT_DECLINE, b"x", ErrorCode.NO_INVITATION),
            ],
        )

    def test_behind_what(self) -> None:
        """Nothing is sent behind an accept or login, nothing for the chat behind an invitation."""
        commands = {each for each in Command if each not in (4, 5, 6)}
        for before in commands:
            for behind in commands:
                self.setUp()
                self.become(Dialect.CURRENT)
                self.submit(before, "1")
                self.submit(Command.CHAT_DECLINE, "between")
                self.submit(behind, "2")
                held = before in (Command.CHAT_ACCEPT, Command.LOGIN) or (
                    before is Command.CHAT_REQUEST
                    and behind in (Command.MESSAGE, Command.EXIT_CHAT)
                )
                is_sent = f"{behind.name} 2" in self.sent()
                self.assertEqual(is_sent, not held, f"{behind.name} behind {before.name}")

    def test_nothing_overtakes(self) -> None:
        """What may be sent by itself waits all the same behind what may not."""
        self.become(Dialect.CURRENT)
        for command in (Command.CHAT_REQUEST, Command.MESSAGE, Command.EXIT_CHAT):
            self.submit(command, "x")
        self.assertEqual(self.sent(), ["CHAT_REQUEST x"])
        self.exchange.answer_received(AckCode.SENT)
        self.assertEqual(self.sent(), ["MESSAGE x", "EXIT_CHAT x"])

    def test_only_the_oldest(self) -> None:
        """A code is the answer to the oldest request or to none."""
        self.become(Dialect.CURRENT)
        self.submit(Command.CHAT_REQUEST, "x")
        self.submit(Command.CHAT_DECLINE, "y")
        for code in (AckCode.OK, AckCode.BYE, ErrorCode.NO_INVITATION, ErrorCode.LOST):
            self.assertFalse(self.exchange.answer_received(code))
        self.assertEqual(self.settled, [])
        self.assertTrue(self.exchange.answer_received(ErrorCode.BUSY))
        self.assertTrue(self.exchange.answer_received(ErrorCode.BUSY))
        self.assertFalse(self.exchange.answer_received(ErrorCode.BUSY))
        self.assertEqual(
            self.settled,
            [
                (Command.CHAT_REQUEST, b"x", ErrorCode.BUSY),
                (Command.CHAT_DECLINE, b"y", ErrorCode.BUSY),
            ],
        )

    def test_chat_accept(self) -> None:
        """ChatAccept answers the oldest request if that is an accept of the same name."""
        self.become(Dialect.CURRENT)
        self.assertFalse(self.exchange.accept_received(b"x"))
        self.submit(Command.CHAT_DECLINE, "x")
        self.submit(Command.CHAT_ACCEPT, "x")
        self.assertFalse(self.exchange.accept_received(b"x"))
        self.exchange.answer_received(AckCode.OK)
        self.assertFalse(self.exchange.accept_received(b"y"))
        self.sent()
        self.assertTrue(self.exchange.accept_received(b"x"))
        self.assertEqual(self.settled[-1], (Command.CHAT_ACCEPT, b"x", AckCode.CHAT))
        self.assertEqual(self.sent(), [])

    def test_doubtful_chat_accept(self) -> None:
        """If it may have been news, a Login is sent, and all waits until that is answered."""
        self.become(Dialect.CURRENT)
        self.submit(Command.CHAT_ACCEPT, "x")
        self.submit(Command.CHAT_DECLINE, "y")
        self.invitee = b"x"
        self.assertTrue(self.exchange.accept_received(b"x"))
        self.assertEqual(self.sent(), ["CHAT_ACCEPT x", "LOGIN"])
        self.assertEqual(self.settled, [(Command.CHAT_ACCEPT, b"x", AckCode.CHAT)])
        for code in (ErrorCode.BUSY, ErrorCode.NO_INVITATION, ErrorCode.LOST):
            self.assertFalse(self.exchange.answer_received(code))
        self.assertEqual(self.sent(), [])
        self.assertTrue(self.exchange.answer_received(ErrorCode.ALREADY_LOGGED_IN))
        self.assertEqual(self.sent(), ["CHAT_DECLINE y"])

    def test_take_back(self) -> None:
        """Only what is not sent yet can be taken back, by its command."""
        self.become(Dialect.CURRENT)
        self.submit(Command.MESSAGE, "sent")
        self.submit(Command.CHAT_ACCEPT, "x")
        self.submit(Command.MESSAGE, "1")
        self.submit(Command.EXIT_CHAT)
        self.submit(Command.MESSAGE, "2")
        self.sent()
        taken = self.exchange.take_back(Command.MESSAGE)
        self.assertEqual([request.body for request in taken], [b"1", b"2"])
        self.exchange.answer_received(AckCode.OK)
        self.exchange.answer_received(ErrorCode.LOST)
        self.assertEqual(self.sent(), ["EXIT_CHAT"])

    def test_end(self) -> None:
        """At the end all that has no answer comes back, the oldest first, and only once."""
        self.become(Dialect.CURRENT)
        for command in (Command.MESSAGE, Command.CHAT_ACCEPT, Command.CHAT_REQUEST):
            self.submit(command, "x")
        ended = [request.command for request in self.exchange.end()]
        self.assertEqual(ended, [Command.MESSAGE, Command.CHAT_ACCEPT, Command.CHAT_REQUEST])
        self.assertEqual(self.exchange.end(), [])

    def test_newer_command_is_unknown(self) -> None:
        """From a server that understands new commands, UNKN is an answer like others."""
        self.become(Dialect.CURRENT)
        self.submit(Command.CHAT_DECLINE, "x")
        self.assertTrue(self.exchange.unknown_received())
        self.assertEqual(self.settled, [(Command.CHAT_DECLINE, b"x", ErrorCode.UNKNOWN)])
        self.assertIs(self.exchange.dialect, Dialect.CURRENT)

    def test_unknown_without_request(self) -> None:
        """UNKN that answers no new command tells nothing."""
        self.submit(Command.LOGIN, "x")
        self.assertFalse(self.exchange.unknown_received())
        self.assertIs(self.exchange.dialect, Dialect.UNKNOWN)


class ReferenceDialectTests(ExchangeCase):
    """How it talks to a server that knows the old commands only."""

    def setUp(self) -> None:
        super().setUp()
        self.become(Dialect.REFERENCE)

    def test_found_out(self) -> None:
        """The first new command that is answered UNKN is put in the old form, before all others."""
        for command, old_form in {
            Command.CHAT_REQUEST: "FIND_PEER x",
            Command.CHAT_ACCEPT: "ACK",
            Command.CHAT_DECLINE: "ERROR",
            Command.EXIT_CHAT: "MESSAGE /exit",
        }.items():
            ExchangeCase.setUp(self)
            self.exchange.newest_inviter = b"x"
            self.submit(command, "x")
            self.submit(Command.LOGIN, "later")
            self.assertEqual(self.sent(), [f"{command.name} x"])
            self.assertTrue(self.exchange.unknown_received())
            self.assertIs(self.exchange.dialect, Dialect.REFERENCE)
            self.assertEqual(self.sent()[0], old_form)

    def test_no_answer_to_wait_for(self) -> None:
        """An invitation and a decline are settled when sent: no answer will come."""
        self.exchange.newest_inviter = b"x"
        self.submit(Command.CHAT_REQUEST, "y")
        self.submit(Command.CHAT_DECLINE, "x")
        self.assertEqual(
            self.settled,
            [(Command.CHAT_REQUEST, b"y", AckCode.SENT), (Command.CHAT_DECLINE, b"x", AckCode.OK)],
        )

    def test_newest_only(self) -> None:
        """Only the newest invitation can be accepted or declined, and that once."""
        self.exchange.newest_inviter = b"new"
        self.submit(Command.CHAT_ACCEPT, "old")
        self.submit(Command.CHAT_DECLINE, "old")
        self.assertEqual(self.sent(), [])
        self.submit(Command.CHAT_DECLINE, "new")
        self.submit(Command.CHAT_ACCEPT, "new")
        self.assertEqual(self.sent(), ["ERROR"])
        self.assertEqual(
            self.settled,
            [
                (Command.CHAT_ACCEPT, b"old", ErrorCode.NO_INVITATION),
                (Command.CHAT_DECLINE, b"old", ErrorCode.NO_INVITATION),
                (Command.CHAT_DECLINE, b"new", AckCode.OK),
                (Command.CHAT_ACCEPT, b"new", ErrorCode.NO_INVITATION),
            ],
        )

    def test_accept(self) -> None:
        """An accept is answered by CHAT or LOST, and uses the invitation up."""
        for code in (AckCode.CHAT, ErrorCode.LOST):
            self.setUp()
            self.exchange.newest_inviter = b"x"
            self.submit(Command.CHAT_ACCEPT, "x")
            self.assertEqual((self.sent(), self.settled), (["ACK"], []))
            self.assertTrue(self.exchange.answer_received(code))
            self.assertFalse(self.exchange.answer_received(code))
            self.assertEqual(self.settled, [(Command.CHAT_ACCEPT, b"x", code)])
            self.submit(Command.CHAT_ACCEPT, "x")
            self.assertEqual(self.settled[-1][-1], ErrorCode.NO_INVITATION)
            self.assertEqual(self.sent(), [])

    def test_one_question(self) -> None:
        """CHAT names nobody there: as long as one user may be meant, no other is asked."""
        self.exchange.newest_inviter = b"x"
        self.invitee = b"y"
        self.submit(Command.CHAT_ACCEPT, "x")
        self.submit(Command.CHAT_REQUEST, "z")
        self.assertEqual(self.sent(), [])
        self.submit(Command.CHAT_REQUEST, "y")
        self.invitee = b""
        self.submit(Command.CHAT_ACCEPT, "x")
        self.submit(Command.CHAT_REQUEST, "x")
        self.assertEqual(self.sent(), ["FIND_PEER y", "ACK"])
        self.assertEqual(
            self.settled,
            [
                (Command.CHAT_ACCEPT, b"x", ErrorCode.BUSY),
                (Command.CHAT_REQUEST, b"z", ErrorCode.BUSY),
                (Command.CHAT_REQUEST, b"y", AckCode.SENT),
                (Command.CHAT_REQUEST, b"x", ErrorCode.BUSY),
            ],
        )

    def test_withdraw(self) -> None:
        """An invitation can't be withdrawn there; one that was received can be declined."""
        self.invitee = b"x"
        self.submit(Command.CHAT_DECLINE, "x")
        self.exchange.newest_inviter = b"x"
        self.submit(Command.CHAT_DECLINE, "x")
        self.assertEqual(self.sent(), ["ERROR"])
        self.assertEqual([code for _, _, code in self.settled], [ErrorCode.UNKNOWN, AckCode.OK])

    def test_messages_one_at_a_time(self) -> None:
        """Each message waits for the answer before it: the reference server would lose it."""
        for text in "abc":
            self.submit(Command.MESSAGE, text)
        self.submit(Command.EXIT_CHAT)
        for expected in ("MESSAGE a", "MESSAGE b", "MESSAGE c", "MESSAGE /exit"):
            self.assertEqual(self.sent(), [expected])
            self.exchange.answer_received(AckCode.OK)
        self.assertTrue(self.exchange.answer_received(AckCode.BYE))
        self.assertEqual(self.settled[-1], (Command.EXIT_CHAT, b"", AckCode.BYE))

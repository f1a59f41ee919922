"""Tests for the rules of invitations and chats, over whole connections in memory.

They go by docs/protocol.md; `tests.scripts` says how a script is read.
"""

from unittest.mock import Mock

from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase

from chatserver.addresses import Address
from chatserver.directory import LocalDirectory
from chatserver.limits import MAX_RECEIVED_INVITATIONS
from chatserver.packets import Command, ErrorCode, Packet
from chatserver.rates import parse_rate
from tests.memory import MemoryServer
from tests.scripts import Stage


class ScriptCase(TestCase):
    """A test that plays scripts."""

    def setUp(self) -> None:
        self.stage = Stage()
        self.play = self.stage.play


class InvitingTests(ScriptCase):
    """Inviting somebody."""

    def test_find_peer(self) -> None:
        """FindPeer delivers an invitation, and its sender hears nothing."""
        self.play("""
            alice, bob log in
            alice -> FindPeer bob
            bob <- FindPeer alice
        """)

    def test_chat_request(self) -> None:
        """ChatRequest delivers an invitation, and its sender hears SENT."""
        self.play("""
            alice, bob log in
            alice -> ChatRequest bob
            bob <- FindPeer alice
            alice <- Ack SENT
        """)

    def test_refused(self) -> None:
        """Oneself, somebody who is not online and what is no name can't be invited."""
        self.play("""
            alice, bob log in
            alice -> FindPeer alice
            alice <- Error SELF
            alice -> ChatRequest nobody
            alice <- Error NOPE
            alice -> ChatRequest
            alice <- Error NOPE
            bob disconnects
            alice -> FindPeer bob
            alice <- Error NOPE
        """)
        self.stage.clients["alice"].send(Packet(Command.FIND_PEER, b"\xff\xfe"))
        self.assertEqual(self.stage.clients["alice"].take(), [Packet(Command.ERROR, b"NOPE")])

    def test_busy_in_chat(self) -> None:
        """Who is in a chat can't be invited."""
        self.play("""
            alice, bob, carol log in
            alice -> FindPeer bob
            bob <- FindPeer alice
            bob -> Ack
            bob <- Ack CHAT
            alice <- Ack CHAT
            carol -> ChatRequest alice
            carol <- Error BUSY
            carol -> FindPeer bob
            carol <- Error BUSY
        """)

    def test_busy_not_reading(self) -> None:
        """Who does not read what it is sent can't be invited until it does."""
        self.play("""
            alice, bob log in
            bob reads nothing
            alice -> ChatRequest bob
            alice <- Error BUSY
        """)
        self.stage.clients["bob"].start_reading()
        answers = self.stage.clients["bob"].take()
        self.assertEqual(set(answers), {Packet(Command.ERROR, b"UNKN")})
        self.play("""
            alice -> ChatRequest bob
            bob <- FindPeer alice
            alice <- Ack SENT
        """)

    def test_delivered_withdraws_the_earlier(self) -> None:
        """A new invitation withdraws the earlier one, which can't be accepted any more."""
        self.play("""
            alice, bob, carol log in
            alice -> ChatRequest bob
            bob <- FindPeer alice
            alice <- Ack SENT
            alice -> ChatRequest carol
            carol <- FindPeer alice
            alice <- Ack SENT
            bob -> ChatAccept alice
            bob <- Error LOST
            carol -> ChatAccept alice
            carol <- ChatAccept alice
            alice <- ChatAccept carol
        """)

    def test_failed_changes_nothing(self) -> None:
        """An invitation that is refused leaves the earlier one as it is."""
        self.play("""
            alice, bob log in
            alice -> ChatRequest bob
            bob <- FindPeer alice
            alice <- Ack SENT
            alice -> ChatRequest nobody
            alice <- Error NOPE
            bob -> ChatAccept
            bob <- ChatAccept alice
            alice <- ChatAccept bob
        """)

    def test_again(self) -> None:
        """Inviting the same one again delivers it again, as the newest, with a new time-out."""
        self.play("""
            alice, bob, carol log in
            alice -> FindPeer bob
            bob <- FindPeer alice
            carol -> FindPeer bob
            bob <- FindPeer carol
            40 s pass
            alice -> ChatRequest bob
            bob <- FindPeer alice
            alice <- Ack SENT
            21 s pass
            carol <- Error TIMEOUT
            bob -> ChatAccept
            bob <- ChatAccept alice
            alice <- ChatAccept bob
        """)

    def test_inviter_cannot_accept(self) -> None:
        """Only the invited one can accept."""
        self.play("""
            alice, bob log in
            alice -> FindPeer bob
            bob <- FindPeer alice
            alice -> Ack
            alice -> Ack bob
            alice -> ChatAccept bob
            alice <- Error NOINVITE
            alice -> Message hello
            alice <- Error NOCHAT
        """)

    def test_invited_may_do_other_things(self) -> None:
        """An invitation waits while the invited one invites others."""
        self.play("""
            alice, bob, carol log in
            alice -> FindPeer bob
            bob <- FindPeer alice
            bob -> ChatRequest carol
            carol <- FindPeer bob
            bob <- Ack SENT
            bob -> ChatAccept alice
            bob <- ChatAccept alice
            alice <- Ack CHAT
            carol -> ChatAccept bob
            carol <- Error LOST
        """)


class AnsweringTests(ScriptCase):
    """Accepting and declining."""

    def test_newest_is_accepted(self) -> None:
        """Without a name the newest is accepted; the others' inviters hear GONE."""
        self.play("""
            alice, bob, carol log in
            alice -> FindPeer carol
            carol <- FindPeer alice
            bob -> FindPeer carol
            carol <- FindPeer bob
            carol -> Ack
            carol <- Ack CHAT
            bob <- Ack CHAT
            alice <- Error GONE
        """)

    def test_accepted_by_name(self) -> None:
        """With a name that invitation is accepted, with Ack as with ChatAccept."""
        for accept in ("Ack", "ChatAccept"):
            stage = Stage()
            stage.play(f"""
                alice, bob, carol log in
                alice -> FindPeer carol
                carol <- FindPeer alice
                bob -> FindPeer carol
                carol <- FindPeer bob
                carol -> {accept} alice
                carol <- {"Ack CHAT" if accept == "Ack" else "ChatAccept alice"}
                alice <- Ack CHAT
                bob <- Error GONE
            """)

    def test_other_body_of_ack(self) -> None:
        """The body of an Ack or Error that names no inviter counts as empty."""
        self.play("""
            alice, bob log in
            alice -> FindPeer bob
            bob <- FindPeer alice
            bob -> Error whatever
            alice <- Error DENY
            alice -> FindPeer bob
            bob <- FindPeer alice
            bob -> Ack whatever
            bob <- Ack CHAT
            alice <- Ack CHAT
        """)

    def test_other_name_of_chat_accept(self) -> None:
        """ChatAccept and ChatDecline with a name mean that invitation and no other."""
        self.play("""
            alice, bob log in
            alice -> FindPeer bob
            bob <- FindPeer alice
            bob -> ChatAccept carol
            bob <- Error NOINVITE
            bob -> ChatDecline carol
            bob <- Error NOINVITE
            bob -> ChatAccept alice
            bob <- ChatAccept alice
            alice <- Ack CHAT
        """)

    def test_nothing_to_answer(self) -> None:
        """With no invitation ChatAccept and ChatDecline hear NOINVITE, Ack and Error nothing."""
        self.play("""
            alice log in
            alice -> Ack
            alice -> Error
            alice -> ChatAccept
            alice <- Error NOINVITE
            alice -> ChatDecline
            alice <- Error NOINVITE
        """)

    def test_declined(self) -> None:
        """A declined inviter hears DENY, and may invite again; the decliner hears OK or nothing."""
        self.play("""
            alice, bob log in
            alice -> ChatRequest bob
            bob <- FindPeer alice
            alice <- Ack SENT
            bob -> ChatDecline
            bob <- Ack OK
            alice <- Error DENY
            alice -> ChatRequest bob
            bob <- FindPeer alice
            alice <- Ack SENT
            bob -> Error
            alice <- Error DENY
            bob -> ChatAccept alice
            bob <- Error NOINVITE
        """)

    def test_newest_is_declined(self) -> None:
        """Without a name the newest is declined, and the one before is the newest then."""
        self.play("""
            alice, bob, carol log in
            alice -> FindPeer carol
            carol <- FindPeer alice
            bob -> FindPeer carol
            carol <- FindPeer bob
            carol -> ChatDecline
            carol <- Ack OK
            bob <- Error DENY
            carol -> ChatAccept
            carol <- ChatAccept alice
            alice <- Ack CHAT
        """)

    def test_declined_by_name(self) -> None:
        """With a name that invitation is declined, and the others wait on."""
        self.play("""
            alice, bob, carol log in
            alice -> FindPeer carol
            carol <- FindPeer alice
            bob -> FindPeer carol
            carol <- FindPeer bob
            carol -> Error alice
            alice <- Error DENY
            carol -> ChatAccept
            carol <- ChatAccept bob
            bob <- Ack CHAT
        """)

    def test_withdrawn(self) -> None:
        """ChatDecline with the name of the invited one withdraws; Error does not."""
        self.play("""
            alice, bob log in
            alice -> ChatRequest bob
            bob <- FindPeer alice
            alice <- Ack SENT
            alice -> Error bob
            alice -> ChatDecline
            alice <- Error NOINVITE
            alice -> ChatDecline bob
            alice <- Ack OK
            alice -> ChatDecline bob
            alice <- Error NOINVITE
            bob -> ChatAccept alice
            bob <- Error LOST
        """)

    def test_message_right_behind_accept(self) -> None:
        """A message in the same write as the accept is said in the chat."""
        self.play("""
            alice, bob log in
            alice -> FindPeer bob
            bob <- FindPeer alice
            bob -> Ack + Message hello + Message /exit + Message late
            bob <- Ack CHAT
            bob <- Ack OK
            bob <- Ack BYE
            bob <- Error NOCHAT
            alice <- Ack CHAT
            alice <- Message bob: hello
            alice <- Error EXIT
        """)


class CrossedTests(ScriptCase):
    """Each has invited the other."""

    def test_accepted(self) -> None:
        """An accept from either opens the chat, each told in the manner of its own command."""
        self.play("""
            alice, bob log in
            alice -> ChatRequest bob
            bob <- FindPeer alice
            alice <- Ack SENT
            bob -> FindPeer alice
            alice <- FindPeer bob
            alice -> ChatAccept bob
            alice <- ChatAccept bob
            bob <- Ack CHAT
            60 s pass
            bob -> ExitChat
            bob <- Ack BYE
            alice <- Error EXIT
            alice -> ChatAccept
            alice <- Error NOINVITE
        """)

    def test_both_accept(self) -> None:
        """The accept that comes second is ignored, or BUSY: the chat is open."""
        self.play("""
            alice, bob log in
            alice -> FindPeer bob
            bob <- FindPeer alice
            bob -> FindPeer alice
            alice <- FindPeer bob
            alice -> Ack
            alice <- Ack CHAT
            bob <- Ack CHAT
            bob -> Ack
            bob -> ChatAccept alice
            bob <- Error BUSY
        """)

    def test_declined(self) -> None:
        """A decline ends both invitations, and only the other side hears DENY."""
        for decline, answer in (
            ("Error", ""),
            ("Error bob", ""),
            ("ChatDecline", "alice <- Ack OK"),
            ("ChatDecline bob", "alice <- Ack OK"),
        ):
            stage = Stage()
            stage.play(f"""
                alice, bob log in
                alice -> FindPeer bob
                bob <- FindPeer alice
                bob -> FindPeer alice
                alice <- FindPeer bob
                alice -> {decline}
                {answer}
                bob <- Error DENY
                alice -> ChatAccept
                alice <- Error NOINVITE
                60 s pass
            """)

    def test_accept_after_crossed_decline(self) -> None:
        """An accept already on its way when the other declines opens no chat with anybody."""
        self.play("""
            alice, bob, carol log in
            carol -> FindPeer bob
            bob <- FindPeer carol
            bob -> FindPeer alice
            alice <- FindPeer bob
            alice -> FindPeer bob
            bob <- FindPeer alice
            alice -> Error
            bob <- Error DENY
            bob -> Ack
            bob <- Error LOST
        """)

    def test_always_finds_room(self) -> None:
        """Inviting one's own inviter succeeds, however many others wait there."""
        names = [f"user{i}" for i in range(MAX_RECEIVED_INVITATIONS)]
        self.play("alice, bob log in\n" + ", ".join(names) + " log in")
        for name in names:
            self.play(f"{name} -> FindPeer alice\nalice <- FindPeer {name}")
        self.play("""
            bob -> FindPeer alice
            bob <- Error BUSY
            alice -> FindPeer bob
            bob <- FindPeer alice
            bob -> FindPeer alice
            alice <- FindPeer bob
        """)

    def test_one_times_out(self) -> None:
        """When one of two crossed invitations times out, the other one waits on."""
        self.play("""
            alice, bob log in
            alice -> FindPeer bob
            bob <- FindPeer alice
            30 s pass
            bob -> FindPeer alice
            alice <- FindPeer bob
            30 s pass
            alice <- Error TIMEOUT
            bob -> Ack
            bob <- Error LOST
            alice -> ChatAccept bob
            alice <- ChatAccept bob
            bob <- Ack CHAT
        """)

    def test_decline_of_gone_and_own(self) -> None:
        """ChatDecline by name also withdraws one's own when the other's is gone; Error does not."""
        for decline, accepted in (("ChatDecline bob", False), ("Error bob", True)):
            stage = Stage()
            stage.play(f"""
                alice, bob log in
                bob -> FindPeer alice
                alice <- FindPeer bob
                60 s pass
                bob <- Error TIMEOUT
                alice -> FindPeer bob
                bob <- FindPeer alice
                alice -> {decline}
                {"" if accepted else "alice <- Ack OK"}
                bob -> ChatAccept alice
                bob <- {"ChatAccept alice" if accepted else "Error LOST"}
                {"alice <- Ack CHAT" if accepted else ""}
            """)


class EndingTests(ScriptCase):
    """Invitations that end in other ways."""

    def test_timeout(self) -> None:
        """After 60 s the inviter hears TIMEOUT, and an accept then hears LOST, once."""
        self.play("""
            alice, bob log in
            alice -> FindPeer bob
            bob <- FindPeer alice
            59.5 s pass
            0.5 s pass
            alice <- Error TIMEOUT
            bob -> Ack
            bob <- Error LOST
            bob -> Ack
            bob -> ChatAccept
            bob <- Error NOINVITE
        """)

    def test_timeout_option(self) -> None:
        """How long an invitation waits is an option."""
        Stage(MemoryServer(invitation_timeout=5)).play("""
            alice, bob log in
            alice -> FindPeer bob
            bob <- FindPeer alice
            5 s pass
            alice <- Error TIMEOUT
        """)

    def test_gone_is_newest(self) -> None:
        """Accepting the newest never opens a chat with an older inviter when that one is gone."""
        self.play("""
            alice, bob, carol log in
            alice -> FindPeer carol
            carol <- FindPeer alice
            bob -> FindPeer carol
            carol <- FindPeer bob
            bob disconnects
            carol -> Ack
            carol <- Error LOST
            carol -> Ack
            carol <- Ack CHAT
            alice <- Ack CHAT
        """)

    def test_gone_is_declined(self) -> None:
        """Declining one that is gone forgets it, and nobody hears DENY."""
        self.play("""
            alice, bob log in
            alice -> FindPeer bob
            bob <- FindPeer alice
            alice -> ChatDecline bob
            alice <- Ack OK
            bob -> ChatDecline alice
            bob <- Ack OK
            bob -> ChatDecline alice
            bob <- Error NOINVITE
        """)

    def test_gone_is_replaced(self) -> None:
        """The same inviter's next invitation takes the place of one that is gone."""
        self.play("""
            alice, bob log in
            alice -> FindPeer bob
            bob <- FindPeer alice
            alice disconnects
            alice logs in
            alice -> FindPeer bob
            bob <- FindPeer alice
            bob -> Ack
            bob <- Ack CHAT
            alice <- Ack CHAT
            bob -> ExitChat
            bob <- Ack BYE
            alice <- Error EXIT
            bob -> ChatAccept alice
            bob <- Error NOINVITE
        """)

    def test_gone_is_forgotten_in_chat(self) -> None:
        """Entering a chat forgets what is gone."""
        self.play("""
            alice, bob, carol log in
            alice -> FindPeer bob
            bob <- FindPeer alice
            alice disconnects
            carol -> FindPeer bob
            bob <- FindPeer carol
            bob -> Ack carol
            bob <- Ack CHAT
            carol <- Ack CHAT
            bob -> ExitChat
            bob <- Ack BYE
            carol <- Error EXIT
            bob -> ChatAccept
            bob <- Error NOINVITE
        """)

    def test_invited_disconnects(self) -> None:
        """When the invited one disconnects, the inviter hears GONE at once."""
        self.play("""
            alice, bob log in
            alice -> FindPeer bob
            bob <- FindPeer alice
            bob disconnects
            alice <- Error GONE
            60 s pass
        """)

    def test_invited_enters_another_chat(self) -> None:
        """When the invited one's own invitation is accepted, those who wait hear GONE."""
        self.play("""
            alice, bob, carol log in
            alice -> FindPeer bob
            bob <- FindPeer alice
            bob -> FindPeer carol
            carol <- FindPeer bob
            carol -> Ack
            carol <- Ack CHAT
            bob <- Ack CHAT
            alice <- Error GONE
        """)

    def test_thirty_two(self) -> None:
        """The 33rd waiting invitation is BUSY; one that is gone, or was there before, is not."""
        names = [f"user{i}" for i in range(MAX_RECEIVED_INVITATIONS)]
        self.play("alice, bob log in\n" + ", ".join(names) + " log in")
        for name in names:
            self.play(f"{name} -> FindPeer alice\nalice <- FindPeer {name}")
        self.play("""
            bob -> ChatRequest alice
            bob <- Error BUSY
            user0 -> FindPeer alice
            alice <- FindPeer user0
            user1 -> ChatDecline alice
            user1 <- Ack OK
            bob -> ChatRequest alice
            alice <- FindPeer bob
            bob <- Ack SENT
            alice -> ChatAccept user1
            alice <- Error NOINVITE
        """)

    def test_oldest_gone_make_room(self) -> None:
        """Gone ones are kept as long as they and those that wait are 32 together."""
        names = [f"user{i}" for i in range(MAX_RECEIVED_INVITATIONS)]
        self.play("alice, bob log in\n" + ", ".join(names) + " log in")
        for name in names:
            self.play(f"""
                {name} -> FindPeer alice
                alice <- FindPeer {name}
                {name} -> ChatDecline alice
                {name} <- Ack OK
            """)
        self.play("""
            bob -> FindPeer alice
            alice <- FindPeer bob
            alice -> ChatAccept user0
            alice <- Error NOINVITE
            alice -> ChatAccept user1
            alice <- Error LOST
        """)


class ChatTests(ScriptCase):
    """In a chat, and out of it."""

    CHAT = """
        alice, bob log in
        alice -> ChatRequest bob
        bob <- FindPeer alice
        alice <- Ack SENT
        bob -> ChatAccept alice
        bob <- ChatAccept alice
        alice <- ChatAccept bob
    """

    def test_messages(self) -> None:
        """Each hears what the other says, in order, and each message is answered OK."""
        self.play(
            self.CHAT
            + """
            alice -> Message one + Message two: 2 + Message
            alice <- Ack OK
            alice <- Ack OK
            alice <- Ack OK
            bob <- Message alice: one
            bob <- Message alice: two: 2
            bob <- Message alice:
            bob -> Message three
            bob <- Ack OK
            alice <- Message bob: three
        """
        )

    def test_exit(self) -> None:
        """Who leaves hears BYE, the other EXIT; after that both can invite again."""
        for leave in ("ExitChat", "Message /exit"):
            stage = Stage()
            stage.play(
                self.CHAT
                + f"""
                alice -> {leave}
                alice <- Ack BYE
                bob <- Error EXIT
                bob -> {leave}
                bob <- Error NOCHAT
                alice -> {leave}
                alice <- Error NOCHAT
                bob -> ChatRequest alice
                alice <- FindPeer bob
                bob <- Ack SENT
            """
            )

    def test_partner_disconnects(self) -> None:
        """When one is gone, the other hears EXIT once and is free."""
        self.play(
            self.CHAT
            + """
            alice disconnects
            bob <- Error EXIT
            bob -> Message hello
            bob <- Error NOCHAT
            alice logs in
            bob -> FindPeer alice
            alice <- FindPeer bob
        """
        )

    def test_replaced(self) -> None:
        """A second login wins: the older one hears REPLACED, its partner EXIT."""
        self.play(self.CHAT)
        older = self.stage.clients["alice"]
        self.play("""
            alice logs in
            bob <- Error EXIT
            bob -> FindPeer alice
            alice <- FindPeer bob
        """)
        self.assertEqual(older.take(), [Packet(Command.ERROR, b"REPLACED")])
        self.assertTrue(older.has_ended)
        older.close()
        self.play("""
            alice -> Ack
            alice <- Ack CHAT
            bob <- Ack CHAT
        """)

    def test_replaced_invitations(self) -> None:
        """A replaced one's invitations end as if it had disconnected."""
        self.play("""
            alice, bob, carol log in
            alice -> FindPeer bob
            bob <- FindPeer alice
            carol -> FindPeer alice
            alice <- FindPeer carol
            alice logs in
            carol <- Error GONE
            bob -> Ack
            bob <- Error LOST
            alice -> ChatAccept
            alice <- Error NOINVITE
            60 s pass
        """)


class RateTests(TestCase):
    """The rate of invitations."""

    def test_accounts(self) -> None:
        """Each account has its own, and a new login does not give it another one."""
        directory = LocalDirectory(Clock(), invitations=parse_rate("1/day"))
        address = Address("127.0.0.1:1", "127.0.0.1")
        for name, expected in (
            (b"alice", [ErrorCode.NOT_ONLINE, ErrorCode.SLOW_DOWN]),
            (b"alice", [ErrorCode.SLOW_DOWN]),
            (b"bob", [ErrorCode.NOT_ONLINE, ErrorCode.SLOW_DOWN]),
        ):
            conversation = Mock()
            directory.enter(name, conversation, address)
            for answer in expected:
                directory.invite(name, b"carol", Command.CHAT_REQUEST)
                conversation.refused.assert_called_with(Command.CHAT_REQUEST, answer)
            directory.depart(name)

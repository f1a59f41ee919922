"""Several machines in memory: what is late, who is gone, and what would be left of either."""

from __future__ import annotations

from collections.abc import Callable
from unittest.mock import Mock, patch

from twisted.internet.defer import Deferred

from chatserver import users
from chatserver.accounts import StorageFailedError
from chatserver.cluster.bus import Heard
from chatserver.cluster.directory import ClusterDirectory
from chatserver.cluster.messages import (
    VERSION,
    Accept,
    Answer,
    Body,
    End,
    Located,
    Login,
    Lookup,
    Offer,
    Say,
    Withdraw,
    decode_announcement,
    encode,
    encode_frame,
)
from chatserver.credentials import MAX_LOGIN_NAME_BYTES
from chatserver.limits import (
    CLUSTER_ANSWER_TIMEOUT,
    CLUSTER_BEAT_INTERVAL,
    CLUSTER_CREDIT,
    CLUSTER_FORGET,
    READ_AHEAD,
)
from chatserver.packets import MAX_BODY, Command, Packet
from chatserver.users import Peer, User
from tests.cluster_checks import Person, error, find_half_chats, find_timers
from tests.logs import keep_texts
from tests.memory_cluster import MemoryBus, MemoryCluster, MemorySubscription
from tests.test_cluster import (
    BYE,
    EXIT,
    FAILED,
    GONE,
    LOST,
    NOPE,
    OK,
    REPLACED,
    SENT,
    SHUTDOWN,
    ClusterCase,
    accepted,
    invited,
)

UNKNOWN = Packet(0x7F)
NAMES = ("alice", "bob", "carol")


class LinkCase(ClusterCase):
    """A test of two machines between which the test carries each message."""

    def setUp(self) -> None:
        self.start()
        self.here, self.there = (machine.bus for machine in self.cluster.machines)
        self.nats = self.cluster.nats

    def hold(self) -> None:
        """Carry nothing more by itself."""
        self.nats.room = 0

    def carry(self, sender: MemoryBus, count: int | None = None) -> None:
        """Carry `count` messages of one machine, or all that are under way, and no others."""
        self.nats.room = count
        sender.is_hung = True  # Its answers wait.
        self.cluster.run()
        sender.is_hung = False
        self.hold()

    def carry_all(self) -> None:
        """Carry all from now on."""
        self.nats.room = None
        self.cluster.run()

    def begin_inviting(self, inviter: Person, name: str) -> None:
        """Let `inviter`, who is here, invite who is there: it is on its way, and nothing else."""
        self.hold()
        inviter.send(Command.CHAT_REQUEST, name.encode())
        self.carry(self.here)  # Who has that user?
        self.carry(self.there)  # I have.


class GoneTests(LinkCase):
    """Users who leave while another machine is still to answer."""

    def test_offer_delivered(self) -> None:
        """The invitation of somebody who has left meanwhile waits no more: others may invite."""
        self.patch(users, "MAX_RECEIVED_INVITATIONS", 1)
        alice, carol = self.log_in(0, "alice", "carol")
        (bob,) = self.log_in(1, "bob")
        self.begin_inviting(alice, "bob")
        self.carry(self.here)
        self.assertEqual(bob.take(), [invited("alice")])
        alice.leave()
        self.carry_all()
        self.invite(carol, bob)
        self.end()

    def test_found(self) -> None:
        """Nobody is invited by somebody who has left while it was asked where they are."""
        (alice,), (bob,) = self.log_in(0, "alice"), self.log_in(1, "bob")
        self.hold()
        alice.send(Command.CHAT_REQUEST, b"bob")
        self.carry(self.here)
        alice.leave()
        self.carry_all()
        self.assertEqual(bob.take(), [])
        self.end()

    def test_gone_while_told(self) -> None:
        """Who accepts hears LOST when the inviter goes while it is told of the chat."""
        (alice,), (bob,) = self.log_in(0, "alice"), self.log_in(1, "bob")
        self.invite(alice, bob)
        user = self.cluster.machines[0].online._users[b"alice"]
        begin = user._begin_chat

        def begin_and_go(partner: Peer, command: Command) -> None:
            begin(partner, command)
            user.conversation.connection_lost()

        self.patch(user, "_begin_chat", begin_and_go)
        bob.send(Command.CHAT_ACCEPT)
        self.assertEqual(bob.take(), [LOST])
        self.assertEqual(find_half_chats(self.cluster), [])

    def test_accept_of_one_who_asks(self) -> None:
        """An accept that waits for an inviter who leaves is LOST at once."""
        self.start(machines=3)
        self.has_lost = True
        (alice,), (bob,), (carol,) = (self.log_in(n, name) for n, name in enumerate(NAMES))
        self.invite(alice, bob)
        self.cluster.stop(2)
        alice.send(Command.CHAT_REQUEST, carol.name.encode())
        bob.send(Command.CHAT_ACCEPT)
        alice.leave()
        self.cluster.run()
        self.assertEqual(bob.take(), [LOST])
        self.end()

    def test_accept_granted(self) -> None:
        """The inviter hears EXIT when who accepts has left before they could be told."""
        (alice,), (bob,) = self.log_in(0, "alice"), self.log_in(1, "bob")
        self.invite(alice, bob)
        self.hold()
        bob.send(Command.CHAT_ACCEPT)
        self.carry(self.there)
        self.assertEqual(alice.take(), [accepted("bob")])
        bob.leave()
        self.carry_all()
        self.assertEqual(alice.take(), [EXIT])
        self.end()

    def test_accept_waiting(self) -> None:
        """An accept that waits for what the inviter asks of another one is LOST when they leave."""
        (alice,), (bob, dave) = self.log_in(0, "alice"), self.log_in(1, "bob", "dave")
        self.invite(alice, bob)
        self.begin_inviting(alice, "dave")
        bob.send(Command.CHAT_ACCEPT)
        self.carry(self.there)
        alice.leave()
        self.carry_all()
        self.assertEqual((bob.take(), dave.take()), ([LOST], [invited("alice")]))
        self.end()

    def test_offer_late(self) -> None:
        """An invitation that comes only when its inviter has heard FAILED takes no place."""
        self.patch(users, "MAX_RECEIVED_INVITATIONS", 1)
        alice, carol = self.log_in(0, "alice", "carol")
        (bob,) = self.log_in(1, "bob")
        self.begin_inviting(alice, "bob")
        self.cluster.advance(CLUSTER_ANSWER_TIMEOUT)
        self.assertEqual(alice.take(), [FAILED])
        self.carry_all()
        self.assertEqual(bob.take(), [invited("alice")])
        self.invite(carol, bob)
        self.end()

    def test_again_late(self) -> None:
        """When one who was invited already does not answer in time, both invitations are over."""
        (alice,), (bob,) = self.log_in(0, "alice"), self.log_in(1, "bob")
        self.invite(alice, bob)
        self.begin_inviting(alice, "bob")
        self.carry(self.here)
        self.assertEqual(bob.take(), [invited("alice")])
        self.cluster.advance(CLUSTER_ANSWER_TIMEOUT)
        self.assertEqual(alice.take(), [FAILED, GONE])
        self.carry_all()
        bob.send(Command.CHAT_ACCEPT)
        self.assertEqual(bob.take(), [LOST])
        self.chat(alice, bob)
        self.end()

    def test_late_yes(self) -> None:
        """An accept that is granted late does not end the chat that was begun meanwhile."""
        self.start(machines=3)
        self.nats = self.cluster.nats
        alice, carol = self.log_in(0, "alice", "carol")
        (bob,), (dave,) = self.log_in(1, "bob"), self.log_in(2, "dave")
        self.invite(alice, bob)
        third = self.cluster.machines[2].bus
        third.is_hung = True
        alice.send(Command.CHAT_REQUEST, b"dave")
        bob.send(Command.CHAT_ACCEPT)
        self.cluster.advance(CLUSTER_ANSWER_TIMEOUT - 0.5)
        third.is_hung = False
        self.nats.room = 2  # Who has dave? I have. He is not invited yet.
        self.cluster.run()
        third.is_hung = True
        self.carry_all()
        self.cluster.advance(0.5)
        self.assertEqual((alice.take(), bob.take(), dave.take()), ([], [FAILED], []))
        self.chat(carol, bob)
        self.cluster.advance(CLUSTER_ANSWER_TIMEOUT)
        self.assertEqual(alice.take(), [FAILED, accepted("bob"), EXIT])
        self.assertTalk(carol, bob)
        third.is_hung = False
        self.end()

    def test_used_up(self) -> None:
        """An invitation that was accepted in vain ends when the own accept is LOST; one that is
        sent later does not.
        """
        (alice,) = self.log_in(0, "alice")
        bob, carol = self.log_in(1, "bob", "carol")
        for is_accepted in (True, False):
            self.invite(alice, bob)
            self.invite(carol, alice)
            self.hold()
            if is_accepted:
                bob.send(Command.CHAT_ACCEPT)
            carol.send(Command.CHAT_DECLINE, b"alice")
            alice.send(Command.CHAT_ACCEPT)
            self.carry_all()
            self.assertEqual(carol.take(), [OK])
            self.assertEqual(alice.take(), [LOST, GONE] if is_accepted else [LOST])
            self.assertEqual(bob.take(), [LOST] if is_accepted else [])
        bob.send(Command.CHAT_ACCEPT)
        self.assertEqual((alice.take(), bob.take()), ([accepted("bob")], [accepted("alice")]))
        self.end()

    def test_told_as_asked(self) -> None:
        """Who has invited as clients of the reference do, and then accepts, is answered as one who
        accepts, though the other one was faster.
        """
        (alice,), (bob,) = self.log_in(0, "alice"), self.log_in(1, "bob")
        alice.send(Command.FIND_PEER, b"bob")
        self.assertEqual((alice.take(), bob.take()), ([], [invited("alice")]))
        self.invite(bob, alice)
        self.hold()
        alice.send(Command.CHAT_ACCEPT)
        bob.send(Command.CHAT_ACCEPT)
        self.carry(self.there)
        self.assertEqual(alice.take(), [accepted("bob")])
        self.carry_all()
        self.assertEqual(bob.take(), [accepted("alice")])
        self.assertTalk(alice, bob)

    def test_shut_down(self) -> None:
        """Who is not answered before the machine goes down leaves nothing."""
        (alice,), (bob,) = self.log_in(0, "alice"), self.log_in(1, "bob")
        self.begin_inviting(alice, "bob")
        alice.leave()
        bob.leave()
        self.assertEqual(find_timers(self.cluster), [])

    def test_shut_down_at_once(self) -> None:
        """Nor does who is still looked for."""
        (alice,), (bob,) = self.log_in(0, "alice"), self.log_in(1, "bob")
        self.hold()
        alice.send(Command.CHAT_REQUEST, b"bob")
        alice.leave()
        bob.leave()
        self.assertEqual(find_timers(self.cluster), [])

    def test_machine_gone(self) -> None:
        """Those whom users of a machine that has gone down had invited hear so at once."""
        (alice,), (bob,) = self.log_in(0, "alice"), self.log_in(1, "bob")
        self.invite(alice, bob)
        self.cluster.machines[0].factory.shut_down()
        self.cluster.run()
        self.here.go()
        bob.send(Command.CHAT_ACCEPT)
        self.assertEqual(bob.take(), [LOST])


class LoginTests(LinkCase):
    """Two logins of one account, on two machines."""

    def test_unheard(self) -> None:
        """When the later one's announcement is lost the older one is REPLACED 2 s later."""
        (older,) = self.log_in(0, "alice")
        with patch.object(self.nats, "publish"):
            (newer,) = self.log_in(1, "alice")
        self.cluster.advance(CLUSTER_ANSWER_TIMEOUT - 0.25)
        self.assertEqual(older.take(), [])
        self.cluster.advance(0.25)
        self.assertEqual((older.take(), newer.take()), ([REPLACED], []))
        self.end()

    def test_same_number(self) -> None:
        """Of two logins of one number, which can't be, the later one stands; nobody REPLACES
        themselves, and machines of before don't say who they are.
        """
        (older,) = self.log_in(0, "alice")
        online = self.cluster.machines[0].online
        (number,) = online._logins
        for login in (Login(VERSION, number), Login(VERSION, number, online.machine)):
            self.there.publish("user.YWxpY2U", encode(login))
            self.cluster.run()
            self.assertEqual(older.take(), [])
        self.cluster.logins = number - 1
        with patch.object(self.cluster.machines[1].online, "_greatest_login", 0):
            (newer,) = self.log_in(1, "alice")
        self.assertEqual((older.take(), newer.take()), ([REPLACED], []))
        newer.leave()
        self.end()

    def test_heard_while_coming(self) -> None:
        """An older login that tells of itself is REPLACED only when the newer one is there."""
        (older,) = self.log_in(0, "alice")
        self.there.is_slow = True
        newer = self.cluster.connect_to(1)
        newer.send(Packet(Command.LOGIN, b"alice:password"))
        self.here.come_back()
        self.cluster.run()
        self.assertEqual((older.take(), newer.take()), ([], []))
        self.there.settle_all()
        self.cluster.run()
        self.assertEqual((older.take(), newer.take()), ([REPLACED], [OK]))
        newer.close()
        self.end()

    def test_looked_for_while_coming(self) -> None:
        """Who looked for somebody who was coming is answered once, and not kept."""
        self.there.is_slow = True
        bob = self.cluster.connect_to(1)
        bob.send(Packet(Command.LOGIN, b"bob:password"))
        (alice,) = self.log_in(0, "alice")
        alice.send(Command.CHAT_REQUEST, b"bob")
        self.there.settle_all()
        self.cluster.run()
        self.assertEqual(alice.take(), [SENT])
        (presence,) = self.cluster.machines[1].online._presences.values()
        self.assertEqual(presence.lookups, [])

    def test_stopped(self) -> None:
        """A machine that has stopped hears nothing any more."""
        (alice,) = self.log_in(0, "alice")
        machine = self.cluster.machines[0]
        machine.factory.shut_down()
        self.cluster.run()
        machine.online.stop()
        frame = encode_frame(self.cluster.machines[1].online.machine, 0, 1, Withdraw(3))
        self.there.publish(f"machine.{machine.online.machine}", frame)
        self.cluster.run()
        self.assertEqual(machine.online._links, {})
        self.assertEqual(alice.take(), [SHUTDOWN])

    def test_shut_down_while_coming(self) -> None:
        """Who was about to be there when the machine goes down is not found any more."""
        (bob,) = self.log_in(0, "bob")
        self.there.is_slow = True
        alice = self.cluster.connect_to(1)
        alice.send(Packet(Command.LOGIN, b"alice:password"))
        self.cluster.machines[1].factory.shut_down()
        bob.send(Command.CHAT_REQUEST, b"alice")
        self.assertEqual(bob.take(), [NOPE])
        alice.close()
        self.end()

    def test_impossible_names(self) -> None:
        """No machine is asked for a name that nobody can have."""
        (alice,) = self.log_in(0, "alice")
        before = self.nats.count
        for name in (b"", bytes(MAX_LOGIN_NAME_BYTES + 1)):
            alice.send(Command.CHAT_REQUEST, name)
            self.assertEqual(alice.take(), [NOPE])
        self.assertEqual(self.nats.count, before)
        self.end()


class SlowNumbers(MemoryCluster):
    """A cluster whose database numbers logins when the test says so."""

    def __init__(self) -> None:
        self.numbering: list[tuple[Deferred[list[int]], int]] = []
        super().__init__()

    def take_logins(self, count: int, greatest: int) -> Deferred[list[int]]:
        """Number logins later."""
        self.numbering.append((Deferred(), count))
        return self.numbering[-1][0]

    def number(self) -> None:
        """Number those who wait longest."""
        later, count = self.numbering.pop(0)
        super().take_logins(count, 0).addCallback(later.callback)
        self.run()

    def fail(self) -> None:
        """Say that the database is away."""
        later, _ = self.numbering.pop(0)
        later.errback(StorageFailedError("the database is away"))
        self.run()


class NumberingTests(ClusterCase):
    """Logins that wait for their number."""

    def setUp(self) -> None:
        self.cluster = SlowNumbers()
        self.clients = [self.cluster.connect_to(0) for _ in range(2)]
        for client, name in zip(self.clients, (b"alice", b"bob"), strict=True):
            client.send(Packet(Command.LOGIN, name + b":password"))

    def test_failed(self) -> None:
        """When a number can't be had the login is FAILED, and the next one is numbered."""
        alice, bob = self.clients
        self.cluster.fail()
        self.cluster.number()
        self.assertEqual((alice.take(), bob.take()), ([FAILED], [OK]))
        alice.send(Packet(Command.LOGIN, b"alice:password"))
        self.cluster.number()
        self.assertEqual(alice.take(), [OK])

    def test_fault(self) -> None:
        """Whatever goes wrong with one number is logged, and the next is taken."""
        lines = keep_texts(self)
        for wrong in (StorageFailedError("no permission"), RuntimeError("a fault")):
            alice = self.cluster.connect_to(0)
            alice.send(Packet(Command.LOGIN, b"alice:password"))
            while self.cluster.numbering:
                self.cluster.numbering.pop(0)[0].errback(wrong)
            self.cluster.run()
            self.assertEqual(alice.take(), [FAILED])
            self.assertTrue(any(line.endswith(f", {wrong}") for line in lines))
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
        alice.send(Packet(Command.LOGIN, b"alice:password"))
        self.cluster.number()
        self.assertEqual(alice.take(), [OK])

    def test_fault_before_it_is_known(self) -> None:
        """So it does when the login can't be made known."""
        subscribe = self.cluster.machines[0].bus.subscribe

        def subscribe_or_fail(subject: str, hear: Callable[[Heard], None]) -> MemorySubscription:
            if subject == "user.Ym9i":
                raise RuntimeError
            return subscribe(subject, hear)

        self.patch(self.cluster.machines[0].bus, "subscribe", subscribe_or_fail)
        carol = self.cluster.connect_to(0)
        carol.send(Packet(Command.LOGIN, b"carol:password"))
        for _ in ("alice", "bob and carol"):
            self.cluster.number()
        self.assertEqual((self.clients[1].take(), carol.take()), ([FAILED], [OK]))
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)

    def test_fault_of_one(self) -> None:
        """A fault at one login keeps those behind it from nothing."""
        announce = ClusterDirectory._announce

        def announce_or_fail(directory: ClusterDirectory, user: User) -> None:
            if user.name == b"bob":
                raise RuntimeError
            announce(directory, user)

        self.patch(ClusterDirectory, "_announce", announce_or_fail)
        carol = self.cluster.connect_to(0)
        carol.send(Packet(Command.LOGIN, b"carol:password"))
        for _ in ("alice", "bob and carol"):
            self.cluster.number()
        self.assertEqual(carol.take(), [OK])
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
        online = self.cluster.machines[0].online
        names = [each.name for each in online._presences]
        self.assertEqual((names, set(online._users)), ([b"alice", b"carol"], {b"alice", b"carol"}))

    def test_gone(self) -> None:
        """Who goes meanwhile is kept nowhere."""
        for client in self.clients:
            client.close()
        online = self.cluster.machines[0].online
        self.assertEqual((online._arriving, online._unnumbered), (set(), []))
        while self.cluster.numbering:
            self.cluster.number()
        self.assertEqual((online._coming, online._presences), ({}, {}))

    def test_shut_down(self) -> None:
        """Who has no number yet when the machine goes down is not found any more."""
        carol = self.cluster.connect_to(1)
        carol.send(Packet(Command.LOGIN, b"carol:password"))
        self.cluster.machines[0].factory.shut_down()
        while self.cluster.numbering:
            self.cluster.number()
        self.assertEqual([each.take() for each in self.clients], [[SHUTDOWN], [SHUTDOWN]])
        carol.send(Packet(Command.CHAT_REQUEST, b"alice"))
        self.assertEqual(carol.take(), [OK, NOPE])


class BrokenTests(LinkCase):
    """A message gets lost, and others are still on their way."""

    def setUp(self) -> None:
        super().setUp()
        self.has_lost = True

    def test_late_beat(self) -> None:
        """A sign of life from before ends nothing that was begun since."""
        alice, carol = self.log_in(0, "alice", "carol")
        bob, dave = self.log_in(1, "bob", "dave")
        self.chat(alice, bob)
        self.hold()
        bob.send(Command.MESSAGE, b"one")
        self.nats.lose(self.there, self.here)
        carol.send(Command.CHAT_REQUEST, b"dave")
        bob.send(Command.MESSAGE, b"two")
        self.carry(self.here)  # Who has dave?
        self.cluster.clock.advance(CLUSTER_BEAT_INTERVAL)
        self.carry(self.there)  # The gap, where dave is, and the sign of life.
        self.assertEqual(alice.take(), [EXIT])
        self.carry_all()
        self.assertEqual(bob.take(), [LOST, LOST, EXIT])
        self.assertEqual((carol.take(), dave.take()), ([SENT], [invited("carol")]))
        self.end()

    def test_told_again(self) -> None:
        """When it gets lost that one machine has begun anew, the other hears so with the next
        sign of life that it gives.
        """
        (alice,), (bob,) = self.log_in(0, "alice"), self.log_in(1, "bob")
        self.chat(alice, bob)
        self.hold()
        bob.send(Command.MESSAGE, b"one")
        self.nats.lose(self.there, self.here)
        bob.send(Command.MESSAGE, b"two")
        self.carry(self.there)
        self.assertEqual(alice.take(), [EXIT])
        self.nats.lose(self.here, self.there)
        self.nats.room = None
        self.cluster.advance(CLUSTER_BEAT_INTERVAL)
        self.assertEqual(bob.take(), [LOST, LOST, EXIT])
        self.end()

    def test_told_once(self) -> None:
        """It is not told for each message that is still of before."""
        (alice,), (bob,) = self.log_in(0, "alice"), self.log_in(1, "bob")
        self.chat(alice, bob)
        self.hold()
        for number in range(50):
            bob.send(Command.MESSAGE, b"%d" % number)
        self.nats.lose(self.there, self.here)
        before = self.nats.count
        self.carry(self.there)
        self.assertEqual(self.nats.count, before + 1)
        self.carry_all()
        self.assertEqual(bob.take(), [LOST] * 50 + [EXIT])
        self.end()

    def test_waiting_accept(self) -> None:
        """An accept that waits while the inviter asks somebody on the same machine opens no chat
        when the way there breaks.
        """
        (alice,) = self.log_in(0, "alice")
        bob, dave = self.log_in(1, "bob", "dave")
        self.invite(dave, alice)
        self.invite(alice, bob)
        self.begin_inviting(alice, "dave")
        bob.send(Command.CHAT_ACCEPT)
        self.carry(self.there)
        dave.send(Command.CHAT_DECLINE, b"alice")
        self.nats.lose(self.there, self.here)
        self.cluster.clock.advance(CLUSTER_BEAT_INTERVAL)
        self.carry(self.there)
        self.assertEqual(alice.take(), [GONE, FAILED])
        self.carry_all()
        self.assertEqual(bob.take(), [FAILED])
        self.end()

    def test_place(self) -> None:
        """An invitation that ended so takes no place at the invited one."""
        self.patch(users, "MAX_RECEIVED_INVITATIONS", 1)
        (alice,), (bob, carol) = self.log_in(0, "alice"), self.log_in(1, "bob", "carol")
        self.invite(alice, bob)
        self.here.go()
        self.cluster.advance(5)
        self.invite(carol, bob)
        self.here.come_back()
        self.end()

    def test_left_meanwhile(self) -> None:
        """When a machine has its bus back others hear at once that a chat was left meanwhile."""
        (alice,), (bob,) = self.log_in(0, "alice"), self.log_in(1, "bob")
        self.chat(alice, bob)
        self.here.go()
        alice.send(Command.EXIT_CHAT)
        self.here.come_back()
        self.cluster.run()
        self.assertEqual((alice.take(), bob.take()), ([BYE], [EXIT]))
        self.chat(alice, bob)
        self.end()

    def test_crossed(self) -> None:
        """Of crossed accepts whose answers get lost nothing stays, on either side."""
        (alice,), (bob,) = self.log_in(0, "alice"), self.log_in(1, "bob")
        self.invite(alice, bob)
        self.invite(bob, alice)
        self.hold()
        alice.send(Command.CHAT_ACCEPT)
        bob.send(Command.CHAT_ACCEPT)
        for sender, reader in ((self.here, self.there), (self.there, self.here)):
            subscription, heard = self.nats.ways[sender, reader].popleft()
            subscription.hear(heard)
        for way in self.nats.ways.values():
            way.clear()
        self.nats.room = None
        self.cluster.advance(60)
        self.assertEqual(alice.take(), [accepted("bob"), EXIT])
        self.assertEqual(bob.take(), [accepted("alice"), EXIT])
        for machine in self.cluster.machines:
            self.assertFalse(any(link.is_busy for link in machine.online._links.values()))
        self.chat(alice, bob)
        self.end()

    def test_fault(self) -> None:
        """A fault of the server's while a message is taken ends the chat: it is never answered."""
        (alice,), (bob,) = self.log_in(0, "alice"), self.log_in(1, "bob")
        self.chat(alice, bob)
        with patch.object(User, "said", side_effect=RuntimeError("a fault")):
            self.hold()
            alice.send(Command.MESSAGE, b"hello")
            subscription, heard = self.nats.ways[self.here, self.there].popleft()
            self.assertRaises(RuntimeError, subscription.hear, heard)
        self.carry_all()
        self.assertEqual((alice.take(), bob.take()), ([LOST, EXIT], [EXIT]))
        self.end()

    def test_invited_again_meanwhile(self) -> None:
        """An invitation that could not be sent changes nothing: the earlier one stands."""
        (alice,), (bob,) = self.log_in(0, "alice"), self.log_in(1, "bob")
        self.invite(alice, bob)
        self.here.go()
        alice.send(Command.CHAT_REQUEST, b"bob")
        self.assertEqual(alice.take(), [FAILED])
        self.here.come_back()
        self.cluster.run()
        bob.send(Command.CHAT_ACCEPT)
        self.assertEqual((alice.take(), bob.take()), ([accepted("bob")], [accepted("alice")]))
        self.end()

    def test_fault_at_the_end(self) -> None:
        """A fault while one chat is ended keeps none from its end, and no machine from living."""
        self.start(machines=3)
        self.has_lost = True
        alice, carol, eve = self.log_in(0, "alice", "carol", "eve")
        (bob, frank), (dave,) = self.log_in(1, "bob", "frank"), self.log_in(2, "dave")
        self.chat(alice, bob)
        self.chat(eve, frank)
        self.chat(carol, dave)
        user = self.cluster.machines[0].online._users[b"alice"]
        self.patch(user, "left", Mock(side_effect=RuntimeError))
        self.cluster.stop(1)
        self.cluster.advance(20)
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
        self.assertEqual((eve.take(), carol.take(), dave.take()), ([EXIT], [], []))


class SilentTests(LinkCase):
    """Machines that do not hear of each other, for a moment or for a day."""

    def setUp(self) -> None:
        super().setUp()
        (self.alice,), (self.bob,) = self.log_in(0, "alice"), self.log_in(1, "bob")
        self.chat(self.alice, self.bob)

    def leave_chat(self) -> None:
        """Let nothing be under way any more."""
        self.alice.send(Command.EXIT_CHAT)
        self.assertEqual((self.alice.take(), self.bob.take()), ([BYE], [EXIT]))

    def test_says_nothing(self) -> None:
        """With nothing under way machines say nothing to each other."""
        self.leave_chat()
        self.cluster.advance(CLUSTER_ANSWER_TIMEOUT)  # They tell of their logins once more.
        before = self.nats.count
        self.cluster.advance(10)
        self.assertEqual(self.nats.count, before)
        self.end()

    def test_leaving_logged(self) -> None:
        """That a chat was left is logged on both sides."""
        lines = keep_texts(self)
        self.leave_chat()
        mine, theirs = (line for line in lines if line.startswith("Chat left: "))
        here, there = (machine.online.machine for machine in self.cluster.machines)
        self.assertTrue(mine.endswith(f" left 'bob' (machine {there})"), mine)
        self.assertTrue(theirs.startswith(f"Chat left: 'alice' (machine {here}) left "), theirs)

    def test_log(self) -> None:
        """That touch was lost is logged on both sides, with the chats that have ended so; but not
        when nothing was under way.
        """
        self.has_lost = True
        lines = keep_texts(self)
        self.here.go()
        self.cluster.advance(5)
        self.here.come_back()
        self.cluster.run()
        self.assertEqual((self.alice.take(), self.bob.take()), ([EXIT], [EXIT]))
        self.here.go()
        self.here.come_back()
        self.cluster.run()
        for machine in self.cluster.machines:
            lost = f"Lost touch with machine {machine.online.machine}: it is silent; "
            self.assertEqual([line for line in lines if lost in line], [f"{lost}chats with it: 1"])
        self.assertEqual(len([line for line in lines if "Lost touch" in line]), 2)
        self.end()

    def test_idle_before(self) -> None:
        """Who was not heard because nothing was under way counts as silent only from then on."""
        self.leave_chat()
        self.cluster.advance(10)
        self.begin_inviting(self.alice, "bob")
        self.cluster.advance(CLUSTER_BEAT_INTERVAL)
        self.carry_all()
        self.assertEqual((self.alice.take(), self.bob.take()), ([SENT], [invited("alice")]))
        self.end()

    def test_talked_to(self) -> None:
        """That much is said to it makes nobody take it for heard."""
        self.has_lost = True
        self.cluster.stop(1)
        for number in range(8):
            self.alice.send(Command.MESSAGE, b"%d" % number)
            self.cluster.advance(0.5)
        self.cluster.advance(1)
        self.assertEqual(self.alice.take(), [LOST] * 8 + [EXIT])
        self.cluster.go_on(1)
        self.end()

    def pass_day(self) -> None:
        """Let so much time pass that the machines forget each other."""
        for seconds in (CLUSTER_FORGET, CLUSTER_BEAT_INTERVAL):
            self.cluster.clock.advance(seconds)
            self.cluster.run()

    def test_idle(self) -> None:
        """When nothing is under way with it, it costs no time any more."""
        for person in self.people:
            person.leave()
        self.pass_day()
        self.assertEqual(self.cluster.clock.getDelayedCalls(), [])
        self.end()

    def test_in_chat(self) -> None:
        """Whoever was in a chat with somebody there has heard that it is over."""
        self.has_lost = True
        self.cluster.stop(1)
        self.pass_day()
        self.assertEqual(self.alice.take(), [EXIT])
        self.cluster.go_on(1)
        self.assertEqual(self.bob.take(), [EXIT])
        self.chat(self.alice, self.bob)
        self.end()


class CreditTests(LinkCase):
    """How much may be on its way to another machine."""

    def setUp(self) -> None:
        super().setUp()
        self.alice, self.carol, self.dave = self.log_in(0, "alice", "carol", "dave")
        (self.bob,) = self.log_in(1, "bob")

    def say(self, sender: Person, count: int, size: int = 20_000) -> None:
        """Let `sender` say so much, one message after the other."""
        for number in range(count):
            said = b"%s %d %d " % (sender.name.encode(), len(sender.sent), number)
            sender.send(Command.MESSAGE, said + bytes(size))

    def under_way(self) -> int:
        """Return how many bytes are on their way to the second machine."""
        return sum(len(heard.data) for _, heard in self.nats.ways[self.here, self.there])

    def test_each_answer(self) -> None:
        """A small message that is answered makes no room for a big one."""
        self.chat(self.alice, self.bob)
        self.hold()
        self.say(self.alice, 50, 1)
        self.say(self.alice, 10)
        self.carry(self.here, 50)
        for _ in range(50):
            self.carry(self.there, 1)
            self.say(self.alice, 1)
            self.assertLess(self.under_way(), CLUSTER_CREDIT + READ_AHEAD)
        self.carry_all()
        self.assertEqual(self.alice.take(), [OK] * 110)
        self.end()

    def test_in_a_row(self) -> None:
        """Of messages that are said in a row each counts."""
        self.chat(self.alice, self.bob)
        self.hold()
        for number in range(40):
            texts = [b"%d " % number, b"%d " % number + bytes(10_000)]
            self.alice.client.send(*[Packet(Command.MESSAGE, text) for text in texts])
        self.assertLess(self.under_way(), CLUSTER_CREDIT + READ_AHEAD)
        self.carry_all()
        self.assertEqual(self.alice.take(), [OK] * 80)

    def test_empty_messages(self) -> None:
        """Empty messages count too."""
        self.chat(self.alice, self.bob)
        self.hold()
        for _ in range(400):
            self.alice.client.send(*[Packet(Command.MESSAGE, b"")] * 20)
        self.assertFalse(self.alice.client.transport.is_reading)
        self.carry_all()
        self.assertEqual(self.alice.take(), [OK] * 8000)

    def test_half(self) -> None:
        """A sender goes on as soon as half of what may be on its way is answered."""
        self.chat(self.alice, self.bob)
        self.hold()
        self.say(self.alice, 12)
        self.carry(self.here)
        self.carry(self.there, 3)
        self.assertEqual(self.under_way(), 0)
        self.carry(self.there, 1)
        self.assertGreater(self.under_way(), 0)
        self.carry_all()
        self.assertEqual(self.alice.take(), [OK] * 12)
        self.end()

    def fill(self) -> None:
        """Let alice say all she may, and more, of which bob reads nothing, which is known."""
        self.chat(self.alice, self.bob)
        self.hold()
        self.bob.client.stop_reading()
        self.say(self.alice, 12)
        self.carry(self.here, 3)
        self.carry(self.there)

    def test_answered_but_not_read(self) -> None:
        """Who may say more waits all the same while their partner does not read."""
        self.fill()
        self.carry(self.here)
        self.carry(self.there)
        self.assertEqual(self.under_way(), 0)
        self.bob.client.start_reading()
        self.carry_all()
        self.assertEqual(self.alice.take(), [OK] * 12)
        self.end()

    def test_read_but_not_answered(self) -> None:
        """Whose partner reads again waits all the same while too much is not answered."""
        self.fill()
        before = self.under_way()
        self.bob.client.start_reading()
        self.carry(self.there)
        self.assertEqual(self.under_way(), before)
        self.carry_all()
        self.assertEqual(self.alice.take(), [OK] * 12)
        self.end()

    def fill_up(self, person: Person, left: int) -> None:
        """Let so much wait for `person`, who does not read, that only some bytes are left."""
        person.client.stop_reading()
        transport = person.client.transport
        before = transport.bytes_written
        while transport.bytes_written - before <= READ_AHEAD - left:
            person.client.send(*[UNKNOWN] * 20)

    def assertHeld(self, person: Person) -> None:
        """Assert that `person` can't say without end to somebody who does not read."""
        self.say(person, 3)
        self.assertFalse(person.client.transport.is_reading)

    def test_inviter_does_not_read(self) -> None:
        """A chat that begins with an inviter who does not read holds the other soon."""
        self.invite(self.alice, self.bob)
        self.fill_up(self.alice, 0)
        self.bob.send(Command.CHAT_ACCEPT)
        self.assertHeld(self.bob)
        self.alice.client.start_reading()
        self.assertEqual(self.bob.take(), [accepted("alice"), *[OK] * 3])

    def test_accepting_does_not_read(self) -> None:
        """So does one with somebody who has begun not to read while they accepted."""
        self.invite(self.alice, self.bob)
        others = self.log_in(1, "x" * 250, "y" * 250)
        self.fill_up(self.bob, 400)
        self.hold()
        self.bob.send(Command.CHAT_ACCEPT)
        for other in others:
            other.send(Command.CHAT_REQUEST, b"bob")
        self.carry_all()
        self.assertEqual(self.alice.take(), [accepted("bob")])
        self.assertHeld(self.alice)
        self.bob.client.start_reading()
        self.assertEqual(self.alice.take(), [OK] * 3)

    def test_answers_of_before(self) -> None:
        """What is answered late in one chat does not let the sender go on in the next."""
        self.chat(self.alice, self.bob)
        self.hold()
        self.say(self.alice, 7)
        self.bob.send(Command.EXIT_CHAT)
        self.carry(self.there)
        self.carol.send(Command.CHAT_REQUEST, b"alice")
        self.alice.send(Command.CHAT_ACCEPT)
        self.carol.client.stop_reading()
        self.say(self.alice, 2)
        self.assertHeld(self.alice)
        self.carry_all()
        self.assertFalse(self.alice.client.transport.is_reading)
        self.carol.client.start_reading()
        told = [EXIT, invited("carol")]
        answers = [*[LOST] * 7, accepted("carol"), *[OK] * 5]
        self.assertEqual(self.alice.take(), told + answers)
        self.end()

    def test_next_partner(self) -> None:
        """Who comes next has to wait too, while what somebody else said is not answered."""
        self.chat(self.alice, self.bob)
        self.begin_inviting(self.dave, "bob")
        self.say(self.alice, 7)
        self.bob.send(Command.EXIT_CHAT)
        self.carry(self.here, 1)
        self.bob.send(Command.CHAT_ACCEPT)
        self.carry(self.there)
        self.assertEqual(self.dave.take(), [SENT, accepted("bob")])
        self.say(self.dave, 3)
        self.assertFalse(self.dave.client.transport.is_reading)
        self.carry_all()
        self.assertEqual(self.dave.take(), [OK] * 3)
        self.assertEqual(self.alice.take(), [EXIT, *[LOST] * 7])
        self.end()

    def test_after_a_break(self) -> None:
        """Who did not read when the machines lost touch, and does not read in the next chat, holds
        that partner too.
        """
        self.has_lost = True
        self.chat(self.alice, self.bob)
        self.hold()
        self.bob.client.stop_reading()
        self.say(self.alice, 3)
        self.carry(self.here)
        self.carry(self.there)
        self.begin_inviting(self.carol, "bob")
        self.nats.lose(self.here, self.there)
        self.cluster.advance(CLUSTER_ANSWER_TIMEOUT)
        self.carry_all()
        self.bob.client.start_reading()
        self.assertEqual(self.alice.take(), [OK] * 3 + [EXIT])
        self.assertEqual(self.carol.take(), [FAILED])
        self.bob.take()
        self.chat(self.carol, self.bob)
        self.bob.client.stop_reading()
        self.say(self.carol, 2)
        self.assertHeld(self.carol)
        self.bob.client.start_reading()
        self.assertEqual(self.carol.take(), [OK] * 5)
        self.end()

    def test_next_chat(self) -> None:
        """Who did not read in one chat, and does not read in the next, holds that partner too,
        though it is one of the same machine who had asked before the first chat was over.
        """
        self.chat(self.alice, self.bob)
        self.hold()
        self.bob.client.stop_reading()
        self.say(self.alice, 3)
        self.carry(self.here)
        self.carry(self.there)
        self.carol.send(Command.CHAT_REQUEST, b"bob")
        self.dave.send(Command.CHAT_REQUEST, b"bob")
        self.carry(self.here)  # Who has bob, asked twice.
        self.carry(self.there, 1)  # The first answer: carol invites him.
        self.alice.leave()
        self.bob.client.start_reading()
        self.carry(self.there)  # The second one: dave does.
        self.carry_all()
        self.assertEqual((self.carol.take(), self.dave.take()), ([error("BUSY")], [SENT]))
        self.bob.send(Command.CHAT_ACCEPT)
        self.bob.client.stop_reading()
        self.say(self.dave, 2)
        self.assertHeld(self.dave)
        self.bob.client.start_reading()
        self.assertEqual(self.dave.take(), [accepted("bob"), *[OK] * 5])
        self.end()


class LyingTests(LinkCase):
    """What a machine says that can't be, about something that is under way with it."""

    MACHINE = "0123456789ab"
    MALLORY = 99

    def setUp(self) -> None:
        super().setUp()
        (self.dave,) = self.log_in(0, "dave")
        self.to_dave = self.cluster.logins
        self.stranger = MemoryBus(self.nats)
        self.stranger.subscribe("user.*", self.locate)
        self.count = 0
        self.offer = Offer(self.to_dave, self.MALLORY, b"mallory", 7, 8)

    def locate(self, heard: Heard) -> None:
        """Say that mallory is there, whoever is asked for."""
        message = decode_announcement(heard.data)
        if isinstance(message, Lookup):
            located = encode(Located(VERSION, self.MACHINE, self.MALLORY))
            self.stranger.publish(f"lookup.{message.machine}.{message.request}", located)

    def say(self, *bodies: Body) -> None:
        """Say something to dave's machine."""
        for body in bodies:
            self.count += 1
            frame = encode_frame(self.MACHINE, 0, self.count, body)
            self.stranger.publish(f"machine.{self.cluster.machines[0].online.machine}", frame)
        self.cluster.run()

    def begin_chat(self) -> None:
        """Let dave be in a chat with mallory."""
        self.say(self.offer)
        self.dave.send(Command.CHAT_ACCEPT)
        self.say(Answer(1, None))
        self.assertEqual(self.dave.take(), [invited("mallory"), accepted("mallory")])

    def test_answer(self) -> None:
        """What is no answer to an accept makes it fail, and is logged."""
        for code in (b"DENY", b"?"):
            self.setUp()
            lines = keep_texts(self)
            self.say(self.offer)
            self.dave.send(Command.CHAT_ACCEPT)
            self.say(Answer(1, code))
            self.assertEqual(self.dave.take(), [invited("mallory"), FAILED])
            self.assertTrue(any(line.startswith("Unreadable: ") for line in lines))
            self.end()

    def test_unasked(self) -> None:
        """An answer to nothing is left out."""
        self.begin_chat()
        self.say(Answer(1, None), Say(self.to_dave, self.MALLORY, 9, [b"hi"]))
        self.assertEqual(self.dave.take(), [Packet(Command.MESSAGE, b"mallory: hi")])
        self.dave.leave()

    def test_reason(self) -> None:
        """An invitation that ends for what is no reason has ended like one whose way broke."""
        for code in (b"LOST", b"?"):
            self.setUp()
            self.dave.send(Command.CHAT_REQUEST, b"mallory")
            self.say(Answer(2, None), End(1, code))
            self.assertEqual(self.dave.take(), [SENT, GONE])
            self.end()

    def test_same_invitation(self) -> None:
        """Two invitations can't have one number: neither waits any more."""
        self.say(self.offer, self.offer)
        self.dave.send(Command.CHAT_ACCEPT)
        self.assertEqual(self.dave.take(), [invited("mallory"), LOST])
        self.end()

    def test_somebody_else(self) -> None:
        """What somebody says who is not the chat partner is not heard."""
        self.begin_chat()
        self.say(Say(self.to_dave, self.MALLORY + 1, 9, [b"I am mallory"]))
        self.assertEqual(self.dave.take(), [])
        self.dave.leave()

    def test_name(self) -> None:
        """A name that no account has can be somebody's there, and disturbs nothing."""
        self.dave.send(Command.CHAT_REQUEST, b"\xff")
        self.say(Answer(2, None), Accept(1, 9))
        self.assertEqual(self.dave.take(), [SENT, Packet(Command.CHAT_ACCEPT, b"\xff")])
        self.dave.leave()

    def test_longest(self) -> None:
        """A message just fits into a packet, or ends the chat."""
        self.begin_chat()
        longest = bytes(MAX_BODY - len(b"mallory: "))
        self.say(Say(self.to_dave, self.MALLORY, 9, [longest]))
        self.assertEqual(self.dave.take(), [Packet(Command.MESSAGE, b"mallory: " + longest)])
        self.say(Say(self.to_dave, self.MALLORY, 9, [longest + b"."]))
        self.assertEqual(self.dave.take(), [EXIT])
        self.end()

"""Several machines in memory: what is late, who is gone, and what would be left of either."""

from __future__ import annotations

from unittest.mock import patch

from chatserver import users
from chatserver.limits import (
    CLUSTER_ANSWER_TIMEOUT,
    CLUSTER_BEAT_INTERVAL,
    CLUSTER_CREDIT,
    READ_AHEAD,
)
from chatserver.packets import Command, Packet
from tests.cluster_checks import Person
from tests.memory_cluster import MemoryBus
from tests.test_cluster import EXIT, LOST, OK, REPLACED, SENT, ClusterCase, accepted, invited


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


class GoneTests(LinkCase):
    """Users who leave while another machine is still to answer."""

    def test_offer_delivered(self) -> None:
        """The invitation of somebody who has left meanwhile waits no more: others may invite."""
        self.patch(users, "MAX_RECEIVED_INVITATIONS", 1)
        alice, carol = self.log_in(0, "alice", "carol")
        (bob,) = self.log_in(1, "bob")
        self.hold()
        alice.send(Command.CHAT_REQUEST, b"bob")
        for sender in (self.here, self.there, self.here):  # who has bob? I have; alice invites him
            self.carry(sender)
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


class BrokenTests(LinkCase):
    """A message gets lost, and others are still on their way."""

    def test_late_beat(self) -> None:
        """A sign of life from before ends nothing that was begun since."""
        self.has_lost = True
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
        self.carry(self.there)
        self.assertEqual(alice.take(), [EXIT])
        self.carry_all()
        self.assertEqual(bob.take(), [LOST, LOST, EXIT])
        self.assertEqual((carol.take(), dave.take()), ([SENT], [invited("carol")]))
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

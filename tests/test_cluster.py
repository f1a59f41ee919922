"""Several machines in memory: races between them, and what happens when one of them fails."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import permutations
from random import Random
from typing import Any

from twisted.trial.unittest import TestCase

from chatserver.cluster import directory as cluster_directory
from chatserver.cluster.messages import VERSION, Accept, Answer, Offer, Say, Withdraw, encode_frame
from chatserver.limits import CLUSTER_ANSWER_TIMEOUT, CLUSTER_CREDIT
from chatserver.packets import Command, Packet
from tests.cluster_checks import (
    BYE,
    OK,
    SENT,
    Person,
    error,
    find_faults,
    find_half_chats,
    find_rest,
    find_timers,
)
from tests.logs import keep_texts
from tests.memory_cluster import MemoryBus, MemoryCluster

EXIT = error("EXIT")
FAILED = error("FAILED")
GONE = error("GONE")
LOST = error("LOST")
NOPE = error("NOPE")
REPLACED = error("REPLACED")
SHUTDOWN = error("SHUTDOWN")

SEEDS = range(25)


def accepted(name: str) -> Packet:
    """Return what tells of a chat with `name`."""
    return Packet(Command.CHAT_ACCEPT, name.encode())


def invited(name: str) -> Packet:
    """Return what tells of an invitation of `name`."""
    return Packet(Command.FIND_PEER, name.encode())


class ClusterCase(TestCase):
    """A test of some machines in memory."""

    def start(self, machines: int = 2, seed: int | None = None) -> None:
        """Start a cluster. With a seed, messages between its machines arrive in random orders."""
        chance = None if seed is None else Random(seed)
        self.cluster = MemoryCluster(machines=machines, chance=chance)
        self.people: list[Person] = []
        self.has_lost = False

    def log_in(self, machine: int, *names: str) -> list[Person]:
        """Return `names`, who are now on a machine."""
        new = [Person(self.cluster, machine, name) for name in names]
        self.people += new
        return new

    def invite(self, inviter: Person, invitee: Person) -> None:
        """Let `inviter` invite `invitee`."""
        inviter.send(Command.CHAT_REQUEST, invitee.name.encode())
        self.assertEqual(inviter.take(), [SENT])
        self.assertEqual(invitee.take(), [invited(inviter.name)])

    def chat(self, inviter: Person, invitee: Person) -> None:
        """Let there be a chat."""
        self.invite(inviter, invitee)
        invitee.send(Command.CHAT_ACCEPT)
        self.assertEqual(invitee.take(), [accepted(inviter.name)])
        self.assertEqual(inviter.take(), [accepted(invitee.name)])

    def assertTalk(self, one: Person, other: Person) -> None:
        """Assert that each hears what the other one says."""
        for sender, listener in ((one, other), (other, one)):
            text = f"{sender.name} {len(self.people)} {len(sender.sent)}".encode()
            sender.send(Command.MESSAGE, text)
            self.assertEqual(sender.take(), [OK])
            said = Packet(Command.MESSAGE, sender.name.encode() + b": " + text)
            self.assertEqual(listener.take(), [said])

    def crossing(self, seed: int, *actions: Callable[[], None]) -> None:
        """Do all `actions`, in a random order, with some messages carried in between."""
        chance = Random(seed)
        for action in chance.sample(actions, len(actions)):
            self.cluster.nats.room = chance.choice([0, 0, 1, 2, 3])
            action()
        self.cluster.nats.room = None
        self.cluster.run()

    def end(self) -> None:
        """Assert that all is as it must be, and that nothing is left when everybody has left."""
        faults = find_half_chats(self.cluster) + find_faults(self.people, self.has_lost)
        self.assertEqual(faults, [])
        for person in self.people:
            if not person.is_gone:
                person.leave()
        self.cluster.advance(5)
        self.assertEqual(find_rest(self.cluster) + find_timers(self.cluster), [])
        self.assertEqual(self.flushLoggedErrors(), [])


class SameMachineTests(ClusterCase):
    """Two users on one machine."""

    def test_bus_hears_nothing(self) -> None:
        """What they do with each other is not told to the bus."""
        self.start()
        alice, bob = self.log_in(0, "alice", "bob")
        before = self.cluster.nats.count
        self.chat(alice, bob)
        self.assertTalk(alice, bob)
        alice.send(Command.EXIT_CHAT)
        self.assertEqual(bob.take(), [EXIT])
        self.assertEqual(self.cluster.nats.count, before)


class BusTests(ClusterCase):
    """A machine whose bus goes away, and returns."""

    def setUp(self) -> None:
        self.start()
        self.has_lost = True
        self.bus = self.cluster.machines[0].bus

    def test_within_a_machine(self) -> None:
        """Who is on the same machine notices nothing: chats go on, and others begin."""
        alice, bob, carol, dave = self.log_in(0, "alice", "bob", "carol", "dave")
        self.chat(alice, bob)
        self.bus.go()
        self.chat(carol, dave)
        self.cluster.advance(10)
        self.assertTalk(alice, bob)
        self.assertTalk(carol, dave)
        self.bus.come_back()
        self.cluster.advance(10)
        self.assertTalk(alice, bob)
        self.end()

    def test_across(self) -> None:
        """Chats across end with EXIT within 5 s, on both sides; what was said meanwhile is LOST."""
        (alice,), (bob,) = self.log_in(0, "alice"), self.log_in(1, "bob")
        self.chat(alice, bob)
        self.cluster.advance(20.25)
        self.bus.go()
        for person in (alice, bob):
            person.send(Command.MESSAGE, b"are you there, says " + person.name.encode())
        self.cluster.advance(3)
        self.assertEqual((alice.take(), bob.take()), ([], []))
        self.cluster.advance(2)
        self.assertEqual((alice.take(), bob.take()), ([LOST, EXIT], [LOST, EXIT]))
        self.bus.come_back()
        self.end()

    def test_invitations(self) -> None:
        """Inviting somebody elsewhere is FAILED; what waited for an answer ends within 5 s."""
        alice, dave = self.log_in(0, "alice", "dave")
        bob, carol = self.log_in(1, "bob", "carol")
        self.invite(alice, bob)
        self.invite(carol, dave)
        self.bus.go()
        alice.send(Command.CHAT_REQUEST, b"carol")
        self.assertEqual(alice.take(), [FAILED])
        bob.send(Command.CHAT_REQUEST, b"dave")
        self.cluster.advance(2)
        self.assertEqual(bob.take(), [FAILED])
        self.cluster.advance(3)
        self.assertEqual((alice.take(), carol.take()), ([GONE], [GONE]))
        bob.send(Command.CHAT_ACCEPT, b"alice")
        self.assertEqual(bob.take(), [LOST])
        self.bus.come_back()
        self.end()

    def test_accept(self) -> None:
        """An accept that has no answer is FAILED after 2 s, and opens no chat later."""
        (alice,), (bob,) = self.log_in(0, "alice"), self.log_in(1, "bob")
        self.invite(alice, bob)
        self.bus.go()
        bob.send(Command.CHAT_ACCEPT)
        self.cluster.advance(2)
        self.assertEqual(bob.take(), [FAILED])
        self.bus.come_back()
        self.cluster.advance(5)
        self.assertEqual((alice.take(), bob.take()), ([GONE], []))
        self.end()

    def test_short(self) -> None:
        """A chat in which nothing was said in the few seconds without a bus goes on."""
        (alice,), (bob,) = self.log_in(0, "alice"), self.log_in(1, "bob")
        self.chat(alice, bob)
        self.bus.go()
        self.cluster.advance(2)
        self.bus.come_back()
        self.cluster.advance(5)
        self.assertTalk(alice, bob)
        self.end()

    def test_heals(self) -> None:
        """When the bus is there again all works at once, however long it was away."""
        for seconds in (5, 10, 29, 31, 70, 200):
            for first in (0, 1):
                self.start()
                self.has_lost = True
                self.bus = self.cluster.machines[0].bus
                (alice,), (bob,) = self.log_in(0, "alice"), self.log_in(1, "bob")
                self.chat(alice, bob)
                self.bus.go()
                self.cluster.advance(seconds)
                self.bus.come_back()
                self.assertEqual((alice.take(), bob.take()), ([EXIT], [EXIT]), seconds)
                self.chat(*((alice, bob) if first == 0 else (bob, alice)))
                self.assertTalk(alice, bob)
                self.end()

    def test_logins(self) -> None:
        """Of logins on two machines meanwhile the later one stands, and the other is REPLACED."""
        for order in permutations((0, 0, 1, 1)):
            self.start()
            self.has_lost = True
            for machine in self.cluster.machines:
                machine.bus.go()
            logins = [self.log_in(machine, "alice")[0] for machine in order]
            for machine in self.cluster.machines:
                machine.bus.come_back()
                self.cluster.run()
            self.assertEqual([each.take() for each in logins], [[REPLACED]] * 3 + [[]], order)
            self.end()


class EnteringTests(ClusterCase):
    """Logins that wait until the bus knows of them."""

    def setUp(self) -> None:
        self.start()
        self.has_lost = True
        (self.elsewhere,) = self.log_in(1, "alice")
        self.bus = self.cluster.machines[0].bus
        self.bus.is_slow = True
        self.client = self.cluster.connect_to(0)
        self.client.send(Packet(Command.LOGIN, b"alice:password"))
        self.assertEqual((self.client.take(), self.elsewhere.take()), ([], []))

    def test_waits(self) -> None:
        """OK is heard once others can find them. Who looks for them before waits for that."""
        (bob,) = self.log_in(1, "bob")
        later = self.cluster.connect_to(0)
        later.send(Packet(Command.LOGIN, b"alice:password"))
        self.elsewhere.leave()
        bob.send(Command.CHAT_REQUEST, b"alice")
        self.assertEqual(bob.take(), [])
        self.bus.settle_all()
        self.cluster.run()
        self.assertEqual((self.client.take(), later.take()), ([OK, invited("bob")], []))
        self.assertEqual(bob.take(), [SENT])
        self.bus.settle_all()
        self.cluster.run()
        self.assertEqual((self.client.take(), later.take()), ([REPLACED], [OK]))
        self.assertEqual(bob.take(), [GONE])
        bob.send(Command.CHAT_REQUEST, b"alice")
        self.assertEqual((bob.take(), later.take()), ([SENT], [invited("bob")]))
        later.close()
        self.client.close()
        self.assertEqual(bob.take(), [GONE])
        self.end()

    def test_gone(self) -> None:
        """Who disconnects meanwhile leaves nothing, and replaces nobody."""
        self.client.close()
        self.bus.settle_all()
        self.cluster.run()
        self.bus.is_slow = False
        (bob,) = self.log_in(0, "bob")
        self.chat(bob, self.elsewhere)
        self.end()

    def test_looked_for_and_gone(self) -> None:
        """Who looks for somebody who disconnects meanwhile hears FAILED."""
        (bob,) = self.log_in(1, "bob")
        self.elsewhere.leave()
        bob.send(Command.CHAT_REQUEST, b"alice")
        self.client.close()
        self.bus.settle_all()
        self.cluster.advance(CLUSTER_ANSWER_TIMEOUT)
        self.assertEqual(bob.take(), [FAILED])
        self.end()

    def test_shut_down(self) -> None:
        """When the machine goes down meanwhile the login elsewhere stays."""
        self.cluster.machines[0].factory.shut_down()
        self.cluster.run()
        self.assertEqual(self.client.take(), [SHUTDOWN])
        self.client.close()
        self.bus.settle_all()
        self.cluster.run()
        self.assertEqual(self.elsewhere.take(), [])
        (bob,) = self.log_in(1, "bob")
        self.chat(bob, self.elsewhere)
        self.end()


class StoppedTests(ClusterCase):
    """A machine that does nothing for a while, and then goes on."""

    def setUp(self) -> None:
        self.start(machines=3)
        self.has_lost = True

    def test_partners(self) -> None:
        """Partners hear EXIT within 5 s, and the machine's own users when it goes on."""
        (alice,), (bob,) = self.log_in(0, "alice"), self.log_in(1, "bob")
        self.chat(alice, bob)
        self.cluster.stop(1)
        alice.send(Command.MESSAGE, b"hi")
        self.cluster.advance(5)
        self.assertEqual(alice.take(), [LOST, EXIT])
        self.cluster.advance(5)
        self.cluster.go_on(1)
        self.assertEqual(bob.take(), [EXIT])
        self.cluster.advance(5)
        self.assertEqual((alice.take(), bob.take()), ([], []))
        self.chat(bob, alice)
        self.end()

    def test_first_contact(self) -> None:
        """It may have been stopped before it has ever said anything: all comes to rest."""
        (alice,), (bob,) = self.log_in(0, "alice"), self.log_in(1, "bob")
        self.cluster.stop(1)
        self.cluster.nats.room = None
        alice.send(Command.CHAT_REQUEST, b"bob")
        self.cluster.advance(10)
        self.assertEqual(alice.take(), [FAILED])
        self.cluster.go_on(1)
        self.cluster.advance(5)
        self.assertEqual(alice.take(), [])
        bob.take()  # An invitation that has ended meanwhile, or none.
        bob.send(Command.CHAT_ACCEPT)
        self.assertIn(bob.take(), ([LOST], [error("NOINVITE")]))
        self.chat(alice, bob)
        self.end()

    def test_moved(self) -> None:
        """Users who have moved meanwhile are REPLACED there, and their new chats go on."""
        (alice,), (bob,) = self.log_in(0, "alice"), self.log_in(1, "bob")
        self.chat(alice, bob)
        self.cluster.stop(1)
        (elsewhere,) = self.log_in(2, "bob")
        self.cluster.advance(5)
        self.assertEqual(alice.take(), [EXIT])
        self.chat(alice, elsewhere)
        self.cluster.advance(5)
        self.cluster.go_on(1)
        self.assertEqual([each for each in bob.take() if each != EXIT], [REPLACED])
        self.assertTalk(alice, elsewhere)
        self.end()

    def test_looked_for(self) -> None:
        """Inviting somebody there is FAILED after 2 s, and no chat comes of it later."""
        (alice,), (bob,) = self.log_in(0, "alice"), self.log_in(1, "bob")
        self.cluster.stop(1)
        alice.send(Command.CHAT_REQUEST, b"bob")
        self.cluster.advance(1.75)
        self.assertEqual(alice.take(), [])
        self.cluster.advance(0.25)
        self.assertEqual(alice.take(), [FAILED])
        self.cluster.go_on(1)
        self.assertEqual((alice.take(), bob.take()), ([], []))
        self.end()


class LostTests(ClusterCase):
    """A single message is lost."""

    def play(self, number: int) -> bool:
        """Lose the `number`-th message of a whole story. Return whether there was one."""
        self.start()
        self.has_lost = True
        alice, carol = self.log_in(0, "alice", "carol")
        bob, dave = self.log_in(1, "bob", "dave")
        publish, count = self.cluster.nats.publish, 0

        def lose_one(sender: MemoryBus, subject: str, data: bytes, answer_to: str) -> None:
            nonlocal count
            count += subject.startswith("machine.")
            if count != number or not subject.startswith("machine."):
                publish(sender, subject, data, answer_to)

        self.patch(self.cluster.nats, "publish", lose_one)
        send = Person.send
        send(alice, Command.CHAT_REQUEST, b"bob")
        send(carol, Command.CHAT_REQUEST, b"dave")
        send(dave, Command.CHAT_REQUEST, b"alice")
        send(bob, Command.CHAT_ACCEPT)
        send(alice, Command.MESSAGE, b"one")
        send(bob, Command.MESSAGE, b"two")
        send(dave, Command.CHAT_DECLINE, b"carol")
        send(bob, Command.EXIT_CHAT)
        was_lost = count >= number
        self.patch(self.cluster.nats, "publish", publish)
        self.cluster.advance(5)
        self.assertEqual(find_half_chats(self.cluster), [], number)
        self.assertEqual(find_faults(self.people, were_faults=True), [], number)
        self.cluster.advance(60)
        for person in self.people:
            person.take()
            if person.name in ("alice", "bob"):
                person.send(Command.EXIT_CHAT)
                person.take()
        for person in self.people:
            person.send(Command.CHAT_DECLINE)
            person.take()
        self.chat(alice, bob)
        self.chat(dave, carol)
        self.end()
        return was_lost

    def test_each(self) -> None:
        """Whichever it is, nobody is in a chat alone 5 s later, and all can be done again."""
        number = 1
        while self.play(number):
            number += 1
        self.assertGreater(number, 12)

    def test_gap(self) -> None:
        """When what was said is lost both hear EXIT as soon as the gap shows, and it is LOST."""
        self.start()
        self.has_lost = True
        (alice,), (bob,) = self.log_in(0, "alice"), self.log_in(1, "bob")
        self.chat(alice, bob)
        here, there = (machine.bus for machine in self.cluster.machines)
        self.cluster.nats.room = 0
        alice.send(Command.MESSAGE, b"one")
        self.cluster.nats.lose(here, there)
        self.cluster.nats.room = None
        alice.send(Command.MESSAGE, b"two")
        self.assertEqual((alice.take(), bob.take()), ([LOST, LOST, EXIT], [EXIT]))
        self.chat(alice, bob)
        self.end()

    def test_waiting_accept(self) -> None:
        """An accept that waits while the inviter asks somebody else opens no chat when the way
        to the accepting one breaks meanwhile.
        """
        self.start(machines=3)
        self.has_lost = True
        self.log_in(2, "carol")
        (alice,), (bob, dave) = self.log_in(0, "alice"), self.log_in(1, "bob", "dave")
        self.invite(alice, bob)
        self.cluster.stop(2)
        alice.send(Command.CHAT_REQUEST, b"carol")
        bob.send(Command.CHAT_ACCEPT)
        here, there = self.cluster.machines[1].bus, self.cluster.machines[0].bus
        self.cluster.nats.room = 0
        dave.send(Command.CHAT_REQUEST, b"alice")
        self.cluster.nats.room = 1  # who has alice?
        self.cluster.run()
        self.cluster.nats.room = 1
        self.cluster.run()
        self.cluster.nats.lose(here, there)
        self.cluster.nats.room = None
        self.cluster.advance(5)
        self.assertEqual(alice.take(), [GONE, FAILED])
        self.assertEqual(bob.take(), [FAILED])
        self.assertEqual(find_half_chats(self.cluster), [])
        self.cluster.go_on(2)
        self.end()


class RaceTests(ClusterCase):
    """What crosses on its way between two machines, in many orders."""

    def each(self, machines: int = 2) -> Iterator[int]:
        """Start a cluster for each seed, and look at it in the end."""
        for seed in SEEDS:
            self.start(machines, seed)
            yield seed
            self.end()

    def test_logins(self) -> None:
        """Of two logins of one account at once exactly one stays, the later one."""
        for seed in self.each():
            chance = Random(seed)
            logins: list[Person] = []

            def log_in(machine: int, logins: list[Person] = logins) -> None:
                logins.extend(self.log_in(machine, "alice"))

            order = [0, 1, chance.randrange(2)]
            chance.shuffle(order)
            for machine in order:
                self.cluster.nats.room = chance.choice([0, 0, 1, 2])
                log_in(machine)
            self.cluster.nats.room = None
            self.cluster.run()
            self.assertEqual([each.take() for each in logins], [[REPLACED]] * 2 + [[]], seed)

    def test_crossed_accepts(self) -> None:
        """When both accept at once, both are in the chat, and each is told once."""
        for seed in self.each():
            (alice,), (bob,) = self.log_in(0, "alice"), self.log_in(1, "bob")
            self.invite(alice, bob)
            self.invite(bob, alice)
            self.crossing(
                seed,
                lambda alice=alice: alice.send(Command.CHAT_ACCEPT),
                lambda bob=bob: bob.send(Command.CHAT_ACCEPT),
            )
            heard = alice.take(), bob.take()
            # Who was in the chat already when the packet was handled is told so.
            busy = error("BUSY")
            self.assertEqual(heard[0][0], accepted("bob"))
            self.assertEqual(heard[1][0], accepted("alice"))
            self.assertIn((heard[0][1:], heard[1][1:]), [([], []), ([busy], []), ([], [busy])])
            self.assertTalk(alice, bob)

    def test_withdraw(self) -> None:
        """An accept against a withdrawal: there is a chat, or there is none, for both."""
        for seed in self.each():
            (alice,), (bob,) = self.log_in(0, "alice"), self.log_in(1, "bob")
            self.invite(alice, bob)
            self.crossing(
                seed,
                lambda alice=alice: alice.send(Command.CHAT_DECLINE, b"bob"),
                lambda bob=bob: bob.send(Command.CHAT_ACCEPT),
            )
            self.assertIn(
                (alice.take(), bob.take()),
                [
                    ([OK], [LOST]),
                    ([accepted("bob"), error("BUSY")], [accepted("alice")]),
                ],
            )

    def test_inviter_leaves(self) -> None:
        """An accept against the inviter's end: LOST, or a chat that ends."""
        for seed in self.each():
            (alice,), (bob,) = self.log_in(0, "alice"), self.log_in(1, "bob")
            self.invite(alice, bob)
            self.crossing(seed, alice.leave, lambda bob=bob: bob.send(Command.CHAT_ACCEPT))
            self.assertIn(bob.take(), [[LOST], [accepted("alice"), EXIT]])

    def test_accept_elsewhere(self) -> None:
        """An accept that meets one who is just accepting somebody else gets LOST or GONE's end."""
        for seed in self.each(machines=3):
            (alice,), (bob,), (carol,) = (
                self.log_in(machine, name) for machine, name in enumerate(("alice", "bob", "carol"))
            )
            self.invite(alice, bob)
            self.invite(carol, alice)
            self.crossing(
                seed,
                lambda alice=alice: alice.send(Command.CHAT_ACCEPT, b"carol"),
                lambda bob=bob: bob.send(Command.CHAT_ACCEPT),
            )
            heard = alice.take(), bob.take(), carol.take()
            with_carol = [accepted("carol")], [LOST], [accepted("alice")]
            with_bob = [accepted("bob"), error("BUSY")], [accepted("alice")], [GONE]
            self.assertIn(heard, [with_carol, with_bob])

    def test_used_up(self) -> None:
        """An invitation whose accept was LOST does not wait on: its inviter is in another chat, or
        hears GONE.
        """
        for seed in self.each(machines=3):
            (alice,), (bob,), (carol,) = (
                self.log_in(machine, name) for machine, name in enumerate(("alice", "bob", "carol"))
            )
            self.invite(alice, bob)
            self.invite(bob, carol)
            self.crossing(
                seed,
                lambda bob=bob: bob.send(Command.CHAT_ACCEPT, b"alice"),
                lambda carol=carol: carol.send(Command.CHAT_ACCEPT),
                lambda alice=alice: alice.send(Command.CHAT_DECLINE, b"bob"),
            )
            heard = alice.take(), bob.take(), carol.take()
            if heard[2] == [LOST] and accepted("alice") not in heard[1]:
                self.assertEqual(heard, ([OK], [LOST, GONE], [LOST]), seed)

    def test_both_leave(self) -> None:
        """Both leave at once: each hears BYE, or EXIT and NOCHAT."""
        for seed in self.each():
            (alice,), (bob,) = self.log_in(0, "alice"), self.log_in(1, "bob")
            self.chat(alice, bob)
            self.crossing(
                seed,
                lambda alice=alice: alice.send(Command.EXIT_CHAT),
                lambda bob=bob: bob.send(Command.EXIT_CHAT),
            )
            late = [EXIT, error("NOCHAT")]
            possible = [([BYE], [BYE]), ([BYE], late), (late, [BYE])]
            self.assertIn((alice.take(), bob.take()), possible)

    def test_message(self) -> None:
        """Messages against a leave: each is heard and OK, or LOST, or said outside of a chat."""
        for seed in self.each():
            (alice,), (bob,) = self.log_in(0, "alice"), self.log_in(1, "bob")
            self.chat(alice, bob)

            def say(number: int, alice: Person = alice) -> Callable[[], None]:
                return lambda: alice.send(Command.MESSAGE, b"%d" % number)

            self.crossing(
                seed,
                *map(say, range(4)),
                lambda bob=bob: bob.send(Command.EXIT_CHAT),
            )
            heard = [each.body for each in bob.take() if each.command == Command.MESSAGE]
            answers = [each for each in alice.take() if each != EXIT]
            self.assertEqual(len(answers), 4)
            self.assertEqual(answers.count(OK), len(heard), seed)
            states = [OK, LOST, error("NOCHAT")]
            self.assertEqual(answers, sorted(answers, key=states.index))

    def test_late_answer(self) -> None:
        """An accept whose answer comes after 2 s: FAILED, and the inviter hears EXIT."""
        self.start()
        (alice,), (bob,) = self.log_in(0, "alice"), self.log_in(1, "bob")
        self.invite(alice, bob)
        self.cluster.advance(1)
        self.cluster.nats.room = 0
        bob.send(Command.CHAT_ACCEPT)
        self.cluster.advance(2)
        self.assertEqual(bob.take(), [FAILED])
        self.cluster.nats.room = None
        self.cluster.run()
        self.assertEqual((alice.take(), bob.take()), ([accepted("bob"), EXIT], []))
        self.end()


class CreditTests(ClusterCase):
    """Back-pressure across machines."""

    def test_credit(self) -> None:
        """A sender is held while the other machine does not answer, and then goes on; what waits
        between the machines stays bounded.
        """
        self.start()
        (alice,), (bob,) = self.log_in(0, "alice"), self.log_in(1, "bob")
        self.chat(alice, bob)
        here, there = (machine.bus for machine in self.cluster.machines)
        self.cluster.nats.room = 0
        for number in range(40):
            alice.send(Command.MESSAGE, b"%d:" % number + bytes(20_000))
        waiting = sum(len(heard.data) for _, heard in self.cluster.nats.ways[here, there])
        self.assertGreater(waiting, CLUSTER_CREDIT)
        self.assertLess(waiting, CLUSTER_CREDIT + 3 * 32_768)
        self.assertFalse(alice.client.transport.is_reading)
        self.assertEqual(alice.take(), [])
        self.cluster.nats.room = None
        self.cluster.run()
        self.assertEqual(alice.take(), [OK] * 40)
        said = [int(each.body.split(b":")[1]) for each in bob.take()]
        self.assertEqual(said, list(range(40)))
        self.assertTrue(alice.client.transport.is_reading)
        self.end()

    def test_stalled(self) -> None:
        """Who does not read stops their partner's reading on the other machine, and goes on."""
        self.start()
        (alice,), (bob,) = self.log_in(0, "alice"), self.log_in(1, "bob")
        self.chat(alice, bob)
        bob.client.stop_reading()
        for number in range(60):
            alice.send(Command.MESSAGE, b"%d:" % number + bytes(20_000))
        self.assertFalse(alice.client.transport.is_reading)
        before = self.cluster.nats.count
        self.cluster.advance(10)
        self.assertLess(self.cluster.nats.count - before, 30)  # signs of life
        bob.client.start_reading()
        self.cluster.run()
        self.assertEqual(alice.take(), [OK] * 60)
        said = [int(each.body.split(b":")[1]) for each in bob.take()]
        self.assertEqual(said, list(range(60)))
        self.end()

    def test_left_while_held(self) -> None:
        """Who was held by one chat is not held by the next."""
        self.start()
        (alice, carol), (bob,) = self.log_in(0, "alice", "carol"), self.log_in(1, "bob")
        self.chat(alice, bob)
        self.cluster.nats.room = 0
        for number in range(20):
            alice.send(Command.MESSAGE, b"%d:" % number + bytes(20_000))
        bob.leave()
        self.cluster.nats.room = None
        self.cluster.run()
        answers = alice.take()
        self.assertIn(EXIT, answers)
        self.assertEqual(len(answers), 21)
        self.chat(carol, alice)
        self.assertTalk(alice, carol)
        self.end()


class DrainTests(ClusterCase):
    """A machine goes down."""

    def test_drain(self) -> None:
        """Its users hear SHUTDOWN, their partners elsewhere EXIT; others notice nothing."""
        self.start()
        (alice, carol), (bob, dave, erin, frank) = (
            self.log_in(0, "alice", "carol"),
            self.log_in(1, "bob", "dave", "erin", "frank"),
        )
        self.chat(alice, bob)
        self.chat(erin, frank)
        self.invite(dave, carol)
        down = self.cluster.machines[0].factory.shut_down()
        self.cluster.run()
        self.assertEqual((alice.take(), carol.take()), ([SHUTDOWN], [SHUTDOWN]))
        self.assertEqual((bob.take(), dave.take()), ([EXIT], [GONE]))
        self.assertTalk(erin, frank)
        for person in (alice, carol):
            person.leave()
        self.cluster.run()
        self.assertTrue(down.called)
        bob.send(Command.CHAT_REQUEST, b"alice")
        self.assertEqual(bob.take(), [NOPE])
        self.end()

    def test_messages(self) -> None:
        """What is under way when a machine goes down is heard if it was answered OK, and is LOST
        if not, in both directions.
        """
        for seed in SEEDS:
            self.start(seed=seed)
            (alice,), (bob,) = self.log_in(0, "alice"), self.log_in(1, "bob")
            self.chat(alice, bob)

            def say(person: Person, number: int) -> Callable[[], None]:
                return lambda: person.send(Command.MESSAGE, person.name.encode() + b"%d" % number)

            def shut_down() -> None:
                self.cluster.machines[0].factory.shut_down()

            sayings = [say(person, number) for person in (alice, bob) for number in range(3)]
            self.crossing(seed, *sayings, shut_down)
            self.assertEqual(find_faults(self.people), [], seed)
            heard = alice.take()
            self.assertEqual(heard[-1], SHUTDOWN)
            self.assertIn(EXIT, bob.take())
            self.assertEqual(heard.count(EXIT), 0)
            self.end()

    def test_moving(self) -> None:
        """Users log in elsewhere at once, and are not in their own way."""
        self.start()
        (alice,), (bob,) = self.log_in(0, "alice"), self.log_in(1, "bob")
        self.chat(alice, bob)
        self.cluster.machines[0].factory.shut_down()
        self.cluster.run()
        self.assertEqual((alice.take(), bob.take()), ([SHUTDOWN], [EXIT]))
        (elsewhere,) = self.log_in(1, "alice")
        self.chat(elsewhere, bob)
        self.end()


class HostileTests(ClusterCase):
    """What comes from the bus is not believed."""

    def setUp(self) -> None:
        self.start()
        (self.alice, self.carol), (self.bob, self.dave) = (
            self.log_in(0, "alice", "carol"),
            self.log_in(1, "bob", "dave"),
        )
        self.chat(self.alice, self.bob)
        self.stranger = self.cluster.machines[0].bus.__class__(self.cluster.nats)
        self.directory = self.cluster.machines[1].online
        self.lines = keep_texts(self)

    def say(self, subject: str, data: bytes) -> None:
        """Say something on the bus."""
        self.stranger.publish(subject, data)
        self.cluster.run()

    def say_body(self, *bodies: Any, sender: str = "0123456789ab") -> None:
        """Say something to a machine, as another one would."""
        for number, body in enumerate(bodies, 1):
            frame = encode_frame(sender, 7, number, body)
            self.say(f"machine.{self.directory.machine}", frame)

    def subjects(self) -> list[str]:
        return [
            f"machine.{self.directory.machine}",
            f"lookup.{self.directory.machine}.1",
            f"lookup.{self.directory.machine}.x",
            "user.Ym9i",
        ]

    def assertUnharmed(self) -> None:
        """Assert that the chat goes on and that others can be begun."""
        self.assertTalk(self.alice, self.bob)
        self.chat(self.carol, self.dave)
        self.end()

    def test_garbage(self) -> None:
        """What is no message is logged, and harms nothing."""
        chance = Random(1)
        for subject in self.subjects():
            for data in (b"", b"\xc1", b"hello", *(chance.randbytes(n) for n in range(40))):
                self.say(subject, data)
        self.assertTrue(any(line.startswith("Unreadable: ") for line in self.lines))
        self.assertUnharmed()

    def test_other_version(self) -> None:
        """What is of another version is logged, and not taken."""
        frame = encode_frame("0123456789ab", 7, 0, None)
        assert frame[1] == VERSION
        for subject in self.subjects():
            self.say(subject, frame[:1] + bytes([VERSION + 1]) + frame[2:])
        self.assertTrue(any(line.startswith("Unreadable: ") for line in self.lines))
        self.assertUnharmed()

    def test_unknown_kind(self) -> None:
        """A kind that this version does not know is logged and left out, and the next is taken."""
        frame = encode_frame("0123456789ab", 7, 1, None)
        self.say(f"machine.{self.directory.machine}", frame[:-1] + b"\x91\x7f")
        offer = Offer(self.directory._users[b"dave"].login, 99, b"mallory", 1, 2)
        data = encode_frame("0123456789ab", 7, 2, offer)
        self.say(f"machine.{self.directory.machine}", data)
        self.assertEqual(self.dave.take(), [invited("mallory")])
        self.cluster.advance(5)
        self.assertTalk(self.alice, self.bob)
        self.assertUnharmed()

    def test_misshapen(self) -> None:
        """What is of a known kind and does not fit ends all: it may be what somebody waits for."""
        for body in (b"\x91\x06", b"\x90", b"\xc3", b"\x91\xc0", b"\x91\xa1x"):
            frame = encode_frame("0123456789ab", 7, 1, None)
            self.say(f"machine.{self.directory.machine}", frame[:-1] + body)
            offer = Offer(self.directory._users[b"dave"].login, 99, b"mallory", 1, 2)
            data = encode_frame("0123456789ab", 7, 2, offer)
            self.say(f"machine.{self.directory.machine}", data)
            self.assertEqual(self.dave.take(), [])
        self.assertUnharmed()

    def test_lies(self) -> None:
        """What can't be true ends what the liar had, and nothing of others."""
        bob, alice = self.directory._users[b"bob"].login, 1
        lies = (
            Say(bob, alice, 1, [b"I am alice"]),
            Accept(1, 1),
            Answer(1, None),
            Answer(1, b"NOPE"),
            Offer(bob, 1, b"x" * 255, 1, 1),
            Offer(12345, 1, b"mallory", 1, 1),
        )
        for number, lie in enumerate(lies):
            # Another liar each time: after a gap nothing more is heard of that generation.
            self.say_body(lie, sender=f"{number:012x}")
            self.say_body(lie, lie, sender=f"{number:012x}")
            self.assertEqual((self.alice.take(), self.bob.take()), ([], []), lie)
        self.assertUnharmed()

    def test_names(self) -> None:
        """A name that no account can have invites nobody: it would forge who has said what."""
        dave = self.directory._users[b"dave"].login
        for number, name in enumerate((b"alice: hi", b":", b"\xff\xfe")):
            self.say_body(Offer(dave, 90 + number, name, 1, 1), sender=f"0123456789a{number}")
            self.assertEqual(self.dave.take(), [], name)
        self.cluster.advance(5)
        self.assertUnharmed()

    def test_many_machines(self) -> None:
        """Who claims to be machines without end takes no memory without end."""
        self.patch(cluster_directory, "CLUSTER_MACHINES", 3)
        for number in range(20):
            sender = f"{number:012x}"
            beat = encode_frame(sender, 0, 0, None)
            self.say(f"machine.{self.directory.machine}", beat)
            self.say_body(Withdraw(1), sender=sender)
        self.assertLessEqual(len(self.directory._links), 3)
        self.assertUnharmed()

    def test_too_long(self) -> None:
        """A message that would not fit into a packet is refused, and ends the liar's chat."""
        dave = self.directory._users[b"dave"].login
        self.say_body(Offer(dave, 99, b"mallory", 1, 1))
        self.assertEqual(self.dave.take(), [invited("mallory")])
        self.dave.send(Command.CHAT_ACCEPT)
        for number, body in enumerate((Answer(1, None), Say(dave, 99, 2, [bytes(65_535)])), 2):
            data = encode_frame("0123456789ab", 7, number, body)
            self.say(f"machine.{self.directory.machine}", data)
        self.assertEqual(self.dave.take(), [accepted("mallory"), EXIT])
        self.cluster.advance(5)
        self.assertUnharmed()

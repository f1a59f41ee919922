"""Random conversations on several machines, with packets that cross, and with faults.

A long run: ``python -m tests.test_cluster_random 2000``.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable
from random import Random

from twisted.trial.unittest import TestCase

from chatserver.packets import Command
from tests.cluster_checks import (
    Person,
    find_faults,
    find_half_chats,
    find_overdrawn,
    find_rest,
    find_timers,
)
from tests.memory_cluster import MemoryBus, MemoryCluster

NAMES = ("alice", "bob", "carol", "dave")
SEEDS = 25
STEPS = 40


class Chaos:
    """Some people on some machines, who do not wait for each other.

    :param source: what all that is random follows from
    :param has_faults: whether messages get lost, machines stop and buses go away
    """

    def __init__(self, source: Random, has_faults: bool) -> None:
        self._random = source
        self._has_faults = has_faults
        self._count = source.choice([2, 3])
        self.cluster = MemoryCluster(machines=self._count, chance=source)
        self.people: list[Person] = []
        self.steps: list[str] = []
        self._texts = 0
        self._stopped: set[int] = set()
        for name in NAMES:
            self.people.append(Person(self.cluster, source.randrange(self._count), name))
            self._note(f"{self.people[-1]} logs in")

    def step(self) -> None:
        """Do something, while only some of the messages between the machines are carried."""
        self.cluster.nats.room = self._random.choice([0, 0, 0, 1, 2, 5, None])
        actions: dict[Callable[[], None], float] = {
            self._log_in: 3,
            self._leave: 2,
            self._pass_time: 3,
            self._read: 4,
            self._talk: 60,
        }
        if self._has_faults:
            actions |= {self._lose: 4, self._bus: 3, self._stop: 2}
        (action,) = self._random.choices(list(actions), list(actions.values()))
        action()

    def settle(self, seconds: float) -> None:
        """Mend what is broken, and let time pass."""
        self.cluster.nats.room = None
        for number in list(self._stopped):
            self._go_on(number)
        for machine in self.cluster.machines:
            if not machine.bus.is_up:
                machine.bus.come_back()
        self.cluster.run()
        for person in self.people:
            if not person.is_gone:
                person.client.start_reading()
        for _ in range(round(2 * seconds)):
            self.cluster.clock.advance(0.5)
            self.cluster.run()

    def _note(self, text: str) -> None:
        self.steps.append(f"{text} (room {self.cluster.nats.room})")

    def _there(self) -> list[Person]:
        return [
            each
            for each in self.people
            if not each.is_gone and not each.has_ended and each.machine not in self._stopped
        ]

    def _log_in(self) -> None:
        machines = [number for number in range(self._count) if number not in self._stopped]
        if machines and len(self._there()) < len(NAMES) + 2:
            name, machine = self._random.choice(NAMES), self._random.choice(machines)
            self._note(f"{name} logs in to machine {machine}")
            self.people.append(Person(self.cluster, machine, name))

    def _leave(self) -> None:
        if there := self._there():
            person = self._random.choice(there)
            self._note(f"{person} leaves")
            person.leave()

    def _talk(self) -> None:
        if not (there := self._there()):
            self._log_in()
            return
        person = self._random.choice(there)
        command = self._random.choices(
            [
                Command.CHAT_REQUEST,
                Command.CHAT_ACCEPT,
                Command.CHAT_DECLINE,
                Command.MESSAGE,
                Command.EXIT_CHAT,
            ],
            [8, 10, 2, 8, 2],
        )[0]
        body = b""
        if command == Command.MESSAGE:
            self._texts += 1
            body = b"%d" % self._texts + bytes(self._random.choice([0, 0, 100, 20_000, 60_000]))
        elif command != Command.EXIT_CHAT:
            body = self._random.choice([name for name in NAMES if name != person.name]).encode()
            if command != Command.CHAT_REQUEST and self._random.random() < 0.7:
                body = b""
        self._note(f"{person}: {command.name} {body[:10].decode()} ({len(body)} bytes)")
        person.send(command, body)

    def _read(self) -> None:
        if there := self._there():
            person = self._random.choice(there)
            if person.client.transport.room:
                self._note(f"{person} reads no more")
                person.client.stop_reading()
            else:
                self._note(f"{person} reads on")
                person.client.start_reading()

    def _pass_time(self) -> None:
        # Without faults nothing takes so long that anybody gives up.
        if self._has_faults:
            seconds = self._random.choice([0.25, 1, 2, 3])
            self._note(f"{seconds} s pass")
            for _ in range(round(seconds * 4)):
                self.cluster.clock.advance(0.25)
                self.cluster.run()

    def _lose(self) -> None:
        # Announcements are said to everybody, and again whenever NATS was away: not those.
        found = [
            (way, position)
            for way, queue in self.cluster.nats.ways.items()
            for position, (_, heard) in enumerate(queue)
            if not heard.subject.startswith("user.")
        ]
        if found:
            (sender, receiver), position = self._random.choice(found)
            self._note(f"a message of {self._number(sender)} to {self._number(receiver)} is lost")
            self.cluster.nats.lose(sender, receiver, position)

    def _number(self, bus: MemoryBus) -> int:
        return [machine.bus for machine in self.cluster.machines].index(bus)

    def _bus(self) -> None:
        number = self._random.randrange(self._count)
        if number in self._stopped:
            return
        bus = self.cluster.machines[number].bus
        if bus.is_up:
            self._note(f"machine {number} loses its bus")
            bus.go()
        else:
            self._note(f"machine {number} has its bus again")
            bus.come_back()
            self.cluster.run()

    def _stop(self) -> None:
        number = self._random.randrange(self._count)
        if number in self._stopped:
            self._go_on(number)
        else:
            self._note(f"machine {number} is stopped")
            self.cluster.stop(number)
            self._stopped.add(number)

    def _go_on(self, number: int) -> None:
        self._note(f"machine {number} goes on")
        self._stopped.remove(number)
        self.cluster.go_on(number)


class ChaosTests(TestCase):
    """People who do not wait for each other."""

    seeds = SEEDS

    def play(self, seed: int, has_faults: bool) -> None:
        """Play one story, and look whether all is as it must be."""
        chaos = Chaos(Random(seed), has_faults)
        try:
            faults = []
            for _ in range(STEPS):
                chaos.step()
                faults += find_overdrawn(chaos.cluster)
            faults += self.look(chaos, has_faults)
        except Exception:
            faults = [traceback.format_exc()]
        faults += [each.getTraceback() for each in self.flushLoggedErrors()]
        if faults:
            self.fail(self.told(seed, chaos, *faults))

    def told(self, seed: int, chaos: Chaos, *faults: str) -> str:
        return "\n".join([f"seed {seed}", *chaos.steps, "", *faults])

    def look(self, chaos: Chaos, has_faults: bool) -> list[str]:
        cluster = chaos.cluster
        chaos.settle(6)
        faults = find_half_chats(cluster) + find_faults(chaos.people, has_faults)
        chaos.settle(64)
        faults += find_half_chats(cluster)
        for person in chaos.people:
            if not person.is_gone:
                person.leave()
        chaos.settle(6)
        return faults + find_rest(cluster) + find_timers(cluster)

    def test_crossing(self) -> None:
        """Whatever crosses between the machines, each command has one answer, a message is heard
        if it is answered OK and not if LOST, each account has one connection, nobody is in a chat
        alone, and in the end nothing is left.
        """
        for seed in range(self.seeds):
            self.play(seed, has_faults=False)

    def test_faults(self) -> None:
        """The same when messages get lost, buses go away and machines stop; but what is answered
        LOST may have been heard.
        """
        for seed in range(self.seeds):
            self.play(seed, has_faults=True)


if __name__ == "__main__":
    from twisted.trial import reporter, runner

    ChaosTests.seeds = int(sys.argv[1]) if len(sys.argv) > 1 else 2000
    ChaosTests.timeout = 86400
    tests = runner.TestLoader().loadClass(ChaosTests)
    result = runner.TrialRunner(reporter.TreeReporter).run(tests)
    sys.exit(not result.wasSuccessful())

"""A whole cluster in memory: some machines, and a bus whose every message is the test's."""

from __future__ import annotations

import random
from collections import defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import AlreadyCalled
from twisted.internet.task import Clock

from chatserver.cluster.bus import Heard
from chatserver.cluster.directory import ClusterDirectory
from chatserver.factory import ChatFactory
from chatserver.limits import INVITATION_TIMEOUT, ConnectionLimits
from chatserver.rates import Rate
from chatserver.testing import MemoryTransport, server_certificate
from chatserver.tls import TLSFactory
from tests.memory import MemoryClient, MemoryServer


@dataclass(eq=False)
class MemorySubscription:
    """Somebody listens to `pattern`."""

    bus: MemoryBus
    pattern: str
    hear: Callable[[Heard], None]
    is_active: bool = True

    def cancel(self) -> None:
        """See `Subscription`."""
        self.is_active = False
        self.bus.nats.subscriptions.remove(self)


@dataclass(eq=False)
class MemoryBus:
    """One machine's connection to `MemoryNats`.

    While it `is_up` is false nothing comes and nothing goes. While it `is_hung` what comes waits,
    and the machine does not know. While it `is_slow` it knows of nothing until the test says so.
    """

    nats: MemoryNats
    is_up: bool = True
    is_hung: bool = False
    is_slow: bool = False
    returned: list[Callable[[], None]] = field(default_factory=list)
    unsettled: list[Callable[[], None]] = field(default_factory=list)

    def publish(self, subject: str, data: bytes, answer_to: str = "") -> None:
        """See `Bus`."""
        if self.is_up:
            self.nats.publish(self, subject, data, answer_to)

    def subscribe(self, subject: str, hear: Callable[[Heard], None]) -> MemorySubscription:
        """See `Bus`."""
        subscription = MemorySubscription(self, subject, hear)
        self.nats.subscriptions.append(subscription)
        return subscription

    def settle(self, settled: Callable[[], None]) -> None:
        """See `Bus`. It is at once, or when the test says so."""
        self.unsettled.append(settled)
        if not self.is_slow:
            self.settle_all()

    def settle_all(self) -> None:
        """All is known that was said so far."""
        unsettled, self.unsettled = self.unsettled, []
        for each in unsettled:
            each()

    def on_return(self, returned: Callable[[], None]) -> None:
        """See `Bus`."""
        self.returned.append(returned)

    def go(self) -> None:
        """Lose the connection, and what is under way to this machine."""
        self.is_up = False
        for way, queue in self.nats.ways.items():
            if way[1] is self:
                queue.clear()

    def come_back(self) -> None:
        """Be connected again."""
        self.is_up = True
        for each in self.returned:
            each()


MOST_AT_REST = 20_000
"""Messages after which machines that nobody asks for anything must have come to rest."""


class MemoryNats:
    """Carries messages from each machine to each other in their order.

    `room` is how many it still carries; None is any number.

    :param chance: which way is carried on next; None is in turn
    """

    def __init__(self, chance: random.Random | None = None) -> None:
        self._chance = chance
        self.subscriptions: list[MemorySubscription] = []
        self.ways: dict[tuple[MemoryBus, MemoryBus], deque[tuple[MemorySubscription, Heard]]] = (
            defaultdict(deque)
        )
        self.count = 0
        self.room: int | None = None

    def publish(self, sender: MemoryBus, subject: str, data: bytes, answer_to: str) -> None:
        """Put `data` on its way to all who listen to `subject`."""
        self.count += 1
        is_heard = False
        for each in self.subscriptions:
            if fnmatchcase(subject, each.pattern) and each.bus is not sender:
                is_heard = True
                if each.bus.is_up:
                    self.ways[sender, each.bus].append((each, Heard(subject, data)))
        if answer_to and not is_heard:
            for each in self.subscriptions:
                if fnmatchcase(answer_to, each.pattern):
                    self.ways[each.bus, each.bus].append((each, Heard(answer_to, b"", True)))

    def carry(self) -> bool:
        """Carry one message. Return whether there was any."""
        ways = [
            way for way, queue in self.ways.items() if queue and way[1].is_up and not way[1].is_hung
        ]
        if not ways or self.room == 0:
            return False
        if self.room is not None:
            self.room -= 1
        way = ways[0] if self._chance is None else self._chance.choice(ways)
        subscription, heard = self.ways[way].popleft()
        if subscription.is_active:
            subscription.hear(heard)
        return True

    def lose(self, sender: MemoryBus, receiver: MemoryBus, position: int = 0) -> None:
        """Lose one of the messages that are under way between two machines."""
        del self.ways[sender, receiver][position]


class _Call:
    """A call that a `MachineClock` will do."""

    def __init__(self, machine: MachineClock, work: Callable[[], object]) -> None:
        self._machine = machine
        self._work = work
        self._is_active = True

    def due(self) -> None:
        """Do it, unless the machine is stopped."""
        if not self._is_active:
            return
        if self._machine.stopped_at is None:
            self._is_active = False
            self._work()
        else:
            self._machine.late.append(self)

    def active(self) -> bool:
        """See `IDelayedCall`."""
        return self._is_active

    def cancel(self) -> None:
        """See `IDelayedCall`."""
        if not self._is_active:
            raise AlreadyCalled
        self._is_active = False
        self._machine.forget(self)


class MachineClock:
    """The clock of one machine: while that is stopped, time stands still there."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._calls: dict[_Call, Any] = {}
        self.stopped_at: float | None = None
        self.late: list[_Call] = []

    def seconds(self) -> float:
        """See `IReactorTime`."""
        return self._clock.seconds() if self.stopped_at is None else self.stopped_at

    def callLater(self, delay: float, work: Callable[..., object], *arguments: object) -> _Call:
        """See `IReactorTime`."""
        call = _Call(self, lambda: work(*arguments))
        self._calls[call] = self._clock.callLater(delay, call.due)
        return call

    def forget(self, call: _Call) -> None:
        """Let `call` be due no more."""
        due = self._calls.pop(call, None)
        if due is not None and due.active():
            due.cancel()

    def stop(self) -> None:
        """Stand still."""
        self.stopped_at = self._clock.seconds()

    def go_on(self) -> None:
        """Be late: all happens at once that was to happen meanwhile."""
        self.stopped_at = None
        late, self.late = self.late, []
        for each in late:
            each.due()


class MemoryMachine:
    """One machine of a `MemoryCluster`."""

    def __init__(
        self,
        cluster: MemoryCluster,
        limits: ConnectionLimits | None,
        invitation_timeout: float,
        invitations: Rate | None,
    ) -> None:
        self.bus = MemoryBus(cluster.nats)
        self.clock = MachineClock(cluster.clock)
        self.clients: list[MemoryClient] = []
        self.online = ClusterDirectory(
            self.clock, self.bus, cluster.take_logins, invitation_timeout, invitations
        )
        self.online.start()
        self.factory = ChatFactory(cluster.authenticator, self.online, cluster.clock, limits)
        self.tls_factory = TLSFactory(self.factory, server_certificate().tls_options, cluster.clock)


class MemoryCluster(MemoryServer):
    """Some machines that are one server: its clients are on one after the other.

    :param chance: in which order messages between the machines arrive; None is as they were sent
    """

    def __init__(
        self,
        limits: ConnectionLimits | None = None,
        invitation_timeout: float = INVITATION_TIMEOUT,
        invitations: Rate | None = None,
        machines: int = 2,
        chance: random.Random | None = None,
    ) -> None:
        super().__init__(limits, invitation_timeout, invitations)
        self.nats = MemoryNats(chance)
        self.logins = 0
        self.machines = [
            MemoryMachine(self, limits, invitation_timeout, invitations) for _ in range(machines)
        ]
        self.next_machine = 0

    def take_logins(self, count: int, greatest: int) -> Deferred[list[int]]:
        """Number logins, as the database does."""
        assert greatest <= self.logins
        first, self.logins = self.logins + 1, self.logins + count
        return succeed(list(range(first, self.logins + 1)))

    def accept(self, port: int) -> MemoryTransport:
        """Let the next client come to the next machine."""
        machine = self.machines[self.next_machine]
        self.next_machine = (self.next_machine + 1) % len(self.machines)
        self.factory, self.tls_factory = machine.factory, machine.tls_factory
        return super().accept(port)

    def connect_to(self, machine: int) -> MemoryClient:
        """Return a new client, connected to one of the machines."""
        self.next_machine = machine
        client = self.connect()
        self.machines[machine].clients.append(client)
        return client

    def stop(self, machine: int) -> None:
        """Stop one of the machines, as SIGSTOP does: it does nothing, and what comes waits."""
        stopped = self.machines[machine]
        stopped.bus.is_hung = True
        stopped.clock.stop()
        self.connections = [each for each in self.connections if each not in stopped.clients]

    def go_on(self, machine: int) -> None:
        """Let a machine that was stopped go on."""
        stopped = self.machines[machine]
        stopped.bus.is_hung = False
        stopped.clock.go_on()
        self.connections += stopped.clients
        self.run()

    def run(self) -> None:
        """Carry bytes and messages until nothing happens any more."""
        super().run()
        before = self.nats.count
        while self.nats.carry():
            super().run()
            assert self.nats.count - before < MOST_AT_REST, "the machines do not come to rest"

    def shut_down(self) -> bool:
        """Let all machines go down. Return whether all connections have ended."""
        down = [machine.factory.shut_down() for machine in self.machines]
        self.run()
        for machine in self.machines:
            machine.online.stop()
        return all(each.called for each in down)

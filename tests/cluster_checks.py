"""What must be true of a cluster in memory, whatever has happened in it."""

from __future__ import annotations

from collections import Counter

from chatserver.cluster.directory import ClusterDirectory
from chatserver.cluster.links import RemoteUser
from chatserver.limits import CLUSTER_CREDIT, READ_AHEAD
from chatserver.packets import MAX_BODY, Command, Packet
from tests.memory_cluster import MemoryCluster, MemoryNats

OK = Packet(Command.ACK, b"OK")
BYE = Packet(Command.ACK, b"BYE")
SENT = Packet(Command.ACK, b"SENT")


def error(code: str) -> Packet:
    """Return an Error packet."""
    return Packet(Command.ERROR, code.encode())


UNASKED = {b"DENY", b"EXIT", b"GONE", b"TIMEOUT", b"REPLACED", b"SHUTDOWN"}
LAST = {b"REPLACED", b"SHUTDOWN"}
"""After these nothing is answered any more."""

ANSWERS = {
    Command.CHAT_REQUEST: {SENT, *map(error, ("NOPE", "BUSY", "FAILED"))},
    Command.CHAT_ACCEPT: set(map(error, ("NOINVITE", "LOST", "BUSY", "FAILED"))),
    Command.CHAT_DECLINE: {OK, *map(error, ("NOINVITE", "BUSY"))},
    Command.MESSAGE: {OK, *map(error, ("NOCHAT", "LOST"))},
    Command.EXIT_CHAT: {BYE, error("NOCHAT")},
}
"""What may answer each command. An accept is also answered by ChatAccept."""


class Person:
    """Somebody who uses a cluster, and what they said and heard on one connection.

    :param machine: where they log in, by its number
    """

    def __init__(self, cluster: MemoryCluster, machine: int, name: str) -> None:
        self.cluster = cluster
        self.machine = machine
        self.name = name
        self.client = cluster.connect_to(machine)
        self.client.send(Packet(Command.LOGIN, name.encode() + b":password"))
        answer, *others = self.client.take()
        assert answer == OK
        self.is_gone = False
        self.sent: list[Packet] = []
        self.heard = others
        self._taken = 0

    def __repr__(self) -> str:
        return f"{self.name} (machine {self.machine})"

    def send(self, command: Command, body: bytes = b"") -> None:
        """Send one packet."""
        self.sent.append(Packet(command, body))
        self.client.send(self.sent[-1])

    def listen(self) -> list[Packet]:
        """Return all that was heard so far."""
        self.heard += self.client.take()
        return self.heard

    def take(self) -> list[Packet]:
        """Return what was heard since the last time."""
        before, self._taken = self._taken, len(self.listen())
        return self.heard[before:]

    def leave(self) -> None:
        """Disconnect."""
        self.listen()
        self.is_gone = True
        self.client.close()
        if self.client in self.cluster.connections:
            self.cluster.connections.remove(self.client)

    @property
    def is_cut_off(self) -> bool:
        """Whether the connection has ended without a word."""
        return self.is_gone or not self.client.transport.connected

    @property
    def has_ended(self) -> bool:
        """Whether the server has ended the connection."""
        return self.is_cut_off or any(
            each.body in LAST for each in self.listen() if each.command == Command.ERROR
        )

    def answers(self) -> tuple[list[tuple[Packet, Packet]], list[str]]:
        """Return what was sent with what answered it, and what is wrong about that.

        A ChatAccept that comes while an accept is not answered may be the answer to that, or tell
        that somebody else has accepted: both are tried.
        """
        readings: list[list[tuple[Packet, Packet]]] = [[]]
        has_ended = False
        for packet in self.listen():
            if packet.command in (Command.FIND_PEER, Command.MESSAGE):
                continue
            if packet.command == Command.ERROR and packet.body in UNASKED:
                has_ended = has_ended or packet.body in LAST
                continue
            longer = []
            for answered in readings:
                asked = self.sent[len(answered)] if len(answered) < len(self.sent) else None
                is_accept = asked is not None and asked.command == Command.CHAT_ACCEPT
                is_chat = packet.command == Command.CHAT_ACCEPT
                if is_chat:
                    longer.append(answered)
                if asked is not None and (
                    is_accept if is_chat else packet in ANSWERS[Command(asked.command)]
                ):
                    longer.append([*answered, (asked, packet)])
            if not longer:
                return readings[0], [f"{self}: {packet} is no answer: {readings[0][-3:]}"]
            readings = longer
        answered = max(readings, key=len)
        unanswered = self.sent[len(answered) :]
        if unanswered and not (self.is_cut_off or has_ended):
            return answered, [f"{self} heard no answer to {unanswered}"]
        return answered, []


def find_faults(people: list[Person], were_faults: bool = False) -> list[str]:
    """Return what is wrong about what `people` have heard, each message of theirs a new one.

    :param were_faults: whether messages got lost: what was delivered may be answered LOST then
    """
    faults = []
    heard: dict[bytes, list[Person]] = {}
    for person in people:
        for packet in person.listen():
            if packet.command == Command.MESSAGE:
                heard.setdefault(packet.body.partition(b": ")[2], []).append(person)
    for person in people:
        answered, wrong = person.answers()
        faults += wrong
        for asked, answer in answered:
            if asked.command != Command.MESSAGE:
                continue
            listeners = heard.get(asked.body, [])
            if len(listeners) > 1:
                faults.append(f"{asked} was heard {len(listeners)} times")
            if answer == OK and not listeners and not any(each.is_cut_off for each in people):
                faults.append(f"{asked} of {person} was answered OK, and nobody heard it")
            if answer != OK and listeners and not were_faults:
                faults.append(f"{asked} of {person} was answered {answer}, and was heard")
        said = [packet.body for packet in person.sent if packet.command == Command.MESSAGE]
        for listener in people:
            theirs = [
                body
                for packet in listener.listen()
                if packet.command == Command.MESSAGE
                for name, _, body in [packet.body.partition(b": ")]
                if name == person.name.encode() and body in said
            ]
            if theirs != sorted(theirs, key=said.index):
                faults.append(f"{listener} heard {theirs} of {person}")
    return faults


def find_half_chats(cluster: MemoryCluster) -> list[str]:
    """Return who is in a chat with somebody who is not in one with them, and who is there twice."""
    faults = []
    machines = {each.online.machine: each.online for each in cluster.machines}
    names: Counter[bytes] = Counter()
    for directory in machines.values():
        names.update(list(directory._users))
        chats = {}
        for link in directory._links.values():
            chats.update(link._chats)
        for user in directory._users.values():
            partner = user.partner
            if isinstance(partner, RemoteUser):
                theirs = machines[partner.link.machine]._logins.get(partner.login)
                back = None if theirs is None else theirs.partner
                if not isinstance(back, RemoteUser) or back.login != user.login:
                    faults.append(f"{user} is in a chat with {partner}, who is in one with {back}")
                if chats.pop(user, None) is not partner:
                    faults.append(f"the chat of {user} is not the link's")
            elif partner is not None and getattr(partner, "partner", None) is not user:
                faults.append(f"{user} is in a chat with {partner} alone")
        faults += [f"a link has a chat of {user}, who is in none" for user in chats]
    faults += [f"{name!r} is online {times} times" for name, times in names.items() if times > 1]
    return faults


def find_overdrawn(cluster: MemoryCluster) -> list[str]:
    """Return to whom more is on its way than credit allows, and what one read and packet add."""
    most = CLUSTER_CREDIT + READ_AHEAD + 2 * MAX_BODY
    return [
        f"{partner._unanswered} bytes of {user} are on their way to {partner}"
        for machine in cluster.machines
        for link in machine.online._links.values()
        for user, partner in link._chats.items()
        if partner._unanswered > most
    ]


def find_rest(cluster: MemoryCluster) -> list[str]:
    """Return what is still under way between machines."""
    return (
        [
            f"{kind[1:]} at {machine.online.machine}: {getattr(link, kind)}"
            for machine in cluster.machines
            for link in machine.online._links.values()
            for kind in ("_requests", "_sent", "_received", "_chats", "_invitation_numbers")
            if getattr(link, kind)
        ]
        + [
            f"lookups at {machine.online.machine}"
            for machine in cluster.machines
            if machine.online._lookups
        ]
        + [
            f"logins at {machine.online.machine}"
            for machine in cluster.machines
            if not _is_tidy(machine.online, cluster.nats)
        ]
    )


def _is_tidy(online: ClusterDirectory, nats: MemoryNats) -> bool:
    """Tell whether `online` knows of those who are online, and of nobody else."""
    users = set(online._users.values())
    listened = [each for each in nats.subscriptions if each.pattern.startswith("user.")]
    return (
        users == set(online._logins.values()) == set(online._presences)
        and not (online._coming or online._arriving or online._unnumbered)
        and len([each for each in listened if each.bus is online._bus]) == len(users)
    )


def find_timers(cluster: MemoryCluster) -> list[str]:
    """Let all machines go down, and return what they have left on the clock."""
    faults = [] if cluster.shut_down() else ["connections are left"]
    return faults + [f"on the clock: {call}" for call in cluster.clock.getDelayedCalls()]

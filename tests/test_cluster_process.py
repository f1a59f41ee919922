"""A cluster of real servers: what people hear, and when, while its parts fail."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import time
import uuid
from pathlib import Path
from typing import ClassVar

from chatserver.packets import Command, Packet
from tests.blocking import Client
from tests.clusters import (
    EXIT,
    OK,
    SENT,
    WITHIN,
    Cluster,
    Machine,
    NatsServer,
    Talk,
    begin_chat,
    check_parts,
    enter,
)
from tests.databases import POSTGRESQL
from tests.processes import CHEAP, TIMEOUT, ProcessTestCase, script, until
from tests.test_outage import Relay


def error(code: str) -> Packet:
    """Return an Error packet."""
    return Packet(Command.ERROR, code.encode())


class ClusterProcessCase(ProcessTestCase):
    """A test of a cluster that others use too: each leaves it as it was."""

    _cluster: ClassVar[Cluster | None] = None

    def setUp(self) -> None:
        if ClusterProcessCase._cluster is None:
            ClusterProcessCase._cluster = Cluster(self, 2, is_shared=True)
        self.cluster = ClusterProcessCase._cluster
        self.word = uuid.uuid4().hex[:8]

    def name(self, who: str) -> str:
        """Return the name that somebody has in this test."""
        return f"{who}-{self.word}"

    def join(self, machine: Machine, who: str, is_new: bool = True) -> Client:
        """Return a new connection to `machine`, logged in."""
        client = self.connect(machine.port)
        enter(client, self.name(who), is_new)
        return client

    def credentials(self, who: str) -> bytes:
        """Return what somebody logs in with."""
        return f"{self.name(who)}:password of {self.name(who)}".encode()

    def begin(self, inviter: Client, invitee: Client, one: str, other: str) -> None:
        """Let there be a chat."""
        begin_chat(inviter, invitee, (self.name(one), self.name(other)))

    def talk(self, here: Machine, there: Machine, one: str, other: str) -> Talk:
        """Let two who have just registered talk, and wait until they do."""
        speaker, listener = self.join(here, one), self.join(there, other)
        self.begin(speaker, listener, one, other)
        talk = Talk(speaker, listener)
        self.addCleanup(talk.stop)
        until(lambda: len(talk.answers) > 100, "messages")
        return talk

    def assertEnded(self, talk: Talk, since: float, sides: tuple[str, ...]) -> None:
        """Assert that each of the `sides` has heard EXIT in time, and all is as it must be."""
        talk.wait()
        for side in sides:
            self.assertLess(talk.ended_at[side] - since, WITHIN, side)
        self.assertEqual(talk.find_faults(is_listener_there="listener" in sides), [])


class PermissionTests(ProcessTestCase):
    """A NATS that takes the permissions of the machines away, and gives them back."""

    def test_permissions(self) -> None:
        """It is told, and heals by itself."""
        folder = Path(self.mktemp()).absolute()
        folder.mkdir(parents=True)
        self.configure(folder, "")
        cluster = Cluster(self, 2, nats_options=("-c", str(folder / "nats.conf")))
        here, there = cluster.machines
        alice, bob = self.connect(here.port), self.connect(there.port)
        enter(alice, "alice")
        enter(bob, "bob")
        self.assertEqual(alice.ask(Command.CHAT_REQUEST, b"bob"), SENT)
        self.configure(folder, ', permissions: { publish: "nothing", subscribe: "nothing" }')
        cluster.nats.process.send_signal(signal.SIGHUP)
        until(lambda: "permissions violation" in here.log.lower(), "the line in the log")
        self.assertEqual(alice.ask(Command.CHAT_REQUEST, b"bob"), error("FAILED"))
        self.configure(folder, "")
        cluster.nats.process.send_signal(signal.SIGHUP)
        until(lambda: alice.ask(Command.CHAT_REQUEST, b"bob") == SENT, "an invitation")

    def configure(self, folder: Path, permissions: str) -> None:
        """Write what nats-server reads at its start, and at SIGHUP."""
        (folder / "nats.conf").write_text(
            "no_auth_user: chat\n"
            f"authorization {{ users = [ {{ user: chat, password: secret {permissions} }} ] }}\n"
        )


class StoryTests(ClusterProcessCase):
    """Nothing fails."""

    def test_story(self) -> None:
        """All that can be done is done across machines."""
        here, there = self.cluster.machines
        alice, bob = self.join(here, "alice"), self.join(there, "bob")
        names = {who: self.name(who).encode() for who in ("alice", "bob", "carol")}
        self.assertEqual(alice.ask(Command.CHAT_REQUEST, names["carol"]), error("NOPE"))
        self.assertEqual(alice.ask(Command.CHAT_REQUEST, names["bob"]), SENT)
        self.assertEqual(bob.receive(), Packet(Command.FIND_PEER, names["alice"]))
        self.assertEqual(bob.ask(Command.CHAT_DECLINE), OK)
        self.assertEqual(alice.receive(), error("DENY"))
        self.assertEqual(alice.ask(Command.CHAT_REQUEST, names["bob"]), SENT)
        self.assertEqual(bob.receive(), Packet(Command.FIND_PEER, names["alice"]))
        self.assertEqual(alice.ask(Command.CHAT_DECLINE, names["bob"]), OK)
        self.assertEqual(bob.ask(Command.CHAT_ACCEPT), error("LOST"))
        self.begin(bob, alice, "bob", "alice")
        carol = self.join(there, "carol")
        self.assertEqual(carol.ask(Command.CHAT_REQUEST, names["alice"]), error("BUSY"))
        self.assertEqual(alice.ask(Command.MESSAGE, b"hi"), OK)
        self.assertEqual(bob.receive(), Packet(Command.MESSAGE, names["alice"] + b": hi"))
        self.assertEqual(bob.ask(Command.EXIT_CHAT), Packet(Command.ACK, b"BYE"))
        self.assertEqual(alice.receive(), EXIT)
        elsewhere = self.join(there, "alice", is_new=False)
        self.assertEqual(alice.receive(), error("REPLACED"))
        self.assertIsNone(alice.receive())
        self.begin(elsewhere, bob, "alice", "bob")
        back = self.join(here, "alice", is_new=False)
        self.assertEqual(elsewhere.receive(), error("REPLACED"))
        self.assertEqual(bob.receive(), EXIT)
        self.begin(back, carol, "alice", "carol")

    def test_logins(self) -> None:
        """Of two logins of one account at the same moment exactly one stays, each time."""
        self.join(self.cluster.machines[0], "alice").close()
        ports = [machine.port for machine in self.cluster.machines]
        for _ in range(20):
            clients = [self.connect(port) for port in ports]
            for client in clients:
                client.send(Command.LOGIN, self.credentials("alice"))
            self.assertEqual([client.receive() for client in clients], [OK, OK])
            sockets = [client._socket for client in clients]
            (replaced,), _, _ = select.select(sockets, [], [], TIMEOUT)
            loser, winner = sorted(clients, key=lambda each: each._socket is not replaced)
            self.assertEqual(loser.receive(), error("REPLACED"))
            self.assertIsNone(loser.receive())
            self.assertEqual(winner.ask(0x7F), error("UNKN"))
            winner.close()


class FaultTests(ClusterProcessCase):
    """Parts of the cluster fail while people talk."""

    def test_kill(self) -> None:
        """After kill -9 partners hear EXIT within 5 s, and users log in elsewhere at once."""
        here, _ = self.cluster.machines
        dying = self.cluster.add()
        talks = [self.talk(here, dying, "a", "b"), self.talk(dying, here, "c", "d")]
        dying.kill()
        start = time.monotonic()
        moved = self.join(here, "b", is_new=False)
        other = self.join(here, "e")
        self.begin(other, moved, "e", "b")
        self.assertEqual(moved.ask(Command.MESSAGE, b"hi"), OK)
        self.assertLess(time.monotonic() - start, 4)
        self.assertEqual(
            other.receive(), Packet(Command.MESSAGE, self.name("b").encode() + b": hi")
        )
        self.assertEqual(other.ask(Command.EXIT_CHAT), Packet(Command.ACK, b"BYE"))
        self.assertEqual(other.ask(Command.CHAT_REQUEST, self.name("c").encode()), error("NOPE"))
        self.assertEnded(talks[0], start, ("speaker",))
        talks[1].wait()
        self.assertLess(talks[1].ended_at["listener"] - start, WITHIN)

    def test_terminate(self) -> None:
        """After SIGTERM partners hear EXIT at once, and each message is OK and heard, or LOST."""
        here, _ = self.cluster.machines
        ending = self.cluster.add()
        talks = [self.talk(here, ending, "a", "b"), self.talk(ending, here, "c", "d")]
        start = time.monotonic()
        self.assertEqual(ending.terminate(), -signal.SIGTERM)
        for talk in talks:
            talk.wait()
            self.assertEqual(talk.find_faults(), [])
        self.assertTrue(talks[1].was_shut_down)
        self.assertLess(talks[0].ended_at["speaker"] - start, 4)
        self.assertLess(talks[1].ended_at["listener"] - start, 4)
        self.assertLog(ending.log)
        self.assertNotIn("[ERR]", ending.log)

    def test_nats(self) -> None:
        """While NATS is away chats across end within 5 s, those within a machine go on, and
        invitations across are FAILED. When it is there again all works again, by itself.
        """
        here, there = self.cluster.machines
        across = self.talk(here, there, "a", "b")
        within = self.talk(here, here, "c", "d")
        inviter, invited = self.join(here, "e"), self.join(there, "f")
        self.cluster.nats.stop()
        start = time.monotonic()
        try:
            until(lambda: "NATS is away" in here.log, "the line that tells it")
            self.assertEqual(
                inviter.ask(Command.CHAT_REQUEST, self.name("f").encode()), error("FAILED")
            )
            self.assertEnded(across, start, ("speaker", "listener"))
        finally:
            self.cluster.nats.start()
        before = len(within.answers)
        until(lambda: len(within.answers) > before + 100, "messages within a machine")
        self.assertEqual(within.ended_at, {})

        def invite() -> bool:
            answer = inviter.ask(Command.CHAT_REQUEST, self.name("f").encode())
            return answer == SENT

        until(invite, "an invitation")
        self.assertLess(time.monotonic() - start, WITHIN + 5)
        self.assertEqual(invited.receive(), Packet(Command.FIND_PEER, self.name("e").encode()))
        accepted = invited.ask(Command.CHAT_ACCEPT)
        self.assertEqual(accepted, Packet(Command.CHAT_ACCEPT, self.name("e").encode()))

    def test_postgresql(self) -> None:
        """When PostgreSQL ends its connections chats go on, and so do logins."""
        here, _ = self.cluster.machines
        url = self.cluster.database
        assert url.host is not None
        relay = Relay(url.host, url.port or 5432)
        self.addCleanup(relay.close)
        cut_off = self.cluster.add(database=url.set(host="127.0.0.1", port=relay.port))
        talk = self.talk(here, cut_off, "a", "b")
        for number in range(3):
            relay.cut()
            inviter = self.join(cut_off, f"c{number}")
            self.begin(inviter, self.join(here, f"d{number}"), f"c{number}", f"d{number}")
        before = len(talk.answers)
        until(lambda: len(talk.answers) > before + 100, "messages")
        self.assertEqual(talk.ended_at, {})

    def test_swallowed(self) -> None:
        """When the network to NATS swallows all it is the same, and the machine finds its way
        back; who has moved meanwhile is REPLACED there.
        """
        here, _ = self.cluster.machines
        relay = Relay("127.0.0.1", self.cluster.nats.port)
        self.addCleanup(relay.close)
        cut_off = self.cluster.add(f"nats://127.0.0.1:{relay.port}")
        talk = self.talk(here, cut_off, "a", "b")
        stays = self.join(cut_off, "c")
        relay.flowing.clear()
        start = time.monotonic()
        moved = self.join(here, "c", is_new=False)
        self.assertEnded(talk, start, ("speaker", "listener"))
        relay.flowing.set()
        relay.cut()
        self.assertEqual(stays.receive(), error("REPLACED"))
        inviter = self.join(cut_off, "d")
        self.begin(inviter, moved, "d", "c")


class MistakeTests(ProcessTestCase):
    """What an operator can do wrong is told in one plain line."""

    def begin(self, *options: str, reactor: str = "asyncio") -> subprocess.Popen[str]:
        """Start a server that will not run."""
        command = [*script("twistd"), "--reactor", reactor, "-n", "asyncchat", "--port", "0"]
        process = subprocess.Popen(
            [*command, *CHEAP, *options],
            cwd=self.folder(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.addCleanup(process.kill)
        return process

    def test_mistakes(self) -> None:
        """Another reactor, SQLite, a NATS that is not there, a token that is wrong."""
        check_parts()
        nats = NatsServer(self.folder(), "--auth", "right")
        self.addCleanup(nats.stop)
        token = self.folder() / "token"
        token.write_text("wrong")
        token.chmod(0o600)
        cluster = ("--cluster", nats.url)
        wrong = (*cluster, "--cluster-credentials", str(token))
        begun = {
            "--reactor asyncio": self.begin(*cluster, reactor="select"),
            "--database postgresql://": self.begin(*cluster),
        }
        if database := os.environ.get(POSTGRESQL):
            begun["Authorization Violation"] = self.begin(*wrong, "--database", database)
            nowhere = ("--cluster", "nats://127.0.0.1:1", "--database", database)
            begun["NATS at nats://127.0.0.1:1 cannot be used"] = self.begin(*nowhere)
        for text, process in begun.items():
            output, _ = process.communicate(timeout=TIMEOUT)
            said = [line for line in output.splitlines() if not line.startswith("[")]
            self.assertEqual(len(said), 1, output)
            self.assertRegex(said[0], f"^asyncchat: .*{text}")
            self.assertEqual(process.returncode, 1)

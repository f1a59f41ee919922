"""Real clusters: servers in processes of their own, a NATS for the test, and PostgreSQL."""

from __future__ import annotations

import atexit
import json
import os
import shutil
import subprocess
import threading
import time
import uuid
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import sqlalchemy as sa
from twisted.trial.unittest import SkipTest, TestCase

from chatserver.packets import Command, Packet
from tests.blocking import Client
from tests.databases import postgresql_url
from tests.processes import CHEAP, NO_RATES, TIMEOUT, Server, script, until

NO_LIMITS = (*NO_RATES, "--connections-per-address=0")

OK = Packet(Command.ACK, b"OK")
SENT = Packet(Command.ACK, b"SENT")
EXIT = Packet(Command.ERROR, b"EXIT")
LOST = Packet(Command.ERROR, b"LOST")
SHUTDOWN = Packet(Command.ERROR, b"SHUTDOWN")

WITHIN = 6.0
"""Seconds within which a chat partner must hear of a fault: five, and one for a busy machine."""

WINDOW = 16
"""Messages under way at once."""


def check_parts() -> None:
    """Skip where there is no NATS or what it needs."""
    for module in ("nats", "msgspec"):
        if find_spec(module) is None:
            raise SkipTest(f"{module} is not installed: clusters can't be tested")
    if _nats_server() is None:
        raise SkipTest("nats-server is not installed: clusters can't be tested")


def _nats_server() -> str | None:
    return shutil.which("nats-server", path=f"{os.environ.get('PATH', '')}:/usr/sbin")


class NatsServer:
    """A nats-server of the test's, at a port of its own.

    :param options: what it is started with besides
    """

    def __init__(self, folder: Path, *options: str) -> None:
        self._folder = folder
        self._options = options
        self.port = -1
        self.start()

    @property
    def url(self) -> str:
        """Where it is."""
        return f"nats://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it, a second time at the same port."""
        program = _nats_server()
        assert program is not None
        command = [program, "-a", "127.0.0.1", "-p", str(self.port), *self._options]
        self.process = subprocess.Popen(
            [*command, "--ports_file_dir", str(self._folder)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        path = self._folder / f"nats-server_{self.process.pid}.ports"

        def find() -> list[str]:
            try:
                found: list[str] = json.loads(path.read_text())["nats"]
            except (OSError, ValueError):
                return []
            return found

        self.port = int(until(find, "nats-server's port")[0].rpartition(":")[2])

    def stop(self) -> None:
        """End it at once."""
        self.process.kill()
        self.process.wait(TIMEOUT)


class Machine(Server):
    """A server of a cluster, in the foreground."""

    def __init__(self, folder: Path, *options: str) -> None:
        command = [*script("twistd"), "--reactor", "asyncio", "-n", "asyncchat", "--port", "0"]
        super().__init__([*command, *CHEAP, *NO_LIMITS, *options], folder)
        self._port = 0

    @property
    def port(self) -> int:
        """Where it listens, once it has joined the cluster."""
        if not self._port:
            port = self.wait_for_port(lambda: self.log)
            until(lambda: "NATS: connected" in self.log, "NATS")
            self._port = port
        return self._port


class Cluster:
    """Some machines with one NATS and one database.

    :param test: whose folder it is in. The database goes away at its end, unless it `is_shared`:
        then all goes away at the end of the process.
    """

    def __init__(
        self,
        test: TestCase,
        machines: int,
        is_shared: bool = False,
        nats_options: tuple[str, ...] = (),
    ) -> None:
        check_parts()
        self._test = test
        self.database = postgresql_url(_Keeper(test, is_shared))  # type: ignore[arg-type]
        self.prefix = f"test-{uuid.uuid4().hex[:12]}"
        self.nats = NatsServer(self._folder(), *nats_options)
        _at_end(test, is_shared, self.nats.stop)
        self._is_shared = is_shared
        self.machines = [self.add() for _ in range(machines)]

    def add(self, url: str = "", database: sa.URL | None = None) -> Machine:
        """Start one more machine, which finds NATS at `url`, and the accounts in `database`."""
        database = database or self.database
        machine = Machine(
            self._folder(),
            *("--cluster", url or self.nats.url, "--cluster-prefix", self.prefix),
            *("--database", database.render_as_string(hide_password=False)),
        )
        _at_end(self._test, self._is_shared, machine.kill)
        return machine

    def _folder(self) -> Path:
        folder = Path(self._test.mktemp()).absolute() / "here"
        folder.mkdir(parents=True)
        return folder


def _at_end(test: TestCase, is_shared: bool, work: Callable[[], object]) -> None:
    if is_shared:
        atexit.register(work)
    else:
        test.addCleanup(work)


class _Keeper:
    """Takes cleanups in the place of a test."""

    def __init__(self, test: TestCase, is_shared: bool) -> None:
        self._test = test
        self._is_shared = is_shared

    def addCleanup(self, work: Callable[[], object]) -> None:
        """See `TestCase`."""
        _at_end(self._test, self._is_shared, work)


class Talk:
    """Somebody who says one message after the other, `WINDOW` of them at once, and who listens.

    It goes on until the chat ends, or `stop`, in threads of its own, whose connections nobody else
    may close. `ended_at` is when each side heard that.

    :param speaker: in a chat with `listener`
    """

    def __init__(self, speaker: Client, listener: Client) -> None:
        self.answers: list[Packet] = []
        self.heard: list[bytes] = []
        self.ended_at: dict[str, float] = {}
        self.sent = 0
        self.was_shut_down = False
        self._is_stopping = False
        self._threads = [
            threading.Thread(target=self._speak, args=(speaker,), daemon=True),
            threading.Thread(target=self._listen, args=(listener,), daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    def _speak(self, client: Client) -> None:
        try:
            while True:
                while (
                    self.sent - len(self.answers) < WINDOW
                    and "speaker" not in self.ended_at
                    and not self._is_stopping
                ):
                    self.sent += 1
                    client.send(Command.MESSAGE, b"%d" % self.sent)
                if self.sent == len(self.answers):
                    if self._is_stopping:
                        break
                    return
                packet = client.receive()
                if packet is None or packet == SHUTDOWN:
                    self.was_shut_down = packet is not None
                    break
                if packet == EXIT:
                    self.ended_at["speaker"] = time.monotonic()
                else:
                    self.answers.append(packet)
        except (OSError, EOFError):
            pass
        client.close()
        self.ended_at.setdefault("speaker", time.monotonic())

    def _listen(self, client: Client) -> None:
        try:
            while (packet := client.receive()) is not None and packet.command == Command.MESSAGE:
                self.heard.append(packet.body.partition(b": ")[2])
        except (OSError, EOFError):
            pass
        client.close()
        self.ended_at["listener"] = time.monotonic()

    def stop(self) -> None:
        """Let it end, unless it has."""
        self._is_stopping = True
        self.wait()

    def wait(self) -> None:
        """Wait until both sides have heard of the end."""
        for thread in self._threads:
            thread.join(TIMEOUT)
            assert not thread.is_alive(), "the chat does not end"

    def find_faults(self, is_listener_there: bool = True) -> list[str]:
        """Return what is wrong: each message has one answer, in order, and is heard if it is OK."""
        faults = []
        if self.sent != len(self.answers) and not self.was_shut_down:
            faults.append(f"{self.sent} messages had {len(self.answers)} answers")
        states = [OK, LOST, Packet(Command.ERROR, b"NOCHAT")]
        if self.answers != sorted(self.answers, key=states.index):
            faults.append(f"answers are mixed: {self.answers}")
        if self.heard != [b"%d" % number for number in range(1, len(self.heard) + 1)]:
            faults.append(f"messages are missing: {self.heard}")
        if is_listener_there and len(self.heard) < self.answers.count(OK):
            faults.append(f"{self.answers.count(OK)} were OK, but {len(self.heard)} were heard")
        return faults


def enter(client: Client, name: str, is_new: bool = True) -> None:
    """Log in as `name`."""
    command = Command.REGISTER if is_new else Command.LOGIN
    assert client.ask(command, f"{name}:password of {name}".encode()) == OK


def begin_chat(inviter: Client, invitee: Client, names: tuple[str, str]) -> None:
    """Let there be a chat of `names`, the inviter's first."""
    answer = inviter.ask(Command.CHAT_REQUEST, names[1].encode())
    assert answer == SENT, answer
    assert invitee.receive() == Packet(Command.FIND_PEER, names[0].encode())
    accepted = invitee.ask(Command.CHAT_ACCEPT, names[0].encode())
    assert accepted == Packet(Command.CHAT_ACCEPT, names[0].encode()), accepted
    told = inviter.receive()
    assert told == Packet(Command.CHAT_ACCEPT, names[1].encode()), told

"""Starts the server as an operator starts it, each time in a folder of its own."""

from __future__ import annotations

import atexit
import os
import re
import shutil
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import ClassVar, TypeVar

from twisted.trial.unittest import SynchronousTestCase

from chatserver.packets import Command, Packet
from tests.blocking import Client

T = TypeVar("T")

TIMEOUT = 60.0
"""Seconds in which a process must have done what is waited for; half a second is usual."""

CHEAP = ("--argon2", "m=8,t=1,p=1")
NO_RATES = ("--registrations", "0", "--failed-logins", "0", "--invitations", "0")
"""For many tests that seem to be one busy address."""

LISTENS = re.compile(r"AsyncChatServer (\S+) listens on \[::\]:(\d+)\n")
FINGERPRINT = re.compile(r"SHA-256 fingerprint ((?:[0-9A-F]{2}:){31}[0-9A-F]{2})\b")
LOG_LINE = re.compile(r"\[\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\] \[(INFO|WARNING|ERR)\] \S.*")

OK = Packet(Command.ACK, b"OK")
BYE = Packet(Command.ACK, b"BYE")


def script(name: str) -> list[str]:
    """Return the command that runs Twisted's `name` with the Python that runs this test."""
    path = shutil.which(name, path=os.path.dirname(sys.executable))
    if path is not None:
        return [path]
    if name == "twist":
        return [sys.executable, "-m", "twisted"]
    return [sys.executable, "-c", "from twisted.scripts.twistd import run; run()"]


def client_command() -> list[str]:
    """Return the command that runs the client with the Python that runs this test."""
    path = shutil.which("asyncchat", path=os.path.dirname(sys.executable))
    return [path] if path else [sys.executable, "-m", "chatserver.terminal"]


def admin_command() -> list[str]:
    """Return the command that runs ``asyncchat-admin`` with the Python that runs this test."""
    path = shutil.which("asyncchat-admin", path=os.path.dirname(sys.executable))
    return [path] if path else [sys.executable, "-m", "chatserver.admin"]


def environment(home: Path, **more: str) -> dict[str, str]:
    """Return an environment whose home is a folder of the test's."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("XDG_")}
    kept.pop("NO_COLOR", None)
    return kept | {"HOME": str(home), "TERM": "xterm-256color", "LC_ALL": "C.UTF-8"} | more


def until(look: Callable[[], T], what: str) -> T:
    """Return what `look` returns, as soon as that is true."""
    deadline = time.monotonic() + TIMEOUT
    while not (found := look()):
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {TIMEOUT:g} s in vain for {what}")
        time.sleep(0.01)
    return found


def read(path: Path) -> str:
    """Return the text of a file, or none if it is not there."""
    return path.read_text("utf-8") if path.exists() else ""


def mode(path: Path) -> int:
    """Return the permissions of a file."""
    return stat.S_IMODE(path.stat().st_mode)


def is_listening(port: int) -> bool:
    """Tell whether anybody listens at `port`."""
    try:
        socket.create_connection(("127.0.0.1", port), TIMEOUT).close()
    except ConnectionRefusedError:
        return False
    return True


class Server:
    """A server in the foreground, `command`, and what it shows on its terminal.

    With `output`, a file's number, it shows it there.
    """

    def __init__(self, command: Sequence[str], folder: Path, output: int | None = None) -> None:
        self.folder = folder
        self.command = command
        self._terminal = folder.parent / "terminal"
        with self._terminal.open("wb") as terminal:
            # The mask takes nothing away: each file's mode is what the server gave it.
            self.process = subprocess.Popen(
                command,
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=terminal if output is None else output,
                stderr=subprocess.STDOUT,
                umask=0,
            )

    @property
    def terminal(self) -> str:
        """What the terminal shows."""
        return read(self._terminal)

    @property
    def log(self) -> str:
        """What the log file holds."""
        return read(self.folder / "logs" / "server.log")

    def wait_for_port(self, look: Callable[[], str]) -> int:
        """Return the port where it listens, once what `look` returns tells that."""

        def find() -> re.Match[str] | None:
            if self.process.poll() is not None:
                raise AssertionError(f"the server has ended:\n{self.terminal}")
            return LISTENS.search(look())

        return int(until(find, "the line that tells the port")[2])

    def terminate(self) -> int:
        """End it with SIGTERM and return its status."""
        self.process.terminate()
        return self.process.wait(TIMEOUT)

    def kill(self) -> None:
        """End it, whatever it is at."""
        self.process.kill()
        self.process.wait(TIMEOUT)


class ProcessTestCase(SynchronousTestCase):
    """Starts processes, and ends them all."""

    _shared: ClassVar[Server | None] = None

    if os.name != "posix":
        skip = "signals, file modes and daemons are for POSIX"

    def folder(self) -> Path:
        """Make an empty folder for a server."""
        folder = Path(self.mktemp()).absolute() / "here"
        folder.mkdir(parents=True)
        return folder

    def start(
        self, *options: str, command: Sequence[str] | None = None, output: int | None = None
    ) -> Server:
        """Start a server with `options`, in the foreground and in an empty folder."""
        command = [*(command or [*script("twistd"), "-n"]), "asyncchat", "--port", "0", *CHEAP]
        server = Server([*command, *options], self.folder(), output)
        self.addCleanup(server.kill)
        return server

    def share(self) -> Server:
        """Return a server that all tests share which do it no harm, its accounts included."""
        if ProcessTestCase._shared is None:
            command = [*script("twistd"), "-n", "asyncchat", "--port", "0", *CHEAP, *NO_RATES]
            ProcessTestCase._shared = Server(command, self.folder())
            atexit.register(ProcessTestCase._shared.kill)
        return ProcessTestCase._shared

    def connect(self, port: int) -> Client:
        """Connect to a server."""
        client = Client(port)
        self.addCleanup(client.close)
        return client

    def chat(self, port: int) -> tuple[Client, Client]:
        """Return the connections of alice and bob, who have just registered and now chat."""
        alice, bob = self.connect(port), self.connect(port)
        self.assertEqual(OK, alice.ask(Command.REGISTER, b"alice:password of alice"))
        self.assertEqual(OK, bob.ask(Command.REGISTER, b"bob:password of bob"))
        self.assertEqual(Packet(Command.ACK, b"SENT"), alice.ask(Command.CHAT_REQUEST, b"bob"))
        self.assertEqual(Packet(Command.FIND_PEER, b"alice"), bob.receive())
        self.assertEqual(Packet(Command.CHAT_ACCEPT, b"alice"), bob.ask(Command.CHAT_ACCEPT))
        self.assertEqual(Packet(Command.CHAT_ACCEPT, b"bob"), alice.receive())
        return alice, bob

    def assertLog(self, text: str) -> None:
        """Assert that `text` is made of log lines, as every reader would split it."""
        for line in text.splitlines():
            self.assertTrue(LOG_LINE.fullmatch(line), line)

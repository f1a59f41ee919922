"""The process itself, started as an operator starts it, each time in a folder of its own."""

from __future__ import annotations

import ast
import contextlib
import json
import os
import re
import select
import signal
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from importlib.util import find_spec
from pathlib import Path

from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)
from twisted.trial.unittest import SkipTest, SynchronousTestCase

import chatserver
from chatserver.certificates import LIFETIME, create_self_signed
from chatserver.packets import Command, Packet
from tests.blocking import Client
from tests.processes import (
    BYE,
    CHEAP,
    FINGERPRINT,
    LISTENS,
    OK,
    TIMEOUT,
    ProcessTestCase,
    is_listening,
    mode,
    read,
    script,
    until,
)


class ForegroundTests(ProcessTestCase):
    """``twistd -n asyncchat`` and ``twist asyncchat``."""

    def test_first_start(self) -> None:
        """In an empty folder it makes all its files, private ones for their owner only, tells
        its certificate's fingerprint, and takes a registration. The terminal shows the lines of
        the log, each once, and nothing else.
        """
        server = self.start()
        port = server.wait_for_port(lambda: server.terminal)
        with Client(port) as client:
            self.assertEqual(OK, client.ask(Command.REGISTER, b"alice:correct horse"))
            told = until(lambda: FINGERPRINT.findall(server.terminal), "the fingerprint")
            self.assertEqual([client.fingerprint], told)
            self.assertEqual([client.fingerprint], FINGERPRINT.findall(server.log))
        names = {path.name for path in server.folder.iterdir()}
        self.assertEqual(
            {"certs", "logs", "users.db", "users.db-wal", "users.db-shm", "twistd.pid"}, names
        )
        for name in (
            "certs/server.key",
            "logs/server.log",
            "users.db",
            "users.db-wal",
            "users.db-shm",
        ):
            self.assertEqual(0o600, mode(server.folder / name), name)
        self.assertEqual(0o644, mode(server.folder / "certs" / "server.crt"))

        until(lambda: "Disconnected" in server.terminal, "the end of the connection in the log")
        self.assertEqual(-signal.SIGTERM, server.terminate())
        self.assertEqual(server.log, server.terminal)
        self.assertLog(server.log)
        for event in ("listens on", "Handshake done", "Registered", "Server Shut Down"):
            self.assertEqual(1, server.log.count(event), event)

    def test_output_that_nobody_reads(self) -> None:
        """With a pipe for its output that takes nothing any more it serves on, logs to its file,
        and ends at SIGTERM.
        """
        read_end, write_end = os.pipe()
        self.addCleanup(os.close, read_end)
        os.set_blocking(write_end, False)
        with contextlib.suppress(BlockingIOError):
            while True:
                os.write(write_end, bytes(4096))
        os.set_blocking(write_end, True)
        server = self.start(output=write_end)
        os.close(write_end)
        port = server.wait_for_port(lambda: server.log)
        alice, bob = self.chat(port)
        self.assertEqual(OK, alice.ask(Command.MESSAGE, b"hello"))
        self.assertEqual(Packet(Command.MESSAGE, b"alice: hello"), bob.receive())
        alice.close()
        bob.close()
        self.assertEqual(-signal.SIGTERM, server.terminate())
        self.assertIn("Server Shut Down.", server.log)
        self.assertLog(server.log)

    def test_no_log_file(self) -> None:
        """With ``--log-file -`` there is no log but the terminal."""
        server = self.start("--log-file", "-")
        server.wait_for_port(lambda: server.terminal)
        self.assertEqual(-signal.SIGTERM, server.terminate())
        self.assertLog(server.terminal)
        self.assertEqual(["certs", "users.db"], sorted(os.listdir(server.folder)))

    def test_sigterm_with_clients(self) -> None:
        """SIGTERM ends it with clients connected, one of them before its handshake: those in a
        chat hear that the server is going down, and not that their partner left.
        """
        server = self.start()
        port = server.wait_for_port(lambda: server.log)
        clients = self.chat(port)
        silent = socket.create_connection(("127.0.0.1", port), TIMEOUT)
        self.addCleanup(silent.close)
        until(lambda: server.log.count("Client connected") == 3, "the third connection")
        server.process.terminate()
        for client in clients:
            self.assertEqual(Packet(Command.ERROR, b"SHUTDOWN"), client.receive())
            self.assertIsNone(client.receive())
            client.close()
        self.assertEqual(-signal.SIGTERM, server.process.wait(TIMEOUT))
        self.assertNotIn("Traceback", server.log)

    def test_second_sigterm(self) -> None:
        """A second SIGTERM does not wait for a client that stays, and ends it at once."""
        server = self.start()
        with Client(server.wait_for_port(lambda: server.log)):
            server.process.terminate()
            until(lambda: "Closed)" in server.log, "the port to close")
            self.assertIsNone(server.process.poll())
            self.assertEqual(-signal.SIGTERM, server.terminate())
        self.assertNotIn("AsyncChatServer stopped", server.log)
        self.assertNotIn("Traceback", server.log)

    def test_twist(self) -> None:
        """``twist asyncchat`` serves too, and has the same log in its file."""
        server = self.start(command=script("twist"))
        port = server.wait_for_port(lambda: server.log)
        with Client(port) as client:
            self.assertEqual(OK, client.ask(Command.REGISTER, b"alice:correct horse"))
            self.assertEqual([client.fingerprint], FINGERPRINT.findall(server.log))
        self.assertEqual(-signal.SIGTERM, server.terminate())
        self.assertLog(server.log)
        self.assertEqual(1, server.log.count("listens on"))
        self.assertEqual(1, server.log.count("AsyncChatServer stopped"))


class LogTests(ProcessTestCase):
    """What the log tells of clients, and what it keeps to itself."""

    def test_secrets(self) -> None:
        """A chat from registering to leaving is in the log and on the terminal, each event with
        the client's address, but no password, right or wrong, and no text.
        """
        server = self.start()
        port = server.wait_for_port(lambda: server.log)
        alice, bob = self.chat(port)
        self.assertEqual(OK, alice.ask(Command.MESSAGE, b"the eagle lands at noon"))
        self.assertEqual(Packet(Command.MESSAGE, b"alice: the eagle lands at noon"), bob.receive())
        self.assertEqual(BYE, bob.ask(Command.EXIT_CHAT))
        self.assertEqual(Packet(Command.ERROR, b"EXIT"), alice.receive())
        alice.close()

        other = self.connect(port)
        for command, body, answer in (
            (Command.LOGIN, b"alice:a wrong guess", b"AUTH!"),
            (Command.LOGIN, b"nobody:a wrong guess", b"AUTH!"),
            (Command.REGISTER, b"alice:another wish", b"USER!"),
            (Command.REGISTER, b"carol:wish", b"BADF"),
            (Command.LOGIN, b"a wrong guess", b"BADF"),
            (Command.MESSAGE, b"the eagle is early", b"NOCHAT"),
            (0x42, b"the eagle is odd", b"UNKN"),
        ):
            self.assertEqual(Packet(Command.ERROR, answer), other.ask(command, body))
        self.assertEqual(OK, other.ask(Command.LOGIN, b"alice:password of alice"))
        other.send_bytes(b"the eagle forgot his packet")
        self.assertEqual(Packet(Command.ERROR, b"BADPACKET"), other.receive())
        other.close()
        bob.close()
        until(lambda: server.log.count("Disconnected: ") == 3, "three ends in the log")
        server.terminate()

        for text in (server.log, server.terminal):
            self.assertLog(text)
            for secret in ("eagle", "guess", "wish", "password of"):
                self.assertNotIn(secret, text)
        address = r"127\.0\.0\.1:\d+"
        for event in (
            rf"Client connected: {address}",
            rf"Handshake done: {address}, TLSv1\.3",
            rf"Registered: 'alice' \({address}\)",
            rf"Login refused: 'nobody' \({address}\)",
            rf"Register refused: 'alice' \({address}\)",
            rf"Logged in: 'alice' \({address}\)",
            rf"Bad packet: 'alice' \({address}\), wrong magic",
            rf"Disconnected: 'alice' \({address}\), ",
            rf"Disconnected: 'bob' \({address}\), ",
        ):
            self.assertTrue(re.search(event, server.log), event)

    def test_forged_line(self) -> None:
        """No name can make a line of its own or reach the terminal's controls."""
        server = self.start()
        client = self.connect(server.wait_for_port(lambda: server.log))
        ends = (
            "\n",
            "\r\n",
            "\r",
            "\v",
            "\f",
            "\x1c",
            "\x85",
            "\u2028",
            "\x1b[2K\x1b[1A",
            "\u202e",
        )
        for end in ends:
            name = f"x{end}[2025-07-07] [INFO] forged"  # No time: a colon would end the name.
            answer = client.ask(Command.LOGIN, f"{name}:some password".encode())
            self.assertEqual(Packet(Command.ERROR, b"AUTH!"), answer, repr(name))
        client.close()
        server.terminate()
        for text in (server.log, server.terminal):
            self.assertLog(text)
            lines = [line for line in text.splitlines() if "forged" in line]
            self.assertEqual(len(ends), len(lines))
            for line in lines:
                self.assertRegex(line, r"\[WARNING\] Login refused: 'x\\.*forged' \(")
                self.assertTrue(line.isprintable(), repr(line))


class DaemonTests(ProcessTestCase):
    """``twistd asyncchat``."""

    def start_daemon(self, folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
        """Run `twistd` with `options` in `folder` until it returns, and see to its daemon's end.

        `self.daemon` becomes readable when the daemon is gone: it inherits the other end.
        """
        self.daemon, other_end = os.pipe()
        self.addCleanup(os.close, self.daemon)
        self.addCleanup(kill_daemon, folder)
        try:
            # To files, since a daemon may keep what it inherits: a pipe would not end.
            with (
                (folder.parent / "out").open("w+") as out,
                (folder.parent / "err").open("w+") as err,
            ):
                status = subprocess.run(
                    [*script("twistd"), *options, "--port", "0", *CHEAP],
                    cwd=folder,
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=err,
                    pass_fds=[other_end],
                    umask=0,
                    timeout=TIMEOUT,
                    check=False,
                ).returncode
        finally:
            os.close(other_end)
        return subprocess.CompletedProcess(
            [], status, read(folder.parent / "out"), read(folder.parent / "err")
        )

    def wait_for_end(self) -> None:
        """Wait until the daemon is gone."""
        ready, _, _ = select.select([self.daemon], [], [], TIMEOUT)
        self.assertTrue(ready, "the daemon has not ended")

    def test_daemon(self) -> None:
        """When the command returns, with status 0, the server listens, and the new certificate's
        fingerprint is on the terminal. SIGHUP, which may come at once, has it read its files
        anew. SIGTERM ends it and takes the pid file away.
        """
        folder = self.folder()
        done = self.start_daemon(folder, "asyncchat")
        os.kill(int(read(folder / "twistd.pid")), signal.SIGHUP)
        self.assertEqual((0, ""), (done.returncode, done.stderr))
        log = folder / "logs" / "server.log"
        port = int(until(lambda: LISTENS.search(read(log)), "the line that tells the port")[2])
        with Client(port) as client:
            self.assertEqual(OK, client.ask(Command.REGISTER, b"alice:correct horse"))
            self.assertEqual(
                f"asyncchat: new certificate, SHA-256 fingerprint {client.fingerprint}\n",
                done.stdout,
            )
            until(lambda: "Certificate reloaded" in read(log), "the answer to SIGHUP")
            self.assertEqual({client.fingerprint}, set(FINGERPRINT.findall(read(log))))
        names = {path.name for path in folder.iterdir()}
        self.assertEqual(
            {"certs", "logs", "users.db", "users.db-wal", "users.db-shm", "twistd.pid"}, names
        )
        for name in ("certs/server.key", "logs/server.log", "users.db", "users.db-wal"):
            self.assertEqual(0o600, mode(folder / name), name)

        os.kill(int(read(folder / "twistd.pid")), signal.SIGTERM)
        self.wait_for_end()
        self.assertFalse((folder / "twistd.pid").exists())
        self.assertFalse(is_listening(port))
        self.assertLog(read(log))
        self.assertEqual(1, read(log).count("listens on"))
        self.assertIn("Server Shut Down.", read(log))
        self.assertNotIn("Traceback", read(log))

    def test_rundir(self) -> None:
        """With ``--rundir`` the paths still start from where the command was given. A daemon
        that has a certificate already shows nothing on the terminal.
        """
        folder = self.folder()
        elsewhere = folder.parent / "elsewhere"
        elsewhere.mkdir()
        (folder / "certs").mkdir()
        make_pair(folder)
        done = self.start_daemon(folder, "--rundir", str(elsewhere), "asyncchat")
        self.assertEqual((0, "", ""), (done.returncode, done.stdout, done.stderr))
        log = folder / "logs" / "server.log"
        port = int(until(lambda: LISTENS.search(read(log)), "the line that tells the port")[2])
        with Client(port) as client:
            self.assertEqual(OK, client.ask(Command.REGISTER, b"alice:correct horse"))
        os.kill(int(read(folder / "twistd.pid")), signal.SIGTERM)
        self.wait_for_end()
        self.assertEqual(["certs", "logs", "users.db"], sorted(os.listdir(folder)))
        self.assertEqual([], os.listdir(elsewhere))


def kill_daemon(folder: Path) -> None:
    """End the daemon that was started in `folder`, if it is still there."""
    with contextlib.suppress(OSError, ValueError):
        os.kill(int(read(folder / "twistd.pid")), signal.SIGKILL)


class HelpTests(ProcessTestCase):
    """What the options tell of themselves."""

    def show(self, *options: str) -> str:
        """Return what ``twistd asyncchat`` with `options` shows."""
        done = subprocess.run(
            [*script("twistd"), "asyncchat", *options],
            cwd=self.folder(),
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            check=False,
        )
        self.assertEqual((0, ""), (done.returncode, done.stderr))
        return done.stdout

    def test_version(self) -> None:
        """``--version`` shows the server's version, not Twisted's."""
        self.assertEqual(f"asyncchat {chatserver.__version__}\n", self.show("--version"))

    def test_help(self) -> None:
        """``--help`` shows each option with its default and unit."""
        text = " ".join(self.show("--help").split())
        for option, *details in (
            ("--port=", "tcp:5555:interface=127.0.0.1", "[default: 5555]"),
            ("--database=", "postgresql+psycopg://", "[default: sqlite:///users.db]"),
            ("--certificate=", "PEM", "[default: certs/server.crt]"),
            ("--private-key=", "PEM", "[default: certs/server.key]"),
            ("--dh-params=", "PEM", "[default: none]"),
            ("--log-file=", "- is none but the terminal", "[default: logs/server.log]"),
            ("--invitation-timeout=", "Seconds", "[default: 60]"),
            ("--stall-timeout=", "Seconds", "[default: 60]"),
            ("--min-password-length=", "Bytes", "[default: 8]"),
            ("--argon2=", "KiB", "[default: m=19456,t=2,p=1]"),
            ("--version", "version"),
        ):
            entry = re.search(rf"{re.escape(option)} (.*?)(?= (?:-\w, )?--\w|\Z)", text)
            assert entry is not None, option
            for detail in details:
                self.assertIn(detail, entry[1], option)


@dataclass(frozen=True)
class Mistake:
    """A start that can't work: with these options, after `prepare` was called with the folder.

    `word` stands in the line that the operator is told.
    """

    word: str
    options: tuple[str, ...] = ()
    prepare: Callable[[Path], object] = os.path.exists


Start = tuple[str, list[str]]
"""A folder, and the options for ``twistd`` there."""

START_ALL = """
import gc, json, os, sys
from twisted.scripts.twistd import run
import chatserver.tap, limits, sqlalchemy.dialects.sqlite  # All but the reactor.

gc.freeze()  # At their end processes need not look through all that they share.

def start(folder, options):
    pid = os.fork()
    if pid:
        return pid
    os.chdir(folder)
    for number, path in enumerate((os.devnull, "../out", "../err")):
        os.dup2(os.open(path, os.O_CREAT | os.O_RDWR), number)
    sys.argv[1:] = options
    sys.exit(run())

pids = [start(*each) for each in json.loads(sys.argv[1])]
print(json.dumps([os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]))
"""
"""Runs ``twistd`` in a process for each start, as its command would; but what most of the time
goes into is done once for all of them, the imports. The outputs are beside the folders.
"""


class MistakeTests(ProcessTestCase):
    """What an operator is told of a mistake: one line on stderr, and a status that is not 0."""

    def check(self, *mistakes: Mistake, daemon: bool = False) -> None:
        """Make each of `mistakes` in a folder of its own, and assert what comes of it.

        One alone is made by the command itself, several by `START_ALL`.
        """
        folders = [self.folder() for _ in mistakes]
        starts = []
        for mistake, folder in zip(mistakes, folders, strict=True):
            self.addCleanup(kill_daemon, folder)
            mistake.prepare(folder)
            options = [
                *([] if daemon else ["-n"]),
                "asyncchat",
                "--port",
                "0",
                *CHEAP,
                *mistake.options,
            ]
            starts.append((str(folder), options))
        ended = [self.run_one(*starts[0])] if len(starts) == 1 else self.run_all(starts)
        for mistake, folder, done in zip(mistakes, folders, ended, strict=True):
            told = f"{mistake}: {done}"
            self.assertEqual(1, done.returncode, told)
            self.assertRegex(done.stderr, r"\Aasyncchat: [^\n]+\n\Z", told)
            self.assertIn(mistake.word, done.stderr, told)
            self.assertNotIn("Traceback", done.stdout, told)
            self.assertNotIn("Traceback", read(folder / "logs" / "server.log"), told)
            self.assertFalse((folder / "twistd.pid").exists(), told)
            self.assertFalse((folder / "twistd.log").exists(), told)

    def run_one(self, folder: str, options: list[str]) -> subprocess.CompletedProcess[str]:
        """Return how ``twistd`` ends."""
        return subprocess.run(
            [*script("twistd"), *options],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            check=False,
        )

    def run_all(self, starts: list[Start]) -> list[subprocess.CompletedProcess[str]]:
        """Return how ``twistd`` ends, in a process each that `START_ALL` makes for `starts`."""
        process = subprocess.Popen(
            [sys.executable, "-c", START_ALL, json.dumps(starts)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        try:
            statuses = json.loads(process.communicate(timeout=TIMEOUT)[0])
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait(TIMEOUT)
        return [
            subprocess.CompletedProcess(
                options, status, read(Path(folder, "../out")), read(Path(folder, "../err"))
            )
            for (folder, options), status in zip(starts, statuses, strict=True)
        ]

    def busy_port(self) -> int:
        """Return a port where somebody listens until the end of the test."""
        listener = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(listener.close)
        port: int = listener.getsockname()[1]
        return port

    def test_port(self) -> None:
        """A port that is taken, or that none can have, or with TLS of its own."""
        busy = self.busy_port()
        self.check(
            Mistake(f"--port {busy}: in use", ("--port", str(busy))),
            Mistake("in use", ("--port", f"tcp:{busy}:interface=127.0.0.1")),
            Mistake("TLS is always put on top", ("--port", "ssl:0")),
            Mistake("neither a port number nor", ("--port", "nonsense:1")),
            Mistake("65535", ("--port", "70000")),
        )

    def test_options(self) -> None:
        """An option that there isn't, and values that make no sense."""
        self.check(
            Mistake("--nonsense", ("--nonsense",)),
            Mistake("surplus", ("surplus",)),
            Mistake("--stall-timeout", ("--stall-timeout", "soon")),
            Mistake("--failed-logins", ("--failed-logins", "often")),
            Mistake("--min-password-length", ("--min-password-length", "many")),
            Mistake("--argon2", ("--argon2", "m=lots")),
        )

    def test_certificates(self) -> None:
        """A certificate without its key or the other way round, and pairs that TLS can't use."""
        self.check(
            Mistake("server.crt: is missing", (), only_key),
            Mistake("server.key: is missing", (), only_certificate),
            Mistake("passphrase", (), encrypted_key),
            Mistake("is not the key of", (), other_key),
            Mistake("has expired", (), expired_certificate),
        )

    def test_databases(self) -> None:
        """What is no database, or not one of the server's."""
        self.check(
            Mistake("not an SQLite database", (), no_database),
            Mistake("not the accounts table", (), foreign_database),
            Mistake("nowhere", ("--database", "sqlite:///nowhere/users.db")),
        )

    def test_postgresql_that_is_down(self) -> None:
        """A PostgreSQL server that doesn't answer, in the foreground and as a daemon. The line
        does not show the password.
        """
        if find_spec("psycopg") is None:
            raise SkipTest("psycopg is not installed")
        url = "postgresql+psycopg://postgres:{}@127.0.0.1:1/x"
        mistake = Mistake(url.format("***"), ("--database", url.format("secret")))
        self.check(mistake)
        self.check(mistake, daemon=True)

    def test_folders(self) -> None:
        """Files that can't be made: below a file, or in a folder that is for reading only."""
        mistakes = [
            Mistake("file/x.log", ("--log-file", "file/x.log"), a_file),
            Mistake(
                "file/x.key", ("--private-key", "file/x.key", "--certificate", "x.crt"), a_file
            ),
            Mistake("file", ("--database", "sqlite:///file/x.db"), a_file),
        ]
        if os.geteuid():  # root may write anywhere
            mistakes += [
                Mistake("shut/x.log", ("--log-file", "shut/x.log"), a_shut_folder),
                Mistake("shut/x.db", ("--database", "sqlite:///shut/x.db"), a_shut_folder),
            ]
        self.check(*mistakes)

    def test_daemon(self) -> None:
        """As a daemon too the mistake is told by the command itself, and nothing is left."""
        busy = self.busy_port()
        self.check(
            Mistake("in use", ("--port", str(busy))),
            Mistake("is missing", (), only_key),
            Mistake("not an SQLite database", (), no_database),
            Mistake("a daemon has no terminal", ("--log-file", "-")),
            daemon=True,
        )


def make_pair(folder: Path, name: str = "server", now: datetime | None = None) -> tuple[Path, Path]:
    """Make the files of a certificate and its key, where the server looks for them."""
    certificate = folder / "certs" / f"{name}.crt"
    key = folder / "certs" / f"{name}.key"
    create_self_signed(str(certificate), str(key), now or datetime.now(UTC))
    return certificate, key


def only_key(folder: Path) -> None:
    make_pair(folder)[0].unlink()


def only_certificate(folder: Path) -> None:
    make_pair(folder)[1].unlink()


def encrypted_key(folder: Path) -> None:
    _, path = make_pair(folder)
    key = load_pem_private_key(path.read_bytes(), password=None)
    path.write_bytes(
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret"))
    )


def other_key(folder: Path) -> None:
    make_pair(folder, "other")[1].rename(make_pair(folder)[1])


def expired_certificate(folder: Path) -> None:
    make_pair(folder, now=datetime.now(UTC) - LIFETIME - timedelta(days=1))


def no_database(folder: Path) -> None:
    (folder / "users.db").write_text("alice: password\n" * 1000)


def foreign_database(folder: Path) -> None:
    database = sqlite3.connect(folder / "users.db")
    database.execute("CREATE TABLE users (id INTEGER PRIMARY KEY, email TEXT)")
    database.close()


def a_file(folder: Path) -> None:
    (folder / "file").touch()


def a_shut_folder(folder: Path) -> None:
    (folder / "shut").mkdir(mode=0o500)


POSIX_ONLY = (
    "crypt",
    "curses",
    "fcntl",
    "grp",
    "nis",
    "posix",
    "pty",
    "pwd",
    "readline",
    "resource",
    "spwd",
    "syslog",
    "termios",
    "tty",
)
"""Modules of the standard library that Windows lacks: the tags "Unix" in its reference."""

IMPORT_ALL = """
import importlib, pkgutil, sys
import asyncio, getpass, shutil, subprocess, tempfile  # They have other ways on Windows.

sys.modules.update(dict.fromkeys(sys.argv[1:]))  # None there: importing it is an ImportError
import chatserver

for module in pkgutil.walk_packages(chatserver.__path__, "chatserver."):
    importlib.import_module(module.name)
importlib.import_module("twisted.plugins.asyncchat_plugin")
print("twisted.internet.reactor" in sys.modules)
"""


class ImportTests(SynchronousTestCase):
    """What the package imports."""

    def test_without_posix(self) -> None:
        """All modules can be imported where those that Windows lacks are missing, for Twisted
        and the other packages too. None of them imports the reactor, which would choose it.
        """
        done = subprocess.run(
            [sys.executable, "-c", IMPORT_ALL, *POSIX_ONLY],
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            check=False,
        )
        self.assertEqual((0, "", "False"), (done.returncode, done.stderr, done.stdout.strip()))

    def test_inside_functions(self) -> None:
        """No module names one that Windows lacks, not even where it is imported later, but in
        a try that has another way.
        """
        for path in sorted(Path(chatserver.__file__).parent.rglob("*.py")):
            tree = ast.parse(path.read_bytes())
            tried = {
                node
                for attempt in ast.walk(tree)
                if isinstance(attempt, ast.Try)
                and any("ImportError" in ast.unparse(each) for each in attempt.handlers)
                for node in attempt.body
            }
            for node in ast.walk(tree):
                if isinstance(node, ast.Import):
                    names = [alias.name for alias in node.names]
                elif isinstance(node, ast.ImportFrom):
                    names = [node.module or ""]
                else:
                    continue
                for name in names:
                    if node not in tried:
                        self.assertNotIn(name.partition(".")[0], POSIX_ONLY, str(path))

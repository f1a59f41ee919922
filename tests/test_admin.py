"""Tests for `chatserver.admin` and `chatserver.checks`: ``asyncchat-admin``."""

from __future__ import annotations

import getpass
import io
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Generator, Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

from argon2.exceptions import HashingError
from twisted.internet import reactor
from twisted.internet.defer import Deferred, DeferredQueue, inlineCallbacks
from twisted.internet.endpoints import serverFromString
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.python.failure import Failure
from twisted.trial.unittest import SkipTest, TestCase

from chatserver import __version__, admin, checks, database, descriptors
from chatserver.certificates import LIFETIME, CertificateError, create_self_signed, load
from chatserver.database import make_engine, parse_url
from chatserver.limits import FEW_FILES
from chatserver.listening import listen
from chatserver.packets import Command
from chatserver.passwords import Passwords, parse_cost
from chatserver.store import Store
from tests.databases import REFERENCE, REFERENCE_PASSWORDS
from tests.folders import enter_new_folder
from tests.processes import (
    CHEAP,
    OK,
    ProcessTestCase,
    Server,
    admin_command,
    environment,
    mode,
    script,
)
from tests.test_certificates import DAY, certificate_pem, ec_key, make_certificate

PASSWORD = b"correct horse"


class Stream(io.TextIOWrapper):
    """A standard stream, at a terminal or not."""

    def __init__(self, data: bytes = b"", is_terminal: bool = False) -> None:
        super().__init__(io.BytesIO(data), "utf-8", errors="surrogateescape", newline="")
        self.is_terminal = is_terminal

    def isatty(self) -> bool:
        return self.is_terminal

    @property
    def text(self) -> str:
        self.flush()
        return self.buffer.getvalue().decode()


class Quiet(Protocol):
    """Says nothing, and tells `gone` when the connection is no more."""

    packetsPerTurn = 1

    def __init__(self, gone: DeferredQueue[None]) -> None:
        self.gone = gone

    def tlsEnded(self) -> None:
        pass

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.gone.put(None)


class AdminCase(TestCase):
    """A test in a folder of its own, the server's."""

    def setUp(self) -> None:
        enter_new_folder(self)

    def run_admin(
        self, *arguments: str, stdin: bytes = b"", typed: Iterator[str] | None = None
    ) -> tuple[int, str, str]:
        """Return the exit status of a command, its output and its complaints.

        `typed` is what is typed at its questions, if there is a terminal.
        """
        is_terminal = typed is not None
        output, errors = Stream(is_terminal=is_terminal), Stream()
        streams = mock.patch.multiple(
            sys, stdin=Stream(stdin, is_terminal), stdout=output, stderr=errors
        )
        answers = mock.patch.object(getpass, "getpass", side_effect=typed)
        with streams, answers:
            return admin.run(arguments), output.text, errors.text

    def assert_done(self, *arguments: str, stdin: bytes = b"") -> str:
        """A command ends well. Return its output."""
        status, output, errors = self.run_admin(*arguments, stdin=stdin)
        self.assertEqual((0, ""), (status, errors))
        return output

    def assert_refused(self, told: str, *arguments: str, stdin: bytes = b"", status: int = 1):
        """A command complains in the one line `told`, and does nothing."""
        self.assertEqual(
            (status, "", f"asyncchat-admin: {told}\n"), self.run_admin(*arguments, stdin=stdin)
        )

    def logs_in(self, name: str, password: bytes) -> bool:
        """Tell whether `password` is the one of `name`."""
        store = Store(make_engine(parse_url("sqlite:///users.db", os.getcwd())))
        try:
            stored = store.find(name)
        finally:
            store.close()
        return Passwords(parse_cost(CHEAP[1])).verify(stored, password)

    def add(self, name: str = "alice", password: bytes = PASSWORD) -> None:
        """Make an account."""
        self.assert_done("adduser", name, *CHEAP, stdin=password + b"\n")


class AccountTests(AdminCase):
    """The commands that are about accounts."""

    def test_adduser(self) -> None:
        """An account is made before there is a database, which then is as the server makes it."""
        output = self.assert_done("adduser", "dörte", *CHEAP, stdin=PASSWORD + b"\n")
        self.assertEqual("added dörte\n", output)
        self.assertTrue(self.logs_in("dörte", PASSWORD))
        self.assertFalse(self.logs_in("dörte", b"another one"))
        if os.name == "posix":
            self.assertEqual(0o600, mode(Path("users.db")))
        self.assertEqual("dörte\n", self.assert_done("listusers"))

    def test_standard_input(self) -> None:
        """The password is the first line, bytes as they are, without the end of the line only."""
        for number, (stdin, password) in enumerate(
            {
                b"correct horse\nbattery\n": b"correct horse",
                b"correct horse\r\n": b"correct horse",
                b" correct\r horse \r\r\n": b" correct\r horse \r",
                b"correct horse\r": b"correct horse\r",
                b"correct horse": b"correct horse",
                b"\xff\xfe\x00 and more\n": b"\xff\xfe\x00 and more",
                b"p" * 1024 + b"\r\n": b"p" * 1024,
            }.items()
        ):
            self.assert_done("adduser", f"user{number}", *CHEAP, stdin=stdin)
            self.assertTrue(self.logs_in(f"user{number}", password), password)

    def test_names_and_passwords(self) -> None:
        """A name or a password that could not be registered is told with the rule."""
        for name, rule in {
            "": "the name is empty",
            "a:b": "a name holds no colon",
            "a" * 33: "a name has at most 32 characters",
            "Max Mustermann": "the name holds what a name may not hold",
            "\uff41": "the name is not in the one form that a name may have",
            "\udcff": "the name is not UTF-8",
        }.items():
            self.assert_refused(rule, "adduser", name, stdin=PASSWORD)
        passwords = {
            b"": "the password is empty",
            b"\n": "the password is empty",
            b"1234567\n": "a password has at least 8 bytes",
            b"p" * 1025: "a password has at most 1024 bytes",
        }
        for password, rule in passwords.items():
            self.assert_refused(rule, "adduser", "bob", stdin=password)
        self.assertEqual([], os.listdir("."))
        self.add()
        for password, rule in passwords.items():
            self.assert_refused(rule, "adduser", "bob", stdin=password)
            self.assert_refused(rule, "passwd", "alice", stdin=password)
        self.assert_done("adduser", "bob", "--min-password-length=1", *CHEAP, stdin=b"1")

    def test_name_taken(self) -> None:
        """A name that is taken is told, and its password stays."""
        self.add()
        self.assert_refused("there is an account 'alice' already", "adduser", "alice", stdin=b"x")
        self.assertTrue(self.logs_in("alice", PASSWORD))

    def test_name_taken_meanwhile(self) -> None:
        """A name that somebody takes while a password is being typed is told too."""
        self.add()
        self.patch(Store, "find", lambda self, name: None)
        self.assert_refused(
            "there is an account 'alice' already", "adduser", "alice", *CHEAP, stdin=PASSWORD
        )

    def test_passwd(self) -> None:
        """A password is changed, also of an old account whose name could not be made today."""
        shutil.copyfile(REFERENCE, "users.db")
        self.assert_done("passwd", "Max Mustermann", *CHEAP, stdin=b"battery staple")
        self.assertTrue(self.logs_in("Max Mustermann", b"battery staple"))
        self.assertTrue(self.logs_in("alice", REFERENCE_PASSWORDS["alice"].encode()))
        self.assert_refused("there is no account 'nobody'", "passwd", "nobody", stdin=b"x")

    def test_deluser(self) -> None:
        """An account is removed, and only that one."""
        shutil.copyfile(REFERENCE, "users.db")
        self.assertEqual("removed Max Mustermann\n", self.assert_done("deluser", "Max Mustermann"))
        self.assert_refused("there is no account 'Max Mustermann'", "deluser", "Max Mustermann")
        self.assertEqual(
            {*REFERENCE_PASSWORDS} - {"Max Mustermann"},
            {*self.assert_done("listusers").splitlines()},
        )

    def test_listusers(self) -> None:
        """Names come a line each: as they are, or at a terminal so that none can drive it."""
        self.add("bob")
        store = Store(make_engine(parse_url("sqlite:///users.db", os.getcwd())))
        self.addCleanup(store.close)
        stored = store.find("bob")
        assert stored is not None
        store.add("a\x1b[2J", stored)
        self.assertEqual("a\x1b[2J\nbob\n", self.assert_done("listusers"))
        status, output, _ = self.run_admin("listusers", typed=iter([]))
        self.assertEqual((0, "a\\x1b[2J\nbob\n"), (status, output))

    def test_no_database(self) -> None:
        """Where there is no database, only adduser makes one."""
        for command in (["passwd", "alice"], ["deluser", "alice"], ["listusers"]):
            status, output, errors = self.run_admin(*command)
            self.assertEqual((1, ""), (status, output))
            self.assertIn("users.db: there is no database yet", errors)
        self.assertEqual([], os.listdir("."))

    def test_database_option(self) -> None:
        """The database is the one of --database or of the file, before or behind the command."""
        Path("chat.toml").write_text("database = 'sqlite:///other.db'\nport = 1\n", "utf-8")
        self.assert_done("--config=chat.toml", "adduser", "alice", *CHEAP, stdin=PASSWORD)
        for arguments in (
            ["--database", "sqlite:///other.db", "listusers"],
            ["listusers", "--config", "chat.toml"],
            ["--config", "chat.toml", "--database", "sqlite:///other.db", "listusers"],
        ):
            self.assertEqual("alice\n", self.assert_done(*arguments))
        self.assertEqual(["chat.toml", "other.db"], sorted(os.listdir(".")))

    def test_unusable_database(self) -> None:
        """What is wrong with the database is told in one line, as by the server."""
        Path("users.db").write_text("nothing of use" * 100, "utf-8")
        path = os.path.abspath("users.db")
        self.assert_refused(f"{path} is not an SQLite database: name another file", "listusers")

    def test_failures(self) -> None:
        """A database or a hash that fails is told in one line."""
        self.add()

        def fail(*_: object) -> None:
            raise HashingError("Memory allocation error")

        self.patch(Passwords, "hash", fail)
        self.assert_refused(
            "--argon2: this machine can't do that: Memory allocation error",
            "passwd",
            "alice",
            stdin=PASSWORD,
        )
        self.patch(Store, "names", lambda self: self._engine.connect().exec_driver_sql("SELECT x"))
        self.assert_refused("the database failed: no such column: x; try again", "listusers")

    def test_usage(self) -> None:
        """A command line, or a file, that can't be understood is told in one line: status 2."""
        Path("chat.toml").write_text("prot = 1", "utf-8")
        for told, arguments in {
            "the following arguments are required: COMMAND": [],
            "the following arguments are required: NAME": ["adduser"],
            "unrecognized arguments: secret": ["adduser", "alice", "secret"],
            "unrecognized arguments: --port=1": ["listusers", "--port=1"],
        }.items():
            self.assert_refused(f"{told}; see asyncchat-admin --help", *arguments, status=2)
        for told, arguments in {
            "chat.toml, line 1: there is no option prot; did you mean port?": [
                "listusers",
                "--config=chat.toml",
            ],
            "--min-password-length is a number of bytes from 1 to 1024, not 'x'": [
                "adduser",
                "alice",
                "--min-password-length=x",
            ],
        }.items():
            self.assert_refused(told, *arguments, status=2)

    def test_help(self) -> None:
        """--help and --version go to the output, and end with 0."""
        for arguments, told in {
            ("--version",): f"asyncchat {__version__}",
            ("--help",): "usage: asyncchat-admin",
            ("deluser", "--help"): "a connection that is logged in stays",
            ("check", "--help"): "--stall-timeout",
        }.items():
            with mock.patch.object(sys, "stdout", Stream()) as output:
                with self.assertRaises(SystemExit) as caught:
                    admin.run(arguments)
                self.assertIn(told, " ".join(output.text.split()))
            self.assertEqual(0, caught.exception.code)


class PromptTests(AdminCase):
    """Questions at a terminal."""

    def ask(self, *typed: str) -> tuple[int, str, str]:
        """Return how adduser ends when `typed` are the answers."""
        return self.run_admin("adduser", "alice", *CHEAP, typed=iter(typed))

    def test_twice(self) -> None:
        """The password is asked for twice, and is what was typed."""
        self.assertEqual(0, self.ask("größer als", "größer als")[0])
        self.assertTrue(self.logs_in("alice", "größer als".encode()))

    def test_differ(self) -> None:
        """Two passwords that differ are no password."""
        self.assertEqual(
            (1, "", "asyncchat-admin: the two passwords differ; nothing was done\n"),
            self.ask("correct horse", "correct house"),
        )
        self.assertEqual([], os.listdir("."))

    def test_no_place(self) -> None:
        """Nobody types a password for a database that can't be made."""
        status, _, errors = self.run_admin(
            "adduser", "alice", "--database=sqlite:///no/x.db", typed=iter([])
        )
        self.assertEqual(1, status)
        self.assertIn("there is no folder", errors)

    def test_too_short(self) -> None:
        """A password that breaks a rule is not asked for again."""
        self.assertEqual(
            (1, "", "asyncchat-admin: a password has at least 8 bytes\n"), self.ask("short")
        )

    def test_name_taken(self) -> None:
        """Nobody types a password for a name that is taken, or for one that is not there."""
        self.add()
        self.assertEqual(
            (1, "", "asyncchat-admin: there is an account 'alice' already\n"), self.ask()
        )
        self.assertEqual(
            (1, "", "asyncchat-admin: there is no account 'bob'\n"),
            self.run_admin("passwd", "bob", typed=iter([])),
        )

    def test_end_of_input(self) -> None:
        """Ctrl-D is told in one line."""

        def end() -> Iterator[str]:
            raise EOFError
            yield

        status, output, errors = self.run_admin("adduser", "alice", *CHEAP, typed=end())
        self.assertEqual((1, ""), (status, output))
        self.assertEqual("\nasyncchat-admin: no password was given; nothing was done\n", errors)


class CheckTests(AdminCase):
    """``asyncchat-admin check``."""

    def check(self, *arguments: str) -> tuple[int, dict[str, str]]:
        """Return the exit status, and what is told of each subject."""
        if not any(each.startswith("--port") for each in arguments):
            arguments = ("--port=0", *arguments)
        status, output, errors = self.run_admin("check", *arguments)
        self.assertEqual("", errors)
        return status, {line[:13].strip(): line[15:] for line in output.splitlines()}

    def tearDown(self) -> Deferred[None]:
        # The port that was tried is closed in the reactor's next turn.
        return deferLater(reactor, 0, lambda: None)

    def wrong(self, subject: str, *arguments: str) -> str:
        """Return what is told of `subject`, which alone is wrong."""
        status, told = self.check(*arguments)
        self.assertEqual(1, status)
        bad = {key: text.removeprefix("WRONG: ") for key, text in told.items() if text[:2] != "OK"}
        self.assertEqual([subject], list(bad))
        return bad[subject]

    def test_before_the_first_start(self) -> None:
        """In an empty folder all is fine, and it stays empty."""
        status, told = self.check()
        self.assertEqual(0, status)
        self.assertEqual(
            ["configuration", "certificate", "database", "file limit", "port", "log file"],
            [*told],
        )
        self.assertEqual("OK: no file, only options and defaults", told["configuration"])
        self.assertIn("will be made at the first start", told["certificate"])
        self.assertIn("will be created at the first start", told["database"])
        self.assertEqual("OK: 0 is free", told["port"])
        self.assertEqual([], os.listdir("."))

    def test_after_the_first_start(self) -> None:
        """With all files there, it says what they are, and leaves them as they are."""
        self.add()
        create_self_signed("certs/server.crt", "certs/server.key", datetime.now(UTC))
        Path("chat.toml").write_text("port = 0", "utf-8")
        before = {path: path.stat().st_mtime_ns for path in Path(".").rglob("*")}
        status, told = self.check("--config=chat.toml")
        self.assertEqual(0, status)
        self.assertEqual("OK: chat.toml", told["configuration"])
        self.assertRegex(told["certificate"], r"\AOK: .*server\.crt, good for 364\d more days\Z")
        self.assertRegex(told["database"], r"\AOK: .*users\.db, schema 1\Z")
        self.assertEqual(before, {path: path.stat().st_mtime_ns for path in Path(".").rglob("*")})

    def test_configuration(self) -> None:
        """Each mistake in the file has a line of its own, and what is right in it counts."""
        Path("chat.toml").write_text(
            "prot = 1\nstall-timeout = -1\nport = 70000\nlog-file = 'chat.log'\n", "utf-8"
        )
        self.add()
        status, output, _ = self.run_admin("check", "--config=chat.toml")
        self.assertEqual(1, status)
        lines = output.splitlines()
        self.assertEqual(
            [
                "configuration  WRONG: chat.toml, line 1: there is no option prot;"
                " did you mean port?",
                "configuration  WRONG: chat.toml, line 2: --stall-timeout is a number of seconds"
                ", 0 for no limit, not '-1'",
            ],
            lines[:2],
        )
        self.assertIn(
            "port           WRONG: chat.toml, line 3: --port 70000: a port number is at most 65535",
            lines,
        )
        self.assertTrue(lines[-1].endswith("chat.log"), lines[-1])

    def test_no_configuration(self) -> None:
        """Without a file that can be read, the rest is looked at without one."""
        self.assertIn(
            "; what follows goes without the file", self.wrong("configuration", "--config=no.toml")
        )
        Path("chat.toml").write_text("port = x", "utf-8")
        self.assertIn("chat.toml, line 1", self.wrong("configuration", "--config=chat.toml"))

    def test_places(self) -> None:
        """What is wrong with a file that the configuration names is told with the line there."""
        Path("chat.toml").write_text(
            "database = 'sqlite:///no/x.db'\ncertificate = 'chat.toml'\nprivate-key = 'chat.toml'\n"
            "log-file = 'chat.toml/log'\n",
            "utf-8",
        )
        _, told = self.check("--config=chat.toml")
        for subject, line in {"database": 1, "certificate": 2, "log file": 4}.items():
            self.assertTrue(told[subject].startswith(f"WRONG: chat.toml, line {line}: "), told)

    def test_command_line(self) -> None:
        """A mistake on the command line is one: nothing is looked at."""
        self.assert_refused(
            "--stall-timeout is a number of seconds, 0 for no limit, not '-1'",
            "check",
            "--stall-timeout=-1",
            status=2,
        )

    def test_certificate(self) -> None:
        """A certificate that has expired, or soon will, and a key for all to read are told."""
        now = datetime.now(UTC)
        for days, told in {3: "good for 2 more days only", -3: "has expired"}.items():
            create_self_signed("crt", "key", now - LIFETIME + timedelta(days=days + 1))
            self.assertIn(told, self.wrong("certificate", "--certificate=crt", "--private-key=key"))
            os.remove("crt")
            os.remove("key")
        if os.name == "posix":
            create_self_signed("crt", "key", now)
            os.chmod("key", 0o644)
            self.assertIn(
                "can be read by others; take that away: chmod 600",
                self.wrong("certificate", "--certificate=crt", "--private-key=key"),
            )

    def test_beside_the_certificate(self) -> None:
        """What TLS needs beside a certificate is tried before there is one, as at the start."""
        Path("file").write_text("nothing of use", "utf-8")
        now = datetime.now(UTC)
        create_self_signed("crt", "key", now)
        for option, paths in {"dh-params": ("file", None), "client-ca": (None, "file")}.items():
            told = self.wrong("certificate", f"--{option}=file")
            self.assertTrue(told.startswith(os.path.abspath("file")), told)
            dh_params, client_ca = (path and os.path.abspath(path) for path in paths)
            with self.assertRaises(CertificateError) as caught:
                load("crt", "key", dh_params, now, client_ca_path=client_ca)
            self.assertEqual(str(caught.exception), told)
        self.assertFalse(os.path.exists("certs"))

    def test_database(self) -> None:
        """A database that the server could not use is told as the server would."""
        os.mkdir("users.db")
        self.assertIn("users.db is a folder: name a file", self.wrong("database"))
        self.assertIn("there is no folder", self.wrong("database", "--database=sqlite:///no/x.db"))

    def test_old_database(self) -> None:
        """A database that the next start will upgrade is fine."""
        shutil.copyfile(REFERENCE, "users.db")
        status, told = self.check()
        self.assertEqual(0, status)
        newest = len(database.MIGRATIONS)
        self.assertTrue(
            told["database"].endswith(f"schema 0, to be upgraded to {newest} at the next start")
        )

    def test_port(self) -> None:
        """A port that another program has, and one that can't be had at all, are told."""
        self.patch(checks, "PROBE_TIMEOUT", 0.1)
        taken = self.successResultOf(
            serverFromString(reactor, "tcp:0:interface=127.0.0.1").listen(Factory())
        )
        self.addCleanup(taken.stopListening)
        port = f"tcp:{taken.getHost().port}:interface=127.0.0.1"
        self.assertRegex(
            self.wrong("port", f"--port={port}"),
            rf"\A--port {port}: in use, but no server with the certificate \S+/certs/server.crt"
            " answers there; stop what does, or give another --port\\Z",
        )
        self.assertIn("nonsense", self.wrong("port", "--port=nonsense"))
        status, told = self.check(f"--port=haproxy:{port}")
        self.assertEqual(0, status)
        self.assertEqual(
            f"OK: haproxy:{port} is in use; whether by the server can't be seen at such a port",
            told["port"],
        )

    def test_unix_port(self) -> None:
        """Who has a UNIX socket is not tried."""
        if not hasattr(socket, "AF_UNIX"):
            raise SkipTest("there are no such sockets here")
        taken = self.successResultOf(serverFromString(reactor, "unix:chat").listen(Factory()))
        self.addCleanup(taken.stopListening)
        self.assertIn("can't be seen", self.check("--port=unix:chat")[1]["port"])

    @inlineCallbacks
    def test_own_port(self) -> Generator[Deferred[Any], Any, None]:
        """The running server is known by its certificate, also if it asks for one itself."""
        now = datetime.now(UTC)
        authority = make_certificate(ec_key(), authority=True, start=now - DAY, end=now + LIFETIME)
        Path("ca.crt").write_bytes(certificate_pem(authority))
        for name in ("certs/server", "other"):
            create_self_signed(f"{name}.crt", f"{name}.key", now)
        for ca in (None, "ca.crt"):
            served = load("certs/server.crt", "certs/server.key", None, now, client_ca_path=ca)
            gone: DeferredQueue[None] = DeferredQueue()
            taken = listen(
                reactor, "0", served.tls_options, Factory.forProtocol(partial(Quiet, gone))
            )
            self.addCleanup(taken.stopListening)
            port = taken.getHost().port
            status, told = yield deferToThread(self.check, f"--port={port}")
            self.assertEqual(0, status)
            self.assertEqual(
                f"OK: {port} is in use, by a server with this certificate", told["port"]
            )
            yield gone.get()
            status, told = yield deferToThread(
                self.check, f"--port={port}", "--certificate=other.crt", "--private-key=other.key"
            )
            self.assertEqual(1, status)
            self.assertIn("but no server with the certificate", told["port"])
            yield gone.get()

    def test_file_limit(self) -> None:
        """A limit on open files that leaves few clients is told, with where to raise it."""
        if descriptors.resource is None:
            raise SkipTest("there is no such limit here")
        limits = {
            (256, 512): "256 open files, which can be raised to 512: enough for 448 connections, "
            "but it should be for 960;",
            (descriptors.resource.RLIM_INFINITY,) * 2: None,
            (1024, FEW_FILES): None,
        }
        for limit, told in limits.items():
            self.patch(descriptors.resource, "getrlimit", lambda _, limit=limit: limit)
            if told is None:
                self.assertEqual(0, self.check()[0])
            else:
                self.assertIn(told, self.wrong("file limit"))
        self.patch(descriptors.resource, "getrlimit", lambda _: (256, 512))
        self.assertEqual(0, self.check("--max-connections=448")[0])
        self.patch(descriptors.resource, "getrlimit", lambda _: (1024, 524288))
        self.assertIn("for the 15000 connections of --max-conn", self.check()[1]["file limit"])
        self.patch(descriptors.resource, "getrlimit", lambda _: (256, 512))
        told = self.wrong("file limit", "--max-connections=449")
        self.assertIn("enough for 448 connections, but it should be for 449", told)

    def test_unix_socket(self) -> None:
        """To see whether a UNIX socket is free leaves no file behind."""
        self.assertEqual(0, self.check("--port=unix:socket")[0])
        self.assertEqual([], os.listdir("."))

    def test_log_file(self) -> None:
        """A place where no log can be written is told."""
        Path("file").write_text("", "utf-8")
        os.mkdir("folder")
        self.assertIn("is no folder for the log", self.wrong("log file", "--log-file=file/x.log"))
        self.assertIn("is a folder", self.wrong("log file", "--log-file=folder"))
        for path in ("-", os.devnull):
            self.assertEqual(0, self.check(f"--log-file={path}")[0])
        self.assertEqual({"file", "folder"}, {*os.listdir(".")})

    def test_shared_file(self) -> None:
        """A log that would be written into the database is told."""
        status, told = self.check("--log-file=users.db")
        self.assertEqual(1, status)
        for subject, text in {
            "log file": "--log-file: users.db is the file of --database too",
            "database": "users.db is the file of --log-file too",
        }.items():
            self.assertIn(text, told[subject])

    def test_not_writable(self) -> None:
        """Folders that the server could not write to are told, each where it is needed."""
        # Modes would not keep root from writing.
        access = os.access
        self.patch(os, "access", lambda path, how: how != os.W_OK | os.X_OK and access(path, how))
        status, told = self.check()
        self.assertEqual(1, status)
        for subject in ("certificate", "database", "log file"):
            self.assertRegex(told[subject], r"\AWRONG: .* let the server's user write there\Z")


class AdminProcessTests(ProcessTestCase):
    """The command itself, beside a server."""

    def command(self, folder: Path, *arguments: str, stdin: bytes = b"") -> tuple[int, bytes, str]:
        """Return how a command in `folder` ends."""
        ended = subprocess.run(
            [*admin_command(), *arguments],
            cwd=folder,
            env=environment(folder),
            input=stdin,
            capture_output=True,
            timeout=60,
            check=False,
        )
        return ended.returncode, ended.stdout, ended.stderr.decode()

    def test_before_and_beside_the_server(self) -> None:
        """An account that was made before the server's first start logs in; while the server
        runs, a new password counts at once, and check finds everything fine.
        """
        folder = self.folder()
        added = self.command(folder, "adduser", "alice", *CHEAP, stdin=b"correct horse\n")
        self.assertEqual((0, b"added alice\n", ""), added)
        (folder / "chat.toml").write_text("port = 0\nargon2 = 'm=8,t=1,p=1'\n", "utf-8")
        server = Server([*script("twistd"), "-n", "asyncchat", "--config", "chat.toml"], folder)
        self.addCleanup(server.kill)
        port = server.wait_for_port(lambda: server.log)
        client = self.connect(port)
        self.assertEqual(OK, client.ask(Command.LOGIN, b"alice:correct horse"))

        changed = self.command(folder, "passwd", "alice", *CHEAP, stdin=b"battery staple\n")
        self.assertEqual((0, b"changed the password of alice\n", ""), changed)
        client = self.connect(port)
        self.assertEqual(OK, client.ask(Command.LOGIN, b"alice:battery staple"))

        status, output, errors = self.command(folder, "check", "--port", str(port))
        self.assertEqual((0, ""), (status, errors), output)
        self.assertIn(b"is in use, by a server with this certificate", output)

    def test_reader_that_has_enough(self) -> None:
        """``listusers | head`` ends quietly, and a disk that is full in one line."""
        folder = self.folder()
        url = parse_url("sqlite:///users.db", str(folder))
        database.prepare(url)
        engine = make_engine(url)
        with engine.begin() as connection:
            connection.exec_driver_sql(
                "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 20000)"
                " INSERT INTO users SELECT 'user' || i, '', '' FROM n"
            )
        engine.dispose()
        command = [*admin_command(), "listusers"]
        with subprocess.Popen(
            command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            self.assertEqual(b"user1\n", process.stdout.readline())
            process.stdout.close()
            self.assertEqual(b"", process.stderr.read())
            self.assertEqual(0, process.wait(60))
        if os.path.exists("/dev/full"):
            with open("/dev/full", "wb") as full:
                ended = subprocess.run(
                    command, cwd=folder, stdout=full, stderr=subprocess.PIPE, check=False
                )
            self.assertEqual(1, ended.returncode)
            told = b"asyncchat-admin: the output cannot be written: No space left on device\n"
            self.assertEqual(told, ended.stderr)

    def test_prompt(self) -> None:
        """At a terminal the password is asked for twice, and not shown; Ctrl-C ends it in one
        line.
        """
        # Not at the top: it is for POSIX only.
        import pexpect  # noqa: PLC0415

        folder = self.folder()
        command, *rest = [*admin_command(), "adduser", "alice", *CHEAP]

        def spawn() -> pexpect.spawn:
            child = pexpect.spawn(
                command, rest, cwd=str(folder), env=environment(folder), timeout=20
            )
            self.addCleanup(child.close, force=True)
            child.expect_exact("New password for alice: ")
            return child

        child = spawn()
        child.sendintr()
        child.expect(pexpect.EOF)
        child.wait()
        self.assertEqual(b"asyncchat-admin: interrupted", child.before.strip())
        self.assertEqual(128 + signal.SIGINT, child.exitstatus)

        child = spawn()
        child.sendline("correct horse")
        child.expect_exact("The password again: ")
        child.sendline("correct horse")
        child.expect(pexpect.EOF)
        child.wait()
        self.assertEqual(b"added alice", child.before.strip())
        self.assertEqual(0, child.exitstatus)

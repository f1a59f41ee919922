"""Tests for `chatserver.tap`, `chatserver.options` and `chatserver.listening`, in this process."""

from __future__ import annotations

import io
import os
import re
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any
from unittest.mock import patch

from argon2.exceptions import HashingError
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.protocol import Factory
from twisted.trial.unittest import TestCase

from chatserver import __version__, listening, tap
from chatserver.limits import MAX_AUTO_CONNECTIONS
from chatserver.listening import ListenError, listen
from chatserver.passwords import Passwords
from chatserver.proxied import HeaderFactory
from chatserver.tap import Options, makeService
from chatserver.testing import server_certificate
from tests.folders import enter_new_folder

DAEMON: dict[str, Any] = {"nodaemon": False, "debug": False, "pidfile": ""}
"""twistd's options for a daemon."""


class TapCase(TestCase):
    """A test in a folder of its own, from which the server would be started."""

    def setUp(self) -> None:
        enter_new_folder(self)

    def refusal(self, *arguments: str, twistd: dict[str, Any] | None = None) -> str:
        """Return what is told to an operator who starts the server with `arguments`.

        `twistd` are twistd's options; without them it is not twistd that starts it.
        """
        options = Options()
        options.parent = twistd
        with self.assertRaises(SystemExit) as caught:
            options.parseOptions(["--port=0", *arguments])
            makeService(options, reactor)
        text = str(caught.exception.code)
        self.assertTrue(text.startswith("asyncchat: "), text)
        self.assertEqual(len(text.splitlines()), 1, text)
        return text.removeprefix("asyncchat: ")


class OptionTests(TapCase):
    """The command line."""

    def test_values(self) -> None:
        """A value that an option can't have is told with the option's name."""
        for option, value in (
            ("invitation-timeout", "soon"),
            ("handshake-timeout", "1e10"),
            ("login-timeout", ""),
            ("drain-timeout", "-0.1"),
            ("failed-logins", "often"),
            ("failed-logins", "0/minute"),
            ("failed-logins", "1/minute;5/hour"),
            ("registrations", "10"),
            ("invitations", "-1/minute"),
            ("registration", "perhaps"),
            ("connections-per-address", "-1"),
            ("connections-per-address", ""),
            ("max-connections", "9999999999"),
            ("max-connections", "1.5"),
            ("invitation-timeout", "nan"),
            ("stall-timeout", "-1"),
            ("stall-timeout", "inf"),
            ("min-password-length", "0"),
            ("min-password-length", "1025"),
            ("min-password-length", "8.5"),
            ("argon2", "m=1,t=1,p=1"),
            ("argon2", "m=8"),
            ("port", ""),
            ("port", "65536"),
            ("port", "9" * 5000),
            ("port", "-1"),
            ("port", "\N{ARABIC-INDIC DIGIT THREE}"),
            ("port", "ssl:5555"),
            ("port", "haproxy:ssl:5555"),
            ("port", "stdio:"),
            ("port", "nonsense:5555"),
            ("port", "tcp:x"),
            ("database", ""),
            ("certificate", ""),
            ("dh-params", ""),
            ("client-ca", ""),
            ("log-file", ""),
        ):
            text = self.refusal(f"--{option}={value}")
            self.assertTrue(text.startswith(f"--{option}"), text)

    def test_files(self) -> None:
        """A file that can't be used is told with its name."""
        with open("file", "w", encoding="ascii") as file:
            file.write("nothing of use")
        for option in (
            *("log-file=file/log", "certificate=file/crt", "dh-params=file"),
            "client-ca=file",
        ):
            self.assertIn(os.path.abspath("file"), self.refusal(f"--{option}"))
        self.assertIn(os.path.abspath("no"), self.refusal("--database=sqlite:///no/users.db"))

    def test_shared_files(self) -> None:
        """A file that is written to is that of no other option, by whatever name."""
        os.mkdir("here")
        os.symlink(os.path.abspath("here"), "there")
        Path("here/one").touch()
        os.link("here/one", "here/other")
        for arguments, told in (
            (("--log-file=here/one", "--client-ca=here/other"), "is the file of --client-ca too"),
            (("--log-file=users.db",), "--log-file: users.db is the file of --database too"),
            (("--database=sqlite:///logs/server.log",), "is the file of --database too"),
            (("--log-file=certs/server.key",), "is the file of --private-key too"),
            (("--log-file=here/x", "--certificate=there/x"), "is the file of --certificate too"),
            (("--log-file=x", "--dh-params=./x"), "is the file of --dh-params too"),
            (("--log-file=-", "--database=sqlite:///x", "--client-ca=x"), "of --client-ca too"),
        ):
            self.assertIn(told, self.refusal(*arguments))
        self.assertEqual(sorted(os.listdir()), ["here", "there"])

    def test_databases(self) -> None:
        """A database URL that is none, or whose options the driver refuses, is told as such."""
        for url in (
            "users.db",
            "mysql://localhost/chat",
            "sqlite://",
            "postgresql://localhost:x/chat",
            "postgresql://127.0.0.1:1/chat?plugin=none",
            "postgresql://127.0.0.1:1/chat?prepare_threshold=x",
        ):
            self.refusal(f"--database={url}")

    def test_hashing_that_cannot_be(self) -> None:
        """A cost of hashing that this machine does not have is told at the start."""

        def fail(*_: object) -> None:
            raise HashingError("Memory allocation error")

        self.patch(Passwords, "hash", fail)
        self.assertEqual(
            self.refusal(), "--argon2: this machine can't do that: Memory allocation error"
        )

    def test_no_extra(self) -> None:
        """A cluster without what it stands on is told how to install that."""
        with patch.dict(sys.modules, {"chatserver.cluster.membership": None}):
            self.assertEqual(
                self.refusal("--cluster=nats://127.0.0.1"),
                "--cluster needs nats-py and msgspec: pip install 'asyncchat[cluster]'",
            )

    def test_cluster_options(self) -> None:
        """What can't be right about a cluster is told in one line."""
        for arguments, text in (
            (["--cluster="], "--cluster needs a value"),
            (["--cluster-ca=x"], "--cluster-ca is of no use without --cluster"),
            (["--cluster-prefix=x"], "--cluster-prefix is of no use without --cluster"),
            (["--cluster-prefix=a..b"], "--cluster-prefix is made of letters"),
            (["--cluster=nats://127.0.0.1"], "asyncio reactor: twistd --reactor asyncio"),
        ):
            self.assertIn(text, self.refusal(*arguments))

    def test_max_connections(self) -> None:
        """A number of connections is taken as it is; auto is bounded."""
        for value, total in {"20000": 20_000, "0": None, "auto": MAX_AUTO_CONNECTIONS}.items():
            options = Options()
            options.parseOptions([f"--max-connections={value}"])
            self.assertEqual(tap._connection_limits(options, 1 << 30).total, total)

    def test_arguments(self) -> None:
        """Options that do not exist, and arguments that are none, are told."""
        self.assertIn("--no-such-option", self.refusal("--no-such-option"))
        self.assertIn("'start'", self.refusal("start"))

    def test_version(self) -> None:
        """The version is the server's, not Twisted's."""
        output = io.StringIO()
        with redirect_stdout(output), self.assertRaises(SystemExit) as caught:
            Options().parseOptions(["--version"])
        self.assertEqual(caught.exception.code, 0)
        self.assertEqual(output.getvalue(), f"asyncchat {__version__}\n")


class DocumentTests(TestCase):
    """What the documents say of the options."""

    def test_defaults(self) -> None:
        """The tables have each option with its default: README.md all, operations.md the limits."""

        def table(name: str) -> dict[str, str]:
            text = (Path(__file__).parent.parent / name).read_text("utf-8")
            return dict(re.findall(r"(?m)^\| `--([a-z0-9-]+)` \| `?([^|`]+)`? \|", text))

        defaults = {name: value or "none" for name, value in Options().defaults.items()}
        self.assertEqual(table("README.md"), defaults)
        limits = table("docs/operations.md")
        self.assertEqual(limits, {name: defaults[name] for name in limits})
        self.assertIn("max-connections", limits)


class TwistdTests(TapCase):
    """What twistd was asked for beside it."""

    def test_refused(self) -> None:
        """What twistd would do, or fail to do, after the server is put together is refused."""
        for option, value in (
            ("uid", 65534),
            ("gid", 65534),
            ("chroot", "/"),
            ("rundir", "no"),
            ("pidfile", "no/twistd.pid"),
        ):
            twistd = {"nodaemon": True, "debug": False, "pidfile": "", option: value}
            text = self.refusal(twistd=twistd)
            self.assertIn("pid file" if option == "pidfile" else f"--{option}", text)

    def test_daemon_needs_log_file(self) -> None:
        """A daemon has no terminal to log to."""
        if not hasattr(os, "fork"):
            self.skipTest("there are no daemons here")
        self.assertIn("--log-file -", self.refusal("--log-file=-", twistd=DAEMON))

    def test_daemon_needs_streams(self) -> None:
        """A daemon can't start without standard streams, whose numbers its files would get."""
        if not hasattr(os, "fork"):
            self.skipTest("there are no daemons here")
        self.patch(sys, "stdin", None)
        self.assertIn("standard stream", self.refusal(twistd=DAEMON))


class ListenTests(TestCase):
    """`listen`, where the processes of the other tests don't get."""

    def test_not_at_once(self) -> None:
        """An endpoint that takes its time to listen is refused."""

        class Endpoint:
            def listen(self, factory: Factory) -> Deferred[Any]:
                return Deferred()

        self.patch(listening, "serverFromString", lambda *_: Endpoint())
        with self.assertRaises(ListenError) as caught:
            listen(reactor, "slow:1", server_certificate().tls_options, Factory())
        self.assertIn("--port slow:1", str(caught.exception))

    def test_backlog(self) -> None:
        """An endpoint lets many wait to be accepted, unless it says itself how many."""
        for description, more in (
            ("tcp:5555", ":backlog=1024"),
            ("tcp6:5555", ":backlog=1024"),
            ("tcp6:5555:interface=\\:\\:1", ":backlog=1024"),
            ("tcp:5555:backlog=7", ""),
            ("tcp:5555:127.0.0.1:7", ""),
            ("unix:/tmp/socket", ":backlog=1024"),
        ):
            self.assertEqual(listening._with_backlog(description), description + more)

    def test_proxied(self) -> None:
        """A port is behind a proxy however that is written, and once."""
        listened: list[Factory] = []
        self.patch(listening, "_listen", lambda _, __, factory: listened.append(factory))
        for description in ("haproxy:tcp:0", "HAProxy:tcp:0"):
            listen(reactor, description, server_certificate().tls_options, Factory())
            self.assertIsInstance(listened.pop(), HeaderFactory)

    def test_proxied_twice(self) -> None:
        """Two proxies on one way are not thought of, and neither is TLS below TLS."""
        for description, told in (
            ("haproxy:HAProxy:tcp:0", "once is enough"),
            ("haproxy:SSL:0", "TLS is always put on top"),
        ):
            with self.assertRaisesRegex(ListenError, told):
                listen(reactor, description, server_certificate().tls_options, Factory())

    def test_without_ipv6(self) -> None:
        """Where there is no IPv6, a number listens for IPv4."""
        self.patch(listening.socket, "has_dualstack_ipv6", lambda: False)
        port = listen(reactor, "0", server_certificate().tls_options, Factory())
        self.addCleanup(port.stopListening)
        self.assertEqual(port.getHost().type, "TCP")
        self.assertEqual(port.getHost().host, "0.0.0.0")

    def test_reserved(self) -> None:
        """A port that somebody else has is told with what to do."""
        taken = self.successResultOf(
            serverFromString(reactor, "tcp:0:interface=127.0.0.1").listen(Factory())
        )
        self.addCleanup(taken.stopListening)
        description = f"tcp:{taken.getHost().port}:interface=127.0.0.1"
        with self.assertRaises(ListenError) as caught:
            listen(reactor, description, server_certificate().tls_options, Factory())
        self.assertIn("in use; stop the server that has it", str(caught.exception))

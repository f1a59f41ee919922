"""The options of ``twistd asyncchat``: their names, defaults and checks."""

from __future__ import annotations

import getopt
import math
import os
import re
import sys
from collections.abc import Sequence
from typing import ClassVar

from twisted.python.usage import Options as TwistedOptions
from twisted.python.usage import UsageError

from chatserver import __version__
from chatserver.certificates import DEFAULT_CERTIFICATE, DEFAULT_PRIVATE_KEY
from chatserver.config import EXAMPLE, ConfigError, read
from chatserver.credentials import MAX_PASSWORD_LENGTH
from chatserver.errors import OperatorError
from chatserver.limits import (
    CONNECTIONS_PER_ADDRESS,
    DRAIN_TIMEOUT,
    FAILED_LOGINS,
    HANDSHAKE_TIMEOUT,
    INVITATION_TIMEOUT,
    INVITATIONS,
    LOG_LINES,
    LOGIN_TIMEOUT,
    MAX_AUTO_CONNECTIONS,
    MAX_SECONDS,
    MIN_PASSWORD_LENGTH,
    REGISTRATIONS,
    STALL_TIMEOUT,
)
from chatserver.listening import DEFAULT_PORT
from chatserver.logfile import DEFAULT_LOG_FILE
from chatserver.passwords import DEFAULT_COST, parse_cost
from chatserver.rates import Rate, parse_rate

DEFAULT_DATABASE = "sqlite:///users.db"
"""The reference server's file name, in the current folder."""

NO_LOG_FILE = "-"
"""The value of ``--log-file`` that means none but the terminal."""

DEFAULT_CLUSTER_PREFIX = "asyncchat"
"""What the subjects of a cluster begin with, if nobody says otherwise."""

_PREFIX = re.compile(r"(?=.{1,100}$)[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*")

MAX_DIGITS = 9
"""More connections than a machine can have."""

AUTO = "auto"
"""The value of ``--max-connections`` that goes by the file limit, up to `MAX_AUTO_CONNECTIONS`."""

OPEN, CLOSED = "open", "closed"
"""The values of ``--registration``."""

FILE_OPTIONS = (
    "log-file",
    "certificate",
    "private-key",
    "dh-params",
    "client-ca",
    "config",
    "cluster-ca",
    "cluster-credentials",
)
"""The options that name a file by its path."""

_NAME = re.compile("--([a-z0-9-]+)")
"""How the text of a mistake starts that is about one option."""


class Options(TwistedOptions):
    """What an operator may choose. A mistake ends in one line on stderr and status 1."""

    synopsis = "[options]"
    longdesc = (
        "A TLS-only server for private one-to-one chat. Rates are written as 10/minute or "
        "100 per 2 hours; 0 switches a rate, a number of connections or a time-out off."
    )

    optParameters: ClassVar[list[list[str | None]]] = [
        [
            "config",
            None,
            None,
            f"A TOML file of these options, a line each, such as {EXAMPLE}. "
            "What is given here wins. [default: none]",
        ],
        [
            "port",
            "p",
            DEFAULT_PORT,
            "A port number, for IPv4 and IPv6, or a Twisted endpoint description such as "
            "tcp:5555:interface=127.0.0.1. TLS is put on top.",
        ],
        [
            "database",
            "d",
            DEFAULT_DATABASE,
            "Where the accounts are: sqlite:///FILE, or postgresql+psycopg://USER@HOST/NAME.",
        ],
        [
            "certificate",
            "c",
            DEFAULT_CERTIFICATE,
            "The certificate, a PEM file, its chain behind it. Made at the first start, "
            "with the key, if neither file exists.",
        ],
        ["private-key", "k", DEFAULT_PRIVATE_KEY, "The certificate's private key, a PEM file."],
        [
            "dh-params",
            None,
            None,
            "Diffie-Hellman parameters, a PEM file, for old clients without elliptic "
            "curves. [default: none]",
        ],
        [
            "client-ca",
            None,
            None,
            "A PEM file of CAs. Each client has to show a certificate that one of them has "
            "signed. [default: none]",
        ],
        [
            "log-file",
            "l",
            DEFAULT_LOG_FILE,
            f"The log. {NO_LOG_FILE} is none but the terminal.",
        ],
        [
            "registration",
            None,
            OPEN,
            f"Who can make an account: {OPEN} is everybody, {CLOSED} is only asyncchat-admin.",
        ],
        [
            "min-password-length",
            None,
            str(MIN_PASSWORD_LENGTH),
            "Bytes that a new password must have at least.",
        ],
        [
            "argon2",
            None,
            DEFAULT_COST,
            "What hashing a password costs: m=KiB of memory,t=passes,p=lanes.",
        ],
        [
            "registrations",
            None,
            REGISTRATIONS,
            "How many registrations one address may try.",
        ],
        [
            "failed-logins",
            None,
            FAILED_LOGINS,
            "How many logins may fail, for one address and for one account.",
        ],
        [
            "invitations",
            None,
            INVITATIONS,
            "How many invitations one account may send.",
        ],
        [
            "connections-per-address",
            None,
            str(CONNECTIONS_PER_ADDRESS),
            "Connections that one address may have; IPv6 is counted by /64.",
        ],
        [
            "max-connections",
            None,
            AUTO,
            f"Connections in all. {AUTO} is as many as the file limit lets there be, "
            f"{MAX_AUTO_CONNECTIONS} at most.",
        ],
        [
            "handshake-timeout",
            None,
            f"{HANDSHAKE_TIMEOUT:g}",
            "Seconds for the TLS handshake.",
        ],
        [
            "login-timeout",
            None,
            f"{LOGIN_TIMEOUT:g}",
            "Seconds from there until a client has logged in.",
        ],
        [
            "cluster",
            None,
            None,
            "NATS, over which several machines are one server: nats://HOST:4222, or some of them "
            "with commas in between. Needs PostgreSQL, and twistd's --reactor asyncio. "
            "[default: none]",
        ],
        [
            "cluster-prefix",
            None,
            DEFAULT_CLUSTER_PREFIX,
            "What the cluster's subjects in NATS begin with: two clusters can share one NATS.",
        ],
        [
            "cluster-ca",
            None,
            None,
            "A PEM file with the CA of NATS's certificate. [default: the system's]",
        ],
        [
            "cluster-credentials",
            None,
            None,
            "A file with NATS's token, or with a user's credentials (.creds). [default: none]",
        ],
        [
            "log-lines",
            None,
            LOG_LINES,
            "Log lines of one kind from one address; what is left out is counted.",
        ],
        [
            "invitation-timeout",
            None,
            f"{INVITATION_TIMEOUT:g}",
            "Seconds that an invitation waits for its answer.",
        ],
        [
            "stall-timeout",
            None,
            f"{STALL_TIMEOUT:g}",
            "Seconds without progress in sending after which a client is cut off.",
        ],
        [
            "drain-timeout",
            None,
            f"{DRAIN_TIMEOUT:g}",
            "Seconds that clients have to take what waits for them when the server stops.",
        ],
    ]

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._lines: dict[str, int] = {}

    def parseOptions(self, options: Sequence[str] | None = None) -> None:
        """Parse `options`.

        :raises SystemExit: one of them is a mistake. (Twisted would show the whole help.)
        """
        try:
            self.parse(sys.argv[1:] if options is None else options)
        except OperatorError as error:
            raise SystemExit(f"asyncchat: {error}") from None
        except UsageError as error:
            raise SystemExit(f"asyncchat: {error}; try: twistd asyncchat --help") from None

    def parse(self, arguments: Sequence[str], ignored: frozenset[int] = frozenset()) -> None:
        """Parse the file that `arguments` name, if they do, and then `arguments`, which win.

        :param ignored: lines of the file that are left out; see `chatserver.config.read`
        :raises ConfigError: there is a mistake in the file
        :raises UsageError: there is one in `arguments`
        """
        given = self._given(arguments)
        path = given.get("config")
        settings = []
        if path:
            # The handlers, of --help say, are not among the defaults.
            takes_value = {name: f"{name}=" in self.longOpt for name in self.defaults}
            settings = [each for each in read(path, takes_value, ignored) if each.name not in given]
            self._lines = {setting.name: setting.line for setting in settings}
        try:
            super().parseOptions(  # type: ignore[no-untyped-call]
                [*(each.argument for each in settings if each.argument), *arguments]
            )
        except UsageError as error:
            raise self.locate(error) from None

    def locate(self, error: Exception) -> Exception:
        """Return `error` with the file and the line, if it is about an option in the file."""
        option = getattr(error, "option", None) or self._option_of(str(error))
        line = self._lines.get(option) if option else None
        return error if line is None else ConfigError(self["config"], line, str(error))

    def _option_of(self, text: str) -> str | None:
        """Return the option that a mistake's text is about: it starts with it, or with its file."""
        if name := _NAME.match(text):
            return name[1]
        for each in FILE_OPTIONS:
            if self[each] and text.startswith(f"{os.path.abspath(self[each])}: "):
                return each
        return None

    def _given(self, arguments: Sequence[str]) -> dict[str, str]:
        """Return the options that `arguments` give, by their full names."""
        try:
            pairs, _ = getopt.getopt(list(arguments), self.shortOpt, self.longOpt)
        except getopt.error:  # Twisted's parser meets it again, and tells it.
            return {}
        return {self.synonyms.get(option.lstrip("-"), ""): value for option, value in pairs}

    def parseArgs(self, *args: str) -> None:
        """Accept options only."""
        if args:
            raise UsageError(f"{args[0]!r} is no option")

    def opt_version(self) -> None:
        """Show the version and exit."""
        print(f"asyncchat {__version__}")
        raise SystemExit(0)

    def postOptions(self) -> None:
        """Check the values and turn them into what they stand for."""
        for name in (
            "handshake-timeout",
            "login-timeout",
            "invitation-timeout",
            "stall-timeout",
            "drain-timeout",
        ):
            self[name] = self._seconds(name)
        for name in ("registrations", "failed-logins", "invitations", "log-lines"):
            self[name] = self._rate(name)
        self["connections-per-address"] = self._number("connections-per-address")
        if self["max-connections"] != AUTO:
            self["max-connections"] = self._number("max-connections")
        if self["registration"] not in (OPEN, CLOSED):
            raise UsageError(f"--registration is {OPEN} or {CLOSED}, not {self['registration']!r}")
        self["min-password-length"] = self._password_length("min-password-length")
        try:
            self["argon2"] = parse_cost(self["argon2"])
        except ValueError as error:
            raise UsageError(f"--argon2: {error}") from None
        for name in (
            "config",
            "port",
            "database",
            "certificate",
            "private-key",
            "dh-params",
            "client-ca",
            "log-file",
            "cluster",
            "cluster-ca",
            "cluster-credentials",
        ):
            if self[name] == "":
                raise UsageError(f"--{name} needs a value")

        if not _PREFIX.fullmatch(self["cluster-prefix"]):
            raise UsageError(
                "--cluster-prefix is made of letters, digits, - and _, with dots in between, 100 at"
                f" most, not {self['cluster-prefix']!r}"
            )
        for name, default in (
            ("cluster-prefix", DEFAULT_CLUSTER_PREFIX),
            ("cluster-ca", None),
            ("cluster-credentials", None),
        ):
            if self[name] != default and not self["cluster"]:
                raise UsageError(f"--{name} is of no use without --cluster")

    def _seconds(self, name: str) -> float | None:
        try:
            seconds = float(self[name])
        except ValueError:
            seconds = math.nan
        if not 0 <= seconds < MAX_SECONDS:
            raise UsageError(f"--{name} is a number of seconds, 0 for no limit, not {self[name]!r}")
        return seconds or None

    def _rate(self, name: str) -> Rate | None:
        try:
            return parse_rate(self[name])
        except ValueError as error:
            raise UsageError(f"--{name}: {error}") from None

    def _number(self, name: str) -> int | None:
        text = self[name]
        if not (text.isascii() and text.isdecimal() and len(text) <= MAX_DIGITS):
            raise UsageError(f"--{name} is a number of connections, 0 for no limit, not {text!r}")
        return int(text) or None

    def _password_length(self, name: str) -> int:
        try:
            length = int(self[name])
        except ValueError:
            length = 0
        if not 1 <= length <= MAX_PASSWORD_LENGTH:
            raise UsageError(
                f"--{name} is a number of bytes from 1 to {MAX_PASSWORD_LENGTH}, not {self[name]!r}"
            )
        return length

"""The options of ``twistd asyncchat``: their names, defaults and checks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

from twisted.python.usage import Options as TwistedOptions
from twisted.python.usage import UsageError

from chatserver import __version__
from chatserver.certificates import DEFAULT_CERTIFICATE, DEFAULT_PRIVATE_KEY
from chatserver.credentials import MAX_PASSWORD_LENGTH
from chatserver.limits import INVITATION_TIMEOUT, LOG_LINES, MIN_PASSWORD_LENGTH, STALL_TIMEOUT
from chatserver.listening import DEFAULT_PORT
from chatserver.log import DEFAULT_LOG_FILE, parse_rate
from chatserver.passwords import DEFAULT_COST, parse_cost

DEFAULT_DATABASE = "sqlite:///users.db"
"""The reference server's file name, in the current folder."""

NO_LOG_FILE = "-"
"""The value of ``--log-file`` that means none but the terminal."""


class Options(TwistedOptions):
    """What an operator may choose. A mistake ends in one line on stderr and status 1."""

    synopsis = "[options]"
    longdesc = "A TLS-only server for private one-to-one chat."

    optParameters: ClassVar[list[list[str | None]]] = [
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
            "log-file",
            "l",
            DEFAULT_LOG_FILE,
            f"The log. {NO_LOG_FILE} is none but the terminal.",
        ],
        [
            "log-lines",
            None,
            LOG_LINES,
            "Log lines of one kind, such as 120/minute; the rest is counted. 0 is no limit.",
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
    ]

    def parseOptions(self, options: Sequence[str] | None = None) -> None:
        """Parse `options`.

        :raises SystemExit: one of them is a mistake. (Twisted would show the whole help.)
        """
        try:
            super().parseOptions(options)  # type: ignore[no-untyped-call]
        except UsageError as error:
            raise SystemExit(f"asyncchat: {error}; try: twistd asyncchat --help") from None

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
        for name in ("invitation-timeout", "stall-timeout"):
            self[name] = self._seconds(name)
        self["min-password-length"] = self._password_length("min-password-length")
        try:
            self["argon2"] = parse_cost(self["argon2"])
        except ValueError as error:
            raise UsageError(f"--argon2: {error}") from None
        try:
            self["log-lines"] = parse_rate(self["log-lines"])
        except ValueError as error:
            raise UsageError(f"--log-lines: {error}") from None
        for name in ("port", "database", "certificate", "private-key", "dh-params", "log-file"):
            if self[name] == "":
                raise UsageError(f"--{name} needs a value")

    def _seconds(self, name: str) -> float:
        try:
            seconds = float(self[name])
        except ValueError:
            seconds = math.nan
        if not 0 < seconds < math.inf:
            raise UsageError(f"--{name} is a number of seconds above 0, not {self[name]!r}")
        return seconds

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

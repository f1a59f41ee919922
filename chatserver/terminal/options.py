"""The command line of ``asyncchat``."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from chatserver import __version__
from chatserver.client import DEFAULT_PORT, Fingerprint, KnownHosts, Trust, TrustFile

ANYBODY = ""
"""The value of ``--accept`` without a name."""

PASSWORD_VARIABLE = "ASYNCCHAT_PASSWORD"

DESCRIPTION = "Chat with one other person, over TLS."

EPILOG = """\
The password is asked for, or is in $ASYNCCHAT_PASSWORD. In a pipe each
line is a message: echo hello | asyncchat --to bob alice@chat.example
Exit status: 0 done, 1 no connection or login, 2 wrong command line, 3 nobody
accepted, 4 something was not delivered.
"""


class UsageError(Exception):
    """The command line can't be understood. The text is one line."""


@dataclass(frozen=True)
class Address:
    """Who one is, and on which server."""

    name: str
    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        port = "" if self.port == DEFAULT_PORT else f":{self.port}"
        return f"{self.name}@{host}{port}"


@dataclass(frozen=True)
class Options:
    """What the user wants.

    `address` is None if it has to be asked for, `password` too. `accept` is the name of the only
    one whose invitation is accepted by itself, `ANYBODY`, or None.
    """

    address: Address | None
    password: str | None = field(repr=False)
    may_register: bool
    trust: Trust
    to: str | None
    accept: str | None
    keeps_on: bool
    save: str | None


def parse(arguments: Sequence[str], environment: Mapping[str, str]) -> Options:
    """Return what `arguments` say.

    :raises UsageError: they can't be understood, or a file that they name can't be read
    :raises SystemExit: it was --help or --version
    """
    given = _parser().parse_args(arguments)
    address, accept = given.address, given.accept
    if address is None and accept and "@" in accept:
        # As in `asyncchat --accept bob@host`: it is who one is, and anybody is accepted.
        address, accept = accept, ANYBODY
    if given.to is not None and accept is not None:
        raise UsageError("--to and --accept: give only one of the two")
    if given.forever and accept is None:
        raise UsageError("--forever: goes with --accept")
    return Options(
        address=None if address is None else parse_address(address),
        password=_password(given.password_file, environment),
        may_register=given.register,
        trust=_trust(given.trust_file, given.fingerprint),
        to=given.to,
        accept=accept,
        keeps_on=given.forever,
        save=given.save,
    )


def parse_address(text: str) -> Address:
    """Return the address in ``NAME@HOST``, ``NAME@HOST:PORT`` or ``NAME@[IPV6]:PORT``.

    :raises UsageError: it is none
    """
    name, at, server = text.strip().rpartition("@")
    bracketed = re.fullmatch(r"\[([^\]]+)\](?::(.*))?", server)
    if bracketed is not None:
        host, port = bracketed[1], bracketed[2]
    elif server.count(":") > 1:  # an IPv6 address alone
        host, port = server, None
    else:
        host, colon, port = server.partition(":")
        port = port if colon else None
    if not (name and at and host) or ":" in name or re.search(r"[\s\[\]]", host):
        raise UsageError(f"{text!r} is not an address such as alice@chat.example:5555")
    if port is None:
        return Address(name, host, DEFAULT_PORT)
    if not (port.isascii() and port.isdecimal() and 0 < int(port) <= 0xFFFF):
        raise UsageError(f"{text!r}: {port!r} is not a port number")
    return Address(name, host, int(port))


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="asyncchat",
        usage="asyncchat [OPTIONS] [NAME@HOST[:PORT]]",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        add_help=False,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("address", nargs="?", metavar="NAME@HOST[:PORT]", help="who you are, and where")
    add("--to", metavar="NAME", help="invite NAME at once")
    add(
        "--accept",
        nargs="?",
        const=ANYBODY,
        metavar="NAME",
        help="accept who invites you, or only NAME",
    )
    add("--forever", action="store_true", help="with --accept: one chat after the other")
    add("--register", action="store_true", help="make the account if it does not exist")
    add("--password-file", metavar="FILE", help="the password is the first line of FILE")
    add("--trust-file", metavar="FILE", help="trust this certificate, or authority (PEM)")
    add("--fingerprint", metavar="SHA256", help="trust the certificate with this fingerprint")
    add("--save", metavar="FILE", help="append what is said to FILE")
    add("--version", action="version", version=f"asyncchat {__version__}")
    add("--help", "-h", action="help", help="show this")
    return parser


class _Parser(argparse.ArgumentParser):
    """Tells of a mistake in one line."""

    def error(self, message: str) -> None:  # type: ignore[override]
        """Refuse the command line."""
        raise UsageError(f"{message}; see asyncchat --help")


def _password(path: str | None, environment: Mapping[str, str]) -> str | None:
    if path is None:
        return environment.get(PASSWORD_VARIABLE) or None
    try:
        with open(path, encoding="utf-8") as file:
            password = file.readline().rstrip("\r\n")
    except (OSError, ValueError) as error:
        raise UsageError(f"--password-file {path}: cannot be read: {_reason(error)}") from None
    if not password:
        raise UsageError(f"--password-file {path}: its first line is empty")
    return password


def _trust(trust_file: str | None, fingerprint: str | None) -> Trust:
    if trust_file is not None and fingerprint is not None:
        raise UsageError("--trust-file and --fingerprint: give only one of the two")
    if trust_file is not None:
        if not os.access(trust_file, os.R_OK):
            raise UsageError(f"--trust-file {trust_file}: there is no such file to read")
        return TrustFile(trust_file)
    if fingerprint is not None:
        try:
            return Fingerprint(fingerprint)
        except ValueError as error:
            raise UsageError(f"--fingerprint: {error}") from None
    return KnownHosts()


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or "it is not UTF-8"

"""The console script ``asyncchat-admin``: accounts from the command line, and a look at the server.

It stands beside the server and talks to the database, not to the server: it works before the
server's first start, while it runs, and while it does not.
"""

from __future__ import annotations

import argparse
import getpass
import os
import signal
import sys
from collections.abc import Iterable, Sequence

from argon2.exceptions import HashingError
from sqlalchemy.exc import SQLAlchemyError
from twisted.python.usage import UsageError

from chatserver import __version__, database
from chatserver.config import ConfigError
from chatserver.credentials import (
    MAX_PASSWORD_LENGTH,
    MalformedCredentialsError,
    check_new_name,
    check_new_password,
)
from chatserver.errors import OperatorError
from chatserver.options import Options
from chatserver.passwords import Passwords, StoredPassword
from chatserver.printable import visible
from chatserver.store import AccountsError, NameTakenError, NoSuchAccountError, Store
from chatserver.streams import discard_output, open_closed_streams

DONE = 0
"""All went well."""

REFUSED = 1
"""It was not done, or something is not as it should be."""

USAGE = 2
"""The command line or the file of --config can't be understood."""

EPILOG = """\
A password is asked for at a terminal; elsewhere it is the first line of the
standard input. Run it as the server's user and in the server's folder, with
the same --config or --database.
Exit status: 0 done, 1 not done or not fine, 2 wrong command line or file.
"""

_WHERE = ("config", "database")
_HOW = ("argon2", "min-password-length")

_COMMANDS = {
    "adduser": ("NAME", (*_WHERE, *_HOW), "make an account"),
    "passwd": ("NAME", (*_WHERE, *_HOW), "give an account another password"),
    "deluser": (
        "NAME",
        _WHERE,
        "remove an account; a connection that is logged in stays until it ends",
    ),
    "listusers": (None, _WHERE, "show the names of all accounts, a line each"),
    "check": (None, None, "look at all that the server needs; takes the server's options"),
}
"""For each command what it is about, which of the server's options it takes (None: all of them)
and what it does."""


class RefusedError(Exception):
    """What was asked for is not done. The text is one line."""


def main() -> None:
    """Do what the command line says, and end the process."""
    _complete_streams()
    try:
        status = run(sys.argv[1:])
        sys.stdout.flush()
    except KeyboardInterrupt:
        print(file=sys.stderr)  # behind a question
        status = _complain("interrupted", 128 + signal.SIGINT)
    except OSError as error:
        # With `| head` nobody reads on, and nothing is wrong.
        is_pipe = isinstance(error, BrokenPipeError)
        why = f"the output cannot be written: {error.strerror or error}"
        status = DONE if is_pipe else _complain(why, REFUSED)
        discard_output()
    sys.exit(status)


def run(arguments: Sequence[str]) -> int:
    """Do what `arguments` say, and return the exit status.

    :raises SystemExit: it was --help or --version
    """
    try:
        given = vars(_parser().parse_args(arguments))
        command, name = given.pop("command"), given.pop("name", None)
        if command == "check":
            return _check(given)
        options = Options()
        options.parse(_arguments(given))
    except (UsageError, ConfigError) as error:
        return _complain(f"{error}", USAGE)
    try:
        _Accounts(options).do(command, name)
    except (OperatorError, RefusedError, AccountsError, MalformedCredentialsError) as error:
        return _complain(str(options.locate(error)), REFUSED)
    except SQLAlchemyError as error:
        return _complain(f"the database failed: {database.reason(error)}; try again", REFUSED)
    except (HashingError, MemoryError) as error:
        return _complain(f"--argon2: this machine can't do that: {error}", REFUSED)
    return DONE


class _Parser(argparse.ArgumentParser):
    """Tells of a mistake in one line."""

    def error(self, message: str) -> None:  # type: ignore[override]
        """Refuse the command line."""
        raise UsageError(f"{message}; see asyncchat-admin --help")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="asyncchat-admin",
        description="Look after the accounts of AsyncChatServer, and the server itself.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    version = f"asyncchat {__version__}"
    parser.add_argument("--version", action="version", version=version, help="show the version")
    _add_options(parser, _WHERE)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for command, (subject, options, help_text) in _COMMANDS.items():
        added = commands.add_parser(
            command,
            help=help_text,
            description=f"{help_text[0].upper()}{help_text[1:]}.",
            allow_abbrev=False,
        )
        if subject is not None:
            added.add_argument("name", metavar=subject)
        _add_options(added, options)
    return parser


def _add_options(parser: argparse.ArgumentParser, names: Iterable[str] | None) -> None:
    """Add those of the server's options that are in `names`, or all of them."""
    server = Options()
    for name in server.defaults if names is None else names:
        default = server.defaults[name]
        text = " ".join(server.docs[name].split()).replace("%", "%%")
        takes_value = f"{name}=" in server.longOpt
        if takes_value and default is not None:
            text = f"{text} [default: {default}]"
        parser.add_argument(
            f"--{name}",
            dest=name,
            default=argparse.SUPPRESS,
            help=text,
            **({"metavar": "VALUE"} if takes_value else {"action": "store_const", "const": None}),
        )


class _Accounts:
    """The commands that are about accounts."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._passwords = Passwords(options["argon2"])
        self._url = database.parse_url(options["database"], os.getcwd())

    def do(self, command: str, name: str | None) -> None:
        """Do what `command` says, with the account `name` if it is about one."""
        if name is not None:
            _check_utf8(name)
        stored = None
        if command == "adduser":
            check_new_name(str(name))
            if database.rehearse(self._url) is None:
                # No name is taken yet, and nothing is made for a password that is refused.
                stored = self._ask_and_hash(str(name))
        elif not database.exists(self._url):
            where = database.describe(self._url)
            raise RefusedError(
                f"{where}: there is no database yet; name another with --database, or adduser"
                " makes this one"
            )
        database.prepare(self._url)
        store = Store(database.make_engine(self._url))
        try:
            if name is None:
                _list(store)
            elif command == "adduser":
                self._add(store, name, stored)
            elif command == "passwd":
                self._change(store, name)
            else:
                store.remove(name)
                _say(f"removed {visible(name)}")
        finally:
            store.close()

    def _add(self, store: Store, name: str, stored: StoredPassword | None) -> None:
        # Before anybody types a password, and then again as it is added.
        if store.find(name) is not None:
            raise NameTakenError(f"there is an account {name!r} already")
        store.add(name, stored or self._ask_and_hash(name))
        _say(f"added {visible(name)}")

    def _change(self, store: Store, name: str) -> None:
        if store.find(name) is None:
            raise NoSuchAccountError(f"there is no account {name!r}")
        store.change(name, self._ask_and_hash(name))
        _say(f"changed the password of {visible(name)}")

    def _ask_and_hash(self, name: str) -> StoredPassword:
        is_terminal = sys.stdin.isatty()
        password = _ask(name) if is_terminal else _read_line()
        check_new_password(password, self._options["min-password-length"])
        if is_terminal and _ask(name, again=True) != password:
            raise RefusedError("the two passwords differ; nothing was done")
        return self._passwords.hash(password)


def _check_utf8(name: str) -> None:
    try:
        name.encode()
    except UnicodeEncodeError:  # halves of surrogate pairs stand for its bytes
        raise MalformedCredentialsError("the name is not UTF-8") from None


def _ask(name: str, again: bool = False) -> bytes:
    """Ask for a password at the terminal."""
    what = "The password again" if again else f"New password for {visible(name)}"
    try:
        return getpass.getpass(f"{what}: ").encode("utf-8", "surrogateescape")
    except EOFError:
        print(file=sys.stderr)
        raise RefusedError("no password was given; nothing was done") from None
    except UnicodeDecodeError:
        raise RefusedError("that can't be decoded; nothing was done") from None


def _read_line() -> bytes:
    """Return the password in the first line of the standard input."""
    # No further than needed to see that a line is too long: the input may have no end.
    line = sys.stdin.buffer.readline(MAX_PASSWORD_LENGTH + 3)
    return line.removesuffix(b"\n").removesuffix(b"\r") if line.endswith(b"\n") else line


def _list(store: Store) -> None:
    show = visible if sys.stdout.isatty() else str
    for name in store.names():
        sys.stdout.write(show(name) + "\n")


def _check(given: dict[str, str | None]) -> int:
    """Look at all that the server needs, and print a line for each part."""
    # Not for the other commands: it takes a while to load.
    from twisted.internet import reactor  # noqa: PLC0415 - importing it installs it

    from chatserver.checks import Finding, check_all  # noqa: PLC0415

    file = visible(given.get("config") or "no file, only options and defaults")
    options, mistakes = _parse_what_can_be(given)
    findings = [Finding("configuration", False, each) for each in mistakes]
    findings = findings or [Finding("configuration", True, file)]
    are_fine = []
    for finding in (*findings, *check_all(options, reactor)):
        _say(f"{finding.subject:13}  {'OK' if finding.is_fine else 'WRONG'}: {finding.told}")
        are_fine.append(finding.is_fine)
    return DONE if all(are_fine) else REFUSED


def _parse_what_can_be(given: dict[str, str | None]) -> tuple[Options, list[str]]:
    """Return the options, without those in the file that are mistakes, and the mistakes.

    :raises UsageError: there is a mistake on the command line
    """
    mistakes: dict[int, str] = {}
    while True:
        options = Options()
        try:
            options.parse(_arguments(given), frozenset(mistakes))
        except ConfigError as error:
            if error.line is None or error.line in mistakes:
                # Not a single setting is wrong, but the file.
                text = f"{error}; what follows goes without the file"
                del given["config"]
                options.parse(_arguments(given))
                return options, [text]
            mistakes[error.line] = str(error)
        else:
            return options, list(mistakes.values())


def _arguments(given: dict[str, str | None]) -> list[str]:
    """Return the options that were given as the server's own parser takes them."""
    return [f"--{name}" if value is None else f"--{name}={value}" for name, value in given.items()]


def _complete_streams() -> None:
    """See to it that the standard streams are there, and can show every name."""
    open_closed_streams()
    sys.stderr.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    if sys.stdout.isatty():
        sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    else:
        # Names as they are in the database, for other programs.
        sys.stdout.reconfigure(  # type: ignore[union-attr]
            encoding="utf-8", errors="surrogateescape"
        )


def _say(text: str) -> None:
    print(text, flush=True)


def _complain(text: str, status: int) -> int:
    """Say what went wrong. Return `status`."""
    print(f"asyncchat-admin: {text}", file=sys.stderr)
    return status


if __name__ == "__main__":
    main()

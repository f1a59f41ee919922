"""The server that is measured: ``twistd -n asyncchat`` in a folder of its own, on a free port."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil
import sqlalchemy as sa

from benchmarks.client import PASSWORD
from benchmarks.report import Report
from chatserver.database import make_engine, parse_url, prepare
from chatserver.descriptors import raise_file_limit
from chatserver.passwords import DEFAULT_COST, Passwords, parse_cost
from tests.processes import Server, script

CHEAP = "m=8,t=1,p=1"
"""The least that Argon2 can cost, for benchmarks that are about something else."""

LIMITS = (
    "connections-per-address",
    "max-connections",
    "failed-logins",
    "registrations",
    "invitations",
)
"""The options that keep one client, or one address, from making a load; 0 switches each off."""

SPARE_FILES = 200
"""Descriptors of the server that are not for a crowd of connections."""

DEADLINES = ("handshake-timeout", "login-timeout")
"""The options that say how long a client may take to log in; 0 switches each off."""


class MeasuredServer:
    """A server with `accounts`, all with the password `PASSWORD`, until the end of the `with`.

    :param report: is told how the server was started
    :param options: what it is started with
    :param accounts: names, put into the database directly, since to register each costs a hash
    :param argon2: what hashing costs
    :param limits: whether the server's limits for one address are to hold
    :param patient: whether clients may take any time to log in
    :param constants: what to change in `chatserver.limits`, by the names there
    :param database: where the accounts are
    :param twistd: twistd's own options
    """

    def __init__(
        self,
        report: Report,
        *options: str,
        accounts: list[bytes],
        argon2: str = DEFAULT_COST,
        limits: bool = False,
        patient: bool = False,
        constants: Mapping[str, int] | None = None,
        database: str = "sqlite:///users.db",
        twistd: Sequence[str] = (),
    ) -> None:
        names = (() if limits else LIMITS) + (DEADLINES if patient else ())
        options = ("--argon2", argon2, *(f"--{name}=0" for name in names), *options)
        report.note("The server was started with " + " ".join(options))
        raise_file_limit()
        self._temporary = Path(tempfile.mkdtemp(prefix="asyncchat-benchmark-"))
        try:
            folder = self._temporary / "here"
            folder.mkdir()
            add_accounts(parse_url(database, str(folder)), accounts, argon2)
            command = [*_twistd(constants), *twistd, "-n", "asyncchat", "--port", "0"]
            command += ["--database", database, *options]
            self._server = Server(command, folder)
        except BaseException:
            shutil.rmtree(self._temporary)
            raise
        self.process = psutil.Process(self._server.process.pid)

    def __enter__(self) -> MeasuredServer:
        try:
            self.port = self._server.wait_for_port(lambda: self._server.terminal)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        self._server.kill()
        shutil.rmtree(self._temporary)

    @property
    def cpu(self) -> float:
        """The seconds of processor time that it has used so far, in all its threads."""
        times = self.process.cpu_times()
        return float(times.user + times.system)

    @property
    def rss(self) -> float:
        """The memory that it has, in MB (of 10**6 bytes)."""
        return float(self.process.memory_info().rss / 1e6)

    @property
    def descriptors(self) -> int:
        """How many files and sockets it has open."""
        return int(self.process.num_fds())

    @property
    def troubles(self) -> list[str]:
        """The lines of its log that tell of a failure, except of handshakes."""
        lines = self._server.log.splitlines()
        return [line for line in lines if "[ERR]" in line and "Handshake failed" not in line]


def _twistd(constants: Mapping[str, int] | None) -> list[str]:
    """Return the command that runs twistd, after `constants` of `chatserver.limits` are changed."""
    if not constants:
        return script("twistd")
    changes = "".join(f"limits.{name} = {value!r}; " for name, value in constants.items())
    return [
        sys.executable,
        "-c",
        f"from chatserver import limits; {changes}from twisted.scripts.twistd import run; run()",
    ]


def add_accounts(url: sa.URL, names: list[bytes], argon2: str = CHEAP) -> None:
    """Put accounts into the database at `url`, which is made if it has no table yet."""
    prepare(url)
    if not names:
        return
    stored = Passwords(parse_cost(argon2)).hash(PASSWORD)
    engine = make_engine(url)
    with engine.begin() as connection:
        connection.execute(
            sa.text("INSERT INTO users VALUES (:name, :salt, :hash)"),
            [{"name": each.decode(), "salt": stored.salt, "hash": stored.hash} for each in names],
        )
    engine.dispose()

"""Several servers that are one: a cluster with a NATS and a database of its own."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

import psutil
import sqlalchemy as sa

from benchmarks.client import LOCALHOST
from benchmarks.dialects import AcrossDialect, Dialect, SpreadDialect
from benchmarks.report import Report
from benchmarks.server import CHEAP, MeasuredServer, add_accounts
from benchmarks.systems import System, pin
from chatserver.database import parse_url
from tests.processes import until

POSTGRESQL = "postgresql://postgres@127.0.0.1/postgres"
"""Where databases can be made, if nobody says otherwise."""


def missing(postgresql: str) -> str | None:
    """Return why there can be no cluster here, or None if there can."""
    if shutil.which("nats-server", path=_PATH) is None:
        return "nats-server is not installed"
    try:
        sa.create_engine(parse_url(postgresql, ""), connect_args={"connect_timeout": 5}).connect()
    except sa.exc.OperationalError as error:
        return f"PostgreSQL can't be used: {error.orig}"
    return None


_PATH = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/local/sbin", "/usr/sbin"])


@contextmanager
def new_database(postgresql: str) -> Iterator[str]:
    """Make a database, whose URL this is, and drop it in the end."""
    url = parse_url(postgresql, "")
    name = f"asyncchat_benchmark_{uuid.uuid4().hex}"
    engine = sa.create_engine(url, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
    with engine.connect() as connection:
        connection.exec_driver_sql(f"CREATE DATABASE {name}")
    try:
        yield url.set(database=name).render_as_string(hide_password=False)
    finally:
        with engine.connect() as connection:
            connection.exec_driver_sql(f"DROP DATABASE {name} WITH (FORCE)")


@contextmanager
def new_nats() -> Iterator[tuple[int, psutil.Process]]:
    """Run a NATS of its own, at this port, as this process."""
    with socket.create_server((LOCALHOST, 0)) as free:
        port = free.getsockname()[1]
    with tempfile.TemporaryFile() as log:
        command = ["nats-server", "-a", LOCALHOST, "-p", str(port)]
        process = subprocess.Popen(command, stderr=log, env={**os.environ, "PATH": _PATH})
        try:
            until(lambda: _is_there(process, port), "NATS")
            yield port, psutil.Process(process.pid)
        finally:
            process.kill()
            process.wait()


def _is_there(process: subprocess.Popen[bytes], port: int) -> bool:
    if process.poll() is not None:
        raise AssertionError(f"nats-server has ended: {process.returncode}")
    try:
        with socket.create_connection((LOCALHOST, port), 1) as connection:
            return connection.recv(5) == b"INFO "
    except OSError:
        return False


class Machines(System):
    """So many servers with one database; a single one is a server without a cluster.

    :param postgresql: where a database can be made
    :param accounts: of the database
    """

    def __init__(
        self,
        report: Report,
        count: int,
        postgresql: str,
        accounts: list[bytes],
        *,
        is_pinned: bool = True,
        is_patient: bool = False,
    ) -> None:
        super().__init__(report, 0)
        self.is_pinned = is_pinned
        self._count = count
        self._postgresql = postgresql
        self._accounts = accounts
        self._is_patient = is_patient

    def start(self) -> int:
        """See `System`."""
        database = self._stack.enter_context(new_database(self._postgresql))
        add_accounts(parse_url(database, ""), self._accounts)
        options: list[str] = []
        self.nats: psutil.Process | None = None
        if self._count > 1:
            port, self.nats = self._stack.enter_context(new_nats())
            options = ["--cluster", f"nats://{LOCALHOST}:{port}"]
            if self.is_pinned:
                pin(self.nats.pid, first=True)
        self.servers = [
            self._stack.enter_context(
                MeasuredServer(
                    Report("", []),  # The options are the same for all, but for a port.
                    *options,
                    accounts=[],
                    argon2=CHEAP,
                    database=database,
                    patient=self._is_patient,
                    twistd=["--reactor", "asyncio"],
                )
            )
            for _ in range(self._count)
        ]
        return self.servers[0].port

    @property
    def ports(self) -> list[int]:
        """Where the machines listen."""
        return [server.port for server in self.servers]

    @property
    def across(self) -> Dialect:
        """What pairs speak of whom one is on the first machine and one on the last."""
        return AcrossDialect(self.ports[-1])

    @property
    def spread(self) -> Dialect:
        """What pairs speak of whom each is on one machine, every second one on the last."""
        return SpreadDialect(self.ports[-1])

    def processes(self) -> list[psutil.Process]:
        """See `System`. NATS is not among them."""
        return [server.process for server in self.servers]

    def parts(self) -> dict[str, float]:
        """See `System`."""
        used = {f"machine {i + 1}": server.cpu for i, server in enumerate(self.servers)}
        if self.nats is not None:
            times = self.nats.cpu_times()
            used["NATS"] = times.user + times.system
        return used

    @property
    def troubles(self) -> list[str]:
        """See `MeasuredServer`."""
        return [line for server in self.servers for line in server.troubles]

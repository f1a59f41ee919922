"""The servers that are compared: ours, the floor, and those that people would pick instead."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from abc import ABC, abstractmethod
from contextlib import ExitStack, suppress
from datetime import UTC, datetime
from pathlib import Path

import psutil

from benchmarks.dialects import ASYNCCHAT, Dialect
from benchmarks.report import ROOT, Report
from benchmarks.server import CHEAP, MeasuredServer
from chatserver.certificates import create_self_signed


class System(ABC):
    """A server with accounts for so many pairs, until the end of the ``with``.

    `dialect` is what its clients speak, and `port` where it listens.
    """

    name: str
    dialect: Dialect = ASYNCCHAT
    port: int
    is_pinned = True
    """Whether all of it runs on the first core only."""

    def __init__(self, report: Report, pairs: int) -> None:
        self.report = report
        self.pairs = pairs
        self._stack = ExitStack()

    def __enter__(self) -> System:
        with self._stack as stack:
            self.port = self.start()
            self._stack = stack.pop_all()
        for process in self.processes() if self.is_pinned else ():
            with suppress(psutil.NoSuchProcess):  # It was there for a moment only.
                pin(process.pid, first=True)
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    @classmethod
    def missing(cls) -> str | None:
        """Return why it can't be measured here, or None if it can."""
        return None

    @abstractmethod
    def start(self) -> int:
        """Start it, its end in `_stack`. Return the port once it listens."""

    @abstractmethod
    def processes(self) -> list[psutil.Process]:
        """Return its processes."""

    @property
    def cpu(self) -> float:
        """The seconds of processor time that it has used so far."""
        total = 0.0
        for process in self.processes():
            with suppress(psutil.NoSuchProcess):
                times = process.cpu_times()
                total += times.user + times.system
        return total

    def parts(self) -> dict[str, float]:
        """Return what of `cpu` each part has used, by their names, if it has parts."""
        return {}

    def folder(self) -> Path:
        """Return a new folder that is there as long as the server."""
        made = tempfile.TemporaryDirectory(
            prefix="asyncchat-benchmark-", ignore_cleanup_errors=True
        )
        return Path(self._stack.enter_context(made))


class Ours(System):
    """This server, with all its rules, its log and its back-pressure."""

    name = "asyncchat"

    def start(self) -> int:
        """See `System`."""
        accounts = self.dialect.names(self.pairs)
        self._server = self._stack.enter_context(
            MeasuredServer(self.report, accounts=accounts, argon2=CHEAP)
        )
        return self._server.port

    def processes(self) -> list[psutil.Process]:
        """See `System`."""
        return [self._server.process]


class Bare(System):
    """A relay on Twisted without any rules: `benchmarks.bare_relay`."""

    name = "bare Twisted"

    def start(self) -> int:
        """See `System`."""
        files = [os.fspath(self.folder() / name) for name in ("server.crt", "server.key")]
        create_self_signed(files[0], files[1], datetime.now(UTC))
        command = [sys.executable, "-m", "benchmarks.bare_relay", *files]
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        self._stack.callback(process.wait)
        self._stack.callback(process.kill)
        assert process.stdout is not None
        self._stack.callback(process.stdout.close)
        self._process = psutil.Process(process.pid)
        return int(process.stdout.readline())

    def processes(self) -> list[psutil.Process]:
        """See `System`."""
        return [self._process]


def pin(pid: int, *, first: bool) -> None:
    """Let all threads of a process run on the first core only, or on the last."""
    if hasattr(os, "sched_setaffinity"):
        cores = os.sched_getaffinity(0)
        for thread in psutil.Process(pid).threads():
            os.sched_setaffinity(thread.id, {min(cores) if first else max(cores)})

"""How long the server takes from its start to the first client whose handshake is done."""

from __future__ import annotations

import argparse
import os
import shutil
import socket
import statistics
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import psutil

from benchmarks.report import Report
from tests.blocking import Client
from tests.processes import Server, script

HELP = "seconds from the start of the server to its first client"

PATIENCE = 30.0
"""Seconds after which a start has failed."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add this benchmark's options."""
    parser.add_argument("--passes", type=int, default=5)


def run(options: argparse.Namespace, report: Report) -> None:
    """Measure."""
    first: list[tuple[float, float]] = []
    later: list[tuple[float, float]] = []
    for _ in range(options.passes):
        folder = Path(tempfile.mkdtemp(prefix="asyncchat-benchmark-"))
        try:
            first.append(_start(folder))
            later.append(_start(folder))
        finally:
            shutil.rmtree(folder)
    for name, measured in (("the first", first), ("later", later)):
        seconds, cpu = ([each[i] for each in measured] for i in range(2))
        report.row(
            start=name,
            seconds=statistics.median(seconds),
            least=min(seconds),
            most=max(seconds),
            CPU_s=statistics.median(cpu),
        )
    report.note("The first start in a folder makes a certificate and a database as well")


def _start(folder: Path) -> tuple[float, float]:
    """Start a server in `folder`. Return the seconds until a client was there, and those of CPU."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    begin = time.monotonic()
    server = Server([*script("twistd"), "-n", "asyncchat", "--port", str(port)], folder)
    try:
        while True:
            if time.monotonic() - begin > PATIENCE:
                raise TimeoutError(f"no client in {PATIENCE:g} s:{os.linesep}{server.terminal}")
            with suppress(ConnectionRefusedError), Client(port):
                seconds = time.monotonic() - begin
                break
            time.sleep(0.005)
        times = psutil.Process(server.process.pid).cpu_times()
        return seconds, times.user + times.system
    finally:
        server.kill()

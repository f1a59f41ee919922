"""Whether a message costs more where more clients are connected."""

from __future__ import annotations

import argparse
import statistics
import time
from contextlib import ExitStack

from benchmarks.crowd import idle, idle_names
from benchmarks.dialects import ASYNCCHAT
from benchmarks.load import Load
from benchmarks.pairs import Outcome, Talk, talk
from benchmarks.report import Report, percentile
from benchmarks.server import CHEAP, SPARE_FILES, MeasuredServer
from benchmarks.systems import pin
from chatserver.descriptors import raise_file_limit

HELP = "what a message costs beside 10 to 10,000 other connections"

PLAN = Talk(pairs=8, size=64, batch=1)

PROCESSES = 4
"""Processes that hold the others."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add this benchmark's options."""
    parser.add_argument("--connections", type=int, nargs="+", default=[10, 100, 1_000, 10_000])
    parser.add_argument("--seconds", type=float, default=2.0, help="of each pass")
    parser.add_argument("--passes", type=int, default=5)


def run(options: argparse.Namespace, report: Report) -> None:
    """Measure."""
    files = raise_file_limit()
    most = max(options.connections) if files is None else files - SPARE_FILES
    for wanted in options.connections:
        count = min(wanted, most)
        if count < wanted:
            report.note(f"The limit of open files permits {count:,} connections, not {wanted:,}")
        _measure(count, options, report)
    report.note("Eight chats in lockstep, 64 bytes; the others are logged in and do nothing")


def _measure(count: int, options: argparse.Namespace, report: Report) -> None:
    names = [*ASYNCCHAT.names(PLAN.pairs), *idle_names(count)]
    share = -(-count // PROCESSES)
    with (
        MeasuredServer(report, accounts=names, argon2=CHEAP, patient=True) as server,
        ExitStack() as stack,
    ):
        pin(server.process.pid, first=True)
        for i in range(PROCESSES):
            places = range(i * share, min((i + 1) * share, count))
            load = Load(idle, server.port, places, f"127.0.1.{i + 1}", False)
            stack.enter_context(load).begin()
        costs: list[float] = []
        latencies: list[float] = []
        lost = 0
        for _ in range(options.passes):
            with Load(talk, ASYNCCHAT, server.port, PLAN) as load:
                load.begin()
                cpu = server.cpu
                time.sleep(options.seconds)
                outcome: Outcome = load.end()
                costs.append((server.cpu - cpu) / outcome.delivered * 1e6)
            latencies += (each * 1000 for each in outcome.latencies)
            lost += outcome.lost
    latencies.sort()
    report.row(
        connections=count,
        CPU_us=statistics.median(costs),
        least=min(costs),
        most=max(costs),
        p50_ms=percentile(latencies, 50),
        p99_ms=percentile(latencies, 99),
        lost=lost,
    )

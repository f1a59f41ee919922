"""What clients cost that come and go: what stays behind, and what others notice of it."""

from __future__ import annotations

import argparse
import time
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass

from benchmarks.chats import MeasuredChats, figures
from benchmarks.chats import names as chat_names
from benchmarks.crowd import come_and_go, visitor_names
from benchmarks.load import Load
from benchmarks.report import Report
from benchmarks.server import CHEAP, MeasuredServer

HELP = "connections that come and go, many a second"

SETTLE_TIMEOUT = 20.0
"""Seconds until the server must have got rid of the last of them: a handshake may take ten."""


@dataclass(frozen=True)
class _Phase:
    """What the server did in a span of time: the share of a core that it used, its memory in MB at
    the end and at most, and the files that it had open at the end.
    """

    span: tuple[float, float]
    busy: float
    rss: float
    peak: float
    descriptors: int


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add this benchmark's options."""
    parser.add_argument("--rate", type=float, default=1000.0, help="connections a second")
    parser.add_argument("--seconds", type=float, default=60.0, help="of coming and going")
    parser.add_argument("--quiet", type=float, default=5.0, help="seconds before and after")
    parser.add_argument("--processes", type=int, default=8, help="that come and go")


def run(options: argparse.Namespace, report: Report) -> None:
    """Measure."""
    processes = options.processes
    phases: dict[str, _Phase] = {}
    with (
        MeasuredServer(report, accounts=[*chat_names(), *visitor_names()], argon2=CHEAP) as server,
        MeasuredChats(server.port) as chats,
        ExitStack() as stack,
    ):
        loads = [
            stack.enter_context(
                Load(
                    come_and_go,
                    server.port,
                    i,
                    options.rate / processes,
                    # One address has 28 000 ports, and a port rests for a minute after its use.
                    f"127.0.2.{i + 1}",
                )
            )
            for i in range(processes)
        ]

        def phase(name: str, seconds: float) -> None:
            """Wait for some seconds, and keep what there is to tell of them."""
            begin, cpu, peak = time.monotonic(), server.cpu, 0.0
            while time.monotonic() < begin + seconds:
                time.sleep(0.05)
                peak = max(peak, server.rss)
            end = time.monotonic()
            busy = (server.cpu - cpu) / (end - begin)
            phases[name] = _Phase((begin, end), busy, server.rss, peak, server.descriptors)

        phase("before", options.quiet)
        open_before = server.descriptors
        for load in loads:
            load.begin()
        phase("meanwhile", options.seconds)
        done = sum((load.end() for load in loads), Counter[str]())
        settle = time.monotonic()
        while server.descriptors > open_before and time.monotonic() < settle + SETTLE_TIMEOUT:
            time.sleep(0.05)
        settled = time.monotonic() - settle
        phase("after", options.quiet)
        chats.end()
        troubles = server.troubles

    reached = (done["handshakes"] + done["logins"] + done["half way"]) / options.seconds
    busy = sum(load.busy for load in loads)
    server_busy = phases["meanwhile"].busy
    for name, found in phases.items():
        is_churning = name == "meanwhile"
        report.row(
            phase=name,
            connections_a_second=round(reached) if is_churning else 0,
            failed=done["failed"] if is_churning else 0,
            server_CPU=f"{found.busy:.0%}",
            RSS_MB=found.rss,
            RSS_peak_MB=found.peak,
            descriptors=found.descriptors,
            **figures(chats.latencies(found.span)),
        )
    report.note(
        f"Done: {done['handshakes']:,} handshakes, {done['logins']:,} logins, "
        f"{done['half way']:,} half way"
    )
    report.note(f"The descriptors took {settled:.1f} s to come back")
    report.note(f"The load used {busy:.0%} of its core")
    if reached < 0.95 * options.rate:
        report.note(
            f"{options.rate:,.0f} a second were not reached: " + _bottleneck(busy, server_busy)
        )
    for kind, count in done.items():
        if kind.startswith("failed:"):
            report.note(f"{count:,} {kind}")
    report.note_troubles(troubles)


def _bottleneck(load: float, server: float) -> str:
    """Return what was the bottleneck, by how much of a core the load and the server have used."""
    if load > 0.9:
        return "the load was the bottleneck"
    if server > 0.9:
        return "the server was the bottleneck"
    return "neither the load nor the server had used up a core: more --processes, or a busy machine"

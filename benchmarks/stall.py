"""What readers that stall cost in memory, however much is pushed at them."""

from __future__ import annotations

import argparse
import time

from benchmarks import stalls
from benchmarks.load import Load
from benchmarks.report import Report
from benchmarks.server import CHEAP, MeasuredServer

HELP = "the server's memory when clients do not read"

NEVER = 3600.0
"""A stall time-out that does not strike while it is measured."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add this benchmark's options."""
    parser.add_argument(
        "--only", nargs="+", choices=stalls.KINDS, default=stalls.KINDS, help="these clients"
    )
    parser.add_argument("--connections", type=int, default=100, help="pairs, or clients alone")
    parser.add_argument("--megabytes", type=int, default=100, help="that each tries to push")
    parser.add_argument(
        "--seconds", type=float, default=60.0, help="at most; it ends earlier when all is held"
    )
    parser.add_argument(
        "--stall-timeout", type=float, default=3.0, help="for showing that the server lets go"
    )


def run(options: argparse.Namespace, report: Report) -> None:
    """Measure."""
    for timeout in (NEVER, options.stall_timeout):
        for kind in options.only:
            _measure(kind, timeout, options, report)
    report.note(
        "pushed: by each client that writes, the systems' socket buffers included; "
        f"held: whether a time came when none could send anything for {stalls.HELD_AFTER:g} s"
    )


def _measure(kind: str, timeout: float, options: argparse.Namespace, report: Report) -> None:
    count = options.connections
    plan = stalls.Plan(kind, count, options.megabytes * 1_000_000, goes_on=timeout < NEVER)
    with (
        MeasuredServer(
            report, f"--stall-timeout={timeout:g}", accounts=stalls.names(count), argon2=CHEAP
        ) as server,
        Load(stalls.push, server.port, plan) as load,
    ):
        load.wait_until_ready()
        before = peak = server.rss
        load.begin()
        end = time.monotonic() + options.seconds
        while time.monotonic() < end and not load.is_done():
            time.sleep(0.02)
            peak = max(peak, server.rss)
        pushed = load.end()
        report.row(
            does_not_read=kind,
            stall_timeout="never" if timeout == NEVER else f"{timeout:g} s",
            count=count,
            pushed_MB=pushed.megabytes / pushed.writers,
            held="yes" if pushed.is_held else "no",
            cut_off=pushed.cut_off,
            told_EXIT=pushed.told,
            RSS_before_MB=before,
            RSS_peak_MB=peak,
            growth_MB=peak - before,
        )
        report.note_troubles(server.troubles)

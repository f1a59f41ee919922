"""What clients cost that come and go: what stays behind, and what others notice of it."""

from __future__ import annotations

import argparse
import time
from collections import Counter
from contextlib import ExitStack

from benchmarks.chats import MeasuredChats, figures
from benchmarks.chats import names as chat_names
from benchmarks.crowd import come_and_go, visitor_names
from benchmarks.load import Load
from benchmarks.report import Report
from benchmarks.server import CHEAP, MeasuredServer

HELP = "connections that come and go, many a second"

SETTLE_TIMEOUT = 20.0
"""Seconds until the server must have got rid of the last of them: a handshake may take ten."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add this benchmark's options."""
    parser.add_argument("--rate", type=float, default=1000.0, help="connections a second")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--processes", type=int, default=8, help="that come and go")


def run(options: argparse.Namespace, report: Report) -> None:
    """Measure."""
    processes, seconds = options.processes, options.seconds
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
        for load in loads:
            load.wait_until_ready()
        # A first second brings the server to its working size.
        before = time.monotonic()
        time.sleep(min(2.0, seconds))
        quiet = (before, time.monotonic())
        rss_before, files_before, cpu_before = server.rss, server.descriptors, server.cpu
        for load in loads:
            load.begin()
        begin = time.monotonic()
        halves, peak = [], rss_before
        for _ in range(2):
            half = time.monotonic() + seconds / 2
            while time.monotonic() < half:
                time.sleep(0.05)
                peak = max(peak, server.rss)
            halves.append(server.rss)
        churning, cpu = (begin, time.monotonic()), server.cpu - cpu_before
        done = sum((load.end() for load in loads), Counter[str]())
        settle = time.monotonic()
        while server.descriptors > files_before and time.monotonic() < settle + SETTLE_TIMEOUT:
            time.sleep(0.05)
        settled = time.monotonic() - settle
        rss_after, files_after = server.rss, server.descriptors
        chats.end()
        troubles = server.troubles

    reached = (done["handshakes"] + done["logins"] + done["half way"]) / seconds
    busy = sum(load.busy for load in loads)
    for name, span in (("quiet", quiet), ("coming and going", churning)):
        is_quiet = span is quiet
        report.row(
            phase=name,
            connections_a_second=0.0 if is_quiet else reached,
            failed=0 if is_quiet else done["failed"],
            server_CPU="" if is_quiet else f"{cpu / seconds:.0%}",
            RSS_MB=rss_before if is_quiet else rss_after,
            descriptors=files_before if is_quiet else files_after,
            **figures(chats.latencies(span)),
        )
    report.note(
        f"Done: {done['handshakes']:,} handshakes, {done['logins']:,} logins, "
        f"{done['half way']:,} half way"
    )
    report.note(
        f"RSS half way {halves[0]:.1f} MB, at the end {halves[1]:.1f} MB, peak {peak:.1f} MB; "
        f"the descriptors took {settled:.1f} s to come back"
    )
    report.note(f"The load used {busy:.0%} of its core, the server {cpu / seconds:.0%} of one")
    if reached < 0.95 * options.rate:
        report.note(
            f"{options.rate:,.0f} a second were not reached: "
            + ("the load was the bottleneck" if busy > 0.9 else "the server was the bottleneck")
        )
    for kind, count in done.items():
        if kind.startswith("failed:"):
            report.note(f"{count:,} {kind}")
    for line in troubles[:3]:
        report.note(f"The server logged: {line}")

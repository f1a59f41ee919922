"""What idle connections cost: memory for each, and processor time, while chats go on."""

from __future__ import annotations

import argparse
import time
from contextlib import ExitStack

from benchmarks.chats import MeasuredChats, figures
from benchmarks.chats import names as chat_names
from benchmarks.crowd import idle, idle_names
from benchmarks.load import Load
from benchmarks.report import Report
from benchmarks.server import CHEAP, SPARE_FILES, MeasuredServer
from chatserver.descriptors import raise_file_limit

HELP = "memory and processor time for thousands of idle connections"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add this benchmark's options."""
    parser.add_argument("--connections", type=int, default=15_000)
    parser.add_argument("--processes", type=int, default=4, help="that hold them")
    parser.add_argument("--seconds", type=float, default=10.0, help="of idling")
    parser.add_argument(
        "--anonymous", action="store_true", help="after the handshake nobody logs in"
    )


def run(options: argparse.Namespace, report: Report) -> None:
    """Measure."""
    files = raise_file_limit()
    count = options.connections if files is None else min(options.connections, files - SPARE_FILES)
    if count < options.connections:
        report.note(f"The limit of open files permits {count:,} connections, not more")
    share = -(-count // options.processes)
    names = [] if options.anonymous else idle_names(count)
    with (
        MeasuredServer(
            report, accounts=[*chat_names(), *names], argon2=CHEAP, patient=True
        ) as server,
        MeasuredChats(server.port) as chats,
        ExitStack() as stack,
    ):
        begin, cpu = time.monotonic(), server.cpu
        time.sleep(options.seconds)
        quiet, quiet_cpu = (begin, time.monotonic()), server.cpu - cpu

        before, open_before, begin = server.rss, server.descriptors, time.monotonic()
        loads = []
        for i in range(options.processes):
            places = range(i * share, min((i + 1) * share, count))
            load = Load(idle, server.port, places, f"127.0.1.{i + 1}", options.anonymous)
            loads.append(stack.enter_context(load))
        for load in loads:
            load.begin()
        arriving = (begin, time.monotonic())
        time.sleep(1)
        after, there = server.rss, server.descriptors - open_before

        begin, cpu = time.monotonic(), server.cpu
        time.sleep(options.seconds)
        idling, idle_cpu = (begin, time.monotonic()), server.cpu - cpu
        lost = sum(load.end() for load in loads)
        chats.end()
        troubles = server.troubles

    for phase, span, spent, connections, memory in (
        ("none there", quiet, quiet_cpu, 0, before),
        ("coming", arriving, None, None, None),
        ("all idle", idling, idle_cpu, there, after),
    ):
        report.row(
            phase=phase,
            seconds=span[1] - span[0],
            connections=connections,
            server_CPU_s=spent,
            RSS_MB=memory,
            kB_each=(after - before) * 1000 / there if connections else None,
            lost=lost if connections else None,
            **figures(chats.latencies(span)),
        )
    what = "handshaken only" if options.anonymous else "logged in"
    report.note(f"The connections are {what}; the chats' share of the CPU is in every phase")
    report.note_troubles(troubles)

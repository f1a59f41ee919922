"""How many clients can log in, and how many handshakes alone there can be, in a second."""

from __future__ import annotations

import argparse
import statistics
from contextlib import ExitStack

from benchmarks.client import LoadClient, log_in
from benchmarks.load import Control, Load, count
from benchmarks.report import Report
from benchmarks.server import MeasuredServer
from benchmarks.systems import pin

HELP = "logins, and TLS handshakes alone, a second"

KINDS = ("handshakes", "logins")


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add this benchmark's options."""
    parser.add_argument("--seconds", type=float, default=3.0, help="for each kind in each pass")
    parser.add_argument("--passes", type=int, default=5)
    parser.add_argument("--processes", type=int, default=8, help="that come, one after the other")


def come(control: Control, port: int, name: bytes, kind: str) -> int:
    """Connect, log in if `kind` says so, and go, again and again. Return how often."""
    control.ready()
    done = 0
    while control.is_running:
        (log_in(port, name) if kind == "logins" else LoadClient(port)).close()
        done += 1
    return done


def run(options: argparse.Namespace, report: Report) -> None:
    """Measure."""
    names = [b"visitor-%d" % i for i in range(options.processes)]
    rates: dict[str, list[float]] = {kind: [] for kind in KINDS}
    costs: dict[str, list[float]] = {kind: [] for kind in KINDS}
    busy: dict[str, list[float]] = {kind: [] for kind in KINDS}
    with MeasuredServer(report, accounts=names) as server:
        pin(server.process.pid, first=True)
        for _ in range(options.passes):
            for kind in KINDS:
                with ExitStack() as stack:
                    loads = [
                        stack.enter_context(Load(come, server.port, name, kind)) for name in names
                    ]
                    done, spent, used = count(loads, options.seconds, lambda: {"": server.cpu})
                rates[kind].append(done / spent)
                costs[kind].append(used[""] / done * 1000)
                busy[kind].append(used[""] / spent)
    for kind in KINDS:
        report.row(
            what=kind,
            a_second=statistics.median(rates[kind]),
            least=min(rates[kind]),
            most=max(rates[kind]),
            CPU_ms=statistics.median(costs[kind]),
            server=f"{statistics.median(busy[kind]):.0%}",
        )
    report.note("TLS 1.3 without resumption; a login is a handshake, a Login with Argon2, a close")
    report.note("The server's threads all have the first core, the load the last")

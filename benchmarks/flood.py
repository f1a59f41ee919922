"""What floods cost others: the latency of chats, quiet and under each flood, in one run."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks import floods
from benchmarks.chats import MeasuredChats, figures
from benchmarks.chats import names as chat_names
from benchmarks.load import Load
from benchmarks.report import Report, percentile
from benchmarks.server import MeasuredServer

HELP = "what floods of logins and of small packets cost the chats of others"

QUIET = "quiet"

FLOODS = (
    QUIET,
    "logins",
    "registrations",
    "logins, all at once",
    *floods.BATCHES,
)
"""In the order in which they come in each pass."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add this benchmark's options."""
    parser.add_argument("--seconds", type=float, default=5.0, help="for each flood in each pass")
    parser.add_argument("--passes", type=int, default=3, help="how often all of it is done")
    parser.add_argument(
        "--connections", type=int, default=64, help="how many log in, or register, at once"
    )
    parser.add_argument("--only", nargs="*", choices=FLOODS, help="these floods, beside quiet")
    parser.add_argument(
        "--limits", action="store_true", help="leave the server's limits for one address on"
    )


def run(options: argparse.Namespace, report: Report) -> None:
    """Measure."""
    chosen = [name for name in FLOODS if name == QUIET or name in (options.only or FLOODS)]
    accounts = [*chat_names(), *floods.names()]
    with MeasuredServer(report, accounts=accounts, limits=options.limits) as server:
        spans: dict[str, list[tuple[float, float]]] = {name: [] for name in chosen}
        did = dict.fromkeys(chosen, 0)
        cpu = dict.fromkeys(chosen, 0.0)
        with MeasuredChats(server.port) as chats:
            for _ in range(options.passes):
                for name in chosen:
                    with _flood(name, server.port, options.connections) as load:
                        begin, cpu_before = time.monotonic(), server.cpu
                        if load is not None:
                            load.begin()
                        time.sleep(options.seconds)
                        spans[name].append((begin, time.monotonic()))
                        cpu[name] += server.cpu - cpu_before
                        if load is not None:
                            did[name] += load.end()
                            if load.busy > 0.9:
                                report.note(
                                    f"{name}: the load was the bottleneck, it used "
                                    f"{load.busy:.0%} of its core"
                                )
            chats.end()
        troubles = server.troubles
    seconds = options.seconds * options.passes
    quiet = percentile(chats.latencies(*spans[QUIET]), 99)
    for name in chosen:
        found = figures(chats.latencies(*spans[name]))
        report.row(
            flood=name,
            **found,
            p99_to_quiet=found["p99_ms"] / quiet,
            packets_a_second=round(did[name] / seconds),
            server_cpu=f"{cpu[name] / seconds:.0%}",
        )
    report.note(f"{options.connections} connections flood with logins, one with small packets")
    for line in troubles[:3]:
        report.note(f"The server logged: {line}")


@contextmanager
def _flood(name: str, port: int, connections: int) -> Iterator[Load | None]:
    """Have a flood ready, and all who take part in it, for the time of the `with`."""
    if name == QUIET:
        yield None
    elif name in floods.BATCHES:
        with Load(floods.listen, port) as listeners:
            listeners.begin()
            with Load(floods.small_packets, port, name) as load:
                load.wait_until_ready()
                yield load
    else:
        if name == "logins, all at once":
            connections *= 4
        with Load(floods.attempts, port, connections, name == "registrations") as load:
            load.wait_until_ready()
            yield load

"""What floods cost others: the latency of chats, quiet and under each flood, in one run."""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from benchmarks import floods
from benchmarks.chats import MeasuredChats, figures
from benchmarks.chats import names as chat_names
from benchmarks.load import Load
from benchmarks.report import Report, percentile
from benchmarks.server import MeasuredServer

HELP = "what floods of logins and of small packets cost the chats of others"

QUIET = "quiet"

FLOODS = (QUIET, "logins", "registrations", *floods.BATCHES)
"""In the order in which they come in each pass."""

AS_IT_IS = "as it is"
"""The server with none of its constants changed."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add this benchmark's options."""
    parser.add_argument("--seconds", type=float, default=3.0, help="for each flood in each pass")
    parser.add_argument("--passes", type=int, default=5, help="how often all of it is done")
    parser.add_argument(
        "--connections", type=int, default=64, help="how many log in, or register, at once"
    )
    parser.add_argument("--only", nargs="+", choices=FLOODS, help="these floods, beside quiet")
    parser.add_argument(
        "--limits", action="store_true", help="leave the server's limits for one address on"
    )
    parser.add_argument(
        "--compare",
        nargs="+",
        metavar="NAME=NUMBER[,...]",
        default=[],
        help="measure servers too in which these of chatserver/limits.py are changed",
    )


class _Measured:
    """What a flood did to one server: in each pass the latencies, in ms and in order."""

    def __init__(self) -> None:
        self.passes: list[list[float]] = []
        self.packets = 0
        self.cpu = 0.0


def run(options: argparse.Namespace, report: Report) -> None:
    """Measure."""
    chosen = [name for name in FLOODS if name == QUIET or name in (options.only or FLOODS)]
    accounts = [*chat_names(), *floods.names()]
    variants = [AS_IT_IS, *options.compare]
    measured = {(each, name): _Measured() for each in variants for name in chosen}
    with ExitStack() as stack:
        servers = {
            each: stack.enter_context(
                MeasuredServer(
                    report, accounts=accounts, limits=options.limits, constants=_constants(each)
                )
            )
            for each in variants
        }
        # Passes, since a machine has better and worse moments: each flood meets all of them.
        for _ in range(options.passes):
            for each, server in servers.items():
                of_server = {name: measured[each, name] for name in chosen}
                _measure(server, of_server, options, report)
        for server in servers.values():
            report.note_troubles(server.troubles)

    seconds = options.seconds * options.passes
    for (each, name), found in measured.items():
        quiet = measured[each, QUIET]
        every = figures(sorted(latency for one in found.passes for latency in one))
        of_quiet = figures(sorted(latency for one in quiet.passes for latency in one))
        ratios = [
            percentile(one, 99) / percentile(other, 99)
            for one, other in zip(found.passes, quiet.passes, strict=True)
        ]
        report.row(
            server=each,
            flood=name,
            **every,
            p99_to_quiet=every["p99_ms"] / of_quiet["p99_ms"],
            median_of_passes=statistics.median(ratios),
            packets_a_second=round(found.packets / seconds),
            server_CPU=f"{found.cpu / seconds:.0%}",
        )
    report.note(
        f"p99 to quiet: over all {options.passes} passes of {options.seconds:g} s each; "
        "median of passes: of the same ratio in each pass"
    )
    report.note(f"{options.connections} connections log in or register, one sends small packets")


def _constants(variant: str) -> dict[str, int]:
    """Return what `variant` changes in `chatserver.limits`."""
    if variant == AS_IT_IS:
        return {}
    pairs = (each.partition("=") for each in variant.split(","))
    return {name: int(number) for name, _, number in pairs}


def _measure(
    server: MeasuredServer,
    measured: dict[str, _Measured],
    options: argparse.Namespace,
    report: Report,
) -> None:
    """Do one pass of all floods at `server`."""
    spans = {}
    with MeasuredChats(server.port) as chats:
        for name, found in measured.items():
            with _flood(name, server.port, options.connections) as load:
                begin, cpu_before = time.monotonic(), server.cpu
                if load is not None:
                    load.begin()
                time.sleep(options.seconds)
                spans[name] = (begin, time.monotonic())
                found.cpu += server.cpu - cpu_before
                if load is not None:
                    found.packets += load.end()
                    if load.busy > 0.9:
                        report.note(
                            f"{name}: the load was the bottleneck, it used nearly all of its core"
                        )
        chats.end()
    for name, span in spans.items():
        measured[name].passes.append(chats.latencies(span))


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
        with Load(floods.attempts, port, connections, name == "registrations") as load:
            load.wait_until_ready()
            yield load

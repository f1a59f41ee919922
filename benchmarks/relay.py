"""What it costs to relay a message: beside a bare relay, and beside other servers, in one run."""

from __future__ import annotations

import argparse
import statistics
import time
from contextlib import ExitStack
from dataclasses import dataclass, field

from benchmarks.load import Load
from benchmarks.pairs import Outcome, Talk, talk
from benchmarks.peers import PEERS
from benchmarks.report import Report, percentile
from benchmarks.systems import Bare, Ours, System

HELP = "what a message costs, beside a bare relay and other servers"

_ALL: tuple[type[System], ...] = (Bare, Ours, *PEERS)
SYSTEMS = {each.name: each for each in _ALL}
"""In the order in which they take turns. The floor comes first: others are compared with it."""

MODES = {"lockstep": 1, "pipelined": 16}
"""Messages that each sender has under way: lockstep, it waits for the delivery of each."""

BUSY = 0.9
"""The share of its core below which it is not the server that limits the messages a second."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add this benchmark's options."""
    parser.add_argument("--seconds", type=float, default=2.0, help="for each figure in each pass")
    parser.add_argument("--passes", type=int, default=5, help="how often all of it is done")
    parser.add_argument("--pairs", type=int, nargs="+", default=[1, 8, 32, 256])
    parser.add_argument("--size", type=int, default=64, help="bytes of a message")
    parser.add_argument("--modes", nargs="+", choices=MODES, default=list(MODES))
    parser.add_argument("--systems", nargs="+", choices=SYSTEMS, default=list(SYSTEMS))


@dataclass
class Measured:
    """What was measured of one server, in each pass."""

    cpu: list[float] = field(default_factory=list)  # us a message
    rate: list[float] = field(default_factory=list)  # messages a second
    busy: list[float] = field(default_factory=list)  # cores that the server used
    latencies: list[float] = field(default_factory=list)  # ms, of all passes
    lost: int = 0  # messages, in all passes
    parts: dict[str, list[float]] = field(default_factory=dict)  # us a message, of each part


def run(options: argparse.Namespace, report: Report) -> None:
    """Measure."""
    chosen = []
    for name in options.systems:
        longest = SYSTEMS[name].dialect.longest
        if (why := SYSTEMS[name].missing()) is not None:
            report.note(f"Left out: {name}, {why}")
        elif longest is not None and options.size > longest:
            report.note(f"Left out: {name}, whose messages have {longest} bytes at most")
        else:
            chosen.append(SYSTEMS[name])
    for mode in options.modes:
        for pairs in options.pairs:
            plan = Talk(pairs, options.size, MODES[mode])
            measured: dict[str, Measured] = {each.name: Measured() for each in chosen}
            with ExitStack() as stack:
                systems = [stack.enter_context(each(report, pairs)) for each in chosen]
                for _ in range(options.passes):
                    for system in systems:
                        measure(system, plan, options.seconds, measured[system.name])
            for name, found in measured.items():
                case = {"mode": mode, "pairs": pairs, "server": name}
                _add_row(report, case, plan, found, measured.get(Bare.name))
    report.note(
        f"The servers take turns in each of {options.passes} passes of {options.seconds:g} s. "
        "The server has the first core, the load the last, where it never sleeps"
    )
    report.note(
        "CPU: processor time of all the server's processes and threads for a message that was "
        "delivered; median of the passes, and the least and the most. To bare: the median of "
        "each pass's own ratio. Latency: from the write of a message (pipelined: of 16) until its "
        "receiver has all of it"
    )


def measure(system: System, plan: Talk, seconds: float, measured: Measured) -> None:
    """Let pairs talk once, as `plan` says, and add what that took to `measured`."""
    with Load(talk, system.dialect, system.port, plan) as load:
        load.begin()
        parts, cpu, begin = system.parts(), system.cpu, time.monotonic()
        time.sleep(seconds)
        outcome: Outcome = load.end()
        cpu, spent = system.cpu - cpu, time.monotonic() - begin
    measured.lost += outcome.lost
    if not outcome.delivered:
        raise RuntimeError(
            f"{system.name}: nothing was delivered, {outcome.lost} messages are lost"
        )
        for name, now in system.parts().items():
            cost = (now - parts[name]) / outcome.delivered * 1e6
            measured.parts.setdefault(name, []).append(cost)
    measured.cpu.append(cpu / outcome.delivered * 1e6)
    measured.rate.append(outcome.delivered / spent)
    measured.busy.append(cpu / spent)
    measured.latencies += (each * 1000 for each in outcome.latencies)


def _add_row(
    report: Report,
    case: dict[str, str | int],
    plan: Talk,
    found: Measured,
    bare: Measured | None,
) -> None:
    ratios = None if bare is None else [a / b for a, b in zip(found.cpu, bare.cpu, strict=True)]
    rate = statistics.median(found.rate)
    latencies = sorted(found.latencies)
    report.row(
        **case,
        CPU_us=statistics.median(found.cpu),
        least=min(found.cpu),
        most=max(found.cpu),
        to_bare=None if ratios is None else statistics.median(ratios),
        messages_a_second=round(rate),
        MB_a_second=rate * plan.size / 1e6,
        p50_ms=percentile(latencies, 50),
        p99_ms=percentile(latencies, 99),
        **{"p99.9_ms": percentile(latencies, 99.9)},
        lost=found.lost,
    )
    if statistics.median(found.busy) < BUSY:
        used = f"{statistics.median(found.busy):.0%}"
        report.note(
            f"{', '.join(map(str, case.values()))}: the server used {used} of its core only, "
            "so it is the load, or a busy machine, that limits the messages a second"
        )

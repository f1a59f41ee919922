"""A long run of random conversations and of random bytes, in several processes.

Ten million packets, on two cores::

    python -m tests.fuzz --packets 10000000 --processes 2

Each process plays seeds of its own with `tests.test_model`: whole conversations of several clients
over TLS in memory, beside the model of the rules; and after each seed it gives random streams to
the decoder (`tests.streams`). It fails if a client hears anything but what the rules say, if an
error is logged, or if memory grows. A seed that fails is kept in `tests/corpus`, where the suite
plays it again.
"""

from __future__ import annotations

import argparse
import gc
import multiprocessing
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from random import Random

from twisted.logger import LogEvent, globalLogBeginner

from tests.streams import check_stream
from tests.test_model import CORPUS, play

STEPS = 1000
STREAMS = 50
"""Random streams for the decoder after each seed."""

WARM_UP = 20
"""Seeds of each process until its memory is measured: by then all is loaded and cached."""

MAX_MORE_OBJECTS = 1000
"""Objects, of about 100 000, by which a process may grow: caches of the standard library."""

MAX_MORE_MEMORY = 16 * 2**20
"""Bytes by which a process may grow. The allocator keeps some more after a larger seed."""


@dataclass(frozen=True)
class Size:
    """How large a process is: its objects that the garbage collector knows, and its bytes."""

    objects: int
    memory: int


@dataclass(frozen=True)
class Outcome:
    """What one process has done."""

    packets: int
    seeds: int
    streams: int
    before: Size
    after: Size
    fault: str | None


def measure() -> Size:
    """Return the size of this process, after a collection. Where it can't be known it is 0."""
    gc.collect()
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        pages = 0
    return Size(len(gc.get_objects()), pages * 4096)


def run(first: int, step: int, packets: int) -> Outcome:
    """Play the seeds `first`, `first` + `step` and so on until so many `packets` are sent."""
    take_errors = watch_log()
    sent = streams = 0
    before = after = Size(0, 0)
    fault = None
    for seeds in count(1):
        seed = first + (seeds - 1) * step
        more, fault = play(seed, STEPS, take_errors)
        sent += more
        if fault is not None:
            keep(seed)
            break
        source = Random(seed)
        try:
            for _ in range(STREAMS):
                check_stream(source)
                streams += 1
        except Exception:
            fault = f"seed {seed}, a stream:\n{traceback.format_exc()}"
            break
        if seeds == WARM_UP:
            before = measure()
        if seeds % 100 == 0:
            print(f"{sent} packets, {seeds} seeds, {measure()}", file=sys.stderr)
        if sent >= packets and seeds > WARM_UP:
            break
    after = measure()
    if fault is not None:
        print(fault, file=sys.stderr)
    if fault is None and after.objects > before.objects + MAX_MORE_OBJECTS:
        fault = f"{after.objects - before.objects} objects more than after the warm-up"
    if fault is None and after.memory > before.memory + MAX_MORE_MEMORY:
        fault = f"{after.memory - before.memory} bytes more than after the warm-up"
    return Outcome(sent, seeds, streams, before, after, fault)


def watch_log() -> Callable[[], list[str]]:
    """Return what returns the tracebacks that were logged since its last call."""
    errors: list[str] = []

    def observe(event: LogEvent) -> None:
        if (failure := event.get("log_failure")) is not None:
            errors.append(failure.getTraceback())

    def take() -> list[str]:
        taken = errors[:]
        errors.clear()
        return taken

    globalLogBeginner.beginLoggingTo([observe], redirectStandardIO=False, discardBuffer=True)
    return take


def keep(seed: int) -> None:
    """Keep `seed` for the suite."""
    CORPUS.mkdir(exist_ok=True)
    (CORPUS / f"{seed}.txt").write_text(f"{seed} {STEPS}\n")


def main() -> None:
    """Do as the command line says, print what was done, and exit with 1 if anything failed."""
    parser = argparse.ArgumentParser(description="Random conversations and random bytes.")
    parser.add_argument("--packets", type=int, default=100_000, help="how many are sent in all")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--seed", type=int, default=1, help="the first one")
    options = parser.parse_args()
    begin = time.monotonic()
    share = -(-options.packets // options.processes)
    jobs = [
        (options.seed + number, options.processes, share) for number in range(options.processes)
    ]
    with multiprocessing.get_context("spawn").Pool(options.processes) as pool:
        outcomes = pool.starmap(run, jobs)
    print(
        f"{sum(each.packets for each in outcomes)} packets, "
        f"{sum(each.seeds for each in outcomes)} seeds of {STEPS} steps, "
        f"{sum(each.streams for each in outcomes)} streams, {time.monotonic() - begin:.0f} s"
    )
    for each in outcomes:
        print(
            f"objects: {each.before.objects} after the warm-up, {each.after.objects} in the end; "
            f"memory: {each.before.memory / 2**20:.1f} MiB, {each.after.memory / 2**20:.1f} MiB"
        )
    faults = [each.fault for each in outcomes if each.fault is not None]
    print("\n\n".join(faults) or "nothing found")
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()

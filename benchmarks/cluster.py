"""What several machines cost beside one: messages, invitations, logins, and users who idle."""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from benchmarks.client import log_in
from benchmarks.crowd import idle, idle_names
from benchmarks.dialects import ASYNCCHAT, Dialect
from benchmarks.load import Control, Load, count
from benchmarks.logins import come
from benchmarks.machines import POSTGRESQL, Machines, missing
from benchmarks.pairs import Talk
from benchmarks.relay import MODES, Measured, measure
from benchmarks.report import Report, Value, percentile
from chatserver.packets import Command, Packet

HELP = "what a message, an invitation, a login and an idle user cost across two machines"

_SPENDERS = ("machine 1", "machine 2", "NATS")


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add this benchmark's options."""
    parser.add_argument("--seconds", type=float, default=2.0, help="for each figure in each pass")
    parser.add_argument("--passes", type=int, default=3, help="how often all of it is done")
    parser.add_argument("--pairs", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--size", type=int, default=64, help="bytes of a message")
    parser.add_argument("--modes", nargs="+", choices=MODES, default=list(MODES))
    parser.add_argument("--users", type=int, default=2000, help="who idle")
    parser.add_argument("--processes", type=int, default=8, help="that invite, or log in")
    parser.add_argument("--parts", nargs="+", choices=_PARTS, default=list(_PARTS))
    parser.add_argument(
        "--postgresql", metavar="URL", default=POSTGRESQL, help="where a database can be made"
    )


def run(options: argparse.Namespace, report: Report) -> None:
    """Measure."""
    if (why := missing(options.postgresql)) is not None:
        report.note(f"Left out: {why}")
        return
    for part in options.parts:
        _PARTS[part](options, report)
    report.note(
        "One machine is without --cluster, two are with it; all have --reactor asyncio and "
        "PostgreSQL, and take turns in each pass. One core: all servers and NATS have the first, "
        "the load the last, where it never sleeps. Two cores: everything goes where the system "
        "puts it, and the load sleeps"
    )
    report.note(
        "CPU: of all the machines' processes and threads, then of each (senders and inviters are "
        "on the first), and NATS's beside it; medians of the passes. Beyond one: the median of "
        "each pass's own difference to one machine"
    )


# --- Messages ---------------------------------------------------------------------------------


def _relay(options: argparse.Namespace, report: Report) -> None:
    names = ASYNCCHAT.names(max(options.pairs))
    for is_pinned in (True, False):
        with _machines(options, report, names, is_pinned=is_pinned) as (one, two):
            cases: dict[str, tuple[Machines, Dialect]] = {
                "one machine": (one, ASYNCCHAT),
                "two, chats within": (two, two.spread),
                "two, chats across": (two, two.across),
            }
            for mode in options.modes:
                for pairs in options.pairs:
                    plan = Talk(pairs, options.size, MODES[mode], may_sleep=not is_pinned)
                    found = {name: Measured() for name in cases}
                    for _ in range(options.passes):
                        for name, (system, dialect) in cases.items():
                            system.dialect = dialect
                            measure(system, plan, options.seconds, found[name])
                    for name, measured in found.items():
                        what = f"{mode}, {pairs} pairs, {'one core' if is_pinned else 'two cores'}"
                        _relay_row(report, what, name, measured, found["one machine"])


def _relay_row(report: Report, what: str, name: str, found: Measured, one: Measured) -> None:
    latencies = sorted(found.latencies)
    _row(
        report,
        what,
        name,
        found,
        one,
        p50_ms=percentile(latencies, 50),
        p99_ms=percentile(latencies, 99),
        lost=found.lost,
    )


# --- Invitations and logins -------------------------------------------------------------------


def invite(control: Control, ports: list[int], names: tuple[bytes, bytes], ends: str) -> int:
    """Invite and hear the answer, again and again. Return how often.

    :param ports: the inviter's, then the invited one's
    :param ends: whether that is ``declined``, or ``chats``: accepted, and the chat left
    """
    a, b = names
    inviter, invitee = log_in(ports[0], a), log_in(ports[-1], b)
    invited = [
        (inviter, Packet(Command.CHAT_REQUEST, b), Packet(Command.ACK, b"SENT")),
        (invitee, None, Packet(Command.FIND_PEER, a)),
    ]
    steps = {
        "declined": [
            *invited,
            (invitee, Packet(Command.CHAT_DECLINE, a), Packet(Command.ACK, b"OK")),
            (inviter, None, Packet(Command.ERROR, b"DENY")),
        ],
        "chats": [
            *invited,
            (invitee, Packet(Command.CHAT_ACCEPT, a), Packet(Command.CHAT_ACCEPT, a)),
            (inviter, None, Packet(Command.CHAT_ACCEPT, b)),
            (inviter, Packet(Command.EXIT_CHAT), Packet(Command.ACK, b"BYE")),
            (invitee, None, Packet(Command.ERROR, b"EXIT")),
        ],
    }[ends]
    control.ready()
    done = 0
    while control.is_running:
        for client, packet, expected in steps:
            if packet is not None:
                client.send(packet.command, packet.body)
            if (heard := client.receive()) != expected:
                raise AssertionError(f"{heard} instead of {expected}")
        done += 1
    return done


def _invitations(options: argparse.Namespace, report: Report) -> None:
    names = ASYNCCHAT.names(options.processes)
    pairs = list(zip(names[::2], names[1::2], strict=True))
    with _machines(options, report, names) as systems:
        for what, ends in (("invited, declined", "declined"), ("invited, accepted, left", "chats")):
            _take_turns(
                options,
                report,
                what,
                systems,
                lambda system, ends=ends: [
                    Load(invite, system.ports, pair, ends) for pair in pairs
                ],
            )


def _logins(options: argparse.Namespace, report: Report) -> None:
    names = [b"visitor-%d" % i for i in range(options.processes)]
    with _machines(options, report, names) as systems:
        for what, moves in (("login, each on one machine", 1), ("login, on all in turn", 2)):
            _take_turns(
                options,
                report,
                what,
                systems,
                # Accounts of which two log in replace each other, on one machine or on two.
                lambda system, moves=moves: [
                    Load(come, system.ports[i % len(system.ports)], names[i // moves], "logins")
                    for i in range(options.processes)
                ],
            )


def _take_turns(
    options: argparse.Namespace,
    report: Report,
    what: str,
    systems: tuple[Machines, Machines],
    make: Callable[[Machines], list[Load]],
) -> None:
    """Let the loads that `make` makes count what they do."""
    found = [Measured() for _ in systems]
    for _ in range(options.passes):
        for system, measured in zip(systems, found, strict=True):
            with ExitStack() as stack:
                loads = [stack.enter_context(load) for load in make(system)]
                done, spent, used = count(loads, options.seconds, system.parts)
            measured.rate.append(done / spent)
            for name, cpu in used.items():
                measured.parts.setdefault(name, []).append(cpu / done * 1e6)
            own = sum(cpu for name, cpu in used.items() if name != "NATS")
            measured.cpu.append(own / done * 1e6)
    for name, measured in zip(("one machine", "two, across"), found, strict=True):
        _row(report, what, name, measured, found[0])


# --- Idle users -------------------------------------------------------------------------------


def _idle(options: argparse.Namespace, report: Report) -> None:
    names = idle_names(options.users)
    with _machines(options, report, names, is_patient=True) as systems:
        for system, name in zip(systems, ("one machine", "two"), strict=True):
            first, nats = system.servers[0], system.nats
            before = first.rss, 0.0 if nats is None else nats.memory_info().rss / 1e6
            with Load(idle, system.port, range(options.users), "127.0.1.1", False) as load:
                load.begin()
                time.sleep(3)  # The second announcement of each login is over.
                after = first.rss, 0.0 if nats is None else nats.memory_info().rss / 1e6
                parts = system.parts()
                time.sleep(options.seconds)
                used = {key: now - parts[key] for key, now in system.parts().items()}
                lost = load.end()
            each, of_nats = (
                (b - a) * 1000 / options.users for a, b in zip(before, after, strict=True)
            )
            report.note(
                f"{options.users:,} users who idle on the first machine, {name}: {each:.1f} kB "
                f"for each there, {of_nats:.1f} kB in NATS, {lost} lost; in {options.seconds:g} s "
                "they used " + ", ".join(f"{key} {cpu:.2f} s" for key, cpu in used.items())
            )


# --- What these share -------------------------------------------------------------------------


@contextmanager
def _machines(
    options: argparse.Namespace,
    report: Report,
    names: list[bytes],
    *,
    is_pinned: bool = True,
    is_patient: bool = False,
) -> Iterator[tuple[Machines, Machines]]:
    """Run one machine alone, and two that are one."""
    with ExitStack() as stack:
        one, two = (
            Machines(
                report,
                number,
                options.postgresql,
                names,
                is_pinned=is_pinned,
                is_patient=is_patient,
            )
            for number in (1, 2)
        )
        stack.enter_context(one)
        stack.enter_context(two)
        yield one, two
        report.note_troubles(one.troubles + two.troubles)


def _row(
    report: Report, what: str, name: str, found: Measured, one: Measured, **more: Value
) -> None:
    parts = {each: found.parts.get(each) for each in _SPENDERS}
    report.row(
        what=what,
        server=name,
        a_second=round(statistics.median(found.rate)),
        CPU_us=statistics.median(found.cpu),
        **{part: None if each is None else statistics.median(each) for part, each in parts.items()},
        beyond_one=statistics.median(a - b for a, b in zip(found.cpu, one.cpu, strict=True)),
        **({"p50_ms": None, "p99_ms": None, "lost": None} | more),
    )


_PARTS: dict[str, Callable[[argparse.Namespace, Report], None]] = {
    "relay": _relay,
    "invitations": _invitations,
    "logins": _logins,
    "idle": _idle,
}

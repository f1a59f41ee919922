"""What people in a cluster notice of faults, again and again, and whether its memory grows.

Needs nats-server, and PostgreSQL as the tests do; it takes about three minutes::

    ASYNCCHAT_TEST_POSTGRESQL=postgresql+psycopg://postgres@127.0.0.1/test \
        python -m tests.long_cluster

Three servers with a NATS of their own, and in each round two who talk across machines as fast as
they can: then a machine is stopped for ten seconds (its users have moved meanwhile), a machine is
killed, NATS ends and comes back, or the network between a machine and NATS swallows everything.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress

from twisted.trial.unittest import SkipTest

from chatserver.packets import Command, Packet
from tests.clusters import Machine
from tests.processes import until
from tests.test_cluster_process import ClusterProcessCase
from tests.test_outage import Relay

REPLACED = Packet(Command.ERROR, b"REPLACED")
PAUSE = 10.0
"""Seconds that a machine is stopped."""

LATEST = 5.0
"""Seconds within which partners must have heard EXIT."""

GROWTH = 20_000
"""Kilobytes that a machine may have more after all rounds than after the first."""


def memory(machine: Machine) -> int:
    """Return how many kilobytes a machine takes."""
    with open(f"/proc/{machine.process.pid}/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmRSS"))


class Rounds(ClusterProcessCase):
    """Plays the faults."""

    def runTest(self) -> None:
        """Nothing: it is no test of the suite."""

    def play(self, name: str, fault: Callable[[], float]) -> float:
        """Play one fault, and print after how many seconds the last one knew."""
        self.number += 1
        self.word = f"{os.getpid()}-{self.number}"
        seconds = fault()
        print(f"{name}: {seconds:.2f} s", flush=True)
        return seconds

    number = 0

    def stopped(self) -> float:
        """Stop a machine, and let it go on."""
        here, there = self.cluster.machines
        talk = self.talk(here, there, "a", "b")
        stays = self.join(there, "c")
        os.kill(there.process.pid, signal.SIGSTOP)
        start = time.monotonic()
        moved = self.join(here, "c", is_new=False)
        until(lambda: "speaker" in talk.ended_at, "EXIT")
        time.sleep(max(0.0, start + PAUSE - time.monotonic()))
        os.kill(there.process.pid, signal.SIGCONT)
        talk.wait()
        assert talk.find_faults() == [], talk.find_faults()
        assert stays.receive() == REPLACED
        self.begin(self.join(there, "d"), moved, "d", "c")
        return talk.ended_at["speaker"] - start

    def killed(self) -> float:
        """Kill a machine."""
        here, _ = self.cluster.machines
        dying = self.cluster.add()
        talk = self.talk(here, dying, "a", "b")
        dying.kill()
        start = time.monotonic()
        self.join(here, "b", is_new=False)
        talk.wait()
        assert talk.find_faults(is_listener_there=False) == [], talk.find_faults()
        return talk.ended_at["speaker"] - start

    def without_nats(self) -> float:
        """End NATS, and start it again."""
        here, there = self.cluster.machines
        talk = self.talk(here, there, "a", "b")
        self.cluster.nats.stop()
        start = time.monotonic()
        talk.wait()
        self.cluster.nats.start()
        assert talk.find_faults() == [], talk.find_faults()
        until(lambda: self._is_up(here, there), "NATS")
        return max(talk.ended_at.values()) - start

    def _is_up(self, here: Machine, there: Machine) -> bool:
        self.tries = getattr(self, "tries", 0) + 1
        inviter, invited = self.join(here, f"x{self.tries}"), self.join(there, f"y{self.tries}")
        try:
            self.begin(inviter, invited, f"x{self.tries}", f"y{self.tries}")
        except AssertionError:
            time.sleep(0.1)
            return False
        return True

    def swallowed(self) -> float:
        """Let all be swallowed between a machine and NATS."""
        here, _ = self.cluster.machines
        relay = Relay("127.0.0.1", self.cluster.nats.port)
        cut_off = self.cluster.add(f"nats://127.0.0.1:{relay.port}")
        talk = self.talk(here, cut_off, "a", "b")
        relay.flowing.clear()
        start = time.monotonic()
        talk.wait()
        assert talk.find_faults() == [], talk.find_faults()
        relay.close()
        cut_off.kill()
        return max(talk.ended_at.values()) - start


def main() -> None:
    """Play, print, and exit with 1 if something took too long or grows."""
    parser = argparse.ArgumentParser(description="Faults in a cluster, again and again.")
    parser.add_argument("--rounds", type=int, default=4)
    options = parser.parse_args()
    rounds = Rounds()
    os.chdir(tempfile.mkdtemp(prefix="asyncchat-cluster-"))
    try:
        rounds.setUp()
    except SkipTest as reason:
        sys.exit(str(reason))
    faults = {
        "stopped for 10 s": rounds.stopped,
        "killed": rounds.killed,
        "NATS away": rounds.without_nats,
        "swallowed": rounds.swallowed,
    }
    times, sizes = [], []
    for _ in range(options.rounds):
        for name, fault in faults.items():
            times.append(rounds.play(name, fault))
        sizes.append([memory(machine) for machine in rounds.cluster.machines])
        print("kilobytes:", *sizes[-1], flush=True)
    with suppress(Exception):
        rounds.doCleanups()
    growth = max(last - first for first, last in zip(sizes[0], sizes[-1], strict=True))
    print(f"latest {max(times):.2f} s, growth {growth} kB")
    sys.exit(max(times) > LATEST or growth > GROWTH)


if __name__ == "__main__":
    main()

"""Tests for what all benchmarks share, and a short run of one: they take too long otherwise."""

from __future__ import annotations

import argparse
import importlib
import json
import math
import socket
import sys
from importlib.util import find_spec
from types import SimpleNamespace

from twisted.trial.unittest import SynchronousTestCase

from benchmarks.__main__ import NAMES
from benchmarks.report import Report, percentile


class PercentileTests(SynchronousTestCase):
    """`percentile`."""

    def test_nearest_rank(self) -> None:
        """It is one of the values: the one that so many per cent do not exceed."""
        values = [float(i) for i in range(1, 1001)]
        for percent, expected in ((0, 1), (50, 500), (99, 990), (99.9, 999), (100, 1000)):
            self.assertEqual(percentile(values, percent), expected)

    def test_few(self) -> None:
        """Of one value it is that one; of none it is not a number."""
        self.assertEqual(percentile([7.0], 99), 7.0)
        self.assertTrue(math.isnan(percentile([], 99)))


class ReportTests(SynchronousTestCase):
    """`Report`."""

    def setUp(self) -> None:
        """Fill in a report."""
        self.report = Report("flood", ["python", "-m", "benchmarks", "flood", "--only", "a b"])
        self.report.row(flood="quiet", p99_ms=1.234, messages=0)
        self.report.row(flood="logins", p99_ms=None, messages=12345)
        self.report.note("said twice")
        self.report.note("said twice")

    def test_text(self) -> None:
        """The text has the command, and a table that is Markdown; notes are said once."""
        text = str(self.report)
        self.assertTrue(text.startswith("$ python -m benchmarks flood --only 'a b'\n"), text)
        self.assertIn(
            "| flood  | p99 ms | messages |\n"
            "|--------|--------|----------|\n"
            "| quiet  |   1.23 |        0 |\n"
            "| logins |        |   12,345 |\n",
            text,
        )
        self.assertEqual(text.count("said twice"), 1)

    def test_json(self) -> None:
        """The JSON has the same, the figures as they were measured, and what they depend on."""
        figures = json.loads(self.report.as_json())
        self.assertEqual(figures["rows"][0], {"flood": "quiet", "p99 ms": 1.234, "messages": 0})
        self.assertEqual(figures["notes"], ["said twice"])
        self.assertEqual(set(figures["environment"]), {"versions", "machine", "commit"})


class BenchmarkTests(SynchronousTestCase):
    """The modules of the benchmarks."""

    if sys.platform == "win32" or find_spec("psutil") is None:
        skip = "the benchmarks need psutil, and a POSIX system"

    def test_exact_counter(self) -> None:
        """Deliveries whose bytes are known are counted, however they are cut."""
        dialects = importlib.import_module("benchmarks.dialects")
        deliveries = [b"one", b"three", b"four"]
        stream = b"".join(deliveries) * 3
        for size in range(1, len(stream) + 1):
            counter = dialects.ExactCounter(deliveries)
            pieces = [stream[i : i + size] for i in range(0, len(stream), size)]
            self.assertEqual(sum(map(counter.feed, pieces)), 9)
        self.assertRaises(dialects.LostError, counter.feed, b"three")

    def test_marked_counter(self) -> None:
        """So are those that are known by a part of them; one that is missing is noticed."""
        dialects = importlib.import_module("benchmarks.dialects")
        peers = importlib.import_module("benchmarks.peers")
        stream = b"<a>1</a><b>2</a>" * 2
        for size in range(1, len(stream) + 1):
            counter = peers.MarkedCounter(b"</a>", [b">1", b">2"])
            pieces = [stream[i : i + size] for i in range(0, len(stream), size)]
            self.assertEqual(sum(map(counter.feed, pieces)), 4)
        self.assertRaises(dialects.LostError, counter.feed, b"<b>2</a>")

    def talk(self, *delivered: bytes) -> tuple[int, int]:
        """Let a pair say "0 x" and "1 x" once, of which `delivered` is what its receiver gets.

        Return how many messages were delivered and how many were lost.
        """
        client = importlib.import_module("benchmarks.client")
        dialects = importlib.import_module("benchmarks.dialects")
        pairs = importlib.import_module("benchmarks.pairs")
        self.patch(pairs, "SILENCE", 0.05)
        sockets = [*socket.socketpair(), *socket.socketpair()]
        for each in sockets:
            self.addCleanup(each.close)
        receives, delivers, sends, _ = sockets

        class LocalClient(client.LoadClient):  # type: ignore[misc,name-defined]
            def __init__(self, end: socket.socket) -> None:
                self._socket = end

            def receive_some(self) -> bytes | None:
                try:
                    return self._socket.recv(65536)
                except BlockingIOError:
                    return None

        class LocalDialect(dialects.AsyncChatDialect):  # type: ignore[misc,name-defined]
            def open(self, *_: object) -> tuple[LocalClient, LocalClient]:
                return LocalClient(sends), LocalClient(receives)

            def say(self, sender: bytes, receiver: bytes, text: bytes) -> bytes:
                return text

            def counter(self, sender: bytes, texts: list[bytes]) -> object:
                return dialects.ExactCounter(texts)

            def answers(self, count: int) -> bytes:
                return b""

        delivers.sendall(b"".join(delivered))
        control = SimpleNamespace(ready=lambda: None, is_running=False)
        outcome = pairs.talk(control, LocalDialect(), 0, pairs.Talk(1, 3, 2))
        return outcome.delivered, outcome.lost

    def test_lost(self) -> None:
        """What never comes, comes twice or comes out of order is told; else nothing was lost."""
        self.assertEqual(self.talk(b"0 x", b"1 x"), (2, 0))
        self.assertEqual(self.talk(b"0 x"), (1, 1))
        self.assertEqual(self.talk(), (0, 2))
        self.assertEqual(self.talk(b"1 x", b"0 x"), (0, 2))
        self.assertEqual(self.talk(b"0 x", b"1 x", b"0 x"), (3, 1))

    def test_relay(self) -> None:
        """A short run has a row for each server, and the floor is the measure of itself."""
        relay = importlib.import_module("benchmarks.relay")
        parser = argparse.ArgumentParser()
        relay.add_options(parser)
        arguments = "--seconds 0.2 --passes 1 --pairs 2 --modes pipelined --systems"
        options = parser.parse_args([*arguments.split(), "bare Twisted", "asyncchat"])
        report = Report("relay", [])
        relay.run(options, report)
        bare, ours = report.rows
        self.assertEqual((bare["server"], ours["server"]), ("bare Twisted", "asyncchat"))
        self.assertEqual(bare["to bare"], 1.0)
        for row in report.rows:
            self.assertEqual(row["lost"], 0)
            self.assertGreater(row["CPU us"], 0)
            self.assertGreater(row["messages a second"], 0)

    def test_peers(self) -> None:
        """A server that is not installed is left out, and it is said what installs it."""
        relay = importlib.import_module("benchmarks.relay")
        peers = importlib.import_module("benchmarks.peers")
        self.patch(peers.shutil, "which", lambda name: None)
        parser = argparse.ArgumentParser()
        relay.add_options(parser)
        report = Report("relay", [])
        relay.run(parser.parse_args(["--pairs", "1", "--systems", "Prosody"]), report)
        self.assertIn("Left out: Prosody", report.notes[0])
        self.assertIn("benchmarks/install_peers.sh", report.notes[0])
        self.assertEqual(report.rows, [])

    def test_modules(self) -> None:
        """Each has what the command line takes of it, and can do with no options."""
        for name in NAMES:
            module = importlib.import_module(f"benchmarks.{name}")
            parser = argparse.ArgumentParser()
            module.add_options(parser)
            self.assertNotEqual(vars(parser.parse_args([])), {})
            self.assertNotIn("\n", module.HELP)
            self.assertTrue(callable(module.run))

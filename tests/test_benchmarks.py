"""Tests for what all benchmarks share. The benchmarks themselves take too long to be run here."""

from __future__ import annotations

import argparse
import importlib
import json
import math
import sys
from importlib.util import find_spec

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
        self.assertRaises(AssertionError, counter.feed, b"three")

    def test_marked_counter(self) -> None:
        """So are those that are known by a part of them; one that is missing is noticed."""
        peers = importlib.import_module("benchmarks.peers")
        stream = b"<a>1</a><b>2</a>" * 2
        for size in range(1, len(stream) + 1):
            counter = peers.MarkedCounter(b"</a>", [b">1", b">2"])
            pieces = [stream[i : i + size] for i in range(0, len(stream), size)]
            self.assertEqual(sum(map(counter.feed, pieces)), 4)
        self.assertRaises(AssertionError, counter.feed, b"<b>2</a>")

    def test_modules(self) -> None:
        """Each has what the command line takes of it, and can do with no options."""
        for name in NAMES:
            module = importlib.import_module(f"benchmarks.{name}")
            parser = argparse.ArgumentParser()
            module.add_options(parser)
            self.assertNotEqual(vars(parser.parse_args([])), {})
            self.assertNotIn("\n", module.HELP)
            self.assertTrue(callable(module.run))

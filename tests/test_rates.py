"""Tests for `chatserver.rates`."""

from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase

from chatserver.rates import Rate, RateLimit, SlidingWindow, parse_rate


class ParseTests(TestCase):
    """How a rate is written."""

    def test_rates(self) -> None:
        """A rate is a number of times in a number of some unit of time; 0 is none."""
        for text, amount, seconds in (
            ("10/minute", 10, 60),
            ("1/second", 1, 1),
            ("5 per 2 hours", 5, 7200),
            (" 3/day ", 3, 86400),
            ("1000000 per 30 years", 1_000_000, 933_120_000),
        ):
            self.assertEqual(parse_rate(text), Rate(amount, seconds, text.strip()))
            self.assertEqual(str(parse_rate(text)), text.strip())
        self.assertIsNone(parse_rate("0"))

    def test_mistakes(self) -> None:
        """What is no rate, or two, or one of nothing, is refused with what it was."""
        for text in (
            *("", "10", "often", "10/fortnight", "1/minute;5/hour", "-1/hour", "0/minute"),
            *(f"10 per {'9' * digits} hours" for digits in (9, 300, 5000)),
            *(f"{'9' * digits}/minute" for digits in (7, 300, 5000)),
        ):
            error = self.assertRaises(ValueError, parse_rate, text)
            self.assertIn(repr(text), str(error))


class RecentTests(TestCase):
    """What happened in the last seconds."""

    def test_count(self) -> None:
        """An event counts for so many seconds, for its own key."""
        clock = Clock()
        recent = SlidingWindow(clock, 60)
        recent.add("a")
        clock.advance(30)
        recent.add("a")
        recent.add("b")
        self.assertEqual([recent.count(key) for key in "abc"], [2, 1, 0])
        clock.advance(30)
        self.assertEqual([recent.count(key) for key in "abc"], [1, 1, 0])
        clock.advance(30)
        self.assertEqual([recent.count(key) for key in "abc"], [0, 0, 0])

    def test_busy_key(self) -> None:
        """A key of which one event still counts does not keep those of others."""
        clock = Clock()
        recent = SlidingWindow(clock, 60)
        recent.add("busy")
        recent.add("a")
        clock.advance(50)
        recent.add("busy")
        clock.advance(10)
        self.assertEqual([recent.count(key) for key in ("a", "busy")], [0, 1])
        self.assertEqual(len(recent), 1)

    def test_clock_goes_on(self) -> None:
        """An event that ends while it is looked at is not counted by halves."""

        class RunningClock(Clock):
            def seconds(self) -> float:
                self.rightNow += 3e-7
                return self.rightNow

        for start in range(-40, 0):
            clock = RunningClock()
            recent = SlidingWindow(clock, 60)
            recent.add("a")
            clock.advance(60 + start * 1e-7)
            self.assertIn(recent.count("a"), (0, 1))
            recent.add("b")
            self.assertEqual(recent.count("b"), 1)

    def test_nothing_is_kept(self) -> None:
        """A key whose events are all too old is forgotten, whoever asks or adds."""
        clock = Clock()
        recent = SlidingWindow(clock, 60)
        for key in range(1000):
            recent.add(key)
            clock.advance(1)
        self.assertEqual(len(recent), 60)
        clock.advance(60)
        self.assertEqual(recent.count("another"), 0)
        self.assertEqual(len(recent), 0)


class RateLimitTests(TestCase):
    """What may happen."""

    def test_limit(self) -> None:
        """It may happen so often in any such time, and what was refused does not count."""
        clock = Clock()
        limit = RateLimit(clock, Rate(2, 60, "2/minute"))
        self.assertEqual([limit.allows("a") for _ in range(4)], [True, True, False, False])
        self.assertTrue(limit.allows("b"))
        clock.advance(59)
        self.assertFalse(limit.allows("a"))
        clock.advance(1)
        self.assertEqual([limit.allows("a") for _ in range(3)], [True, True, False])

    def test_no_limit(self) -> None:
        """Without a rate everything may happen, and nothing is counted."""
        limit = RateLimit(Clock(), None)
        self.assertTrue(all(limit.allows("a") for _ in range(1000)))

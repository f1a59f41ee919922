"""Tests for `chatserver.attempts`."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase

from chatserver.accounts import NotAuthenticatedError, StorageFailedError, TooBusyError
from chatserver.attempts import LoginAttempts, TooManyFailuresError
from chatserver.limits import MAX_LOGINS_UNDER_WAY
from chatserver.rates import Rate

AMOUNT = 3
HOME, OFFICE, ATTACKER = "192.0.2.1", "192.0.2.2", "198.51.100.99"


class AttemptsTests(TestCase):
    """Three logins a minute may fail."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.attempts = LoginAttempts(self.clock, Rate(AMOUNT, 60, "3/minute"))
        self.tried: list[Deferred[None]] = []
        self.addCleanup(self.end_all)

    def end_all(self) -> None:
        """Let no attempt wait for ever: the garbage collector would end it in another test."""
        while self.tried:
            self.tried.pop(0).callback(None)

    def make(self, name: str, network: str | None) -> Deferred[None]:
        """Make an attempt, which is under way until `tried` is fired."""

        def log_in() -> Deferred[None]:
            self.tried.append(Deferred())
            return self.tried[-1]

        return self.attempts.make(name, network, log_in)

    def fail(self, name: str, network: str) -> None:  # type: ignore[override]
        """Make an attempt that fails."""
        attempt = self.make(name, network)
        self.tried.pop().errback(NotAuthenticatedError())
        self.failureResultOf(attempt, NotAuthenticatedError)

    def succeed(self, name: str, network: str | None) -> None:
        """Make an attempt that succeeds."""
        attempt = self.make(name, network)
        self.tried.pop().callback(None)
        self.successResultOf(attempt)

    def refuse(self, name: str, network: str) -> None:
        """Make an attempt that is not tried."""
        self.failureResultOf(self.make(name, network), TooManyFailuresError)
        self.assertEqual(self.tried, [])

    def test_address(self) -> None:
        """Past the limit an address may try nobody's account, until a minute has passed."""
        for name in ("alice", "bob", "carol"):
            self.fail(name, ATTACKER)
        self.refuse("dave", ATTACKER)
        self.succeed("dave", HOME)
        self.clock.advance(60)
        self.succeed("dave", ATTACKER)

    def test_account(self) -> None:
        """Past the limit of an account, who has failed is kept out, and the owner is not."""
        for number in range(AMOUNT):
            self.fail("alice", f"198.51.100.{number}")
        self.refuse("alice", "198.51.100.0")
        self.succeed("alice", HOME)
        self.succeed("bob", "198.51.100.0")
        self.fail("bob", HOME)
        self.refuse("alice", HOME)
        self.clock.advance(60)
        self.succeed("alice", "198.51.100.0")

    def test_one_guess_each(self) -> None:
        """An address has one guess at an account that is under attack, and not three at once."""
        for number in range(AMOUNT):
            self.fail("alice", f"198.51.100.{number}")
        guesses = [self.make("alice", ATTACKER) for _ in range(AMOUNT)]
        self.assertEqual(len(self.tried), 1)
        self.tried.pop().errback(NotAuthenticatedError())
        self.failureResultOf(guesses[0], NotAuthenticatedError)
        for guess in guesses[1:]:
            self.failureResultOf(guess, TooManyFailuresError)
        self.assertEqual(self.tried, [])

    def test_success_does_not_count(self) -> None:
        """A whole fleet may log in from one address."""
        for number in range(100):
            self.succeed(f"device-{number}", OFFICE)

    def test_failures_of_the_server_do_not_count(self) -> None:
        """A database that fails locks nobody out."""
        for _ in range(AMOUNT + 1):
            attempt = self.make("alice", HOME)
            self.tried.pop().errback(StorageFailedError("away"))
            self.failureResultOf(attempt, StorageFailedError)

    def test_at_once(self) -> None:
        """Guesses made all at once are no more than those made one by one."""
        guesses = [self.make("alice", ATTACKER) for _ in range(20)]
        self.assertEqual(len(self.tried), AMOUNT)
        while self.tried:
            self.tried.pop(0).errback(NotAuthenticatedError())
        for guess in guesses[:AMOUNT]:
            self.failureResultOf(guess, NotAuthenticatedError)
        for guess in guesses[AMOUNT:]:
            self.failureResultOf(guess, TooManyFailuresError)

    def test_fleet_at_once(self) -> None:
        """A fleet that logs in all at once only waits, each in its turn."""
        order: list[int] = []
        for number in range(20):
            attempt = self.make(f"device-{number}", OFFICE)
            attempt.addCallback(lambda _, number=number: order.append(number))
        while self.tried:
            self.assertLessEqual(len(self.tried), AMOUNT)
            self.tried.pop(0).callback(None)
        self.assertEqual(order, list(range(20)))

    def test_not_overtaken(self) -> None:
        """The owner of an account under attack gets a turn, however many log in beside them."""
        for number in range(AMOUNT):
            self.fail("alice", f"198.51.100.{number}")
        first = self.make("device-1", OFFICE)
        owner = self.make("alice", OFFICE)
        second = self.make("device-2", OFFICE)
        self.assertEqual(len(self.tried), 1)
        self.tried.pop().callback(None)
        self.successResultOf(first)
        # Now those of the owner and of the second device are under way.
        self.assertEqual(len(self.tried), 2)
        self.tried.pop(0).callback(None)
        self.successResultOf(owner)
        self.assertNoResult(second)

    def test_too_many_wait(self) -> None:
        """Who would have to wait behind too many is refused at once."""
        waiting = [self.make("alice", HOME) for _ in range(AMOUNT + MAX_LOGINS_UNDER_WAY)]
        self.failureResultOf(self.make("alice", HOME), TooBusyError)
        self.assertNoResult(waiting[-1])

    def test_no_address(self) -> None:
        """Where addresses tell nothing, as at a UNIX socket, there is no limit."""
        for _ in range(AMOUNT + 1):
            attempt = self.make("alice", None)
            self.tried.pop().errback(NotAuthenticatedError())
            self.failureResultOf(attempt, NotAuthenticatedError)

    def test_no_rate(self) -> None:
        """The limit can be switched off."""
        self.attempts = LoginAttempts(self.clock, None)
        for _ in range(AMOUNT + 1):
            self.fail("alice", HOME)

    def test_nothing_is_kept(self) -> None:
        """What is over leaves nothing behind."""
        self.fail("alice", HOME)
        self.clock.advance(60)
        self.succeed("alice", HOME)
        kept = vars(self.attempts)
        for name in ("_by_network", "_by_name", "_under_way", "_waiting"):
            self.assertEqual(len(kept[name]), 0, name)

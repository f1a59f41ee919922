"""Attempts to log in: how many may fail, for one address and for one account.

The two limits are one rule: past the limit of an account, only those are kept out that have
failed with any account themselves. So the owner of an account that is under attack comes in, from
an address that did not fail, and who guesses from a thousand addresses has one guess at each.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from chatserver.accounts import AccountsError, NotAuthenticatedError, TooBusyError
from chatserver.limits import MAX_WAITING_ATTEMPTS
from chatserver.rates import Rate, SlidingWindow


class TooManyFailuresError(AccountsError):
    """Too many logins have failed. This one was not tried."""


class LoginAttempts:
    """Lets logins be tried, unless too many have failed.

    How an attempt ends is not known while it is under way. So that nobody gets more guesses
    by making them all at once, no more attempts of one address are under way than may still
    fail; the others wait for them, the first come first, and whoever logs in a whole fleet is
    only slowed down.

    :param clock: the clock to count by
    :param rate: how many may fail, or None for no limit
    """

    def __init__(self, clock: IReactorTime, rate: Rate | None) -> None:
        self._rate = rate
        seconds = rate.seconds if rate else 0
        self._by_network = SlidingWindow(clock, seconds)
        self._by_name = SlidingWindow(clock, seconds)
        self._under_way: Counter[str] = Counter()
        self._waiting: dict[str, deque[Deferred[None]]] = {}

    def make(
        self, name: str, network: str | None, log_in: Callable[[], Deferred[None]]
    ) -> Deferred[None]:
        """Call `log_in`, for the account `name` and a client in `network`, when it may be tried.

        Fires and fails with what `log_in` returns; also fails with TooManyFailuresError, or
        with TooBusyError if too many wait. Clients whose network is not known have no limit.
        """
        if self._rate is None or network is None:
            return log_in()
        return Deferred.fromCoroutine(self._make(self._rate, name, network, log_in))

    async def _make(
        self, rate: Rate, name: str, network: str, log_in: Callable[[], Deferred[None]]
    ) -> None:
        # Behind those that wait already: one that needs all others to have ended would be
        # overtaken for ever.
        while not self._may_try(rate, name, network) or network in self._waiting:
            await self._next_end(network)
        self._under_way[network] += 1
        try:
            await log_in()
        except NotAuthenticatedError:
            self._by_network.add(network)
            self._by_name.add(name)
            raise
        finally:
            self._end(network)

    def _may_try(self, rate: Rate, name: str, network: str) -> bool:
        """Tell whether an attempt may be made now, or has to wait for others to end.

        :raises TooManyFailuresError: neither.
        """
        failed = self._by_network.count(network)
        if failed >= rate.amount:
            raise TooManyFailuresError(f"too many logins from there failed (limit {rate})")
        is_attacked = self._by_name.count(name) >= rate.amount
        if is_attacked and failed:
            raise TooManyFailuresError(f"too many logins to that account failed (limit {rate})")
        under_way = self._under_way[network]
        return under_way == 0 if is_attacked else failed + under_way < rate.amount

    def _next_end(self, network: str) -> Deferred[None]:
        """Return what fires when an attempt from `network` has ended."""
        waiting = self._waiting.setdefault(network, deque())
        if len(waiting) >= MAX_WAITING_ATTEMPTS:
            raise TooBusyError(f"{len(waiting)} logins from there wait already")
        end: Deferred[None] = Deferred()
        waiting.append(end)
        return end

    def _end(self, network: str) -> None:
        self._under_way[network] -= 1
        if not self._under_way[network]:
            del self._under_way[network]
        # All of them: a failure may have been the last that was allowed. Those that wait on
        # keep their order.
        for end in self._waiting.pop(network, ()):
            end.callback(None)

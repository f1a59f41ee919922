"""How often something may happen: ``10/minute``."""

from __future__ import annotations

from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass

from twisted.internet.interfaces import IReactorTime

from chatserver.limits import MAX_RATE_AMOUNT, MAX_SECONDS


@dataclass(frozen=True, slots=True)
class Rate:
    """`amount` times in any `seconds`. As text it is in the notation of the limits package."""

    amount: int
    seconds: int
    text: str

    def __str__(self) -> str:
        return self.text


def parse_rate(text: str) -> Rate | None:
    """Return the rate that `text` is, such as ``10/minute`` or ``5 per 2 hours``.

    ``0`` is None: no limit. The notation is the `limits` package's.

    :raises ValueError: it is none. The text is a sentence for the operator.
    """
    if text.strip() == "0":
        return None
    # Not at the top: only the options need it, and it takes a tenth of a second.
    from limits import parse_many  # noqa: PLC0415

    try:
        items = parse_many(text)
    except ValueError:
        items = []
    if len(items) != 1:
        raise ValueError(f"a rate looks like 10/minute, and 0 is none, not {text!r}")
    (item,) = items
    if item.amount < 1:
        raise ValueError(f"a rate of nothing is refused, and 0 is no limit, not {text!r}")
    seconds = item.get_expiry()
    if item.amount > MAX_RATE_AMOUNT or seconds >= MAX_SECONDS:
        raise ValueError(
            f"a rate is at most {MAX_RATE_AMOUNT} times, in less than {MAX_SECONDS:.0f} seconds,"
            f" and 0 is no limit, not {text!r}"
        )
    return Rate(item.amount, seconds, text.strip())


class SlidingWindow:
    """Counts what has happened in the last seconds, for each key of its own.

    It keeps one time for each event that counts, and nothing for keys of which none does.

    (The limits package has this too, but there by the time of day and in a thread, or for
    a server of its own.)

    :param clock: the clock to count by, which must not go back; see `chatserver.steady`
    :param seconds: how long an event counts
    """

    def __init__(self, clock: IReactorTime, seconds: float) -> None:
        self._clock = clock
        self._seconds = seconds
        # By the time of the last event, the oldest first.
        self._times: OrderedDict[Hashable, list[float]] = OrderedDict()

    def __len__(self) -> int:
        """Return how many keys are kept."""
        return len(self._times)

    def count(self, key: Hashable) -> int:
        """Return how many events of `key` still count."""
        start = self._forget_old(self._clock.seconds())
        times = self._times.get(key)
        if times is None:
            return 0
        del times[: bisect_right(times, start)]  # The last one counts, or the key would be gone.
        return len(times)

    def add(self, key: Hashable) -> None:
        """An event of `key` happens now."""
        now = self._clock.seconds()
        self._forget_old(now)
        self._times.setdefault(key, []).append(now)
        self._times.move_to_end(key)

    def _forget_old(self, now: float) -> float:
        """Forget the keys of which nothing counts. Return the time after which events count.

        The clock goes on meanwhile: all of one look must go by the same `now`.
        """
        start = now - self._seconds
        while self._times and next(iter(self._times.values()))[-1] <= start:
            self._times.popitem(last=False)
        return start


class RateLimit:
    """Lets things happen as often as `rate` says, for each key of its own.

    :param clock: the clock to count by
    :param rate: how often, or None for no limit
    """

    def __init__(self, clock: IReactorTime, rate: Rate | None) -> None:
        self.rate = rate
        self._recent = SlidingWindow(clock, rate.seconds if rate else 0)

    def allows(self, key: Hashable) -> bool:
        """Return whether it may happen once more for `key`; if so, it counts."""
        if self.rate is None:
            return True
        if self._recent.count(key) >= self.rate.amount:
            return False
        self._recent.add(key)
        return True

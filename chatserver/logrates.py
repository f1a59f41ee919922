"""How many lines of a kind the log takes, so that no flood fills it or hides what else happens."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from twisted.logger import LogEvent

from chatserver.limits import LOG_NETWORKS, MAX_LOG_WINDOWS
from chatserver.rates import Rate

_FIELD = re.compile(r"\{[^{}]*\}")
"""What changes from line to line, in the format of an event."""


@dataclass(frozen=True, slots=True)
class LeftOut:
    """So many lines of a kind, of the clients in `network` or else of all, were left out."""

    count: int
    kind: str
    network: str | None
    seconds: float

    def __str__(self) -> str:
        whose = "" if self.network is None else f" of {self.network}"
        seconds, kind = round(self.seconds), _FIELD.sub("...", self.kind)
        return f'Left out: {self.count} lines like "{kind}"{whose} in the last {seconds} s'


class _Key(NamedTuple):
    kind: tuple[object, ...]
    network: str | None


@dataclass(slots=True)
class _Window:
    """What may still come in the time that began with a first line, and what was too much."""

    start: float
    room: int
    left_out: int = 0


class LineRates:
    """Tells of each event whether there is room for its line.

    Events of one kind have the same format and level; of failures each type raised at each place
    is a kind of its own. (They are no exception: a client that finds a traceback could fill the
    disk with it.) There is room for as many as `rate` says; of those that carry the ``network`` of
    a client's address, for as many of each network, and for `LOG_NETWORKS` times as many of all.

    The time of a rate begins with a first line. When it is over, the next line begins another.

    `MAX_LOG_WINDOWS` networks are counted apart at once, and as many kinds: networks without end
    must not hide the first line of another kind.

    :param rate: how many lines; None for all
    :param seconds: the clock to go by
    """

    def __init__(self, rate: Rate | None, seconds: Callable[[], float]) -> None:
        self._rate = rate
        self._seconds = seconds
        self._kinds: dict[_Key, _Window] = {}
        self._networks: dict[_Key, _Window] = {}

    def has_room(self, event: LogEvent) -> bool:
        """Return whether there is room for the line of `event`; if so, it counts."""
        if self._rate is None:
            return True
        kind, network = _kind(event), event.get("network")
        amount = self._rate.amount
        if network is None:
            windows = [self._of_kind(kind, amount)]
        else:
            windows = [
                *self._of_network(kind, network, amount),
                self._of_kind(kind, amount * LOG_NETWORKS),
            ]
        for window in windows:
            if window.room <= 0:
                window.left_out += 1
                return False
        for window in windows:
            window.room -= 1
        return True

    def end_windows(self, now_too: bool = False) -> Iterator[LeftOut]:
        """Forget what is over, and yield what was left out then.

        :param now_too: whether to forget what is not over as well
        """
        if self._rate is None:
            return
        now = self._seconds()
        for windows in (self._networks, self._kinds):
            # They began in their order in the dictionary, the oldest first.
            while windows:
                key, window = next(iter(windows.items()))
                age = now - window.start
                if age < self._rate.seconds and not now_too:
                    break
                # Before it is told, which may log.
                del windows[key]
                if window.left_out:
                    yield LeftOut(window.left_out, str(key.kind[0]), key.network, age)

    def _of_kind(self, kind: tuple[object, ...], room: int) -> _Window:
        """Return the window of `kind`: what there is no place for shares one."""
        key = _Key(kind, None)
        if key not in self._kinds and len(self._kinds) >= MAX_LOG_WINDOWS:
            key = _Key(("others",), None)
        return self._kinds.setdefault(key, _Window(self._seconds(), room))

    def _of_network(self, kind: tuple[object, ...], network: str, room: int) -> list[_Window]:
        """Return the window of `kind` in `network`, or none if there is no place for it."""
        key = _Key(kind, network)
        if key not in self._networks and len(self._networks) >= MAX_LOG_WINDOWS:
            return []
        return [self._networks.setdefault(key, _Window(self._seconds(), room))]


def _kind(event: LogEvent) -> tuple[object, ...]:
    """Return what tells `event` from those of another kind."""
    failure = event.get("log_failure")
    place: tuple[object, ...] = ()
    if failure is not None:
        frames = getattr(failure, "frames", None)
        place = (getattr(failure, "type", None), *(frames[-1][1:3] if frames else ()))
    form = event.get("log_format")
    return (form if isinstance(form, str) else "", event.get("log_level"), *place)

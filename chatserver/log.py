"""The server's log: a line for each event, to a file and to the terminal."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from threading import RLock
from typing import TextIO

from twisted.logger import ILogObserver, LogEvent, LogLevel
from zope.interface import implementer

from chatserver.loglines import format_line, own_line
from chatserver.logrates import LeftOut, LineRates
from chatserver.logwriters import QueuedWriter, Writable, Writer, explain, unbuffered
from chatserver.rates import Rate


def make_observer(
    files: Iterable[Writable],
    rate: Rate | None = None,
    seconds: Callable[[], float] = time.monotonic,
    output: TextIO | None = None,
) -> ServerLog:
    """Return an observer that writes each event's line to each of `files`, at once.

    What a text file's encoding can't hold is written as an escape. A file that fails (the
    disk is full, the terminal is gone) misses the line; the others get it all the same, and
    nothing is raised. Any thread may use it.

    :param rate: how many lines of one kind are written, see `LineRates`; None for all
    :param seconds: the clock that `rate` goes by
    :param output: the standard output, if the lines go there too: written by a thread of its own,
        since a terminal or a pipe may take nothing for as long as it likes
    """
    writers: list[Writer | QueuedWriter] = [Writer(file) for file in files]
    if output is not None:
        writers.append(QueuedWriter(Writer(unbuffered(output), output.encoding)))
    return ServerLog(writers, LineRates(rate, seconds))


@implementer(ILogObserver)
class ServerLog:
    """Gives each event's line to each of `writers`, as far as `rates` has room for it."""

    def __init__(self, writers: list[Writer | QueuedWriter], rates: LineRates) -> None:
        self._writers = writers
        self._reasons = [writer.reason for writer in writers]
        self._rates = rates
        # Re-entrant, since what the garbage collector ends in the midst of a write may log.
        self._lock = RLock()

    def __call__(self, event: LogEvent) -> None:
        """Write the line for `event`, if it has one and there is room for it."""
        if event.get("log_level") is LogLevel.debug:
            return
        with self._lock:
            self._tell_left_out(self._rates.end_windows())
            if self._rates.has_room(event) and (line := format_line(event)) is not None:
                self._write(line)

    def flush(self, is_end: bool = False) -> None:
        """Tell what was left out and what is missing, as far as its time has come.

        To be called now and then, about once a minute: otherwise the next event tells it.

        :param is_end: whether nothing more will come: then all is told, and the standard output
            gets `OUTPUT_DRAIN_TIMEOUT` to take it. What comes all the same is not left in a queue.
        """
        with self._lock:
            self._tell_left_out(self._rates.end_windows(now_too=is_end))
            self._write("")
            if is_end:
                for writer in self._writers:
                    writer.drain()

    def reopen(self) -> None:
        """Open the log files of their paths anew: something, logrotate say, has moved them.

        Where that fails, the old file is written on, and told so.
        """
        with self._lock:
            for writer in self._writers:
                try:
                    writer.reopen()
                except OSError as error:
                    self._say(LogLevel.warn, _REOPEN_FAILED, reason=explain(error))

    def _tell_left_out(self, lines: Iterable[LeftOut]) -> None:
        for left_out in lines:
            self._say(LogLevel.warn, "{left_out}", left_out=left_out)

    def _say(self, level: object, text: str, **more: object) -> None:
        self._write(own_line(level, text, **more))

    def _write(self, line: str) -> None:
        for writer in self._writers:
            writer.write(line)
        # A queued line fails later: so since the last time, and not just now.
        before, self._reasons = self._reasons, [writer.reason for writer in self._writers]
        fails_anew = [
            new for old, new in zip(before, self._reasons, strict=True) if new and not old
        ]
        # Where it can still be read: on the terminal, if there is one.
        if fails_anew and None in self._reasons:
            self._say(LogLevel.error, "A log cannot be written: {reason}", reason=fails_anew[0])


_REOPEN_FAILED = "The log file cannot be opened anew: {reason}; the old one is written on"

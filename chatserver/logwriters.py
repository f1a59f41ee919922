"""What writes lines of the log, and tells afterwards how many it could not write."""

from __future__ import annotations

import io
import time
from queue import SimpleQueue
from threading import Event, Thread
from typing import Any, Protocol

from twisted.logger import LogLevel
from twisted.python.logfile import BaseLogFile

from chatserver.limits import MAX_QUEUED_LINES, OUTPUT_DRAIN_TIMEOUT
from chatserver.logfile import LogFile, write_some
from chatserver.loglines import own_line


class Writable(Protocol):
    """What the log is written to: a file of text or of bytes, or a `LogFile`."""

    def write(self, data: Any, /) -> object:
        """Write text or bytes, whichever of the two the file is for."""

    def flush(self) -> object:
        """Hand on what was written."""


class Writer:
    """Writes lines to `file` and flushes it; remembers how many it missed.

    `reason` tells why the last line could not be written; it is None if it was.
    """

    def __init__(self, file: Writable, encoding: str | None = None) -> None:
        self._file = file
        # A LogFile takes text too, but counts its characters and not its bytes.
        self._is_binary = isinstance(file, BaseLogFile | io.RawIOBase | io.BufferedIOBase)
        own = None if self._is_binary else getattr(file, "encoding", None)
        self._encoding = encoding or own or "utf-8"
        self._missing = 0
        self._half = False
        self._why = ""
        self.reason: str | None = None

    def reopen(self) -> None:
        """Open the file anew, if it is a log file."""
        if isinstance(self._file, LogFile):
            self._file.reopen()

    def drain(self) -> None:
        """Wait for nothing: all is written at once."""

    def miss(self, count: int, why: str) -> None:
        """Take note of `count` lines that could not be written before they came here."""
        if count:
            self._missing += count
            self._why = why

    def write(self, line: str) -> None:
        """Write `line`, before it what there is to tell of missing ones. Nothing is raised.

        An empty line is none: then only that is told.
        """
        text = f"{line}\n" if line else ""
        if self._missing:
            told = own_line(
                LogLevel.warn,
                "Missing here: {count} lines, which could not be written: {why}",
                count=self._missing,
                why=self._why,
            )
            text = ("\n" if self._half else "") + f"{told}\n{text}"
        if not text:
            return
        try:
            self._write(text)
        except Exception as error:  # The log is where a failure would have to be told.
            self._missing += bool(line)
            self.reason = self._why = explain(error)
        else:
            self._missing, self._half, self.reason = 0, False, None

    def _write(self, text: str) -> None:
        data = text.encode(self._encoding, "backslashreplace")
        file: Any = self._file
        if isinstance(file, io.RawIOBase):
            rest = memoryview(data)
            while rest:
                rest = rest[write_some(file, rest) :]
                self._half = bool(rest)
        else:
            file.write(data if self._is_binary else data.decode(self._encoding))
        half, self._half = self._half, not isinstance(file, BaseLogFile)
        file.flush()
        self._half = half


class QueuedWriter:
    """Has `writer` write lines in a thread of its own: nobody who logs waits for its file.

    A queue that is full has room again when it is empty. In between the lines are missing, and
    counted as those that `writer` can't write.
    """

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        # A simple one is re-entrant, as the server's log has to be.
        self._queue: SimpleQueue[tuple[int, str] | Event] = SimpleQueue()
        self._thread: Thread | None = None
        self._is_full = False
        self._missing = 0
        self._deadline: float | None = None

    @property
    def reason(self) -> str | None:
        """Why the last line could not be queued, or one before it not be written."""
        return _FULL if self._is_full else self._writer.reason

    def reopen(self) -> None:
        """Leave it open: it is no file of ours."""

    def write(self, line: str) -> None:
        """Queue `line`, if there is room. An empty line is none, as for `Writer`."""
        if self._thread is None:  # Not before: no thread outlives a fork.
            self._thread = Thread(target=self._run, name="log output", daemon=True)
            self._thread.start()
        if self._queue.qsize() >= MAX_QUEUED_LINES:
            self._is_full = True
        elif self._queue.empty():
            self._is_full = False
        if self._is_full:
            self._missing += bool(line)
        else:
            self._queue.put((self._missing, line))
            self._missing = 0
        if self._deadline is not None:
            self.drain()

    def drain(self) -> None:
        """Wait until all is written: for `OUTPUT_DRAIN_TIMEOUT`, or what the last time left of it.

        From then on each line is waited for.
        """
        if self._deadline is None:
            self._deadline = time.monotonic() + OUTPUT_DRAIN_TIMEOUT
        is_written = Event()
        self._queue.put(is_written)
        is_written.wait(max(0.0, self._deadline - time.monotonic()))

    def _run(self) -> None:
        while True:
            item = self._queue.get()
            if isinstance(item, Event):
                item.set()
            else:
                missing, line = item
                self._writer.miss(missing, _FULL)
                self._writer.write(line)


_FULL = "whoever reads the standard output does not keep up"


def unbuffered(stream: Any) -> Writable:
    """Return the file below `stream`, if it has one.

    At the end of the process Python flushes the buffers of the standard streams, or gives up if a
    thread is at it: what is written past them keeps nothing from ending.
    """
    buffer = getattr(stream, "buffer", stream)
    file: Writable = getattr(buffer, "raw", buffer)
    return file


def explain(error: Exception) -> str:
    """Return in a few words what went wrong with a file."""
    return getattr(error, "strerror", None) or str(error) or type(error).__name__

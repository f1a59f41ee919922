"""The server's log: one line an event, whatever a client sends.

A line has the local time, a level (INFO, WARNING or ERR) and the event::

    [2025-07-07 14:22:33] [INFO] Client connected
    [2025-07-07 14:22:35] [ERR] Handshake failed: no shared cipher
"""

from __future__ import annotations

import errno
import io
import os
import time
from collections.abc import Callable, Iterable
from queue import SimpleQueue
from threading import Event, RLock, Thread
from typing import Any, Protocol, TextIO

from twisted.logger import ILogObserver, LogEvent, LogLevel, eventAsText
from twisted.python.logfile import BaseLogFile, LogFile
from zope.interface import implementer

from chatserver.errors import OperatorError
from chatserver.limits import (
    LOG_ROTATE_LENGTH,
    MAX_OLD_LOGS,
    MAX_QUEUED_LINES,
    OUTPUT_DRAIN_TIMEOUT,
)
from chatserver.logrates import LeftOut, LineRates
from chatserver.printable import escape
from chatserver.rates import Rate

try:
    import fcntl
except ImportError:  # Windows, where a file is not cut while it is open.
    fcntl = None  # type: ignore[assignment]

DEFAULT_LOG_FILE = "logs/server.log"
"""Where the log goes, if nobody says otherwise: the reference server's file name."""

_MODE = 0o600  # the log tells who talks to whom and from which address
_FOLDER_MODE = 0o700

_LEVELS = {
    LogLevel.info: "INFO",
    LogLevel.warn: "WARNING",
    LogLevel.error: "ERR",
    LogLevel.critical: "ERR",
}


class LogFileError(OperatorError):
    """The log file can't be opened. The text is one line for the operator."""

    option = "log-file"


class Writable(Protocol):
    """What the log is written to: a file of text or of bytes, or a `LogFile`."""

    def write(self, data: Any, /) -> object:
        """Write text or bytes, whichever of the two the file is for."""

    def flush(self) -> object:
        """Hand on what was written."""


def format_line(event: LogEvent) -> str | None:
    """Return the line for `event`, without the newline at its end.

    None if there is nothing to tell: the event is for debugging, or has no text. The
    traceback of a failure stands in the same line. A character that is not printable
    (newlines, what drives a terminal, what turns the direction of writing, halves of
    surrogate pairs) is written as an escape of Python's, so that nothing which a client
    sends can pass for a line of its own. A backslash is doubled, so that an escape can be
    told from the same characters sent by a client.
    """
    level = event.get("log_level", LogLevel.info)
    if level is LogLevel.debug:
        return None
    # Legacy events of twisted.python.log come here with their text, and the traceback in it.
    text = eventAsText(event, includeTimestamp=False, includeSystem=False).strip("\n")
    if not text:
        return None
    text = escape(text, also="\\")
    return f"[{_format_time(event.get('log_time'))}] [{_LEVELS.get(level, 'INFO')}] {text}"


def open_log_file(path: str) -> LogFile:
    """Open the log file at `path` for appending, and make its folder if that is missing.

    The file is for its owner only (mode 0600) from the moment that it exists, a folder made
    here too (0700). It is rotated by `LOG_ROTATE_LENGTH` and `MAX_OLD_LOGS`.

    :raises LogFileError: the file can't be opened for writing.
    """
    path = os.path.abspath(path)
    folder, name = os.path.split(path)
    # /dev/null and its like are written to and otherwise let alone: as root, a change of
    # mode or a rotation would take them from everybody on the machine.
    plain = os.path.isfile(path) or not os.path.exists(path)
    try:
        os.makedirs(folder, mode=_FOLDER_MODE, exist_ok=True)
        return _LogFile(  # type: ignore[no-untyped-call]
            name,
            folder,
            rotateLength=LOG_ROTATE_LENGTH if plain else None,
            defaultMode=_MODE if plain else None,
            maxRotatedFiles=MAX_OLD_LOGS,
        )
    except OSError as error:
        raise LogFileError(
            f"{path}: the log cannot be written there: {error.strerror or type(error).__name__};"
            " let the server's user write there, or name another file"
        ) from error


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
    writers: list[_Writer | _QueuedWriter] = [_Writer(file) for file in files]
    if output is not None:
        writers.append(_QueuedWriter(_Writer(_unbuffered(output), output.encoding)))
    return ServerLog(writers, LineRates(rate, seconds))


def _unbuffered(stream: Any) -> Writable:
    """Return the file below `stream`, if it has one.

    At the end of the process Python flushes the buffers of the standard streams, or gives up if a
    thread is at it: what is written past them keeps nothing from ending.
    """
    buffer = getattr(stream, "buffer", stream)
    file: Writable = getattr(buffer, "raw", buffer)
    return file


@implementer(ILogObserver)
class ServerLog:
    """Gives each event's line to each of `writers`, as far as `rates` has room for it."""

    def __init__(self, writers: list[_Writer | _QueuedWriter], rates: LineRates) -> None:
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
                    self._say(LogLevel.warn, _REOPEN_FAILED, reason=_explain(error))

    def _tell_left_out(self, lines: Iterable[LeftOut]) -> None:
        for left_out in lines:
            self._say(LogLevel.warn, "{left_out}", left_out=left_out)

    def _say(self, level: object, text: str, **more: object) -> None:
        self._write(_own_line(level, text, **more))

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


class _LogFile(LogFile):
    """A `LogFile` that neither a failed rotation nor a full disk ends, nor another program's cut.

    Twisted's own is closed for good after a failed rotation, or fails at each write. It happens
    where another program holds the file (Windows), or where no more files can be opened just
    then. And it takes no notice of a write that was cut short.
    """

    def _openFile(self) -> None:
        super()._openFile()  # type: ignore[no-untyped-call]
        if fcntl is not None:
            # Else what follows a cut to nothing (logrotate's copytruncate) would stand behind a
            # gap as long as what was cut.
            flags = fcntl.fcntl(self._file, fcntl.F_GETFL)
            fcntl.fcntl(self._file, fcntl.F_SETFL, flags | os.O_APPEND)

    def write(self, data: str | bytes) -> None:
        """Write all of `data` or, with an OSError, nothing of it."""
        if self._file.closed:
            self._openFile()
        if self.shouldRotate():  # type: ignore[no-untyped-call]
            self.flush()  # type: ignore[no-untyped-call]
            self.rotate()
        rest = memoryview(data.encode() if isinstance(data, str) else data)
        length = len(rest)
        written = 0
        try:
            while written < length:
                written += _write_some(self._file, rest[written:])
        except OSError:
            if written:
                # No half line stays: there is always room for less.
                self._file.seek(-written, os.SEEK_END)
                self._file.truncate()
            raise
        self.size += length

    def rotate(self) -> None:
        """Begin a new file, or else go on in the present one for another `LOG_ROTATE_LENGTH`."""
        try:
            super().rotate()  # type: ignore[no-untyped-call]
        except OSError:
            if self._file.closed:
                self._openFile()
            self.size = 0

    def reopen(self) -> None:
        """Open the file of this path, which may be another by now, or go on in the old one.

        :raises OSError: it can't be opened; the old one is kept.
        """
        old = self._file
        self._openFile()  # which sets self._file if it succeeds
        old.close()


def _write_some(file: Any, data: memoryview) -> int:
    """Write what `file` takes of `data`, and return how much that is."""
    written: int | None = file.write(data)
    if not written:
        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))
    return written


class _Writer:
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
        if isinstance(self._file, _LogFile):
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
            told = _own_line(
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
            self.reason = self._why = _explain(error)
        else:
            self._missing, self._half, self.reason = 0, False, None

    def _write(self, text: str) -> None:
        data = text.encode(self._encoding, "backslashreplace")
        file: Any = self._file
        if isinstance(file, io.RawIOBase):
            rest = memoryview(data)
            while rest:
                rest = rest[_write_some(file, rest) :]
                self._half = bool(rest)
        else:
            file.write(data if self._is_binary else data.decode(self._encoding))
        half, self._half = self._half, not isinstance(file, BaseLogFile)
        file.flush()
        self._half = half


class _QueuedWriter:
    """Has `writer` write lines in a thread of its own: nobody who logs waits for its file.

    A queue that is full has room again when it is empty. In between the lines are missing, and
    counted as those that `writer` can't write.
    """

    def __init__(self, writer: _Writer) -> None:
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
        """Queue `line`, if there is room. An empty line is none, as for `_Writer`."""
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


def _own_line(level: object, text: str, **more: object) -> str:
    """Return a line that the log itself has to tell."""
    line = format_line({"log_format": text, "log_level": level, "log_time": time.time(), **more})
    assert line is not None
    return line


def _explain(error: Exception) -> str:
    """Return in a few words what went wrong with a file."""
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def _format_time(when: float | None) -> str:
    """Return a time, in seconds since the epoch, as local time; a dash if there is none."""
    return "-" if when is None else time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(when))

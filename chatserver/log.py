"""The server's log: one line an event, whatever a client sends.

A line has the local time, a level (INFO, WARNING or ERR) and the event::

    [2025-07-07 14:22:33] [INFO] Client connected
    [2025-07-07 14:22:35] [ERR] Handshake failed: no shared cipher
"""

from __future__ import annotations

import io
import os
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from threading import RLock
from typing import Any, Protocol

from twisted.logger import ILogObserver, LogEvent, LogLevel, eventAsText
from twisted.python.logfile import BaseLogFile, LogFile
from zope.interface import implementer

from chatserver.errors import OperatorError
from chatserver.limits import LOG_ROTATE_LENGTH, MAX_OLD_LOGS
from chatserver.printable import escape

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


def make_observer(files: Iterable[Writable]) -> ILogObserver:
    """Return an observer that writes each event's line to each of `files`, at once.

    What a text file's encoding can't hold is written as an escape. A file that fails (the
    disk is full, the terminal is gone) misses the line; the others get it all the same, and
    nothing is raised. Any thread may use it.
    """
    return _Observer([_make_writer(file) for file in files])


@implementer(ILogObserver)
class _Observer:
    """Gives each event's line to each of `writers`."""

    def __init__(self, writers: list[Callable[[str], None]]) -> None:
        self._writers = writers
        # Re-entrant, since what the garbage collector ends in the midst of a write may log.
        self._lock = RLock()

    def __call__(self, event: LogEvent) -> None:
        """Write the line for `event`, if it has one."""
        line = format_line(event)
        if line is None:
            return
        with self._lock:
            for write in self._writers:
                # The log is where a failure would have to be told.
                with suppress(Exception):
                    write(line + "\n")


class _LogFile(LogFile):
    """A `LogFile` that a failed rotation does not end.

    Twisted's own is closed for good then, or fails at each write. It happens where another
    program holds the file (Windows), or where no more files can be opened just then.
    """

    def write(self, data: str | bytes) -> None:
        """Write `data`, after opening the file again if the last rotation could not."""
        if self._file.closed:
            self._openFile()  # type: ignore[no-untyped-call]
        super().write(data)  # type: ignore[no-untyped-call]

    def rotate(self) -> None:
        """Begin a new file, or else go on in the present one for another `LOG_ROTATE_LENGTH`."""
        try:
            super().rotate()  # type: ignore[no-untyped-call]
        except OSError:
            if self._file.closed:
                self._openFile()  # type: ignore[no-untyped-call]
            self.size = 0


def _make_writer(file: Writable) -> Callable[[str], None]:
    """Return what writes text to `file` and flushes it."""
    # A LogFile takes text too, but counts its characters and not its bytes.
    is_binary = isinstance(file, BaseLogFile | io.RawIOBase | io.BufferedIOBase)
    encoding = "utf-8" if is_binary else getattr(file, "encoding", None) or "utf-8"

    def write(text: str) -> None:
        data = text.encode(encoding, "backslashreplace")
        file.write(data if is_binary else data.decode(encoding))
        file.flush()

    return write


def _format_time(when: float | None) -> str:
    """Return a time, in seconds since the epoch, as local time; a dash if there is none."""
    return "-" if when is None else time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(when))

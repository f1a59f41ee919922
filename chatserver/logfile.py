"""The log file: for its owner only, rotated, and not ended by a full disk."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from typing import Any

from twisted.python.logfile import LogFile as TwistedLogFile

from chatserver.errors import OperatorError
from chatserver.limits import LOG_ROTATE_LENGTH, MAX_OLD_LOGS

try:
    import fcntl
except ImportError:  # Windows, where a file is not cut while it is open.
    fcntl = None  # type: ignore[assignment]

DEFAULT_LOG_FILE = "logs/server.log"
"""Where the log goes, if nobody says otherwise: the reference server's file name."""

_MODE = 0o600  # the log tells who talks to whom and from which address
_FOLDER_MODE = 0o700


class LogFileError(OperatorError):
    """The log file can't be opened. The text is one line for the operator."""

    option = "log-file"


def open_log_file(path: str) -> LogFile:
    """Open the log file at `path` for appending, and make its folder if that is missing.

    The file is for its owner only (mode 0600) from the moment that it exists, a folder made
    here too (0700). It is rotated by `LOG_ROTATE_LENGTH` and `MAX_OLD_LOGS`.

    :raises LogFileError: the file can't be opened for writing.
    """
    path = os.path.abspath(path)
    check_kind(path)
    folder, name = os.path.split(path)
    # /dev/null and its like are written to and otherwise let alone: as root, a change of
    # mode or a rotation would take them from everybody on the machine.
    plain = os.path.isfile(path) or not os.path.exists(path)
    try:
        os.makedirs(folder, mode=_FOLDER_MODE, exist_ok=True)
        return LogFile(  # type: ignore[no-untyped-call]
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


def check_kind(path: str) -> None:
    """See whether a log can be at `path`, if there is something already.

    :raises LogFileError: that is a folder, or a pipe or a socket, which may take nothing for as
        long as it likes
    """
    if os.path.isdir(path):
        raise LogFileError(f"{path}: is a folder; name a file for the log")
    with contextlib.suppress(OSError):  # It is not there, or is found out to be unreadable later.
        mode = os.stat(path).st_mode
        if stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode):
            raise LogFileError(f"{path}: is a pipe; name a plain file, or - for the terminal only")


class LogFile(TwistedLogFile):
    """A log file that neither a failed rotation nor a full disk ends, nor another program's cut.

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
                written += write_some(self._file, rest[written:])
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


def write_some(file: Any, data: memoryview) -> int:
    """Write what `file` takes of `data`, and return how much that is."""
    written: int | None = file.write(data)
    if not written:
        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))
    return written

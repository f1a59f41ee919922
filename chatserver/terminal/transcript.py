"""Keeps what is said in a file, for a user who asks for that."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial

from chatserver.terminal.options import UsageError


class Transcript:
    """Appends lines to a file that is for its user only.

    :param path: the file; None keeps nothing
    :param complain: tells the user, once, that the file can't be written any more
    :raises UsageError: it can't be written from the start
    """

    def __init__(self, path: str | None, complain: Callable[[str], None]) -> None:
        self._path = path
        self._complain = complain
        self._file = None
        if path is not None:
            private = partial(os.open, mode=0o600)
            try:
                self._file = open(path, "a", encoding="utf-8", opener=private)  # noqa: SIM115
            except OSError as error:
                raise UsageError(f"--save {path}: cannot be written: {error.strerror}") from None

    def write(self, line: str) -> None:
        """Append a line, with the date and the time."""
        if self._file is None:
            return
        try:
            self._file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {line}\n")
            self._file.flush()
        except OSError as error:
            self.close()
            self._complain(f"Nothing is saved any more: {self._path}: {error.strerror}.")

    def close(self) -> None:
        """Close the file."""
        file, self._file = self._file, None
        if file is not None:
            with suppress(OSError):
                file.close()

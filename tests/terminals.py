"""A real terminal to try ``asyncchat`` in: a pseudo-terminal, and an emulator that draws it."""

from __future__ import annotations

import re
import signal
import time
from pathlib import Path
from typing import ClassVar

import pexpect
import pyte

from tests.processes import client_command, environment

TIMEOUT = 20.0
"""Seconds in which something must show: a few tenths are usual."""

COLUMNS, ROWS = 80, 24


class Terminal:
    """The client in a terminal of its own.

    :param home: the user's home: the known hosts and the history are below it
    """

    _opened: ClassVar[set[Terminal]] = set()

    def __init__(
        self, home: Path, *arguments: str, columns: int = COLUMNS, rows: int = ROWS, **more: str
    ) -> None:
        home.mkdir(parents=True, exist_ok=True)
        command, *rest = [*client_command(), *arguments]
        self._child = pexpect.spawn(
            command,
            rest,
            env=environment(home, **more),
            dimensions=(rows, columns),
            timeout=TIMEOUT,
        )
        self._child.delaybeforesend = None
        self.screen = pyte.HistoryScreen(columns, rows, history=1000)
        # The emulator's answers, to "where is the cursor?" say, go back to the program.
        self.screen.write_process_input = self._child.send
        self._stream = pyte.ByteStream(self.screen)
        self.output = b""
        """All that came, as it came."""
        Terminal._opened.add(self)

    @property
    def text(self) -> str:
        """What is to be seen, with what has scrolled away, without spaces at the ends of lines."""
        above = ["".join(line[x].data for x in sorted(line)) for line in self.screen.history.top]
        return "\n".join(line.rstrip() for line in [*above, *self.screen.display])

    @property
    def last_line(self) -> str:
        """The line at the bottom."""
        return self.screen.display[-1].strip()

    def type(self, text: str) -> None:
        """Type `text`. A newline is the Enter key."""
        self._child.send(text.replace("\n", "\r"))

    def paste(self, text: str) -> None:
        """Paste `text`, as terminals do for programs that can tell a paste."""
        self._child.send(f"\x1b[200~{text}\x1b[201~")

    def wait_for(self, pattern: str) -> str:
        """Return what is to be seen once `pattern`, a regular expression, is in it."""
        return self.wait_until(lambda: re.search(pattern, self.text) is not None, pattern)

    def wait_until(self, look, what: str) -> str:
        """Return what is to be seen once `look` returns true."""
        deadline = time.monotonic() + TIMEOUT
        while not look():
            if time.monotonic() > deadline:
                raise AssertionError(f"not to be seen: {what}\n{self.text}")
            self._read()
            # A program that asks its terminal something waits for the answer, looked at or not.
            for other in Terminal._opened - {self}:
                other._read(timeout=0)
        return self.text

    def wait_for_end(self) -> int:
        """Return the exit status, once the program has ended; minus a signal that ended it."""
        deadline = time.monotonic() + TIMEOUT
        while self._read():
            if time.monotonic() > deadline:
                raise AssertionError(f"it does not end\n{self.text}")
        self._child.wait()
        status, number = self._child.exitstatus, self._child.signalstatus
        return status if number is None else -number

    def resize(self, columns: int, rows: int) -> None:
        """Change the size of the window."""
        self.screen.resize(rows, columns)
        self._child.setwinsize(rows, columns)

    def signal(self, number: int) -> None:
        """Send a signal to the program."""
        self._child.kill(number)

    def close(self) -> None:
        """End the program, whatever it is at."""
        Terminal._opened.discard(self)
        if self._child.isalive():
            self._child.kill(signal.SIGKILL)
            self._child.wait()
        self._child.ptyproc.delayafterclose = 0
        self._child.close()

    def _read(self, timeout: float = 0.05) -> bool:
        """Draw what comes. Return False at the end of the program."""
        try:
            data = self._child.read_nonblocking(65536, timeout)
        except pexpect.TIMEOUT:
            return True
        except pexpect.EOF:
            Terminal._opened.discard(self)
            return False
        self.output += data
        self._stream.feed(data)
        return True

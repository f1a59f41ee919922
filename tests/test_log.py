"""The log's lines, and the files that they go to."""

from __future__ import annotations

import errno
import io
import os
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.logger import (
    ILogObserver,
    LogEvent,
    Logger,
    LogLevel,
    LogPublisher,
)
from twisted.python import log as legacy
from twisted.python.failure import Failure
from twisted.python.logfile import LogFile
from twisted.trial.unittest import SkipTest, SynchronousTestCase
from zope.interface.verify import verifyObject

from chatserver import logfile, logrates, logwriters
from chatserver.limits import LOG_NETWORKS
from chatserver.log import make_observer
from chatserver.logfile import LogFileError, open_log_file
from chatserver.loglines import format_line
from chatserver.rates import parse_rate

WHEN = 1751898153.9
STAMP = time.strftime("[%Y-%m-%d %H:%M:%S]", time.localtime(WHEN))


def event(text: str, level: Any = LogLevel.info, **more: Any) -> LogEvent:
    """Return an event that says `text`, whatever characters are in it."""
    return {"log_format": "{text}", "text": text, "log_level": level, "log_time": WHEN, **more}


def line(text: str) -> str:
    """Return the line for an event that says `text`, after its time and level."""
    whole = format_line(event(text))
    assert whole is not None
    start = f"{STAMP} [INFO] "
    assert whole.startswith(start), whole
    return whole[len(start) :]


def failure() -> Failure:
    """Return a failure that was really raised."""
    try:
        raise RuntimeError("two\nlines")
    except RuntimeError:
        return Failure()


class LineTests(SynchronousTestCase):
    """What one event looks like."""

    def test_levels(self) -> None:
        """Each level has its name; what is for debugging is left out."""
        for level, name in (
            (LogLevel.info, "INFO"),
            (LogLevel.warn, "WARNING"),
            (LogLevel.error, "ERR"),
            (LogLevel.critical, "ERR"),
        ):
            self.assertEqual(
                format_line(event("Client connected", level)), f"{STAMP} [{name}] Client connected"
            )
        self.assertIsNone(format_line(event("x", LogLevel.debug)))

    def test_local_time(self) -> None:
        """The time is that of the server's place, to the second below."""
        if not hasattr(time, "tzset"):
            raise SkipTest("the time zone can't be set on Windows")
        zone = os.environ.get("TZ")

        def restore() -> None:
            if zone is None:
                os.environ.pop("TZ", None)
            else:
                os.environ["TZ"] = zone
            time.tzset()

        self.addCleanup(restore)
        for name, stamp in (("UTC0", "2025-07-07 14:22:33"), ("XXX-2", "2025-07-07 16:22:33")):
            os.environ["TZ"] = name
            time.tzset()
            self.assertEqual(format_line(event("x")), f"[{stamp}] [INFO] x")

    def test_bare_event(self) -> None:
        """An event without a level is taken as information, one without a time has a dash."""
        self.assertEqual(format_line({"log_format": "x"}), "[-] [INFO] x")

    def test_no_text(self) -> None:
        """An event that says nothing gives no line."""
        for each in ({}, {"log_format": None}, {"log_format": ""}, event("\n"), event("")):
            self.assertIsNone(format_line(each))

    def test_unformattable(self) -> None:
        """An event whose text can't be made gives a line that says so."""
        text = format_line({"log_format": "{missing}", "log_time": WHEN})
        assert text is not None
        self.assertIn("Unable to format event", text)

    def test_plain_text(self) -> None:
        """What can be read stays as it is, in any script."""
        for text in ("Handshake failed: no shared cipher", "Grüße, 世界 🙂", 'it\'s "{x}" %s'):
            self.assertEqual(line(text), text)

    def test_controls(self) -> None:
        """What would begin a line, drive a terminal or turn the writing is escaped."""
        for text, escaped in (
            ("a\nb", r"a\nb"),
            ("a\r\tb", r"a\r\tb"),
            ("\x1b[2J\x07\x00\x7f", r"\x1b[2J\x07\x00\x7f"),
            ("\x85\x9b", r"\x85\x9b"),
            ("\u2028\u2029", r"\u2028\u2029"),
            ("\u202eabc\u2066", r"\u202eabc\u2066"),
            ("\u200b\ufeff", r"\u200b\ufeff"),
            ("\ud800", r"\ud800"),
            ("\U000e0001", r"\U000e0001"),
        ):
            self.assertEqual(line(text), escaped)

    def test_no_forgery(self) -> None:
        """A name that ends the line and begins another stays in its line."""
        self.assertEqual(line(f"x\n{STAMP} [INFO] y"), rf"x\n{STAMP} [INFO] y")

    def test_backslash(self) -> None:
        """A backslash is doubled, so that it can't be taken for an escape of ours."""
        self.assertEqual(line(r"a\nb"), r"a\\nb")

    @given(st.text(st.characters()))
    def test_any_text(self, text: str) -> None:
        """Whatever is said is printable, goes into a file, and can be read back."""
        text = "." + text + "."
        escaped = line(text)
        self.assertTrue(escaped.isprintable())
        escaped.encode("utf-8")
        back = escaped.encode("ascii", "backslashreplace").decode("unicode_escape")
        self.assertEqual(back, text)

    def test_failure(self) -> None:
        """A failure's traceback stands in the same line."""
        text = format_line(event("Lost it", LogLevel.critical, log_failure=failure()))
        assert text is not None
        self.assertTrue(text.startswith(rf"{STAMP} [ERR] Lost it\nTraceback (most recent"), text)
        self.assertTrue(text.endswith(r"RuntimeError: two\nlines"), text)
        self.assertTrue(text.isprintable())

    def test_failure_without_text(self) -> None:
        """A failure is told although nothing is said about it."""
        text = format_line({"log_failure": failure(), "log_level": LogLevel.critical})
        assert text is not None
        self.assertTrue(text.startswith("[-] [ERR] Traceback"), text)


class ObserverTests(SynchronousTestCase):
    """Where the lines go."""

    def test_interface(self) -> None:
        """It is an observer as Twisted wants it."""
        verifyObject(ILogObserver, make_observer([]))

    def test_every_file(self) -> None:
        """Text files and binary ones all get each line, with a newline."""
        text, binary = io.StringIO(), io.BytesIO()
        observe = make_observer([text, binary])
        observe(event("Grüße"))
        observe(event("left out", LogLevel.debug))
        observe(event("2"))
        lines = f"{STAMP} [INFO] Grüße\n{STAMP} [INFO] 2\n"
        self.assertEqual(text.getvalue(), lines)
        self.assertEqual(binary.getvalue(), lines.encode())

    def test_logger(self) -> None:
        """It takes what a Logger says, failures and all."""
        out = io.StringIO()
        logger = Logger("test", observer=make_observer([out]))
        logger.warn("{name} is slow", name="bob\n")
        logger.failure("Lost it", failure())
        first, second = out.getvalue().splitlines()
        self.assertTrue(first.endswith(r"] [WARNING] bob\n is slow"), first)
        self.assertRegex(second, r"\] \[ERR\] Lost it\\nTraceback")

    def test_legacy(self) -> None:
        """It takes what twisted.python.log says, failures once, each in a line."""
        out = io.StringIO()
        publisher = legacy.LogPublisher(publishPublisher=LogPublisher(make_observer([out])))
        publisher.msg("two\n", "words")
        publisher.msg(format="%(what)s", what="formatted", isError=True)
        publisher.msg(failure=failure(), why="Lost it", isError=True)
        publisher.msg(nothing="to tell")
        first, second, third = out.getvalue().splitlines()
        self.assertTrue(first.endswith(r"] [INFO] two\n words"), first)
        self.assertTrue(second.endswith("] [ERR] formatted"), second)
        self.assertRegex(third, r"\] \[ERR\] Lost it\\nTraceback")
        self.assertEqual(third.count("Traceback"), 1)

    def test_narrow_encoding(self) -> None:
        """A terminal that can't show a character gets its escape."""
        raw = io.BytesIO()
        terminal = io.TextIOWrapper(raw, "latin-1", newline="")
        make_observer([terminal])(event("ü 世"))
        self.assertEqual(raw.getvalue(), f"{STAMP} [INFO] ü \\u4e16\n".encode("latin-1"))

    def test_flushes(self) -> None:
        """A line is written through at once, not kept in a buffer."""
        raw = io.BytesIO()
        buffered = io.BufferedWriter(raw)
        make_observer([buffered])(event("x"))
        self.assertEqual(raw.getvalue(), f"{STAMP} [INFO] x\n".encode())

    def test_failing_file(self) -> None:
        """A file that fails keeps no line from the others, nor its own next one."""

        class Full(io.StringIO):
            full = True

            def write(self, data: str, /) -> int:
                if self.full:
                    raise OSError(28, "No space left on device")
                return super().write(data)

        closed, full, good = io.StringIO(), Full(), io.StringIO()
        closed.close()
        observe = make_observer([closed, full, good])
        observe(event("1"))
        full.full = False
        observe(event("2"))
        first, told, second = good.getvalue().splitlines()
        self.assertEqual([first, second], [f"{STAMP} [INFO] 1", f"{STAMP} [INFO] 2"])
        self.assertRegex(told, r"\[ERR\] A log cannot be written: ")
        missing, second = full.getvalue().splitlines()
        self.assertRegex(missing, r"\[WARNING\] Missing here: \d lines, .*No space left")
        self.assertEqual(second, f"{STAMP} [INFO] 2")

    def test_logs_while_writing(self) -> None:
        """What is logged in the midst of a write does not stop the server."""
        good = io.StringIO()

        class Collecting(io.StringIO):
            def write(self, data: str, /) -> int:
                if "again" not in data:
                    observe(event("again"))
                return super().write(data)

        observe = make_observer([Collecting(), good])
        observe(event("x"))
        self.assertEqual(good.getvalue().count("\n"), 2)


class FloodTests(SynchronousTestCase):
    """A limit to the lines of one kind."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.out = io.StringIO()
        self.observe = make_observer([self.out], parse_rate("2/minute"), self.clock.seconds)

    def lines(self) -> list[str]:
        """Return what was logged, after its times."""
        return [line.partition("] ")[2] for line in self.out.getvalue().splitlines()]

    def say(self, number: int, text: str = "Client: {client}", **more: Any) -> None:
        """Log `number` events of one kind."""
        for client in range(number):
            self.observe(event("") | {"log_format": text, "client": client} | more)

    def test_left_out(self) -> None:
        """What is past the limit is left out, and told by the next event of its kind."""
        self.say(5)
        self.assertEqual(self.lines(), ["[INFO] Client: 0", "[INFO] Client: 1"])
        self.clock.advance(60)
        self.say(1)
        self.assertEqual(
            self.lines()[2:],
            [
                '[WARNING] Left out: 3 lines like "Client: ..." in the last 60 s',
                "[INFO] Client: 0",
            ],
        )

    def test_flush(self) -> None:
        """Without another event `flush` tells it, once, and not before the time is over."""
        self.say(5)
        self.observe.flush()
        self.assertEqual(len(self.lines()), 2)
        self.clock.advance(60)
        self.observe.flush()
        self.observe.flush()
        self.assertEqual(len(self.lines()), 3)

    def test_kinds(self) -> None:
        """Another text, another level and a failure of another place have room of their own."""

        def other() -> Failure:
            try:
                raise RuntimeError
            except RuntimeError:
                return Failure()

        for more in (
            {},
            {"text": "Other"},
            {"log_level": LogLevel.warn},
            {"log_failure": failure()},
            {"log_failure": other()},
        ):
            self.say(3, **more)
        self.assertEqual(len(self.lines()), 10)

    def test_networks(self) -> None:
        """What floods from one address hides no lines of the same kind from another."""
        self.say(5, network="192.0.2.1")
        self.say(1, network="192.0.2.2")
        self.assertEqual(len(self.lines()), 3)
        self.clock.advance(60)
        self.observe.flush()
        self.assertEqual(
            self.lines()[3:],
            ['[WARNING] Left out: 3 lines like "Client: ..." of 192.0.2.1 in the last 60 s'],
        )

    def test_many_networks(self) -> None:
        """All addresses together may have ten times as many lines of one kind as each of them."""
        for number in range(50):
            self.say(1, network=f"192.0.2.{number}")
        self.assertEqual(len(self.lines()), 2 * LOG_NETWORKS)
        self.observe.flush(is_end=True)
        self.assertEqual(
            self.lines()[-1],
            f'[WARNING] Left out: {50 - 2 * LOG_NETWORKS} lines like "Client: ..." in the last 0 s',
        )

    def test_end(self) -> None:
        """When the log ends, what was left out is told though its time is not over."""
        self.say(5)
        self.clock.advance(30)
        self.observe.flush(is_end=True)
        self.observe.flush(is_end=True)
        self.assertEqual(
            self.lines()[2:],
            ['[WARNING] Left out: 3 lines like "Client: ..." in the last 30 s'],
        )

    def test_many_kinds(self) -> None:
        """Kinds without end take no memory without end: the rest shares."""
        self.patch(logrates, "MAX_LOG_WINDOWS", 3)
        for number in range(10):
            self.say(1, text=f"kind {number}")
        self.assertEqual(len(self.lines()), 3 + 2)
        self.assertEqual(len(self.observe._rates._kinds), 4)

    def test_networks_without_end(self) -> None:
        """Networks without end take no memory without end, write no more lines than all of a kind
        may, whatever is odd about their number, and hide no line of another kind.
        """
        self.patch(logrates, "MAX_LOG_WINDOWS", 3)
        for number in range(100):
            self.say(3, network=f"192.0.2.{number}")
        self.assertEqual(len(self.observe._rates._networks), 3)
        self.assertEqual(len(self.lines()), 2 * LOG_NETWORKS)
        self.say(3, text="another kind")
        self.assertEqual(len(self.lines()), 2 * LOG_NETWORKS + 2)

    def test_no_limit(self) -> None:
        """Without a rate every line is written."""
        self.observe = make_observer([self.out])
        self.say(500)
        self.assertEqual(len(self.lines()), 500)


class Disk(io.RawIOBase):
    """A file that takes `room` bytes and no more, cutting the last write short."""

    def __init__(self, room: int) -> None:
        self.room = room
        self.data = b""

    def write(self, data: Any, /) -> int:
        taken = bytes(data[: self.room])
        if not taken:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.room -= len(taken)
        self.data += taken
        return len(taken)


class FullDiskTests(SynchronousTestCase):
    """A full disk under the log."""

    def test_half_line(self) -> None:
        """After a line that was cut short, the next one begins a line of its own, which tells
        how many are missing and why.
        """
        disk = Disk(40)
        observe = make_observer([disk])
        for text in ("1", "2", "3"):
            observe(event(text))
        disk.room = 10_000
        observe.flush()
        observe(event("4"))
        first, _half, missing, last = disk.data.decode().splitlines()
        self.assertEqual([first, last], [f"{STAMP} [INFO] 1", f"{STAMP} [INFO] 4"])
        self.assertIn(
            "[WARNING] Missing here: 2 lines, which could not be written: No space left", missing
        )

    def test_device(self) -> None:
        """On /dev/full every write fails, and nothing is raised."""
        if not os.path.exists("/dev/full"):
            raise SkipTest("needs /dev/full")
        file, good = open_log_file("/dev/full"), io.StringIO()
        self.addCleanup(file.close)
        observe = make_observer([file, good])
        observe(event("1"))
        observe(event("2"))
        self.assertEqual(good.getvalue().count("[INFO]"), 2)
        self.assertEqual(good.getvalue().count("A log cannot be written: No space left"), 1)

    def test_real_disk(self) -> None:
        """On a disk that is really full whole lines stay, rotation takes nothing away, and the
        log goes on when there is room.
        """
        folder = os.path.abspath(self.mktemp())
        os.mkdir(folder)
        mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "none", folder]
        if (
            sys.platform != "linux"
            or subprocess.run(mount, capture_output=True, check=False).returncode
        ):
            raise SkipTest("needs the right to mount a file system")
        self.addCleanup(subprocess.run, ["umount", "-l", folder], check=True)
        self.patch(logfile, "LOG_ROTATE_LENGTH", 30_000)
        path = os.path.join(folder, "server.log")
        file = open_log_file(path)
        self.addCleanup(file.close)
        observe = make_observer([file])
        for number in range(800):
            observe(event(f"{number} {'x' * 100}"))
        names = sorted(os.listdir(folder), reverse=True)
        texts = [Path(folder, name).read_text() for name in names]
        self.assertTrue(all(text.endswith("\n") for text in texts if text))
        numbers = [int(line.split()[3]) for line in "".join(texts).splitlines()]
        self.assertEqual(numbers, list(range(len(numbers))))
        self.assertLess(len(numbers), 800)
        os.remove(f"{path}.2")
        observe(event("again"))
        self.assertIn(f"Missing here: {800 - len(numbers)} lines", Path(path).read_text())


class OutputTests(SynchronousTestCase):
    """The standard output, which a thread writes to."""

    if sys.platform == "win32":
        skip = "a pipe's length is known elsewhere only"

    def setUp(self) -> None:
        """Make a pipe that takes little, and an observer that writes to it."""
        self.read_end, write_end = os.pipe()
        self.addCleanup(lambda: self.read_end is None or os.close(self.read_end))
        self.output = open(write_end, "w", encoding="latin-1")  # noqa: SIM115
        self.addCleanup(self.output.close)
        self.good = io.StringIO()
        self.observe = make_observer([self.good], output=self.output)

    def lines(self, last: str) -> list[str]:
        """Return what comes out of the pipe, up to the line that says `last`, after its times."""
        data = b""
        while not data.endswith(f"{last}\n".encode()):
            data += os.read(self.read_end, 1 << 16)
        return [line.partition("] ")[2] for line in data.decode("latin-1").splitlines()]

    def test_narrow_encoding(self) -> None:
        """Its encoding is kept, and it need not be buffered."""
        self.observe(event("ü 世"))
        self.observe(event("end"))
        self.assertEqual(self.lines("end"), ["[INFO] ü \\u4e16", "[INFO] end"])
        raw = open(os.dup(self.output.fileno()), "wb", buffering=0)  # noqa: SIM115
        with io.TextIOWrapper(raw, "latin-1", write_through=True) as unbuffered:
            make_observer([], output=unbuffered)(event("raw"))
            self.assertEqual(self.lines("raw"), ["[INFO] raw"])

    def test_nobody_reads(self) -> None:
        """A pipe that nobody reads keeps nobody who logs; who reads it again is told what is
        missing, once the queue has run empty.
        """
        self.patch(logwriters, "MAX_QUEUED_LINES", 100)
        long = "x" * 10_000
        for number in range(1000):
            self.observe(event(f"{long} {number}"))
        self.assertEqual(self.good.getvalue().count(long), 1000)
        (told,) = [each for each in self.good.getvalue().splitlines() if long not in each]
        self.assertRegex(
            told, r"\[ERR\] A log cannot be written: whoever reads the standard output"
        )

        def next_line() -> str:
            line = os.read(self.read_end, 1)
            while not line.endswith(b"\n"):
                line += os.read(self.read_end, 1)
            return line.decode("latin-1")

        kept = 0
        while not self.observe._writers[1]._queue.empty():
            self.assertTrue(next_line().endswith(f"x {kept}\n"))
            kept += 1
        self.observe(event("end"))
        *rest, missing, last = self.lines("end")
        kept += len(rest)
        self.assertLess(kept, 200)
        # With what was told of it there were 1001 lines.
        self.assertEqual(
            missing,
            f"[WARNING] Missing here: {1001 - kept} lines, which could not be written: "
            "whoever reads the standard output does not keep up",
        )
        self.assertEqual(last, "[INFO] end")

    def test_end(self) -> None:
        """At the end what is queued is waited for, and what is logged still later too."""
        for number in range(50):
            self.observe(event(str(number)))
        self.observe.flush(is_end=True)
        self.observe(event("end"))
        os.set_blocking(self.read_end, False)
        self.assertEqual(len(self.lines("end")), 51)

    def test_end_without_reader(self) -> None:
        """The end waits no longer than it is given, however much is logged then."""
        self.patch(logwriters, "OUTPUT_DRAIN_TIMEOUT", 0.05)
        self.observe(event("x" * 1_000_000))
        start = time.monotonic()
        self.observe.flush(is_end=True)
        self.assertGreaterEqual(time.monotonic() - start, 0.05)
        self.patch(logwriters, "OUTPUT_DRAIN_TIMEOUT", 1000.0)
        self.observe(event("2"))
        self.observe.flush(is_end=True)
        self.assertIn("2\n", self.good.getvalue())

    def test_closed(self) -> None:
        """A pipe whose reader is gone is told once in the other log."""
        os.close(self.read_end)
        self.read_end = None
        for _ in range(3):
            self.observe(event("x"))
            self.observe.flush(is_end=True)
        self.assertEqual(self.good.getvalue().count("A log cannot be written: Broken pipe"), 1)


class FileTests(SynchronousTestCase):
    """The log file, its modes and its rotation."""

    def setUp(self) -> None:
        """Name a file in a folder that is not there."""
        self.path = os.path.abspath(os.path.join(self.mktemp(), "server.log"))

    def open(self) -> LogFile:
        """Open the log file, to be closed after the test."""
        file = open_log_file(self.path)
        self.addCleanup(lambda: file.closed or file.close())
        return file

    def read(self, suffix: str = "") -> str:
        """Return what is in the log file, or in an older one."""
        with open(self.path + suffix, encoding="utf-8", newline="") as file:
            return file.read()

    def mode(self, path: str) -> int:
        """Return a file's mode."""
        if os.name != "posix":
            raise SkipTest("file modes are POSIX's")
        return stat.S_IMODE(os.stat(path).st_mode)

    def test_appends(self) -> None:
        """What was logged before a restart is kept."""
        for text in ("Grüße", "2"):
            file = self.open()
            make_observer([file])(event(text))
            file.close()
        self.assertEqual(self.read(), f"{STAMP} [INFO] Grüße\n{STAMP} [INFO] 2\n")

    def test_modes(self) -> None:
        """File and folder are for their owner only, whatever the umask."""
        self.addCleanup(os.umask, os.umask(0))
        self.open()
        self.assertEqual(self.mode(self.path), 0o600)
        self.assertEqual(self.mode(os.path.dirname(self.path)), 0o700)

    def test_mode_of_old_file(self) -> None:
        """A file that others could read is closed to them."""
        self.open().close()
        os.chmod(self.path, 0o644)
        self.open()
        self.assertEqual(self.mode(self.path), 0o600)

    def test_mode_from_the_start(self) -> None:
        """No moment passes between the file's making and its mode."""
        if os.name != "posix":
            raise SkipTest("file modes are POSIX's")
        self.addCleanup(os.umask, os.umask(0))
        seen = []
        really_chmod = os.chmod

        def spy(path: str, mode: int) -> None:
            seen.append(self.mode(path))
            really_chmod(path, mode)

        self.patch(os, "chmod", spy)
        self.open()
        self.assertEqual([mode & 0o077 for mode in seen], [0])

    def test_rotation(self) -> None:
        """A full file is put aside; five old ones are kept, all for their owner only."""
        self.patch(logfile, "LOG_ROTATE_LENGTH", 1)
        observe = make_observer([self.open()])
        for number in range(8):
            observe(event(str(number)))
        names = sorted(os.listdir(os.path.dirname(self.path)))
        self.assertEqual(names, ["server.log", *(f"server.log.{n}" for n in range(1, 6))])
        self.assertEqual(self.read(), f"{STAMP} [INFO] 7\n")
        self.assertEqual(self.read(".5"), f"{STAMP} [INFO] 2\n")
        for suffix in ("", ".1", ".5"):
            self.assertEqual(self.mode(self.path + suffix), 0o600)

    def test_half_line(self) -> None:
        """Of a line that was cut short nothing stays in the file."""
        file = self.open()
        file.write(b"whole\n")

        def write_half(target: Any, data: memoryview) -> int:
            if len(data) <= 3:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return int(target.write(data[:-3]))

        self.patch(logfile, "write_some", write_half)
        self.assertRaises(OSError, file.write, b"cut short\n")
        file.flush()
        self.assertEqual(self.read(), "whole\n")

    def test_pipe(self) -> None:
        """A pipe is no log file: it may take nothing for as long as it likes."""
        if not hasattr(os, "mkfifo"):
            raise SkipTest("there are no named pipes here")
        os.mkdir(os.path.dirname(self.path))
        os.mkfifo(self.path)
        error = self.assertRaises(LogFileError, open_log_file, self.path)
        self.assertIn("is a pipe; name a plain file", str(error))

    def test_length_in_bytes(self) -> None:
        """The length at which it is rotated counts bytes, not characters."""
        file = self.open()
        make_observer([file])(event("世" * 10))
        self.assertEqual(file.size, os.path.getsize(self.path))

    def test_limits(self) -> None:
        """Ten megabytes a file, and five old ones."""
        file = self.open()
        self.assertEqual(file.rotateLength, 10_000_000)
        self.assertEqual(file.maxRotatedFiles, 5)

    def test_no_rotation(self) -> None:
        """If the file can't be renamed, the log goes on in it until it can."""
        self.patch(logfile, "LOG_ROTATE_LENGTH", 100)
        observe = make_observer([self.open()])
        really_rename = os.rename

        def refuse(here: str, there: str) -> None:
            if here == self.path:
                raise PermissionError(13, "in use")
            really_rename(here, there)

        self.patch(os, "rename", refuse)
        for number in range(10):
            observe(event(str(number)))
        self.assertEqual(self.read().count("\n"), 10)
        self.patch(os, "rename", really_rename)
        for number in range(10):
            observe(event(str(number)))
        self.assertIn(".1", "".join(os.listdir(os.path.dirname(self.path))))

    def test_no_new_file(self) -> None:
        """If no new file can be opened, the log goes on when that is possible again."""
        self.patch(logfile, "LOG_ROTATE_LENGTH", 1)
        observe = make_observer([self.open()])
        observe(event("1"))
        os_umask = os.umask

        def refuse(mask: int) -> int:
            raise OSError(24, "Too many open files")

        self.patch(os, "umask", refuse)  # which is what a new file begins with
        observe(event("lost"))
        observe(event("lost"))
        self.patch(os, "umask", os_umask)
        observe(event("2"))
        told, second = self.read().splitlines()
        self.assertIn("Missing here: 2 lines, which could not be written: Too many open", told)
        self.assertEqual(second, f"{STAMP} [INFO] 2")
        self.assertEqual(self.read(".1"), f"{STAMP} [INFO] 1\n")

    def test_cut(self) -> None:
        """When another program cuts the file to nothing, the next line is its first."""
        if os.name != "posix":
            raise SkipTest("needs O_APPEND")
        observe = make_observer([self.open()])
        observe(event("1"))
        os.truncate(self.path, 0)
        observe(event("2"))
        self.assertEqual(self.read(), f"{STAMP} [INFO] 2\n")

    def test_reopen(self) -> None:
        """After the file was moved, `reopen` begins a new one, for its owner only."""
        observe = make_observer([self.open(), io.StringIO()])
        observe(event("1"))
        os.rename(self.path, self.path + ".old")
        observe(event("2"))
        observe.reopen()
        observe(event("3"))
        self.assertEqual(self.read(), f"{STAMP} [INFO] 3\n")
        self.assertEqual(self.read(".old").count("\n"), 2)
        self.assertEqual(self.mode(self.path), 0o600)

    def test_reopen_without_folder(self) -> None:
        """Where no file can be opened, the old one is written on, and told so."""
        if os.name != "posix":
            raise SkipTest("an open file can't be moved on Windows")
        folder = os.path.dirname(self.path)
        observe = make_observer([self.open()])
        os.rename(folder, folder + ".old")
        observe.reopen()
        observe(event("1"))
        with open(os.path.join(folder + ".old", "server.log"), encoding="utf-8") as file:
            told, last = file.read().splitlines()
        self.assertIn("[WARNING] The log file cannot be opened anew: No such file", told)
        self.assertEqual(last, f"{STAMP} [INFO] 1")

    def test_device(self) -> None:
        """A device keeps its mode, and is not renamed."""
        if not os.path.exists("/dev/null"):
            raise SkipTest("needs /dev/null")
        modes = []
        self.patch(os, "chmod", lambda path, mode: modes.append(mode))
        self.path = "/dev/null"
        file = self.open()
        self.assertEqual(modes, [self.mode("/dev/null")])
        self.assertIsNone(file.rotateLength)

    def test_refused(self) -> None:
        """A place where no file can be made is told in one line."""
        os.makedirs(self.path)
        self.check_refused(self.path, "name a file for the log")
        parent = os.path.join(os.path.dirname(self.path), "file")
        with open(parent, "wb"):
            path = os.path.join(parent, "server.log")
            self.check_refused(path, "let the server's user write there")

    def check_refused(self, path: str, advice: str) -> None:
        """Check that opening `path` fails with one line that starts with it."""
        text = str(self.assertRaises(LogFileError, open_log_file, path))
        self.assertTrue(text.startswith(f"{path}: "), text)
        self.assertTrue(text.isprintable(), text)
        self.assertIn(f"; {advice}", text)

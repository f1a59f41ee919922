"""What is logged while a test runs."""

from twisted.logger import LogEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from chatserver.loglines import format_line


def keep_lines(test: SynchronousTestCase) -> list[str]:
    """Return a list that gets the server's log lines, without their time, until `test` ends."""
    lines: list[str] = []

    def observe(event: LogEvent) -> None:
        if (line := format_line(event)) is not None:
            lines.append(line.partition("] ")[2])

    globalLogPublisher.addObserver(observe)
    test.addCleanup(globalLogPublisher.removeObserver, observe)
    return lines

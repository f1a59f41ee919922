"""What is logged while a test runs."""

from collections.abc import Callable

from twisted.logger import LogEvent, formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from chatserver.loglines import format_line


def keep_texts(test: SynchronousTestCase) -> list[str]:
    """Return a list that gets the texts of all that is logged until `test` ends."""
    return _keep(test, formatEvent)


def keep_lines(test: SynchronousTestCase) -> list[str]:
    """Return a list that gets the server's log lines, without their time, until `test` ends."""

    def line_of(event: LogEvent) -> str | None:
        line = format_line(event)
        return None if line is None else line.partition("] ")[2]

    return _keep(test, line_of)


def _keep(test: SynchronousTestCase, text_of: Callable[[LogEvent], str | None]) -> list[str]:
    """Return a list that gets what `text_of` makes of each event, if it makes something."""
    texts: list[str] = []

    def observe(event: LogEvent) -> None:
        if (text := text_of(event)) is not None:
            texts.append(text)

    globalLogPublisher.addObserver(observe)
    test.addCleanup(globalLogPublisher.removeObserver, observe)
    return texts

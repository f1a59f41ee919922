"""The lines of the log: one an event, whatever a client sends.

A line has the local time, a level (INFO, WARNING or ERR) and the event::

    [2025-07-07 14:22:33] [INFO] Client connected
    [2025-07-07 14:22:35] [ERR] Handshake failed: no shared cipher
"""

from __future__ import annotations

import time

from twisted.logger import LogEvent, LogLevel, eventAsText

from chatserver.printable import escape

_LEVELS = {
    LogLevel.info: "INFO",
    LogLevel.warn: "WARNING",
    LogLevel.error: "ERR",
    LogLevel.critical: "ERR",
}


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


def own_line(level: object, text: str, **more: object) -> str:
    """Return a line that the log itself has to tell."""
    line = format_line({"log_format": text, "log_level": level, "log_time": time.time(), **more})
    assert line is not None
    return line


def _format_time(when: float | None) -> str:
    """Return a time, in seconds since the epoch, as local time; a dash if there is none."""
    return "-" if when is None else time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(when))

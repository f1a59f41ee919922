"""The file of ``--config``: options in TOML, each by the name that it has on the command line.

What the file says is turned into arguments, which are parsed before those of the command line:
so both are checked by the same rules, and the command line wins.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from chatserver.errors import OperatorError
from chatserver.printable import escape

EXAMPLE = "port = 5555"
"""What a line of the file looks like."""

_PLACE = re.compile(r" \(at (?:line (\d+), column (\d+)|end of document)\)\Z")
"""Where tomllib says that the mistake is, at the end of its messages."""

_KINDS = {bool: "true or false", str: "text", int: "a number", float: "a number", list: "a list"}


class ConfigError(OperatorError):
    """The file can't be used. The text is one line: the file, the line, and what is wrong.

    `line` is the number of the line, or None if the whole file is meant.
    """

    def __init__(self, path: str, line: int | None, text: str) -> None:
        place = escape(path) if line is None else f"{escape(path)}, line {line}"
        super().__init__(f"{place}: {text}")
        self.line = line


@dataclass(frozen=True, slots=True)
class Setting:
    """One option in the file.

    `argument` is what would stand on the command line for it, or None where nothing
    would: a flag that is false.
    """

    name: str
    argument: str | None
    line: int


def read(
    path: str, options: Mapping[str, bool], ignored: frozenset[int] = frozenset()
) -> list[Setting]:
    """Return the settings in the file at `path`, in their order.

    :param options: the names that may stand there, and whether each takes a value (or is a flag)
    :param ignored: numbers of lines whose settings are left out, whatever they are
    :raises ConfigError: the file can't be read, is no TOML, or a line of it is no setting
    """
    text = _read_text(path)
    lines: dict[str, int] = {}
    settings = []
    for line, statement in _statements(path, text):
        for name, value in statement.items():
            if line in ignored:
                continue
            if name in lines:
                raise ConfigError(path, line, f"{name} stands in line {lines[name]} already")
            lines[name] = line
            try:
                settings.append(Setting(name, _argument(name, value, options), line))
            except ValueError as error:
                raise ConfigError(path, line, str(error)) from None
    return settings


def _read_text(path: str) -> str:
    try:
        with open(path, "rb") as file:
            data = file.read()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(
            path,
            None,
            f"--config: cannot be read: {reason}; name a file that the server's user can read",
        ) from None
    try:
        # An editor on Windows may have put a byte order mark at its start.
        return data.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigError(path, line, "is not UTF-8: save the file as UTF-8") from None


def _statements(path: str, text: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the line of each statement, and what it says.

    tomllib does not tell where a key stands. A statement ends with the line at which it is
    whole, and the next one begins after that.
    """
    start, statement = 1, ""
    for number, line in enumerate(text.split("\n"), 1):
        statement += line + "\n"
        parsed = _parse(statement)
        if isinstance(parsed, dict):
            yield start, parsed
            start, statement = number + 1, ""
    if statement:
        raise _mistake(path, start, str(_parse(statement)))


def _parse(text: str) -> dict[str, Any] | str:
    """Return what `text` says, or why that is no TOML."""
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        return str(error)
    except ValueError:
        return "A number that is too long"
    except RecursionError:
        return "Too many brackets"


def _mistake(path: str, start: int, reason: str) -> ConfigError:
    """Return the error for a statement that begins in line `start`, for the parser's `reason`."""
    line, column = start, ""
    place = _PLACE.search(reason)
    if place is not None:
        reason = reason[: place.start()]
        if place[1] is not None:
            line += int(place[1]) - 1
            column = f" in column {place[2]}"
    reason = escape(reason[:1].lower() + reason[1:])
    return ConfigError(
        path, line, f"{reason}{column}; a line looks like {EXAMPLE}, and text stands in quotes"
    )


def _argument(name: str, value: object, options: Mapping[str, bool]) -> str | None:
    """Return the argument that says on the command line what `name` and `value` say here.

    :raises ValueError: there is none. The text is for the operator.
    """
    if name == "config":
        raise ValueError("config names this file, and can't stand in it")
    if name not in options:
        if "a table" in (_kind(value), *(_kind(each) for each in _items(value))):
            raise ValueError(f"{escape(name)} is a table; all options stand outside of tables")
        raise ValueError(_unknown(name, options))
    if not options[name]:
        if isinstance(value, bool):
            return f"--{name}" if value else None
        raise ValueError(f"--{name} is true or false, not {_kind(value)}")
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError(f"--{name} is a number, or text in quotes, not {_kind(value)}")
    try:
        text = str(value)
    except ValueError:  # Python writes only so many digits.
        raise ValueError(f"--{name} is not as long a number as that") from None
    if not text.isprintable():  # On the command line there would be no NUL either.
        raise ValueError(f"--{name} holds a character that is not printable")
    return f"--{name}={text}"


def _unknown(name: str, options: Mapping[str, bool]) -> str:
    near = difflib.get_close_matches(name.lstrip("-").replace("_", "-").lower(), options, 1)
    hint = f"did you mean {near[0]}?" if near else "they are those of twistd asyncchat --help"
    return f"there is no option {escape(name)}; {hint}"


def _items(value: object) -> list[object]:
    """Return what is in `value`, if it is a list: of tables, where it is written ``[[name]]``."""
    return value if isinstance(value, list) else []


def _kind(value: object) -> str:
    """Return what `value` is, in the words of somebody who writes such a file."""
    if isinstance(value, dict):
        return "a table"
    return _KINDS.get(type(value), "a date or a time")

"""What ``asyncchat-admin check`` looks at: all that the server needs. It changes none of that."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from chatserver import database, listening
from chatserver.certificates import are_missing
from chatserver.descriptors import file_limits
from chatserver.errors import OperatorError
from chatserver.limits import CERTIFICATE_WARNING_DAYS, FEW_FILES
from chatserver.options import NO_LOG_FILE, Options
from chatserver.renewal import certificate_files


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found out about `subject`. `told` is one line, with what to do if it is not fine."""

    subject: str
    is_fine: bool
    told: str


def check_all(options: Options, reactor: Any) -> Iterator[Finding]:
    """Look at everything that `options` name, and yield what is found, one after the other.

    A file's path is relative to the current folder, as it is for the server.
    """
    checks: list[tuple[str, Callable[[Options], str]]] = [
        ("certificate", _certificate),
        ("database", _database),
        ("file limit", _file_limit),
        ("port", lambda options: _port(options, reactor)),
        ("log file", _log_file),
    ]
    for subject, check in checks:
        try:
            yield Finding(subject, True, check(options))
        except OperatorError as error:
            yield Finding(subject, False, str(options.locate(error)))


def _certificate(options: Options) -> str:
    files = certificate_files(options)
    path, key_path = files.certificate, files.private_key
    if are_missing(path, key_path):
        for each in (path, key_path):
            _check_writable(_existing_folder(each), os.W_OK | os.X_OK)
        return f"{path} will be made at the first start"
    now = datetime.now(UTC)
    certificate = files.load(now)
    days = (certificate.not_after - now).days
    mistakes = []
    if days < CERTIFICATE_WARNING_DAYS:
        mistakes.append(f"{path}: good for {days} more days only; put a new one there, and its key")
    if certificate.key_is_exposed:
        mistakes.append(f"{key_path}: can be read by others; take that away: chmod 600 {key_path}")
    if mistakes:
        raise OperatorError("; ".join(mistakes))
    return f"{path}, good for {days} more days"


def _database(options: Options) -> str:
    url = database.parse_url(options["database"], os.getcwd())
    version = database.rehearse(url)
    where = database.describe(url)
    if version is None:
        return f"{where} will be created at the first start"
    newest = len(database.MIGRATIONS)
    if version < newest:
        return f"{where}, schema {version}, to be upgraded to {newest} at the next start"
    return f"{where}, schema {version}"


def _file_limit(options: Options) -> str:
    limits = file_limits()
    if limits is None:
        return "none on this system"
    soft, hard = limits
    if hard is None:
        return f"{_count(soft)} open files, which can be raised without end"
    told = f"{_count(soft)} open files, which can be raised to {hard}"
    wanted = options.get("max-connections")
    least = max(FEW_FILES, wanted if isinstance(wanted, int) else 0)
    if hard < least:
        raise OperatorError(
            f"{told}, but each connection takes one and {least} should be there;"
            " raise the limit: LimitNOFILE= in a systemd unit, or ulimit -Hn as root"
        )
    return told


def _count(limit: int | None) -> str:
    return "any number of" if limit is None else str(limit)


def _port(options: Options, reactor: Any) -> str:
    port: str = options["port"]
    try:
        listening.rehearse(reactor, port)
    except listening.PortInUseError:
        return f"{port} is in use (by the running server?)"
    return f"{port} is free"


def _log_file(options: Options) -> str:
    if options["log-file"] == NO_LOG_FILE:
        return "none but the terminal: only for twistd -n"
    path: str = os.path.abspath(options["log-file"])
    if os.path.isdir(path):
        raise OperatorError(f"{path}: is a folder; name a file for the log")
    folder = _existing_folder(path)
    if not os.path.isdir(folder):
        raise OperatorError(f"{folder}: is no folder for the log; name another file")
    if os.path.exists(path):
        _check_writable(path, os.W_OK)
    if os.path.isfile(path) or not os.path.exists(path):  # or it is never rotated: /dev/null say
        _check_writable(folder, os.W_OK | os.X_OK)
    return path


def _check_writable(path: str, access: int) -> None:
    if not os.access(path, access):
        raise OperatorError(f"{path}: cannot be written; let the server's user write there")


def _existing_folder(path: str) -> str:
    """Return the folder of `path`, or of those above it the first that is there."""
    folder = os.path.dirname(path)
    while not os.path.lexists(folder) and os.path.dirname(folder) != folder:
        folder = os.path.dirname(folder)
    return folder

"""The files that the server's options name."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from chatserver.database import parse_url, sqlite_file
from chatserver.errors import OperatorError
from chatserver.options import FILE_OPTIONS, NO_LOG_FILE


def check_own(options: Mapping[str, Any], name: str) -> None:
    """See to it that the file of option `name`, which is written to, is that of no other option.

    :param name: ``database`` or ``log-file``
    :raises OperatorError: it is that of another, or the database's URL is none
    """
    paths = {
        each: options[each] for each in FILE_OPTIONS if options[each] not in (None, NO_LOG_FILE)
    }
    paths["database"] = sqlite_file(parse_url(options["database"], os.getcwd()))
    path = paths.pop(name, None)
    for other, its in paths.items():
        if path and its and _is_same(path, its):
            raise OperatorError(f"--{name}: {path} is the file of --{other} too; name another file")


def _is_same(one: str, other: str) -> bool:
    """Tell whether two paths are of one file, which may have two names (a hard link)."""
    if os.path.exists(one) and os.path.exists(other):
        return os.path.samefile(one, other)
    return os.path.realpath(one) == os.path.realpath(other)

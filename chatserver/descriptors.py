"""How many files the process may have open, each connection being one."""

from __future__ import annotations

from chatserver.limits import RESERVED_FILES

try:
    import resource
except ImportError:  # Windows, which has no such limit.
    resource = None  # type: ignore[assignment]


def raise_file_limit() -> int | None:
    """Let the process open as many files as it may at all. Return how many that is.

    None is as many as there is memory for.
    """
    if resource is None:
        return None
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (OSError, ValueError):  # macOS takes no more than a number that it keeps to itself.
        hard = soft
    return None if hard == resource.RLIM_INFINITY else int(hard)


def connections_for(files: int | None) -> int | None:
    """Return how many connections there may be, with so many `files`. None is no limit."""
    return None if files is None else max(1, files - RESERVED_FILES)

"""How many files the process may have open, each connection being one."""

from __future__ import annotations

from chatserver.limits import MAX_AUTO_CONNECTIONS, RESERVED_FILES

try:
    import resource
except ImportError:  # Windows, which has no such limit.
    resource = None  # type: ignore[assignment]


def raise_file_limit() -> int | None:
    """Let the process open as many files as it may at all. Return how many that is.

    None is as many as there is memory for.
    """
    limits = file_limits()
    if limits is None:
        return None
    soft, hard = limits
    most = resource.RLIM_INFINITY if hard is None else hard
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    except (OSError, ValueError):  # macOS takes no more than a number that it keeps to itself.
        return soft
    return hard


def file_limits() -> tuple[int | None, int | None] | None:
    """Return how many files the process may open now, and how many if it raises that.

    Either is None for any number; instead of both there is None where there is no such limit.
    """
    if resource is None:
        return None
    soft, hard = (
        None if limit == resource.RLIM_INFINITY else int(limit)
        for limit in resource.getrlimit(resource.RLIMIT_NOFILE)
    )
    return soft, hard


def connections_for(files: int | None) -> int | None:
    """Return how many connections there may be, with so many `files`. None is no limit."""
    return None if files is None else max(1, files - RESERVED_FILES)


def auto_connections(files: int | None) -> int:
    """Return how many connections there should be, with so many `files`. None is any number."""
    possible = connections_for(files)
    return MAX_AUTO_CONNECTIONS if possible is None else min(possible, MAX_AUTO_CONNECTIONS)

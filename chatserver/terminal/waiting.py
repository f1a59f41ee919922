"""Between Twisted's Deferreds and asyncio's coroutines."""

from __future__ import annotations

import asyncio
from typing import TypeVar

from twisted.internet.defer import Deferred

_Result = TypeVar("_Result")


async def result(waiting: Deferred[_Result]) -> _Result:
    """Return what `waiting` fires with, or raise what it fails with."""
    outcome: _Result = await waiting.asFuture(asyncio.get_running_loop())
    return outcome

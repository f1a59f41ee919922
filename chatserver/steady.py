"""A reactor's time that goes on steadily, whoever sets the machine's clock."""

from __future__ import annotations

import time
from typing import Any


def steady(reactor: Any) -> None:
    """Let the time of `reactor` go on from now as the system's monotonic clock does.

    Twisted's reactors go by the time of day (`time.time`). Where that is set back, deadlines wait
    as much longer and nothing that counts for some seconds ends; where it is set forward all
    deadlines are over at once.
    """
    ahead = time.time() - time.monotonic()
    reactor.seconds = lambda: ahead + time.monotonic()

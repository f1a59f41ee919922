"""The standard streams of a console script, whatever it was started with."""

from __future__ import annotations

import os
import sys


def open_closed_streams() -> None:
    """See to it that there are standard streams, also where they were closed (``<&-``)."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:  # The new one gets its number.
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115


def discard_output() -> None:
    """Throw away what could not be written to the standard output, and what would still be.

    Python would try it again at the end of the process, and complain.
    """
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

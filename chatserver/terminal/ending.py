"""How ``asyncchat`` ends: its exit status, and what ends it early."""

from __future__ import annotations

DONE = 0
"""All went well."""

FAILED = 1
"""No connection or no login, or the connection was lost."""

USAGE = 2
"""The command line can't be understood: the status that argparse has for it."""

NOT_ACCEPTED = 3
"""The one who was invited did not accept."""

NOT_DELIVERED = 4
"""Something that was to be said was not delivered."""


class UserQuit(Exception):  # noqa: N818 - it is no error
    """The user has enough: Ctrl-C, or Ctrl-D on an empty line.

    Not KeyboardInterrupt, which would end the event loop at once, and leave its threads.
    """

"""The exit status of ``asyncchat``."""

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

"""Every limit and time-out of the server: its default, its unit and its reason."""

HANDSHAKE_TIMEOUT = 10.0
"""Seconds for the TLS handshake: three round trips over the worst of mobile networks."""

CLOSE_TIMEOUT = 5.0
"""Seconds for a client to take its last Error and to close, before it is cut off."""

STALL_TIMEOUT = 60.0
"""Seconds in which some of what waits for a client must have been sent: as long as a phone
in a tunnel may take before somebody waits for it in vain."""

STALL_LOOKS = 10
"""How often within `STALL_TIMEOUT` is looked: it is kept to a tenth of itself."""

READ_AHEAD = 64 * 1024
"""Bytes that are still read from a client whose packets have to wait. Reading on is the
only way to hear that it is gone; one packet of the longest kind is enough for that."""

INVITATION_TIMEOUT = 60.0
"""Seconds after which an unanswered invitation ends: time to come back to the screen."""

MAX_RECEIVED_INVITATIONS = 32
"""Invitations that may wait at one user: more than anybody answers, and little to keep."""

MIN_PASSWORD_LENGTH = 8
"""Bytes of a new password, at least: NIST SP 800-63B, for passwords that people choose."""

LISTEN_BACKLOG = 1024
"""Connections that may wait to be accepted: a fleet that comes back all at once."""

"""Every limit and time-out of the server: its default, its unit and its reason."""

HANDSHAKE_TIMEOUT = 10.0
"""Seconds for the TLS handshake: three round trips over the worst of mobile networks."""

CLOSE_TIMEOUT = 5.0
"""Seconds for a client to take its last Error and to close, before it is cut off."""

STALL_TIMEOUT = 60.0
"""Seconds in which some of what waits for a client must be sent. Its chat partner waits as long."""

STALL_LOOKS = 10
"""Looks in each `STALL_TIMEOUT`: a client is cut off at most a tenth of it late."""

READ_AHEAD = 64 * 1024
"""Bytes that are still read from a client whose packets have to wait: a connection that is not
read does not notice that its client is gone. As many as `FileDescriptor.bufferSize`, at which
Twisted pauses the producer in the other direction."""

PACKETS_PER_TURN = 100
"""Packets of one connection that are handled before it is the others' turn: a few milliseconds."""

INVITATION_TIMEOUT = 60.0
"""Seconds after which an unanswered invitation ends: time to come back to the screen."""

MAX_RECEIVED_INVITATIONS = 32
"""Invitations that may wait at one user: more than anybody answers, and little to keep."""

MIN_PASSWORD_LENGTH = 8
"""Bytes of a new password, at least: NIST SP 800-63B, for passwords that people choose."""

LISTEN_BACKLOG = 1024
"""Connections that may wait to be accepted: a fleet that comes back all at once."""

MAX_LOGINS_UNDER_WAY = 128
"""Registrations and logins that may be under way at once, the waiting ones included. At 25 ms of
hashing each, the last of them waits less than 4 s on one core: about as long as a person does
before trying again."""

SQLITE_THREADS = 1
"""How many threads may use one SQLite file at once. It has one writer at a time; more
threads only make each other wait for its lock."""

POSTGRESQL_THREADS = 4
"""How many threads may use PostgreSQL at once. Most of a commit is waiting for its disk, so
a few at once do more; a dozen servers still stay below its default of 100 connections."""

SQLITE_BUSY_TIMEOUT = 2.0
"""Seconds to wait for another program, an operator's shell say, that holds the SQLite file.
Longer than a hand-written statement takes, shorter than a client's patience."""

POSTGRESQL_CONNECT_TIMEOUT = 5
"""Seconds to wait for a connection to PostgreSQL, unless the URL sets connect_timeout."""

POSTGRESQL_SILENCE_TIMEOUT = 10_000
"""Milliseconds until a connection counts as broken when PostgreSQL's machine acknowledges
nothing, unless the URL sets tcp_user_timeout. Without it that takes a quarter of an hour."""

POSTGRESQL_STATEMENT_TIMEOUT = 10
"""Seconds that one question to PostgreSQL may take. Each finds one row by its key; what takes
longer waits for a lock that somebody holds, and must not hold up the server's stop as well."""

LOG_ROTATE_LENGTH = 10_000_000
"""The length in bytes at which a new file is begun: about 150 000 lines, which an editor
still opens at once."""

MAX_OLD_LOGS = 5
"""How many files before the present one are kept, as ``server.log.1`` to ``.5``. With these
the log takes 60 MB at most, also when somebody floods it."""

LOG_LINES = "120/minute"
"""Log lines of one kind: two a second are more than anybody reads, and at 100 bytes a line a
flood of one kind needs 14 hours to fill one file of `LOG_ROTATE_LENGTH`."""

MAX_LOG_KINDS = 1000
"""Kinds of log lines that are counted apart: many times what the server has. The rest shares."""

DATABASE_TIMEOUT = 5.0
"""Seconds in which the database must have answered one question, waiting for its turn included;
then the client hears FAILED. As long as `POSTGRESQL_CONNECT_TIMEOUT`, about a person's patience."""

LOG_FLUSH_INTERVAL = 60.0
"""Seconds between looks for lines that were left out of the log and have not been told of yet."""

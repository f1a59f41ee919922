"""Every limit and time-out of the server: its default, its unit and its reason.

docs/operations.md tells an operator the same of those that are options. (What names and passwords
may be is a rule of the protocol: `chatserver.credentials`.)
"""

from __future__ import annotations

import os
from dataclasses import dataclass

MAX_SECONDS = 1e9
"""Seconds that an option must stay below: thirty years. What is meant to be no limit is 0."""

MAX_RATE_AMOUNT = 1_000_000
"""Times that a rate may name. Each that has happened is kept as a time, in 32 bytes; so many in
one period are not noticed any more, and 0 is no limit."""

HANDSHAKE_TIMEOUT = 10.0
"""Seconds for the TLS handshake, from TCP's connect: three round trips over the worst of mobile
networks."""

LOGIN_TIMEOUT = 60.0
"""Seconds from the handshake to the first Register or Login that succeeds. People type a name and
a password in that time; and who is nobody yet does not keep a connection for longer."""

CLOSE_TIMEOUT = 5.0
"""Seconds for a client to take its last Error and to close, before it is cut off."""

DRAIN_TIMEOUT = 10.0
"""Seconds for the clients to take what was accepted for them when the server stops: twice
`CLOSE_TIMEOUT`, for the whole of a backlog, and well below the 90 s after which systemd kills."""

STALL_TIMEOUT = 60.0
"""Seconds in which some of what waits for a client must be sent. Its chat partner waits as long."""

KEEP_ALIVE = {"TCP_KEEPIDLE": 60, "TCP_KEEPINTVL": 15, "TCP_KEEPCNT": 4}
"""When an idle connection is tried, and for how long: seconds, seconds, times. A network that is
gone shows after two minutes; with the usual values it takes two hours. Once a minute is also
often enough for most routers to keep the connection in their tables."""

KEEP_ALIVE_TIMEOUT = float(
    KEEP_ALIVE["TCP_KEEPIDLE"] + KEEP_ALIVE["TCP_KEEPINTVL"] * KEEP_ALIVE["TCP_KEEPCNT"]
)
"""Seconds after which `KEEP_ALIVE` gives up."""

CONNECTIONS_PER_ADDRESS = 100
"""Connections that one address may have: a team behind one router, each with some devices, and
no more than a hundredth of what a small machine can hold. IPv6 is counted by /64: whoever has one
address there usually has them all (RFC 6177)."""

IPV6_NETWORK_BITS = 64
"""Bits of an IPv6 address that tell whose it is; see `CONNECTIONS_PER_ADDRESS`."""

RESERVED_FILES = 64
"""Files that are not for connections when the file limit decides how many there may be: the log,
the database, its threads' connections, the ports, and what Python and OpenSSL open in passing."""

MAX_AUTO_CONNECTIONS = 15_000
"""Connections that `--max-connections auto` lets there be at most, however high the file limit
is: in containers it is a million or more, and each connection takes 30 kB while it idles. So
many were tried (``python -m benchmarks idle``), and took half a gigabyte."""

FEW_FILES = 1024
"""Open files below which the limit counts as too low, if nobody says how many connections there
should be: what Linux gives every process without having been asked."""

FAILED_LOGINS = "10/minute"
"""Logins that may fail, for one address and for one account: more than people mistype, and
five million guesses in a year, where eight random letters have 200 thousand millions."""

REGISTRATIONS = "20/minute"
"""Registrations of one address: a class-room that begins, and not a table full of nonsense."""

INVITATIONS = "30/minute"
"""Invitations of one account: one every two seconds is more than people send, and what others
get of them can still be read."""

ACCEPT_BACKOFF = 1.0
"""Seconds that a port rests when accept fails: to try again costs nothing then, and who waits
still does."""

STALL_LOOKS = 10
"""Looks in each `STALL_TIMEOUT`: a client is cut off at most a tenth of it late."""

BUFFER_SIZE = 32 * 1024
"""Bytes that a connection reads at once, and that may wait to be sent before it is held. Half of
what Twisted has by itself: with that, a hundred chats in which both write and nobody reads take
70 MB (``python -m benchmarks stall``), and it is still many times what people write."""

READ_AHEAD = BUFFER_SIZE
"""Bytes that are still read from a client whose packets have to wait: a connection that is not
read does not notice that its client is gone. As many as may wait in the other direction."""

PACKETS_PER_TURN = 20
"""Packets of one connection that are handled before it is the others' turn: a third of a
millisecond. A message crosses the server in a few turns; with many more in each, a flood of one
client is felt by the others, and with fewer the turns themselves cost more than the packets."""

STRANGERS_PER_TURN = 1
"""`PACKETS_PER_TURN` of one that has not logged in: it needs no more, and a hundred of them that
send without end (`CONNECTIONS_PER_ADDRESS`) are felt the less."""

MAX_HANDSHAKE = 32 * 1024
"""Bytes that a client may send until the TLS handshake is done: its hello, 2 KB, and a chain of
certificates if it is asked for one. OpenSSL keeps up to 128 KiB of a hello that does not end."""

TURN_TIME = 0.0005
"""Seconds of a turn after which no other handshake goes on. The step that answers a client's hello
takes about twice that, and is alone in its turn; of a hello in tiny records many are taken."""

INVITATION_TIMEOUT = 60.0
"""Seconds after which an unanswered invitation ends: time to come back to the screen."""

MAX_RECEIVED_INVITATIONS = 32
"""Invitations that may wait at one user: more than anybody answers, and little to keep."""

MIN_PASSWORD_LENGTH = 8
"""Bytes of a new password, at least: NIST SP 800-63B, for passwords that people choose."""

SLOWDOWN_PAUSE = 1.0, 2.0
"""Seconds, from and to, in which no packet is taken from a client that was told SLOWDOWN. Refusing
costs little, but a client that asks again at once would keep the reactor busy with it. How many it
is, is by chance: those who were refused together don't come back together, which others notice."""

LISTEN_BACKLOG = 1024
"""Connections that may wait to be accepted: a fleet that comes back all at once."""

ACCEPT_TIME = 0.020
"""Seconds of a turn in which connections are accepted. With more, chats feel a thousand that come
at once (p99 40 ms, and 100 with no limit). With less, one address that connects 6000 times a second
keeps others out: what is accepted late is gone already, and costs more than what is refused."""

ACCEPTS_AT_ONCE = 5
"""Connections that are accepted between two looks at `ACCEPT_TIME`: a millisecond at most."""

MAX_LOGINS_UNDER_WAY = 128
"""Registrations and logins that may be under way at once, the waiting ones included. At 25 ms of
hashing each, the last of them waits some 4 s on a core of its own: about as long as a person does
before trying again."""

MAX_WAITING_ATTEMPTS = MAX_LOGINS_UNDER_WAY
"""Logins of one address that may wait until others of it have ended, and have shown whether
`FAILED_LOGINS` lets them be tried: a fleet behind one router comes back all at once."""

_CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

HASHING_THREADS = max(1, _CORES - 1)
"""Threads that hash passwords: one for each core that the process may use, less that of the
reactor, whose messages would wait for it. With two threads on two cores the p99 of their latency is
twice as high under a flood of logins as with one (``python -m benchmarks flood``)."""

HASHING_NICENESS = 19
"""How far the threads that hash stand back behind the reactor's, where threads have priorities of
their own (Linux; see setpriority(2)): as far as can be, since a login can wait for some
milliseconds, and a message would notice them."""

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

POSTGRESQL_TRY_TIMEOUT = 10.0
"""Seconds in which PostgreSQL must have answered all that the start asks, or ``asyncchat-admin
check``: twice the patience of `POSTGRESQL_CONNECT_TIMEOUT`, and then there is a line about it."""

POSTGRESQL_STATEMENT_TIMEOUT = 4
"""Seconds that one question to PostgreSQL may take. Each finds one row by its key; what takes
longer waits for a lock that somebody holds. Less than `DATABASE_TIMEOUT`: PostgreSQL itself ends
what it can, and the connection stays."""

NAMES_AT_ONCE = 1000
"""Names that are read from the accounts in one transaction: a few milliseconds."""

LOG_ROTATE_LENGTH = 10_000_000
"""The length in bytes at which a new file is begun: about 150 000 lines, which an editor
still opens at once."""

MAX_OLD_LOGS = 5
"""How many files before the present one are kept, as ``server.log.1`` to ``.5``. With these
the log takes 60 MB at most, also when somebody floods it."""

LOG_LINES = "120/minute"
"""Log lines of one kind from one address: two a second are more than anybody reads, and at 100
bytes a line a flood of one kind needs 14 hours to fill one file of `LOG_ROTATE_LENGTH`."""

LOG_NETWORKS = 10
"""Times `LOG_LINES` that all addresses together may have of one kind: a fleet that comes back all
at once is told of, and many addresses that flood still leave more than an hour in the files."""

MAX_LOG_WINDOWS = 1000
"""Kinds of log lines that are counted apart, and as many of addresses: many times what is usual.
Addresses beyond that are counted with all of their kind, and kinds beyond that with each other."""

MAX_QUEUED_LINES = 10_000
"""Lines of the log that wait for the standard output to take them: a megabyte, and twice what a
fleet that comes back all at once may write (`LOG_LINES` and `LOG_NETWORKS`, of four kinds)."""

OUTPUT_DRAIN_TIMEOUT = 1.0
"""Seconds that the end of the server waits for the standard output to take what is queued: it
takes a megabyte in a fraction of that, unless a terminal was stopped or nobody reads a pipe."""

DATABASE_TIMEOUT = 5.0
"""Seconds in which the database must have answered one question, waiting for its turn included;
then the client hears FAILED. As long as `POSTGRESQL_CONNECT_TIMEOUT`, about a person's patience."""

LOG_FLUSH_INTERVAL = 60.0
"""Seconds between looks for lines that were left out of the log and have not been told of yet."""

CERTIFICATE_CHECK_INTERVAL = 60.0
"""Seconds between looks at the certificate's files: soon enough for a renewal, which comes weeks
before the end, and four calls of stat cost nothing."""

CERTIFICATE_WARNING_DAYS = 30
"""Days before its end from which on a certificate is warned of. certbot renews those of 90 days
at this time; so the warnings are of a renewal that does not work, and leave a month to mend it."""

PROBE_TIMEOUT = 3.0
"""Seconds that ``asyncchat-admin check`` waits for each answer of whoever has the port: they are
on the same machine, and a server that is busy takes a fraction of that."""

MAX_SUBJECT_LENGTH = 256
"""Characters of a client certificate's subject in the log: more than a person's or a machine's
takes. Whoever is refused could write a hundred kilobytes there."""

CLUSTER_ANSWER_TIMEOUT = 2.0
"""Seconds that another machine has to say where a user is, to take an invitation or an accept: a
thousand times what it takes, and about what a person waits without wondering."""

CLUSTER_ANNOUNCE_INTERVAL = 300.0
"""Seconds between two announcements of a login. Between the servers of one NATS the way may be cut,
and no machine notices: an account that has logged in on both sides is found so. With 15 000 users
it is fifty small messages a second, to machines that mostly don't listen."""

CLUSTER_MACHINES = 1000
"""Machines that are known at once. Beyond that a new one takes the place of one with which nothing
is under way: what claims to be so many has gone mad, or is a liar."""

CLUSTER_GENERATIONS = 2**32
"""How many generations of a stream another machine may be ahead: more than there can be, and so few
that a lie does not end the numbers."""

CLUSTER_BEAT_INTERVAL = 1.0
"""Seconds between two signs of life to a machine with which something is under way."""

CLUSTER_SILENCE = 3.5
"""Seconds after which a machine that is silent counts as gone, when something is under way with it:
three signs of life. It is looked at in each `CLUSTER_BEAT_INTERVAL`, so that chat partners hear so
within five seconds."""

CLUSTER_FORGET = 86400.0
"""Seconds after which a machine with which nothing is under way, and which is silent, is forgotten:
machines come and go, and each start of a server is another one."""

CLUSTER_CREDIT = 128 * 1024
"""Bytes of a chat that may be on their way to another machine before the sender has to wait: what
that takes on the way, a millisecond's worth of a fast network, and little enough for thousands of
chats with a machine that is stuck."""

CLUSTER_MESSAGE_COST = 64
"""Bytes that each message counts besides its text, for `CLUSTER_CREDIT`: about what it takes in
memory on its way. Without them no number of empty messages would be too many."""

BUS_CONNECT_TIMEOUT = 2
"""Seconds for each step of connecting to NATS, and of leaving it."""

BUS_RETRY_INTERVAL = 1
"""Seconds between two tries to reach NATS again."""

BUS_RENEW_INTERVAL = 5.0
"""Seconds until the connection to NATS is made anew after it has ended it, or taken subscriptions
away, and said why: by then that may be mended, and a line each time is not too much for the log."""

BUS_PING_INTERVAL = 1
"""Seconds between two questions to NATS whether it is there. Two that are not answered are an end
of the connection: before chat partners count each other as gone."""

BUS_LEAST_PAYLOAD = 512 * 1024
"""Bytes that a message over NATS must be allowed to have (max_payload; NATS's default is twice as
many): messages of a chat that came together leave together, and that can be what is read ahead, a
message of 64 KiB and one more read."""

BUS_QUEUE = 64 * 1024 * 1024
"""Bytes that wait until nats-py takes them, which it does not while it has `BUS_PENDING`: what five
hundred chats may have under way (`CLUSTER_CREDIT`). What is more is dropped, and ends the chats
that it was of."""

BUS_PENDING = 2 * 1024 * 1024
"""Bytes of nats-py's that wait for NATS to read them."""


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """What connections may take: seconds, and numbers of connections. None is no limit."""

    handshake_timeout: float | None = HANDSHAKE_TIMEOUT
    login_timeout: float | None = LOGIN_TIMEOUT
    stall_timeout: float | None = STALL_TIMEOUT
    drain_timeout: float | None = DRAIN_TIMEOUT
    per_address: int | None = CONNECTIONS_PER_ADDRESS
    total: int | None = None

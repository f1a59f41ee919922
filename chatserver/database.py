"""The database: which it is, its schema, and making it ready. `chatserver.store` asks it things.

All of this blocks: call it from a thread, or before the reactor runs.

Why not Alembic: there are two tables and one version, and a file of the reference server
must open without a step by hand. `MIGRATIONS` is the way in for the next version.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import (
    ArgumentError,
    DBAPIError,
)

from chatserver.errors import OperatorError
from chatserver.limits import (
    POSTGRESQL_CONNECT_TIMEOUT,
    POSTGRESQL_SILENCE_TIMEOUT,
    POSTGRESQL_STATEMENT_TIMEOUT,
    POSTGRESQL_THREADS,
    POSTGRESQL_TRY_TIMEOUT,
    SQLITE_BUSY_TIMEOUT,
    SQLITE_THREADS,
)
from chatserver.pgsockets import PostgreSQLSockets

_UPGRADE_LOCK = int.from_bytes(b"asyncch", "big")
"""The key of the advisory lock around `upgrade`: any number that others are unlikely to use."""

READS_ONLY = "asyncchat_reads_only"
"""The execution option of a connection that only reads."""

_metadata = sa.MetaData()

users = sa.Table(
    "users",
    _metadata,
    sa.Column("username", sa.Text, primary_key=True),
    sa.Column("salt", sa.Text, nullable=False),
    sa.Column("hash", sa.Text, nullable=False),
)

_schema = sa.Table(
    "asyncchat_schema",
    _metadata,
    sa.Column("version", sa.Integer, nullable=False),
)


logins = sa.Sequence("asyncchat_logins")
"""Numbers the logins of a cluster. No table of ours refers to it."""


class DatabaseUnusableError(OperatorError):
    """The database cannot be used. The text is one line for the operator, without a password,
    that says what to do.
    """

    option = "database"


def parse_url(text: str, directory: str) -> sa.URL:
    """Return the database that `text` names, a SQLAlchemy URL for SQLite or PostgreSQL.

    :param directory: the absolute path that the path of an SQLite file starts from.
    :raises DatabaseUnusableError: it is no such URL, names a database in memory, whose
        accounts would be gone at the next start, or psycopg is not installed. The text starts
        with the option that has the URL.
    """
    try:
        return _parse_url(text, directory)
    except DatabaseUnusableError as error:
        raise DatabaseUnusableError(f"--database: {error}") from None


def _parse_url(text: str, directory: str) -> sa.URL:
    try:
        url = sa.make_url(text)
    except (ArgumentError, ValueError):
        # The text stays out of it: there may be a password in it.
        raise DatabaseUnusableError(
            "the database URL cannot be read: write sqlite:///users.db"
            " or postgresql://user:password@host/database"
        ) from None
    if url.drivername in ("sqlite", "sqlite+pysqlite"):
        return _parse_sqlite_url(url, directory)
    if url.drivername in ("postgresql", "postgresql+psycopg"):
        return _parse_postgresql_url(url)
    raise DatabaseUnusableError(
        f"databases of the kind {url.drivername} are not supported: write sqlite:/// or"
        " postgresql://"
    )


def _parse_sqlite_url(url: sa.URL, directory: str) -> sa.URL:
    path = url.database
    if url.host or url.username or url.password or url.port:
        raise DatabaseUnusableError(
            "an SQLite URL names no host: write three slashes before a path, sqlite:///users.db"
        )
    if not path or path == ":memory:":
        raise DatabaseUnusableError(
            "accounts in memory would be gone at the next start: write sqlite:///users.db"
        )
    if url.query or path.startswith("file:"):
        raise DatabaseUnusableError(
            "an SQLite URL takes a plain path, no file: and no options: write sqlite:///users.db"
        )
    return url.set(drivername="sqlite", database=os.path.join(directory, path))


def _parse_postgresql_url(url: sa.URL) -> sa.URL:
    if url.host and "@" in url.host:
        # What follows the first @ would be shown as the host, a part of the password too.
        raise DatabaseUnusableError("in the database URL write an @ of the password as %40")
    try:
        import psycopg  # noqa: F401, PLC0415 -- an extra: who uses SQLite does without
    except ImportError:
        raise DatabaseUnusableError(
            "PostgreSQL needs psycopg: pip install 'asyncchat[postgresql]'"
        ) from None
    return url.set(drivername="postgresql+psycopg")


def describe(url: sa.URL) -> str:
    """Return `url` for a message: the path of an SQLite file, else the URL without password."""
    if is_sqlite(url):
        return str(url.database)
    # Without the query: a password may stand there too.
    return url.set(query={}).render_as_string(hide_password=True)


def sqlite_file(url: sa.URL) -> str | None:
    """Return the path of an SQLite file; None for PostgreSQL."""
    return url.database if is_sqlite(url) else None


def reason(error: Exception) -> str:
    """Return in one line why the database failed, in the words of its driver.

    SQLAlchemy adds lines with the statement, PostgreSQL one with the row: they stay out.
    """
    original = error.orig if isinstance(error, DBAPIError) else None
    lines = str(original or error).splitlines()
    return lines[0] if lines else type(original or error).__name__


def make_engine(url: sa.URL) -> sa.Engine:
    """Return an engine for `url`, which must come from `parse_url`. It connects when it is used.

    A commit that has returned is on the disk, in both databases.
    """
    if is_sqlite(url):
        engine = sa.create_engine(
            url,
            hide_parameters=True,
            pool_size=SQLITE_THREADS,
            max_overflow=0,
            connect_args={"timeout": SQLITE_BUSY_TIMEOUT},
        )
        sa.event.listen(engine, "connect", _set_up_sqlite)
        sa.event.listen(engine, "begin", _begin_immediate)
        return engine
    defaults = {
        "connect_timeout": POSTGRESQL_CONNECT_TIMEOUT,
        "tcp_user_timeout": POSTGRESQL_SILENCE_TIMEOUT,
        # Or psycopg would hand out bytes where a database has the encoding SQL_ASCII.
        "client_encoding": "UTF8",
    }
    engine = sa.create_engine(
        url,
        hide_parameters=True,
        pool_size=POSTGRESQL_THREADS,
        max_overflow=0,
        pool_pre_ping=True,
        connect_args={key: value for key, value in defaults.items() if key not in url.query},
    )
    sa.event.listen(engine, "connect", _set_up_postgresql)
    return engine


def _set_up_sqlite(connection: Any, _record: object) -> None:
    # Or sqlite3 would begin transactions by itself, and not all of them.
    connection.isolation_level = None
    connection.execute("PRAGMA synchronous = FULL")


def _set_up_postgresql(connection: Any, _record: object) -> None:
    # Not as a start-up parameter, which connection poolers refuse.
    connection.execute(f"SET statement_timeout = '{POSTGRESQL_STATEMENT_TIMEOUT}s'")
    connection.commit()


def _begin_immediate(connection: sa.Connection) -> None:
    # A transaction that reads first and then writes would fail at once, without waiting, when
    # another program has written in between: take the lock at its start. One that only reads
    # needs none, and goes on while another program has it.
    if not connection.get_execution_options().get(READS_ONLY):
        connection.exec_driver_sql("BEGIN IMMEDIATE")


def prepare(url: sa.URL) -> None:
    """Make the database ready to be used: create it or upgrade it, and leave no connection.

    To be called at start, before any fork. A new SQLite file has the mode 0600, and one that
    was readable by others gets it: there are password hashes in it.

    :raises DatabaseUnusableError: it cannot be reached, written or upgraded, or is not ours.
    """
    if is_sqlite(url):
        _check_writable(str(url.database))
    created = is_sqlite(url) and _create_file(str(url.database))
    try:
        _create_or_upgrade(url)
    except BaseException:
        if created:
            os.remove(str(url.database))
        raise


def prepare_numbers(url: sa.URL) -> None:
    """Make the numbers of logins ready, which a cluster needs. To be called after `prepare`.

    :raises DatabaseUnusableError: they can't be made, or used
    """
    with _trying(url) as engine, engine.begin() as connection:
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_UPGRADE_LOCK)))
        connection.execute(sa.schema.CreateSequence(logins, if_not_exists=True))
        connection.execute(logins)  # Whether it may be used: the number is of no use.
        may_set = sa.func.has_sequence_privilege(logins.name, "UPDATE")
        if not connection.scalar(sa.select(may_set)):
            raise DatabaseUnusableError(
                f"{describe(url)}: its user may not set the sequence {logins.name}:"
                f" GRANT ALL ON SEQUENCE {logins.name} to it"
            )


def rehearse(url: sa.URL) -> int | None:
    """Try what `prepare` would do, and take it back: nothing is created or changed.

    :returns: the version of the schema that is there, or None if there is nothing yet
    :raises DatabaseUnusableError: `prepare` would raise it
    """
    if is_sqlite(url):
        path = str(url.database)
        _check_place(path)
        if not os.path.exists(path):
            if not os.access(os.path.dirname(path), os.W_OK | os.X_OK):
                raise _not_creatable(path, os.strerror(errno.EACCES))
            return None
        _check_writable(path)
    with _trying(url) as engine, engine.connect() as connection:
        with connection.begin() as transaction:
            version = upgrade(connection)
            transaction.rollback()
        return version


def exists(url: sa.URL) -> bool:
    """Tell whether there is a database: an SQLite file is made by the server or by `prepare`."""
    return not is_sqlite(url) or os.path.exists(str(url.database))


def _check_writable(path: str) -> None:
    """Raise `DatabaseUnusableError` if a file of the database that is there can't be written."""
    # SQLite would leave more such files behind, which then stand in the way as well.
    for each in (path, f"{path}-wal", f"{path}-shm"):
        if os.path.exists(each) and not os.access(each, os.R_OK | os.W_OK):
            raise DatabaseUnusableError(f"{each} cannot be written: let the server's user own it")


def _create_file(path: str) -> bool:
    """Create an empty file at `path`, or return False when there is something already."""
    _check_place(path)
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    except FileExistsError:
        return False
    except OSError as error:
        raise _not_creatable(path, error.strerror) from None
    return True


def _check_place(path: str) -> None:
    """Raise `DatabaseUnusableError` if no file can be at `path`."""
    folder = os.path.dirname(path)
    if not os.path.isdir(folder):
        raise DatabaseUnusableError(f"there is no folder {folder} for the database: create it")
    if os.path.isdir(path):
        raise DatabaseUnusableError(f"{path} is a folder: name a file for the database")
    if os.path.exists(path) and not os.path.isfile(path):
        raise DatabaseUnusableError(f"{path} is a pipe or a device: name a file for the database")


def _not_creatable(path: str, why: str | None) -> DatabaseUnusableError:
    return DatabaseUnusableError(
        f"{path} cannot be created: {why}; let the server's user write there"
    )


def _create_or_upgrade(url: sa.URL) -> None:
    with _trying(url) as engine:
        with engine.begin() as connection:
            upgrade(connection)
        # Only now: nothing was changed in a file that turned out to be somebody else's.
        if is_sqlite(url):
            _make_private(str(url.database))
            _set_write_ahead_log(engine)


@contextlib.contextmanager
def _trying(url: sa.URL) -> Iterator[sa.Engine]:
    """Yield an engine, for a while. Raise what goes wrong as a `DatabaseUnusableError`."""
    is_over = threading.Event()
    try:
        with contextlib.ExitStack() as stack:
            engine = make_engine(url)
            stack.callback(engine.dispose)
            if not is_sqlite(url):
                limit = PostgreSQLSockets(engine).limit(POSTGRESQL_TRY_TIMEOUT)
                is_over = stack.enter_context(limit)
            yield engine
    except DatabaseUnusableError:
        raise
    except Exception as error:  # A URL's options go to the driver, which says no in many ways.
        late = OSError(f"no answer in {POSTGRESQL_TRY_TIMEOUT:g} s")
        why = late if is_over.is_set() else error
        raise DatabaseUnusableError(_explain(url, why)) from None


def _make_private(path: str) -> None:
    if os.stat(path).st_mode & 0o077:
        # Where its owner is another user, that one has decided who may read it.
        with contextlib.suppress(PermissionError):
            os.chmod(path, 0o600)


def _set_write_ahead_log(engine: sa.Engine) -> None:
    # The file remembers it. A backup can read it then while the server writes. SQLite cannot
    # switch it inside a transaction, so it goes past the engine's.
    connection = engine.raw_connection()
    try:
        connection.cursor().execute("PRAGMA journal_mode = WAL")
    finally:
        connection.close()


def upgrade(connection: sa.Connection) -> int | None:
    """Bring the schema to the present version, in the transaction of `connection`.

    Version 0 is an empty database, or the reference server's with its users table.

    :returns: the version that it had, or None if there was no table
    :raises DatabaseUnusableError: the schema is newer than this server, or not ours.
    """
    where = describe(connection.engine.url)
    if connection.dialect.name == "postgresql":
        _check_postgresql(connection, where)
        # Two servers may start at once. The lock ends with the transaction.
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_UPGRADE_LOCK)))
    inspector = sa.inspect(connection)
    is_new = not inspector.has_table(users.name)
    if inspector.has_table(_schema.name):
        versions = connection.execute(sa.select(_schema.c.version)).scalars().all()
        if len(versions) != 1:
            raise DatabaseUnusableError(
                f"the table asyncchat_schema in {where} has {len(versions)} rows in place of one:"
                " restore the database from a backup"
            )
        version = versions[0]
        is_new = False
    else:
        _schema.create(connection)
        connection.execute(_schema.insert().values(version=0))
        version = 0
    if version > len(MIGRATIONS):
        raise DatabaseUnusableError(
            f"the schema of {where} has the version {version}, this server knows"
            f" {len(MIGRATIONS)}: install a newer asyncchat"
        )
    for migrate in MIGRATIONS[version:]:
        migrate(connection)
    # Also when nothing has changed: SQLite only notices that it may not write when it writes.
    connection.execute(_schema.update().values(version=len(MIGRATIONS)))
    _check_users(connection, where)
    return None if is_new else version


def _check_postgresql(connection: sa.Connection, where: str) -> None:
    encoding, read_only = connection.execute(
        sa.select(
            sa.func.current_setting("server_encoding"),
            sa.func.current_setting("transaction_read_only"),
        )
    ).one()
    if encoding != "UTF8":
        raise DatabaseUnusableError(
            f"{where} has the encoding {encoding}, which cannot hold every name:"
            " create a database with the encoding UTF8"
        )
    if read_only != "off":
        raise DatabaseUnusableError(
            f"{where} is read-only: name the primary server, or allow it to be written"
        )


def _create_users(connection: sa.Connection) -> None:
    """Version 0 to 1: the table as the reference server creates it."""
    inspector = sa.inspect(connection)
    if inspector.has_table("users"):
        return
    others = [name for name in inspector.get_table_names() if name != _schema.name]
    # In PostgreSQL tables of others may well stand in the same schema.
    if others and connection.dialect.name == "sqlite":
        raise DatabaseUnusableError(
            f"{describe(connection.engine.url)} is the database of another program (it has a"
            f" table {others[0]} and no table users): name another file"
        )
    connection.execute(
        sa.text(
            "CREATE TABLE users (username TEXT PRIMARY KEY, salt TEXT NOT NULL, hash TEXT NOT NULL)"
        )
    )


MIGRATIONS: tuple[Callable[[sa.Connection], None], ...] = (_create_users,)
"""What leads from each schema version to the next; their number is the present version.
One that has been released is never changed, and so it does not use the tables above."""


def _check_users(connection: sa.Connection, where: str) -> None:
    inspector = sa.inspect(connection)
    ours = inspector.has_table(users.name)
    if ours:
        columns = inspector.get_columns(users.name)
        key = inspector.get_pk_constraint(users.name)["constrained_columns"]
        ours = (
            {column["name"] for column in columns} == set(users.c.keys())
            and all(isinstance(column["type"], sa.String) for column in columns)
            and key == ["username"]
        )
    if not ours:
        raise DatabaseUnusableError(
            f"the table users in {where} is not the accounts table (username, salt, hash):"
            " name another database"
        )


_SQLITE_REASONS = {
    sqlite3.SQLITE_NOTADB: "is not an SQLite database: name another file",
    sqlite3.SQLITE_CORRUPT: "is damaged: restore it from a backup",
    sqlite3.SQLITE_BUSY: "is locked by another program: end that first",
    sqlite3.SQLITE_READONLY: ("is read-only: let the server's user write the file and its folder"),
    sqlite3.SQLITE_CANTOPEN: (
        "cannot be opened: let the server's user read and write the file and its folder"
    ),
}


def _explain(url: sa.URL, error: Exception) -> str:
    """Return in one line what is wrong with the database and what to do."""
    where = describe(url)
    if not is_sqlite(url):
        return (
            f"{where} cannot be used: {reason(error)}; check that PostgreSQL runs there, and"
            " user, password and database in the URL"
        )
    code = getattr(getattr(error, "orig", error), "sqlite_errorcode", 0)
    # The upper bits of an extended code only tell variants of the lower byte's error.
    told = _SQLITE_REASONS.get(code & 0xFF)
    if told is None:
        told = f"cannot be used: {reason(error)}; check the file and its folder"
    return f"{where} {told}"


def is_sqlite(url: sa.URL) -> bool:
    """Tell whether `url` is of SQLite, and not of PostgreSQL."""
    return url.get_backend_name() == "sqlite"

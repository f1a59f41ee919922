"""The accounts in the database: the few questions that are asked of them.

All of this blocks: call it from a thread, or before the reactor runs. What goes out are
frozen dataclasses; connections and rows stay with the thread that asked.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import DataError, IntegrityError

from chatserver.database import READS_ONLY, is_sqlite, logins, users
from chatserver.limits import NAMES_AT_ONCE, POSTGRESQL_THREADS, SQLITE_THREADS
from chatserver.passwords import StoredPassword
from chatserver.pgsockets import PostgreSQLSockets


class AccountsError(Exception):
    """Something asked of the accounts was not done. The base of all such errors."""


class NameTakenError(AccountsError):
    """There is an account of this name already."""


class NoSuchAccountError(AccountsError):
    """There is no account of this name."""


class Store:
    """The accounts in the database behind `engine`, which `prepare` has made ready.

    Each method is one transaction, on the disk when it returns. It raises SQLAlchemyError when
    the database fails, and OSError when its file is not the one any more that it was.

    `threads` is how many threads may use it at once.
    """

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine
        self._file = str(engine.url.database) if is_sqlite(engine.url) else None
        self._identity = self._identify_file()
        self.threads = SQLITE_THREADS if is_sqlite(engine.url) else POSTGRESQL_THREADS
        self._sockets = None if is_sqlite(engine.url) else PostgreSQLSockets(engine)

    def find(self, name: str) -> StoredPassword | None:
        """Return what is stored for `name`, or None when there is no such account."""
        query = sa.select(users.c.salt, users.c.hash).where(users.c.username == name)
        try:
            with self._begin(self._engine.execution_options(**{READS_ONLY: True})) as connection:
                row = connection.execute(query).one_or_none()
        except DataError:
            return None  # PostgreSQL cannot hold this name: there is a NUL in it.
        return None if row is None else StoredPassword(salt=row.salt, hash=row.hash)

    def add(self, name: str, stored: StoredPassword) -> None:
        """Create the account `name`.

        :raises NameTakenError: there is one already.
        """
        row = users.insert().values(username=name, salt=stored.salt, hash=stored.hash)
        try:
            with self._begin(self._engine) as connection:
                connection.execute(row)
        except IntegrityError:
            # From None, because PostgreSQL's text holds the row.
            raise NameTakenError(f"there is an account {name!r} already") from None

    def replace(self, name: str, old: StoredPassword, new: StoredPassword) -> None:
        """Store `new` for `name`, unless something else than `old` is stored there by now."""
        change = (
            users.update()
            .where(
                users.c.username == name,
                users.c.salt == old.salt,
                users.c.hash == old.hash,
            )
            .values(salt=new.salt, hash=new.hash)
        )
        with self._begin(self._engine) as connection:
            connection.execute(change)

    def change(self, name: str, stored: StoredPassword) -> None:
        """Store `stored` for `name`, whatever is stored there.

        :raises NoSuchAccountError: there is no such account.
        """
        values = {"salt": stored.salt, "hash": stored.hash}
        self._write_one(name, users.update().where(users.c.username == name).values(values))

    def remove(self, name: str) -> None:
        """Remove the account `name`.

        :raises NoSuchAccountError: there is no such account.
        """
        self._write_one(name, users.delete().where(users.c.username == name))

    def number_logins(self, count: int) -> list[int]:
        """Return `count` numbers, each greater than all before. See `prepare_numbers`."""
        query = sa.select(logins.next_value()).select_from(sa.func.generate_series(1, count))
        with self._begin(self._engine) as connection:
            return sorted(connection.execute(query).scalars())

    def skip_login_numbers(self, greatest: int) -> None:
        """Let the next numbers be greater than `greatest`, if they would not be."""
        name = sa.literal(logins.name)
        last = sa.select(sa.func.greatest(sa.column("last_value"), greatest)).select_from(
            sa.table(str(logins.name))
        )
        with self._begin(self._engine) as connection:
            connection.execute(sa.select(sa.func.setval(name, last.scalar_subquery())))

    def names(self) -> Iterator[str]:
        """Yield the names of all accounts, in the order of the database.

        A byte of an old name that is not UTF-8 is decoded with surrogateescape. Each
        `NAMES_AT_ONCE` of them are a transaction of their own: a reader that takes its time
        holds nobody up, and what is added or removed meanwhile may or may not be among them.
        """
        # SQLite takes the C++ server's names as they are; Python's would not decode each.
        as_bytes = self._file is not None
        column = sa.cast(users.c.username, sa.LargeBinary) if as_bytes else users.c.username
        query = sa.select(column).order_by(users.c.username).limit(NAMES_AT_ONCE)
        reading = self._engine.execution_options(**{READS_ONLY: True})
        following = query
        while True:
            with self._begin(reading) as connection:
                found: list[Any] = list(connection.execute(following).scalars())
            for name in found:
                yield name.decode("utf-8", "surrogateescape") if as_bytes else name
            if len(found) < NAMES_AT_ONCE:
                return
            last = sa.cast(sa.literal(found[-1]), sa.Text) if as_bytes else found[-1]
            following = query.where(users.c.username > last)

    def _write_one(self, name: str, statement: sa.Update | sa.Delete) -> None:
        """Run `statement`, which is about the row of `name`."""
        try:
            with self._begin(self._engine) as connection:
                found = connection.execute(statement).rowcount
        except DataError:
            found = 0  # PostgreSQL cannot hold this name: there is a NUL in it.
        if not found:
            raise NoSuchAccountError(f"there is no account {name!r}")

    def close(self) -> None:
        """Close all connections. One is opened again when the store is used again."""
        self._engine.dispose()

    def break_off(self, thread: int) -> None:
        """Break the connection to PostgreSQL that `thread` uses: if it waits it fails at once.

        This does not block, and any thread may call it. (SQLite's own time-out needs no help.)
        """
        if self._sockets is not None:
            self._sockets.break_off(thread)

    def _begin(self, engine: sa.Engine) -> AbstractContextManager[sa.Connection]:
        """Begin a transaction, in the same file as ever."""
        self._check_file()
        return engine.begin()

    def _identify_file(self) -> tuple[int, int] | None:
        if self._file is None:
            return None
        status = os.stat(self._file)
        return status.st_dev, status.st_ino

    def _check_file(self) -> None:
        """Raise OSError if the file was removed or replaced: what goes into it would be lost."""
        try:
            is_same = self._identify_file() == self._identity
        except FileNotFoundError:
            is_same = False
        if not is_same:
            raise OSError(f"{self._file} was removed or replaced: restart the server")

"""Tests for `chatserver.database`, on SQLite files and, where there is one, on PostgreSQL."""

from __future__ import annotations

import os
import shutil
import sqlite3
import stat
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from unittest import mock

import sqlalchemy as sa
from sqlalchemy.exc import OperationalError
from twisted.python.runtime import platform
from twisted.trial.unittest import TestCase

from chatserver import database, store
from chatserver.database import (
    DatabaseUnusableError,
    describe,
    make_engine,
    parse_url,
    prepare,
    prepare_numbers,
    reason,
    rehearse,
)
from chatserver.limits import POSTGRESQL_STATEMENT_TIMEOUT
from chatserver.passwords import StoredPassword
from chatserver.store import NameTakenError, NoSuchAccountError, Store
from tests.databases import REFERENCE, REFERENCE_PASSWORDS, execute, postgresql_url, sqlite_url

OLD = StoredPassword("00" * 16, "11" * 32)
NEW = StoredPassword("", "$argon2id$new")
OTHER = StoredPassword("", "$argon2id$other")


class ParseURLTests(TestCase):
    """`parse_url` and `describe`."""

    def assert_refused(self, text: str, message: str) -> None:
        """`text` is refused with `message`, behind the option that it is from."""
        error = self.assertRaises(DatabaseUnusableError, parse_url, text, "/srv/chat")
        self.assertEqual(str(error), f"--database: {message}")

    def test_sqlite(self) -> None:
        """A relative path starts from the folder given, an absolute one is kept."""
        for text, path in {
            "sqlite:///users.db": os.path.join("/srv/chat", "users.db"),
            "sqlite+pysqlite:///data/users.db": os.path.join("/srv/chat", "data/users.db"),
            "sqlite:////var/lib/users.db": "/var/lib/users.db",
        }.items():
            url = parse_url(text, "/srv/chat")
            self.assertEqual((url.drivername, url.database), ("sqlite", path))
            self.assertEqual(describe(url), path)

    def test_in_memory(self) -> None:
        """A database in memory would forget the accounts, and is refused."""
        message = "accounts in memory would be gone at the next start: write sqlite:///users.db"
        for text in ["sqlite://", "sqlite:///", "sqlite:///:memory:", "sqlite:///?mode=memory"]:
            self.assert_refused(text, message)

    def test_sqlite_options(self) -> None:
        """SQLite's URIs and options, which could undo what the server sets, are refused."""
        for text in ["sqlite:///file:users.db?uri=true", "sqlite:///users.db?timeout=9"]:
            self.assert_refused(
                text,
                "an SQLite URL takes a plain path, no file: and no options:"
                " write sqlite:///users.db",
            )

    def test_two_slashes(self) -> None:
        """A file name in the place of a host is explained."""
        self.assert_refused(
            "sqlite://users.db",
            "an SQLite URL names no host: write three slashes before a path, sqlite:///users.db",
        )

    def test_unreadable(self) -> None:
        """What is no URL is refused, and not shown: there may be a password in it."""
        for text in ["", "users.db", "postgresql://me:secret@host:port/chat"]:
            self.assert_refused(
                text,
                "the database URL cannot be read: write sqlite:///users.db"
                " or postgresql://user:password@host/database",
            )

    def test_other_databases(self) -> None:
        """Other databases and other drivers are refused."""
        for kind in ["mysql", "postgresql+psycopg2", "sqlite+aiosqlite", "postgres"]:
            self.assert_refused(
                f"{kind}://me:secret@host/chat",
                f"databases of the kind {kind} are not supported:"
                " write sqlite:/// or postgresql://",
            )

    def test_postgresql(self) -> None:
        """PostgreSQL is spoken to with psycopg 3, and its password is never shown."""
        present = mock.patch.dict(sys.modules, {"psycopg": mock.Mock()})
        present.start()
        self.addCleanup(present.stop)
        for text in [
            "postgresql://me:secret@host/chat",
            "postgresql+psycopg://me:secret@host/chat",
        ]:
            url = parse_url(text + "?password=secret&connect_timeout=9", "/srv/chat")
            self.assertEqual(url.drivername, "postgresql+psycopg")
            self.assertEqual(url.password, "secret")
            self.assertEqual(describe(url), "postgresql+psycopg://me:***@host/chat")

    def test_at_sign_in_password(self) -> None:
        """A password with an @ of its own, whose end would pass for the host, is refused."""
        self.assert_refused(
            "postgresql://me:sec@ret@host/chat",
            "in the database URL write an @ of the password as %40",
        )

    def test_without_psycopg(self) -> None:
        """Where psycopg is not installed, the message says how to install it."""
        with mock.patch.dict(sys.modules, {"psycopg": None}):
            self.assert_refused(
                "postgresql://host/chat",
                "PostgreSQL needs psycopg: pip install 'asyncchat[postgresql]'",
            )


class StoreTests:
    """What holds for a store on either database. `make_url` names an empty one."""

    make_url: Callable[[TestCase], sa.URL]

    def setUp(self) -> None:
        """Open a store on an empty database."""
        self.url = type(self).make_url(self)
        prepare(self.url)
        self.engine = make_engine(self.url)
        self.store = Store(self.engine)
        self.addCleanup(self.store.close)

    def assert_prepare_refuses(self, message: str) -> None:
        """`prepare` refuses the database with `message`."""
        error = self.assertRaises(DatabaseUnusableError, prepare, self.url)
        self.assertEqual(str(error), message)

    def test_find(self) -> None:
        """What was added is found by exactly its name; else nothing is."""
        for name in ["alice", "dörte", "Max Mustermann", "ж" * 127]:
            self.assertIsNone(self.store.find(name))
            self.store.add(name, OLD)
            self.assertEqual(self.store.find(name), OLD)
        for name in ["Alice", "alice ", "do\u0308rte", "a%", "' OR 1=1 --"]:
            self.assertIsNone(self.store.find(name))

    def test_find_what_cannot_be_stored(self) -> None:
        """A name with a NUL, which PostgreSQL cannot hold, is not found, and the store goes on."""
        self.assertIsNone(self.store.find("al\0ice"))
        self.store.add("alice", OLD)
        self.assertEqual(self.store.find("alice"), OLD)

    def test_name_taken(self) -> None:
        """A name that is taken can't be added again, and its row stays as it was."""
        self.store.add("alice", OLD)
        error = self.assertRaises(NameTakenError, self.store.add, "alice", NEW)
        self.assertNotIn("argon2", str(error))
        self.assertEqual(self.store.find("alice"), OLD)

    def test_replace(self) -> None:
        """A row is replaced, and only the one that is named."""
        self.store.add("alice", OLD)
        self.store.add("bob", OLD)
        self.store.replace("alice", OLD, NEW)
        self.assertEqual(self.store.find("alice"), NEW)
        self.assertEqual(self.store.find("bob"), OLD)

    def test_replace_what_has_changed(self) -> None:
        """A row that holds something else by now is left alone."""
        self.store.add("alice", OLD)
        self.store.replace("alice", OLD, NEW)
        self.store.replace("alice", OLD, OTHER)
        self.store.replace("alice", StoredPassword("x", NEW.hash), OTHER)
        self.store.replace("alice", StoredPassword(NEW.salt, "x"), OTHER)
        self.assertEqual(self.store.find("alice"), NEW)

    def test_change(self) -> None:
        """A password is changed, whatever it was, and only the one that is named."""
        for name in ("Max Mustermann", "bob"):
            self.store.add(name, OLD)
        self.store.change("Max Mustermann", NEW)
        self.store.change("Max Mustermann", OTHER)
        self.assertEqual(self.store.find("Max Mustermann"), OTHER)
        self.assertEqual(self.store.find("bob"), OLD)

    def test_remove(self) -> None:
        """An account is removed, and only the one that is named. Its name is free again."""
        for name in ("alice", "bob"):
            self.store.add(name, OLD)
        self.store.remove("alice")
        self.assertIsNone(self.store.find("alice"))
        self.assertEqual(self.store.find("bob"), OLD)
        self.store.add("alice", NEW)

    def test_no_such_account(self) -> None:
        """What is not there can be neither changed nor removed."""
        self.store.add("alice", OLD)
        for name in ("Alice", "alice ", "al\0ice"):
            self.assertRaises(NoSuchAccountError, self.store.change, name, NEW)
            self.assertRaises(NoSuchAccountError, self.store.remove, name)
        self.assertEqual(list(self.store.names()), ["alice"])

    def test_names(self) -> None:
        """All names come, each once and in order, however many are read at once."""
        names = [f"user{number}" for number in range(10)]
        for name in reversed(names):
            self.store.add(name, OLD)
        for at_once in (1, 3, 5, 10, 11):
            self.patch(store, "NAMES_AT_ONCE", at_once)
            self.assertEqual(list(self.store.names()), names)

    def test_names_meanwhile(self) -> None:
        """Who reads names slowly keeps nobody from adding and removing."""
        self.patch(store, "NAMES_AT_ONCE", 2)
        for name in ("a", "b", "c", "d"):
            self.store.add(name, OLD)
        names = self.store.names()
        self.assertEqual([next(names), next(names)], ["a", "b"])
        self.store.remove("b")
        self.store.remove("c")
        self.store.add("e", OLD)
        self.assertEqual(list(names), ["d", "e"])

    def test_rehearse(self) -> None:
        """To try a database that is in use tells its version, and changes nothing in it."""
        self.store.add("alice", OLD)
        self.assertEqual(rehearse(self.url), 1)
        self.patch(database, "MIGRATIONS", (*database.MIGRATIONS, lambda connection: None))
        self.assertEqual(rehearse(self.url), 1)
        self.assertEqual(execute(self.url, "SELECT version FROM asyncchat_schema"), [(1,)])
        execute(self.url, "DROP TABLE asyncchat_schema")
        self.assertEqual(rehearse(self.url), 0)
        execute(self.url, "DROP TABLE users")
        self.assertIsNone(rehearse(self.url))
        self.engine.dispose()
        self.assertEqual(sa.inspect(self.engine).get_table_names(), [])

    def test_rehearse_refuses(self) -> None:
        """To try a database tells what `prepare` would."""
        execute(self.url, "UPDATE asyncchat_schema SET version = 2")
        error = self.assertRaises(DatabaseUnusableError, rehearse, self.url)
        self.assert_prepare_refuses(str(error))

    def test_many_threads(self) -> None:
        """As many threads as the store allows add the same names: each is added once."""

        def add(number: int) -> bool:
            try:
                self.store.add(f"user{number % 20}", OLD)
            except NameTakenError:
                return False
            return True

        with ThreadPoolExecutor(self.store.threads) as pool:
            self.assertEqual(sum(pool.map(add, range(80))), 20)

    def test_close(self) -> None:
        """A store that was closed connects again when it is used again."""
        self.store.add("alice", OLD)
        self.store.close()
        self.assertEqual(self.store.find("alice"), OLD)

    def test_prepare_again(self) -> None:
        """Preparing a database that is in use changes nothing in it."""
        self.store.add("alice", OLD)
        prepare(self.url)
        self.assertEqual(self.store.find("alice"), OLD)
        self.assertEqual(execute(self.url, "SELECT version FROM asyncchat_schema"), [(1,)])

    def test_version_zero(self) -> None:
        """A table of the reference server's gets a version, and keeps its rows."""
        self.store.add("alice", OLD)
        execute(self.url, "DROP TABLE asyncchat_schema")
        prepare(self.url)
        self.assertEqual(self.store.find("alice"), OLD)
        self.assertEqual(execute(self.url, "SELECT version FROM asyncchat_schema"), [(1,)])

    def test_next_version(self) -> None:
        """A migration that is added to the end runs once, on what is there."""
        runs = []

        def next_version(connection: sa.Connection) -> None:
            runs.append(connection.execute(sa.text("SELECT username FROM users")).all())

        self.store.add("alice", OLD)
        self.patch(database, "MIGRATIONS", (*database.MIGRATIONS, next_version))
        prepare(self.url)
        prepare(self.url)
        self.assertEqual(runs, [[("alice",)]])
        self.assertEqual(execute(self.url, "SELECT version FROM asyncchat_schema"), [(2,)])

    def test_failing_migration(self) -> None:
        """A migration that fails leaves the database as it was."""

        def fails(connection: sa.Connection) -> None:
            connection.execute(sa.text("DROP TABLE users"))
            connection.execute(sa.text("SELECT * FROM absent"))

        self.store.add("alice", OLD)
        self.patch(database, "MIGRATIONS", (*database.MIGRATIONS, fails))
        error = self.assertRaises(DatabaseUnusableError, prepare, self.url)
        self.assertEqual(len(str(error).splitlines()), 1)
        self.assertEqual(self.store.find("alice"), OLD)
        self.assertEqual(execute(self.url, "SELECT version FROM asyncchat_schema"), [(1,)])

    def test_newer_schema(self) -> None:
        """A schema of a later version is refused."""
        execute(self.url, "UPDATE asyncchat_schema SET version = 2")
        self.assert_prepare_refuses(
            f"the schema of {describe(self.url)} has the version 2, this server knows 1:"
            " install a newer asyncchat"
        )

    def test_damaged_version(self) -> None:
        """A version table without its row is refused."""
        execute(self.url, "DELETE FROM asyncchat_schema")
        self.assert_prepare_refuses(
            f"the table asyncchat_schema in {describe(self.url)} has 0 rows in place of one:"
            " restore the database from a backup"
        )

    def test_other_users_table(self) -> None:
        """A table users of another shape is somebody else's: refused, and not touched."""
        for columns in [
            "username TEXT PRIMARY KEY, password TEXT",
            "username TEXT PRIMARY KEY, salt TEXT NOT NULL, hash TEXT NOT NULL, email TEXT",
            "username INTEGER PRIMARY KEY, salt TEXT NOT NULL, hash TEXT NOT NULL",
            "username TEXT NOT NULL, salt TEXT NOT NULL, hash TEXT NOT NULL",
        ]:
            execute(self.url, "DROP TABLE users", f"CREATE TABLE users ({columns})")
            execute(self.url, "DROP TABLE IF EXISTS asyncchat_schema")
            self.assert_prepare_refuses(
                f"the table users in {describe(self.url)} is not the accounts table"
                " (username, salt, hash): name another database"
            )
            self.assertNotIn("asyncchat_schema", sa.inspect(self.engine).get_table_names())
            self.engine.dispose()

    def test_failure_is_one_line(self) -> None:
        """A failure is told in one line, without the statement and what it was about."""
        execute(self.url, "DROP TABLE users")
        error = self.assertRaises(sa.exc.SQLAlchemyError, self.store.add, "alice", OLD)
        self.assertNotIn("alice", str(error))
        self.assertIn("users", reason(error))
        self.assertEqual(len(reason(error).splitlines()), 1)
        self.assertNotIn("INSERT", reason(error))


class SQLiteStoreTests(StoreTests, TestCase):
    """The store on an SQLite file."""

    make_url = sqlite_url

    def test_settings(self) -> None:
        """The write-ahead log is on, and a commit waits for the disk."""
        with self.engine.connect() as connection:
            for setting, value in {
                "journal_mode": "wal",
                "synchronous": 2,
                "busy_timeout": 2000,
            }.items():
                result = connection.exec_driver_sql(f"PRAGMA {setting}").scalar()
                self.assertEqual(result, value, setting)

    def test_begin_immediate(self) -> None:
        """A transaction has the lock from its start, before it has written."""
        self.patch(database, "SQLITE_BUSY_TIMEOUT", 0.0)
        with self.engine.begin():
            self.assertRaises(OperationalError, Store(make_engine(self.url)).add, "alice", OLD)

    def test_file_replaced(self) -> None:
        """When the file is removed or replaced, nothing is told to be stored in it any more."""
        self.store.add("alice", OLD)
        os.rename(str(self.url.database), self.mktemp())
        prepare(self.url)
        for use in (
            lambda: self.store.add("bob", OLD),
            lambda: self.store.find("alice"),
            lambda: self.store.replace("alice", OLD, NEW),
        ):
            error = self.assertRaises(OSError, use)
            self.assertIn("removed or replaced: restart the server", str(error))

    def test_names_of_the_reference_server(self) -> None:
        """A name that is not UTF-8, which only the reference server registers, is listed too."""
        self.patch(store, "NAMES_AT_ONCE", 1)
        self.store.add("b", OLD)
        execute(
            self.url,
            "INSERT INTO users VALUES (CAST(x'61ff' AS TEXT), '', '')",
            "INSERT INTO users VALUES (CAST(x'ff' AS TEXT), '', '')",
        )
        self.assertEqual(list(self.store.names()), ["a\udcff", "b", "\udcff"])

    def test_find_beside_a_writer(self) -> None:
        """An account is found while another program holds the lock for writing."""
        self.patch(database, "SQLITE_BUSY_TIMEOUT", 0.0)
        self.store.add("alice", OLD)
        with self.engine.begin():
            self.assertEqual(Store(make_engine(self.url)).find("alice"), OLD)

    def test_schema(self) -> None:
        """The accounts table is the reference server's, so that it could open the file too."""
        self.assertEqual(
            execute(self.url, "SELECT sql FROM sqlite_master WHERE name = 'users'"),
            [
                (
                    "CREATE TABLE users"
                    " (username TEXT PRIMARY KEY, salt TEXT NOT NULL, hash TEXT NOT NULL)",
                )
            ],
        )

    def test_modes(self) -> None:
        """Nobody but the server's user can read the database, its log and its index."""
        if platform.isWindows():
            self.skipTest("Windows has no modes")
        self.store.add("alice", OLD)
        for suffix in ["", "-wal", "-shm"]:
            mode = os.stat(str(self.url.database) + suffix).st_mode
            self.assertEqual(stat.S_IMODE(mode), 0o600, suffix)

    def test_locked(self) -> None:
        """A file that another program writes in all the time can't be used."""
        self.patch(database, "SQLITE_BUSY_TIMEOUT", 0.0)
        with closing(sqlite3.connect(str(self.url.database), isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            self.assert_prepare_refuses(
                f"{self.url.database} is locked by another program: end that first"
            )

    def test_read_only(self) -> None:
        """A file that can't be written can't be used."""
        self.store.close()
        # The write version of the file format: one above SQLite's means read-only. Modes would
        # not keep root from writing.
        with open(str(self.url.database), "r+b") as file:
            file.seek(18)
            file.write(b"\x03")
        self.assert_prepare_refuses(
            f"{self.url.database} is read-only: let the server's user write the file and its folder"
        )


class PostgreSQLStoreTests(StoreTests, TestCase):
    """The store in PostgreSQL."""

    make_url = postgresql_url

    def test_login_numbers(self) -> None:
        """Logins are numbered in a row, which can be set ahead, and never goes back."""
        prepare_numbers(self.url)
        first = self.store.number_logins(3)
        self.assertEqual(first, sorted(first))
        for greatest, least in ((first[-1] + 1000, first[-1] + 1001), (1, first[-1] + 1002)):
            self.store.skip_login_numbers(greatest)
            self.assertEqual(self.store.number_logins(1), [least])

    def test_settings(self) -> None:
        """No question is waited for without end."""
        with self.engine.connect() as connection:
            timeout = connection.exec_driver_sql("SHOW statement_timeout").scalar()
        self.assertEqual(timeout, f"{POSTGRESQL_STATEMENT_TIMEOUT}s")

    def test_read_only(self) -> None:
        """A database that can't be written, such as a standby, can't be used."""
        options = f"{self.url.query['options']} -cdefault_transaction_read_only=on"
        self.url = self.url.update_query_dict({"options": options})
        self.assert_prepare_refuses(
            f"{describe(self.url)} is read-only: name the primary server, or allow it to be written"
        )

    def test_unreachable(self) -> None:
        """A server that is down, a database that does not exist and a user that may not log in
        are told in one line that has no password in it.
        """
        url = self.url.set(password="secret")
        nobody, database = "asyncchat_test_nobody", "asyncchat_test_nothing"
        for self.url, told in [
            (url.set(port=1), "refused"),
            (url.set(database=database), database),
            (url.set(username=nobody), nobody),
            (url.update_query_dict({"password": "secret", "nonsense": "1"}), "nonsense"),
        ]:
            error = self.assertRaises(DatabaseUnusableError, prepare, self.url)
            self.assertEqual(len(str(error).splitlines()), 1)
            self.assertTrue(str(error).startswith(f"{describe(self.url)} cannot be used: "))
            self.assertIn(told, str(error))
            self.assertNotIn("secret", str(error))

    def test_prepare_at_once(self) -> None:
        """Servers that start at the same moment on a new database all can use it."""
        execute(self.url, "DROP TABLE users", "DROP TABLE asyncchat_schema")
        with ThreadPoolExecutor(4) as pool:
            self.assertEqual(list(pool.map(prepare, [self.url] * 4)), [None] * 4)
        self.assertEqual(execute(self.url, "SELECT version FROM asyncchat_schema"), [(1,)])
        self.assertIsNone(self.store.find("alice"))

    def test_lost_connection(self) -> None:
        """A connection that was cut while nothing was asked is replaced unnoticed."""
        self.store.add("alice", OLD)
        with self.engine.connect() as connection:
            (pid,) = connection.exec_driver_sql("SELECT pg_backend_pid()").one()
        execute(self.url, f"SELECT pg_terminate_backend({pid}, 1000)")
        self.assertEqual(self.store.find("alice"), OLD)

    def test_time_outs(self) -> None:
        """A connection has time-outs, except where the URL says something else."""
        for query, expected in [
            ({}, {"connect_timeout": "5", "tcp_user_timeout": "10000"}),
            ({"connect_timeout": "7"}, {"connect_timeout": "7", "tcp_user_timeout": "10000"}),
        ]:
            engine = make_engine(self.url.update_query_dict(query))
            self.addCleanup(engine.dispose)
            with engine.connect() as connection:
                driver = connection.connection.driver_connection
                assert driver is not None
                parameters = driver.info.get_parameters()
            for name, value in expected.items():
                self.assertEqual(parameters[name], value)

    def test_other_tables(self) -> None:
        """Tables of others may stand beside ours."""
        execute(self.url, "DROP TABLE users", "DROP TABLE asyncchat_schema")
        execute(self.url, "CREATE TABLE other (id INTEGER)")
        prepare(self.url)
        self.assertIsNone(self.store.find("alice"))


class PrepareFileTests(TestCase):
    """What `prepare` does with the file of an SQLite database."""

    def setUp(self) -> None:
        """Name a file that is not there."""
        self.url = sqlite_url(self)
        self.path = str(self.url.database)

    def assert_prepare_refuses(self, message: str) -> None:
        """`prepare` refuses the database with `message`."""
        error = self.assertRaises(DatabaseUnusableError, prepare, self.url)
        self.assertEqual(str(error), message)

    def test_nothing_left_open(self) -> None:
        """The file is closed afterwards: its log and its index are gone, nobody else's is there."""
        prepare(self.url)
        self.assertEqual(os.listdir(os.path.dirname(self.path)), ["users.db"])
        if os.path.isdir("/proc/self/fd"):
            links = []
            for number in os.listdir("/proc/self/fd"):
                if os.path.lexists(f"/proc/self/fd/{number}"):
                    links.append(os.readlink(f"/proc/self/fd/{number}"))
            self.assertNotIn(self.path, links)

    def test_empty_file(self) -> None:
        """An empty file is filled."""
        open(self.path, "wb").close()
        prepare(self.url)
        self.assertIsNone(Store(make_engine(self.url)).find("alice"))

    def test_reference_file(self) -> None:
        """The reference server's file opens in place, all rows as they were, for us alone."""
        shutil.copyfile(REFERENCE, self.path)
        os.chmod(self.path, 0o644)
        before = execute(self.url, "SELECT * FROM users ORDER BY username")
        prepare(self.url)
        self.assertEqual(execute(self.url, "SELECT * FROM users ORDER BY username"), before)
        self.assertEqual({row[0] for row in before}, set(REFERENCE_PASSWORDS))
        if not platform.isWindows():
            self.assertEqual(stat.S_IMODE(os.stat(self.path).st_mode), 0o600)

    def test_not_a_database(self) -> None:
        """A file that is something else is refused, and not touched."""
        content = b"The accounts of the company, 2025\n" * 100
        with open(self.path, "wb") as file:
            file.write(content)
        os.chmod(self.path, 0o644)
        self.assert_prepare_refuses(f"{self.path} is not an SQLite database: name another file")
        with open(self.path, "rb") as file:
            self.assertEqual(file.read(), content)

    def test_database_of_another_program(self) -> None:
        """A database with other tables and none of ours is refused, and not touched."""
        execute(self.url, "CREATE TABLE songs (title TEXT)")
        os.chmod(self.path, 0o644)
        with open(self.path, "rb") as file:
            content = file.read()
        self.assert_prepare_refuses(
            f"{self.path} is the database of another program (it has a table songs and no table"
            " users): name another file"
        )
        with open(self.path, "rb") as file:
            self.assertEqual(file.read(), content)
        if not platform.isWindows():
            self.assertEqual(stat.S_IMODE(os.stat(self.path).st_mode), 0o644)

    def test_rehearse(self) -> None:
        """To try a file changes nothing: not one that is not there, not the reference server's,
        not one that is somebody else's.
        """
        folder = os.path.dirname(self.path)
        self.assertIsNone(rehearse(self.url))
        self.assertEqual(os.listdir(folder), [])
        nowhere = self.url.set(database=os.path.join(folder, "nowhere", "users.db"))
        self.assertRaises(DatabaseUnusableError, rehearse, nowhere)

        open(self.path, "wb").close()
        self.assertIsNone(rehearse(self.url))
        self.assertEqual(os.path.getsize(self.path), 0)

        shutil.copyfile(REFERENCE, self.path)
        os.chmod(self.path, 0o644)
        before = os.stat(self.path)
        self.assertEqual(rehearse(self.url), 0)
        after = os.stat(self.path)
        self.assertEqual(
            (after.st_mtime_ns, after.st_mode, os.listdir(folder)),
            (before.st_mtime_ns, before.st_mode, ["users.db"]),
        )
        with open(self.path, "rb") as file, open(REFERENCE, "rb") as reference:
            self.assertEqual(file.read(), reference.read())

        os.remove(self.path)
        execute(self.url, "CREATE TABLE songs (title TEXT)")
        error = self.assertRaises(DatabaseUnusableError, rehearse, self.url)
        self.assertIn("the database of another program", str(error))

    def test_missing_folder(self) -> None:
        """A folder that is not there is not created."""
        folder = os.path.join(os.path.dirname(self.path), "nowhere")
        self.url = self.url.set(database=os.path.join(folder, "users.db"))
        self.assert_prepare_refuses(f"there is no folder {folder} for the database: create it")
        self.assertFalse(os.path.exists(folder))

    def test_folder_in_place_of_file(self) -> None:
        """A folder is no database."""
        os.mkdir(self.path)
        self.assert_prepare_refuses(f"{self.path} is a folder: name a file for the database")

    def test_device_in_place_of_file(self) -> None:
        """A pipe or a device is no database."""
        os.symlink(os.devnull, self.path)
        for attempt in (prepare, database.rehearse):
            with self.assertRaisesRegex(DatabaseUnusableError, "is a pipe or a device"):
                attempt(self.url)

    def test_folder_not_writable(self) -> None:
        """A file that can't be created is told with the system's reason."""
        folder = os.path.dirname(self.path)
        if os.name != "posix" or os.geteuid() == 0:
            # Nothing keeps root, or Windows, from creating files in a folder.
            def refuse(*args: object) -> int:
                raise PermissionError(13, "Permission denied")

            self.patch(os, "open", refuse)
        else:
            os.chmod(folder, 0o500)
            self.addCleanup(os.chmod, folder, 0o700)
        self.assert_prepare_refuses(
            f"{self.path} cannot be created: Permission denied; let the server's user write there"
        )

    def test_new_file_is_not_left_behind(self) -> None:
        """When a new file can't be made a database, it does not stay as an empty one."""

        def fails(connection: sa.Connection) -> None:
            connection.execute(sa.text("SELECT * FROM absent"))

        self.patch(database, "MIGRATIONS", (fails,))
        self.assert_prepare_refuses(
            f"{self.path} cannot be used: no such table: absent; check the file and its folder"
        )
        self.assertEqual(os.listdir(os.path.dirname(self.path)), [])

"""Tests for `chatserver.accounts`, on SQLite files and, where there is one, on PostgreSQL."""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
import threading
from collections.abc import Callable
from typing import Any

import sqlalchemy as sa
from argon2.exceptions import HashingError
from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred, DeferredList
from twisted.internet.threads import deferToThread
from twisted.logger import LogEvent, LogLevel, formatEvent, globalLogPublisher
from twisted.trial.unittest import SkipTest, TestCase

from chatserver.accounts import (
    Accounts,
    AccountsError,
    HashingFailedError,
    NameTakenError,
    NotAuthenticatedError,
    StorageFailedError,
    TooBusyError,
)
from chatserver.credentials import Credentials
from chatserver.database import make_engine, prepare, prepare_numbers
from chatserver.limits import HASHING_NICENESS
from chatserver.passwords import Passwords, StoredPassword, parse_cost
from chatserver.store import Store
from tests.databases import REFERENCE, REFERENCE_PASSWORDS, execute, postgresql_url, sqlite_url
from tests.logs import keep_lines

CHEAP = parse_cost("m=8,t=1,p=1")
ALICE = Credentials("alice", b"correct horse")
BOB = Credentials("bob", b"pass:with:colons")


class CountingStore(Store):
    """A store that remembers what it was asked for."""

    def __init__(self, engine: sa.Engine) -> None:
        super().__init__(engine)
        self.asked: list[str] = []

    def find(self, name: str) -> StoredPassword | None:
        """Remember the name and find it."""
        self.asked.append(name)
        return super().find(name)

    def add(self, name: str, stored: StoredPassword) -> None:
        """Remember the name and add it."""
        self.asked.append(name)
        super().add(name, stored)


class GatedPasswords(Passwords):
    """Passwords that are hashed and verified only while `gate` is open."""

    def __init__(self) -> None:
        super().__init__(CHEAP)
        self.gate = threading.Event()
        self.gate.set()
        self.has_begun = threading.Event()

    def hash(self, password: bytes) -> StoredPassword:
        """Wait for the gate, then hash."""
        self.has_begun.set()
        self.gate.wait()
        return super().hash(password)


def pool_threads() -> list[str]:
    """Return the names of the threads that Accounts has running."""
    names = ("PoolThread-database", "PoolThread-hashing")
    return [thread.name for thread in threading.enumerate() if thread.name.startswith(names)]


class AccountsTests:
    """What holds for accounts in either database. `make_url` names an empty one."""

    make_url: Callable[[TestCase], sa.URL]

    def setUp(self) -> None:
        """Start accounts on an empty database."""
        self.url = type(self).make_url(self)
        prepare(self.url)
        self.passwords = GatedPasswords()
        self.accounts = self.make_accounts()
        self.accounts.start()

    def make_accounts(self, **options: Any) -> Accounts:
        """Return accounts on the test's database, which stop at its end."""
        self.store = CountingStore(make_engine(self.url))
        accounts = Accounts(reactor, self.store, self.passwords, **options)
        self.addCleanup(accounts.stop)
        # Cleanups run backwards: no test may leave a thread waiting that stop() waits for.
        self.addCleanup(self.passwords.gate.set)
        return accounts

    async def assert_fails(self, answer: Deferred[None], kind: type[Exception]) -> str:
        """`answer` fails with `kind`, whose text is returned."""
        error = await self.assertFailure(answer, kind)
        self.assertEqual(type(error), kind)
        self.assertEqual(len(str(error).splitlines()), 1)
        return str(error)

    def rows(self) -> dict[object, tuple[object, ...]]:
        """Return the accounts table, read over another connection, by name."""
        return {row[0]: row[1:] for row in execute(self.url, "SELECT * FROM users")}

    def warnings(self) -> list[LogEvent]:
        """Return a list that gets the warnings of this test, and worse."""
        events: list[LogEvent] = []

        def observe(event: LogEvent) -> None:
            if event["log_level"] >= LogLevel.warn:
                events.append(event)

        globalLogPublisher.addObserver(observe)
        self.addCleanup(globalLogPublisher.removeObserver, observe)
        return events

    async def test_register(self) -> None:
        """A registration is in the database when the Deferred fires, as Argon2id."""
        await self.accounts.register(ALICE)
        (salt, encoded) = self.rows()["alice"]
        self.assertEqual(salt, "")
        self.assertTrue(str(encoded).startswith("$argon2id$v=19$m=8,t=1,p=1$"))

    async def test_log_in(self) -> None:
        """Who has registered can log in, with the right password alone."""
        await self.accounts.register(ALICE)
        await self.accounts.log_in(ALICE)
        wrong = self.accounts.log_in(Credentials("alice", b"Correct horse"))
        message = await self.assert_fails(wrong, NotAuthenticatedError)
        unknown = self.accounts.log_in(Credentials("Alice", b"correct horse"))
        self.assertEqual(await self.assert_fails(unknown, NotAuthenticatedError), message)

    async def test_log_in_with_impossible_name(self) -> None:
        """A name that a database can't hold is one that does not exist."""
        answer = self.accounts.log_in(Credentials("al\0ice", b"correct horse"))
        await self.assert_fails(answer, NotAuthenticatedError)

    async def test_name_taken(self) -> None:
        """A name can't be registered again, and its password stays."""
        await self.accounts.register(ALICE)
        again = self.accounts.register(Credentials("alice", b"another password"))
        await self.assert_fails(again, NameTakenError)
        await self.accounts.log_in(ALICE)

    async def test_same_moment(self) -> None:
        """Of registrations of one name at the same moment exactly one wins."""
        candidates = [Credentials("alice", b"password %d" % number) for number in range(8)]
        answers = [self.accounts.register(candidate) for candidate in candidates]
        results = await DeferredList(answers, consumeErrors=True)
        winners = [candidates[number] for number, (won, _) in enumerate(results) if won]
        self.assertEqual(len(winners), 1)
        self.assertEqual(
            [type(failure.value) for won, failure in results if not won], [NameTakenError] * 7
        )
        await self.accounts.log_in(winners[0])

    async def test_legacy_row(self) -> None:
        """A row of the reference server's is rewritten at the first login that succeeds, and
        not at one that fails.
        """
        salt = "00" * 16
        digest = hashlib.sha256(salt.encode() + ALICE.password).hexdigest()
        execute(self.url, f"INSERT INTO users VALUES ('alice', '{salt}', '{digest}')")
        wrong = self.accounts.log_in(Credentials("alice", b"wrong"))
        await self.assert_fails(wrong, NotAuthenticatedError)
        self.assertEqual(self.rows(), {"alice": (salt, digest)})
        await self.accounts.log_in(ALICE)
        self.assertEqual(self.rows()["alice"][0], "")
        await self.accounts.log_in(ALICE)

    async def test_other_cost(self) -> None:
        """After a change of the cost, a row is rewritten at its next login, and then no more."""
        old = Passwords(parse_cost("m=16,t=1,p=1")).hash(ALICE.password)
        self.store.add("alice", old)
        await self.accounts.log_in(ALICE)
        row = self.rows()["alice"]
        self.assertIn("$m=8,t=1,p=1$", str(row[1]))
        await self.accounts.log_in(ALICE)
        self.assertEqual(self.rows()["alice"], row)

    async def test_failing_rewrite(self) -> None:
        """When only the rewriting fails, the login succeeds, and a warning tells of it without
        the password or its hash.
        """
        old = Passwords(parse_cost("m=16,t=1,p=1")).hash(ALICE.password)
        self.store.add("al\nice", old)

        def fail(name: str, old: StoredPassword, new: StoredPassword) -> None:
            execute(self.url, "SELECT * FROM absent")

        self.store.replace = fail
        warnings = self.warnings()
        await self.accounts.log_in(Credentials("al\nice", ALICE.password))
        (event,) = warnings
        self.assertEqual(event["log_level"], LogLevel.warn)
        text = formatEvent(event)
        self.assertTrue(
            text.startswith("The stored password of 'al\\nice' could not be brought up to date: ")
        )
        self.assertIn("absent", text)
        self.assertEqual(len(text.splitlines()), 1)
        self.assertNotIn("argon2", repr(event))
        self.assertNotIn("correct horse", repr(event))

    async def test_failing_database(self) -> None:
        """A database that fails is told as such, in one line; when it works again, so do we."""
        await self.accounts.register(ALICE)
        execute(self.url, "ALTER TABLE users RENAME TO gone")
        for answer in [self.accounts.register(BOB), self.accounts.log_in(ALICE)]:
            message = await self.assert_fails(answer, StorageFailedError)
            self.assertIn("users", message)
            self.assertNotIn("INSERT", message)
            self.assertNotIn("SELECT", message)
        execute(self.url, "ALTER TABLE gone RENAME TO users")
        await self.accounts.log_in(ALICE)
        await self.accounts.register(BOB)

    async def test_failing_hashing(self) -> None:
        """Hashing that fails is told as such, not as a wrong password; nothing is stored."""
        await self.accounts.register(ALICE)
        for error, message in [
            (HashingError("Memory allocation error"), "Memory allocation error"),
            (MemoryError(), "out of memory"),
        ]:

            def fail(*args: object, error: Exception = error) -> StoredPassword:
                raise error

            self.passwords.hash = fail
            for answer in [
                self.accounts.register(BOB),
                self.accounts.log_in(BOB),
            ]:
                self.assertEqual(await self.assert_fails(answer, HashingFailedError), message)
        del self.passwords.hash
        self.assertEqual(list(self.rows()), ["alice"])
        await self.accounts.log_in(ALICE)

    def test_errors(self) -> None:
        """Every way to fail is an AccountsError."""
        for kind in [
            HashingFailedError,
            NameTakenError,
            NotAuthenticatedError,
            StorageFailedError,
            TooBusyError,
        ]:
            self.assertTrue(issubclass(kind, AccountsError))

    async def test_too_busy(self) -> None:
        """When as many wait as may, the next one is refused at once and costs no look at the
        database; what waits is done, and then there is room again.
        """
        await self.accounts.stop()
        accounts = self.make_accounts(hashing_threads=1, max_under_way=2)
        accounts.start()
        self.passwords.gate.clear()
        waiting = [accounts.register(ALICE), accounts.register(BOB)]
        carol = Credentials("carol", b"carol's secret")
        self.failureResultOf(accounts.register(carol), TooBusyError)
        self.failureResultOf(accounts.log_in(carol), TooBusyError)
        self.passwords.gate.set()
        for answer in waiting:
            await answer
        self.assertEqual(sorted(self.store.asked), ["alice", "bob"])
        await accounts.log_in(ALICE)
        await accounts.register(carol)

    async def test_refused_give_their_place_back(self) -> None:
        """What fails gives its place back too."""
        await self.accounts.stop()
        accounts = self.make_accounts(max_under_way=1)
        accounts.start()
        await accounts.register(ALICE)
        for _ in range(3):
            await self.assert_fails(accounts.register(ALICE), NameTakenError)
            await self.assert_fails(accounts.log_in(BOB), NotAuthenticatedError)

    async def test_cancel(self) -> None:
        """Who cancels is not told any more; the work is finished, and its place is held as long."""
        await self.accounts.stop()
        accounts = self.make_accounts(max_under_way=1)
        accounts.start()
        self.passwords.gate.clear()
        answer = accounts.register(ALICE)
        await deferToThread(self.passwords.has_begun.wait)
        answer.cancel()
        self.failureResultOf(answer, CancelledError)
        self.failureResultOf(accounts.register(BOB), TooBusyError)
        self.passwords.gate.set()
        await accounts.stop()
        self.assertEqual(list(self.rows()), ["alice"])

    async def test_stop(self) -> None:
        """Stopping refuses what is new, lets what a thread is at finish, blocks nobody, and ends
        every thread and connection; a second stop waits for the same.
        """
        await self.accounts.stop()
        self.accounts = self.make_accounts(hashing_threads=1)
        self.accounts.start()
        self.passwords.gate.clear()
        answer = self.accounts.register(ALICE)
        waiting = self.accounts.register(BOB)
        await deferToThread(self.passwords.has_begun.wait)
        stopped = [self.accounts.stop(), self.accounts.stop()]
        for refused in [self.accounts.register(BOB), self.accounts.log_in(ALICE)]:
            error = self.failureResultOf(refused, StorageFailedError)
            self.assertEqual(str(error.value), "the server is going down")
        for stop in stopped:
            self.assertNoResult(stop)
        self.passwords.gate.set()
        await answer
        await self.assertFailure(waiting, StorageFailedError)
        for stop in stopped:
            await stop
        self.assertEqual(list(self.rows()), ["alice"])
        self.assertEqual(pool_threads(), [])
        self.assertEqual(self.store._engine.pool.checkedin(), 0)
        self.successResultOf(self.accounts.stop())

    async def test_start_again(self) -> None:
        """After a stop it can be started again."""
        await self.accounts.register(ALICE)
        await self.accounts.stop()
        self.accounts.start()
        await self.accounts.log_in(ALICE)

    async def test_no_threads_before_start(self) -> None:
        """There is no thread before start, so that a fork loses none; stop is harmless then."""
        await self.accounts.stop()
        accounts = self.make_accounts()
        self.assertEqual(pool_threads(), [])
        self.failureResultOf(accounts.register(ALICE), StorageFailedError)
        self.successResultOf(accounts.stop())
        self.successResultOf(accounts.stop())
        accounts.start()
        await accounts.register(ALICE)

    async def test_priority(self) -> None:
        """On Linux the threads that hash stand back, and neither the reactor's nor another does."""
        if sys.platform != "linux":
            raise SkipTest("only on Linux a thread has a priority of its own")

        def priority() -> int:
            return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())

        found: dict[str, int] = {}
        hashed, added = self.passwords.hash, self.store.add

        def hash_and_note(password: bytes) -> StoredPassword:
            found["hashing"] = priority()
            return hashed(password)

        def add_and_note(name: str, stored: StoredPassword) -> None:
            found["database"] = priority()
            added(name, stored)

        self.passwords.hash, self.store.add = hash_and_note, add_and_note
        before = priority()
        await self.accounts.register(ALICE)
        expected = {"hashing": max(before, HASHING_NICENESS), "database": before}
        self.assertEqual(found, expected)
        self.assertEqual(priority(), before)

    async def test_threads(self) -> None:
        """Everything that blocks runs in a thread of its pool, never in the reactor's."""
        used: dict[str, str] = {}
        find, hashed = self.store.find, self.passwords.hash

        def find_and_note(name: str) -> StoredPassword | None:
            used["database"] = threading.current_thread().name
            return find(name)

        def hash_and_note(password: bytes) -> StoredPassword:
            used["hashing"] = threading.current_thread().name
            return hashed(password)

        self.store.find = find_and_note
        self.passwords.hash = hash_and_note
        await self.accounts.register(ALICE)
        await self.accounts.log_in(ALICE)
        self.assertTrue(used["database"].startswith("PoolThread-database-"))
        self.assertTrue(used["hashing"].startswith("PoolThread-hashing-"))


class SQLiteAccountsTests(AccountsTests, TestCase):
    """Accounts in an SQLite file."""

    make_url = sqlite_url

    async def test_reference_file(self) -> None:
        """Every account of the reference server's file logs in, in place and with no step by
        hand; its row is rewritten, and it logs in again.
        """
        await self.accounts.stop()
        path = str(self.url.database)
        os.remove(path)
        shutil.copyfile(REFERENCE, path)
        prepare(self.url)
        accounts = self.make_accounts()
        accounts.start()
        before = self.rows()
        self.assertEqual(set(before), set(REFERENCE_PASSWORDS))
        for name, password in REFERENCE_PASSWORDS.items():
            credentials = Credentials(name, password.encode())
            wrong = accounts.log_in(Credentials(name, password.encode() + b"!"))
            await self.assert_fails(wrong, NotAuthenticatedError)
            self.assertEqual(self.rows()[name], before[name])
            await accounts.log_in(credentials)
            salt, encoded = self.rows()[name]
            self.assertEqual(salt, "")
            self.assertTrue(str(encoded).startswith("$argon2id$"))
            await accounts.log_in(credentials)
            self.assertEqual(self.rows()[name], (salt, encoded))


class PostgreSQLAccountsTests(AccountsTests, TestCase):
    """Accounts in PostgreSQL."""

    make_url = postgresql_url

    async def test_login_numbers(self) -> None:
        """Logins are numbered above what was known, also when the database has gone back."""
        await deferToThread(prepare_numbers, self.url)
        lines = keep_lines(self)
        (first,) = await self.accounts.number_logins(1, 0)
        numbers = await self.accounts.number_logins(2, first)
        self.assertGreater(numbers[0], first)
        self.assertEqual(lines, [])
        self.assertEqual(await self.accounts.number_logins(2, 5000), [5001, 5002])
        self.assertTrue(any("had gone back" in line for line in lines))

"""A database that goes away for a while, and comes back."""

from __future__ import annotations

import contextlib
import socket
import sqlite3
import threading
import time
from functools import partial
from typing import Any

import sqlalchemy as sa
from twisted.internet import reactor
from twisted.internet.defer import DeferredList
from twisted.internet.task import deferLater
from twisted.logger import LogEvent, formatEvent, globalLogPublisher
from twisted.python.threadpool import ThreadPool
from twisted.trial.unittest import TestCase

from chatserver import database
from chatserver.accounts import Accounts, StorageFailedError
from chatserver.credentials import Credentials
from chatserver.database import make_engine, prepare
from chatserver.limits import POSTGRESQL_THREADS
from chatserver.passwords import Passwords, parse_cost
from chatserver.store import Store
from tests.databases import execute, postgresql_url, sqlite_url

_READY_FOR_QUERY = b"Z\0\0\0\x05"
"""The type and the length of PostgreSQL's message: whoever has connected is let in."""

ALICE = Credentials("alice", b"correct horse")


def others(number: int) -> list[Credentials]:
    return [Credentials(f"user {n}", b"correct horse") for n in range(number)]


class OutageCase(TestCase):
    """Accounts in a database that the test takes away."""

    timeout = 15

    def open(self, url: sa.URL, timeout: float = 5.0) -> Accounts:
        """Return accounts at `url` with alice's, and collect what they log in `told`."""
        self.engine = make_engine(url)
        passwords = Passwords(parse_cost("m=8,t=1,p=1"))
        self.store = Store(self.engine)
        accounts = Accounts(reactor, self.store, passwords, database_timeout=timeout)
        # Where the gate fails, they would keep the whole run from ending.
        daemon = partial(threading.Thread, daemon=True)
        self.patch(ThreadPool, "threadFactory", staticmethod(daemon))
        accounts.start()
        self.addCleanup(accounts.stop)
        self.told: list[str] = []

        def observe(event: LogEvent) -> None:
            text = formatEvent(event)
            if text.startswith("Accounts "):
                self.told.append(text)

        globalLogPublisher.addObserver(observe)
        self.addCleanup(globalLogPublisher.removeObserver, observe)
        return accounts

    async def assert_all_fail(self, answers: list[Any]) -> float:
        """Each fails as an outage does, and each is told. Return the seconds that it took."""
        start = time.monotonic()
        results = await DeferredList(answers, consumeErrors=True)
        self.assertEqual({won for won, _ in results}, {False})
        for _, failure in results:
            failure.trap(StorageFailedError)
            self.assertTrue(failure.value.is_told)
        return time.monotonic() - start


class SQLiteTests(OutageCase):
    """SQLite."""

    async def test_locked(self) -> None:
        """While another program holds the lock, 50 registrations fail after the time-out of one;
        logins go on. One line tells of it, one of its end, and then all works again.
        """
        self.patch(database, "SQLITE_BUSY_TIMEOUT", 0.3)
        url = sqlite_url(self)
        prepare(url)
        accounts = self.open(url)
        await accounts.register(ALICE)
        other = sqlite3.connect(str(url.database), isolation_level=None)
        self.addCleanup(other.close)
        other.execute("BEGIN IMMEDIATE")
        answers = [accounts.register(each) for each in others(50)]
        logging_in = accounts.log_in(ALICE)
        seconds = await self.assert_all_fail(answers)
        self.assertLess(seconds, 3)  # one after the other it would be 15
        await logging_in
        self.assertEqual(self.told, ["Accounts cannot be written: database is locked"])
        other.execute("COMMIT")
        await accounts.register(others(1)[0])
        self.assertRegex(self.told[1], r"^Accounts can be written again, .*; 50 were refused$")
        self.assertEqual(len(self.told), 2)

    async def test_full_disk(self) -> None:
        """On a full disk registrations fail and logins go on; with room again, all does."""
        url = sqlite_url(self)
        prepare(url)
        accounts = self.open(url)
        await accounts.register(ALICE)

        def limit(pages: int) -> None:
            with self.engine.connect() as connection:
                connection.exec_driver_sql(f"PRAGMA max_page_count = {pages}")

        limit(1)  # SQLite takes what there is.
        results = await DeferredList(
            [accounts.register(each) for each in others(100)], consumeErrors=True
        )
        self.assertTrue(any(not won for won, _ in results))
        self.assertEqual(self.told[:1], ["Accounts cannot be written: database or disk is full"])
        await accounts.log_in(ALICE)
        limit(1_000_000)
        await accounts.register(Credentials("late", b"correct horse"))
        self.assertIn("Accounts can be written again", self.told[-1])


class Relay:
    """Passes TCP on to PostgreSQL, until told to refuse or to swallow."""

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._sockets: list[socket.socket] = []
        self.flowing = threading.Event()
        self.flowing.set()
        self.refuses = False
        self.only_lets_in = False
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if self.refuses:
                client.close()
                continue
            server = socket.create_connection(self._target)
            self._sockets += [client, server]
            for ends in ((client, server), (server, client)):
                threading.Thread(target=self._pump, args=ends, daemon=True).start()

    def _pump(self, source: socket.socket, target: socket.socket) -> None:
        is_silent = False
        try:
            while data := source.recv(65536):
                if self.flowing.is_set() and not is_silent:
                    target.sendall(data)
                is_silent = self.only_lets_in and (is_silent or _READY_FOR_QUERY in data)
        except OSError:
            pass
        for each in (source, target):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def cut(self) -> None:
        """End all connections."""
        for each in self._sockets:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()
        self._sockets.clear()

    def close(self) -> None:
        """End, and listen no more."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()


class PostgreSQLTests(OutageCase):
    """PostgreSQL."""

    def setUp(self) -> None:
        # Two seconds are the least that libpq knows.
        self.patch(database, "POSTGRESQL_CONNECT_TIMEOUT", 2)
        url = postgresql_url(self)
        prepare(url)
        execute(url, "SELECT 1")
        self.relay = Relay(url.host or "127.0.0.1", url.port or 5432)
        relayed = url.set(host="127.0.0.1", port=self.relay.port)
        relayed = relayed.update_query_dict({"sslmode": "disable"})
        self.accounts = self.open(relayed, timeout=0.5)
        # First of all, which frees every thread: the accounts' end waits for them.
        self.addCleanup(self.relay.close)

    async def test_refused(self) -> None:
        """While it can't be reached 50 logins fail at once, told once; it heals by itself."""
        await self.accounts.register(ALICE)
        self.relay.refuses = True
        self.relay.cut()
        seconds = await self.assert_all_fail([self.accounts.log_in(ALICE) for _ in range(50)])
        self.assertLess(seconds, 3)
        self.assertEqual(len(self.told), 1)
        self.relay.refuses = False
        await self.accounts.log_in(ALICE)
        self.assertEqual(len(self.told), 2)

    async def test_swallowed(self) -> None:
        """When nothing comes back, though all is acknowledged, 50 logins fail after the time-out
        of one; when answers come again it heals by itself, without an end of the connections.
        """
        await self.accounts.register(ALICE)
        self.relay.flowing.clear()
        seconds = await self.assert_all_fail([self.accounts.log_in(ALICE) for _ in range(50)])
        self.assertLess(seconds, 3)
        self.assertEqual(len(self.told), 1)
        self.relay.flowing.set()
        while True:
            try:
                await self.accounts.log_in(ALICE)
            except StorageFailedError:
                await deferLater(reactor, 0)  # the threads have yet to notice
                continue
            break
        self.assertRegex(self.told[-1], "^Accounts can be read again")

    async def test_stop_after_another_outage(self) -> None:
        """A second silence, which the pool meets when it tries a connection, holds no stop up."""
        await self.accounts.register(ALICE)
        for _ in range(2):
            await self.accounts.log_in(ALICE)
        self.relay.flowing.clear()
        answers = [self.accounts.log_in(ALICE)]
        start = time.monotonic()
        stopping = self.accounts.stop()
        await self.assert_all_fail(answers)
        await stopping
        self.assertLess(time.monotonic() - start, 5)

    async def test_lets_in(self) -> None:
        """One that lets in and then says nothing holds no thread: it heals by itself."""
        self.relay.only_lets_in = True
        seconds = await self.assert_all_fail([self.accounts.log_in(ALICE) for _ in range(50)])
        self.assertLess(seconds, 3)
        await self.accounts.stop().addTimeout(10, reactor)
        self.relay.only_lets_in = False
        self.accounts.start()
        await self.accounts.register(ALICE)
        self.assertEqual(len(self.told), 1)

    def test_start(self) -> None:
        """At the start, one that lets in and then says nothing is told in one line."""
        self.patch(database, "POSTGRESQL_TRY_TIMEOUT", 0.5)
        self.relay.only_lets_in = True
        for attempt in (prepare, database.rehearse, database.prepare_numbers):
            error = self.assertRaises(database.DatabaseUnusableError, attempt, self.engine.url)
            self.assertIn("no answer in 0.5 s; check that PostgreSQL runs there", str(error))

    async def test_only_the_overdue_one(self) -> None:
        """One question that takes too long is broken off, and no other that is under way."""
        self.patch(database, "POSTGRESQL_STATEMENT_TIMEOUT", 60)
        await self.accounts.register(ALICE)
        await self.accounts.register(others(1)[0])
        ask = self.accounts._reading.ask
        slow = ask(self.sleep, 10.0)
        other = await deferLater(reactor, 0.3, lambda: [ask(self.sleep, 0.4)])
        await self.assertFailure(slow, OSError)
        await other[0]
        self.assertEqual(len(self.told), 2)  # It was away, and is back.

    def sleep(self, seconds: float) -> None:
        """Let the database take so long for an answer."""
        with self.engine.begin() as connection:
            connection.execute(sa.select(sa.func.pg_sleep(seconds)))

    async def test_nothing_is_left(self) -> None:
        """Of connections that failed while they were set up nothing is kept for long."""
        self.relay.only_lets_in = True
        for _ in range(3):
            await self.assert_all_fail([self.accounts.log_in(ALICE) for _ in range(10)])
        self.assertLessEqual(len(self.store._sockets or ()), POSTGRESQL_THREADS)

    async def test_stop(self) -> None:
        """A database that does not answer does not hold up the end of the server."""
        await self.accounts.register(ALICE)
        self.relay.flowing.clear()
        answers = [self.accounts.log_in(ALICE) for _ in range(5)]
        stopping = self.accounts.stop()
        self.assertLess(await self.assert_all_fail(answers), 3)
        await stopping
        threads = [each.name for each in threading.enumerate()]
        self.assertFalse([name for name in threads if "-database-" in name])

"""Accounts, for the reactor's thread: register and log in, without ever blocking it.

The database and the hashing each have a thread pool of their own, so that neither waits for
the other's queue. `Workers` is the one place where work goes into a thread.
"""

from __future__ import annotations

import os
import sqlite3
import sys
import threading
from collections.abc import Callable, Coroutine
from threading import Lock
from typing import Any, Generic, Literal, ParamSpec, TypeVar

from argon2.exceptions import HashingError
from sqlalchemy.exc import InterfaceError, OperationalError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from twisted.internet.defer import Deferred, DeferredLock, fail
from twisted.internet.interfaces import IReactorThreads
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.python.threadpool import ThreadPool

from chatserver.credentials import Credentials
from chatserver.database import AccountsError, NameTakenError, Store, reason
from chatserver.limits import (
    DATABASE_TIMEOUT,
    HASHING_NICENESS,
    HASHING_THREADS,
    MAX_LOGINS_UNDER_WAY,
)
from chatserver.passwords import Passwords, StoredPassword

__all__ = [
    "Accounts",
    "AccountsError",
    "HashingFailedError",
    "NameTakenError",
    "NotAuthenticatedError",
    "StorageFailedError",
    "TooBusyError",
    "Workers",
]

P = ParamSpec("P")
T = TypeVar("T")


class NotAuthenticatedError(AccountsError):
    """No such account, or another password: which of them, nobody is told."""


class TooBusyError(AccountsError):
    """Too much is waiting already. Nothing was done; try later."""


class StorageFailedError(AccountsError):
    """The database failed, or is being closed. The text is one line for the log.

    `is_told` is whether the log has been told already, for many at once.
    """

    def __init__(self, text: str, is_told: bool = False) -> None:
        super().__init__(text)
        self.is_told = is_told


class HashingFailedError(AccountsError):
    """Argon2 failed, for want of memory most likely. The text is one line for the log."""


class Workers:
    """Threads that functions can be run in.

    They start in `start` and not before: threads do not survive the fork of a daemon.

    :param niceness: how far they stand back behind other threads, as `stand_back` says
    """

    def __init__(
        self, reactor: IReactorThreads, name: str, threads: int, niceness: int = 0
    ) -> None:
        self._reactor = reactor
        self._name = name
        self.threads = threads
        self._niceness = niceness

    def start(self) -> None:
        """Be ready to run functions. After `stop` it may be called again."""
        self._pool = ThreadPool(minthreads=0, maxthreads=self.threads, name=self._name)
        self._pool.start()

    def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Deferred[T]:
        """Call `function` in a thread, after those that wait already, and hand back its result."""

        def call() -> T:
            stand_back(self._niceness)
            return function(*args, **kwargs)

        return deferToThreadPool(self._reactor, self._pool, call)

    def stop(self) -> Deferred[None]:
        """End the threads. Nothing may be running any more; fires when they are gone."""
        # From another thread: ThreadPool.stop() blocks until the last one has ended.
        return deferToThreadPool(self._reactor, self._reactor.getThreadPool(), self._pool.stop)


def stand_back(niceness: int) -> None:
    """Let the thread that calls this stand back behind those that are less nice (0 is usual).

    That takes a microsecond, and nothing happens where only whole processes have a priority.
    """
    if sys.platform == "linux" and niceness:
        thread = threading.get_native_id()
        # A process that is nicer already must not push forward, and may not.
        now = os.getpriority(os.PRIO_PROCESS, thread)
        os.setpriority(os.PRIO_PROCESS, thread, max(now, niceness))


def _is_outage(error: BaseException) -> bool:
    """Tell whether the database failed as such: the next one who asks would fare no better."""
    original = error.orig if isinstance(error, OperationalError) else None
    if getattr(original, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_ERROR:
        return False  # It is there, and doesn't understand the question.
    return isinstance(error, OperationalError | InterfaceError | PoolTimeoutError | OSError)


class _Question(Generic[T]):
    """What one waits for. Its function is only called if nobody has given it up before."""

    def __init__(self, function: Callable[[], T]) -> None:
        self._function = function
        self.answer: Deferred[T] = Deferred()
        self._lock = Lock()
        self._state: Literal["waiting", "begun", "given up"] = "waiting"
        self.deadline: Any = None

    @property
    def has_begun(self) -> bool:
        """Whether the function was called."""
        return self._state == "begun"

    def cancel_deadline(self) -> None:
        """Don't give it up any more, unless that has been done."""
        if self.deadline is not None and self.deadline.active():
            self.deadline.cancel()

    def __call__(self) -> T | None:
        """Call the function, in a thread."""
        with self._lock:
            if self._state == "given up":
                return None
            self._state = "begun"
        return self._function()

    def give_up(self) -> bool:
        """Return whether the function will not be called, because it is not yet."""
        with self._lock:
            if self._state == "waiting":
                self._state = "given up"
            return self._state == "given up"


class _Gate:
    """Lets questions of one kind through to the database, and nobody wait for long.

    When one fails because the database is away or locked, those that wait behind it would only
    wait for the same time-out, one after the other: they fail with it. Whoever comes later asks
    anew, so that it heals by itself. Reading and writing have a gate each: an SQLite file that
    another program has locked can still be read.

    :param workers: the database's threads
    :param what: what is done to accounts here: read, or written
    :param timeout: seconds in which a question must be answered; a registration may be stored
        after all
    :param overdue: the questions of all gates to `workers` that a thread is still at, though
        nobody waits for them any more
    :param break_off: frees threads that wait for the database
    """

    _log = Logger()

    def __init__(
        self,
        reactor: Any,
        workers: Workers,
        *,
        what: str,
        timeout: float,
        overdue: set[_Question[Any]],
        break_off: Callable[[], None],
    ) -> None:
        self._reactor = reactor
        self._workers = workers
        self._overdue = overdue
        self._what = what
        self._timeout = timeout
        self._break_off = break_off
        self._open: dict[_Question[Any], None] = {}
        self._away_since: float | None = None
        self._failed = 0

    def ask(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Deferred[T]:
        """Call `function` in the database's thread; fail with what it raises, or OSError."""
        if len(self._overdue) >= self._workers.threads:
            self._went_away(error := OSError("the database does not answer"))
            return fail(error)
        question = _Question(lambda: function(*args, **kwargs))
        self._open[question] = None
        question.deadline = self._reactor.callLater(self._timeout, self._give_up, question)

        def finish(result: Any) -> None:
            question.cancel_deadline()
            if question not in self._open:
                self._overdue.discard(question)
                if not isinstance(result, Failure) and question.has_begun:
                    self._came_back()
                return
            del self._open[question]
            error = result.value if isinstance(result, Failure) else None
            if isinstance(error, Exception) and _is_outage(error):
                self._fail([question, *self._take_waiting()], error)
                return
            if error is None or isinstance(error, AccountsError):
                self._came_back()
            question.answer.callback(result)

        self._workers.run(question).addBoth(finish)
        return question.answer

    def _give_up(self, question: _Question[Any]) -> None:
        """End the waiting for `question`, whose time is over, and for those behind it."""
        del self._open[question]
        if not question.give_up():
            self._overdue.add(question)
            self._break_off()
        error = OSError(f"no answer from the database in {self._timeout:g} s")
        self._fail([question, *self._take_waiting()], error)

    def _take_waiting(self) -> list[_Question[Any]]:
        """Take out those that no thread has begun with."""
        waiting = [each for each in self._open if each.give_up()]
        for question in waiting:
            del self._open[question]
            question.cancel_deadline()
        return waiting

    def _fail(self, questions: list[_Question[Any]], error: Exception) -> None:
        """Fail `questions`, all taken out before: who hears of it may ask anew at once."""
        for question in questions:
            self._went_away(error)
            question.answer.errback(error)

    def _went_away(self, error: Exception) -> None:
        self._failed += 1
        if self._away_since is None:
            self._away_since = self._reactor.seconds()
            self._log.error(
                "Accounts cannot be {what}: {reason}", what=self._what, reason=reason(error)
            )

    def _came_back(self) -> None:
        if self._away_since is not None:
            self._log.info(
                "Accounts can be {what} again, after {seconds:.0f} s; {failed} were refused",
                what=self._what,
                seconds=self._reactor.seconds() - self._away_since,
                failed=self._failed,
            )
        self._away_since = None
        self._failed = 0


class Accounts:
    """Registers and logs in.

    Cancelling a Deferred does not stop the work: only nobody is told of its end.

    :param store: must be ready to be used; `stop` closes it.
    :param hashing_threads: how many hash at once; see `HASHING_THREADS`. They stand back by
        `HASHING_NICENESS`.
    :param max_under_way: see `MAX_LOGINS_UNDER_WAY`.
    :param database_timeout: see `DATABASE_TIMEOUT`.
    """

    _log = Logger()

    def __init__(
        self,
        reactor: IReactorThreads,
        store: Store,
        passwords: Passwords,
        hashing_threads: int = HASHING_THREADS,
        max_under_way: int = MAX_LOGINS_UNDER_WAY,
        *,
        database_timeout: float = DATABASE_TIMEOUT,
    ) -> None:
        self._store = store
        self._passwords = passwords
        self._max_under_way = max_under_way
        self._database = Workers(reactor, "database", store.threads)
        self._hashing = Workers(reactor, "hashing", hashing_threads, HASHING_NICENESS)
        overdue: set[_Question[Any]] = set()
        self._reading, self._writing = (
            _Gate(
                reactor,
                self._database,
                what=what,
                timeout=database_timeout,
                overdue=overdue,
                break_off=store.break_off,
            )
            for what in ("read", "written")
        )
        self._running = False
        self._open = False
        self._under_way = 0
        self._idle: Deferred[None] | None = None
        self._stopping = DeferredLock()

    def start(self) -> None:
        """Start the threads, after any fork. To be called once, or again after `stop`."""
        self._database.start()
        self._hashing.start()
        self._running = self._open = True

    def stop(self) -> Deferred[None]:
        """Refuse what comes from now on, finish what is under way, then end the threads.

        Fires when all is closed. Without `start`, or a second time, there is nothing to do.
        """
        self._open = False
        return self._stopping.run(lambda: Deferred.fromCoroutine(self._stop()))

    def register(self, credentials: Credentials) -> Deferred[None]:
        """Create an account. When the Deferred fires, it is on the disk.

        Fails with NameTakenError, TooBusyError, StorageFailedError or HashingFailedError.
        """
        return self._admit(self._register, credentials)

    def log_in(self, credentials: Credentials) -> Deferred[None]:
        """Check the password of an account, and rewrite its row when that is out of date.

        Fails with NotAuthenticatedError, TooBusyError, StorageFailedError or
        HashingFailedError.
        """
        return self._admit(self._log_in, credentials)

    def _admit(
        self,
        work: Callable[[Credentials], Coroutine[Deferred[Any], Any, None]],
        credentials: Credentials,
    ) -> Deferred[None]:
        """Do `work` if there is a place for it, which it holds from here to its end.

        So neither of the two queues can grow longer than the number of places, and what is
        refused has cost nothing.
        """
        if not self._open:
            return fail(StorageFailedError("the server is going down"))
        if self._under_way >= self._max_under_way:
            return fail(TooBusyError(f"{self._under_way} registrations and logins wait already"))
        self._under_way += 1
        # Not the Deferred of the work itself: cancelling that would give the place back while
        # a thread is still at it.
        answer: Deferred[None] = Deferred()
        Deferred.fromCoroutine(self._finish(work(credentials))).chainDeferred(answer)
        return answer

    async def _finish(self, work: Coroutine[Deferred[Any], Any, None]) -> None:
        """Do `work`, then give its place back."""
        try:
            await work
        finally:
            self._under_way -= 1
            if not self._under_way and self._idle is not None:
                self._idle.callback(None)

    async def _register(self, credentials: Credentials) -> None:
        stored = await self._hash(self._passwords.hash, credentials.password)
        await self._ask(self._writing, self._store.add, credentials.name, stored)

    async def _log_in(self, credentials: Credentials) -> None:
        stored = await self._ask(self._reading, self._store.find, credentials.name)
        upgraded = await self._hash(self._check, stored, credentials.password)
        if stored is None or upgraded is None:
            return
        try:
            await self._ask(self._writing, self._store.replace, credentials.name, stored, upgraded)
        except StorageFailedError as error:
            if error.is_told:
                return
            self._log.warn(
                "The stored password of {name!r} could not be brought up to date: {reason}",
                name=credentials.name,
                reason=str(error),
            )

    def _check(self, stored: StoredPassword | None, password: bytes) -> StoredPassword | None:
        """Return what to store in place of `stored`, or None when that is up to date.

        In a thread, and both in one go, so that a login waits for its turn once.
        """
        # In this order: an account that does not exist must take as long.
        if not self._passwords.verify(stored, password) or stored is None:
            raise NotAuthenticatedError("no such account, or another password")
        return self._passwords.hash(password) if self._passwords.needs_upgrade(stored) else None

    async def _ask(
        self, gate: _Gate, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        try:
            return await gate.ask(function, *args, **kwargs)
        except (SQLAlchemyError, OSError) as error:
            # From None, because PostgreSQL's text may hold the row.
            raise StorageFailedError(reason(error), is_told=_is_outage(error)) from None

    async def _hash(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return await self._hashing.run(function, *args, **kwargs)
        except (HashingError, MemoryError) as error:
            raise HashingFailedError(str(error) or "out of memory") from None

    async def _stop(self) -> None:
        if not self._running:
            return
        if self._under_way:
            self._idle = Deferred()
            await self._idle
            self._idle = None
        try:
            await self._database.run(self._store.close)
        finally:
            self._running = False
            await self._hashing.stop()
            await self._database.stop()

"""Accounts, for the reactor's thread: register and log in, without ever blocking it.

The database and the hashing each have a thread pool of their own, so that neither waits for
the other's queue. `Workers` is the one place where work goes into a thread.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Coroutine
from typing import Any, ParamSpec, TypeVar

from argon2.exceptions import HashingError
from sqlalchemy.exc import SQLAlchemyError
from twisted.internet.defer import Deferred, DeferredLock, fail
from twisted.internet.interfaces import IReactorThreads
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.python.threadpool import ThreadPool

from chatserver.credentials import Credentials
from chatserver.database import AccountsError, NameTakenError, Store, reason
from chatserver.limits import HASHING_NICENESS, HASHING_THREADS, MAX_LOGINS_UNDER_WAY
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
    """The database failed, or is being closed. The text is one line for the log."""


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
        self._threads = threads
        self._niceness = niceness

    def start(self) -> None:
        """Be ready to run functions. After `stop` it may be called again."""
        self._pool = ThreadPool(minthreads=0, maxthreads=self._threads, name=self._name)
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


class Accounts:
    """Registers and logs in.

    Cancelling a Deferred does not stop the work: only nobody is told of its end.

    :param store: must be ready to be used; `stop` closes it.
    :param hashing_threads: how many hash at once; see `HASHING_THREADS`. They stand back by
        `HASHING_NICENESS`.
    :param max_under_way: see `MAX_LOGINS_UNDER_WAY`.
    """

    _log = Logger()

    def __init__(
        self,
        reactor: IReactorThreads,
        store: Store,
        passwords: Passwords,
        hashing_threads: int = HASHING_THREADS,
        max_under_way: int = MAX_LOGINS_UNDER_WAY,
    ) -> None:
        self._store = store
        self._passwords = passwords
        self._max_under_way = max_under_way
        self._database = Workers(reactor, "database", store.threads)
        self._hashing = Workers(reactor, "hashing", hashing_threads, HASHING_NICENESS)
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
        await self._ask(self._store.add, credentials.name, stored)

    async def _log_in(self, credentials: Credentials) -> None:
        stored = await self._ask(self._store.find, credentials.name)
        upgraded = await self._hash(self._check, stored, credentials.password)
        if stored is None or upgraded is None:
            return
        try:
            await self._ask(self._store.replace, credentials.name, stored, upgraded)
        except StorageFailedError as error:
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

    async def _ask(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return await self._database.run(function, *args, **kwargs)
        except (SQLAlchemyError, OSError) as error:
            # From None, because PostgreSQL's text may hold the row.
            raise StorageFailedError(reason(error)) from None

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

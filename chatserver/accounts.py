"""Accounts, for the reactor's thread: register and log in, without ever blocking it.

The database and the hashing each have a thread pool of their own, so that neither waits for
the other's queue.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, ParamSpec, TypeVar

from argon2.exceptions import HashingError
from sqlalchemy.exc import SQLAlchemyError
from twisted.internet.defer import Deferred, DeferredLock, fail
from twisted.internet.interfaces import IReactorThreads
from twisted.logger import Logger

from chatserver.credentials import Credentials
from chatserver.database import reason
from chatserver.gate import Gate, Question, is_outage
from chatserver.limits import (
    DATABASE_TIMEOUT,
    HASHING_NICENESS,
    HASHING_THREADS,
    MAX_LOGINS_UNDER_WAY,
)
from chatserver.passwords import Passwords, StoredPassword
from chatserver.store import AccountsError, NameTakenError, Store
from chatserver.workers import Workers

__all__ = [
    "Accounts",
    "AccountsError",
    "HashingFailedError",
    "NameTakenError",
    "NotAuthenticatedError",
    "StorageFailedError",
    "TooBusyError",
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
        overdue: set[Question[Any]] = set()
        self._reading, self._writing = (
            Gate(
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
        """Refuse what comes from now on, finish what a thread is at, then end the threads.

        What waits to be hashed fails with StorageFailedError.

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

    def number_logins(self, count: int, greatest: int) -> Deferred[list[int]]:
        """Return numbers for `count` logins, in a cluster, all above `greatest`, the last known.

        Fails with StorageFailedError.
        """
        if not self._open:
            return fail(StorageFailedError("the server is going down"))
        self._under_way += 1
        return Deferred.fromCoroutine(self._finish(self._number_logins(count, greatest)))

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

    async def _finish(self, work: Coroutine[Deferred[Any], Any, T]) -> T:
        """Do `work`, then give its place back."""
        try:
            return await work
        finally:
            self._under_way -= 1
            if not self._under_way and self._idle is not None:
                self._idle.callback(None)

    async def _register(self, credentials: Credentials) -> None:
        stored = await self._hash(self._passwords.hash, credentials.password)
        await self._ask(self._writing, self._store.add, credentials.name, stored)

    async def _number_logins(self, count: int, greatest: int) -> list[int]:
        numbers = await self._ask(self._writing, self._store.number_logins, count)
        if numbers[0] <= greatest:
            await self._ask(self._writing, self._store.skip_login_numbers, greatest)
            self._log.warn(
                "Login numbers had gone back, to {number} after {greatest}, as after a restored"
                " backup; they are set ahead",
                number=numbers[0],
                greatest=greatest,
            )
            numbers = await self._ask(self._writing, self._store.number_logins, count)
        return numbers

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
        self, gate: Gate, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        try:
            return await gate.ask(function, *args, **kwargs)
        except (SQLAlchemyError, OSError) as error:
            # From None, because PostgreSQL's text may hold the row.
            raise StorageFailedError(reason(error), is_told=is_outage(error)) from None

    async def _hash(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        def hash_unless_closing() -> T:
            if not self._open:  # Nobody waits for it any more, and it takes long.
                raise StorageFailedError("the server is going down", is_told=True)
            return function(*args, **kwargs)

        try:
            return await self._hashing.run(hash_unless_closing)
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

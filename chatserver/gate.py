"""What is asked of the database while it may be away, locked or silent: nobody waits for long."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable
from threading import Lock
from typing import Any, Generic, Literal, ParamSpec, TypeVar

from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from twisted.internet.defer import Deferred, fail
from twisted.logger import Logger
from twisted.python.failure import Failure

from chatserver.database import reason
from chatserver.store import AccountsError
from chatserver.workers import Workers

P = ParamSpec("P")
T = TypeVar("T")


def is_outage(error: BaseException) -> bool:
    """Tell whether the database failed as such: the next one who asks would fare no better."""
    original = error.orig if isinstance(error, OperationalError) else None
    if getattr(original, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_ERROR:
        return False  # It is there, and doesn't understand the question.
    return isinstance(error, OperationalError | InterfaceError | PoolTimeoutError | OSError)


class Question(Generic[T]):
    """What one waits for. Its function is only called if nobody has given it up before."""

    def __init__(self, function: Callable[[], T]) -> None:
        self._function = function
        self.answer: Deferred[T] = Deferred()
        self._lock = Lock()
        self._state: Literal["waiting", "begun", "given up"] = "waiting"
        self.deadline: Any = None
        self.thread = 0
        """The number of the thread that has begun with it."""

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
            self.thread = threading.get_ident()
        return self._function()

    def give_up(self) -> bool:
        """Return whether the function will not be called, because it is not yet."""
        with self._lock:
            if self._state == "waiting":
                self._state = "given up"
            return self._state == "given up"


class Gate:
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
    :param break_off: frees a thread, by its number, that waits for the database
    """

    _log = Logger()

    def __init__(
        self,
        reactor: Any,
        workers: Workers,
        *,
        what: str,
        timeout: float,
        overdue: set[Question[Any]],
        break_off: Callable[[int], None],
    ) -> None:
        self._reactor = reactor
        self._workers = workers
        self._overdue = overdue
        self._what = what
        self._timeout = timeout
        self._break_off = break_off
        self._open: dict[Question[Any], None] = {}
        self._away_since: float | None = None
        self._failed = 0

    def ask(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Deferred[T]:
        """Call `function` in the database's thread; fail with what it raises, or OSError."""
        if len(self._overdue) >= self._workers.threads:
            self._went_away(error := OSError("the database does not answer"))
            return fail(error)
        question = Question(lambda: function(*args, **kwargs))
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
            if isinstance(error, Exception) and is_outage(error):
                self._fail([question, *self._take_waiting()], error)
                return
            if error is None or isinstance(error, AccountsError):
                self._came_back()
            question.answer.callback(result)

        self._workers.run(question).addBoth(finish)
        return question.answer

    def _give_up(self, question: Question[Any]) -> None:
        """End the waiting for `question`, whose time is over, and for those behind it."""
        del self._open[question]
        if not question.give_up():
            self._overdue.add(question)
            self._free(question)
        error = OSError(f"no answer from the database in {self._timeout:g} s")
        self._fail([question, *self._take_waiting()], error)

    def _free(self, question: Question[Any]) -> None:
        """Break off what the thread is at that has begun with `question`, until it has ended.

        More than once: it may have connected only after the last time.
        """
        self._break_off(question.thread)
        question.deadline = self._reactor.callLater(self._timeout, self._free, question)

    def _take_waiting(self) -> list[Question[Any]]:
        """Take out those that no thread has begun with."""
        waiting = [each for each in self._open if each.give_up()]
        for question in waiting:
            del self._open[question]
            question.cancel_deadline()
        return waiting

    def _fail(self, questions: list[Question[Any]], error: Exception) -> None:
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

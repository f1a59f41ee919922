"""Tests for `chatserver.gate`; `tests.test_outage` has them with real databases."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from chatserver.gate import Gate, Question
from tests.logs import keep_texts

TIMEOUT = 5.0


class Threads:
    """Takes the place of `Workers`: a thread begins or ends with a question when the test says."""

    threads = 2

    def __init__(self) -> None:
        self.questions: list[tuple[Callable[[], Any], Deferred[Any]]] = []

    def run(self, function: Callable[[], Any]) -> Deferred[Any]:
        answer: Deferred[Any] = Deferred()
        self.questions.append((function, answer))
        return answer

    def begin(self) -> Deferred[Any]:
        """Call the function that has waited longest. Return what ends it."""
        function, answer = self.questions.pop(0)
        function()
        return answer


class GateTests(SynchronousTestCase):
    """Questions whose answer does not come."""

    def setUp(self) -> None:
        self.clock, self.threads = Clock(), Threads()
        self.broken_off: list[int] = []
        overdue: set[Question[Any]] = set()
        self.reading, self.writing = (
            Gate(
                self.clock,
                self.threads,  # type: ignore[arg-type]
                what=what,
                timeout=TIMEOUT,
                overdue=overdue,
                break_off=self.break_off,
            )
            for what in ("read", "written")
        )

    def break_off(self, thread: int) -> None:
        self.broken_off.append(thread)

    def test_all_threads_hang(self) -> None:
        """While every thread is at a question that is overdue, another is refused at once,
        whatever it would do; when one of them is free again it is asked.
        """
        answers = [self.reading.ask(lambda: None) for _ in range(self.threads.threads)]
        threads = [self.threads.begin() for _ in answers]
        self.clock.advance(TIMEOUT)
        for each in answers:
            self.assertIn("no answer", str(self.failureResultOf(each, OSError).value))
        for gate in (self.reading, self.writing):
            self.failureResultOf(gate.ask(lambda: None), OSError)
        self.assertEqual(self.threads.questions, [])
        threads[0].errback(OSError("broken off"))
        answer = self.writing.ask(lambda: None)
        self.threads.begin().callback("an answer")
        self.assertEqual(self.successResultOf(answer), "an answer")

    def test_broken_off(self) -> None:
        """A thread that hangs is freed, again and again until it has ended."""
        self.failureResultOf(self.ask_and_wait(), OSError)
        own = threading.get_ident()
        self.assertEqual(self.broken_off, [own])
        self.clock.advance(TIMEOUT)
        self.assertEqual(self.broken_off, [own, own])
        self.thread.errback(OSError("broken off"))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_late_answer(self) -> None:
        """An answer that comes too late tells all the same that the database is back."""
        told = keep_texts(self)
        self.failureResultOf(self.ask_and_wait(), OSError)
        self.assertRegex(told[-1], "^Accounts cannot be read: no answer")
        self.thread.callback(None)
        self.assertRegex(told[-1], "^Accounts can be read again")

    def test_not_begun(self) -> None:
        """A question that no thread has begun with is not asked any more, and frees nobody."""
        answer = self.reading.ask(self.fail)
        self.clock.advance(TIMEOUT)
        self.failureResultOf(answer, OSError)
        self.assertEqual(self.broken_off, [])
        self.threads.begin().callback(None)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def ask_and_wait(self) -> Deferred[None]:
        """Ask, and let the time-out pass while a thread, `thread`, is at it."""
        answer = self.reading.ask(lambda: None)
        self.thread = self.threads.begin()
        self.clock.advance(TIMEOUT)
        return answer

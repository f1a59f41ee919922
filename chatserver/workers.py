"""Threads for what blocks. `Workers` is the one place where work goes into a thread."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorThreads
from twisted.internet.threads import deferToThreadPool
from twisted.python.threadpool import ThreadPool

P = ParamSpec("P")
T = TypeVar("T")


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

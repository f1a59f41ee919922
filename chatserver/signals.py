"""SIGHUP, by which an operator has a running server read its files anew."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterable
from typing import Any

from twisted.internet.interfaces import IReactorFromThreads
from twisted.logger import Logger

_STANDARD_STREAMS = range(3)


class SighupHandler:
    """Does what SIGHUP asks for. Where there is no such signal (Windows) it never comes.

    A terminal that is closed sends it too. A server that began on that terminal ends then, in
    order, unless it was started to outlive it (``nohup``).

    :param reactor: where `actions` are called
    :param actions: what to do, in this order. One that fails does not keep the next from it.
    """

    _log = Logger()

    def __init__(
        self, reactor: IReactorFromThreads, actions: Iterable[Callable[[], object]]
    ) -> None:
        self._reactor = reactor
        self._actions = list(actions)
        self._before: Any = None
        self._terminals: list[int] = []
        self._is_started = False

    def start(self) -> None:
        """Take the signal from now on. To be called after the fork of a daemon."""
        # Python allows it in the main thread only. An application may run a reactor elsewhere.
        if hasattr(signal, "SIGHUP") and threading.current_thread() is threading.main_thread():
            self._is_started = True
            self._terminals = _terminals()
            self._before = signal.signal(signal.SIGHUP, self._receive)

    def stop(self) -> None:
        """Leave the signal to whoever had it before."""
        if self._is_started:
            self._is_started = False
            if signal.getsignal(signal.SIGHUP) == self._receive:
                signal.signal(signal.SIGHUP, self._before)

    def _receive(self, _number: int, _frame: object) -> None:
        self._reactor.callFromThread(self._act)

    def _act(self) -> None:
        if not self._is_started:
            return
        if self._before == signal.SIG_DFL and self._terminals and not _terminals():
            self._log.info("The terminal is gone")
            os.kill(os.getpid(), signal.SIGTERM)
            return
        self._log.info("Received SIGHUP: reading the files anew")
        for action in self._actions:
            try:
                action()
            except Exception:
                self._log.failure("Failed at SIGHUP")


def _terminals() -> list[int]:
    """Return which of the standard streams are terminals. One that was closed is none."""
    return [number for number in _STANDARD_STREAMS if os.isatty(number)]

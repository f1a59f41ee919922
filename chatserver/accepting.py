"""Lets a port rest while it can't accept clients."""

from __future__ import annotations

from collections.abc import Callable
from math import inf

from twisted.internet.interfaces import IDelayedCall, IListeningPort, IPushProducer, IReactorTime
from twisted.logger import ILogObserver, LogEvent, Logger, globalLogPublisher
from zope.interface import implementer

from chatserver.limits import ACCEPT_BACKOFF

_ADVICE = {
    "EMFILE": "raise the file limit (ulimit -Hn, or LimitNOFILE= in a systemd unit)",
    "ENFILE": "the whole system has too many files open; see sysctl fs.file-max",
    "ENOBUFS": "the system has no memory for it",
    "ENOMEM": "the system has no memory for it",
}
"""What to do, for each error of accept that another try would meet again."""

_RESERVE_USED = "EMFILE encountered; releasing reserved file descriptor."
"""What Twisted logs when accept has failed and it closes who waits: then a port need not rest."""


@implementer(ILogObserver)
class AcceptBackoff:
    """While it runs, a port at which accept fails is let alone for `ACCEPT_BACKOFF`.

    Accept fails when there are no files left, or no memory. The client still waits then, so the
    reactor would try again in each of its turns, and log it each time: thousands of times a
    second. (Where it can, Twisted keeps a file in reserve for that case, and closes with its help
    who waits; but what else opens a file just then may take it, and it is of no use when the whole
    system has none left.)

    Twisted tells of it only in the log, and not of which port: but what is missing is missing
    for all ports of a process.

    :param port: what listens
    :param clock: where the back-off is waited for
    """

    _log = Logger()

    def __init__(self, port: IListeningPort, clock: IReactorTime) -> None:
        self._port = port
        self._clock = clock
        self._end: IDelayedCall | None = None
        self._next_advice = -inf

    def start(self) -> None:
        """Look after the port from now on."""
        globalLogPublisher.addObserver(self)

    def stop(self) -> None:
        """Look no more."""
        globalLogPublisher.removeObserver(self)
        if self._end is not None:
            self._end.cancel()
            self._end = None

    def __call__(self, event: LogEvent) -> None:
        """Let the port rest, and tell what to do, if `event` tells that accept has failed."""
        error = event.get("acceptError")
        if event.get("log_format") == _RESERVE_USED:
            self._advise("EMFILE")
        elif error in _ADVICE and self._end is None and IPushProducer.providedBy(self._port):
            self._port.pauseProducing()
            resume = self._port.resumeProducing
            self._end = self._clock.callLater(ACCEPT_BACKOFF, self._go_on, resume)
            self._advise(error)

    def _advise(self, error: str) -> None:
        """Log what to do, once in each `ACCEPT_BACKOFF`."""
        now = self._clock.seconds()
        if now >= self._next_advice:
            self._next_advice = now + ACCEPT_BACKOFF
            self._log.warn(
                "No client can be accepted for now ({error}): {advice}",
                error=error,
                advice=_ADVICE[error],
            )

    def _go_on(self, resume: Callable[[], object]) -> None:
        self._end = None
        resume()

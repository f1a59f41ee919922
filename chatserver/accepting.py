"""Lets a port rest that can't accept clients just now."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import IDelayedCall, IListeningPort, IPushProducer, IReactorTime
from twisted.logger import ILogObserver, LogEvent, Logger, globalLogPublisher
from zope.interface import implementer

from chatserver.limits import ACCEPT_PAUSE


@implementer(ILogObserver)
class AcceptRest:
    """While it runs, a port at which accept fails is let alone for `ACCEPT_PAUSE`.

    Accept fails when there are no files left, or no memory. The client still waits then, so the
    reactor would try again in each of its turns, and log it each time: thousands of times a
    second. (Where it can, Twisted keeps a file in reserve for that case; but what else opens a
    file just then may take it, and it is of no use when the whole system has none left.)

    Twisted tells of it only in the log.

    :param port: what listens
    :param clock: where the rest is waited for
    """

    _log = Logger()

    def __init__(self, port: IListeningPort, clock: IReactorTime) -> None:
        self._port = port
        self._clock = clock
        self._end: IDelayedCall | None = None

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
        """Let the port rest if `event` tells that accept has failed."""
        if "acceptError" in event and self._end is None and IPushProducer.providedBy(self._port):
            self._port.pauseProducing()
            self._end = self._clock.callLater(ACCEPT_PAUSE, self._go_on, self._port.resumeProducing)
            self._log.warn(
                "No client can be accepted for now ({error}): raise the file limit (ulimit -Hn, "
                "or LimitNOFILE= in a systemd unit), or find out what has so many files open",
                error=event["acceptError"],
            )

    def _go_on(self, resume: Callable[[], object]) -> None:
        self._end = None
        resume()

"""Tells systemd how the server is (sd_notify): ready, alive, stopping."""

from __future__ import annotations

import os
from collections.abc import Mapping

from sdnotify import SystemdNotifier  # type: ignore[import-untyped]
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall


class Systemd:
    """The service manager, if there is one. Without ``NOTIFY_SOCKET`` nothing is told to anybody.

    :param clock: the reactor's. As long as that turns, the watchdog is told that all is well.
    :param environ: where systemd says what it wants to hear; see sd_notify(3)
    """

    def __init__(self, clock: IReactorTime, environ: Mapping[str, str] = os.environ) -> None:
        # It connects when it is made: a daemon's fork keeps the socket.
        self._notifier = SystemdNotifier() if "NOTIFY_SOCKET" in environ else None
        self._interval = _watchdog_interval(environ)
        self._watchdog = LoopingCall(self._tell, "WATCHDOG=1")
        self._watchdog.clock = clock

    def ready(self, status: str) -> None:
        """The server takes clients; `status` is a line for ``systemctl status``."""
        self._tell(f"READY=1\nSTATUS={status}")
        if self._interval is not None:
            self._watchdog.start(self._interval)

    def stopping(self) -> None:
        """The server takes no more clients, and ends soon."""
        self._tell("STOPPING=1")

    def stop(self) -> None:
        """Tell nothing more."""
        if self._watchdog.running:
            self._watchdog.stop()

    def _tell(self, state: str) -> None:
        if self._notifier is not None:
            self._notifier.notify(state)


def _watchdog_interval(environ: Mapping[str, str]) -> float | None:
    """Return after how many seconds each the watchdog is to be told; None if there is none.

    It is half the time that it waits, as sd_watchdog_enabled(3) recommends.
    """
    microseconds = environ.get("WATCHDOG_USEC", "")
    if "NOTIFY_SOCKET" not in environ or not microseconds.isdecimal() or int(microseconds) == 0:
        return None
    if environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None  # It is another process that is watched.
    return int(microseconds) / 2e6

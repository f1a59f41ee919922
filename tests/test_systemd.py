"""Tests for `chatserver.systemd`."""

from __future__ import annotations

import os
import signal
import socket
import tempfile

from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase

from chatserver.systemd import Systemd
from tests.processes import ProcessTestCase, script


class Manager:
    """Hears what systemd would hear, at a real socket."""

    def __init__(self, test: TestCase | ProcessTestCase) -> None:
        folder = tempfile.TemporaryDirectory()  # trial's own may be longer than such names are
        test.addCleanup(folder.cleanup)
        self.path = os.path.join(folder.name, "notify")
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        test.addCleanup(self._socket.close)
        self._socket.bind(self.path)
        self._socket.settimeout(30)

    def hear(self) -> str:
        """Return what comes next."""
        return self._socket.recv(4096).decode()

    def hears_nothing(self) -> bool:
        """Return whether nothing has come."""
        self._socket.setblocking(False)
        try:
            self._socket.recv(4096)
        except BlockingIOError:
            return True
        finally:
            self._socket.settimeout(30)
        return False


class SystemdTests(TestCase):
    """What is told, and when."""

    if os.name != "posix":
        skip = "systemd is for Linux"

    def setUp(self) -> None:
        self.clock = Clock()
        self.manager = Manager(self)
        self.patch(os, "environ", os.environ | {"NOTIFY_SOCKET": self.manager.path})

    def test_states(self) -> None:
        """It hears when the server is ready, and when it stops."""
        systemd = Systemd(self.clock, os.environ)
        self.assertTrue(self.manager.hears_nothing())
        systemd.ready("listens on [::]:5555")
        self.assertEqual(self.manager.hear(), "READY=1\nSTATUS=listens on [::]:5555")
        systemd.stopping()
        self.assertEqual(self.manager.hear(), "STOPPING=1")
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_watchdog(self) -> None:
        """The watchdog hears twice in its time that all is well, until the end."""
        systemd = Systemd(self.clock, os.environ | {"WATCHDOG_USEC": "10000000"})
        systemd.ready("")
        self.manager.hear()
        for _ in range(3):
            self.assertEqual(self.manager.hear(), "WATCHDOG=1")
            self.assertTrue(self.manager.hears_nothing())
            self.clock.advance(5)
        systemd.stop()
        self.manager.hear()
        self.clock.advance(60)
        self.assertTrue(self.manager.hears_nothing())

    def test_no_watchdog(self) -> None:
        """Without one, or if it watches somebody else, it hears nothing."""
        for more in ({}, {"WATCHDOG_USEC": "0"}, {"WATCHDOG_USEC": "9", "WATCHDOG_PID": "1"}):
            Systemd(self.clock, os.environ | more).ready("")
            self.manager.hear()
            self.assertTrue(self.manager.hears_nothing())
            self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_nobody(self) -> None:
        """Without systemd nothing is told."""
        systemd = Systemd(self.clock, {"WATCHDOG_USEC": "10000000"})
        systemd.ready("")
        systemd.stopping()
        self.assertTrue(self.manager.hears_nothing())
        self.assertEqual(self.clock.getDelayedCalls(), [])


class ProcessTests(ProcessTestCase):
    """A real server."""

    def test_service(self) -> None:
        """A server tells when it can be reached, that it lives, and that it stops."""
        manager = Manager(self)
        command = ["env", f"NOTIFY_SOCKET={manager.path}", "WATCHDOG_USEC=30000000"]
        server = self.start(command=[*command, *script("twistd"), "-n"])
        ready = manager.hear()
        self.assertIn("READY=1\nSTATUS=listens on ", ready)
        self.connect(int(ready.rpartition(":")[2])).close()
        self.assertEqual(manager.hear(), "WATCHDOG=1")
        server.process.send_signal(signal.SIGTERM)
        self.assertEqual(manager.hear(), "STOPPING=1")
        server.process.wait(30)

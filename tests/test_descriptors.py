"""Tests for `chatserver.descriptors` and `chatserver.keepalive`."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from typing import Any

from twisted.trial.unittest import TestCase

from chatserver import descriptors
from chatserver.descriptors import auto_connections, connections_for, raise_file_limit
from chatserver.keepalive import keep_alive
from chatserver.limits import (
    KEEP_ALIVE,
    KEEP_ALIVE_TIMEOUT,
    MAX_AUTO_CONNECTIONS,
    RESERVED_FILES,
)


class FileLimitTests(TestCase):
    """How many files there may be."""

    def test_raised(self) -> None:
        """The limit is raised as far as the process may, which is told."""
        if os.name != "posix":
            self.skipTest("there is no such limit")
        code = (
            "import resource as r; r.setrlimit(r.RLIMIT_NOFILE, (100, 200));"
            "from chatserver.descriptors import raise_file_limit as f;"
            "print(f(), r.getrlimit(r.RLIMIT_NOFILE))"
        )
        output = subprocess.check_output([sys.executable, "-c", code], text=True)
        self.assertEqual(output, "200 (200, 200)\n")

    def test_refused(self) -> None:
        """Where the system does not let it be raised, it stays."""

        class Resource:
            RLIMIT_NOFILE, RLIM_INFINITY = 7, -1

            def getrlimit(self, _: int) -> tuple[int, int]:
                return 256, -1

            def setrlimit(self, _: int, limits: tuple[int, int]) -> None:
                raise ValueError(limits)

        self.patch(descriptors, "resource", Resource())
        self.assertEqual(raise_file_limit(), 256)
        self.patch(descriptors, "resource", None)
        self.assertIsNone(raise_file_limit())

    def test_connections(self) -> None:
        """Some files are not for connections; without a limit there is none of those either."""
        self.assertEqual(connections_for(1000), 1000 - RESERVED_FILES)
        self.assertEqual(connections_for(10), 1)
        self.assertIsNone(connections_for(None))

    def test_auto(self) -> None:
        """A file limit of a million, or none, is not taken for room for as many connections."""
        self.assertEqual(auto_connections(1000), 1000 - RESERVED_FILES)
        for files in (MAX_AUTO_CONNECTIONS + RESERVED_FILES, 1 << 30, None):
            self.assertEqual(auto_connections(files), MAX_AUTO_CONNECTIONS)


class KeepAliveTests(TestCase):
    """What TCP is told."""

    def test_options(self) -> None:
        """The operating system tries idle connections, and waits no longer than it is told."""
        with socket.socket() as handle:
            tls: Any = type("TLS", (), {})()
            tls.transport = type("TCP", (), {"getHandle": lambda _: handle})()
            tls.setTcpKeepAlive = lambda on: handle.setsockopt(
                socket.SOL_SOCKET, socket.SO_KEEPALIVE, on
            )
            keep_alive(tls, None)
            self.assertTrue(handle.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE))
            for name, value in KEEP_ALIVE.items():
                if (option := getattr(socket, name, None)) is not None:
                    self.assertEqual(handle.getsockopt(socket.IPPROTO_TCP, option), value)
            if (option := getattr(socket, "TCP_USER_TIMEOUT", None)) is not None:
                self.assertEqual(handle.getsockopt(socket.IPPROTO_TCP, option), 0)
                keep_alive(tls, 1.5)
                self.assertEqual(handle.getsockopt(socket.IPPROTO_TCP, option), 1500)

    def test_time(self) -> None:
        """A dead client is found after two minutes."""
        idle, interval, count = KEEP_ALIVE.values()
        self.assertEqual(idle + interval * count, KEEP_ALIVE_TIMEOUT)

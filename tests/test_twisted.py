"""What this server uses of Twisted and Automat that is private to them.

A new version may rename it; then the server would still start, and lose a limit or its speed
without a word.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.abstract import FileDescriptor
from twisted.internet.task import Clock
from twisted.protocols.haproxy._wrapper import HAProxyProtocolWrapper
from twisted.protocols.tls import TLSMemoryBIOProtocol
from twisted.trial.unittest import SynchronousTestCase

from chatserver.conversation import converse
from tests.memory import MemoryServer


class PrivateNameTests(SynchronousTestCase):
    """The names that are overridden or read, but are not documented."""

    def test_tls(self) -> None:
        """TLS calls what is overridden, and has the state that is read."""
        for name in ("_flushReceiveBIO", "_tlsShutdownFinished"):
            self.assertIn(name, vars(TLSMemoryBIOProtocol))
        tls = vars(MemoryServer().log_in("alice").transport.protocol)
        for name in ("_tlsConnection", "_handshakeDone"):
            self.assertIn(name, tls)
        for name in ("_lostTLSConnection", "_aborted"):
            self.assertIs(getattr(TLSMemoryBIOProtocol, name), False)

    def test_tcp(self) -> None:
        """A TCP connection tells what waits to be written, and what it does with it."""
        connection = FileDescriptor(reactor=Clock())  # type: ignore
        for name, value in (
            ("dataBuffer", b""),
            ("offset", 0),
            ("_tempDataLen", 0),
            ("_writeDisconnected", False),
        ):
            self.assertEqual(getattr(connection, name), value)

    def test_haproxy(self) -> None:
        """The reader of a proxy's header makes its parser, and keeps what that has read."""
        nobody: Any = None
        reader = HAProxyProtocolWrapper(nobody, nobody)
        for name in ("_parser", "_proxyInfo"):
            self.assertIsNone(vars(reader)[name])

    def test_automat(self) -> None:
        """Each transition of the conversation is looked up once, whoever makes it."""
        look_up: Any = converse.__automat_automaton__.outputForInput
        MemoryServer().log_in("alice")
        first = look_up.cache_info()
        MemoryServer().log_in("alice")
        again = look_up.cache_info()
        self.assertEqual(again.misses, first.misses)
        self.assertGreater(again.hits, first.hits)

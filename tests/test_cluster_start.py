"""Trying NATS at the start: what can't be used ends in one line, and not in waiting."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import ssl
import threading
from datetime import UTC, datetime
from importlib.util import find_spec

from twisted.trial.unittest import SynchronousTestCase

from chatserver.certificates import create_self_signed

TIMEOUT = 30.0
"""Seconds in which the try must have ended; four are usual."""


class StrangerTests(SynchronousTestCase):
    """A NATS whose certificate nobody trusts."""

    if find_spec("nats") is None:
        skip = "nats-py is not installed"

    has_tls = True

    def setUp(self) -> None:
        """Let one listen, which says its first line and then shows a certificate of its own."""
        folder = os.path.abspath(self.mktemp())
        os.mkdir(folder)
        certificate, key = (os.path.join(folder, name) for name in ("nats.crt", "nats.key"))
        create_self_signed(certificate, key, datetime.now(UTC))
        self.heard = b""
        self.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.tls.load_cert_chain(certificate, key)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(self.listener.close)
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self) -> None:
        """Take connections until the test is over."""
        info: dict[str, object] = {"server_id": "x", "version": "2.9.0", "max_payload": 2**20}
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self.listener.accept()
                connection.settimeout(TIMEOUT)
                info["tls_required"] = self.has_tls
                with connection, contextlib.suppress(OSError):
                    connection.sendall(b"INFO %s\r\n" % json.dumps(info).encode())
                    if self.has_tls:
                        self.tls.wrap_socket(connection, server_side=True).close()
                    else:
                        self.heard += connection.recv(1000)

    def attempt(self) -> str:
        """Return what is said of it."""
        from chatserver.cluster.bus import BusError, NatsAddress, try_bus  # noqa: PLC0415

        port = self.listener.getsockname()[1]
        context = ssl.create_default_context()
        address = NatsAddress((f"tls://127.0.0.1:{port}",), "test", context, token="s3cret")
        errors: list[str] = []

        def attempt() -> None:
            try:
                try_bus(address)
            except BusError as error:
                errors.append(str(error))

        thread = threading.Thread(target=attempt, daemon=True)
        thread.start()
        thread.join(TIMEOUT)
        self.assertFalse(thread.is_alive())
        (text,) = errors
        return text

    def test_refused(self) -> None:
        """The try ends, and its text says that the certificate is the reason."""
        self.assertIn("CERTIFICATE_VERIFY_FAILED", self.attempt())

    def test_no_tls(self) -> None:
        """One without TLS is refused where TLS is wanted, and does not hear the token."""
        self.has_tls = False
        self.assertIn("TLS is wanted, and that server has none", self.attempt())
        self.assertEqual(self.heard, b"")

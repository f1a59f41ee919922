"""Tests for `chatserver.cluster.membership`: what the options say of NATS."""

from __future__ import annotations

import os
from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from chatserver.cluster.membership import check_cluster, check_reactor, nats_address
from chatserver.errors import OperatorError

CREDENTIALS = "-----BEGIN NATS USER JWT-----\nabc\n------END NATS USER JWT------\n"


class AddressTests(SynchronousTestCase):
    """Where NATS is, and what it is shown."""

    def address(self, cluster: str, ca: str | None = None, credentials: str | None = None) -> Any:
        """Return what these options say."""
        return nats_address(
            {
                "cluster": cluster,
                "cluster-prefix": "chat",
                "cluster-ca": ca,
                "cluster-credentials": credentials,
            }
        )

    def file(self, text: str, mode: int = 0o600) -> str:
        """Return the path of a new file with `text`."""
        path = self.mktemp()
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
        os.chmod(path, mode)
        return path

    def test_servers(self) -> None:
        """One or several servers; a tls: one is checked against the system's CAs."""
        plain = self.address("nats://a:4222, nats://b")
        self.assertEqual(plain.servers, ("nats://a:4222", "nats://b"))
        self.assertNotIn("tls", plain.options())
        self.assertIn("tls", self.address("tls://a").options())

    def test_no_servers(self) -> None:
        """What is no NATS server is told, and a password in it is not shown."""
        for text in ("", "a", "http://a", "nats://", "nats://a:99999", "nats://a/x", "nats://[::"):
            error = self.assertRaises(OperatorError, self.address, text)
            self.assertIn("is no NATS server: write nats://host:4222", str(error))
        error = self.assertRaises(OperatorError, self.address, "nats://me:secret@a")
        self.assertIn("--cluster-credentials FILE", str(error))
        self.assertNotIn("secret", str(error))

    def test_token(self) -> None:
        """A file has a token, which is not shown."""
        address = self.address("nats://a", credentials=self.file("s3cret\n"))
        self.assertEqual(address.options()["token"], "s3cret")
        self.assertNotIn("s3cret", repr(address))

    def test_credentials(self) -> None:
        """A file that begins with a JWT is handed on by its path."""
        path = self.file(CREDENTIALS)
        options = self.address("nats://a", credentials=path).options()
        self.assertEqual(options["user_credentials"], os.path.abspath(path))
        self.assertNotIn("token", options)

    def test_files(self) -> None:
        """A file that can't be used is told in one line that begins with it."""
        for option, path, text in (
            ("credentials", "none", "No such file"),
            ("credentials", self.file(""), "is empty"),
            ("credentials", self.file("s3cret", 0o644), "chmod 600"),
            ("ca", "none", "No such file"),
            ("ca", self.file("no certificate"), "there is no certificate in it"),
        ):
            error = self.assertRaises(OperatorError, self.address, "nats://a", **{option: path})
            self.assertTrue(str(error).startswith(f"{os.path.abspath(path)}: "), error)
            self.assertIn(text, str(error))
            self.assertEqual(error.option, f"cluster-{option}")


OPTIONS = {
    "cluster": "nats://127.0.0.1:1",
    "cluster-prefix": "chat",
    "cluster-ca": None,
    "cluster-credentials": None,
}


class CheckTests(SynchronousTestCase):
    """What a cluster needs."""

    def test_reactor(self) -> None:
        """The reactor must be asyncio's."""
        self.assertIn(
            "twistd --reactor asyncio",
            str(self.assertRaises(OperatorError, check_reactor, Clock())),
        )

    def test_database(self) -> None:
        """The database must be PostgreSQL."""
        error = self.assertRaises(OperatorError, check_cluster, OPTIONS, "sqlite")
        self.assertIn("--database postgresql://", str(error))

    def test_no_nats(self) -> None:
        """A NATS that is not there is told, with its address."""
        error = self.assertRaises(OperatorError, check_cluster, OPTIONS, "postgresql")
        self.assertIn("NATS at nats://127.0.0.1:1 cannot be used: ", str(error))
        self.assertTrue(str(error).isprintable())

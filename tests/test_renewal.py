"""Tests for `chatserver.renewal` and `chatserver.signals`, and for certificates of clients."""

from __future__ import annotations

import errno
import os
import signal
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase

from chatserver import signals as signals_module
from chatserver.certificates import (
    CertificateError,
    ServerCertificate,
    create_self_signed,
    load,
)
from chatserver.limits import CERTIFICATE_CHECK_INTERVAL
from chatserver.packets import Command, Packet
from chatserver.renewal import CertificateFiles, Renewal
from chatserver.signals import SighupHandler
from tests.blocking import Client, make_context
from tests.logs import keep_lines
from tests.processes import ProcessTestCase, until
from tests.test_certificates import certificate_pem, ec_key, key_pem, make_certificate

UNKN = Packet(Command.ERROR, b"UNKN")


class RenewalCase(TestCase):
    """A test with a certificate, and the log."""

    def setUp(self) -> None:
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir()
        self.certificate, self.key = self.folder / "server.crt", self.folder / "server.key"
        self.clock = Clock()
        self.now = datetime.now(UTC)
        self.lines = keep_lines(self)

    def renewal(self) -> Renewal:
        """Return what is tested, and stop it when the test ends."""
        files = CertificateFiles(str(self.certificate), str(self.key))
        renewal = Renewal(files, self.clock, lambda: self.now)
        self.addCleanup(renewal.stop)
        renewal.start()
        return renewal

    def write_new(self, name: str = "new") -> tuple[Path, Path]:
        """Make another pair beside the present one, and return its files."""
        certificate, key = self.folder / f"{name}.crt", self.folder / f"{name}.key"
        create_self_signed(str(certificate), str(key), self.now)
        return certificate, key

    def advance(self, **how: float) -> None:
        """Let time pass, on both clocks."""
        passed = timedelta(**how)
        self.now += passed
        self.clock.advance(passed.total_seconds())

    def wait(self) -> None:
        """Let the files be looked at."""
        self.advance(seconds=CERTIFICATE_CHECK_INTERVAL)


class RenewalTests(RenewalCase):
    """When the files change."""

    def test_change(self) -> None:
        """A new pair is taken within a minute, and told; files that stay are not read again."""
        renewal = self.renewal()
        before = renewal.present
        self.wait()
        self.assertIs(renewal.present, before)
        certificate, key = self.write_new()
        os.replace(certificate, self.certificate)
        os.replace(key, self.key)
        self.wait()
        self.assertNotEqual(renewal.present.fingerprint, before.fingerprint)
        self.assertEqual(len(self.lines), 1)
        self.assertIn(f"reloaded: SHA-256 fingerprint {renewal.present.fingerprint}", self.lines[0])

    def test_half(self) -> None:
        """A certificate whose key is still to come is told once, and taken when that is there."""
        renewal = self.renewal()
        before = renewal.present
        certificate, key = self.write_new()
        os.replace(certificate, self.certificate)
        self.wait()
        self.wait()
        self.assertIs(renewal.present, before)
        self.assertEqual(len(self.lines), 1)
        self.assertIn("[ERR] Certificate not reloaded, the present one stays: ", self.lines[0])
        os.replace(key, self.key)
        self.wait()
        self.assertIsNot(renewal.present, before)
        self.assertIn("Certificate reloaded", self.lines[-1])

    def test_link(self) -> None:
        """A link that is set to another file is a change, as certbot does it."""
        for path, target in zip((self.certificate, self.key), self.write_new("old"), strict=True):
            path.symlink_to(target)
        renewal = self.renewal()
        before = renewal.present
        for path, target in zip((self.certificate, self.key), self.write_new(), strict=True):
            path.unlink()
            path.symlink_to(target)
        self.wait()
        self.assertNotEqual(renewal.present.fingerprint, before.fingerprint)

    def test_files_gone(self) -> None:
        """Without its files the server goes on, and makes no new ones."""
        renewal = self.renewal()
        before = renewal.present
        self.certificate.unlink()
        self.key.unlink()
        self.wait()
        self.assertIs(renewal.present, before)
        self.assertFalse(self.certificate.exists())
        self.assertEqual(len(self.lines), 1)

    def test_half_in_between(self) -> None:
        """A key that comes while the files are being read is seen at the next look."""
        renewal = self.renewal()
        certificate, key = self.write_new()
        os.replace(certificate, self.certificate)
        read = CertificateFiles.load

        def load_and_go_on(files: CertificateFiles, now: datetime) -> ServerCertificate:
            try:
                return read(files, now)
            finally:
                if key.exists():
                    os.replace(key, self.key)

        self.patch(CertificateFiles, "load", load_and_go_on)
        self.wait()
        self.assertIn("is not the key", self.lines[-1])
        self.wait()
        self.assertIn(
            f"reloaded: SHA-256 fingerprint {renewal.present.fingerprint}", self.lines[-1]
        )

    def test_tried_again(self) -> None:
        """What could not be read for a while, without a change of the files, is taken when it
        can; it is told once that it could not.
        """
        renewal = self.renewal()
        before = renewal.present
        for path, new in zip((self.certificate, self.key), self.write_new(), strict=True):
            os.replace(new, path)
        read = CertificateFiles.load

        def fail(_files: CertificateFiles, _now: datetime) -> ServerCertificate:
            raise OSError(errno.EMFILE, "Too many open files")

        self.patch(CertificateFiles, "load", fail)
        self.wait()
        self.wait()
        self.assertIs(renewal.present, before)
        self.assertEqual(len(self.lines), 1)
        self.assertIn("Too many open files", self.lines[0])
        self.patch(CertificateFiles, "load", read)
        self.wait()
        self.assertIsNot(renewal.present, before)

    def test_not_yet_valid(self) -> None:
        """A certificate that is good from tomorrow on is taken then."""
        renewal = self.renewal()
        before = renewal.present
        key = ec_key()
        start = self.now + timedelta(days=1)
        new = make_certificate(key, start=start, end=start + timedelta(days=90))
        self.certificate.write_bytes(certificate_pem(new))
        self.key.write_bytes(key_pem(key))
        self.wait()
        self.assertIs(renewal.present, before)
        self.assertIn("is not valid before", self.lines[-1])
        self.advance(days=1)
        self.assertIsNot(renewal.present, before)

    def test_read_only_when_changed(self) -> None:
        """Files that have not changed are not opened; one whose mode has changed is."""
        self.renewal()
        reads: list[datetime] = []
        read = CertificateFiles.load

        def count(files: CertificateFiles, now: datetime) -> ServerCertificate:
            reads.append(now)
            return read(files, now)

        self.patch(CertificateFiles, "load", count)
        self.wait()
        self.assertEqual(reads, [])
        self.key.chmod(0o640)
        self.wait()
        self.wait()
        self.assertEqual(len(reads), 1)

    def test_reload(self) -> None:
        """Who asks for it is told each time, also why not."""
        renewal = self.renewal()
        renewal.reload()
        self.assertIn("Certificate reloaded", self.lines.pop())
        self.key.write_text("nonsense")
        for _ in range(2):
            renewal.reload()
            self.assertIn("holds no private key", self.lines.pop())


class DaysTests(RenewalCase):
    """How long the certificate is good."""

    def make(self, days: float) -> Renewal:
        """Return a certificate that ends in so many days."""
        key = ec_key()
        certificate = make_certificate(
            key, start=self.now - timedelta(days=1), end=self.now + timedelta(days=days)
        )
        self.certificate.write_bytes(certificate_pem(certificate))
        self.key.write_bytes(key_pem(key))
        self.key.chmod(0o600)
        return self.renewal()

    def test_start(self) -> None:
        """At the start the days left are told, from thirty days on as a warning."""
        for days, level in ((40, "INFO"), (29, "WARNING"), (0, "WARNING")):
            self.make(days + 0.5).tell()
            line = self.lines.pop()
            self.assertTrue(line.startswith(f"[{level}] Certificate: SHA-256"), line)
            self.assertIn(f"days left: {days}", line)

    def test_daily(self) -> None:
        """From thirty days on it is told once a day, and after its end as an error."""
        self.make(31.5)
        for _ in range(24):
            self.advance(hours=1)
        self.assertEqual(self.lines, [])
        for _ in range(3 * 24):
            self.advance(hours=1)
        self.assertIn(len(self.lines), (3, 4))
        self.assertTrue(all(line.startswith("[WARNING]") for line in self.lines))
        self.advance(days=28)
        self.assertTrue(self.lines[-1].startswith("[ERR]"), self.lines[-1])
        self.assertIn("expired", self.lines[-1])


class SighupTests(TestCase):
    """SIGHUP."""

    def test_actions(self) -> None:
        """Every action is taken, also after one that failed; after the end none is."""
        if os.name != "posix":
            self.skipTest("there is no such signal")
        calls: list[str] = []
        reactor: Any = type("Reactor", (), {"callFromThread": lambda _, act: act()})()

        def fail() -> None:
            calls.append("first")
            raise OSError

        sighup = SighupHandler(reactor, [fail, lambda: calls.append("second")])
        before = signal.getsignal(signal.SIGHUP)
        sighup.start()
        os.kill(os.getpid(), signal.SIGHUP)
        sighup.stop()
        self.assertEqual(calls, ["first", "second"])
        self.assertEqual(len(self.flushLoggedErrors(OSError)), 1)
        self.assertEqual(signal.getsignal(signal.SIGHUP), before)

    def test_terminal_gone(self) -> None:
        """A server whose terminal is closed ends, as without a handler; under nohup it goes on."""
        if os.name != "posix":
            self.skipTest("there is no such signal")
        reactor: Any = type("Reactor", (), {"callFromThread": lambda _, act: act()})()
        ends: list[int] = []
        calls: list[str] = []
        is_there = True
        self.addCleanup(signal.signal, signal.SIGTERM, signal.getsignal(signal.SIGTERM))
        signal.signal(signal.SIGTERM, lambda number, _: ends.append(number))
        self.addCleanup(signal.signal, signal.SIGHUP, signal.getsignal(signal.SIGHUP))
        self.patch(signals_module, "_terminals", lambda: [0] if is_there else [])
        for before, number_of_ends in ((signal.SIG_DFL, 1), (signal.SIG_IGN, 0)):
            is_there = True
            signal.signal(signal.SIGHUP, before)
            sighup = SighupHandler(reactor, [lambda: calls.append("act")])
            sighup.start()
            os.kill(os.getpid(), signal.SIGHUP)
            self.assertEqual((calls, ends), (["act"], []))
            is_there = False
            os.kill(os.getpid(), signal.SIGHUP)
            sighup.stop()
            self.assertEqual(len(ends), number_of_ends)
            self.assertEqual(len(calls), 2 - number_of_ends)
            calls.clear()
            ends.clear()


class ProcessTests(ProcessTestCase):
    """A real server."""

    def test_hang_up(self) -> None:
        """At SIGHUP new connections see the new certificate, open chats go on, a bad pair changes
        nothing, and the log goes on in a new file.
        """
        server = self.start()
        port = server.wait_for_port(lambda: server.log)
        alice, bob = self.chat(port)
        before = alice.fingerprint
        files = server.folder / "certs"
        log = server.folder / "logs" / "server.log"

        def sighup(sign: str) -> None:
            log.rename(log.with_suffix(".moved"))
            server.process.send_signal(signal.SIGHUP)
            until(lambda: sign in server.log, sign)

        (files / "server.crt").write_text("nonsense")
        sighup("Certificate not reloaded")
        self.assertEqual(self.connect(port).fingerprint, before)
        create_self_signed(str(files / "new.crt"), str(files / "new.key"), datetime.now(UTC))
        for kind in ("crt", "key"):
            (files / f"new.{kind}").replace(files / f"server.{kind}")
        sighup("Certificate reloaded")
        after = self.connect(port).fingerprint
        self.assertNotEqual(after, before)
        self.assertIn(after, server.log)
        alice.send(Command.MESSAGE, b"still here")
        self.assertEqual(bob.receive(), Packet(Command.MESSAGE, b"alice: still here"))
        self.assertNotIn("Traceback", server.log)

    def test_client_ca(self) -> None:
        """Only who shows a certificate of the CA gets in, with TLS 1.2 too; the log names its
        subject, and why others are refused.
        """
        authority, stranger = ec_key(), ec_key()
        folder = self.folder()
        now = datetime.now(UTC)
        span = {"start": now - timedelta(days=1), "end": now + timedelta(days=1)}
        ca = make_certificate(authority, subject="Our clients", authority=True, **span)
        (folder / "ca.crt").write_bytes(certificate_pem(ca))

        def context(signer: Any, subject: str) -> ssl.SSLContext:
            key = ec_key()
            made = make_certificate(key, subject=subject, issuer=("Our clients", signer), **span)
            file = folder / f"{len(os.listdir(folder))}.pem"
            file.write_bytes(certificate_pem(made) + key_pem(key))
            made_context = make_context()
            made_context.load_cert_chain(file)
            return made_context

        server = self.start("--client-ca", str(folder / "ca.crt"))
        port = server.wait_for_port(lambda: server.log)
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            good = context(authority, f"alice-{version.name.lower()}")
            good.maximum_version = version
            for _ in range(2):
                with Client(port, context=good) as client:
                    self.assertEqual(client.ask(0x7F), UNKN)
            bad = context(stranger, "mallory")
            nothing = make_context()
            for refused in (bad, nothing):
                refused.maximum_version = version
                # With TLS 1.3 a client only hears of it after its own handshake.
                with self.assertRaises(OSError), Client(port, context=refused) as client:
                    if client.ask(0x7F) is None:
                        raise ConnectionResetError
            self.assertIn(f"certificate of CN=alice-{version.name.lower()}", server.log)
        until(lambda: server.log.count("Handshake failed: ") == 4, "four refusals")
        self.assertIn("certificate refused: ", server.log)
        self.assertIn("peer did not return a certificate", server.log)
        self.assertNotIn("Traceback", server.log)


class ClientAuthorityTests(TestCase):
    """The file of the CAs."""

    def test_mistakes(self) -> None:
        """A file that is missing, empty, no CA's or expired is told with its name."""
        folder = Path(self.mktemp())
        folder.mkdir()
        now = datetime.now(UTC)
        pair = str(folder / "server.crt"), str(folder / "server.key")
        create_self_signed(*pair, now)

        def pem(**how: Any) -> bytes:
            return certificate_pem(make_certificate(ec_key(), **how))

        old = now - timedelta(days=3)
        for content, told in (
            (None, "cannot be read"),
            (b"", "holds no certificate"),
            (pem(end=now + timedelta(days=1)), "is not a CA's certificate"),
            (pem(authority=True, start=old, end=old + timedelta(days=1)), "has expired"),
        ):
            path = folder / "ca.crt"
            if content is not None:
                path.write_bytes(content)
            error = self.assertRaises(
                CertificateError, load, *pair, None, now, client_ca_path=str(path)
            )
            self.assertIn(f"{path}: ", str(error))
            self.assertIn(told, str(error))

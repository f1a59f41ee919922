"""The certificate while the server runs: read anew when its files change, watched for its end."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from OpenSSL import SSL
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator, IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger, LogLevel
from zope.interface import implementer

from chatserver.certificates import CertificateError, ServerCertificate, load, load_or_create
from chatserver.limits import CERTIFICATE_CHECK_INTERVAL, CERTIFICATE_WARNING_DAYS

_DAY = timedelta(days=1)

_Stamp = tuple[tuple[int, ...] | None, ...]


@dataclass(frozen=True, slots=True)
class CertificateFiles:
    """The PEM files that TLS needs, by their paths; see `chatserver.certificates.load`."""

    certificate: str
    private_key: str
    dh_params: str | None = None
    client_ca: str | None = None

    def load(self, now: datetime) -> ServerCertificate:
        """Return what is in the files, tried out.

        :raises CertificateError: they can't be used.
        """
        return load(
            self.certificate, self.private_key, self.dh_params, now, client_ca_path=self.client_ca
        )

    def load_or_create(self, now: datetime) -> tuple[ServerCertificate, bool]:
        """Return what is in the files, and whether certificate and key had to be made first.

        :raises CertificateError: they can't be made or can't be used.
        """
        return load_or_create(
            self.certificate, self.private_key, self.dh_params, now, client_ca_path=self.client_ca
        )

    def stamp(self) -> _Stamp:
        """Return what is another whenever a file is another, or can be read by others."""
        return tuple(
            _stamp(path)
            for path in (self.certificate, self.private_key, self.dh_params, self.client_ca)
            if path is not None
        )


def certificate_files(options: Mapping[str, str | None]) -> CertificateFiles:
    """Return the files that the server's `options` name, relative to the current folder."""

    def path(name: str) -> str | None:
        value = options[name]
        return os.path.abspath(value) if value else None

    certificate, key = path("certificate"), path("private-key")
    assert certificate is not None
    assert key is not None
    return CertificateFiles(certificate, key, path("dh-params"), path("client-ca"))


def _stamp(path: str) -> tuple[int, ...] | None:
    try:
        # It follows links: a link that is set to another file is another file.
        found = os.stat(path)
    except OSError:
        return None
    # Owner and mode change the last of these only.
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _utc_now() -> datetime:
    return datetime.now(UTC)


@implementer(IOpenSSLServerConnectionCreator)
class Renewal:
    """The present certificate, which makes the TLS of each new connection.

    A new one takes its place whenever it can be used; connections that are there keep theirs.
    (A context of OpenSSL's must not change once it is used: each certificate has its own.)

    :param files: where it is. If neither certificate nor key is there, they are made.
    :param clock: what the regular checks run on
    :param now: tells the time, in UTC
    :raises CertificateError: the files can't be made or can't be used.
    """

    _log = Logger()

    def __init__(
        self,
        files: CertificateFiles,
        clock: IReactorTime,
        now: Callable[[], datetime] = _utc_now,
    ) -> None:
        self._files = files
        self._now = now
        self._seen = files.stamp()
        self.present, self.is_new = files.load_or_create(now())
        if self.is_new:
            self._seen = files.stamp()
        self._complaint: tuple[_Stamp, str] | None = None
        self._told_at = now()
        self._checking = LoopingCall(self._check)
        self._checking.clock = clock

    def serverConnectionForTLS(self, protocol: Any) -> SSL.Connection:
        """Return the TLS of a new connection; see `IOpenSSLServerConnectionCreator`."""
        return self.present.tls_options.serverConnectionForTLS(protocol)

    def start(self) -> None:
        """Look from now on every `CERTIFICATE_CHECK_INTERVAL` whether the files have changed.

        Whenever a certificate ends within `CERTIFICATE_WARNING_DAYS`, tell it once a day.
        """
        self._checking.start(CERTIFICATE_CHECK_INTERVAL, now=False)

    def stop(self) -> None:
        """Look no more."""
        if self._checking.running:
            self._checking.stop()

    def tell(self, what: str = "Certificate") -> None:
        """Tell the log which certificate the server has, and how long it is good.

        :param what: how the line begins
        """
        now = self._told_at = self._now()
        left = self.present.not_after - now
        advice = (
            "; put a new certificate and its key at {certificate} and {key},"
            " where they are taken within a minute"
        )
        if left < timedelta(0):
            level = LogLevel.error
            end = "expired at {end:%Y-%m-%d %H:%M:%S} UTC and refused by clients" + advice
        elif self._ends_soon(now):
            level = LogLevel.warn
            end = "good until {end:%Y-%m-%d}, days left: {days}" + advice
        else:
            level = LogLevel.info
            end = "good until {end:%Y-%m-%d}, days left: {days}"
        self._log.emit(
            level,
            "{what}: SHA-256 fingerprint {fingerprint}, " + end,
            what=what,
            fingerprint=self.present.fingerprint,
            end=self.present.not_after,
            days=left.days,
            certificate=self._files.certificate,
            key=self._files.private_key,
        )
        if self.present.key_is_exposed:
            self._log.warn("The private key can be read by others: take that away with chmod 600")

    def reload(self) -> None:
        """Load the files, changed or not, and tell the log what has come of it.

        Files that can't be used are told in one line, and the present certificate stays.
        """
        self._complaint = None  # Who asks is told, also for the second time.
        self._load()

    def _check(self) -> None:
        # Files that could not be used are tried again: it may have been for want of descriptors,
        # or the certificate begins later.
        if self._complaint is not None or self._files.stamp() != self._seen:
            self._load()
        self._remind()

    def _load(self) -> None:
        # Before they are read: what changes meanwhile, the key after the certificate say, shows
        # at the next look.
        self._seen = self._files.stamp()
        try:
            present = self._files.load(self._now())
        except Exception as error:  # Whatever it is, the server has a certificate.
            known = isinstance(error, CertificateError)
            self._complain(str(error) if known else f"{type(error).__name__}: {error}")
        else:
            self._complaint = None
            self.present = present
            self.tell("Certificate reloaded")

    def _complain(self, reason: str) -> None:
        """Tell why the files can't be used, if it is not what was told of them before."""
        complaint = self._seen, reason
        if complaint != self._complaint:
            self._complaint = complaint
            self._log.error(
                "Certificate not reloaded, the present one stays: {reason}", reason=reason
            )

    def _remind(self) -> None:
        """Tell once a day, and at its end, that the certificate ends soon or has ended."""
        now = self._now()
        has_just_ended = self._told_at <= self.present.not_after < now
        if self._ends_soon(now) and (has_just_ended or now - self._told_at >= _DAY):
            self.tell()

    def _ends_soon(self, now: datetime) -> bool:
        return self.present.not_after - now <= CERTIFICATE_WARNING_DAYS * _DAY

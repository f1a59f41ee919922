"""Which server to trust: nothing is sent to one whose certificate is not vouched for.

Four kinds, from the one with the most help of others to the one with the least: `SystemRoots`,
`TrustFile`, `Fingerprint`, and `KnownHosts` for what a person has accepted before. There is none
that trusts everything.
"""

from __future__ import annotations

import os
import re
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import platformdirs
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from OpenSSL import SSL, crypto
from service_identity import CertificateError as NoNameError
from service_identity import VerificationError
from service_identity.pyopenssl import verify_hostname, verify_ip_address
from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from twisted.internet.ssl import (
    Certificate,
    TLSVersion,
    optionsForClientTLS,
    trustRootFromCertificates,
)
from zope.interface import implementer

from chatserver.client.errors import (
    CertificateError,
    ChangedCertificateError,
    UnknownCertificateError,
)


@implementer(IOpenSSLClientConnectionCreator)
class Verifier(ABC):
    """Makes the TLS of one connection after the other, and looks at the server's certificate."""

    def __init__(self, creator: IOpenSSLClientConnectionCreator) -> None:
        self._creator = creator

    def clientConnectionForTLS(self, tlsProtocol: Any) -> SSL.Connection:
        """Return the TLS of a new connection: Twisted's endpoints ask for it."""
        connection: SSL.Connection = self._creator.clientConnectionForTLS(tlsProtocol)
        self._prepare(connection)
        return connection

    @abstractmethod
    def _prepare(self, connection: SSL.Connection) -> None:
        """Set up the verification in the handshake."""

    @abstractmethod
    def check(self, connection: SSL.Connection) -> None:
        """Look at the certificate, once the handshake is done and before anything is sent.

        :raises CertificateError: it is not to be trusted
        """


class Trust(Protocol):
    """Says which servers to trust."""

    def verifier(self, host: str, port: int) -> Verifier:
        """Return what verifies the server at `host` and `port`.

        :raises CertificateError: that can't be done: a file can't be read, say
        """


@dataclass(frozen=True)
class SystemRoots:
    """Trusts whom the authorities that this system knows vouch for. The name must be right."""

    def verifier(self, host: str, port: int) -> Verifier:
        """See `Trust`."""
        return _Strict(host)


@dataclass(frozen=True)
class TrustFile:
    """Trusts the certificates in a PEM file and those that they vouch for. The name must be right.

    :param path: an authority's certificate, several, or the server's own
    """

    path: str | os.PathLike[str]

    def verifier(self, host: str, port: int) -> Verifier:
        """See `Trust`."""
        try:
            found = x509.load_pem_x509_certificates(Path(self.path).read_bytes())
        except OSError as error:
            raise CertificateError(f"{self.path}: cannot be read: {error.strerror}") from error
        except ValueError as error:
            raise CertificateError(f"{self.path}: holds no certificate in PEM form") from error
        roots = [Certificate(crypto.X509.from_cryptography(each)) for each in found]
        return _Strict(host, trustRootFromCertificates(roots))


class Fingerprint:
    """Trusts the one certificate with this SHA-256, whatever name or date is in it.

    :param text: 64 hex digits, with or without colons, as ``openssl x509 -noout -fingerprint
        -sha256`` and the server's log show it
    :raises ValueError: `text` is no such thing
    """

    def __init__(self, text: str) -> None:
        digits = re.sub(r"[:\s]", "", text)
        if re.fullmatch("[0-9A-Fa-f]{64}", digits) is None:
            raise ValueError(f"{text!r} is no SHA-256 fingerprint: 64 hex digits")
        self.fingerprint = bytes.fromhex(digits).hex(":").upper()

    def verifier(self, host: str, port: int) -> Verifier:
        """See `Trust`."""
        text = f"{host} does not show the certificate with the fingerprint {self.fingerprint}"
        return _Pinned(host, self.fingerprint, partial(CertificateError, text))


class KnownHosts:
    """Trusts a server that shows the certificate which was accepted for it before.

    One that was never accepted is trusted if `SystemRoots` would; else `UnknownCertificateError`
    has its fingerprint. Show it to somebody who can compare it, `add` it, and connect again.

    The file has a line for each server: ``host:port`` and the fingerprint. It is made when
    the first one is added.

    :param path: the file; None is `default_path`
    """

    def __init__(self, path: str | os.PathLike[str] | None = None) -> None:
        self.path = default_path() if path is None else Path(path)

    def verifier(self, host: str, port: int) -> Verifier:
        """See `Trust`."""
        known = self._find(host, port)
        if known is None:
            return _Unknown(host)
        number, fingerprint = known
        text = (
            f"the certificate of {host} has changed: it may be somebody else who answers there."
            " If its operator tells you that it has a new one, remove the old one:"
            f" {self.path}, line {number}"
        )
        return _Pinned(host, fingerprint, partial(ChangedCertificateError, text))

    def add(self, host: str, port: int, fingerprint: str) -> None:
        """Trust `host` and `port` with this certificate from now on.

        A line that is there for them already stays, and counts: where the certificate has
        changed, a person has to remove it.

        :raises CertificateError: the file can't be written
        :raises ValueError: that is no fingerprint
        """
        if self._find(host, port) is not None:
            return
        line = f"{_entry(host, port)} {Fingerprint(fingerprint).fingerprint}\n"
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            opener = partial(os.open, mode=0o600)
            with open(self.path, "a+", encoding="utf-8", opener=opener) as file:
                file.seek(0)
                if (text := file.read()) and not text.endswith("\n"):
                    line = "\n" + line
                file.write(line)
        except (OSError, ValueError) as error:
            raise CertificateError(f"{self.path}: cannot be written: {_reason(error)}") from error

    def _find(self, host: str, port: int) -> tuple[int, str] | None:
        """Return the number of the line for a server, and the fingerprint in it."""
        try:
            text = self.path.read_text("utf-8")
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise CertificateError(f"{self.path}: cannot be read: {_reason(error)}") from error
        for number, line in enumerate(text.splitlines(), 1):
            entry, *fingerprint = line.split(maxsplit=1)[:2] or [""]
            if entry.lower() == _entry(host, port):
                try:
                    return number, Fingerprint("".join(fingerprint)).fingerprint
                except ValueError as error:
                    raise CertificateError(f"{self.path}, line {number}: {error}") from error
        return None


def default_path() -> Path:
    """Return where `KnownHosts` are kept: in the user's folder for configuration."""
    return platformdirs.user_config_path("asyncchat", appauthor=False) / "known_hosts"


def fingerprint_of(connection: SSL.Connection) -> str:
    """Return the SHA-256 of the certificate that the server shows, as hex with colons."""
    certificate = connection.get_peer_certificate(as_cryptography=True)
    if certificate is None:
        raise CertificateError("the server shows no certificate")
    return certificate.fingerprint(hashes.SHA256()).hex(":").upper()


class _Strict(Verifier):
    """Refuses in the handshake what nobody vouches for, and a wrong name right after it.

    Twisted's own check of the name lets certificates pass that have none.

    :param trust_root: who vouches; None are the system's roots
    """

    def __init__(self, host: str, trust_root: Any = None) -> None:
        super().__init__(_tls_options(host, trust_root))
        self._host = host

    def _prepare(self, connection: SSL.Connection) -> None:
        _trust_leaves(connection)
        how = SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT
        connection.set_verify(how, lambda _, __, ___, ____, is_good: bool(is_good))

    def check(self, connection: SSL.Connection) -> None:
        if not _is_made_out_to(connection, self._host):
            raise CertificateError(f"the certificate is not made out to {self._host}")


class _Pinned(Verifier):
    """Trusts one certificate, whatever others say of it.

    :param refuse: makes the error for any other certificate
    """

    def __init__(self, host: str, fingerprint: str, refuse: Callable[[], CertificateError]) -> None:
        super().__init__(_tls_options(host))
        self._fingerprint = fingerprint
        self._refuse = refuse

    def _prepare(self, connection: SSL.Connection) -> None:
        connection.set_verify(SSL.VERIFY_PEER, lambda *_: True)

    def check(self, connection: SSL.Connection) -> None:
        if fingerprint_of(connection) != self._fingerprint:
            raise self._refuse()


class _Unknown(Verifier):
    """Trusts as the system's roots do, but looks at the certificate before it refuses."""

    def __init__(self, host: str) -> None:
        super().__init__(_tls_options(host))
        self._host = host
        self._is_trusted = True

    def _prepare(self, connection: SSL.Connection) -> None:
        self._is_trusted = True
        _trust_leaves(connection)
        connection.set_verify(SSL.VERIFY_PEER, self._note)

    def _note(self, _: object, __: object, error: int, depth: int, is_good: object) -> bool:
        """Note what OpenSSL thinks of one certificate of the chain; `check` acts upon it."""
        self._is_trusted = self._is_trusted and bool(is_good)
        return True

    def check(self, connection: SSL.Connection) -> None:
        if not (self._is_trusted and _is_made_out_to(connection, self._host)):
            raise UnknownCertificateError(self._host, fingerprint_of(connection))


def _tls_options(host: str, trust_root: Any = None) -> IOpenSSLClientConnectionCreator:
    return optionsForClientTLS(
        host,
        trustRoot=trust_root,
        extraCertificateOptions={"raiseMinimumTo": TLSVersion.TLSv1_2},
    )


def _trust_leaves(connection: SSL.Connection) -> None:
    """Let a server's own certificate be a root, also if it has not signed itself."""
    if (store := connection.get_context().get_cert_store()) is not None:
        store.set_flags(crypto.X509StoreFlags.PARTIAL_CHAIN)


def _is_made_out_to(connection: SSL.Connection, host: str) -> bool:
    """Tell whether the certificate that the server shows names `host`."""
    is_address = isIPAddress(host) or isIPv6Address(host)
    verify = verify_ip_address if is_address else verify_hostname
    try:
        verify(connection, host)
    except (VerificationError, NoNameError, ValueError):  # ValueError: it can't be read
        return False
    return True


def _entry(host: str, port: int) -> str:
    """Return how a server stands in the file of known hosts."""
    return f"[{host.lower()}]:{port}" if ":" in host else f"{host.lower()}:{port}"


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)

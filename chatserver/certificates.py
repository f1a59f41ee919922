"""The server's certificate and private key: made at the first start, checked at every start.

Whatever is wrong with the files shows here, before a client connects, as a
`CertificateError` whose text an operator can act upon.
"""

from __future__ import annotations

import os
import re
import socket
import stat
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from ipaddress import ip_address

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from OpenSSL import SSL, crypto
from twisted.internet._sslverify import IOpenSSLTrustRoot
from twisted.internet.ssl import (
    AcceptableCiphers,
    CertificateOptions,
    DiffieHellmanParameters,
    TLSVersion,
)
from twisted.python.filepath import FilePath
from zope.interface import implementer

from chatserver.errors import OperatorError
from chatserver.limits import MAX_SUBJECT_LENGTH
from chatserver.printable import escape

DEFAULT_CERTIFICATE = "certs/server.crt"
"""Where the certificate is, if nobody says otherwise: the reference server's file name."""

DEFAULT_PRIVATE_KEY = "certs/server.key"
"""Where the private key is, if nobody says otherwise: the reference server's file name."""

LIFETIME = timedelta(days=3650)
"""How long a certificate that we make is good for: the ten years that are usual for one
which each client is given by hand, since each renewal has to be handed out again."""

CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20:DHE+AESGCM:DHE+CHACHA20:!aNULL:!DSS"
"""What TLS 1.2 may use, as OpenSSL writes it: the "intermediate" list of Mozilla's Server Side
TLS. Twisted's own list also has RSA key exchange, with which a key stolen later opens every
chat that was recorded before."""

_CLOCK_SKEW = timedelta(days=1)  # a client whose clock is behind takes a new certificate too
_MAX_COMMON_NAME = 64  # ub-common-name, RFC 5280, appendix A.1
_MAX_HOST_NAME = 253  # RFC 1035, section 2.3.4: 255 bytes on the wire

# RFC 1123, section 2.1. A last label of digits alone would make it look like an address.
_HOST_NAME = re.compile(
    r"(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)*"
    r"(?!\d+\Z)[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?",
    re.ASCII | re.IGNORECASE,
)

# Found by its frame, since one file may hold EC parameters or the certificate as well.
_PRIVATE_KEY = re.compile(rb"-----BEGIN ([A-Z ]*PRIVATE KEY)-----.*?-----END \1-----\s*", re.DOTALL)

# What clients know: others load, and then no handshake succeeds.
_CURVES = (ec.SECP256R1, ec.SECP384R1, ec.SECP521R1)

_PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey


class CertificateError(OperatorError):
    """The certificate, the key or the DH parameters can't be used.

    The text is one line for the operator: the file, what is wrong, and what to do.
    """


@dataclass(frozen=True, slots=True)
class ServerCertificate:
    """What the server shows to its clients, ready for use.

    `tls_options` makes the TLS connections. `fingerprint` is the SHA-256 of the certificate, as
    ``openssl x509 -noout -fingerprint -sha256`` prints it. `not_after` is when it expires, in
    UTC. `key_is_exposed` tells that others than its owner have access to the key file; it is
    always false on Windows, whose file modes can't tell.
    """

    tls_options: CertificateOptions
    fingerprint: str
    not_after: datetime
    key_is_exposed: bool


def load_or_create(
    certificate_path: str,
    key_path: str,
    dh_params_path: str | None,
    now: datetime,
    *,
    client_ca_path: str | None = None,
) -> tuple[ServerCertificate, bool]:
    """Return the certificate in these files, and whether the two had to be made first.

    They are made if neither is there; see `create_self_signed` and `load`.

    :raises CertificateError: the files can't be made or can't be used.
    """
    missing = are_missing(certificate_path, key_path)
    if missing:
        create_self_signed(certificate_path, key_path, now)
    certificate = load(
        certificate_path, key_path, dh_params_path, now, client_ca_path=client_ca_path
    )
    return certificate, missing


def are_missing(certificate_path: str, key_path: str) -> bool:
    """Tell whether neither file is there, so that the server makes both.

    A dangling link counts as there: the operator meant a certificate of their own.
    """
    return not os.path.lexists(certificate_path) and not os.path.lexists(key_path)


def create_self_signed(certificate_path: str, key_path: str, now: datetime) -> None:
    """Make a key and a certificate for this host and for localhost, and write them as PEM.

    The key is ECDSA on P-256. The certificate is good from a day before `now`, an aware
    time, until `LIFETIME` after that, and can itself be given to clients as what to trust.
    Folders that are missing are made.

    :raises CertificateError: a file can't be written or is there already. Nothing that was
        written is left then.
    """
    if os.path.abspath(certificate_path) == os.path.abspath(key_path):
        raise CertificateError(
            f"{key_path}: is named for both the certificate and the key; give each its own file"
        )
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = _self_sign(key, socket.gethostname(), now)
    key_pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    certificate_pem = certificate.public_bytes(Encoding.PEM)
    with ExitStack() as undo:
        _write_new(key_path, 0o600, key_pem, undo)
        _write_new(certificate_path, 0o644, certificate_pem, undo)
        undo.pop_all()


def load(
    certificate_path: str,
    key_path: str,
    dh_params_path: str | None,
    now: datetime,
    *,
    client_ca_path: str | None = None,
) -> ServerCertificate:
    """Return the certificate in these PEM files, after trying whether TLS can use them at `now`.

    The first certificate in its file is the server's; those after it are sent along as its
    chain. DH parameters are for TLS 1.2 clients that know no elliptic curves; an OpenSSL of 4.0
    or later has groups of its own for those that name one. `now` is an aware time.

    With `client_ca_path` each client has to show a certificate for clients that a CA in this
    file has signed, directly or by way of others that the client sends along. There may be
    several CAs, roots or not; one of them at least has to be good at `now`.

    :raises CertificateError: a file is missing or of no use, the two don't belong together,
        or the certificate is not good at `now`.
    """
    _check_both_there(certificate_path, key_path)
    leaf, *chain = _read_certificates(certificate_path)
    key = _read_private_key(key_path)
    _check_validity(leaf, certificate_path, now)
    if _public_key(leaf, certificate_path) != key.public_key():
        raise CertificateError(
            f"{key_path}: is not the key of the first certificate in {certificate_path};"
            " put the two that belong together there, the server's own certificate first"
        )
    options = CertificateOptions(
        privateKey=crypto.PKey.from_cryptography_key(key),
        certificate=crypto.X509.from_cryptography(leaf),
        extraCertChain=[crypto.X509.from_cryptography(each) for each in chain],
        raiseMinimumTo=TLSVersion.TLSv1_2,
        acceptableCiphers=AcceptableCiphers.fromOpenSSLCipherString(CIPHERS),
        dhParameters=_read_dh_parameters(dh_params_path),
        trustRoot=_read_client_ca(client_ca_path, now),
    )
    try:
        options.getContext()
    except SSL.Error as error:
        raise CertificateError(
            f"{certificate_path}: refused by OpenSSL: {_ssl_reason(error)};"
            " use a certificate with an ECDSA key or an RSA key of 2048 bits or more,"
            " signed with SHA-256"
        ) from error
    return ServerCertificate(
        tls_options=options,
        fingerprint=leaf.fingerprint(hashes.SHA256()).hex(":").upper(),
        not_after=leaf.not_valid_after_utc,
        key_is_exposed=_is_exposed(key_path),
    )


def check_others(dh_params_path: str | None, client_ca_path: str | None, now: datetime) -> None:
    """Try what `load` takes beside the certificate and its key.

    :raises CertificateError: as `load` does
    """
    _read_dh_parameters(dh_params_path)
    _read_client_ca(client_ca_path, now)


def read_certificate(path: str) -> bytes:
    """Return the first certificate in a PEM file, as it is sent (DER).

    :raises CertificateError: there is none
    """
    return _read_certificates(path)[0].public_bytes(Encoding.DER)


def _self_sign(key: ec.EllipticCurvePrivateKey, host: str, now: datetime) -> x509.Certificate:
    """Return a certificate for `key` that names `host` and this machine."""
    names: list[x509.GeneralName] = [x509.DNSName("localhost")]
    if _is_host_name(host) and host.lower() != "localhost":
        names.append(x509.DNSName(host))
    names += [x509.IPAddress(ip_address(each)) for each in ("127.0.0.1", "::1")]
    # Only a label, and what another character means there is up to who reads it.
    common_name = host[:_MAX_COMMON_NAME] if host.isascii() and host.isprintable() else ""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name or "localhost")])
    start = now - _CLOCK_SKEW
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    # No authority, so that with a stolen key nobody can make certificates for other hosts
    # that our clients would believe. No KeyUsage, as OpenSSL before 3 takes a certificate as
    # signed by itself only if it may sign certificates, which strict clients forbid to all
    # but an authority. The identifiers are what Python 3.13's strict check looks for.
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start + LIFETIME)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(identifier, critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier),
            critical=False,
        )
        .sign(key, hashes.SHA256())
    )


def _is_host_name(host: str) -> bool:
    """Tell whether `host` is a name that the DNS allows for a host."""
    return len(host) <= _MAX_HOST_NAME and _HOST_NAME.fullmatch(host) is not None


def _write_new(path: str, mode: int, data: bytes, undo: ExitStack) -> None:
    """Write `data` to a new file that has `mode` from the moment it exists.

    What takes the file away again is added to `undo`.
    """
    try:
        os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
        with open(path, "xb", opener=partial(os.open, mode=mode)) as file:
            undo.callback(_remove, path)
            file.write(data)
    except OSError as error:
        raise CertificateError(
            f"{path}: cannot be written: {_reason(error)};"
            " let the server's user write there, or name another file"
        ) from error


def _remove(path: str) -> None:
    with suppress(OSError):
        os.remove(path)


def _check_both_there(certificate_path: str, key_path: str) -> None:
    """Raise `CertificateError` if only one of the two files is there."""
    for here, there, its in (
        (certificate_path, key_path, "the certificate"),
        (key_path, certificate_path, "the key"),
    ):
        if os.path.lexists(here) and not os.path.lexists(there):
            raise CertificateError(
                f"{there}: is missing, while {its} {here} is there;"
                f" put the missing one there, or move {here} away to have a new pair made"
            )


def _read(path: str) -> bytes:
    """Return the bytes of a regular file: a pipe could keep its reader waiting for ever."""
    try:
        with open(path, "rb", opener=_open_at_once) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise CertificateError(
                    f"{path}: is a pipe or a device; put a regular file there, or a link to one"
                )
            return file.read()
    except OSError as error:
        raise CertificateError(
            f"{path}: cannot be read: {_reason(error)};"
            " let the server's user read it, or name another file"
        ) from error


def _open_at_once(path: str, flags: int) -> int:
    """Open a file, not waiting for who writes to it if it is a pipe."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def _read_certificates(path: str) -> list[x509.Certificate]:
    """Return the certificates in a PEM file, one or more, in their order."""
    try:
        return x509.load_pem_x509_certificates(_read(path))
    except ValueError as error:
        raise CertificateError(
            f"{path}: holds no certificate in PEM form; it has to start with"
            " -----BEGIN CERTIFICATE----- (openssl x509 -inform DER makes that of a DER file)"
        ) from error


def _read_private_key(path: str) -> _PrivateKey:
    """Return the private key in a PEM file, in any of PKCS#8, PKCS#1 and SEC 1."""
    found = _PRIVATE_KEY.search(_read(path))
    if found is None:
        raise CertificateError(
            f"{path}: holds no private key in PEM form; it has to start with"
            " -----BEGIN PRIVATE KEY----- (openssl pkey -inform DER makes that of a DER file)"
        )
    try:
        key = load_pem_private_key(found[0], password=None)
    except TypeError as error:
        raise CertificateError(
            f"{path}: is protected by a passphrase, which nobody can type at a server's start;"
            " take it off with openssl pkey, and keep the file to the server's user"
        ) from error
    except UnsupportedAlgorithm as error:
        raise _unsupported(path) from error
    except ValueError as error:
        raise CertificateError(
            f"{path}: holds a private key that is damaged or not in a form of OpenSSL's;"
            " copy it again, or make a new one with openssl genpkey"
        ) from error
    if not isinstance(key, _PrivateKey):
        raise _unsupported(path)
    if isinstance(key, ec.EllipticCurvePrivateKey) and not isinstance(key.curve, _CURVES):
        raise _unsupported(path)
    return key


def _is_exposed(path: str) -> bool:
    """Tell whether others than the file's owner have access to it, where modes tell that."""
    if os.name != "posix":
        return False
    with suppress(OSError):  # it may have gone since it was read
        return bool(os.stat(path).st_mode & 0o077)
    return False


def _public_key(certificate: x509.Certificate, path: str) -> object:
    """Return the public key of `certificate`, of whatever kind."""
    try:
        return certificate.public_key()
    except (UnsupportedAlgorithm, ValueError) as error:
        raise _unsupported(path) from error


def _unsupported(path: str) -> CertificateError:
    return CertificateError(
        f"{path}: holds a kind of key that TLS clients don't know;"
        " use RSA, ECDSA (on P-256, P-384 or P-521) or Ed25519"
    )


def _check_validity(certificate: x509.Certificate, path: str, now: datetime) -> None:
    """Raise `CertificateError` if `certificate` is not good at `now`."""
    start, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if now > end:
        raise CertificateError(
            f"{path}: has expired at {end:%Y-%m-%d %H:%M:%S} UTC; put a new certificate there"
        )
    if now < start:
        raise CertificateError(
            f"{path}: is not valid before {start:%Y-%m-%d %H:%M:%S} UTC;"
            " set this machine's clock, or put another certificate there"
        )


def _read_dh_parameters(path: str | None) -> DiffieHellmanParameters | None:
    """Return the DH parameters in a PEM file, after trying them on a context of their own."""
    if path is None:
        return None
    _read(path)
    try:
        # Not with cryptography, which is about to drop finite-field Diffie-Hellman.
        SSL.Context(SSL.TLS_METHOD).load_tmp_dh(path)
    except SSL.Error as error:
        raise CertificateError(
            f"{path}: holds no DH parameters that OpenSSL takes: {_ssl_reason(error)};"
            f" make them with: openssl dhparam -out {path} 2048"
        ) from error
    parameters: DiffieHellmanParameters = DiffieHellmanParameters.fromFile(FilePath(path))
    return parameters


@implementer(IOpenSSLTrustRoot)
class _ClientAuthorities:
    """The CAs that sign clients' certificates. Twisted's own does not tell clients which."""

    def __init__(self, certificates: list[x509.Certificate]) -> None:
        self._certificates = [crypto.X509.from_cryptography(each) for each in certificates]

    # Twisted declares the name private, but no other place comes before a context is used.
    def _addCACertsToContext(self, context: SSL.Context) -> None:
        store = context.get_cert_store()
        assert store is not None
        # An intermediate CA in the file is enough, without the root above it.
        store.set_flags(crypto.X509StoreFlags.PARTIAL_CHAIN)
        for certificate in self._certificates:
            store.add_cert(certificate)
        # A client that has several certificates chooses by it.
        context.set_client_ca_list([each.get_subject() for each in self._certificates])


def _read_client_ca(path: str | None, now: datetime) -> _ClientAuthorities | None:
    """Return the CAs in a PEM file, of which one or more are good at `now`."""
    if path is None:
        return None
    authorities = _read_certificates(path)
    for certificate in authorities:
        if not _may_sign(certificate):
            raise CertificateError(
                f"{path}: {escape(describe_subject(certificate))} is not a CA's certificate;"
                " put those of the CAs there that sign the clients' certificates"
            )
    # One that has expired may stay beside the next: it would be a pity not to start for that.
    _check_validity(max(authorities, key=partial(_preference, now=now)), path, now)
    return _ClientAuthorities(authorities)


def _may_sign(certificate: x509.Certificate) -> bool:
    """Tell whether this is a CA's certificate, as OpenSSL sees it."""
    try:
        constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
    except x509.ExtensionNotFound:
        return certificate.version is x509.Version.v1  # There are no extensions in it.
    except (ValueError, x509.DuplicateExtension):
        return False
    return constraints.value.ca


def _preference(certificate: x509.Certificate, now: datetime) -> tuple[bool, datetime]:
    """Return what is more for a certificate that is good at `now`, or ends later."""
    start, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    return start <= now <= end, end


def describe_subject(certificate: x509.Certificate) -> str:
    """Return whose certificate this is, as RFC 4514 writes it; its serial number without that.

    It is whatever the certificate says, and cut after `MAX_SUBJECT_LENGTH`.
    """
    try:
        text = certificate.subject.rfc4514_string()
    except ValueError:  # not in the form that a name has to have
        text = ""
    if len(text) > MAX_SUBJECT_LENGTH:
        return f"{text[:MAX_SUBJECT_LENGTH]}..."
    return text or f"serial number {certificate.serial_number:X}"


def _reason(error: OSError) -> str:
    return error.strerror or type(error).__name__


def _ssl_reason(error: SSL.Error) -> str:
    """Return what OpenSSL says is wrong: each of its reasons, innermost first."""
    reasons = [reason for _, _, reason in error.args[0] if reason] if error.args else []
    return ", ".join(reasons) or "unknown error"

"""The files of certificate and key, and real handshakes with what is loaded from them."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import ssl
import stat
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa, x25519
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from OpenSSL import SSL, crypto
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.ssl import Certificate, optionsForClientTLS
from twisted.internet.task import Clock
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.test.iosim import FakeTransport, connect
from twisted.trial.unittest import SkipTest, SynchronousTestCase

from chatserver.certificates import (
    CertificateError,
    ServerCertificate,
    create_self_signed,
    describe_subject,
    load,
    load_or_create,
)

NOW = datetime.now(UTC)
DAY = timedelta(days=1)

# The group ffdhe2048 of RFC 7919, appendix A.1, and a group of 512 bits.
DH_2048 = b"""-----BEGIN DH PARAMETERS-----
MIIBCAKCAQEA//////////+t+FRYortKmq/cViAnPTzx2LnFg84tNpWp4TZBFGQz
+8yTnc4kmz75fS/jY2MMddj2gbICrsRhetPfHtXV/WVhJDP1H18GbtCFY2VVPe0a
87VXE15/V8k1mE8McODmi3fipona8+/och3xWKE2rec1MKzKT0g6eXq8CrGCsyT7
YdEIqUuyyOP7uWrat2DX9GgdT0Kj3jlN9K5W7edjcrsZCwenyO4KbXCeAvzhzffi
7MA0BM0oNC9hkXL+nOmFg/+OTxIy7vKBg8P+OxtMb61zO7X8vC7CIAXFjvGDfRaD
ssbzSibBsu/6iGtCOGEoXJf//////////wIBAg==
-----END DH PARAMETERS-----
"""
DH_512 = b"""-----BEGIN X9.42 DH PARAMETERS-----
MIGlAkEAoTXiJMsh8Q62g5/WMifX/PvBcCUVheVFm3AqC1lPAsOPv7DqQg5atj6P
ybjI96aLbkBqM9KPM3SyZgAQqhA7DwJBAIMKlmrMx2Z4LLxDoC9AunnbXH0KNhcX
w5ZKQO7sOFbPnYOyxb1Cf9OdwWw1mmZVOnTBjIv7rLuXH6AFSMcYDoECHQD0yJ+7
IiTdEGEqgkFkzBLLZWj16RF6/jepasiB
-----END X9.42 DH PARAMETERS-----
"""

Key = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey


@cache
def rsa_key() -> rsa.RSAPrivateKey:
    """Return an RSA key, which takes long to make, and so is always the same."""
    return rsa.generate_private_key(65537, 2048)


def ec_key() -> ec.EllipticCurvePrivateKey:
    """Return a new key on P-256."""
    return ec.generate_private_key(ec.SECP256R1())


def make_certificate(
    key: Key,
    *,
    subject: str = "localhost",
    issuer: tuple[str, Key] | None = None,
    authority: bool = False,
    start: datetime = NOW - DAY,
    end: datetime = NOW + DAY,
    more: x509.ExtensionType | None = None,
) -> x509.Certificate:
    """Return a certificate for `key`, signed by itself or by `issuer`, a name and a key.

    `more` is an extension that it has as well.
    """
    issuer_name, signer = issuer or (subject, key)

    def name(text: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])

    builder = (
        x509.CertificateBuilder()
        .subject_name(name(subject))
        .issuer_name(name(issuer_name))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(end)
        .add_extension(x509.BasicConstraints(authority, None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(subject)]), critical=False)
    )
    if more is not None:
        builder = builder.add_extension(more, critical=False)
    return builder.sign(
        signer, None if isinstance(signer, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    )


def certificate_pem(certificate: x509.Certificate) -> bytes:
    """Return a certificate as PEM."""
    return certificate.public_bytes(Encoding.PEM)


def key_pem(
    key: Any,
    form: PrivateFormat = PrivateFormat.PKCS8,
    encryption: KeySerializationEncryption | None = None,
) -> bytes:
    """Return a private key as PEM."""
    pem: bytes = key.private_bytes(Encoding.PEM, form, encryption or NoEncryption())
    return pem


def openssl(*arguments: str) -> str:
    """Run the openssl command and return what it prints."""
    if shutil.which("openssl") is None:
        raise SkipTest("needs the openssl command")
    return subprocess.run(
        ["openssl", *arguments], check=True, capture_output=True, text=True, timeout=30
    ).stdout


def connect_tls(client: SSL.Context, server: ServerCertificate) -> tuple[Any, Any]:
    """Let a client of pyOpenSSL and the server shake hands; return their connections.

    :raises SSL.Error: the server or the client refuses.
    """
    theirs = SSL.Connection(client, None)
    return theirs, accept_tls(theirs, server)


def accept_tls(theirs: Any, server: ServerCertificate) -> Any:
    """Let a client's connection and the server shake hands; return the server's connection.

    :raises SSL.Error: the server or the client refuses.
    """
    ours = SSL.Connection(server.tls_options.getContext(), None)
    ours.set_accept_state()
    theirs.set_connect_state()
    for _ in range(5):
        for here, there in ((theirs, ours), (ours, theirs)):
            with contextlib.suppress(SSL.WantReadError):
                here.do_handshake()
            move(here, there)
    return ours


def move(here: Any, there: Any) -> None:
    """Bring what one connection has to send to the other."""
    with contextlib.suppress(SSL.WantReadError):
        there.bio_write(here.bio_read(0x10000))


def client_context(
    version: int | None = None, ciphers: bytes | None = None, trust: bytes | None = None
) -> SSL.Context:
    """Return a client of one TLS version, which looks at the certificate if `trust` is given."""
    context = SSL.Context(SSL.TLS_METHOD)
    if version is not None:
        context.set_min_proto_version(version)
        context.set_max_proto_version(version)
    if trust is not None:
        store = context.get_cert_store()
        assert store is not None
        store.add_cert(crypto.load_certificate(crypto.FILETYPE_PEM, trust))
        context.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT)
    if ciphers is not None:
        context.set_cipher_list(ciphers)
    return context


def connect_python(context: ssl.SSLContext, server: ServerCertificate, host: str) -> None:
    """Let a client of Python's ssl module and the server shake hands.

    :raises ssl.SSLError: the client does not believe the certificate.
    """
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = context.wrap_bio(to_client, to_server, server_hostname=host)
    ours = SSL.Connection(server.tls_options.getContext(), None)
    ours.set_accept_state()
    for _ in range(5):
        try:
            client.do_handshake()
            return
        except ssl.SSLWantReadError:
            pass
        ours.bio_write(to_server.read())
        with contextlib.suppress(SSL.WantReadError):
            ours.do_handshake()
        to_client.write(ours.bio_read(0x10000))
    raise AssertionError("the handshake came to no end")


class Case(SynchronousTestCase):
    """A test with a folder of its own and the names of two files in it."""

    def setUp(self) -> None:
        """Make the folder."""
        self.folder = self.mktemp()
        os.makedirs(self.folder)
        self.certificate = self.path("server.crt")
        self.key = self.path("server.key")

    def path(self, name: str) -> str:
        """Return where `name` is in the folder."""
        return os.path.join(self.folder, name)

    def write(self, path: str, *parts: bytes) -> None:
        """Write a file, for its owner only."""
        with open(path, "wb") as file:
            file.write(b"".join(parts))
        os.chmod(path, 0o600)

    def read(self, path: str) -> bytes:
        """Return what is in a file."""
        with open(path, "rb") as file:
            return file.read()

    def write_pair(self, key: Key, **how: Any) -> None:
        """Write `key` and a certificate for it."""
        self.write(self.key, key_pem(key))
        self.write(self.certificate, certificate_pem(make_certificate(key, **how)))

    def load(self, dh_params: str | None = None) -> ServerCertificate:
        """Load the two files."""
        return load(self.certificate, self.key, dh_params, NOW)

    def assert_refused(self, path: str, *parts: str, dh_params: str | None = None) -> None:
        """Check that loading fails with one line that starts with `path` and has `parts`."""
        self.assert_plain(lambda: self.load(dh_params), path, *parts)

    def assert_plain(self, act: Callable[[], object], path: str, *parts: str) -> None:
        """Check that `act` fails with one line that starts with `path` and has `parts`."""
        text = str(self.assertRaises(CertificateError, act))
        self.assertTrue(text.startswith(f"{path}: "), text)
        self.assertTrue(text.isprintable(), text)
        self.assertIn("; ", text, "says what to do")
        for part in parts:
            self.assertIn(part, text)


class CreateTests(Case):
    """The pair that is made at the first start."""

    def create(self) -> x509.Certificate:
        """Make the pair and return the certificate."""
        create_self_signed(self.certificate, self.key, NOW)
        return x509.load_pem_x509_certificate(self.read(self.certificate))

    def names(self, host: str) -> tuple[str, list[str]]:
        """Return the common name and the DNS names that `host` gets."""
        self.patch(socket, "gethostname", lambda: host)
        certificate = self.create()
        os.remove(self.certificate)
        os.remove(self.key)
        (common,) = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
        addresses = extension.value.get_values_for_type(x509.IPAddress)
        self.assertEqual([str(each) for each in addresses], ["127.0.0.1", "::1"])
        return str(common.value), extension.value.get_values_for_type(x509.DNSName)

    def test_names(self) -> None:
        """The certificate names this host, and localhost by name and addresses."""
        self.assertEqual(
            self.names("chat.example"), ("chat.example", ["localhost", "chat.example"])
        )

    def test_same_name_once(self) -> None:
        """A host that calls itself localhost is named once."""
        self.assertEqual(self.names("LocalHost"), ("LocalHost", ["localhost"]))

    def test_host_names_that_are_none(self) -> None:
        """A name which the DNS does not allow stands in the subject at most."""
        for host, common in (
            ("", "localhost"),
            ("büro", "localhost"),
            ("a\nb", "localhost"),
            ("my_host", "my_host"),
            ("192.0.2.7", "192.0.2.7"),
            ("a..b", "a..b"),
            ("-a", "-a"),
            ("a" * 64, "a" * 64),
        ):
            self.assertEqual(self.names(host), (common, ["localhost"]), host)

    def test_long_host_name(self) -> None:
        """A name longer than X.509 allows for a subject is cut there, and whole beside it."""
        host = "a" * 63 + ".example"
        self.assertEqual(self.names(host), (host[:64], ["localhost", host]))

    def test_lifetime(self) -> None:
        """It is good from a day before now, for ten years."""
        certificate = self.create()
        start = (NOW - DAY).replace(microsecond=0)
        self.assertEqual(certificate.not_valid_before_utc, start)
        self.assertEqual(certificate.not_valid_after_utc, start + timedelta(days=3650))

    def test_modes(self) -> None:
        """The key is for its owner only from the moment it exists; others see the certificate."""
        if os.name != "posix":
            raise SkipTest("file modes are POSIX's")
        self.addCleanup(os.umask, os.umask(0))
        modes = {}
        really_open = os.open

        def spy(path: str, flags: int, mode: int = 0o777) -> int:
            descriptor = really_open(path, flags, mode)
            modes[path] = stat.S_IMODE(os.fstat(descriptor).st_mode)
            return descriptor

        self.patch(os, "open", spy)
        self.create()
        self.assertEqual(modes, {self.key: 0o600, self.certificate: 0o644})
        self.assertEqual(stat.S_IMODE(os.stat(self.key).st_mode), 0o600)

    def test_folders(self) -> None:
        """Folders that are missing are made, for each of the files."""
        self.certificate = self.path("a/b/server.crt")
        self.key = self.path("c/server.key")
        self.create()
        self.load()

    def test_no_half_pair(self) -> None:
        """A certificate that can't be written takes the key with it, and its own first half."""
        really_open = os.open

        def fail(path: str, flags: int, mode: int = 0o777) -> int:
            descriptor = really_open(path, flags, mode)
            if path == self.certificate:
                os.close(descriptor)
                return really_open(path, os.O_RDONLY)  # which no byte can be written to
            return descriptor

        self.patch(os, "open", fail)
        self.assert_plain(self.create, self.certificate, "cannot be written")
        self.assertEqual(os.listdir(self.folder), [])

    def test_overwrites_nothing(self) -> None:
        """A file that is there already stays as it is, and no other is left beside it."""
        for path in (self.certificate, self.key):
            self.write(path, b"precious")
            self.assert_plain(self.create, path, "cannot be written")
            self.assertEqual(self.read(path), b"precious")
            self.assertEqual(os.listdir(self.folder), [os.path.basename(path)])
            os.remove(path)

    def test_no_folder(self) -> None:
        """A folder that can't be made is told in one line."""
        self.write(self.path("file"), b"")
        self.key = self.path("file/server.key")
        self.assert_plain(self.create, self.key, "cannot be written")

    def test_one_name(self) -> None:
        """One name for both files is told, and nothing is written."""
        self.key = self.certificate
        self.assert_plain(self.create, self.key, "both")
        self.assertEqual(os.listdir(self.folder), [])


class TrustTests(Case):
    """Clients that are given the certificate which was made as what to trust."""

    def setUp(self) -> None:
        """Make the pair and load it."""
        super().setUp()
        self.server, _ = load_or_create(self.certificate, self.key, None, NOW)

    def test_python(self) -> None:
        """Python's default context believes it under each of its names."""
        context = ssl.create_default_context(cafile=self.certificate)
        for host in ("localhost", "127.0.0.1", "::1"):
            connect_python(context, self.server, host)

    def test_python_strict(self) -> None:
        """So does the strict check that is Python's default from 3.13, with its partial chain."""
        context = ssl.create_default_context(cafile=self.certificate)
        context.verify_flags |= ssl.VERIFY_X509_STRICT
        connect_python(context, self.server, "localhost")
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        connect_python(context, self.server, "localhost")

    def test_python_other_host(self) -> None:
        """It is good for no other host."""
        context = ssl.create_default_context(cafile=self.certificate)
        with self.assertRaises(ssl.SSLCertVerificationError):
            connect_python(context, self.server, "other.example")

    def test_no_authority(self) -> None:
        """Who has its key can't make certificates for other hosts that a client believes."""
        context = ssl.create_default_context(cafile=self.certificate)
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT  # which has other complaints first
        made = x509.load_pem_x509_certificate(self.read(self.certificate))
        (common,) = made.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        signer = load_pem_private_key(self.read(self.key), None)
        assert isinstance(signer, ec.EllipticCurvePrivateKey)
        key = ec_key()
        forged = make_certificate(key, subject="other.example", issuer=(str(common.value), signer))
        self.write(self.key, key_pem(key))
        self.write(self.certificate, certificate_pem(forged), certificate_pem(made))
        with self.assertRaises(ssl.SSLCertVerificationError) as caught:
            connect_python(context, self.load(), "other.example")
        self.assertIn("CA", caught.exception.verify_message)

    def test_twisted(self) -> None:
        """Twisted's client believes it, and data goes both ways."""
        trust = Certificate.loadPEM(self.read(self.certificate))
        clock = Clock()  # what is written waits for the reactor's next turn
        received = []

        class Client(Protocol):
            def connectionMade(self) -> None:
                assert self.transport is not None
                self.transport.write(b"ping")

            def dataReceived(self, data: bytes) -> None:
                received.append(data)

        class Echo(Protocol):
            def dataReceived(self, data: bytes) -> None:
                assert self.transport is not None
                self.transport.write(data)

        def tls(options: Any, is_client: bool, protocol: type[Protocol]) -> Any:
            factory = Factory.forProtocol(protocol)
            wrapper = TLSMemoryBIOFactory(options, is_client, factory, clock=clock)
            return wrapper.buildProtocol(None)

        client = tls(optionsForClientTLS("localhost", trustRoot=trust), True, Client)
        server = tls(self.server.tls_options, False, Echo)
        pump = connect(server, FakeTransport(server, True), client, FakeTransport(client, False))
        for _ in range(3):
            pump.flush()
            clock.advance(0)
        pump.flush()
        self.assertEqual(received, [b"ping"])

    def test_bundled_openssl_strict(self) -> None:
        """The OpenSSL that comes with cryptography, often a newer one, is as content."""
        certificate = crypto.load_certificate(crypto.FILETYPE_PEM, self.read(self.certificate))
        store = crypto.X509Store()
        store.add_cert(certificate)
        store.set_flags(crypto.X509StoreFlags.X509_STRICT)
        crypto.X509StoreContext(store, certificate).verify_certificate()

    def test_openssl_verify(self) -> None:
        """``openssl verify`` believes it, strictly and for a server."""
        options = ("-x509_strict", "-purpose", "sslserver", "-verify_hostname", "localhost")
        openssl("verify", *options, "-CAfile", self.certificate, self.certificate)

    def test_openssl_client(self) -> None:
        """``openssl s_client`` believes it, over a real socket."""
        openssl("version")
        with socket.create_server(("127.0.0.1", 0)) as listener:
            listener.settimeout(10)
            command = ["openssl", "s_client", "-connect", f"127.0.0.1:{listener.getsockname()[1]}"]
            command += ["-CAfile", self.certificate, "-verify_return_error"]
            command += ["-verify_hostname", "localhost"]
            with subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
            ) as client:
                accepted, _ = listener.accept()
                with accepted:
                    accepted.setblocking(True)
                    ours = SSL.Connection(self.server.tls_options.getContext(), accepted)
                    ours.set_accept_state()
                    ours.do_handshake()
                    output, _ = client.communicate(timeout=10)
        self.assertEqual(client.returncode, 0, output)
        self.assertIn(b"Verify return code: 0 (ok)", output)


class LoadTests(Case):
    """What is told about a pair that is good, and what each bad one is refused with."""

    def test_load_or_create(self) -> None:
        """The pair is made once, and the same one is loaded after that."""
        first, created = load_or_create(self.certificate, self.key, None, NOW)
        self.assertTrue(created)
        second, created = load_or_create(self.certificate, self.key, None, NOW)
        self.assertFalse(created)
        self.assertEqual(first.fingerprint, second.fingerprint)

    def test_half_a_pair(self) -> None:
        """One file without the other is told, and which; nothing is made."""
        for here, there in ((self.certificate, self.key), (self.key, self.certificate)):
            self.write(here, b"")
            self.assert_refused(there, "missing", here)
            self.assert_plain(
                lambda: load_or_create(self.certificate, self.key, None, NOW), there, "missing"
            )
            self.assertEqual(os.listdir(self.folder), [os.path.basename(here)])
            os.remove(here)

    def test_dangling_links(self) -> None:
        """Links to files that are gone are not taken for a first start."""
        if os.name != "posix":
            raise SkipTest("links need a privilege on Windows")
        for path in (self.certificate, self.key):
            os.symlink("gone", path)
        self.assert_plain(
            lambda: load_or_create(self.certificate, self.key, None, NOW),
            self.certificate,
            "cannot be read",
        )

    def test_facts(self) -> None:
        """The end of its time comes in UTC, the fingerprint as capital pairs."""
        key = ec_key()
        self.write_pair(key)
        loaded = self.load()
        self.assertEqual(loaded.not_after, (NOW + DAY).replace(microsecond=0))
        self.assertEqual(loaded.not_after.utcoffset(), timedelta(0))
        self.assertRegex(loaded.fingerprint, r"\A([0-9A-F]{2}:){31}[0-9A-F]{2}\Z")

    def test_fingerprint(self) -> None:
        """The fingerprint is the one that the openssl command prints."""
        self.write_pair(ec_key())
        printed = openssl("x509", "-in", self.certificate, "-noout", "-fingerprint", "-sha256")
        self.assertEqual(printed.strip().split("=")[1], self.load().fingerprint)

    def test_exposed_key(self) -> None:
        """A key file that others have access to is told, its owner's is not."""
        if os.name != "posix":
            raise SkipTest("file modes are POSIX's")
        self.write_pair(ec_key())
        self.assertFalse(self.load().key_is_exposed)
        for mode in (0o640, 0o604):
            os.chmod(self.key, mode)
            self.assertTrue(self.load().key_is_exposed, oct(mode))

    def test_missing(self) -> None:
        """Two files that are both missing are told."""
        self.assert_refused(self.certificate, "cannot be read")

    def test_unreadable(self) -> None:
        """A folder in a file's place is told."""
        self.write_pair(ec_key())
        os.remove(self.key)
        os.mkdir(self.key)
        self.assert_refused(self.key, "cannot be read")

    def test_pipe(self) -> None:
        """A pipe in a file's place, or a link to one, is told; nobody waits for its writer."""
        if not hasattr(os, "mkfifo"):
            raise SkipTest("there are no named pipes here")
        self.write_pair(ec_key())
        good = self.certificate
        pipe, link = os.path.abspath(self.path("pipe")), self.path("link")
        os.mkfifo(pipe)
        os.symlink(pipe, link)
        self.assert_refused(pipe, "is a pipe or a device", dh_params=pipe)
        self.assert_plain(
            lambda: load(good, self.key, None, NOW, client_ca_path=pipe), pipe, "is a pipe"
        )
        self.assert_plain(lambda: load(good, os.devnull, None, NOW), os.devnull, "or a device")
        for path in (pipe, link):
            self.certificate = path
            self.assert_refused(path, "is a pipe or a device")

    def test_no_certificate(self) -> None:
        """A file without a certificate, or with a damaged one, is told."""
        key = ec_key()
        self.write_pair(key)
        pem = self.read(self.certificate)
        der = make_certificate(key).public_bytes(Encoding.DER)
        for content in (b"", b"junk", der, key_pem(key), pem.replace(b"MII", b"AAA", 1), pem[:80]):
            self.write(self.certificate, content)
            self.assert_refused(self.certificate, "no certificate")

    def test_no_key(self) -> None:
        """A file without a private key is told."""
        key = ec_key()
        self.write_pair(key)
        der = key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
        for content in (b"", b"junk", der, self.read(self.certificate), key_pem(key)[:80]):
            self.write(self.key, content)
            self.assert_refused(self.key, "no private key")

    def test_damaged_key(self) -> None:
        """A private key that is damaged, or in a form of another program, is told."""
        self.write_pair(ec_key())
        ssh = key_pem(ed25519.Ed25519PrivateKey.generate(), PrivateFormat.OpenSSH)
        for content in (self.read(self.key).replace(b"MI", b"AA", 1), ssh):
            self.write(self.key, content)
            self.assert_refused(self.key, "damaged")

    def test_encrypted_key(self) -> None:
        """A key with a passphrase is told, in both of the forms there are."""
        key = ec_key()
        self.write_pair(key)
        for form in (PrivateFormat.PKCS8, PrivateFormat.TraditionalOpenSSL):
            self.write(self.key, key_pem(key, form, BestAvailableEncryption(b"secret")))
            self.assert_refused(self.key, "passphrase")

    def test_other_key(self) -> None:
        """A key that is not the certificate's is told, of the same kind or another."""
        self.write_pair(ec_key())
        for key in (ec_key(), ed25519.Ed25519PrivateKey.generate()):
            self.write(self.key, key_pem(key))
            self.assert_refused(self.key, "is not the key", self.certificate)

    def test_wrong_order(self) -> None:
        """A chain that does not start with the server's own certificate is told."""
        key, other = ec_key(), ec_key()
        self.write_pair(key)
        self.write(
            self.certificate,
            certificate_pem(make_certificate(other)),
            certificate_pem(make_certificate(key)),
        )
        self.assert_refused(self.key, "own certificate first")

    def test_expired(self) -> None:
        """A certificate is good to the last second of its time, and told after that."""
        end = NOW.replace(microsecond=0)
        self.write_pair(ec_key(), end=end)
        load(self.certificate, self.key, None, end)
        self.assert_plain(
            lambda: load(self.certificate, self.key, None, end + timedelta(seconds=1)),
            self.certificate,
            "expired",
            f"{end:%Y-%m-%d %H:%M:%S} UTC",
        )

    def test_not_yet_valid(self) -> None:
        """A certificate is good from the first second of its time, and told before that."""
        start = NOW.replace(microsecond=0)
        self.write_pair(ec_key(), start=start)
        load(self.certificate, self.key, None, start)
        self.assert_plain(
            lambda: load(self.certificate, self.key, None, start - timedelta(seconds=1)),
            self.certificate,
            "not valid before",
            f"{start:%Y-%m-%d %H:%M:%S} UTC",
        )

    def test_unsupported_key(self) -> None:
        """Kinds of keys with which no handshake would succeed are told."""
        curve = ec.generate_private_key(ec.SECP256K1())
        self.write_pair(curve)
        for key in (curve, x25519.X25519PrivateKey.generate()):
            self.write(self.key, key_pem(key))
            self.assert_refused(self.key, "kind of key")

    def test_weak_key(self) -> None:
        """A key too small for OpenSSL is told at the start, not at the first handshake."""
        openssl("genrsa", "-out", self.key, "512")
        openssl(
            *("req", "-x509", "-new", "-key", self.key, "-subj", "/CN=localhost"),
            *("-days", "30", "-out", self.certificate),
        )
        self.assert_plain(
            lambda: load(self.certificate, self.key, None, datetime.now(UTC)),
            self.certificate,
            "ee key too small",
            "2048",
        )

    def test_dh_parameters(self) -> None:
        """DH parameters that are missing, none, or too small are told."""
        self.write_pair(ec_key())
        path = self.path("dh.pem")
        self.assert_refused(path, "cannot be read", dh_params=path)
        for content in (b"", b"junk", self.read(self.certificate), DH_2048.replace(b"M", b"A", 1)):
            self.write(path, content)
            self.assert_refused(path, "no DH parameters", "openssl dhparam", dh_params=path)
        self.write(path, DH_512)
        self.assert_refused(path, "dh key too small", dh_params=path)


class HandshakeTests(Case):
    """Clients that shake hands with what is loaded."""

    def assert_connects(self, *, trust: bytes | None = None) -> None:
        """Check that a client of each TLS version believes the server."""
        server = self.load()
        for version in (SSL.TLS1_2_VERSION, SSL.TLS1_3_VERSION):
            theirs, ours = connect_tls(
                client_context(version, trust=trust or self.read(self.certificate)), server
            )
            ours.send(b"hello")
            move(ours, theirs)
            self.assertEqual(theirs.recv(5), b"hello")

    def test_versions(self) -> None:
        """TLS 1.2 and 1.3 succeed, and a client that can do both gets 1.3."""
        self.write_pair(ec_key())
        for version, name in (
            (SSL.TLS1_2_VERSION, "TLSv1.2"),
            (SSL.TLS1_3_VERSION, "TLSv1.3"),
            (None, "TLSv1.3"),
        ):
            theirs, ours = connect_tls(client_context(version), self.load())
            self.assertEqual(theirs.get_protocol_version_name(), name)
            self.assertEqual(ours.get_protocol_version_name(), name)

    def test_old_version(self) -> None:
        """TLS 1.1 is refused, by the server."""
        self.write_pair(ec_key())
        client = client_context(SSL.TLS1_1_VERSION, b"ALL:@SECLEVEL=0")
        error = self.assertRaises(SSL.Error, connect_tls, client, self.load())
        self.assertEqual(error.args[0][0][2], "unsupported protocol")

    def test_key_forms(self) -> None:
        """Each kind of key works in each of its forms."""
        traditional = PrivateFormat.TraditionalOpenSSL
        for key, form in (
            (rsa_key(), PrivateFormat.PKCS8),
            (rsa_key(), traditional),
            (ec_key(), PrivateFormat.PKCS8),
            (ec_key(), traditional),
            (ec.generate_private_key(ec.SECP384R1()), PrivateFormat.PKCS8),
            (ed25519.Ed25519PrivateKey.generate(), PrivateFormat.PKCS8),
        ):
            self.write_pair(key)
            self.write(self.key, key_pem(key, form))
            self.assert_connects()

    def test_one_file(self) -> None:
        """Key and certificate may stand in one file, with text around them and in any lines."""
        key = ec_key()
        self.key = self.certificate
        pem = b"Bag\n" + key_pem(key) + b"\nSubject: x\n" + certificate_pem(make_certificate(key))
        trust = certificate_pem(make_certificate(key))
        for content in (pem, pem.replace(b"\n", b"\r\n")):
            self.write(self.certificate, content)
            trust = content[content.index(b"-----BEGIN CERT") :]
            self.assert_connects(trust=trust)

    def test_chain(self) -> None:
        """The further certificates of the file are sent, so that the root is enough to trust."""
        root, middle, leaf = ec_key(), ec_key(), ec_key()
        trust = certificate_pem(make_certificate(root, subject="root", authority=True))
        between = make_certificate(middle, subject="middle", issuer=("root", root), authority=True)
        own = certificate_pem(make_certificate(leaf, issuer=("middle", middle)))
        self.write(self.key, key_pem(leaf))
        self.write(self.certificate, own, certificate_pem(between))
        self.assert_connects(trust=trust)
        self.write(self.certificate, own)
        with self.assertRaises(SSL.Error):
            self.assert_connects(trust=trust)

    def test_dhe(self) -> None:
        """A client that only knows DHE succeeds with DH parameters."""
        self.write_pair(rsa_key())
        path = self.path("dh.pem")
        self.write(path, DH_2048)
        client = client_context(SSL.TLS1_2_VERSION, b"DHE-RSA-AES256-GCM-SHA384")
        theirs, _ = connect_tls(client, self.load(path))
        self.assertEqual(theirs.get_cipher_name(), "DHE-RSA-AES256-GCM-SHA384")
        # Python often has an older OpenSSL, which takes the server's parameters without having
        # offered any of its own.
        context = ssl.create_default_context(cafile=self.certificate)
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        context.set_ciphers("DHE-RSA-AES256-GCM-SHA384")
        connect_python(context, self.load(path), "localhost")

    def test_no_forward_secrecy(self) -> None:
        """A client that only knows RSA key exchange is refused."""
        self.write_pair(rsa_key())
        client = client_context(SSL.TLS1_2_VERSION, b"AES256-GCM-SHA384")
        error = self.assertRaises(SSL.Error, connect_tls, client, self.load())
        self.assertEqual(error.args[0][0][2], "no shared cipher")

    def test_no_renegotiation(self) -> None:
        """A client can't make the server shake hands again and again on one connection."""
        self.write_pair(ec_key())
        theirs, ours = connect_tls(client_context(SSL.TLS1_2_VERSION), self.load())
        theirs.renegotiate()
        with self.assertRaises(SSL.WantReadError):
            theirs.do_handshake()
        move(theirs, ours)
        with self.assertRaises(SSL.WantReadError):
            ours.recv(1)
        move(ours, theirs)
        error = self.assertRaises(SSL.Error, theirs.recv, 1)
        self.assertEqual(error.args[0][0][2], "no renegotiation")


class ClientCertificateTests(Case):
    """Clients that have to show a certificate."""

    VERSIONS = (SSL.TLS1_2_VERSION, SSL.TLS1_3_VERSION)

    def setUp(self) -> None:
        """Make a CA, and a server that asks for a certificate which that has signed."""
        super().setUp()
        self.write_pair(ec_key())
        self.ca_key = ec_key()
        self.ca = make_certificate(self.ca_key, subject="CA", authority=True)
        self.server = self.load_with(self.ca)

    def load_with(self, *authorities: x509.Certificate) -> ServerCertificate:
        """Load the server's files, with `authorities` for the clients."""
        path = self.path("ca.crt")
        self.write(path, *map(certificate_pem, authorities))
        return load(self.certificate, self.key, None, NOW, client_ca_path=path)

    def client(self, version: int, issuer: tuple[str, Key] | None = None, **how: Any) -> Any:
        """Return a client with a certificate; the CA signs it unless another does."""
        key = ec_key()
        certificate = make_certificate(key, issuer=issuer or ("CA", self.ca_key), **how)
        context = client_context(version)
        context.use_certificate(crypto.X509.from_cryptography(certificate))
        context.use_privatekey(crypto.PKey.from_cryptography_key(key))
        return context

    def assert_client_refused(self, client: SSL.Context, reason: str) -> None:
        """Check that the handshake fails at the server, with `reason`."""
        error = self.assertRaises(SSL.Error, connect_tls, client, self.server)
        self.assertEqual(error.args[0][-1][2], reason)

    def test_accepted(self) -> None:
        """A certificate that the CA has signed is taken, and the server knows whose it is."""
        for version in self.VERSIONS:
            _, ours = connect_tls(self.client(version, subject="alice"), self.server)
            certificate = ours.get_peer_certificate(as_cryptography=True)
            self.assertEqual(describe_subject(certificate), "CN=alice")

    def test_refused(self) -> None:
        """None at all, one of another CA of the same name, one that has expired, and one that
        is for servers only are refused.
        """
        purpose = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])
        for version in self.VERSIONS:
            self.assert_client_refused(client_context(version), "peer did not return a certificate")
            for refused in (
                self.client(version, ("CA", ec_key())),
                self.client(version, start=NOW - 3 * DAY, end=NOW - 2 * DAY),
                self.client(version, more=purpose),
            ):
                self.assert_client_refused(refused, "certificate verify failed")

    def test_purpose(self) -> None:
        """A certificate that says that it is for clients is taken."""
        purpose = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH])
        for version in self.VERSIONS:
            connect_tls(self.client(version, more=purpose), self.server)

    def test_no_resumption(self) -> None:
        """Nobody gets in with the session of a client that has shown a certificate."""
        key = ec_key()
        certificate = make_certificate(key, issuer=("CA", self.ca_key))
        for version in self.VERSIONS:
            context = client_context(version)
            theirs, thief = SSL.Connection(context, None), SSL.Connection(context, None)
            theirs.use_certificate(crypto.X509.from_cryptography(certificate))
            theirs.use_privatekey(crypto.PKey.from_cryptography_key(key))
            ours = accept_tls(theirs, self.server)
            ours.send(b"x")  # With TLS 1.3 the session comes right before the data.
            move(ours, theirs)
            theirs.recv(1)
            session = theirs.get_session()
            assert session is not None
            thief.set_session(session)
            error = self.assertRaises(SSL.Error, accept_tls, thief, self.server)
            self.assertEqual(error.args[0][-1][2], "peer did not return a certificate")

    def test_names(self) -> None:
        """The server tells clients whose certificates it takes."""
        other = make_certificate(ec_key(), subject="other", authority=True)
        for version in self.VERSIONS:
            theirs, _ = connect_tls(self.client(version), self.load_with(self.ca, other))
            names = [name.CN for name in theirs.get_client_ca_list()]
            self.assertEqual(names, ["CA", "other"])

    def test_intermediate(self) -> None:
        """A CA below another is enough; those below the one in the file are sent by the client."""
        key = ec_key()
        middle = make_certificate(key, subject="middle", issuer=("CA", self.ca_key), authority=True)
        for version in self.VERSIONS:
            client = self.client(version, ("middle", key))
            connect_tls(client, self.load_with(middle))
            self.assert_client_refused(client, "certificate verify failed")
            client = self.client(version, ("middle", key))
            client.add_extra_chain_cert(crypto.X509.from_cryptography(middle))
            connect_tls(client, self.server)

    def test_old_authority(self) -> None:
        """A CA that has expired does no harm beside one that is good."""
        old = make_certificate(ec_key(), subject="old", authority=True, end=NOW - DAY / 2)
        for version in self.VERSIONS:
            connect_tls(self.client(version), self.load_with(old, self.ca))

    def test_subjects(self) -> None:
        """A subject is told as RFC 4514 writes it, so that no name passes for two; a long one is
        cut, and without any there is the serial number.
        """

        def describe(*parts: tuple[Any, str]) -> str:
            name = x509.Name([x509.NameAttribute(kind, text) for kind, text in parts])
            key = ec_key()
            builder = x509.CertificateBuilder(name, name, key.public_key(), 0xABC, NOW, NOW + DAY)
            return describe_subject(builder.sign(key, hashes.SHA256()))

        self.assertEqual(
            describe((NameOID.ORGANIZATION_NAME, "Us"), (NameOID.COMMON_NAME, "a,O=b")),
            r"CN=a\,O=b,O=Us",
        )
        organization = [(NameOID.ORGANIZATIONAL_UNIT_NAME, "x" * 60)] * 10
        self.assertEqual(len(describe(*organization)), 256 + len("..."))
        self.assertEqual(describe(), "serial number ABC")


class OpenSSLCommandTests(Case):
    """Files as the commands of the manual make them."""

    def check(self) -> ServerCertificate:
        """Make the certificate for the key that is there; check that the pair connects."""
        openssl(
            *("req", "-x509", "-new", "-key", self.key, "-subj", "/CN=localhost"),
            *("-days", "365", "-out", self.certificate),
        )
        server = load(self.certificate, self.key, None, datetime.now(UTC))
        connect_tls(client_context(trust=self.read(self.certificate)), server)
        return server

    def test_rsa(self) -> None:
        """``openssl genrsa``, as PKCS#8 and as PKCS#1."""
        openssl("genrsa", "-out", self.key, "2048")
        self.check()
        self.write(self.key, key_pem(rsa_key(), PrivateFormat.TraditionalOpenSSL))
        self.assertIn(b"BEGIN RSA PRIVATE KEY", self.read(self.key))
        self.check()

    def test_ec(self) -> None:
        """``openssl ecparam -genkey``, which writes the parameters before the key."""
        openssl("ecparam", "-genkey", "-name", "prime256v1", "-out", self.key)
        self.assertIn(b"BEGIN EC PARAMETERS", self.read(self.key))
        self.check()

    def test_ed25519(self) -> None:
        """``openssl genpkey -algorithm ed25519``."""
        openssl("genpkey", "-algorithm", "ed25519", "-out", self.key)
        self.check()

    def test_dhparam(self) -> None:
        """``openssl dhparam``, in the way that is quick."""
        path = self.path("dh.pem")
        openssl("dhparam", "-dsaparam", "-out", path, "2048")
        self.write_pair(rsa_key())
        theirs, _ = connect_tls(
            client_context(SSL.TLS1_2_VERSION, b"DHE-RSA-AES128-GCM-SHA256"), self.load(path)
        )
        self.assertEqual(theirs.get_cipher_name(), "DHE-RSA-AES128-GCM-SHA256")

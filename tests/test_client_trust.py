"""Which servers the client library trusts, and why it can't connect: over real TLS on loopback."""

from __future__ import annotations

import os
import stat
from functools import cache
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from OpenSSL import SSL, crypto
from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred, DeferredList
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.ssl import CertificateOptions, TLSVersion
from twisted.internet.task import deferLater
from twisted.python.failure import Failure
from twisted.trial.unittest import SkipTest, TestCase

from chatserver.certificates import create_self_signed, load_or_create
from chatserver.client import (
    CertificateError,
    ChangedCertificateError,
    ChatClient,
    ConnectError,
    Fingerprint,
    Handler,
    KnownHosts,
    ReconnectingClient,
    SystemRoots,
    Trust,
    TrustFile,
    UnknownCertificateError,
    connect,
)
from chatserver.client import connection as connection_module
from chatserver.client.trust import default_path
from chatserver.packets import Command, Packet, encode
from chatserver.tls import TLSFactory
from tests.test_certificates import DAY, NOW, certificate_pem, ec_key, make_certificate

HOST = "localhost"
LOGIN = encode(Packet(Command.LOGIN, b"alice:password"))


class Pair:
    """A certificate, its key, and the certificates that a server shows behind it."""

    def __init__(self, key: ec.EllipticCurvePrivateKey, *chain: x509.Certificate) -> None:
        self.key = key
        self.certificate, *self.others = chain

    @property
    def issuer(self) -> tuple[str, ec.EllipticCurvePrivateKey]:
        """What makes this one the signer of another."""
        (name,) = self.certificate.subject
        return str(name.value), self.key

    @property
    def fingerprint(self) -> str:
        return self.certificate.fingerprint(hashes.SHA256()).hex(":").upper()


def self_signed(host: str = HOST, **how: Any) -> Pair:
    """Return a new certificate that has signed itself."""
    key = ec_key()
    return Pair(key, make_certificate(key, subject=host, **how))


@cache
def authority() -> Pair:
    """Return an authority, the same one always."""
    return self_signed("An authority", authority=True)


@cache
def intermediate() -> Pair:
    """Return an authority that `authority` vouches for."""
    key = ec_key()
    how = {"subject": "An intermediate", "issuer": authority().issuer, "authority": True}
    return Pair(key, make_certificate(key, **how))


def signed(by: Pair, host: str = HOST, **how: Any) -> Pair:
    """Return a new certificate for `host`. The server shows no other."""
    key = ec_key()
    return Pair(key, make_certificate(key, subject=host, issuer=by.issuer, **how))


def nameless() -> Pair:
    """Return a certificate with its name in the subject alone, as they were long ago."""
    key = ec_key()
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, HOST)])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW - DAY)
        .not_valid_after(NOW + DAY)
        .sign(key, hashes.SHA256())
    )
    return Pair(key, certificate)


class Recorder(Protocol):
    """A server's connection, which keeps what it is told."""

    packetsPerTurn = 1

    def __init__(self, greeting: bytes, is_curt: bool) -> None:
        self.received = b""
        self.ended: Deferred[None] = Deferred()
        self._greeting = greeting
        self._is_curt = is_curt

    def connectionMade(self) -> None:
        """Say what there is to say."""
        assert self.transport is not None
        self.transport.write(self._greeting)
        if self._is_curt:
            self.transport.loseConnection()

    def dataReceived(self, data: bytes) -> None:
        """Keep it."""
        self.received += data

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """It is over."""
        self.ended.callback(None)

    def tlsEnded(self) -> None:
        """See `TLSListener`."""


class Recorders(Factory):
    """Makes `Recorder`s.

    :param is_curt: whether each closes at once
    """

    noisy = False

    def __init__(self, greeting: bytes = b"", is_curt: bool = False) -> None:
        self.made: list[Recorder] = []
        self._arguments = greeting, is_curt

    def buildProtocol(self, addr: IAddress | None) -> Recorder:
        """Make a connection."""
        self.made.append(Recorder(*self._arguments))
        return self.made[-1]


class Case(TestCase):
    """A test with a folder and servers of its own."""

    timeout = 20

    def setUp(self) -> None:
        """Make the folder. No authority is trusted by the system."""
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir()
        self.servers: list[Recorders] = []
        self.trust_as_system()

    def trust_as_system(self, *certificates: x509.Certificate) -> None:
        """Let the system's roots be `certificates`."""
        path = self.write("roots.pem", *map(certificate_pem, certificates))
        (self.folder / "roots").mkdir(exist_ok=True)
        for name, value in (("SSL_CERT_FILE", path), ("SSL_CERT_DIR", self.folder / "roots")):
            before = os.environ.get(name)
            os.environ[name] = str(value)
            if before is None:
                self.addCleanup(os.environ.pop, name, None)
            else:
                self.addCleanup(os.environ.__setitem__, name, before)

    def write(self, name: str, *parts: bytes) -> Path:
        """Write a file into the folder, and return where it is."""
        path = self.folder / name
        path.write_bytes(b"".join(parts))
        return path

    def trust_file(self, *pairs: Pair) -> TrustFile:
        """Return the trust in a file with the certificates of `pairs`."""
        return TrustFile(self.write("trust.pem", *(certificate_pem(p.certificate) for p in pairs)))

    def listen(self, factory: Any) -> int:
        """Listen, until the test ends. Return the port."""
        port = reactor.listenTCP(0, factory, interface="127.0.0.1")  # type: ignore[attr-defined]
        self.addCleanup(port.stopListening)
        number: int = port.getHost().port
        return number

    def serve(self, shown: Pair, **options: Any) -> int:
        """Start a server with TLS that shows a certificate. Return its port."""
        recorders = Recorders()
        self.servers.append(recorders)
        creator = CertificateOptions(
            privateKey=crypto.PKey.from_cryptography_key(shown.key),
            certificate=crypto.X509.from_cryptography(shown.certificate),
            extraCertChain=[crypto.X509.from_cryptography(each) for each in shown.others],
            **options,
        )
        return self.listen(TLSFactory(recorders, creator, reactor))

    def connect(self, port: int, trust: Trust | None, host: str = HOST) -> Deferred[ChatClient]:
        """Connect to `port` of this machine, where `host` is expected."""
        endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", port)
        return connect(reactor, host, port, trust=trust, endpoint=endpoint)

    async def assert_trusted(self, shown: Pair, trust: Trust | None, host: str = HOST) -> None:
        """Check that a server which shows a certificate is trusted, and hears what it is told."""
        await self.assert_trusted_at(self.serve(shown), trust, host)

    async def assert_trusted_at(self, port: int, trust: Trust | None, host: str = HOST) -> None:
        """The same of the server at `port`."""
        client = await self.connect(port, trust, host)
        logging_in = client.log_in("alice", "password")
        await client.close()
        await self.assertFailure(logging_in, Exception)
        self.assertEqual(await self.received(), [LOGIN])

    async def assert_refused(
        self,
        shown: Pair,
        trust: Trust | None,
        host: str = HOST,
        kind: type[CertificateError] = CertificateError,
    ) -> str:
        """Check that a server which shows a certificate is refused, and is told nothing.

        Return the error's text.
        """
        return await self.assert_refused_at(self.serve(shown), trust, host, kind)

    async def assert_refused_at(
        self,
        port: int,
        trust: Trust | None,
        host: str = HOST,
        kind: type[ConnectError] = CertificateError,
    ) -> str:
        """The same of the server at `port`. The application would log in right away."""
        connecting = self.connect(port, trust, host)
        connecting.addCallback(lambda client: client.log_in("alice", "password"))
        error = await self.assertFailure(connecting, ConnectError)
        self.assertIs(type(error), kind, error)
        self.assertEqual(b"".join(await self.received()), b"")
        return self.assert_sentence(error)

    def assert_sentence(self, error: Exception) -> str:
        """Check that an error's text is for people: one line, no signs of a program."""
        text = str(error)
        self.assertRegex(text, r"^[^\n<>]{10,400}$")
        self.assertNotRegex(text, r"Error|Failure|twisted|None|\[\(|'\)|\.$")
        return text

    async def received(self) -> list[bytes]:
        """Return what each new connection to each server was told, once all have ended."""
        made = [each for server in self.servers for each in server.made]
        for server in self.servers:
            server.made.clear()
        await DeferredList([each.ended for each in made])
        return [each.received for each in made]


class SystemRootsTests(Case):
    """`SystemRoots`, and what is done without any trust."""

    async def test_self_signed(self) -> None:
        """A certificate that nobody vouches for is refused, also if no trust is given at all."""
        for trust in (SystemRoots(), None):
            text = await self.assert_refused(self_signed(), trust)
            self.assertIn("vouched for by nobody", text)

    async def test_authority(self) -> None:
        """A server is trusted whose authority is in the system's roots; not with another name."""
        self.trust_as_system(authority().certificate)
        server = signed(authority())
        await self.assert_trusted(server, SystemRoots())
        await self.assert_trusted(server, None)
        text = await self.assert_refused(server, SystemRoots(), "chat.example")
        self.assertIn("not made out to chat.example", text)


class TrustFileTests(Case):
    """`TrustFile`."""

    async def test_authority(self) -> None:
        """A server whose authority is in the file is trusted."""
        await self.assert_trusted(signed(authority()), self.trust_file(authority()))

    async def test_intermediate(self) -> None:
        """So is one whose own authority is shown by the server, and vouched for by the file's."""
        shown = signed(intermediate())
        trust = self.trust_file(authority())
        await self.assert_refused(shown, trust)
        shown.others.append(intermediate().certificate)
        await self.assert_trusted(shown, trust)

    async def test_intermediate_alone(self) -> None:
        """An intermediate authority's certificate is enough, without the one above it."""
        await self.assert_trusted(signed(intermediate()), self.trust_file(intermediate()))

    async def test_self_signed(self) -> None:
        """The server's own certificate is enough, if it has signed itself."""
        shown = self_signed()
        await self.assert_trusted(shown, self.trust_file(shown))

    async def test_made_by_the_server(self) -> None:
        """The certificate that the server makes at its first start is enough for its names."""
        paths = str(self.folder / "server.crt"), str(self.folder / "server.key")
        create_self_signed(*paths, NOW)
        server, _ = load_or_create(*paths, None, NOW)
        for host in (HOST, "127.0.0.1", "::1"):
            recorders = Recorders()
            self.servers.append(recorders)
            port = self.listen(TLSFactory(recorders, server.tls_options, reactor))
            await self.assert_trusted_at(port, TrustFile(paths[0]), host)

    async def test_leaf(self) -> None:
        """The server's own certificate is enough too if an authority has signed it."""
        shown = signed(authority())
        await self.assert_trusted(shown, self.trust_file(shown))

    async def test_another(self) -> None:
        """Another certificate is refused, also with the same names, and signed by the same."""
        shown = signed(authority())
        for other in (signed(authority()), self_signed(), self_signed("An authority")):
            text = await self.assert_refused(shown, self.trust_file(other))
            self.assertIn("vouched for by nobody", text)

    async def test_system_roots(self) -> None:
        """Whom only the system trusts is refused."""
        self.trust_as_system(authority().certificate)
        await self.assert_refused(signed(authority()), self.trust_file(self_signed()))

    async def test_host_name(self) -> None:
        """A certificate for another host, name or address, is refused, and the error says so."""
        for host in ("chat.example", "127.0.0.1", "::1"):
            for shown, trusted in (
                (signed(authority()), authority()),
                ((own := self_signed()), own),
            ):
                text = await self.assert_refused(shown, self.trust_file(trusted), host)
                self.assertIn(f"not made out to {host}", text)

    async def test_no_host_name(self) -> None:
        """So is a certificate without any name but that in its subject."""
        shown = nameless()
        text = await self.assert_refused(shown, self.trust_file(shown))
        self.assertIn(f"not made out to {HOST}", text)

    async def test_dates(self) -> None:
        """A certificate that has expired, or is not valid yet, is refused."""
        for dates in (
            {"start": NOW - 2 * DAY, "end": NOW - DAY},
            {"start": NOW + DAY, "end": NOW + 2 * DAY},
        ):
            shown = signed(authority(), **dates)
            text = await self.assert_refused(shown, self.trust_file(authority()))
            self.assertIn("not valid today", text)
            shown = self_signed(**dates)
            await self.assert_refused(shown, self.trust_file(shown))

    async def test_several(self) -> None:
        """Each of several certificates in the file counts, with whatever text between them."""
        shown = [self_signed(), signed(authority()), signed(intermediate())]
        trusted = [shown[0], authority(), intermediate()]
        parts = [b"Some text\n" + certificate_pem(each.certificate) for each in trusted]
        trust = TrustFile(self.write("bundle.pem", *parts))
        for each in shown:
            await self.assert_trusted(each, trust)
        await self.assert_refused(self_signed(), trust)

    async def test_file(self) -> None:
        """A file that can't be read, or holds no certificate, is told by its name, and nobody
        is connected to.
        """
        der = authority().certificate.public_bytes(Encoding.DER)
        half = certificate_pem(authority().certificate)[:200]
        for path, reason in (
            (self.folder / "missing.pem", "cannot be read: No such file"),
            (self.folder, "cannot be read: Is a directory"),
            (self.write("a", b"x", b"\n"), "holds no certificate in PEM form"),
            (self.write("b"), "holds no certificate in PEM form"),
            (self.write("c", der), "holds no certificate in PEM form"),
            (self.write("d", half), "holds no certificate in PEM form"),
        ):
            text = await self.assert_refused(self_signed(), TrustFile(path))
            self.assertIn(f"{path}: {reason}", text)
        self.assertEqual(await self.received(), [])
        with self.assertRaises(CertificateError):
            ReconnectingClient(
                reactor, HOST, name="a", password="b", handler=_Deaf(), trust=TrustFile(path)
            )


class FingerprintTests(Case):
    """`Fingerprint`."""

    async def test_forms(self) -> None:
        """It may be written with and without colons, in either case, and with space around."""
        shown = self_signed()
        text = shown.fingerprint
        for form in (text, text.lower(), text.replace(":", ""), f" {text.replace(':', ' ')}\n"):
            await self.assert_trusted(shown, Fingerprint(form))

    async def test_wrong(self) -> None:
        """Another certificate is refused, also one for which an authority vouches."""
        self.trust_as_system(authority().certificate)
        wrong = Fingerprint(self_signed().fingerprint)
        for shown in (self_signed(), signed(authority())):
            text = await self.assert_refused(shown, wrong)
            self.assertIn(f"{HOST} does not show the certificate", text)
            self.assertIn(wrong.fingerprint, text)

    async def test_issuer(self) -> None:
        """It is the server's own certificate that counts, not one behind it."""
        shown = signed(intermediate())
        shown.others.append(intermediate().certificate)
        await self.assert_refused(shown, Fingerprint(intermediate().fingerprint))
        await self.assert_trusted(shown, Fingerprint(shown.fingerprint))

    async def test_name_and_dates(self) -> None:
        """Neither name nor dates matter."""
        for shown in (
            self_signed("elsewhere.example"),
            self_signed(start=NOW - 2 * DAY, end=NOW - DAY),
            self_signed(start=NOW + DAY, end=NOW + 2 * DAY),
            nameless(),
        ):
            await self.assert_trusted(shown, Fingerprint(shown.fingerprint))
            await self.assert_trusted(shown, Fingerprint(shown.fingerprint), "::1")

    def test_malformed(self) -> None:
        """What is no SHA-256 is told when it is given."""
        text = self_signed().fingerprint
        for wrong in (
            "",
            text[:-1],
            text + ":00",
            text.replace("A", "G") + "G",
            "ä" * 64,
            "0" * 63,
        ):
            error = self.assertRaises(ValueError, Fingerprint, wrong)
            self.assertIn("64 hex digits", str(error))


class KnownHostsTests(Case):
    """`KnownHosts`."""

    def setUp(self) -> None:
        """Choose a file, which is not there."""
        super().setUp()
        self.path = self.folder / "a" / "b" / "known_hosts"
        self.known = KnownHosts(self.path)

    def known_with(self, *lines: str) -> KnownHosts:
        """Return the trust in a file with `lines`."""
        return KnownHosts(self.write("known", "\n".join(lines).encode()))

    async def test_first_visit(self) -> None:
        """A server that was never seen is refused with its fingerprint; once that is added, it is
        trusted, whatever its name and dates are.
        """
        dates = {"start": NOW - 2 * DAY, "end": NOW - DAY}
        for shown in (self_signed(), nameless(), self_signed("elsewhere.example", **dates)):
            port = self.serve(shown)
            text = await self.assert_refused_at(port, self.known, kind=UnknownCertificateError)
            self.assertIn(f"{HOST} is not known here: SHA-256 {shown.fingerprint}", text)
            error = await self.assertFailure(self.connect(port, self.known), ConnectError)
            self.assertEqual(error.fingerprint, shown.fingerprint)
            self.known.add(HOST, port, error.fingerprint)
            self.assertEqual(await self.received(), [b""])
            await self.assert_trusted_at(port, self.known)

    async def test_changed(self) -> None:
        """Another certificate than before is refused, and the error names the file and line,
        also if an authority vouches for it.
        """
        self.trust_as_system(authority().certificate)
        for shown in (self_signed(), signed(authority())):
            port = self.serve(shown)
            known = self.known_with(
                "# my servers", "", f"{HOST}:{port} {self_signed().fingerprint}"
            )
            kind = ChangedCertificateError
            text = await self.assert_refused_at(port, known, kind=kind)
            self.assertIn(f"{known.path}, line 3", text)
            self.assertIn(f"the certificate of {HOST} has changed", text)

    async def test_authority(self) -> None:
        """A server that the system's roots trust needs no line, and gets none."""
        self.trust_as_system(authority().certificate)
        await self.assert_trusted(signed(authority()), self.known)
        self.assertFalse(self.path.exists())
        wrong_name = signed(authority(), "elsewhere.example")
        await self.assert_refused(wrong_name, self.known, kind=UnknownCertificateError)
        expired = signed(authority(), start=NOW - 2 * DAY, end=NOW - DAY)
        await self.assert_refused(expired, self.known, kind=UnknownCertificateError)

    async def test_leaf_among_the_roots(self) -> None:
        """The server's own certificate among the system's roots counts as for `SystemRoots`."""
        shown = signed(authority())
        self.trust_as_system(shown.certificate)
        await self.assert_trusted(shown, SystemRoots())
        await self.assert_trusted(shown, self.known)

    async def test_port(self) -> None:
        """A line is about one port of one host."""
        shown = self_signed()
        port = self.serve(shown)
        fingerprint = shown.fingerprint
        known = self.known_with(
            f"{HOST}:1 {fingerprint}", f"elsewhere.example:{port} {fingerprint}"
        )
        await self.assert_refused_at(port, known, kind=UnknownCertificateError)

    async def test_forms(self) -> None:
        """Comments, blank lines, other servers and other space don't matter; nor does the case of
        the host's name; an IPv6 address stands in brackets.
        """
        shown = self_signed()
        port = self.serve(shown)
        fingerprint = shown.fingerprint
        for host, line in (
            (HOST, f"{HOST}:{port} {fingerprint}"),
            (HOST, f"LocalHost:{port} {fingerprint.lower()}"),
            (HOST, f"  {HOST}:{port}\t {fingerprint} "),
            ("LOCALHOST", f"{HOST}:{port} {fingerprint.replace(':', '')}"),
            ("::1", f"[::1]:{port} {fingerprint}"),
            ("FE80::AB", f"[fe80::ab]:{port} {fingerprint}"),
        ):
            known = self.known_with("# a comment", "", "other.example:1 broken", " ", line, "#")
            await self.assert_trusted_at(port, known, host)

    async def test_broken_line(self) -> None:
        """A line for this server without a fingerprint is told by file and number."""
        shown = self_signed()
        port = self.serve(shown)
        for rest in ("", " ", " 12:34", f" {shown.fingerprint} #"):
            known = self.known_with("#", f"{HOST}:{port}{rest}")
            text = await self.assert_refused_at(port, known)
            self.assertIn(f"{known.path}, line 2: ", text)

    async def test_unreadable(self) -> None:
        """A file that can't be read is told, and nobody is connected to."""
        for path in (self.folder, self.write("latin", b"# b\xfcro\n"), self.write("f") / "known"):
            text = await self.assert_refused(self_signed(), KnownHosts(path))
            self.assertIn(f"{path}: cannot be read: ", text)
        self.assertEqual(await self.received(), [])

    def test_unwritable(self) -> None:
        """A file that can't be written is told."""
        fingerprint = self_signed().fingerprint
        for path in (self.folder, self.write("latin", b"# b\xfcro\n"), self.write("f") / "known"):
            error = self.assertRaises(CertificateError, KnownHosts(path).add, HOST, 1, fingerprint)
            self.assertRegex(self.assert_sentence(error), f"{path}: cannot be (written|read): ")

    def test_add(self) -> None:
        """Each server added gets a line; what was in the file stays, and need not end a line."""
        first, second = self_signed().fingerprint, self_signed().fingerprint
        self.known.add("Chat.Example", 5555, first.lower())
        self.assertEqual(self.path.read_text(), f"chat.example:5555 {first}\n")
        self.path.write_text("# no end of line")
        self.known.add("::1", 5, second)
        self.known.add("FE80::AB", 5, first)
        self.assertEqual(
            self.path.read_text(), f"# no end of line\n[::1]:5 {second}\n[fe80::ab]:5 {first}\n"
        )

    def test_add_no_fingerprint(self) -> None:
        """What is no fingerprint is not added."""
        self.assertRaises(ValueError, self.known.add, HOST, 1, "12:34")
        self.assertFalse(self.path.exists())

    def test_modes(self) -> None:
        """A new file, and a new folder for it, are for their owner only; others stay."""
        if os.name != "posix":
            raise SkipTest("file modes are POSIX's")
        self.addCleanup(os.umask, os.umask(0))
        fingerprint = self_signed().fingerprint
        self.known.add(HOST, 1, fingerprint)
        self.assertEqual(self.mode(self.path), 0o600)
        self.assertEqual(self.mode(self.path.parent), 0o700)
        os.chmod(self.path, 0o640)
        os.chmod(self.path.parent, 0o750)
        self.known.add(HOST, 2, fingerprint)
        self.assertEqual(self.mode(self.path), 0o640)
        self.assertEqual(self.mode(self.path.parent), 0o750)

    def mode(self, path: Path) -> int:
        """Return the permissions of `path`."""
        return stat.S_IMODE(path.stat().st_mode)

    def test_default_path(self) -> None:
        """Without a path it is the one in the user's folder for configuration."""
        if os.name != "posix" or os.uname().sysname == "Darwin":
            raise SkipTest("XDG's variables are for Linux and its like")
        self.patch(os, "environ", {**os.environ, "XDG_CONFIG_HOME": str(self.folder)})
        self.assertEqual(default_path(), self.folder / "asyncchat" / "known_hosts")
        self.assertEqual(KnownHosts().path, default_path())
        KnownHosts().add(HOST, 1, self_signed().fingerprint)
        self.assertTrue((self.folder / "asyncchat" / "known_hosts").exists())


class _Deaf(Handler):
    """Hears nothing."""


class ConnectTests(Case):
    """Connections that don't come about for other reasons, and their errors."""

    async def assert_not_connected(self, port: int, host: str = HOST) -> str:
        """Check that connecting fails, for no certificate's sake; return the error's text."""
        return await self.assert_refused_at(port, SystemRoots(), host, ConnectError)

    async def test_nobody(self) -> None:
        """Nobody listens: the error says where."""
        port = reactor.listenTCP(0, Factory(), interface="127.0.0.1")  # type: ignore[attr-defined]
        unused = port.getHost().port
        await port.stopListening()
        for host in ("127.0.0.1", HOST):
            error = await self.assertFailure(connect(reactor, host, unused), ConnectError)
            text = self.assert_sentence(error)
            self.assertIn(f"nobody listens at {host}, port {unused}", text)

    async def test_by_host_name(self) -> None:
        """With no endpoint given, host and port say where to connect to."""
        shown = self_signed()
        port = self.serve(shown)
        client = await connect(reactor, HOST, port, trust=self.trust_file(shown))
        await client.close()
        self.assertEqual(await self.received(), [b""])

    async def test_unknown_host(self) -> None:
        """A host that is not there is named."""
        error = await self.assertFailure(connect(reactor, "name.invalid"), ConnectError)
        self.assertIn("name.invalid", self.assert_sentence(error))

    async def test_no_host_name(self) -> None:
        """What can't be the name of a host is told as every other error."""
        for host in ("", "a..b", "x" * 70, "a b", "\x00"):
            error = await self.assertFailure(connect(reactor, host), ConnectError)
            self.assert_sentence(error)

    async def test_greeting(self) -> None:
        """A server without TLS that says something first is told from one with."""
        recorders = Recorders(b"220 mail.example ESMTP\r\n" * 10)
        port = self.listen(recorders)
        self.assertIn("no TLS", await self.assert_not_connected(port))

    async def test_curt(self) -> None:
        """So is one that closes at once."""
        port = self.listen(Recorders(is_curt=True))
        self.assertIn("closed the connection at once", await self.assert_not_connected(port))

    async def test_silence(self) -> None:
        """One that says nothing is waited for as long as a handshake may take."""
        self.patch(connection_module, "HANDSHAKE_TIMEOUT", 0.1)
        recorders = Recorders()
        port = self.listen(recorders)
        self.assertIn("does not answer in TLS", await self.assert_not_connected(port))
        await recorders.made[0].ended
        self.assertNotIn(b"alice", recorders.made[0].received)

    async def test_old_tls(self) -> None:
        """A server that has no TLS newer than 1.1 is refused."""
        recorders = Recorders()
        self.servers.append(recorders)
        shown = self_signed()
        context = SSL.Context(SSL.TLS_METHOD)
        context.set_cipher_list(b"ALL:@SECLEVEL=0")
        context.set_min_proto_version(SSL.TLS1_VERSION)
        context.set_max_proto_version(SSL.TLS1_1_VERSION)
        context.use_privatekey(crypto.PKey.from_cryptography_key(shown.key))
        context.use_certificate(crypto.X509.from_cryptography(shown.certificate))
        options = CertificateOptions()
        options._context = context
        port = self.listen(TLSFactory(recorders, options, reactor))
        text = await self.assert_refused_at(port, Fingerprint(shown.fingerprint), kind=ConnectError)
        self.assertIn("no TLS", text)

    async def test_tls_1_2(self) -> None:
        """Each kind of trust works with TLS 1.2, and refuses with it."""
        self.trust_as_system(authority().certificate)
        shown, other = signed(authority()), self_signed()
        for trust, is_trusted in self.trusts(shown, other):
            port = self.serve(
                shown if is_trusted else other, lowerMaximumSecurityTo=TLSVersion.TLSv1_2
            )
            if is_trusted:
                await self.assert_trusted_at(port, trust)
            else:
                connecting = self.connect(port, trust)
                await self.assertFailure(connecting, CertificateError)
                self.assertEqual(b"".join(await self.received()), b"")

    def trusts(self, shown: Pair, other: Pair) -> list[tuple[Trust, bool]]:
        """Return trusts of each kind: in `shown`, and not in `other`."""
        kinds = [
            SystemRoots(),
            self.trust_file(authority()),
            Fingerprint(shown.fingerprint),
            KnownHosts(self.folder / "none"),
        ]
        return [(trust, is_trusted) for trust in kinds for is_trusted in (True, False)]

    async def test_cancel(self) -> None:
        """Connecting can be cancelled at any time: the connection is closed, nothing was sent,
        and nothing is heard of it any more.
        """
        shown = self_signed()
        port = self.serve(shown)
        silent = Recorders()
        silent_port = self.listen(silent)
        trust = Fingerprint(shown.fingerprint)
        for seconds in (None, 0, 0.001, 0.002, 0.003, 0.005, 0.02):
            for where in (port, silent_port):
                connecting = connect(reactor, "127.0.0.1", where, trust=trust)
                heard: list[Any] = []
                connecting.addBoth(heard.append)
                if seconds is not None:
                    await deferLater(reactor, seconds, lambda: None)
                if not heard:
                    connecting.cancel()
                    self.assertIsInstance(heard[0].value, CancelledError)
                else:
                    await heard[0].close()
        self.assertEqual(b"".join(await self.received()), b"")
        for each in silent.made:
            await each.ended
            self.assertNotIn(b"alice", each.received)

    async def test_reconnecting(self) -> None:
        """A client that logs in by itself sends nothing to a server that it does not trust."""
        port = self.serve(self_signed())
        for trust in (
            SystemRoots(),
            self.trust_file(self_signed()),
            Fingerprint(self_signed().fingerprint),
            KnownHosts(self.folder / "none"),
        ):
            client = ReconnectingClient(
                reactor,
                "127.0.0.1",
                port,
                name="alice",
                password="password",
                handler=_Deaf(),
                trust=trust,
            )
            client.startService()
            error = await client.when_stopped()
            self.assertIsInstance(error, CertificateError)
            await client.stopService()
        self.assertEqual(await self.received(), [b""] * 4)

"""Servers that people would pick instead: ngIRCd, Prosody and ejabberd, from Debian's packages.

``benchmarks/install_peers.sh`` installs them. Each runs in a folder of its own, with TLS 1.3 and
without a log, and with its own limits of speed switched off.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from abc import abstractmethod
from base64 import b64encode
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import psutil

from benchmarks.client import LOCALHOST, PASSWORD, LoadClient
from benchmarks.dialects import Counter, Dialect, LostError
from benchmarks.systems import System
from chatserver.certificates import create_self_signed

START_TIMEOUT = 60.0
"""Seconds until a server must listen; ejabberd takes ten."""


def wait_for(client: LoadClient, *tokens: bytes) -> bytes:
    """Return what comes for `client` up to one of `tokens`.

    :raises AssertionError: the server has closed the connection before
    """
    heard = b""
    while not any(token in heard for token in tokens):
        data = client.receive_some()
        if not data:
            raise AssertionError(f"closed after {heard!r}")
        heard += data
    return heard


class MarkedCounter(Counter):
    """Counts deliveries that end with `end`, and in each of which one of `texts` stands.

    They stand there in their order, again and again.
    """

    def __init__(self, end: bytes, texts: list[bytes]) -> None:
        self._end = end
        self._texts = texts
        self._next = 0
        self._rest = b""

    def feed(self, data: bytes) -> int:
        """See `Counter`."""
        *whole, self._rest = (self._rest + data).split(self._end)
        for delivery in whole:
            if self._texts[self._next] not in delivery:
                raise LostError(f"{delivery!r} is not the message that is due")
            self._next = (self._next + 1) % len(self._texts)
        return len(whole)


class IRCDialect(Dialect):
    """IRC. There are no accounts, but one password for all."""

    longest = 400

    def open(self, port: int, sender: bytes, receiver: bytes) -> tuple[LoadClient, LoadClient]:
        """See `Dialect`."""
        return self._log_in(port, sender), self._log_in(port, receiver)

    def _log_in(self, port: int, name: bytes) -> LoadClient:
        client = LoadClient(port)
        client.send_bytes(b"PASS %s\r\nNICK %s\r\nUSER %s 0 * :x\r\n" % (b"secret", name, name))
        wait_for(client, b" 422 ", b" 376 ")  # The end of the message of the day, or its absence.
        return client

    def say(self, sender: bytes, receiver: bytes, text: bytes) -> bytes:
        """See `Dialect`."""
        return b"PRIVMSG %s :%s\r\n" % (receiver, text)

    def counter(self, sender: bytes, texts: list[bytes]) -> Counter:
        """See `Dialect`."""
        return MarkedCounter(b"\r\n", [b" :" + text for text in texts])


class XMPPDialect(Dialect):
    """XMPP, with TLS from the start (XEP-0368)."""

    def open(self, port: int, sender: bytes, receiver: bytes) -> tuple[LoadClient, LoadClient]:
        """See `Dialect`."""
        return self._log_in(port, sender), self._log_in(port, receiver)

    def register(self, port: int, name: bytes) -> None:
        """Make an account (XEP-0077)."""
        client = self._connect(port)
        client.send_bytes(
            b"<iq type='set' id='register'><query xmlns='jabber:iq:register'>"
            b"<username>%s</username>"
            b"<password>%s</password></query></iq>" % (name, PASSWORD)
        )
        answer = wait_for(client, b"</iq>", b"/>")
        if b"result" not in answer:
            raise AssertionError(f"{name!r} can't be registered: {answer!r}")
        client.close()

    def _connect(self, port: int) -> LoadClient:
        client = LoadClient(port)
        self._begin(client)
        return client

    def _begin(self, client: LoadClient) -> None:
        client.send_bytes(
            b"<?xml version='1.0'?><stream:stream to='localhost' version='1.0' "
            b"xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams'>"
        )
        wait_for(client, b"</stream:features>")

    def _log_in(self, port: int, name: bytes) -> LoadClient:
        client = self._connect(port)
        client.send_bytes(
            b"<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>%s</auth>"
            % b64encode(b"\0" + name + b"\0" + PASSWORD)
        )
        wait_for(client, b"<success")
        self._begin(client)
        client.send_bytes(
            b"<iq type='set' id='bind'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'>"
            b"<resource>r</resource></bind></iq>"
        )
        wait_for(client, b"</iq>")
        return client

    def say(self, sender: bytes, receiver: bytes, text: bytes) -> bytes:
        """See `Dialect`."""
        return b"<message to='%s@localhost/r' type='chat'><body>%s</body></message>" % (
            receiver,
            text,
        )

    def counter(self, sender: bytes, texts: list[bytes]) -> Counter:
        """See `Dialect`."""
        return MarkedCounter(b"</message>", [b"<body>%s</body>" % text for text in texts])


class Peer(System):
    """A server of others, which `command` starts in the foreground."""

    program: str
    about: str
    """What has to be known to compare it."""

    @classmethod
    def missing(cls) -> str | None:
        """See `System`."""
        if shutil.which(cls.program):
            return None
        return f"{cls.program} is not installed (benchmarks/install_peers.sh does it)"

    def start(self) -> int:
        """See `System`."""
        self.report.note(f"{self.name} {_version(self.name.lower())}: {self.about}")
        folder = self.folder()
        folder.chmod(0o777)  # Some of them give up root's rights, and so what root may read.
        self.certificate, self.key = folder / "server.crt", folder / "server.key"
        create_self_signed(str(self.certificate), str(self.key), datetime.now(UTC))
        self.key.chmod(0o644)
        port = _free_port()
        process = subprocess.Popen(
            self.command(folder, port),
            cwd=folder,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            stdin=subprocess.DEVNULL,
        )
        self._process = psutil.Process(process.pid)
        self._stack.callback(process.wait)
        self._stack.callback(self._end)
        _wait_until_listening(process, port)
        self.add_accounts(folder, port)
        return port

    @abstractmethod
    def command(self, folder: Path, port: int) -> list[str]:
        """Write the configuration into `folder`. Return what starts the server."""

    def add_accounts(self, folder: Path, port: int) -> None:
        """Make the accounts, now that the server listens."""

    def processes(self) -> list[psutil.Process]:
        """See `System`."""
        return [self._process, *self._process.children(recursive=True)]

    def _end(self) -> None:
        with suppress(psutil.NoSuchProcess):  # It has ended by itself.
            for process in reversed(self.processes()):
                process.kill()


class NgIRCd(Peer):
    """ngIRCd: C, select or epoll, one thread."""

    name = "ngIRCd"
    program = "ngircd"
    about = "a password for all and no accounts; no log, penalties for speed off"
    dialect = IRCDialect()

    def command(self, folder: Path, port: int) -> list[str]:
        """See `Peer`."""
        config = folder / "ngircd.conf"
        config.write_text(f"""
[Global]
Name = irc.localhost.test
Info = benchmark
Listen = {LOCALHOST}
Ports = {_free_port()}
Password = secret
MotdPhrase =
[Limits]
MaxConnections = 0
MaxConnectionsIP = 0
MaxPenaltyTime = 0
[Options]
DNS = no
Ident = no
PAM = no
[SSL]
CertFile = {self.certificate}
KeyFile = {self.key}
Ports = {port}
""")
        config.chmod(0o644)
        return [self.program, "--nodaemon", "--config", str(config)]


class Prosody(Peer):
    """Prosody: Lua, epoll, one thread."""

    name = "Prosody"
    program = "prosody"
    about = "accounts in files; no log, no limits of speed, only the modules that this needs"
    dialect = XMPPDialect()

    def command(self, folder: Path, port: int) -> list[str]:
        """See `Peer`."""
        accounts = folder / "data" / "localhost" / "accounts"
        accounts.mkdir(parents=True)
        for name in self.dialect.names(self.pairs):
            text = f'return {{ ["password"] = "{PASSWORD.decode()}"; }};\n'
            (accounts / f"{name.decode()}.dat").write_text(text)
        config = folder / "prosody.cfg.lua"
        config.write_text(f"""
run_as_root = true
daemonize = false
pidfile = "{folder}/prosody.pid"
data_path = "{folder}/data"
interfaces = {{ "{LOCALHOST}" }}
c2s_ports = {{}}
c2s_direct_tls_ports = {{ {port} }}
c2s_direct_tls_ssl = {{ certificate = "{self.certificate}"; key = "{self.key}" }}
modules_enabled = {{ "saslauth"; "tls" }}
modules_disabled = {{ "s2s"; "offline" }}
authentication = "internal_plain"
network_backend = "epoll"
log = {{}}
VirtualHost "localhost"
ssl = {{ certificate = "{self.certificate}"; key = "{self.key}" }}
""")
        return [self.program, "--config", str(config), "-F"]


class Ejabberd(Peer):
    """ejabberd: Erlang. It gets one scheduler, since it gets one core, and none spins."""

    name = "ejabberd"
    program = "ejabberdctl"
    about = (
        "accounts in Mnesia; no log, no shaper, only the modules that this needs; "
        "one scheduler, which does not spin"
    )
    dialect = XMPPDialect()

    def command(self, folder: Path, port: int) -> list[str]:
        """See `Peer`."""
        pem = folder / "server.pem"
        pem.write_text(self.certificate.read_text() + self.key.read_text())
        for name in ("spool", "logs"):
            (folder / name).mkdir()
            (folder / name).chmod(0o777)
        config = folder / "ejabberd.yml"
        config.write_text(f"""
hosts: [localhost]
loglevel: none
registration_timeout: infinity
certfiles: ["{pem}"]
auth_method: internal
auth_password_format: plain
listen:
  - port: {port}
    ip: "{LOCALHOST}"
    module: ejabberd_c2s
    tls: true
    max_stanza_size: 262144
acl: {{}}
access_rules:
  register: {{allow: all}}
modules:
  mod_register: {{access: register, ip_access: all}}
""")
        control = folder / "ejabberdctl.cfg"
        control.write_text('ERL_OPTIONS="+S 1 +sbwt none +sbwtdcpu none +sbwtdio none"\n')
        return [
            self.program,
            *("--node", f"benchmark{port}@localhost"),
            *("--config", str(config), "--ctl-config", str(control)),
            *("--logs", str(folder / "logs"), "--spool", str(folder / "spool")),
            "foreground",
        ]

    def add_accounts(self, folder: Path, port: int) -> None:
        """See `Peer`."""
        for name in self.dialect.names(self.pairs):
            XMPPDialect().register(port, name)


PEERS: tuple[type[Peer], ...] = (NgIRCd, Prosody, Ejabberd)


def _version(package: str) -> str:
    """Return the version of a Debian package."""
    command = ["dpkg-query", "--show", "--showformat=${Version}", package]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return "(not Debian's package)"


def _free_port() -> int:
    """Return a port that nobody has just now."""
    with socket.create_server((LOCALHOST, 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def _wait_until_listening(process: subprocess.Popen[bytes], port: int) -> None:
    end = time.monotonic() + START_TIMEOUT
    while True:
        try:
            socket.create_connection((LOCALHOST, port), 1).close()
            return
        except OSError:
            if process.poll() is not None or time.monotonic() > end:
                command = os.fspath(process.args[0])  # type: ignore[index]
                raise AssertionError(f"{command} does not listen") from None
            time.sleep(0.1)

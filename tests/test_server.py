"""The whole server over real sockets: started by `makeService`, with a database of either kind."""

from __future__ import annotations

import json
import os
import select
import shutil
import socket
import sqlite3
import ssl
import tempfile
import threading
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import sqlalchemy as sa
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.internet.threads import blockingCallFromThread, deferToThread
from twisted.trial.unittest import SkipTest, TestCase

from chatserver import listening, protocol
from chatserver.factory import ChatFactory
from chatserver.limits import ACCEPTS_AT_ONCE, MAX_LOGINS_UNDER_WAY
from chatserver.packets import Command, Packet, encode
from chatserver.passwords import Passwords
from chatserver.protocol import ChatProtocol
from chatserver.tap import ChatService, Options, makeService
from tests.blocking import TIMEOUT, Client, make_context
from tests.databases import (
    REFERENCE,
    REFERENCE_PASSWORDS,
    execute,
    postgresql_url,
    sqlite_url,
)
from tests.processes import NO_RATES

OK = Packet(Command.ACK, b"OK")
EXIT = Packet(Command.ERROR, b"EXIT")


NO_LIMITS = (*NO_RATES, "--connections-per-address=0")
"""For tests that seem to be one busy address."""


def error(code: str) -> Packet:
    return Packet(Command.ERROR, code.encode())


class Gate:
    """Holds up every check of a password until it is opened."""

    def __init__(self, test: TestCase) -> None:
        self._event = threading.Event()
        verify = Passwords.verify

        def wait_and_verify(self_: Passwords, *arguments: Any) -> bool:
            self._event.wait()
            return verify(self_, *arguments)

        test.patch(Passwords, "verify", wait_and_verify)
        test.addCleanup(self.open)

    def open(self) -> None:
        """Let them through."""
        self._event.set()


class ServerCase(TestCase):
    """A test with a server that runs in this process, and clients in a thread."""

    timeout = 30
    OPTIONS: tuple[str, ...] = ()

    def setUp(self) -> None:
        self.url = self.make_database()
        self.service = self.start()

    def make_database(self) -> sa.URL:
        """Return the URL of a database for the test."""
        return sqlite_url(self)

    def start(self) -> ChatService:
        """Start a server on a port that is free; it stops when the test ends."""
        folder = os.path.abspath(self.mktemp())
        os.mkdir(folder)
        parsed = Options()
        parsed.parseOptions([
            "--port=0",
            "--log-file=-",
            "--argon2=m=8,t=1,p=1",
            f"--database={self.url.render_as_string(hide_password=False)}",
            f"--certificate={folder}/server.crt",
            f"--private-key={folder}/server.key",
            *NO_LIMITS,
            *self.OPTIONS,
        ])  # fmt: skip
        service = makeService(parsed, reactor)
        assert isinstance(service, ChatService)
        service.startService()
        self.addCleanup(service.stopService)
        return service

    def connect(self, host: str = "127.0.0.1") -> Client:
        """Return a new client. To be called in the thread."""
        client = Client(self.service.port.getHost().port, host)
        self.addCleanup(client.close)
        return client

    def register(self, name: str) -> Client:
        """Return a new client that has just registered `name`."""
        client = self.connect()
        self.assertEqual(client.ask(Command.REGISTER, f"{name}:password".encode()), OK)
        return client

    def log_in(self, name: str) -> Client:
        """Return a new client that has logged in as `name`."""
        client = self.connect()
        self.assertEqual(client.ask(Command.LOGIN, f"{name}:password".encode()), OK)
        return client

    def open_chat(self) -> tuple[Client, Client]:
        """Return alice and bob, new and in a chat."""
        alice, bob = self.register("alice"), self.register("bob")
        self.assertEqual(alice.ask(Command.CHAT_REQUEST, b"bob"), Packet(Command.ACK, b"SENT"))
        self.assertEqual(bob.receive(), Packet(Command.FIND_PEER, b"alice"))
        accepted = bob.ask(Command.CHAT_ACCEPT, b"alice")
        self.assertEqual(accepted, Packet(Command.CHAT_ACCEPT, b"alice"))
        self.assertEqual(alice.receive(), Packet(Command.CHAT_ACCEPT, b"bob"))
        return alice, bob


def in_thread(script: Callable[[Any], None]) -> Callable[[Any], Deferred[None]]:
    """Make of `script`, a test that blocks, one that trial can run beside the reactor."""

    def test(self: ServerCase) -> Deferred[None]:
        return deferToThread(script, self)

    test.__name__ = script.__name__
    test.__doc__ = script.__doc__
    return test


class AccountsMixin:
    """What is the same with every database."""

    @in_thread
    def test_register_and_log_in(self: Any) -> None:
        """Who has registered can log in again; not with another password, or name."""
        self.register("alice").close()
        client = self.connect()
        self.assertEqual(client.ask(Command.LOGIN, b"alice:passwore"), error("AUTH!"))
        self.assertEqual(client.ask(Command.LOGIN, b"Alice:password"), error("AUTH!"))
        self.assertEqual(client.ask(Command.LOGIN, b"a\x00:password"), error("AUTH!"))
        self.assertEqual(client.ask(Command.LOGIN, b"alice:password"), OK)
        self.assertEqual(self.connect().ask(Command.REGISTER, b"alice:password"), error("USER!"))

    @in_thread
    def test_registered_at_the_same_moment(self: Any) -> None:
        """Of many who register one name at the same moment exactly one gets it."""
        clients = [self.connect() for _ in range(10)]
        for client in clients:
            client.send(Command.REGISTER, b"alice:password")
        answers = [client.receive() for client in clients]
        self.assertEqual(answers.count(OK), 1)
        self.assertEqual(answers.count(error("USER!")), 9)

    @in_thread
    def test_database_fails(self: Any) -> None:
        """With a database that fails, a login hears FAILED, and the connection goes on."""
        client = self.register("alice")
        client.close()
        client = self.connect()
        execute(self.url, "ALTER TABLE users RENAME TO away")
        self.assertEqual(client.ask(Command.LOGIN, b"alice:password"), error("FAILED"))
        self.assertEqual(client.ask(Command.REGISTER, b"bob:password"), error("FAILED"))
        execute(self.url, "ALTER TABLE away RENAME TO users")
        self.assertEqual(client.ask(Command.LOGIN, b"alice:password"), OK)
        self.assertEqual(len(self.flushLoggedErrors()), 0)


class SQLiteTests(AccountsMixin, ServerCase):
    """The server on SQLite."""

    @in_thread
    def test_on_disk(self: Any) -> None:
        """When a Register is answered, a program beside the server finds the row."""
        self.register("alice")
        with sqlite3.connect(self.url.database) as connection:
            rows = connection.execute("SELECT username, salt FROM users").fetchall()
        connection.close()
        self.assertEqual(rows, [("alice", "")])


class PostgreSQLTests(AccountsMixin, ServerCase):
    """The server on PostgreSQL."""

    def make_database(self) -> sa.URL:
        """Return a schema of the test's own."""
        return postgresql_url(self)


class ReferenceTests(ServerCase):
    """Against what was taken from the reference server."""

    @in_thread
    def test_transcripts(self: Any) -> None:
        """In every flow each client receives the packets that the reference server sent."""
        path = Path(__file__).parent / "reference" / "transcripts.json"
        for flow in json.loads(path.read_text()):
            clients: dict[str, Client] = {}
            for step in flow["steps"]:
                name = step["client"]
                if name not in clients:
                    clients[name] = self.connect()
                if "sends" in step:
                    clients[name].send_bytes(bytes.fromhex(step["sends"]))
                else:
                    packet = clients[name].receive()
                    self.assertIsNotNone(packet)
                    self.assertEqual(encode(packet).hex(), step["receives"], step["meaning"])


class ReferenceDatabaseTests(ServerCase):
    """With the reference server's users.db."""

    def make_database(self) -> sa.URL:
        """Return a copy of the reference server's."""
        url = sqlite_url(self)
        shutil.copy(REFERENCE, url.database or "")
        return url

    @in_thread
    def test_every_account(self: Any) -> None:
        """Each of its users logs in with their password, twice, and with no other."""
        for name, password in REFERENCE_PASSWORDS.items():
            right = f"{name}:{password}".encode()
            client = self.connect()
            self.assertEqual(client.ask(Command.LOGIN, right + b"!"), error("AUTH!"))
            self.assertEqual(client.ask(Command.LOGIN, right), OK)
            self.assertEqual(self.connect().ask(Command.LOGIN, right), OK)
            self.assertEqual(self.connect().ask(Command.LOGIN, right + b"!"), error("AUTH!"))


class NetworkTests(ServerCase):
    """What networks and clients do."""

    @in_thread
    def test_both_families(self: Any) -> None:
        """A port number listens for IPv4 and for IPv6."""
        hosts = ["127.0.0.1"]
        if socket.has_dualstack_ipv6():
            hosts.append("::1")
        for host in hosts:
            self.assertEqual(self.connect(host).ask(0x7F), error("UNKN"))

    async def test_many_connect_at_once(self) -> None:
        """Those who connect at once are accepted for a while, and then others have their turn."""
        self.patch(listening, "ACCEPT_TIME", 0)
        address = ("127.0.0.1", self.service.port.getHost().port)
        for _ in range(ACCEPTS_AT_ONCE * 6):
            self.addCleanup(socket.create_connection(address).close)
        opened: list[ChatProtocol] = []
        self.patch(ChatFactory, "opened", lambda _, connection: opened.append(connection))
        counts = [0]
        while len(opened) < ACCEPTS_AT_ONCE * 6:
            await deferLater(cast(Any, reactor), 0)
            counts.append(len(opened))
        steps = [after - before for before, after in pairwise(counts)]
        self.assertLessEqual(max(steps), ACCEPTS_AT_ONCE)
        self.patch(listening, "ACCEPT_TIME", 60)
        for _ in range(ACCEPTS_AT_ONCE * 6):
            self.addCleanup(socket.create_connection(address).close)
        await deferLater(cast(Any, reactor), 0)
        await deferLater(cast(Any, reactor), 0)
        self.assertEqual(len(opened), ACCEPTS_AT_ONCE * 12)

    @in_thread
    def test_byte_by_byte(self: Any) -> None:
        """A packet may come in as many TLS records as it has bytes."""
        client = self.connect()
        for byte in encode(Packet(Command.REGISTER, b"alice:password")):
            client.send_bytes(bytes([byte]))
        self.assertEqual(client.receive(), OK)

    @in_thread
    def test_thousand_at_once(self: Any) -> None:
        """A thousand messages in one write arrive, each answered, in order."""
        alice, bob = self.open_chat()
        texts = [b"message %d" % number for number in range(1000)]
        alice.send_bytes(b"".join(encode(Packet(Command.MESSAGE, text)) for text in texts))
        self.assertEqual([alice.receive() for _ in texts], [OK] * 1000)
        expected = [Packet(Command.MESSAGE, b"alice: " + text) for text in texts]
        self.assertEqual([bob.receive() for _ in texts], expected)

    @in_thread
    def test_partner_gone(self: Any) -> None:
        """A partner's reset, half-close or close is EXIT, after what it said before."""
        alice, bob = self.open_chat()
        for end in (Client.reset, Client.shutdown_write, Client.close):
            alice.send(Command.MESSAGE, b"bye")
            self.assertEqual(alice.receive(), OK)
            end(alice)
            self.assertEqual(bob.receive(), Packet(Command.MESSAGE, b"alice: bye"))
            self.assertEqual(bob.receive(), EXIT)
            alice.close()
            alice = self.log_in("alice")
            alice.send(Command.FIND_PEER, b"bob")
            self.assertEqual(bob.receive(), Packet(Command.FIND_PEER, b"alice"))
            self.assertEqual(bob.ask(Command.ACK), Packet(Command.ACK, b"CHAT"))
            self.assertEqual(alice.receive(), Packet(Command.ACK, b"CHAT"))

    @in_thread
    def test_replaced(self: Any) -> None:
        """A second login while the first is in a chat: REPLACED and the end, EXIT, OK."""
        alice, bob = self.open_chat()
        self.log_in("alice")
        self.assertEqual(alice.receive(), error("REPLACED"))
        self.assertIsNone(alice.receive())
        self.assertEqual(bob.receive(), EXIT)

    @in_thread
    def test_lost_while_hashing(self: Any) -> None:
        """A connection that is lost while its login is being checked does not come online."""
        bob = self.register("bob")
        self.register("alice").close()
        gate = Gate(self)
        alice = self.connect()
        alice.send(Command.LOGIN, b"alice:password")
        carol = self.connect()
        carol.send(Command.LOGIN, b"carol:password")
        alice.reset()
        gate.open()
        self.assertEqual(carol.receive(), error("AUTH!"))
        self.assertEqual(bob.ask(Command.CHAT_REQUEST, b"alice"), error("NOPE"))

    @in_thread
    def test_full_max_under_way(self: Any) -> None:
        """Past the end of the hashing queue a login hears SLOWDOWN at once, and may try again."""
        self.patch(protocol, "SLOWDOWN_PAUSE", (0.1, 0.1))
        gate = Gate(self)
        clients = {client._socket: client for client in (self.connect() for _ in range(129))}
        self.assertEqual(len(clients), MAX_LOGINS_UNDER_WAY + 1)
        for client in clients.values():
            # Nothing but the answer to the login is left to come then.
            self.assertEqual(client.ask(0x7F), error("UNKN"))
        for client in clients.values():
            client.send(Command.LOGIN, b"alice:password")
        (answered,), _, _ = select.select(list(clients), [], [], TIMEOUT)
        refused = clients.pop(answered)
        self.assertEqual(refused.receive(), error("SLOWDOWN"))
        gate.open()
        self.assertEqual({client.receive() for client in clients.values()}, {error("AUTH!")})
        self.assertEqual(refused.ask(Command.LOGIN, b"alice:password"), error("AUTH!"))

    @in_thread
    def test_shutdown(self: Any) -> None:
        """When the server stops, clients hear SHUTDOWN and then the end; nobody new gets in."""
        alice, bob = self.open_chat()
        port = self.service.port.getHost().port
        stopping = threading.Thread(
            target=blockingCallFromThread, args=(reactor, self.service.stopService)
        )
        stopping.start()
        for client in (alice, bob):
            self.assertEqual(client.receive(), error("SHUTDOWN"))
            self.assertIsNone(client.receive())
            client.close()
        stopping.join(TIMEOUT)
        self.assertFalse(stopping.is_alive())
        self.assertRaises(ConnectionRefusedError, Client, port)


class PatientTests(ServerCase):
    """A limit longer than the operating system knows."""

    OPTIONS = ("--stall-timeout", "3000000")

    @in_thread
    def test_stall_timeout(self: Any) -> None:
        """Clients are served all the same."""
        self.assertEqual(self.connect().ask(0x7F), error("UNKN"))


class UNIXSocketTests(ServerCase):
    """A server at a UNIX socket, behind a proxy say."""

    def start(self) -> ChatService:
        """Start a server in a folder with a short path."""
        if not hasattr(socket, "AF_UNIX"):
            raise SkipTest("there are no UNIX sockets here")
        folder = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, folder)
        self.path = os.path.join(folder, "socket")
        self.OPTIONS = ("--port", f"unix:{self.path}")
        return super().start()

    def test_many_connect_at_once(self) -> None:
        """Those who connect at once wait. At a UNIX socket who may not wait is refused."""
        for _ in range(200):
            waiting = socket.socket(socket.AF_UNIX)
            self.addCleanup(waiting.close)
            waiting.setblocking(False)
            waiting.connect(self.path)

    @in_thread
    def test_client(self: Any) -> None:
        """A client is answered."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(TIMEOUT)
            connection.connect(self.path)
            with make_context().wrap_socket(connection) as secured:
                secured.sendall(encode(Packet(0x7F)))
                self.assertEqual(secured.recv(100), encode(error("UNKN")))


class LimitTests(ServerCase):
    """With limits that a test can reach."""

    OPTIONS = (
        "--registrations=3/minute",
        "--failed-logins=2/minute",
        "--invitations=4/minute",
        "--connections-per-address=3",
    )

    def setUp(self) -> None:
        # How long it lasts is for a Clock to tell, in test_protocol.
        self.patch(protocol, "SLOWDOWN_PAUSE", (0.1, 0.1))
        super().setUp()

    @in_thread
    def test_registrations(self: Any) -> None:
        """Past the rate Register hears SLOWDOWN, malformed ones count too; Login still works."""
        client = self.register("alice")
        client.close()
        client = self.connect()
        self.assertEqual(client.ask(Command.REGISTER, b"bob"), error("BADF"))
        self.assertEqual(client.ask(Command.REGISTER, b"alice:password"), error("USER!"))
        for body in (b"bob:password", b"bob"):
            self.assertEqual(client.ask(Command.REGISTER, body), error("SLOWDOWN"))
        self.assertEqual(client.ask(Command.LOGIN, b"alice:password"), OK)

    @in_thread
    def test_failed_logins(self: Any) -> None:
        """Past the rate Login hears SLOWDOWN, the right password or not, and stays connected.

        From another address the account's owner comes in.
        """
        self.register("alice").close()
        client = self.connect()
        for _ in range(2):
            self.assertEqual(client.ask(Command.LOGIN, b"alice:passwort"), error("AUTH!"))
        for _ in range(2):
            self.assertEqual(client.ask(Command.LOGIN, b"alice:password"), error("SLOWDOWN"))
        if socket.has_dualstack_ipv6():
            owner = self.connect("::1")
            self.assertEqual(owner.ask(Command.LOGIN, b"alice:password"), OK)
        self.assertEqual(self.connect().ask(Command.LOGIN, b"b:passwort"), error("SLOWDOWN"))

    @in_thread
    def test_invitations(self: Any) -> None:
        """Past the rate an invitation hears SLOWDOWN, whether the others were delivered or not."""
        alice, _bob = self.register("alice"), self.register("bob")
        for name, answer in (
            (b"bob", Packet(Command.ACK, b"SENT")),
            (b"nobody", error("NOPE")),
            (b"alice", error("SELF")),
            (b"bob", Packet(Command.ACK, b"SENT")),
            (b"bob", error("SLOWDOWN")),
            (b"nobody", error("SLOWDOWN")),
        ):
            self.assertEqual(alice.ask(Command.CHAT_REQUEST, name), answer)
        self.assertEqual(alice.ask(Command.FIND_PEER, b"bob"), error("SLOWDOWN"))

    @in_thread
    def test_connections_per_address(self: Any) -> None:
        """Past the number a connection is closed before TLS; when another goes there is room."""
        clients = [self.connect() for _ in range(3)]
        port = self.service.port.getHost().port
        with socket.create_connection(("127.0.0.1", port), TIMEOUT) as surplus:
            self.assertEqual(surplus.recv(1), b"")
        clients.pop().close()
        for _ in range(1000):  # Until the server has noticed.
            try:
                clients.append(self.connect())
                break
            except (ConnectionError, ssl.SSLError):
                pass
        self.assertEqual(len(clients), 3)
        self.assertEqual(clients[-1].ask(0x7F), error("UNKN"))


class TimeoutTests(ServerCase):
    """With time-outs that a test can wait for."""

    OPTIONS = ("--login-timeout=0.5", "--handshake-timeout=0.5")

    @in_thread
    def test_login_timeout(self: Any) -> None:
        """Who does not log in hears TIMEOUT and the end. Who has logged in stays."""
        alice = self.register("alice")
        nobody = self.connect()
        self.assertEqual(nobody.receive(), error("TIMEOUT"))
        self.assertIsNone(nobody.receive())
        self.assertEqual(alice.ask(0x7F), error("UNKN"))

    @in_thread
    def test_handshake_timeout(self: Any) -> None:
        """Who does not finish the handshake is closed without a word."""
        port = self.service.port.getHost().port
        with socket.create_connection(("127.0.0.1", port), TIMEOUT) as silent:
            silent.sendall(b"\x16\x03\x01")
            self.assertRaises(ConnectionResetError, silent.recv, 1)


class FullTests(ServerCase):
    """With room for two connections, and registration closed."""

    OPTIONS = ("--max-connections=2", "--registration=closed")

    @in_thread
    def test_full(self: Any) -> None:
        """Past the number nobody gets in, and who is in goes on."""
        clients = [self.connect(), self.connect()]
        port = self.service.port.getHost().port
        with socket.create_connection(("127.0.0.1", port), TIMEOUT) as surplus:
            self.assertEqual(surplus.recv(1), b"")
        for client in clients:
            self.assertEqual(client.ask(0x7F), error("UNKN"))

    @in_thread
    def test_closed_registration(self: Any) -> None:
        """Register hears CLOSED, whatever is in it."""
        client = self.connect()
        for body in (b"alice:password", b"nonsense"):
            self.assertEqual(client.ask(Command.REGISTER, body), error("CLOSED"))
        self.assertEqual(client.ask(Command.LOGIN, b"alice:password"), error("AUTH!"))


class ProxyTests(ServerCase):
    """Behind a proxy that says where the clients are."""

    OPTIONS = (
        "--port=haproxy:tcp:0:interface=127.0.0.1",
        "--connections-per-address=1",
        "--failed-logins=1/minute",
        "--max-connections=2",
    )

    def connect_from(self, header: bytes) -> Client:
        """Return a client for whom a proxy has sent `header`."""
        client = Client(self.service.port.getHost().port, greeting=header)
        self.addCleanup(client.close)
        return client

    @in_thread
    def test_addresses(self: Any) -> None:
        """Clients are counted by the address in the header, of either version."""
        one = self.connect_from(b"PROXY TCP4 192.0.2.1 192.0.2.9 50000 5555\r\n")
        self.assertRaises(
            (ConnectionError, ssl.SSLError),
            self.connect_from,
            b"PROXY TCP4 192.0.2.1 192.0.2.9 50001 5555\r\n",
        )
        version_2 = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c" + bytes(
            [192, 0, 2, 2, 192, 0, 2, 9, 0xC3, 0x50, 0x15, 0xB3]
        )
        two = self.connect_from(version_2)
        self.assertEqual(one.ask(Command.LOGIN, b"alice:wrong"), error("AUTH!"))
        self.assertEqual(one.ask(Command.LOGIN, b"alice:wrong"), error("SLOWDOWN"))
        self.assertEqual(two.ask(Command.LOGIN, b"bob:wrong"), error("AUTH!"))

    @in_thread
    def test_no_address(self: Any) -> None:
        """Clients whose proxy says nothing of an IP address are counted by the proxy's."""
        unix = b"\r\n\r\n\0\r\nQUIT\n\x21\x31\0\xd8" + b"/a".ljust(108, b"\0") * 2
        self.connect_from(b"PROXY UNKNOWN\r\n")
        self.assertRaises((ConnectionError, ssl.SSLError), self.connect_from, unix)

    @in_thread
    def test_no_header(self: Any) -> None:
        """Who comes past the proxy is cut off, and so is one with a header that can't be."""
        self.assertRaises((ConnectionError, ssl.SSLError), self.connect)
        for where in (b"192.0.2.1 192.0.2.9 x 5555", b"nowhere 192.0.2.9 50000 5555"):
            header = b"PROXY TCP4 %s\r\n" % where
            self.assertRaises((ConnectionError, ssl.SSLError), self.connect_from, header)

    @in_thread
    def test_silent(self: Any) -> None:
        """A connection counts from the start, also while its header is still awaited."""
        port = self.service.port.getHost().port
        for _ in range(2):
            silent = socket.create_connection(("127.0.0.1", port))
            self.addCleanup(silent.close)
        header = b"PROXY TCP4 192.0.2.1 192.0.2.9 50000 5555\r\n"
        self.assertRaises((ConnectionError, ssl.SSLError), self.connect_from, header)


class StallTests(ServerCase):
    """With a stall time-out that a test can wait for."""

    OPTIONS = ("--stall-timeout=0.5",)

    @in_thread
    def test_stalled_reader(self: Any) -> None:
        """One who reads nothing stops its partner, is cut off, and the partner hears EXIT."""
        alice, _bob = self.open_chat()
        count = 600
        # It returns only because bob is cut off: no two sockets' buffers hold as much.
        alice.send_bytes(encode(Packet(Command.MESSAGE, bytes(65_000))) * count)
        answers = [alice.receive() for _ in range(count + 1)]
        taken = answers.index(EXIT)
        self.assertEqual(answers[:taken], [OK] * taken)
        self.assertEqual(answers[taken + 1 :], [error("NOCHAT")] * (count - taken))
        self.assertLess(taken, count)


class EndpointTests(ServerCase):
    """With an endpoint description."""

    OPTIONS = ("--port=tcp:0:interface=127.0.0.1",)

    @in_thread
    def test_endpoint(self: Any) -> None:
        """TLS is put on top of the endpoint that the description names."""
        self.assertEqual(self.connect().ask(0x7F), error("UNKN"))
        self.assertEqual(self.service.port.getHost().host, "127.0.0.1")

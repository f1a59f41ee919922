"""Tests for `chatserver.testing`, the server in memory that applications are tested with."""

from __future__ import annotations

from twisted.internet import reactor
from twisted.internet.defer import Deferred, fail, succeed
from twisted.trial.unittest import SynchronousTestCase

from chatserver.client import (
    CertificateError,
    ChatClient,
    ConnectError,
    ConnectionLostError,
    DeclinedError,
    Fingerprint,
    MalformedCredentialsError,
    NameTakenError,
    NotAuthenticatedError,
    NotOnlineError,
    TimedOutError,
    connect,
)
from chatserver.testing import HOST, PASSWORD, STEP, MemoryServer, server_certificate
from tests.recording import Recorder


class TestingCase(SynchronousTestCase):
    """A test of a server in memory."""

    def setUp(self) -> None:
        self.server = MemoryServer()


class ClientTests(TestingCase):
    """Its clients and accounts."""

    def test_example(self) -> None:
        """The module's example does what its comments say."""
        handler = Recorder()
        server = MemoryServer()
        server.log_in("alice", handler)
        bob = server.log_in("bob")
        inviting = bob.invite("alice")
        self.assertEqual(handler.events, [])
        server.run()
        self.assertEqual(handler.events, [("invited", "bob")])
        answer = self.successResultOf(inviting).when_answered()
        server.advance(61)
        self.failureResultOf(answer, TimedOutError)

    def test_log_in(self) -> None:
        """`log_in` makes the account if need be, and else uses the password that it has."""
        self.server.accounts["alice"] = b"her own"
        self.assertEqual(self.server.log_in("alice").name, "alice")
        self.assertEqual(self.server.log_in("bob").name, "bob")
        self.assertEqual(self.server.accounts, {"alice": b"her own", "bob": PASSWORD.encode()})

    def test_accounts(self) -> None:
        """Names and passwords follow the real rules, and are kept in `accounts`."""
        client = self.server.connect()
        self.assertEqual(client.name, "")
        result = self.server.result
        with self.assertRaises(MalformedCredentialsError):
            result(client.register("alice", "short"))
        with self.assertRaises(MalformedCredentialsError):
            result(client.register("al ice", "password"))
        result(client.register("alice", "password"))
        self.assertEqual(self.server.accounts, {"alice": b"password"})
        other = self.server.connect()
        with self.assertRaises(NameTakenError):
            result(other.register("alice", "password"))
        with self.assertRaises(NotAuthenticatedError):
            result(other.log_in("alice", "passwort"))
        with self.assertRaises(MalformedCredentialsError):
            result(other.log_in("alice", ""))
        result(other.log_in("alice", "password"))

    def test_result(self) -> None:
        """`result` returns or raises what comes; what does not come is an AssertionError."""
        self.assertEqual(self.server.result(succeed(1)), 1)
        with self.assertRaises(ZeroDivisionError):
            self.server.result(fail(ZeroDivisionError()))
        with self.assertRaises(NotOnlineError):
            self.server.result(self.server.log_in("alice").invite("bob"))
        with self.assertRaises(AssertionError):
            self.server.result(Deferred())

    def test_nothing_waits(self) -> None:
        """The real reactor has nothing to do with it."""
        before = (reactor.getDelayedCalls(), reactor.getReaders(), reactor.getWriters())
        self.server.log_in("alice")
        self.assertEqual(
            (reactor.getDelayedCalls(), reactor.getReaders(), reactor.getWriters()), before
        )

    def test_servers_are_apart(self) -> None:
        """Two servers share nothing but the certificate."""
        other = MemoryServer()
        self.server.log_in("alice")
        self.assertEqual((other.accounts, other.connections), ({}, []))
        with self.assertRaises(NotOnlineError):
            other.result(other.log_in("bob").invite("alice"))
        self.assertIs(server_certificate(), server_certificate())

    def test_own_connection(self) -> None:
        """An application that connects by itself trusts it by `trust`, and by nothing else."""

        def connecting(trust: Fingerprint) -> Deferred[ChatClient]:
            server = self.server
            return connect(server.clock, HOST, trust=trust, endpoint=server.endpoint())

        client = self.server.result(connecting(self.server.trust))
        self.server.result(client.register("alice", "password"))
        with self.assertRaises(CertificateError):
            self.server.result(connecting(Fingerprint("00" * 32)))


class TimeTests(TestingCase):
    """Its clock and its time-outs."""

    def test_run(self) -> None:
        """`run` lets time stand still, but does what is due at once."""
        done: list[float] = []
        self.server.clock.callLater(0, done.append, 0)
        self.server.clock.callLater(STEP, done.append, STEP)
        self.server.run()
        self.assertEqual((done, self.server.clock.seconds()), ([0], 0))

    def test_advance(self) -> None:
        """`advance` adds up exactly, and carries what is sent at each step."""
        alice = self.server.log_in("alice")
        asked: list[Deferred[object]] = []
        self.server.clock.callLater(0.5, lambda: asked.append(alice.invite("alice")))
        self.server.advance(0.375)
        self.assertEqual(asked, [])
        for _ in range(1000):
            self.server.advance(0.125)
        self.assertEqual(self.server.clock.seconds(), 125.375)
        self.failureResultOf(asked[0])

    def test_invitation_timeout(self) -> None:
        """How long an invitation waits is the test's to choose."""
        self.server = MemoryServer(invitation_timeout=3)
        alice, _ = self.server.log_in("alice"), self.server.log_in("bob")
        answer = self.server.result(alice.invite("bob")).when_answered()
        self.server.advance(2.875)
        self.assertNoResult(answer)
        self.server.advance(0.125)
        self.failureResultOf(answer, TimedOutError)

    def test_stall_timeout(self) -> None:
        """So is after how long a client that reads nothing is cut off; `room` makes it such."""
        self.server = MemoryServer(stall_timeout=10)
        alice, bob = self.server.log_in("alice"), self.server.log_in("bob")
        self.server.result(alice.invite("bob"))
        chat = self.server.result(bob.accept("alice"))
        self.server.connections[0].server.room = 0
        chat.send("x").addErrback(lambda _: None)
        self.server.advance(9)
        self.assertTrue(self.server.connections[0].server.connected)
        self.server.advance(3)
        self.assertFalse(self.server.connections[0].server.connected)
        self.assertIsInstance(self.server.result(alice.when_closed()), ConnectionLostError)
        self.assertFalse(chat.is_open)


class NetworkTests(TestingCase):
    """Its network."""

    def test_unreachable(self) -> None:
        """While it is not reachable nobody can connect; who is connected stays."""
        alice = self.server.log_in("alice")
        self.server.is_reachable = False
        with self.assertRaises(ConnectError):
            self.server.connect()
        self.assertNoResult(alice.when_closed())
        self.server.is_reachable = True
        self.assertEqual(self.server.log_in("bob").name, "bob")

    def test_cut(self) -> None:
        """On a cut connection nothing arrives, and neither end notices; mended, all arrives."""
        heard = Recorder()
        alice, bob = self.server.log_in("alice", heard), self.server.log_in("bob")
        connection = self.server.connections[0]
        connection.is_cut = True
        there, here = bob.invite("alice"), alice.invite("bob")
        self.server.advance(10)
        self.assertEqual(self.successResultOf(there).invitee, "alice")
        self.assertNoResult(here)
        self.assertEqual(heard.events, [])
        self.assertTrue(connection.client.connected and connection.server.connected)
        connection.is_cut = False
        self.assertEqual(self.server.result(here).invitee, "bob")
        self.assertEqual(heard.events, [("invited", "bob")])

    def test_lose(self) -> None:
        """A connection that is lost is so at both ends, and for them only."""
        alice, bob, carol = map(self.server.log_in, ("alice", "bob", "carol"))
        self.server.connections[1].lose()
        self.assertIsInstance(self.successResultOf(bob.when_closed()), ConnectionLostError)
        with self.assertRaises(NotOnlineError):
            self.server.result(alice.invite("bob"))
        self.assertEqual(self.server.result(alice.invite("carol")).invitee, "carol")
        self.assertNoResult(carol.when_closed())

    def test_connections(self) -> None:
        """`connections` has them in the order in which they were made, each with its address."""
        for name in ("alice", "bob", "alice"):
            self.server.log_in(name)
        ports = [each.server.getPeer().port for each in self.server.connections]
        self.assertEqual(len(set(ports)), 3)
        self.assertEqual([each.client.getHost().port for each in self.server.connections], ports)
        self.assertEqual([each.client.connected for each in self.server.connections], [0, 1, 1])

    def test_one_way(self) -> None:
        """A test may carry the bytes itself, one way and few at a time."""
        alice, bob = self.server.log_in("alice"), self.server.log_in("bob")
        answer = self.server.result(alice.invite("bob")).when_answered()
        first, second = self.server.connections
        declining = bob.decline("alice")
        self.server.clock.advance(0)  # TLS gathers what is written at once.
        while second.to_server(1):
            self.assertNoResult(declining)
        self.server.clock.advance(0)
        while first.to_client(1):
            pass
        self.failureResultOf(answer, DeclinedError)
        self.assertNoResult(declining)
        self.assertTrue(second.exchange())
        self.assertIsNone(self.successResultOf(declining))

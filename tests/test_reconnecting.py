"""Tests for `chatserver.client.ReconnectingClient`, over a whole server in memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from chatserver.client import (
    CertificateError,
    Chat,
    ChatError,
    ClosedError,
    ConnectionLostError,
    Fingerprint,
    NotAuthenticatedError,
    PeerLeftError,
    ReconnectingClient,
    ReplacedError,
    ShutdownError,
    Trust,
    TrustFile,
)
from chatserver.client.reconnecting import LOGIN_TIMEOUT
from chatserver.limits import CLOSE_TIMEOUT
from chatserver.packets import Command, ErrorCode
from chatserver.testing import HOST, MemoryAuthenticator, MemoryServer
from tests.recording import Recorder

CONNECTED = ("connected", "alice")
LOST = ("connection_lost", ConnectionLostError)


class ReconnectingCase(SynchronousTestCase):
    """A test with a server in memory, where Alice has an account."""

    def setUp(self) -> None:
        self.server = MemoryServer()
        self.server.accounts["alice"] = b"password"
        self.recorder = Recorder()
        self.delays: list[int] = []
        self.client = self.make()

    def make(
        self,
        password: str = "password",
        trust: Trust | None = None,
        retry_policy: Callable[[int], float] | None = None,
    ) -> ReconnectingClient:
        """Return a client that waits 10 s after the first failure, 20 s after the second."""
        return ReconnectingClient(
            self.server.clock,
            HOST,
            name="alice",
            password=password,
            handler=self.recorder,
            trust=trust or self.server.trust,
            endpoint=self.server.endpoint(),
            retry_policy=retry_policy or self.delay,
        )

    def delay(self, failures: int) -> float:
        self.delays.append(failures)
        return 10.0 * failures

    def start(self) -> None:
        """Start the client, and let happen what happens at once."""
        self.client.startService()
        self.server.run()

    def stop(self) -> None:
        """Stop the client. Nothing is left behind."""
        self.server.result(self.client.stopService())
        self.assert_stopped(ClosedError)

    def assert_stopped(self, expected: type[ChatError]) -> None:
        """It has stopped for good: also when time passes nothing happens."""
        self.assertIs(type(self.successResultOf(self.client.when_stopped())), expected)
        self.server.run()
        self.assertIsNone(self.client.client)
        self.assertEqual([each for each in self.server.connections if each.client.connected], [])
        self.assertEqual(self.server.clock.getDelayedCalls(), [])

    def refuse_logins(self, code: ErrorCode) -> Callable[[], None]:
        """Let the server refuse each login with `code`. Return what ends that."""

        def log_in(_: Any, conversation: Any, body: bytes, address: str) -> None:
            conversation.refused(Command.LOGIN, code)

        return self.patch(MemoryAuthenticator, "log_in", log_in).restore


class ReconnectingTests(ReconnectingCase):
    """Connecting, and connecting again."""

    def test_connects(self) -> None:
        """Once it is started it connects, logs in and tells the handler."""
        self.server.run()
        self.assertEqual(self.server.connections, [])
        self.assertIsNone(self.client.client)
        self.start()
        self.assertEqual(self.recorder.take(), [CONNECTED])
        assert self.client.client is not None
        self.assertEqual(self.client.client.name, "alice")
        self.assertEqual(self.delays, [])
        self.stop()

    def test_delays(self) -> None:
        """It waits longer after each failure in a row, and from anew after a login."""
        self.server.is_reachable = False
        self.start()
        for failures in (1, 2, 3):
            self.assertEqual(self.delays, list(range(1, failures + 1)))
            self.server.advance(10 * failures - 1)
            self.assertEqual(len(self.delays), failures)
            self.server.advance(1)
        self.server.is_reachable = True
        self.server.advance(40)
        self.assertEqual(self.recorder.take(), [CONNECTED])
        self.server.connections[-1].lose()
        self.assertEqual((self.recorder.take(), self.delays), ([LOST], [1, 2, 3, 4, 1]))
        self.assertIsNone(self.client.client)
        self.server.advance(10)
        self.assertEqual(self.recorder.take(), [CONNECTED])
        self.stop()

    def test_usual_delays(self) -> None:
        """Without a policy of its own it waits half as long again each time, and a bit more."""
        self.client = ReconnectingClient(
            self.server.clock,
            HOST,
            name="alice",
            password="password",
            handler=self.recorder,
            trust=self.server.trust,
            endpoint=self.server.endpoint(),
        )
        self.server.is_reachable = False
        self.start()
        for failures in range(1, 15):
            [call] = self.server.clock.getDelayedCalls()
            delay = call.getTime() - self.server.clock.seconds()
            least = min(1.5**failures, 60)
            self.assertTrue(least <= delay <= least + 1, f"{delay} s after {failures} failures")
            self.server.clock.advance(delay)
        self.stop()

    def test_in_chat(self) -> None:
        """A chat ends with its connection; after the next login a new one can be opened."""
        bob = self.server.log_in("bob")
        self.start()
        first = self.open_chat(bob)
        self.server.connections[-1].lose()
        self.assertFalse(first.is_open)
        self.server.advance(10)
        self.assertFalse(first.is_open)
        second = self.open_chat(bob)
        self.server.result(second.leave())
        chat = [("invited", "bob"), ("chat_began", "bob")]
        self.assertEqual(
            self.recorder.take(),
            [
                CONNECTED,
                *chat,
                ("chat_ended", "bob", ConnectionLostError),
                LOST,
                CONNECTED,
                *chat,
                ("chat_ended", "bob", None),
            ],
        )
        self.server.result(bob.close())
        self.stop()

    def open_chat(self, inviter: Any) -> Chat:
        self.server.result(inviter.invite("alice"))
        assert self.client.client is not None
        return self.server.result(self.client.client.accept("bob"))

    def test_lost_in_the_handshake(self) -> None:
        """A connection that is lost before or while it logs in counts as a failure."""
        self.client.startService()
        self.server.connections[0].lose()
        self.server.advance(10)
        self.assertEqual((self.recorder.take(), self.delays), ([CONNECTED], [1]))
        self.server.connections[1].lose()
        self.refuse_logins(ErrorCode.FAILED)
        self.server.advance(10)
        self.assertEqual(self.delays, [1, 1, 2])
        self.stop()

    def test_shutdown(self) -> None:
        """After a shutdown of the server it comes back."""
        self.start()
        self.server.result(self.server.factory.shut_down())
        self.assertEqual(self.recorder.take(), [CONNECTED, ("connection_lost", ShutdownError)])
        self.server.advance(10)
        self.assertEqual(self.recorder.take(), [CONNECTED])
        self.stop()

    def test_closed_by_the_application(self) -> None:
        """Who closes only the connection gets the next one."""
        self.start()
        assert self.client.client is not None
        self.server.result(self.client.client.close())
        self.server.advance(10)
        self.assertEqual(
            self.recorder.take(), [CONNECTED, ("connection_lost", ClosedError), CONNECTED]
        )
        self.stop()

    def test_passing_refusals(self) -> None:
        """A login that may succeed later is tried again, with longer delays."""
        for code in (ErrorCode.SLOW_DOWN, ErrorCode.FAILED):
            self.setUp()
            restore = self.refuse_logins(code)
            self.start()
            self.server.advance(10)
            self.server.advance(20)
            self.assertEqual(self.delays, [1, 2, 3])
            self.assertNotIn(CONNECTED, self.recorder.take())
            restore()
            self.server.advance(30)
            self.assertEqual(self.recorder.take(), [CONNECTED])
            self.stop()

    def test_login_without_answer(self) -> None:
        """A server that does not answer the login in time is left, and tried again."""
        restore = self.patch(MemoryAuthenticator, "log_in", lambda *_: None).restore
        self.start()
        self.server.advance(LOGIN_TIMEOUT - 1)
        self.assertEqual(self.delays, [])
        self.server.advance(2)
        self.assertEqual(self.delays, [1])
        restore()
        self.server.advance(10)
        self.assertEqual(self.recorder.take()[-1], CONNECTED)
        self.stop()


class GivingUpTests(ReconnectingCase):
    """When there is no point in going on."""

    def test_wrong_password(self) -> None:
        """It gives up when it can't log in, and says why."""
        self.client = self.make(password="wrong")
        stopped = self.client.when_stopped()
        self.start()
        self.assertIsInstance(self.successResultOf(stopped), NotAuthenticatedError)
        self.assert_stopped(NotAuthenticatedError)
        self.assertNotIn(CONNECTED, self.recorder.take())

    def test_replaced(self) -> None:
        """It does not come back when the account has logged in elsewhere."""
        self.start()
        bob = self.server.log_in("bob")
        self.server.result(bob.invite("alice"))
        self.server.result(self.client.client.accept("bob"))  # type: ignore[union-attr]
        other = self.server.log_in("alice")
        self.assertEqual(
            self.recorder.take()[-2:],
            [("chat_ended", "bob", ReplacedError), ("connection_lost", ReplacedError)],
        )
        for client in (bob, other):
            self.server.result(client.close())
        self.assert_stopped(ReplacedError)

    def test_wrong_certificate(self) -> None:
        """It does not try again with a server whose certificate is not the one to trust."""
        self.client = self.make(trust=Fingerprint("00" * 32))
        self.start()
        self.assert_stopped(CertificateError)
        self.assertEqual(self.recorder.take(), [])
        self.assertEqual(len(self.server.connections), 1)

    def test_no_trust(self) -> None:
        """A trust that can't be used is refused at once."""
        with self.assertRaises(CertificateError):
            self.make(trust=TrustFile(self.mktemp()))

    def test_first_reason_counts(self) -> None:
        """Stopping it when it has given up does no harm, and the reason stays."""
        self.client = self.make(password="wrong")
        self.start()
        self.assertIsNone(self.server.result(self.client.stopService()))
        self.assert_stopped(NotAuthenticatedError)


class StoppingTests(ReconnectingCase):
    """`ReconnectingClient.stopService`, in every state."""

    def test_before_start(self) -> None:
        """It can be stopped without ever having been started."""
        stopped = self.client.when_stopped()
        self.assertNoResult(stopped)
        self.stop()
        self.assertIsInstance(self.successResultOf(stopped), ClosedError)
        self.assertEqual(self.server.connections, [])

    def test_connecting(self) -> None:
        """An attempt to connect is given up."""
        self.patch(self.server, "endpoint", Silent)
        self.client = self.make()
        self.start()
        self.stop()
        self.assertEqual((self.recorder.take(), self.delays), ([], []))

    def test_in_the_handshake(self) -> None:
        """So is a handshake, also with a server that says nothing."""
        for is_cut in (False, True):
            self.setUp()
            self.client.startService()
            self.server.connections[0].is_cut = is_cut
            self.server.result(self.client.stopService())
            self.server.connections[0].server.connectionLost(Failure(ConnectionDone()))
            self.assert_stopped(ClosedError)
            self.assertEqual(self.recorder.take(), [])

    def test_logging_in(self) -> None:
        """So is a login that is not answered yet."""
        self.patch(MemoryAuthenticator, "log_in", lambda *_: None)
        self.start()
        self.stop()
        self.assertEqual(self.recorder.take(), [("connection_lost", ClosedError)])

    def test_waiting(self) -> None:
        """No further attempt follows."""
        self.server.is_reachable = False
        self.start()
        self.stop()
        self.assertEqual(self.delays, [1])

    def test_connected(self) -> None:
        """The connection is closed, and the chat and the connection end with that reason."""
        bob_heard = Recorder()
        bob = self.server.log_in("bob", bob_heard)
        self.start()
        self.server.result(bob.invite("alice"))
        self.server.result(self.client.client.accept("bob"))  # type: ignore[union-attr]
        stopped = self.client.when_stopped()
        stopping = self.client.stopService()
        self.assertNoResult(stopped)
        self.server.result(stopping)
        self.assertIsInstance(self.successResultOf(stopped), ClosedError)
        self.assertEqual(
            self.recorder.take()[-2:],
            [("chat_ended", "bob", ClosedError), ("connection_lost", ClosedError)],
        )
        self.assertEqual(bob_heard.take()[-1], ("chat_ended", "alice", PeerLeftError))
        self.server.result(bob.close())
        self.assert_stopped(ClosedError)

    def test_without_network(self) -> None:
        """A server that can't be reached any more is not waited for long, logged in or not."""
        for is_logged_in in (True, False):
            self.setUp()
            if is_logged_in:
                self.start()
            else:
                patched = self.patch(MemoryAuthenticator, "log_in", lambda *_: None)
                self.start()
                patched.restore()
            connection = self.server.connections[0]
            connection.is_cut = True
            stopping = self.client.stopService()
            self.server.advance(CLOSE_TIMEOUT - 1)
            self.assertNoResult(stopping)
            self.server.advance(1)
            self.assertIsNone(self.successResultOf(stopping))
            connection.lose()  # The server's end.
            self.assert_stopped(ClosedError)

    def test_twice(self) -> None:
        """All who stop it are told when it is done."""
        self.start()
        stopping = [self.client.stopService(), self.client.stopService()]
        self.server.run()
        for each in stopping:
            self.assertIsNone(self.successResultOf(each))
        self.assert_stopped(ClosedError)

    def test_from_the_handler(self) -> None:
        """The handler may stop it, at the end of a connection too."""

        class Stopping(Recorder):
            def connection_lost(self, client: Any, reason: ChatError) -> object:
                super().connection_lost(client, reason)
                return service.stopService()

        self.recorder = Stopping()
        service = self.client = self.make()
        self.start()
        self.server.connections[0].lose()
        self.assert_stopped(ClosedError)
        self.assertEqual(self.recorder.take(), [CONNECTED, LOST])

    def test_start_again(self) -> None:
        """It can be started again, and then stopped again."""
        self.start()
        self.stop()
        self.start()
        stopped = self.client.when_stopped()
        self.assertNoResult(stopped)
        self.assertEqual(self.recorder.take()[-1], CONNECTED)
        self.stop()
        self.assertIsInstance(self.successResultOf(stopped), ClosedError)


class Silent:
    """An endpoint that never connects."""

    def connect(self, _: object) -> Deferred[Any]:
        return Deferred()

"""Tests for `chatserver.protocol` and `chatserver.factory`, over in-memory TLS with a clock."""

from __future__ import annotations

import contextlib
import gc
import weakref
from typing import Any

from OpenSSL import SSL
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.main import CONNECTION_LOST
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase

from chatserver import turns
from chatserver.limits import (
    CLOSE_TIMEOUT,
    DRAIN_TIMEOUT,
    HANDSHAKE_TIMEOUT,
    LOGIN_TIMEOUT,
    MAX_HANDSHAKE,
    PACKETS_PER_TURN,
    READ_AHEAD,
    SLOWDOWN_PAUSE,
    STRANGERS_PER_TURN,
    ConnectionLimits,
)
from chatserver.packets import MAX_BODY, Command, Packet, encode
from chatserver.protocol import ChatProtocol, address_of
from chatserver.rates import Rate
from tests.logs import keep_lines
from tests.memory import MemoryClient, MemoryServer

OK = Packet(Command.ACK, b"OK")
EXIT = Packet(Command.ERROR, b"EXIT")
UNKN = Packet(Command.ERROR, b"UNKN")
LOGIN = Packet(Command.LOGIN, b"alice:password")
UNKNOWN = Packet(0x7F)


def error(code: str) -> Packet:
    return Packet(Command.ERROR, code.encode())


def message(text: bytes) -> Packet:
    return Packet(Command.MESSAGE, text)


class ServerCase(TestCase):
    """A test with a server in memory."""

    def setUp(self) -> None:
        self.server = MemoryServer()

    def open_chat(self) -> tuple[MemoryClient, MemoryClient]:
        """Return alice and bob, who are in a chat."""
        alice, bob = self.server.log_in("alice"), self.server.log_in("bob")
        alice.send(Packet(Command.CHAT_REQUEST, b"bob"))
        bob.send(Packet(Command.CHAT_ACCEPT, b"alice"))
        self.assertEqual(alice.take()[-1], Packet(Command.CHAT_ACCEPT, b"bob"))
        self.assertEqual(bob.take()[-1], Packet(Command.CHAT_ACCEPT, b"alice"))
        return alice, bob

    def push(self, sender: MemoryClient, limit: int = 1000) -> int:
        """Let `sender` say long numbered messages until it isn't read. Return how many."""
        for count in range(1, limit + 1):
            sender.send(message(b"%d " % count + bytes(60_000)))
            if not sender.transport.is_reading:
                return count
        return self.fail("the sender was never stopped")


class StreamTests(ServerCase):
    """Packets in a stream."""

    def test_byte_by_byte(self) -> None:
        """A conversation works that comes one byte at a time."""
        client = self.server.connect()
        for byte in encode(LOGIN) + encode(UNKNOWN):
            client.send_bytes(bytes([byte]))
        self.assertEqual(client.take(), [OK, UNKN])

    def test_thousand_at_once(self) -> None:
        """Each of 1 000 packets in one write is answered, in order."""
        client = self.server.connect()
        client.send(LOGIN, *[UNKNOWN, LOGIN] * 500)
        self.assertEqual(client.take(), [OK, *[UNKN, error("ALREADY")] * 500])

    def test_longest_message(self) -> None:
        """The longest message that fits arrives; one byte more is refused, and the chat goes on."""
        alice, bob = self.open_chat()
        text = bytes(MAX_BODY - len("alice: "))
        alice.send(message(text), message(text + b"x"), message(b"on"))
        self.assertEqual(alice.take(), [OK, error("TOOLONG"), OK])
        self.assertEqual(bob.take(), [message(b"alice: " + text), message(b"alice: on")])

    def test_bad_packet(self) -> None:
        """What stands before a bad packet is answered, then BADPACKET, and nothing after it."""
        for bad in (b"GET / HTTP/1.1", encode(UNKNOWN)[:-1] + b"\x00"):
            client = self.server.connect()
            client.send_bytes(encode(UNKNOWN) + bad + encode(LOGIN))
            self.assertEqual(client.take(), [UNKN, error("BADPACKET")])
            self.assertTrue(client.has_ended)
            client.send(LOGIN)
            self.assertEqual(client.take(), [])

    def test_bad_packet_in_chat(self) -> None:
        """The partner of one who sends a bad packet hears EXIT at once."""
        alice, bob = self.open_chat()
        alice.send_bytes(b"GET / HTTP/1.1")
        self.assertEqual(bob.take(), [EXIT])
        alice.close()
        self.assertEqual(bob.take(), [])

    def test_packets_before_the_end(self) -> None:
        """Whole packets that came before the end of the stream are handled, in all its forms."""
        for end in (MemoryClient.close, MemoryClient.reset, MemoryClient.say_goodbye):
            self.server = MemoryServer()
            alice, bob = self.open_chat()
            alice._tls.sendall(encode(message(b"bye")) + encode(message(b"half"))[:-1])
            alice.transport.protocol.dataReceived(alice._tls.bio_read(2**16))
            end(alice)
            self.assertEqual(bob.take(), [message(b"alice: bye"), EXIT])
            self.assertFalse(alice.transport.connected)


class LoginTests(ServerCase):
    """While a login is under way."""

    def test_packets_wait(self) -> None:
        """Packets behind a login wait for its outcome, and are handled in order then."""
        self.server.authenticator.is_slow = True
        client = self.server.connect()
        client.send(UNKNOWN, Packet(Command.LOGIN, b"alice:wrong"), UNKNOWN, LOGIN, UNKNOWN)
        self.assertEqual(client.take(), [UNKN])
        self.server.authenticator.decide()
        self.server.run()
        self.assertEqual(client.take(), [error("AUTH!"), UNKN])
        self.server.authenticator.decide()
        self.server.run()
        self.assertEqual(client.take(), [OK, UNKN])

    def test_reading_ahead_is_bounded(self) -> None:
        """Not much more is read than one packet while a login is under way."""
        self.server.authenticator.is_slow = True
        client = self.server.connect()
        client.send(LOGIN)
        data, sent = encode(UNKNOWN) * 1000, 0
        while client.transport.is_reading:
            client.send_bytes(data)
            sent += 1000
        self.assertLess(sent * len(encode(UNKNOWN)), READ_AHEAD + 2 * len(data))
        self.server.authenticator.decide()
        self.server.run()
        self.assertEqual(client.take(), [OK, *[UNKN] * sent])

    def test_lost_meanwhile(self) -> None:
        """The outcome of a login whose connection is gone is dropped."""
        for end in (MemoryClient.close, MemoryClient.reset, MemoryClient.say_goodbye):
            self.server = MemoryServer()
            other = self.server.log_in("bob")
            self.server.authenticator.is_slow = True
            client = self.server.connect()
            client.send(LOGIN, Packet(Command.CHAT_REQUEST, b"bob"))
            end(client)
            self.server.authenticator.decide()
            self.server.run()
            other.send(Packet(Command.CHAT_REQUEST, b"alice"))
            self.assertEqual(other.take(), [error("NOPE")])

    def test_order_of_completion(self) -> None:
        """Of two logins to one account the one that is completed later wins."""
        self.server.authenticator.is_slow = True
        first, second = self.server.connect(), self.server.connect()
        second.send(LOGIN)
        first.send(LOGIN)
        self.server.authenticator.decide()
        self.server.authenticator.decide()
        self.server.run()
        self.assertEqual(second.take(), [OK, error("REPLACED")])
        self.assertEqual(first.take(), [OK])


class ClosingTests(ServerCase):
    """Deadlines, and the end of connections."""

    def test_handshake_deadline(self) -> None:
        """A client that does not finish its handshake is cut off, without a word."""
        client = self.server.connect(handshake=False)
        self.server.advance(HANDSHAKE_TIMEOUT - 0.125)
        self.assertTrue(client.transport.connected)
        self.server.advance(0.125)
        self.assertFalse(client.transport.connected)
        self.assertEqual(self.server.clock.getDelayedCalls(), [])

    def test_handshake_deadline_is_not_extended(self) -> None:
        """One byte a second does not keep a connection whose handshake is not done."""
        client = self.server.connect(handshake=False)
        for byte in b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc":
            client.transport.protocol.dataReceived(bytes([byte]))
            self.server.advance(1)
            self.assertTrue(client.transport.connected)
        self.server.advance(HANDSHAKE_TIMEOUT - 9)
        self.assertFalse(client.transport.connected)

    def test_login_deadline(self) -> None:
        """A client that does not log in hears TIMEOUT and the end, whatever else it sends."""
        client = self.server.connect()
        for _ in range(int(LOGIN_TIMEOUT) - 1):
            self.server.advance(1)
            client.send(UNKNOWN)
        client.send_bytes(encode(LOGIN)[:5])
        client.take()
        self.assertTrue(client.transport.connected)
        self.server.advance(1)
        self.assertEqual(client.take(), [error("TIMEOUT")])
        self.assertTrue(client.has_ended)
        client.close()
        self.assertEqual(self.server.clock.getDelayedCalls(), [])

    def test_login_deadline_while_logging_in(self) -> None:
        """A login that is still not decided then does not count, though its account is there."""
        self.server.authenticator.is_slow = True
        client = self.server.connect()
        client.send(LOGIN)
        self.server.advance(LOGIN_TIMEOUT)
        self.assertEqual(client.take(), [error("TIMEOUT")])
        self.server.authenticator.decide()
        self.server.authenticator.is_slow = False
        bob = self.server.log_in("bob")
        bob.send(Packet(Command.CHAT_REQUEST, b"alice"))
        self.assertEqual(bob.take(), [error("NOPE")])

    def test_counted_once(self) -> None:
        """A client that breaks off in the midst of its login does not count any more, once."""
        self.server.authenticator.is_slow = True
        client = self.server.connect()
        client.send(LOGIN)
        client.reset()
        self.server.authenticator.decide()
        self.server.run()
        self.assertEqual(dict(self.server.factory._by_network), {})

    def test_pause(self) -> None:
        """Who was told SLOWDOWN is not heard for a moment; what it sends meanwhile is not lost."""
        self.server = MemoryServer(invitations=Rate(1, 60, "1/minute"))
        alice, bob = self.server.log_in("alice"), self.server.log_in("bob")
        alice.send(*[Packet(Command.CHAT_REQUEST, b"bob")] * 3, UNKNOWN)
        self.assertEqual(alice.take(), [Packet(Command.ACK, b"SENT"), error("SLOWDOWN")])
        bob.send(Packet(Command.CHAT_ACCEPT))
        self.assertEqual(alice.take(), [Packet(Command.CHAT_ACCEPT, b"bob")])
        least, most = SLOWDOWN_PAUSE
        self.server.advance(least - 0.125)
        self.assertEqual(alice.take(), [])
        self.server.advance(most - least + 0.125)
        self.assertEqual(alice.take(), [error("BUSY"), UNKN])

    def test_pause_ends_with_the_connection(self) -> None:
        """Who goes during the pause leaves no timer behind."""
        self.server = MemoryServer(invitations=Rate(1, 60, "1/minute"))
        for end in (MemoryClient.close, MemoryClient.reset, MemoryClient.say_goodbye):
            client = self.server.log_in("alice")
            client.send(*[Packet(Command.CHAT_REQUEST, b"bob")] * 2)
            self.assertEqual(client.take()[-1], error("SLOWDOWN"))
            end(client)
            self.server.advance(CLOSE_TIMEOUT)
            self.server.advance(LOGIN_TIMEOUT)
            self.assertEqual(self.server.clock.getDelayedCalls(), [])

    def test_no_login_deadline_after_login(self) -> None:
        """Who has logged in may be quiet for ever."""
        client = self.server.log_in("alice")
        self.server.advance(2 * LOGIN_TIMEOUT)
        client.send(UNKNOWN)
        self.assertEqual(client.take(), [UNKN])

    def test_no_limits(self) -> None:
        """Each of the time-outs can be switched off."""
        self.server = MemoryServer(ConnectionLimits(None, None, None, None, None, None))
        shaking = self.server.connect(handshake=False)
        nobody = self.server.connect()
        _alice, bob = self.open_chat()
        bob.stop_reading()
        self.push(_alice)
        self.server.advance(1000)
        for client in (shaking, nobody, _alice, bob):
            self.assertTrue(client.transport.connected)
        self.assertEqual(nobody.take(), [])

    def test_idle_connections_cost_no_timer(self) -> None:
        """A client that is logged in and quiet has no timer running."""
        self.open_chat()
        self.server.advance(60)
        self.assertEqual(self.server.clock.getDelayedCalls(), [])

    def test_withheld_goodbye(self) -> None:
        """Who does not close after its last Error is cut off; what it sends is thrown away."""
        client = self.server.connect()
        client.send_bytes(b"nonsense")
        for _ in range(100):
            client.send_bytes(bytes(16_000))
        self.assertTrue(client.transport.is_reading)
        self.server.advance(CLOSE_TIMEOUT - 0.125)
        self.assertTrue(client.transport.connected)
        self.server.advance(0.125)
        self.assertFalse(client.transport.connected)

    def test_closing_a_client_that_does_not_read(self) -> None:
        """A client that does not even take its last Error is cut off as well."""
        client = self.server.log_in("alice")
        client.stop_reading()
        while client.transport.is_reading:
            client.send(*[UNKNOWN] * 1000)
        self.server.log_in("alice")
        self.assertTrue(client.transport.connected)
        self.server.advance(CLOSE_TIMEOUT)
        self.assertFalse(client.transport.connected)
        self.assertEqual(client.take(), [])

    def test_shutdown(self) -> None:
        """When the server goes down each client hears SHUTDOWN, and no EXIT before it."""
        alice, bob = self.open_chat()
        nobody = self.server.connect()
        shaking = self.server.connect(handshake=False)
        fired: list[Any] = []
        self.server.factory.shut_down().addCallback(fired.append)
        self.assertNoResult(self.server.factory.shut_down())
        self.server.run()
        for client in (alice, bob, nobody):
            self.assertEqual(client.take(), [error("SHUTDOWN")])
            self.assertEqual(fired, [])
            client.close()
        self.assertFalse(shaking.transport.connected)
        self.assertEqual(fired, [None])
        self.assertEqual(self.server.clock.getDelayedCalls(), [])

    def test_shutdown_behind_the_end(self) -> None:
        """A server goes down after the last packets of one that is gone, and without a fault."""
        alice, _bob = self.open_chat()
        alice._tls.sendall(encode(message(b"hello")) * PACKETS_PER_TURN * 4)
        alice.transport.protocol.dataReceived(alice._tls.bio_read(2**16))
        alice.transport.connectionLost(Failure(CONNECTION_LOST))
        _bob.transport.connectionLost(Failure(CONNECTION_LOST))
        down = self.server.factory.shut_down()
        self.assertNoResult(down)
        self.server.run()
        self.successResultOf(down)
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_shutdown_of_nobody(self) -> None:
        """A server without clients is down at once."""
        self.successResultOf(self.server.factory.shut_down())


class BackPressureTests(ServerCase):
    """Clients that do not read."""

    def test_partner_waits(self) -> None:
        """A reader that stalls stops its partner; when it reads on, nothing is lost or moved."""
        alice, bob = self.open_chat()
        bob.stop_reading()
        count = self.push(alice)
        self.assertLess(count, 10)
        self.assertTrue(bob.transport.is_reading)
        bob.start_reading()
        self.assertTrue(alice.transport.is_reading)
        self.assertEqual(alice.take(), [OK] * count)
        numbers = [packet.body[len("alice: ") :].partition(b" ")[0] for packet in bob.take()]
        self.assertEqual(numbers, [b"%d" % number for number in range(1, count + 1)])

    def test_own_answers(self) -> None:
        """A client that never reads its own answers is not read any more."""
        client = self.server.log_in("alice")
        client.stop_reading()
        sent = 0
        while client.transport.is_reading:
            client.send(*[UNKNOWN] * 1000)
            sent += 1000
            self.assertLess(sent, 100_000)
        client.start_reading()
        self.assertEqual(client.take(), [UNKN] * sent)

    def test_small_records_of_one_who_does_not_read(self) -> None:
        """A client that reads nothing is not read for long, whatever it sends: TLS may answer to
        what is nothing for us.
        """
        client = self.server.log_in("alice")
        client.stop_reading()
        client.send(*[UNKNOWN] * 4000)
        packet, sent = encode(UNKNOWN), 0
        connection = client.transport.protocol
        while client.transport.is_reading:
            client._tls.sendall(packet[sent % len(packet) :][:1])
            data = client._tls.bio_read(2**16)
            connection.dataReceived(data)
            sent += 1
            self.assertLess(sent * len(data), READ_AHEAD + 1000)
        self.assertGreater(sent, 1000)
        client.start_reading()
        self.assertTrue(client.transport.is_reading)
        self.assertEqual(client.take(), [UNKN] * (4000 + sent // len(packet)))

    def test_neither_reads(self) -> None:
        """Two who both write and never read stop each other, and go on when they read."""
        alice, bob = self.open_chat()
        alice.stop_reading()
        bob.stop_reading()
        counts = self.push(alice), self.push(bob)
        alice.start_reading()
        bob.start_reading()
        for client, own, others in ((alice, *counts), (bob, *reversed(counts))):
            packets = client.take()
            self.assertEqual(packets.count(OK), own)
            self.assertEqual(len(packets), own + others)

    def test_reads_on(self) -> None:
        """One that was held for not reading is read as much as before once it has read all."""
        client = self.server.log_in("alice")
        client.stop_reading()
        while client.transport.is_reading:
            client.send(*[UNKNOWN] * 1000)
        client.start_reading()
        client.take()
        large = Packet(0x7F, bytes(1000))
        count = 3 * READ_AHEAD // 1000
        for _ in range(count):
            client.send(large)
        self.assertEqual(client.take(), [UNKN] * count)

    def test_backlog_from_before_the_chat(self) -> None:
        """A chat that begins with one who does not read holds the other from the start."""
        alice, bob = self.server.log_in("alice"), self.server.log_in("bob")
        alice.send(Packet(Command.FIND_PEER, b"bob"))
        alice.stop_reading()
        while alice.transport.is_reading:
            alice.send(*[UNKNOWN] * 1000)
        bob.send(Packet(Command.ACK), message(b"hello"), UNKNOWN)
        self.assertEqual(bob.take()[1:], [Packet(Command.ACK, b"CHAT")])
        alice.start_reading()
        self.assertEqual(bob.take(), [OK, UNKN])

    def test_released_by_leaving(self) -> None:
        """One whose partner stalls is read again when the partner is gone."""
        for end in (MemoryClient.close, MemoryClient.reset):
            self.server = MemoryServer()
            alice, bob = self.open_chat()
            bob.stop_reading()
            count = self.push(alice)
            end(bob)
            self.assertTrue(alice.transport.is_reading)
            packets = alice.take()
            self.assertEqual(packets.count(EXIT), 1)
            self.assertEqual(len(packets), count + 1)

    def test_left_behind_a_stalled_reader(self) -> None:
        """One whose partner stalls can go away: what it said before is kept for the partner."""
        alice, bob = self.open_chat()
        bob.stop_reading()
        count = self.push(alice)
        alice.close()
        bob.start_reading()
        packets = bob.take()
        self.assertEqual(len(packets), count + 1)
        self.assertEqual(packets[-1], EXIT)

    def test_stalled(self) -> None:
        """Who takes nothing for 60 s is cut off, and its partner hears EXIT."""
        alice, bob = self.open_chat()
        bob.stop_reading()
        self.push(alice)
        self.server.advance(60)
        self.assertTrue(bob.transport.connected)
        self.server.advance(7)
        self.assertFalse(bob.transport.connected)
        self.assertIn(EXIT, alice.take())
        self.assertTrue(alice.transport.is_reading)

    def test_stalled_with_little(self) -> None:
        """It is the same when only a little waits."""
        alice, bob = self.open_chat()
        bob.stop_reading()
        alice.send(message(b"hello"))
        self.server.advance(60)
        self.assertTrue(bob.transport.connected)
        self.server.advance(7)
        self.assertFalse(bob.transport.connected)
        self.assertEqual(alice.take(), [OK, EXIT])

    def test_stall_timeout_option(self) -> None:
        """How long a client may take nothing is an option."""
        self.server = MemoryServer(ConnectionLimits(stall_timeout=10))
        alice, bob = self.open_chat()
        bob.stop_reading()
        alice.send(message(b"hello"))
        self.server.advance(12)
        self.assertFalse(bob.transport.connected)

    def test_slow_is_not_stalled(self) -> None:
        """A reader that takes a little now and then is not cut off, however long it needs."""
        alice, bob = self.open_chat()
        bob.stop_reading()
        self.push(alice)
        for _ in range(10):
            bob.start_reading(room=100)
            self.server.advance(30)
        self.assertTrue(bob.transport.connected)

    def test_busy_is_not_stalled(self) -> None:
        """Who takes all it is sent is not cut off, though at each look something new waits."""
        alice, bob = self.open_chat()
        for _ in range(30):
            alice._tls.sendall(encode(message(b"hello")))
            alice.transport.protocol.dataReceived(alice._tls.bio_read(2**16))
            # The turn in which the message is written is the one in which the watch looks.
            self.server.clock.advance(6)
            self.server.run()
        self.assertTrue(bob.transport.connected)
        self.assertEqual(len(bob.take()), 30)

    def test_goodbye_of_a_stalled_reader(self) -> None:
        """Who stalls and says goodbye is gone at once; what waits is sent if it reads on soon."""
        alice, bob = self.open_chat()
        bob.stop_reading()
        count = self.push(alice)
        bob.say_goodbye()
        answers = alice.take()
        delivered = answers.index(EXIT)
        self.assertEqual(answers[:delivered], [OK] * delivered)
        self.assertEqual(answers[delivered + 1 :], [error("NOCHAT")] * (count - delivered))
        self.assertTrue(bob.transport.connected)
        bob.start_reading()
        self.assertFalse(bob.transport.connected)
        self.assertEqual(len(bob.take()), delivered)

    def test_drain(self) -> None:
        """When the server goes down, a slow reader gets all that was acknowledged, then SHUTDOWN.

        It has until the drain time-out, which is longer than other closing takes.
        """
        alice, bob = self.open_chat()
        bob.stop_reading()
        count = self.push(alice)
        fired: list[Any] = []
        self.server.factory.shut_down().addCallback(fired.append)
        self.server.advance(DRAIN_TIMEOUT - 1)
        answers = alice.take()
        self.assertEqual(answers.pop(), error("SHUTDOWN"))
        self.assertEqual(answers, [OK] * len(answers))
        alice.close()
        bob.start_reading()
        heard = bob.take()
        self.assertEqual(heard.pop(), error("SHUTDOWN"))
        self.assertEqual(len(heard), len(answers))
        self.assertLessEqual(len(answers), count)
        self.assertTrue(bob.has_ended)
        self.assertEqual(fired, [])
        bob.close()
        self.assertEqual(fired, [None])

    def test_drain_timeout(self) -> None:
        """Who takes nothing is cut off at the drain time-out."""
        alice, bob = self.open_chat()
        bob.stop_reading()
        self.push(alice)
        fired: list[Any] = []
        self.server.factory.shut_down().addCallback(fired.append)
        self.server.advance(DRAIN_TIMEOUT - 0.125)
        self.assertEqual(fired, [])
        self.server.advance(0.125)
        self.assertEqual(fired, [None])

    def test_goodbye_without_reading(self) -> None:
        """Who says goodbye and does not read on is cut off."""
        _alice, bob = self.open_chat()
        bob.stop_reading()
        self.push(_alice)
        bob.say_goodbye()
        self.server.advance(CLOSE_TIMEOUT - 0.125)
        self.assertTrue(bob.transport.connected)
        self.server.advance(0.125)
        self.assertFalse(bob.transport.connected)

    def test_broken_tls_of_a_stalled_reader(self) -> None:
        """Who stalls and then sends what is not TLS is gone at once, like one that says goodbye."""
        alice, bob = self.open_chat()
        bob.stop_reading()
        self.push(alice)
        bob.transport.protocol.dataReceived(b"\x17\x03\x03\x00\x20" + bytes(32))
        self.server.run()
        self.assertIn(EXIT, alice.take())
        bob.start_reading()
        self.assertFalse(bob.transport.connected)


class FairnessTests(ServerCase):
    """Clients that send much."""

    def test_turns(self) -> None:
        """Of many packets of one client only some are handled in a turn of the reactor."""
        client = self.server.log_in("alice")
        handled: list[bytes] = []
        self.patch(ChatProtocol, "packetsReceived", lambda *received: handled.extend(received[-1]))
        for packet in (UNKNOWN, message(b"hello")):
            handled.clear()
            client._tls.sendall(encode(packet) * PACKETS_PER_TURN * 3)
            client.transport.protocol.dataReceived(client._tls.bio_read(2**16))
            self.assertEqual(len(handled), PACKETS_PER_TURN)
            self.server.run()
            self.assertEqual(len(handled), PACKETS_PER_TURN * 3)

    def test_strangers(self) -> None:
        """Of one that has not logged in fewer packets are handled in a turn, and fewer records."""
        client = self.server.connect()
        handled: list[bytes] = []
        self.patch(ChatProtocol, "packetsReceived", lambda *received: handled.extend(received[-1]))
        client._tls.sendall(encode(UNKNOWN) * 3)
        client.transport.protocol.dataReceived(client._tls.bio_read(2**16))
        self.assertEqual(len(handled), STRANGERS_PER_TURN)
        self.server.run()
        self.assertEqual(len(handled), 3)
        self.send_records(client, *[bytes([byte]) for byte in encode(UNKNOWN)])
        connection = client.transport.protocol.wrappedProtocol
        self.assertEqual(len(connection._decoder), STRANGERS_PER_TURN)
        self.server.run()
        self.assertEqual(len(handled), 4)

    def send_records(self, client: MemoryClient, *pieces: bytes) -> None:
        """Let all `pieces`, a TLS record each, come at once."""
        for piece in pieces:
            client._tls.sendall(piece)
        client.transport.protocol.dataReceived(client._tls.bio_read(2**16))

    def test_small_records(self) -> None:
        """Of many small TLS records of one client only some are decrypted in a turn."""
        client = self.server.log_in("alice")
        connection = client.transport.protocol.wrappedProtocol
        packet = encode(Packet(0x7F, bytes(100)))
        self.send_records(client, *[bytes([byte]) for byte in packet])
        self.assertEqual(len(connection._decoder), PACKETS_PER_TURN)
        self.assertFalse(client.transport.is_reading)
        self.server.run()
        self.assertTrue(client.transport.is_reading)
        self.assertEqual(client.take(), [UNKN])

    def test_handshakes(self) -> None:
        """Of many handshakes that take long one goes on in each turn; who is gone takes none."""
        clients = [self.server.connect(handshake=False) for _ in range(4)]
        for client in clients:
            with self.assertRaises(SSL.WantReadError):
                client._tls.do_handshake()
            client.transport.protocol.dataReceived(client._tls.bio_read(2**16))
        clients[0].transport.connectionLost(Failure(CONNECTION_LOST))
        self.patch(turns, "TURN_TIME", 0.0)
        queue = self.server.tls_factory.handshakes
        for answered in range(1, 4):
            queue._make_next()
            begun = [client.transport.protocol._has_begun for client in clients]
            self.assertEqual(begun, [False] + [True] * answered + [False] * (3 - answered))
        self.server.run()
        for client in clients[1:]:
            client._tls.do_handshake()

    def test_handshake_in_small_records(self) -> None:
        """A handshake in many small TLS records takes its turn for each, behind those of others."""
        slow, quick = (self.server.connect(handshake=False) for _ in range(2))
        for client in (slow, quick):
            with self.assertRaises(SSL.WantReadError):
                client._tls.do_handshake()
        hello = slow._tls.bio_read(2**16)
        version, content = hello[1:3], hello[5:]
        count = -(-len(content) // 5)
        slow.transport.protocol.dataReceived(
            b"".join(
                b"\x16" + version + len(piece).to_bytes(2, "big") + piece
                for piece in (content[start : start + 5] for start in range(0, len(content), 5))
            )
        )
        quick.transport.protocol.dataReceived(quick._tls.bio_read(2**16))
        answered: list[MemoryClient] = []
        self.patch(turns, "TURN_TIME", 0.0)
        for _ in range(count + 1):
            self.server.tls_factory.handshakes._make_next()
            for client in (slow, quick):
                if client not in answered and client.transport.run():
                    answered.append(client)
        self.assertEqual(answered, [quick, slow])
        self.server.run()
        slow._tls.do_handshake()

    def test_handshake_byte_by_byte(self) -> None:
        """A handshake in pieces takes a turn for each record; what is no TLS takes one at once."""
        slow, wrong = (self.server.connect(handshake=False) for _ in range(2))
        with self.assertRaises(SSL.WantReadError):
            slow._tls.do_handshake()
        hello = slow._tls.bio_read(2**16)
        for end in range(len(hello)):
            self.assertIsNone(slow.transport.protocol._next_feed)
            slow.transport.protocol.dataReceived(hello[end : end + 1])
        self.assertIsNotNone(slow.transport.protocol._next_feed)
        self.server.run()
        slow._tls.do_handshake()
        wrong.transport.protocol.dataReceived(b"GET /")
        self.server.run()
        self.assertFalse(wrong.transport.connected)

    def test_endless_handshake(self) -> None:
        """A hello that does not end is refused, before OpenSSL has kept much of it."""
        client = self.server.connect(handshake=False)
        hello = b"\x01\x01\xf0\x00\x03\x03" + bytes(32 + 1) + b"\x00\x02\x13\x01\x01\x00\xff\xff"
        lines = keep_lines(self)
        for start in range(0, MAX_HANDSHAKE, 8192):
            self.assertTrue(client.transport.connected)
            piece = hello + bytes(8192 - len(hello)) if start == 0 else bytes(8192)
            client.transport.protocol.dataReceived(b"\x16\x03\x01\x20\x00" + piece)
            self.server.run()
        self.assertFalse(client.transport.connected)
        self.assertIn("handshake too long", lines[-1])

    def test_small_records_before_the_end(self) -> None:
        """What waits to be decrypted when a client goes is handled before."""
        for end in (MemoryClient.close, MemoryClient.reset):
            self.server = MemoryServer()
            alice, bob = self.open_chat()
            count = PACKETS_PER_TURN * 3
            self.send_records(alice, *[encode(message(b"hello"))] * count)
            end(alice)
            self.assertEqual(bob.take(), [*[message(b"alice: hello")] * count, EXIT])

    def test_many_packets_before_the_end(self) -> None:
        """All packets of one that is gone are handled, in turns, before the others hear so."""
        alice, bob = self.open_chat()
        count = PACKETS_PER_TURN * 3
        alice._tls.sendall(encode(message(b"hello")) * count)
        alice.transport.protocol.dataReceived(alice._tls.bio_read(2**16))
        alice.reset()
        self.assertEqual(bob.take(), [*[message(b"alice: hello")] * count, EXIT])


class FaultTests(ServerCase):
    """When the server has a fault."""

    def test_fault(self) -> None:
        """A client whose packet meets a fault is cut off and logged, and gone for the others."""
        alice, bob = self.open_chat()

        def fail(*_: object) -> None:
            raise RuntimeError("a fault")

        self.patch(self.server.online, "relay", fail)
        alice.send(message(b"hello"), UNKNOWN)
        self.assertFalse(alice.transport.connected)
        self.assertEqual(bob.take(), [EXIT])
        bob.send(Packet(Command.CHAT_REQUEST, b"alice"))
        self.assertEqual(bob.take(), [error("NOPE")])
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)

    def test_fault_in_the_handshake(self) -> None:
        """One that the server can't take in is cut off: nothing else would end it."""

        def fail(*_: object) -> None:
            raise RuntimeError("a fault")

        self.patch(ChatProtocol, "handshakeCompleted", fail)
        client = self.server.connect(handshake=False)
        with self.assertRaises(SSL.WantReadError):
            client._tls.do_handshake()
        self.server.run()
        with contextlib.suppress(SSL.Error):
            client._tls.do_handshake()
        self.server.run()
        self.assertFalse(client.transport.connected)
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)

    def test_fault_in_the_shutdown(self) -> None:
        """One that can't be told that the server goes down does not keep it from the others."""
        alice, bob = self.server.log_in("alice"), self.server.log_in("bob")
        first = alice.transport.protocol.wrappedProtocol

        def fail() -> None:
            raise RuntimeError("a fault")

        first.shut_down = fail
        self.server.factory.shut_down()
        self.server.run()
        self.assertEqual(bob.take(), [error("SHUTDOWN")])
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)

    def test_fault_after_the_end(self) -> None:
        """It is the same with the last packets of one that is gone: nobody stays as a ghost."""
        alice, bob = self.open_chat()
        alice._tls.sendall(encode(message(b"hello")) * PACKETS_PER_TURN * 4)
        alice.transport.protocol.dataReceived(alice._tls.bio_read(2**16))
        alice.transport.connectionLost(Failure(CONNECTION_LOST))

        def fail(*_: object) -> None:
            raise RuntimeError("a fault")

        self.patch(self.server.online, "relay", fail)
        self.server.run()
        self.assertEqual(bob.take()[-1], EXIT)
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)


class MemoryTests(ServerCase):
    """What the server keeps."""

    def test_gone_inviters_are_not_kept(self) -> None:
        """Of an inviter that is gone only its name is kept with the invited one."""
        self.server.log_in("bob")
        alice = self.server.log_in("alice")
        alice.send(Packet(Command.FIND_PEER, b"bob"))
        connection = weakref.ref(alice.transport.protocol.wrappedProtocol)
        alice.close()
        self.server.connections.remove(alice)
        del alice
        gc.collect()
        self.assertIsNone(connection())


class TransportTests(ServerCase):
    """What the protocol asks of its transport."""

    def test_no_delay(self) -> None:
        """Nagle's algorithm is off: packets are small and follow one another."""
        self.assertTrue(self.server.connect().transport.has_no_delay)


class LogTests(ServerCase):
    """What the log says of connections."""

    def setUp(self) -> None:
        super().setUp()
        self.lines = keep_lines(self)

    def test_life_of_a_chat(self) -> None:
        """Each step of a connection's life is a line with the client's address."""
        alice, bob = self.open_chat()
        alice.send(message(b"hello"), message(b"/exit"))
        alice.say_goodbye()
        bob.send_bytes(b"nonsense")
        bob.reset()
        self.server.connect(handshake=False).close()
        a, b = "192.0.2.1:50000", "192.0.2.1:50001"
        self.assertEqual(
            self.lines,
            [
                f"[INFO] Client connected: {a}",
                f"[INFO] Handshake done: {a}, TLSv1.3",
                f"[INFO] Logged in: 'alice' ({a})",
                f"[INFO] Client connected: {b}",
                f"[INFO] Handshake done: {b}, TLSv1.3",
                f"[INFO] Logged in: 'bob' ({b})",
                f"[INFO] Chat opened: 'alice' ({a}) and 'bob' ({b})",
                f"[INFO] Chat left: 'alice' ({a}) left 'bob' ({b})",
                f"[INFO] Disconnected: 'alice' ({a}), closed",
                f"[WARNING] Bad packet: 'bob' ({b}), wrong magic",
                f"[INFO] Disconnected: 'bob' ({b}), connection lost",
                "[INFO] Client connected: 192.0.2.1:50002",
                "[ERR] Handshake failed: 192.0.2.1:50002, connection lost",
            ],
        )

    def test_failed_handshake(self) -> None:
        """A handshake that fails is a line that says in OpenSSL's words why."""
        client = self.server.connect(handshake=False)
        client.transport.protocol.dataReceived(b"GET / HTTP/1.1\r\n\r\n")
        self.server.run()
        self.assertEqual(self.lines[-1], "[ERR] Handshake failed: 192.0.2.1:50000, http request")

    def test_goodbye_in_the_handshake(self) -> None:
        """A goodbye in the midst of the handshake is a line like any other failed handshake."""
        client = self.server.connect(handshake=False)
        with self.assertRaises(SSL.WantReadError):
            client._tls.do_handshake()
        hello = client._tls.bio_read(2**16)
        client.transport.protocol.dataReceived(hello)
        client.transport.protocol.dataReceived(b"\x15\x03\x03\x00\x02\x01\x00")
        self.server.run()
        self.assertIn("[ERR] Handshake failed: 192.0.2.1:50000, ", self.lines[-1])
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_cut_off(self) -> None:
        """Of a client that is cut off at a deadline the line says which."""
        self.server.connect(handshake=False)
        self.server.advance(HANDSHAKE_TIMEOUT)
        self.server.connect().send_bytes(b"nonsense")
        self.server.advance(CLOSE_TIMEOUT)
        _alice, bob = self.open_chat()
        bob.stop_reading()
        self.push(_alice)
        bob.say_goodbye()
        self.server.advance(CLOSE_TIMEOUT)
        self.assertEqual(
            [line for line in self.lines if "cut off" in line],
            [
                "[ERR] Handshake failed: 192.0.2.1:50000, "
                "cut off: the handshake was not done in 10 s",
                "[INFO] Disconnected: 192.0.2.1:50001, cut off: the goodbye was not taken in 5 s",
                "[INFO] Disconnected: 'bob' (192.0.2.1:50003), "
                "cut off: what was left was not taken in 5 s",
            ],
        )

    def test_stalled(self) -> None:
        """A client that is cut off because it stalls is a warning."""
        alice, bob = self.open_chat()
        bob.stop_reading()
        alice.send(message(b"hello"))
        self.server.advance(67)
        self.assertIn(
            "[WARNING] Stalled: 'bob' (192.0.2.1:50001) took nothing for 60 s and is cut off",
            self.lines,
        )

    def test_addresses(self) -> None:
        """An IPv4 address that came by IPv6 is shown as what it is; IPv6 stands in brackets."""
        addresses = [
            IPv4Address("TCP", "192.0.2.1", 5),
            IPv6Address("TCP", "::ffff:192.0.2.1", 5),
            IPv6Address("TCP", "2001:db8::1", 5),
            IPv6Address("TCP", "fe80::1%eth0", 5),
        ]
        self.assertEqual(
            [str(address_of(address)) for address in addresses],
            ["192.0.2.1:5", "192.0.2.1:5", "[2001:db8::1]:5", "[fe80::1%eth0]:5"],
        )
        self.assertIn("/run/chat", str(address_of(UNIXAddress("/run/chat"))))

"""Faults on real sockets: connections that end anywhere, what is no TLS, stalls, no files left."""

from __future__ import annotations

import itertools
import os
import socket
import ssl
import sys
import time
from collections.abc import Callable
from contextlib import closing
from typing import Any

from chatserver.packets import Command, Packet, encode
from tests.blocking import TIMEOUT, Client, make_context, reset
from tests.processes import NO_RATES, ProcessTestCase, until
from tests.test_server import EXIT, OK, ServerCase, error, in_thread

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

BYE = Packet(Command.ACK, b"BYE")
SENT = Packet(Command.ACK, b"SENT")
HI = Packet(Command.MESSAGE, b"alice: hi")

CONVERSATION = [
    encode(Packet(Command.LOGIN, b"alice:password")),
    encode(Packet(Command.CHAT_REQUEST, b"bob")),
    encode(Packet(Command.MESSAGE, b"hi")),
    encode(Packet(Command.EXIT_CHAT)),
]
"""What alice sends."""

IN_CHAT = len(CONVERSATION[0] + CONVERSATION[1]) + 1
"""So many bytes of it are sent, at least, where a chat is open."""


def heard(client: Client) -> list[Packet]:
    """Return what has come for `client` by now."""
    client.send(0x7F)
    return receive_until(client, error("UNKN"))


def receive_until(client: Client, last: Packet) -> list[Packet]:
    """Return what comes for `client` before `last`.

    :raises EOFError: the stream ends.
    """
    packets = []
    while (packet := client.receive()) != last:
        if packet is None:
            raise EOFError(f"after {packets[-3:]}")
        packets.append(packet)
    return packets


def half_close(connection: socket.socket) -> None:
    """Close the sending half of `connection`, and wait until the server has closed the other."""
    connection.shutdown(socket.SHUT_WR)
    read_to_end(connection)
    connection.close()


def read_to_end(connection: socket.socket) -> bytes:
    """Return all that still comes."""
    data = b""
    try:
        while more := connection.recv(65536):
            data += more
    except ConnectionError:  # The server has thrown away what it did not read.
        pass
    return data


class Handshake:
    """The client's part of a TLS handshake, whose bytes are the test's."""

    def __init__(self) -> None:
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = make_context().wrap_bio(self._in, self._out)
        self.is_done = False

    def next(self, data: bytes = b"") -> bytes:
        """Take what the server has sent, and return what is sent to it."""
        self._in.write(data)
        try:
            self._tls.do_handshake()
            self.is_done = True
        except ssl.SSLWantReadError:
            pass
        return self._out.read()


class FaultCase(ServerCase):
    """A test that makes connections of all kinds to a server."""

    def raw(self) -> socket.socket:
        """Return a new connection without TLS."""
        port = self.service.port.getHost().port
        connection = socket.create_connection(("127.0.0.1", port), TIMEOUT)
        self.addCleanup(connection.close)
        return connection

    def connections(self) -> list[Any]:
        """Return the server's connections."""
        return list(self.service._factory._connections)

    def until_left(self, number: int) -> None:
        """Wait until the server has so many connections, and no more."""
        until(lambda: len(self.connections()) <= number, f"{number} connections")
        self.assertEqual(len(self.connections()), number)


class AnywhereTests(FaultCase):
    """A connection may end anywhere. No error is logged then, or trial would tell."""

    def play(self, alice: Client, bob: Client, count: int) -> None:
        """Let alice send `count` bytes of the conversation.

        All is answered that is whole, but she does not read the last answer.
        """
        left = count
        for packet, answer in zip(CONVERSATION, (OK, SENT, OK, BYE), strict=True):
            alice.send_bytes(packet[:left])
            left -= len(packet)
            if left <= 0:
                return
            self.assertEqual(alice.receive(), answer)
            if answer == SENT:
                self.assertEqual(heard(bob)[-1:], [Packet(Command.FIND_PEER, b"alice")])
                accepted = bob.ask(Command.CHAT_ACCEPT, b"alice")
                self.assertEqual(accepted, Packet(Command.CHAT_ACCEPT, b"alice"))
                self.assertEqual(alice.receive(), Packet(Command.CHAT_ACCEPT, b"bob"))

    def end_at_every_byte(self, end: Callable[[socket.socket], None], is_all_read: bool) -> None:
        """Let the conversation end with `end` after each of its bytes."""
        self.register("alice").close()
        bob, carol, dave = (self.register(name) for name in ("bob", "carol", "dave"))
        self.assertEqual(carol.ask(Command.CHAT_REQUEST, b"dave"), SENT)
        self.assertEqual(dave.receive(), Packet(Command.FIND_PEER, b"carol"))
        dave.send(Command.CHAT_ACCEPT)
        self.assertEqual(dave.receive(), Packet(Command.CHAT_ACCEPT, b"carol"))
        self.assertEqual(carol.receive(), Packet(Command.CHAT_ACCEPT, b"dave"))
        for count in range(len(b"".join(CONVERSATION)) + 1):
            alice = self.connect()
            self.play(alice, bob, count)
            end(alice._socket)
            if count >= IN_CHAT:
                told = receive_until(bob, EXIT)
                is_said = count >= len(b"".join(CONVERSATION[:3]))
                # A reset may throw away what the server has not read.
                expected = [[HI]] if is_said and is_all_read else [[HI], []] if is_said else [[]]
                self.assertIn(told, expected, count)
            elsewhere = [Packet(Command.FIND_PEER, b"alice")]
            # An invitation whose answer nobody has read.
            self.assertIn(heard(bob), [[], elsewhere] if count < IN_CHAT else [[]], count)
            self.assertEqual(dave.ask(Command.MESSAGE, b"%d" % count), OK)
            self.assertEqual(carol.receive(), Packet(Command.MESSAGE, b"dave: %d" % count))
        self.until_left(3)
        self.log_in("alice").close()
        for client in (bob, carol, dave):
            client.close()
        self.until_left(0)

    @in_thread
    def test_reset(self: Any) -> None:
        """A reset after any byte: the partner hears EXIT, once; the others notice nothing."""
        self.end_at_every_byte(reset, is_all_read=False)

    @in_thread
    def test_half_close(self: Any) -> None:
        """A half-close after any byte: all that is whole is done, then it is as above."""
        self.end_at_every_byte(half_close, is_all_read=True)

    @in_thread
    def test_handshake(self: Any) -> None:
        """A handshake may end after any of its bytes: others get in, and nothing is left."""
        for end, flight in itertools.product((reset, half_close), (1, 2)):
            for count in itertools.count(0, 16):
                connection, handshake = self.raw(), Handshake()
                data = handshake.next()
                if flight == 2:
                    connection.sendall(data)
                    while not handshake.is_done:
                        data = handshake.next(connection.recv(65536))
                connection.sendall(data[:count])
                end(connection)
                if count >= len(data):
                    break
        self.register("alice").close()
        self.until_left(0)


class GarbageTests(FaultCase):
    """What is no TLS, and what is no packet."""

    OPTIONS = ("--login-timeout=0.5",)

    @in_thread
    def test_no_tls(self: Any) -> None:
        """Who sends no TLS gets an alert at most, and the end."""
        hello = Handshake().next()
        broken = [
            hello[:at] + bytes([hello[at] ^ 0xFF]) + hello[at + 1 :] for at in range(0, 100, 3)
        ]
        for data in [b"GET / HTTP/1.1\r\nHost: example.com\r\n\r\n", bytes(3000), b"MAGC", *broken]:
            with closing(self.raw()) as connection:
                connection.sendall(data)
                connection.shutdown(socket.SHUT_WR)
                self.assertIn(read_to_end(connection)[:1], (b"", b"\x15", b"\x16"))
        self.register("alice").close()
        self.until_left(0)

    @in_thread
    def test_packet_never_sent(self: Any) -> None:
        """A packet that is announced and not sent keeps a place only for who has logged in."""
        header = encode(Packet(Command.MESSAGE, bytes(65_535)))[:10]
        nobody = self.connect()
        nobody.send_bytes(header)
        self.assertEqual(nobody.receive(), error("TIMEOUT"))
        self.assertIsNone(nobody.receive())
        nobody.close()
        alice, bob = self.open_chat()
        alice.send_bytes(header)
        self.assertEqual(bob.ask(Command.MESSAGE, b"hi"), OK)
        self.assertEqual(alice.receive(), Packet(Command.MESSAGE, b"bob: hi"))
        alice.reset()
        self.assertEqual(bob.receive(), EXIT)
        self.until_left(1)


class StalledCase(FaultCase):
    """A test of what comes behind messages that are not read."""

    COUNT = 200
    """Messages: more than the buffers of two sockets hold, one of which is small."""

    def stall(self) -> tuple[Client, Client]:
        """Return alice and bob, who has not read her messages, so that she is not read."""
        alice, bob = self.open_chat()
        bob._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**16)
        alice._socket.setblocking(False)
        data = b"".join(
            encode(Packet(Command.MESSAGE, b"%d:" % number + bytes(65_000)))
            for number in range(self.COUNT)
        )
        self.unsent = memoryview(data + encode(Packet(Command.MESSAGE, b"/exit")))

        def is_full() -> bool:
            self.send(alice)
            return any(connection._is_paused for connection in self.connections())

        until(is_full, "back-pressure")
        return alice, bob

    def send(self, alice: Client) -> None:
        """Send as much of what is unsent as the network takes."""
        try:
            while self.unsent:
                self.unsent = self.unsent[alice._socket.send(self.unsent[: 2**16]) :]
        except ssl.SSLWantWriteError:
            pass

    def numbers(self, packets: list[Packet]) -> list[int]:
        """Return the numbers of alice's messages."""
        return [int(packet.body.split(b":")[1]) for packet in packets]


class BehindStallTests(StalledCase):
    """What waits until the messages before it are read."""

    @in_thread
    def test_reset(self: Any) -> None:
        """Behind a stall a reset is told once all that came before it is read."""
        alice, bob = self.stall()
        alice.reset()
        told = receive_until(bob, EXIT)
        self.assertGreater(len(told), 0)
        self.assertEqual(self.numbers(told), list(range(len(told))))
        self.assertEqual(heard(bob), [])
        self.until_left(1)

    @in_thread
    def test_exit(self: Any) -> None:
        """Behind a stall `/exit` is done once all that came before it is read, and no sooner."""
        alice, bob = self.stall()
        told = []
        while (packet := bob.receive()) != EXIT and packet is not None:
            told.append(packet)
            self.send(alice)
        self.assertEqual(self.numbers(told), list(range(self.COUNT)))
        alice._socket.settimeout(TIMEOUT)
        self.assertEqual([alice.receive() for _ in range(self.COUNT)], [OK] * self.COUNT)
        self.assertEqual(alice.receive(), BYE)


class CutOffTests(StalledCase):
    """With a stall time-out that a test can wait for."""

    OPTIONS = ("--stall-timeout=0.5",)

    @in_thread
    def test_reset(self: Any) -> None:
        """Who is reset behind one who never reads is gone when that one is cut off."""
        alice, _bob = self.stall()
        alice.reset()
        self.until_left(0)
        self.log_in("alice")


class NoFilesTests(ProcessTestCase):
    """A process that can open no more files."""

    if resource is None or not sys.platform.startswith("linux"):
        skip = "the file limit of another process can be set on Linux only"

    def test_no_files(self) -> None:
        """Chats go on, the processor rests, and clients get in when there are files again."""
        server = self.start(*NO_RATES)
        port = server.wait_for_port(lambda: server.log)
        alice, bob = self.chat(port)
        pid = server.process.pid
        limit = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        taken = {int(name) for name in os.listdir(f"/proc/{pid}/fd")}
        free = min(set(range(len(taken) + 1)) - taken)
        # With a file in reserve the reactor can close who comes; then it can't even accept them.
        for soft, comes_to_end in ((free, True), (3, False)):
            resource.prlimit(pid, resource.RLIMIT_NOFILE, (soft, limit[1]))
            lines, used = len(server.log.splitlines()), self.processor_time(pid)
            newcomers = [socket.create_connection(("127.0.0.1", port), TIMEOUT) for _ in range(5)]
            if comes_to_end:
                self.assertEqual([read_to_end(each) for each in newcomers], [b""] * 5)
            end = time.monotonic() + 0.5  # It is about what happens when nothing happens.
            while time.monotonic() < end:
                self.assertEqual(alice.ask(Command.MESSAGE, b"hi"), OK)
                self.assertEqual(bob.receive(), HI)
                time.sleep(0.02)
            self.assertLess(self.processor_time(pid) - used, 0.25)
            told = server.log.splitlines()[lines:]
            self.assertLess(len(told), 25)
            if comes_to_end:  # Else it was told in the same second.
                self.assertIn(
                    "[WARNING] No client can be accepted for now (EMFILE): ", "\n".join(told)
                )
            resource.prlimit(pid, resource.RLIMIT_NOFILE, limit)
            self.assertEqual(self.connect(port).ask(0x7F), error("UNKN"))
            for each in newcomers:
                each.close()
        self.assertLog(server.log)

    def processor_time(self, pid: int) -> float:
        """Return the seconds that the processor has worked for a process."""
        with open(f"/proc/{pid}/stat") as file:
            fields = file.read().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

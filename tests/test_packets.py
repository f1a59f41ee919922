"""Tests for `chatserver.packets`."""

from itertools import pairwise
from random import Random

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import TestCase

from chatserver.packets import (
    MAX_BODY,
    AckCode,
    BadPacketError,
    Command,
    ErrorCode,
    Packet,
    PacketDecoder,
    encode,
)
from tests import streams

PACKETS = st.builds(Packet, st.integers(0, 255), st.binary(max_size=300))

OK = bytes.fromhex("4d4147430400024f4b4468b8c4")
"""Ack `OK`, as the reference server sends it."""


def decode(*pieces: bytes) -> list[Packet]:
    """Return the packets that a decoder finds in `pieces`, taken as they come."""
    decoder = PacketDecoder()
    packets = []
    for piece in pieces:
        decoder.feed(piece)
        while (packet := decoder.next_packet()) is not None:
            packets.append(packet)
    return packets


class PacketTests(TestCase):
    """What a packet can be."""

    def test_command_range(self) -> None:
        """A command that does not fit into a byte is refused."""
        self.assertRaises(ValueError, Packet, 256)
        self.assertRaises(ValueError, Packet, -1)

    def test_body_too_long(self) -> None:
        """A body whose length does not fit into two bytes is refused."""
        Packet(Command.MESSAGE, bytes(MAX_BODY))
        self.assertRaises(ValueError, Packet, Command.MESSAGE, bytes(MAX_BODY + 1))

    def test_frozen(self) -> None:
        """A packet does not change."""
        with self.assertRaises(AttributeError):
            Packet(Command.ACK).body = b"other"  # type: ignore[misc]

    def test_codes_are_bodies(self) -> None:
        """An Ack's or Error's code goes over the wire as its ASCII bytes."""
        self.assertEqual(decode(encode(Packet(4, AckCode.OK))), [Packet(4, b"OK")])
        self.assertEqual(decode(encode(Packet(5, ErrorCode.NAME_TAKEN))), [Packet(5, b"USER!")])


class EncodeTests(TestCase):
    """The bytes of a packet."""

    def test_reference(self) -> None:
        """Ack `OK` has the bytes that the reference server sends."""
        self.assertEqual(encode(Packet(Command.ACK, AckCode.OK)), OK)


class DecoderTests(TestCase):
    """Packets out of a stream."""

    def test_split_anywhere(self) -> None:
        """A packet may come in any two pieces."""
        for at in range(len(OK) + 1):
            self.assertEqual(decode(OK[:at], OK[at:]), [Packet(Command.ACK, b"OK")])

    def test_byte_by_byte(self) -> None:
        """Packets may come one byte at a time."""
        stream = OK * 3
        pieces = [stream[i : i + 1] for i in range(len(stream))]
        self.assertEqual(decode(*pieces), [Packet(Command.ACK, b"OK")] * 3)

    def test_many_at_once(self) -> None:
        """A thousand packets may come in one piece, and each is handed out, in order."""
        packets = [Packet(Command.MESSAGE, str(i).encode()) for i in range(1000)]
        self.assertEqual(decode(b"".join(map(encode, packets))), packets)

    def test_messages_in_a_row(self) -> None:
        """Messages in a row are taken together, as many as are wanted; all else, and what leaves
        the chat, one by one.
        """
        one, two, three = (Packet(Command.MESSAGE, text) for text in (b"1", b"2", b"3"))
        ack, leave = Packet(Command.ACK, b"OK"), Packet(Command.MESSAGE, b"/exit")
        packets = (one, two, three, one, ack, ack, two, leave, leave, one)
        decoder = PacketDecoder()
        decoder.feed(b"".join(map(encode, packets)) + OK[:-1])
        for expected in ([one, two, three], [one], [ack], [ack], [two], [leave], [leave], [one]):
            command, bodies = expected[0].command, [packet.body for packet in expected]
            self.assertEqual(decoder.next_packets(3), (command, bodies))
        self.assertIsNone(decoder.next_packets(3))

    def test_bad_packet_behind_messages(self) -> None:
        """What comes before a bad packet is taken first."""
        one = Packet(Command.MESSAGE, b"1")
        decoder = PacketDecoder()
        decoder.feed(encode(one) * 2 + b"NOPE")
        self.assertEqual(decoder.next_packets(9), (Command.MESSAGE, [b"1", b"1"]))
        self.assertRaises(BadPacketError, decoder.next_packets, 9)
        self.assertIsNone(decoder.next_packets(9))

    def test_longest_body(self) -> None:
        """The longest body comes through."""
        packet = Packet(Command.MESSAGE, bytes(range(256)) * 255 + bytes(255))
        self.assertEqual(len(packet.body), MAX_BODY)
        self.assertEqual(decode(encode(packet)), [packet])

    def test_incomplete(self) -> None:
        """Of an incomplete packet nothing is handed out, and its bytes are kept."""
        decoder = PacketDecoder()
        decoder.feed(OK[:-1])
        self.assertIsNone(decoder.next_packet())
        self.assertEqual(len(decoder), len(OK) - 1)

    def test_wrong_magic_is_told_at_once(self) -> None:
        """A wrong magic is an error as soon as its four bytes are there, and not before."""
        decoder = PacketDecoder()
        decoder.feed(b"GET")
        self.assertIsNone(decoder.next_packet())
        decoder.feed(b" ")
        self.assertRaises(BadPacketError, decoder.next_packet)

    def test_wrong_crc(self) -> None:
        """A packet with any bit of its CRC, command or body wrong is an error."""
        for position in (4, 7, len(OK) - 1):
            decoder = PacketDecoder()
            broken = bytearray(OK)
            broken[position] ^= 1
            decoder.feed(bytes(broken))
            self.assertRaises(BadPacketError, decoder.next_packet)

    def test_nothing_after_an_error(self) -> None:
        """Packets before an error are handed out; after it there are none, and nothing is kept."""
        decoder = PacketDecoder()
        decoder.feed(OK + b"NOPE" + OK)
        self.assertEqual(decoder.next_packet(), Packet(Command.ACK, b"OK"))
        self.assertRaises(BadPacketError, decoder.next_packet)
        decoder.feed(OK)
        self.assertIsNone(decoder.next_packet())
        self.assertEqual(len(decoder), 0)

    def test_stop(self) -> None:
        """A decoder that was stopped throws away what it has and what still comes."""
        decoder = PacketDecoder()
        decoder.feed(OK)
        decoder.stop()
        decoder.feed(OK)
        self.assertIsNone(decoder.next_packet())
        self.assertEqual(len(decoder), 0)

    @given(st.lists(PACKETS, max_size=8), st.lists(st.integers(0, 2500)))
    def test_round_trip(self, packets: list[Packet], cuts: list[int]) -> None:
        """Whatever is encoded and cut anywhere is decoded as it was."""
        stream = b"".join(map(encode, packets))
        edges = [0, *sorted(cut for cut in cuts if cut < len(stream)), len(stream)]
        pieces = [stream[a:b] for a, b in pairwise(edges)]
        self.assertEqual(decode(*pieces), packets)

    @given(st.lists(st.binary(max_size=40) | st.builds(encode, PACKETS), max_size=8))
    def test_any_bytes(self, pieces: list[bytes]) -> None:
        """Any bytes give packets, or the one error, however they are cut; never anything else."""

        stream = b"".join(pieces)
        for most in (1, 20):
            self.assertEqual(streams.decode(pieces, most), streams.parse(stream))

    def test_broken_streams(self) -> None:
        """Streams of packets that were changed give what a parser of the whole stream finds."""
        source = Random(1)
        for _ in range(300):
            stream = streams.random_stream(source)
            for most in (1, 20):
                pieces = streams.cut(source, stream)
                self.assertEqual(streams.decode(pieces, most), streams.parse(stream))

"""Random streams for the decoder, beside a parser that is as simple as can be."""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from random import Random

from chatserver.packets import MAGIC, BadPacketError, Command, Packet, PacketDecoder, encode

Outcome = tuple[list[Packet], bool, int]
"""The packets, whether something that is no packet came, and how many bytes are left."""


def decode(pieces: Iterable[bytes], most: int) -> Outcome:
    """Return what the decoder makes of a stream that comes in `pieces`.

    :param most: how many packets are taken together
    """
    decoder, packets, is_bad = PacketDecoder(), [], False
    for piece in pieces:
        decoder.feed(piece)
        try:
            while taken := decoder.next_packets(most):
                packets += [Packet(taken.command, body) for body in taken.bodies]
        except BadPacketError:
            is_bad = True
    return packets, is_bad, len(decoder)


def parse(stream: bytes) -> Outcome:
    """Return the same of a stream that is there as a whole, as docs/protocol.md says it."""
    packets = []
    while len(stream) >= 4:
        if stream[:4] != b"MAGC":
            return packets, True, 0
        length = int.from_bytes(stream[5:7], "big")
        if len(stream) < 7 or len(stream) < 7 + length + 4:
            break
        crc = int.from_bytes(stream[7 + length : 11 + length], "big")
        if zlib.crc32(stream[: 7 + length]) != crc:
            return packets, True, 0
        packets.append(Packet(stream[4], stream[7 : 7 + length]))
        stream = stream[11 + length :]
    return packets, False, len(stream)


def random_stream(source: Random) -> bytes:
    """Return packets, random bytes, or most often packets of which some bytes are not right."""
    parts = []
    for _ in range(source.randint(0, 8)):
        body = source.randbytes(source.choice([0, 1, 7, 40, 300, 300, 5000]))
        command = source.choice([Command.MESSAGE, source.randrange(256)])
        parts.append(encode(Packet(command, body)))
        if source.random() < 0.05:
            parts.append(source.choice([MAGIC, source.randbytes(20), MAGIC + bytes(8)]))
    stream = bytearray(b"".join(parts))
    for _ in range(source.choice([0, 0, 1, 1, 3])):
        at = source.randrange(len(stream) + 1)
        change = source.randrange(4)
        if change == 0:
            stream[at : at + 1] = source.randbytes(1)
        elif change == 1:
            stream[at:at] = source.randbytes(source.randint(1, 5))
        elif change == 2:
            del stream[at : at + source.randint(1, 5)]
        else:
            del stream[at:]
    return bytes(stream)


def cut(source: Random, stream: bytes) -> list[bytes]:
    """Return `stream` in pieces of random sizes."""
    most = source.choice([1, 3, 20, 400, len(stream) + 1])
    pieces = []
    while stream:
        size = source.randint(1, most)
        pieces.append(stream[:size])
        stream = stream[size:]
    return pieces


def check_stream(source: Random) -> None:
    """Give the decoder a random stream in random pieces.

    :raises AssertionError: it makes of it what `parse` does not. The text is the stream.
    """
    stream = random_stream(source)
    if decode(cut(source, stream), source.choice([1, 2, 20])) != parse(stream):
        raise AssertionError(stream.hex())

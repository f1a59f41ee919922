"""The wire format: packets to bytes and back, without I/O.

A packet on the wire::

    offset  size  field
    0       4     magic, the ASCII bytes ``MAGC``
    4       1     command
    5       2     body length n, big-endian
    7       n     body
    7+n     4     CRC-32 of bytes 0 to 6+n, big-endian

docs/protocol.md says what the commands mean.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import Enum, IntEnum
from typing import NamedTuple
from zlib import crc32

MAGIC = b"MAGC"
"""The first four bytes of every packet."""

MAX_BODY = 0xFFFF
"""The longest body in bytes: all that the two bytes for its length can say."""

EXIT_TEXT = b"/exit"
"""The Message that leaves the chat, as ExitChat does: the reference server's convention."""

SEPARATOR = b": "
"""What stands between the sender's name and the text in a Message from the server."""

_HEADER = struct.Struct("!4sBH")
_CRC = struct.Struct("!I")
_OVERHEAD = _HEADER.size + _CRC.size


class Command(IntEnum):
    """What a packet is for. 0x01 to 0x06 are all that the reference server knows."""

    REGISTER = 0x01
    LOGIN = 0x02
    MESSAGE = 0x03
    ACK = 0x04
    ERROR = 0x05
    FIND_PEER = 0x06
    CHAT_REQUEST = 0x07
    CHAT_ACCEPT = 0x08
    CHAT_DECLINE = 0x09
    EXIT_CHAT = 0x0A


class AckCode(bytes, Enum):
    """The bodies of the Acks that the server sends."""

    OK = b"OK"
    CHAT = b"CHAT"
    BYE = b"BYE"
    SENT = b"SENT"


class ErrorCode(bytes, Enum):
    """The bodies of the Errors that the server sends.

    Each is either the answer to a packet or comes unasked, never both, so that a client
    can tell by the code alone. Those of the second group come unasked.
    """

    MALFORMED = b"BADF"
    NAME_TAKEN = b"USER!"
    NOT_AUTHENTICATED = b"AUTH!"
    NOT_LOGGED_IN = b"NOLOG"
    YOURSELF = b"SELF"
    NOT_ONLINE = b"NOPE"
    NOT_IN_CHAT = b"NOCHAT"
    LOST = b"LOST"
    UNKNOWN = b"UNKN"
    ALREADY_LOGGED_IN = b"ALREADY"
    BUSY = b"BUSY"
    NO_INVITATION = b"NOINVITE"
    TOO_LONG = b"TOOLONG"
    SLOW_DOWN = b"SLOWDOWN"
    REGISTRATION_CLOSED = b"CLOSED"
    FAILED = b"FAILED"

    DECLINED = b"DENY"
    PEER_LEFT = b"EXIT"
    NOT_FREE = b"GONE"
    TIMED_OUT = b"TIMEOUT"
    BAD_PACKET = b"BADPACKET"
    REPLACED = b"REPLACED"
    SHUTDOWN = b"SHUTDOWN"


@dataclass(frozen=True, slots=True)
class Packet:
    """One packet: a command, which may be one that `Command` does not know, and a body.

    :raises ValueError: the command does not fit into one byte, or the body is longer
        than `MAX_BODY` bytes.
    """

    command: int
    body: bytes = b""

    def __post_init__(self) -> None:
        if not 0 <= self.command <= 0xFF:
            raise ValueError(f"a command is one byte, not {self.command}")
        if len(self.body) > MAX_BODY:
            raise ValueError(f"a body has at most {MAX_BODY} bytes, not {len(self.body)}")


class BadPacketError(Exception):
    """What came is not a packet. Nothing that follows it in the stream can be trusted."""


def encode(packet: Packet) -> bytes:
    """Return the bytes of `packet` as they go over the wire."""
    unchecked = _HEADER.pack(MAGIC, packet.command, len(packet.body)) + packet.body
    return unchecked + _CRC.pack(crc32(unchecked))


class Received(NamedTuple):
    """What came in a row: one packet, or Messages."""

    command: int
    bodies: list[bytes]


class PacketDecoder:
    """Takes the bytes of a stream in pieces of any size and hands out the packets in it."""

    def __init__(self) -> None:
        self._data = b""
        self._is_stopped = False

    def __len__(self) -> int:
        """Return how many bytes wait to be taken as packets."""
        return len(self._data)

    def feed(self, data: bytes) -> None:
        """Add `data`, the next bytes of the stream."""
        if not self._is_stopped:
            self._data = self._data + data if self._data else data

    def stop(self) -> None:
        """Throw away what waits and all that is still fed."""
        self._is_stopped = True
        self._data = b""

    def next_packet(self) -> Packet | None:
        """Take the next packet out of the stream, or None when it has not come whole.

        :raises BadPacketError: the magic is wrong, which is told as soon as its four bytes
            are there, or the CRC is. The decoder has stopped: every later call gives None.
        """
        received = self.next_packets(1)
        return None if received is None else Packet(received.command, received.bodies[0])

    def next_packets(self, most: int) -> Received | None:
        """Take the next packet and, if it is a Message, those that come right behind it.

        They are `most` at most. What leaves the chat, `EXIT_TEXT`, is taken alone like all that
        is no Message. It is None when the next packet has not come whole.

        :raises BadPacketError: as `next_packet` does, once those before it are taken
        """
        bodies: list[bytes] = []
        command = end = 0
        try:
            while (found := _read(self._data, end)) is not None:
                is_alone = found[0] != Command.MESSAGE or found[1] == EXIT_TEXT
                if bodies and is_alone:
                    break
                command, body, end = found
                bodies.append(body)
                if is_alone or len(bodies) == most:
                    break
        except BadPacketError:
            if not bodies:
                self.stop()
                raise
        self._data = self._data[end:]
        return Received(command, bodies) if bodies else None


def _read(data: bytes, start: int) -> tuple[int, bytes, int] | None:
    """Return the command and the body of the packet at `start`, and where it ends.

    None is that it is not there as a whole.

    :raises BadPacketError: see `PacketDecoder.next_packet`
    """
    there = len(data) - start
    if there < _OVERHEAD:
        if there >= len(MAGIC) and not data.startswith(MAGIC, start):
            raise BadPacketError("wrong magic")
        return None
    magic, command, length = _HEADER.unpack_from(data, start)
    if magic != MAGIC:
        raise BadPacketError("wrong magic")
    if there < _OVERHEAD + length:
        return None
    begin = start + _HEADER.size
    end = begin + length
    if (crc32(data[start:end]),) != _CRC.unpack_from(data, end):
        raise BadPacketError("wrong CRC")
    return command, data[begin:end], end + _CRC.size

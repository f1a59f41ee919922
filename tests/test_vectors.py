"""Tests for what the authors of clients are given: tests/vectors.json and docs/protocol.md.

Three implementations of the format must agree with them, and so with each other: the server's,
the few lines in docs/protocol.md, and the one below, which shares no code with the others.
"""

from __future__ import annotations

import collections
import json
import re
import struct
import zlib
from collections import defaultdict
from functools import cache
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase, TestCase

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
from tests.memory import MemoryServer

HERE = Path(__file__).parent
PROTOCOL = HERE.parent / "docs" / "protocol.md"

RESERVED = {b"CLOSED"}
"""Error codes that clients must know and that this version never sends."""


@cache
def vectors() -> dict[str, Any]:
    """Return what tests/vectors.json holds."""
    return json.loads((HERE / "vectors.json").read_text("utf-8"))


def body_of(vector: dict[str, Any]) -> bytes:
    """Return the body of a packet of vectors.json, written out or as a repetition."""
    if "body_repeat" in vector:
        return bytes.fromhex(vector["body_repeat"]["unit"]) * vector["body_repeat"]["count"]
    return bytes.fromhex(vector["body"])


def wire_of(vector: dict[str, Any]) -> bytes:
    """Return all bytes of a packet of vectors.json."""
    if "body_repeat" in vector:
        return bytes.fromhex(vector["head"]) + body_of(vector) + bytes.fromhex(vector["crc"])
    return bytes.fromhex(vector["packet"])


Decoded = tuple[list[tuple[int, bytes]], str]
"""The packets of a stream, and what comes after them, as vectors.json says it."""


def decode_with_server(data: bytes, step: int) -> Decoded:
    """Decode `data` with the server's decoder, fed `step` bytes at a time."""
    decoder = PacketDecoder()
    packets = []
    try:
        for start in range(0, len(data), step):
            decoder.feed(data[start : start + step])
            while (packet := decoder.next_packet()) is not None:
                packets.append((packet.command, packet.body))
    except BadPacketError:
        return packets, "bad"
    return packets, "more" if len(decoder) else "end"


def encode_independently(command: int, body: bytes) -> bytes:
    """Return the packet's bytes, by struct and zlib alone."""
    checked = struct.pack(f">4sBH{len(body)}s", b"MAGC", command, len(body), body)
    return struct.pack(f">{len(checked)}sI", checked, zlib.crc32(checked))


def decode_independently(data: bytes) -> Decoded:
    """Decode `data`, which is all there is, by struct and zlib alone."""
    packets = []
    while data:
        if len(data) >= 4 and data[:4] != b"MAGC":
            return packets, "bad"
        if len(data) < 7:
            return packets, "more"
        command, length = struct.unpack_from(">BH", data, 4)
        if len(data) < 7 + length + 4:
            return packets, "more"
        (crc,) = struct.unpack_from(">I", data, 7 + length)
        if zlib.crc32(data[: 7 + length]) != crc:
            return packets, "bad"
        packets.append((command, data[7 : 7 + length]))
        data = data[7 + length + 4 :]
    return packets, "end"


class VectorTests(SynchronousTestCase):
    """tests/vectors.json."""

    def test_encode(self) -> None:
        """Each command and body is encoded as the file says, by two implementations."""
        for vector in vectors()["packets"]:
            command, body = vector["command"], body_of(vector)
            with self.subTest(vector["meaning"]):
                self.assertEqual(encode(Packet(command, body)), wire_of(vector))
                self.assertEqual(encode_independently(command, body), wire_of(vector))

    def test_decode(self) -> None:
        """Each packet is decoded as the file says, by two implementations."""
        for vector in vectors()["packets"]:
            expected = [(vector["command"], body_of(vector))], "end"
            with self.subTest(vector["meaning"]):
                for step in (7, 2**20):
                    self.assertEqual(decode_with_server(wire_of(vector), step), expected)
                self.assertEqual(decode_independently(wire_of(vector)), expected)

    def test_streams(self) -> None:
        """Each stream, split anywhere, gives the packets and the end that the file says."""
        for vector in vectors()["streams"]:
            data = bytes.fromhex(vector["stream"])
            packets = [(each["command"], bytes.fromhex(each["body"])) for each in vector["packets"]]
            with self.subTest(vector["meaning"]):
                for step in (1, 2, 5, 2**20):
                    self.assertEqual(decode_with_server(data, step), (packets, vector["then"]))
                self.assertEqual(decode_independently(data), (packets, vector["then"]))

    def test_complete(self) -> None:
        """Every command, every Ack, every Error and the shortest and longest body are there."""
        packets = [(each["command"], body_of(each)) for each in vectors()["packets"]]
        commands = {command for command, _ in packets}
        self.assertLessEqual(set(Command), commands)
        self.assertTrue(commands - set(Command), "no command that is unknown")
        self.assertLessEqual({0, MAX_BODY}, {len(body) for _, body in packets})
        sent = {
            (each["command"], body_of(each))
            for each in vectors()["packets"]
            if each["from"] == "server"
        }
        self.assertEqual({body for command, body in sent if command == 4}, set(AckCode))
        self.assertEqual(
            {body for command, body in sent if command == 5}, set(ErrorCode) | RESERVED
        )
        self.assertEqual({each["then"] for each in vectors()["streams"]}, {"end", "more", "bad"})


def code_block(language: str, text: str = "") -> str:
    """Return the one block of docs/protocol.md that is in `language` and has `text` in it."""
    blocks = re.findall(rf"^```{language}\n(.*?)^```", PROTOCOL.read_text("utf-8"), re.S | re.M)
    (block,) = [block for block in blocks if text in block]
    return block


def example() -> list[tuple[str, str, Packet, str]]:
    """Return the example of docs/protocol.md: who, ``>`` or ``<``, the packet, and its text."""
    lines = []
    for line in code_block("text").splitlines():
        who, direction, fields, text = re.fullmatch(
            r"(\w+) ([<>]) +((?:[0-9a-f]+ )+) (\w.*)", line
        ).groups()
        packets, _ = decode_with_server(bytes.fromhex(fields), 2**20)
        ((command, body),) = packets
        lines.append((who, direction, Packet(command, body), text))
    return lines


class ProtocolPageTests(TestCase):
    """docs/protocol.md."""

    def test_example_says_what_it_is(self) -> None:
        """Each line of the example holds one whole packet, and that which its text says."""
        names = {
            each: "".join(map(str.capitalize, each.name.lower().split("_"))) for each in Command
        }
        for _, _, packet, text in example():
            said = f"{names[Command(packet.command)]} {packet.body.decode()}".rstrip()
            self.assertEqual(said, text)

    def test_example_is_separated_right(self) -> None:
        """The spaces in the example's hex stand between the fields of the packet."""
        for fields in re.findall(r"[<>] +((?:[0-9a-f]+ )+)", code_block("text")):
            sizes = [len(field) // 2 for field in fields.split()]
            self.assertEqual(sizes[:3] + sizes[-1:], [4, 1, 2, 4])
            self.assertIn(len(sizes), (4, 5))

    def test_example_is_what_the_server_says(self) -> None:
        """Played against a server, the example's clients get what it says, in its order."""
        server = MemoryServer()
        server.authenticator.is_slow = True
        clients = defaultdict(server.connect)
        expected = defaultdict(list)
        for who, direction, packet, _ in example():
            if direction == "<":
                expected[who].append(packet)
                # It has come already: before anything is sent that stands below it.
                self.assertEqual(clients[who].packets[: len(expected[who])], expected[who])
                continue
            clients[who].send(packet)
            for conversation, _, body in server.authenticator.waiting:
                conversation.admitted(body.partition(b":")[0])
            server.authenticator.waiting.clear()
            server.run()
        self.assertEqual({who: client.packets for who, client in clients.items()}, expected)

    def test_code(self) -> None:
        """The page's encoder and decoder do what tests/vectors.json asks for."""
        page: dict[str, Any] = {}
        exec(code_block("python", "def encode"), page)
        for vector in vectors()["packets"]:
            command, body = vector["command"], body_of(vector)
            self.assertEqual(page["encode"](command, body), wire_of(vector))
            self.assertEqual(list(page["Decoder"]().feed(wire_of(vector))), [(command, body)])
        for vector in vectors()["streams"]:
            decoder, packets, then = page["Decoder"](), [], "more"
            try:
                for byte in bytes.fromhex(vector["stream"]):
                    packets += decoder.feed(bytes([byte]))
                if not decoder.buffer:
                    then = "end"
            except ValueError:
                then = "bad"
            self.assertEqual(
                [{"command": command, "body": body.hex()} for command, body in packets],
                vector["packets"],
            )
            self.assertEqual(then, vector["then"])

    def test_matching(self) -> None:
        """The page's code finds the request for each answer in the page's own three cases."""
        accept, hi, how = (8, b"alice"), (3, b"hi"), (3, b"how are you?")
        ok, hello = (4, b"OK"), (3, b"alice: hello")
        left, lost, no_chat = (5, b"EXIT"), (5, b"LOST"), (5, b"NOCHAT")
        for received, expected in (
            ([accept, ok, ok, hello], [(accept, accept), (hi, ok), (how, ok), hello]),
            (
                [accept, ok, hello, left, no_chat],
                [(accept, accept), (hi, ok), hello, left, (how, no_chat)],
            ),
            ([lost, no_chat, no_chat], [(accept, lost), (hi, no_chat), (how, no_chat)]),
        ):
            told: list[object] = []
            page: dict[str, Any] = {each.name: int(each) for each in Command} | {
                "collections": collections,
                "tell_news": lambda *packet, told=told: told.append(packet),
                "tell_answer": lambda request, *packet, told=told: told.append((request, packet)),
            }
            exec(code_block("python", "NEWS"), page)
            page["queue"] += [accept, hi, how]
            for packet in received:
                page["received"](*packet)
            self.assertEqual(expected, told)

    def test_every_code_is_explained(self) -> None:
        """The page's table of error codes has every code that the server knows, and no other."""
        rows = re.findall(r"^\| `([A-Z!]+)` \| [AN] \|", PROTOCOL.read_text("utf-8"), re.M)
        self.assertEqual(len(rows), len(set(rows)))
        self.assertEqual({row.encode() for row in rows}, set(ErrorCode) | RESERVED)

    def test_every_command_is_explained(self) -> None:
        """The page's table of commands has every command, with its number and name."""
        rows = re.findall(r"^\| (0x[0-9A-F]{2}) \| (\w+) \|", PROTOCOL.read_text("utf-8"), re.M)
        commands = {int(number, 16): name.lower() for number, name in rows}
        self.assertEqual(commands, {each: each.name.replace("_", "").lower() for each in Command})

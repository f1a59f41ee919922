"""The least that a relay on Twisted can do: TLS, packets, and to whom. It has no rules at all.

``python -m benchmarks.bare_relay CERTIFICATE KEY`` listens at a free port and prints its number.
It speaks as much of the protocol as `benchmarks.client.open_chat` does, believes everything that it
is told, holds nobody back and knows no limits: the floor that servers are measured by.
"""

from __future__ import annotations

import struct
import sys
from datetime import UTC, datetime
from typing import ClassVar
from zlib import crc32

from twisted.internet import reactor as _reactor
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.protocol import Factory, Protocol
from twisted.protocols.tls import TLSMemoryBIOFactory

from chatserver.certificates import load
from chatserver.packets import MAGIC, Command

_HEADER = struct.Struct("!4sBH")
_CRC = struct.Struct("!I")


def _encode(command: int, body: bytes) -> bytes:
    unchecked = _HEADER.pack(MAGIC, command, len(body)) + body
    return unchecked + _CRC.pack(crc32(unchecked))


_OK, _SENT = _encode(Command.ACK, b"OK"), _encode(Command.ACK, b"SENT")


class BareRelay(Protocol):
    """A client's connection."""

    users: ClassVar[dict[bytes, BareRelay]] = {}

    def connectionMade(self) -> None:
        """Know nobody yet."""
        self._buffer = b""
        self._name = b""
        self._partner = self
        self.transport.setTcpNoDelay(True)  # type: ignore[union-attr]

    def dataReceived(self, data: bytes) -> None:
        """Relay, and acknowledge, all messages that came with `data`."""
        buffer = self._buffer + data
        start, relayed, answers = 0, [], []
        while start + _HEADER.size <= len(buffer):
            _, command, length = _HEADER.unpack_from(buffer, start)
            end = start + _HEADER.size + length
            if end + _CRC.size > len(buffer):
                break
            if crc32(buffer[start:end]) != _CRC.unpack_from(buffer, end)[0]:
                self.transport.abortConnection()  # type: ignore[union-attr]
                return
            body = buffer[start + _HEADER.size : end]
            if command == Command.MESSAGE:
                relayed.append(_encode(Command.MESSAGE, self._name + b": " + body))
                answers.append(_OK)
            else:
                answers.append(self._prepare(command, body))
            start = end + _CRC.size
        self._buffer = buffer[start:]
        if relayed:
            self._partner.transport.write(b"".join(relayed))  # type: ignore[union-attr]
        self.transport.write(b"".join(answers))  # type: ignore[union-attr]

    def _prepare(self, command: int, body: bytes) -> bytes:
        """Do what comes before a chat. Return the answer."""
        if command == Command.LOGIN:
            self._name = body.partition(b":")[0]
            self.users[self._name] = self
            return _OK
        self._partner = self.users[body]
        news = Command.FIND_PEER if command == Command.CHAT_REQUEST else Command.CHAT_ACCEPT
        self._partner.transport.write(_encode(news, self._name))  # type: ignore[union-attr]
        return _SENT if command == Command.CHAT_REQUEST else _encode(Command.CHAT_ACCEPT, body)


def main(certificate: str, key: str) -> None:
    """Listen, print the port's number, and relay until the process is ended."""
    reactor: object = _reactor
    tls = load(certificate, key, None, datetime.now(UTC)).tls_options
    factory = TLSMemoryBIOFactory(tls, False, Factory.forProtocol(BareRelay))
    listening = TCP4ServerEndpoint(reactor, 0, 1024, "127.0.0.1").listen(factory)
    listening.addCallback(lambda port: print(port.getHost().port, flush=True))
    reactor.run()  # type: ignore[attr-defined]


if __name__ == "__main__":
    main(*sys.argv[1:])

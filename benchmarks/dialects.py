"""What clients of the servers that are compared have to say and to count."""

from __future__ import annotations

from abc import ABC, abstractmethod

from benchmarks.client import LoadClient, open_chat
from chatserver.packets import SEPARATOR, Command, Packet, encode


class Dialect(ABC):
    """How a pair of clients talks. It is made in the server's process and in the load's."""

    longest: int | None = None
    """Bytes of the longest text; None if it does not matter here."""

    def names(self, pairs: int) -> list[bytes]:
        """Return the accounts for so many pairs: a sender, its receiver, the next sender."""
        return [b"pair%d%s" % (i, side) for i in range(pairs) for side in (b"a", b"b")]

    @abstractmethod
    def open(self, port: int, sender: bytes, receiver: bytes) -> tuple[LoadClient, LoadClient]:
        """Return the connections of two who have logged in and can talk."""

    @abstractmethod
    def say(self, sender: bytes, receiver: bytes, text: bytes) -> bytes:
        """Return the bytes by which `sender` says `text`."""

    @abstractmethod
    def counter(self, sender: bytes, texts: list[bytes]) -> Counter:
        """Return what counts the deliveries of `texts`, said by `sender` again and again."""

    def answers(self, count: int) -> bytes:
        """Return what the sender itself gets for so many messages."""
        return b""


class LostError(Exception):
    """A message was lost, or came twice, or out of its order."""


class Counter(ABC):
    """Counts deliveries in a stream of bytes."""

    @abstractmethod
    def feed(self, data: bytes) -> int:
        """Take the next bytes. Return how many deliveries ended in them.

        :raises LostError: something was lost, or came twice, or in another order
        """


class ExactCounter(Counter):
    """Counts deliveries whose bytes are known: `deliveries`, in this order, again and again."""

    def __init__(self, deliveries: list[bytes]) -> None:
        self._round = b"".join(deliveries)
        self._sizes = [len(each) for each in deliveries]
        self._place = 0  # in the round
        self._next = 0  # the delivery that is under way
        self._end = self._sizes[0]  # of that, in the round

    def feed(self, data: bytes) -> int:
        """See `Counter`."""
        start, length, count = 0, len(self._round), 0
        while start < len(data):
            piece = data[start : start + length - self._place]
            if self._round[self._place : self._place + len(piece)] != piece:
                raise LostError(f"{piece!r} is not the message that is due")
            start += len(piece)
            self._place += len(piece)
            while self._place >= self._end:
                count += 1
                self._next += 1
                if self._next == len(self._sizes):
                    self._next = self._place = 0
                    self._end = self._sizes[0]
                    break
                self._end += self._sizes[self._next]
        return count


class AsyncChatDialect(Dialect):
    """The protocol of this server."""

    def open(self, port: int, sender: bytes, receiver: bytes) -> tuple[LoadClient, LoadClient]:
        """See `Dialect`."""
        return open_chat(port, sender, receiver)

    def say(self, sender: bytes, receiver: bytes, text: bytes) -> bytes:
        """See `Dialect`."""
        return encode(Packet(Command.MESSAGE, text))

    def counter(self, sender: bytes, texts: list[bytes]) -> Counter:
        """See `Dialect`."""
        said = sender + SEPARATOR
        return ExactCounter([encode(Packet(Command.MESSAGE, said + text)) for text in texts])

    def answers(self, count: int) -> bytes:
        """See `Dialect`."""
        return encode(Packet(Command.ACK, b"OK")) * count


ASYNCCHAT = AsyncChatDialect()


class AcrossDialect(AsyncChatDialect):
    """The protocol of this server, the receivers on another machine, which listens at `port`."""

    def __init__(self, port: int) -> None:
        self._port = port

    def open(self, port: int, sender: bytes, receiver: bytes) -> tuple[LoadClient, LoadClient]:
        """See `Dialect`."""
        return open_chat(port, sender, receiver, self._port)


class SpreadDialect(AsyncChatDialect):
    """The protocol of this server, every second pair on another machine, as it comes."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._opened = 0

    def open(self, port: int, sender: bytes, receiver: bytes) -> tuple[LoadClient, LoadClient]:
        """See `Dialect`."""
        self._opened += 1
        return open_chat(self._port if self._opened % 2 == 0 else port, sender, receiver)

"""The records of a TLS stream, counted without being read (RFC 8446, section 5.1)."""

from __future__ import annotations

HEADER_SIZE = 5
"""Bytes before what a record holds: its type, a version, and in the last two its length."""

MAX_LENGTH = 2**14 + 2048
"""Bytes that a record holds at most (RFC 5246, section 6.2.3; of TLS 1.3 they are fewer)."""

_TYPES = range(20, 24)
_MAJOR_VERSION = 3


class RecordBuffer:
    """Takes the bytes of a TLS stream in pieces of any size, and hands them out by records.

    What is no TLS is handed out too, in pieces of any size, for TLS to refuse.
    """

    def __init__(self) -> None:
        self._data = b""
        self._left = 0  # of a record whose beginning was handed out already

    def feed(self, data: bytes) -> None:
        """Add `data`, the next bytes of the stream."""
        self._data = self._data + data if self._data else data

    @property
    def has_record(self) -> bool:
        """Whether there is a record to be taken, or a part of one."""
        return bool(self._left and self._data) or len(self._data) >= HEADER_SIZE

    @property
    def has_whole_record(self) -> bool:
        """Whether there is a record, or the rest of one, to be taken as a whole, or what is no TLS.

        Of the latter nobody needs to wait for more.
        """
        if self._left:
            return len(self._data) >= self._left
        header = self._data[:HEADER_SIZE]
        if len(header) < HEADER_SIZE:
            return False
        length = int.from_bytes(header[3:], "big")
        is_tls = header[0] in _TYPES and header[1] == _MAJOR_VERSION and length <= MAX_LENGTH
        return not is_tls or len(self._data) >= HEADER_SIZE + length

    def take(self, most: int) -> tuple[bytes, int]:
        """Take `most` records at most. The last may not be there as a whole: the rest follows.

        :returns: their bytes, and how many records end in them
        """
        data, end = self._data, self._left
        length = len(data)
        completed = 1 if 0 < end <= length else 0
        for _ in range(most):
            if end + HEADER_SIZE > length:
                break
            end += HEADER_SIZE + int.from_bytes(data[end + 3 : end + HEADER_SIZE], "big")
            if end <= length:
                completed += 1
        if end >= length:
            self._data, self._left = b"", end - length
            return data, completed
        self._data, self._left = data[end:], 0
        return data[:end], completed

    def take_all(self) -> bytes:
        """Take all that waits."""
        data, self._data = self._data, b""
        return data

"""Tests for `chatserver.records`."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from chatserver.records import RecordBuffer


def record(length: int) -> bytes:
    """Return a record that holds `length` bytes."""
    return b"\x17\x03\x03" + length.to_bytes(2, "big") + bytes(length)


class RecordTests(SynchronousTestCase):
    """A stream that is handed out by records."""

    def setUp(self) -> None:
        self.buffer = RecordBuffer()
        self.completed = 0

    def take(self, most: int) -> bytes:
        """Take some records, if there are any."""
        data, self.completed = self.buffer.take(most) if self.buffer.has_record else (b"", 0)
        return data

    def test_some_at_once(self) -> None:
        """So many records are taken, and the others wait."""
        sizes = (1, 0, 300, 16_401, 7)
        one, two, three, four, five = map(record, sizes)
        self.buffer.feed(one + two + three + four + five)
        self.assertEqual(self.take(2), one + two)
        self.assertEqual(self.take(2), three + four)
        self.assertEqual(self.take(2), five)
        self.assertFalse(self.buffer.has_record)

    def test_parts(self) -> None:
        """What there is of a record is taken; its rest, when it has come, counts no more."""
        one, two = record(300), record(300)
        for data, most, taken, completed in (
            (one[:100], 1, one[:100], 0),
            (one[100:200], 1, one[100:200], 0),
            (one[200:] + two + two, 1, one[200:] + two, 2),
            (b"", 1, two, 1),
            (one[:-1], 3, one[:-1], 0),
            (one[-1:], 3, one[-1:], 1),
            (one + two[:9], 3, one + two[:9], 1),
        ):
            self.buffer.feed(data)
            self.assertEqual(self.take(most), taken)
            self.assertEqual(self.completed, completed)
            self.assertEqual(self.buffer.has_record, most == 1 and len(data) > 600)

    def test_part_of_a_header(self) -> None:
        """A header is taken as a whole."""
        one = record(9)
        self.buffer.feed(one + one[:4])
        self.assertEqual(self.take(5), one)
        self.assertFalse(self.buffer.has_record)
        self.buffer.feed(one[4:])
        self.assertEqual(self.take(5), one)

    def test_take_all(self) -> None:
        """All that waits can be taken in one go."""
        self.buffer.feed(record(1) * 3 + b"\x17")
        self.take(1)
        self.assertEqual(self.buffer.take_all(), record(1) * 2 + b"\x17")
        self.assertFalse(self.buffer.has_record)

    def test_whole_record(self) -> None:
        """A record is there as a whole, or its rest, or what is none."""
        one = record(3)
        for data, is_there in (
            (one[:4], False),
            (one[4:-1], False),
            (one[-1:], True),
            (one[:-2], False),
        ):
            self.buffer.feed(data)
            self.assertEqual(self.buffer.has_whole_record, is_there)
            self.take(is_there)
        self.take(1)
        for data, is_there in ((one[-2:-1], False), (one[-1:], True)):
            self.buffer.feed(data)
            self.assertEqual(self.buffer.has_whole_record, is_there)
        for wrong in (
            b"GET /",
            b"\x16\x02\x00\x00\x09",
            b"\x17\x03\x03\x48\x01",
            b"\x13\x03\x03\x00\x01",
        ):
            self.buffer = RecordBuffer()
            self.buffer.feed(wrong)
            self.assertTrue(self.buffer.has_whole_record)

    @given(st.lists(st.binary(max_size=40)), st.integers(1, 3))
    def test_any_bytes(self, pieces: list[bytes], most: int) -> None:
        """Of any bytes all are handed out, in their order, but for a piece of a header."""
        buffer = RecordBuffer()
        taken = b""
        for piece in pieces:
            buffer.feed(piece)
            while buffer.has_record:
                some, _ = buffer.take(most)
                self.assertNotEqual(some, b"")
                taken += some
        rest = buffer.take_all()
        self.assertLess(len(rest), 5)
        self.assertEqual(taken + rest, b"".join(pieces))

"""The command line of ``asyncchat``, and what is shown of what others send."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from chatserver.client import Fingerprint, KnownHosts, TrustFile
from chatserver.printable import visible, visible_lines
from chatserver.terminal.options import ANYBODY, Address, UsageError, parse, parse_address
from chatserver.terminal.screen import fold


class AddressTests(SynchronousTestCase):
    """NAME@HOST:PORT."""

    def test_good(self) -> None:
        """Names may hold an @, hosts may be names or addresses of both kinds."""
        for text, address in (
            ("alice@chat.example", ("alice", "chat.example", 5555)),
            ("alice@chat.example:7777", ("alice", "chat.example", 7777)),
            ("a@b@chat.example", ("a@b", "chat.example", 5555)),
            ("alice@[2001:db8::1]:7777", ("alice", "2001:db8::1", 7777)),
            ("alice@[2001:db8::1]", ("alice", "2001:db8::1", 5555)),
            ("alice@::1", ("alice", "::1", 5555)),
            ("Max Mustermann@127.0.0.1:1", ("Max Mustermann", "127.0.0.1", 1)),
        ):
            self.assertEqual(Address(*address), parse_address(text))
            self.assertEqual(Address(*address), parse_address(str(parse_address(text))))

    def test_bad(self) -> None:
        """What is no address is refused in one line that shows it."""
        for text in (
            "", "alice", "alice@", "@host", "a:b@host", "alice@host:", "alice@host:x",
            "alice@host:0", "alice@host:65536", "alice@host:-1", "alice@[::1", "alice@ho st",
            "alice@[::1]x", "alice@host:٣",
        ):  # fmt: skip
            with self.subTest(text=text), self.assertRaises(UsageError) as caught:
                parse_address(text)
            self.assertIn(repr(text), str(caught.exception))


class OptionsTests(SynchronousTestCase):
    """All of the command line."""

    def test_accept(self) -> None:
        """--accept takes a name or none, also right before the address."""
        for arguments, accept in (
            (["a@host"], None),
            (["--accept", "a@host"], ANYBODY),
            (["a@host", "--accept"], ANYBODY),
            (["--accept", "bob", "a@host"], "bob"),
            (["a@host", "--accept", "bob"], "bob"),
        ):
            options = parse(arguments, {})
            self.assertEqual((accept, "a@host"), (options.accept, str(options.address)))

    def test_password(self) -> None:
        """A password comes from the file, else from the environment; there is no option for it."""
        path = Path(self.mktemp())
        path.write_text("pass word \nsecond line\n")
        environment = {"ASYNCCHAT_PASSWORD": "other"}
        self.assertEqual("other", parse(["a@host"], environment).password)
        given = parse(["a@host", "--password-file", str(path)], environment)
        self.assertEqual("pass word ", given.password)
        self.assertIsNone(parse(["a@host"], {}).password)
        self.assertNotIn("pass word", repr(given))

    def test_trust(self) -> None:
        """Known hosts, unless a file or a fingerprint is given."""
        self.assertIsInstance(parse([], {}).trust, KnownHosts)
        self.assertIsInstance(parse(["--fingerprint", "aB" * 32], {}).trust, Fingerprint)
        self.assertEqual(TrustFile(__file__), parse(["--trust-file", __file__], {}).trust)

    def test_mistakes(self) -> None:
        """A mistake is one line that names the option."""
        for arguments, text in (
            (["a@host", "--to", "b", "--accept"], "only one of the two"),
            (["a@host", "--forever"], "--forever"),
            (["a@host", "--fingerprint", "xy"], "--fingerprint"),
            (["a@host", "--trust-file", "/no"], "--trust-file /no"),
            (["a@host", "--fingerprint", "ab" * 32, "--trust-file", __file__], "only one"),
            (["a@host", "--password-file", "/no"], "--password-file /no"),
            (["a@host", "--password-file", "/dev/null"], "empty"),
            (["a@host", "--nonsense"], "--nonsense"),
            (["a@host", "b@host"], "b@host"),
            (["a@host", "--to"], "--to"),
        ):
            with self.subTest(arguments=arguments), self.assertRaises(UsageError) as caught:
                parse(arguments, {})
            self.assertIn(text, str(caught.exception))
            self.assertNotIn("\n", str(caught.exception))

    def test_help(self) -> None:
        """--help fits a screen of 24 lines and 80 columns."""
        with contextlib.redirect_stdout(io.StringIO()) as shown, self.assertRaises(SystemExit):
            parse(["--help"], {})
        lines = shown.getvalue().splitlines()
        self.assertLessEqual(len(lines), 24)
        self.assertLessEqual(max(map(len, lines)), 80)


class VisibleTests(SynchronousTestCase):
    """What others send, for people to read."""

    def test_dangerous(self) -> None:
        """Nothing that drives a terminal or turns the direction of writing comes through."""
        for character in [
            *map(chr, range(0x20)),
            *map(chr, range(0x7F, 0xA0)),
            *"\u202e\u2066\u200f",
        ]:
            shown = visible(f"a{character}b")
            self.assertTrue(shown.isprintable(), ascii(character))
            self.assertNotEqual("ab", shown)
        self.assertEqual(r"\x1b[2J\u202e\x9b\x00", visible("\x1b[2J\u202e\x9b\x00"))

    def test_harmless(self) -> None:
        """Letters of all scripts, emoji with their joiners, and spaces of all kinds stay."""
        for text in (
            "grüß dich",
            "привет",
            "שלום",
            "👩\u200d💻",
            "\u0645\u06cc\u200c\u062e\u0648",
            r"C:\new",
        ):
            self.assertEqual(text, visible(text))
        self.assertEqual("a b c    d", visible("a\u00a0b\u202fc\td"))

    def test_bytes(self) -> None:
        """Bytes that are not UTF-8 show as escapes, and halves of surrogate pairs too."""
        self.assertEqual(r"ä \xff\xfe", visible("ä ".encode() + b"\xff\xfe"))
        self.assertEqual(r"\xff \ud800", visible("\udcff \ud800"))

    def test_fold(self) -> None:
        """Lines are folded at spaces, words that are too long anywhere; wide characters count
        as two columns. Nothing but spaces at the folds is lost.
        """
        for text, width, rows in (
            ("", 10, [""]),
            ("one two three", 9, ["one two", "three"]),
            ("one " + "x" * 12, 10, ["one", "x" * 10, "xx"]),
            ("\u4f60" * 6, 10, ["\u4f60" * 5, "\u4f60"]),
            ("ok" + " " * 78 + "12:00 bob: hi", 74, ["ok", "12:00 bob: hi"]),
        ):
            folded = [row.rstrip() for row in fold(text, width)]
            self.assertEqual(rows, folded)

    def test_lines(self) -> None:
        """Newlines part lines; alone, a carriage return is an escape."""
        self.assertEqual(["a", "b", "", r"c\rd"], visible_lines("a\r\nb\n\nc\rd"))
        self.assertEqual(r"a\nb", visible("a\nb"))

"""Tests for `chatserver.credentials`."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from chatserver.credentials import (
    MAX_LOGIN_NAME_BYTES,
    MAX_NAME_LENGTH,
    MAX_PASSWORD_LENGTH,
    Credentials,
    MalformedCredentialsError,
    check_new_name,
    check_new_password,
    for_login,
    for_registration,
)

MIN = 8
PASSWORD = b"eight by"


class CredentialsTests(SynchronousTestCase):
    """What both kinds of body have in common."""

    def test_first_colon_splits(self) -> None:
        """The first colon ends the name; those after it belong to the password."""
        body = b"bob:pass:with:colons:"
        expected = Credentials("bob", b"pass:with:colons:")
        self.assertEqual(for_registration(body, MIN), expected)
        self.assertEqual(for_login(body), expected)

    def test_refused_by_both(self) -> None:
        """No colon, an empty name or password and a name that is not UTF-8 are malformed."""
        for body in [b"", b":", b"alice", b":" + PASSWORD, b"alice:", b"\xff:" + PASSWORD]:
            self.assertRaises(MalformedCredentialsError, for_registration, body, 0)
            self.assertRaises(MalformedCredentialsError, for_login, body)

    def test_surrogates_are_not_utf_8(self) -> None:
        """A surrogate, which no UTF-8 holds, is refused as such and goes no further."""
        body = b"\xed\xa0\x80:" + PASSWORD
        self.assertRaises(MalformedCredentialsError, for_registration, body, MIN)
        self.assertRaises(MalformedCredentialsError, for_login, body)

    def test_any_bytes_are_a_password(self) -> None:
        """A password is never decoded: bytes that are no text and NULs are kept."""
        password = bytes(range(256))
        self.assertEqual(for_registration(b"alice:" + password, MIN).password, password)
        self.assertEqual(for_login(b"alice:" + password).password, password)

    def test_password_is_not_shown(self) -> None:
        """Neither the repr nor the text of an error holds any of the password."""
        self.assertEqual(repr(for_login(b"alice:secret")), "Credentials(name='alice')")
        for body in [b"a b:secret", b"\xff:secret", b":secret", b"secret"]:
            error = self.assertRaises(MalformedCredentialsError, for_registration, body, MIN)
            self.assertNotIn("secret", str(error))
            self.assertIsNone(error.__cause__)


class RegistrationTests(SynchronousTestCase):
    """What can be registered."""

    def test_names(self) -> None:
        """Names that PRECIS leaves as they are can be registered, in upper case too."""
        for name in ["alice", "Alice", "x", "a-b_c.d!", "dörte", "дзай", "אב1", "東京", "l·l"]:
            body = name.encode() + b":" + PASSWORD
            self.assertEqual(for_registration(body, MIN), Credentials(name, PASSWORD))

    def test_refused_names(self) -> None:
        """What PRECIS refuses or would change, if only its form, can not."""
        refused = {
            "a space": "Max Mustermann",
            "a control character": "a\0b",
            "a line break": "a\nb",
            "a zero-width joiner": "a\u200db",
            "another direction": "a\u202eb",
            "a byte order mark": "\ufeffa",
            "a symbol": "😀",
            "a ligature": "\ufb01",
            "two directions": "aא",
            "not NFC": "do\u0308rte",
            "full width": "\uff41",
        }
        for what, name in refused.items():
            body = name.encode() + b":" + PASSWORD
            with self.assertRaises(MalformedCredentialsError, msg=what):
                for_registration(body, MIN)

    def test_name_length(self) -> None:
        """A name has up to 32 code points, however many bytes those take."""
        for letter in ["a", "ж", "東", "𠮷"]:
            longest = letter * MAX_NAME_LENGTH
            body = longest.encode() + b":" + PASSWORD
            self.assertEqual(for_registration(body, MIN).name, longest)
            self.assertRaises(
                MalformedCredentialsError, for_registration, letter.encode() + body, MIN
            )

    def test_password_length(self) -> None:
        """A password has as many bytes as the option says to 1024."""
        for length in [MIN, MAX_PASSWORD_LENGTH]:
            body = b"alice:" + b"p" * length
            self.assertEqual(len(for_registration(body, MIN).password), length)
        for length in [MIN - 1, MAX_PASSWORD_LENGTH + 1]:
            body = b"alice:" + b"p" * length
            self.assertRaises(MalformedCredentialsError, for_registration, body, MIN)
        self.assertEqual(for_registration(b"alice:p", 1).password, b"p")

    def test_password_length_counts_bytes(self) -> None:
        """Four letters of two bytes each are a password of eight."""
        self.assertEqual(for_registration("a:äöüß".encode(), MIN).name, "a")

    def test_apart(self) -> None:
        """A name and a password that come apart are held to the same rules; there a colon in
        the name, which no body can have, is refused too.
        """
        check_new_name("dörte")
        check_new_password(PASSWORD, MIN)
        for name in ("", "a b", "alice:x", "a" * (MAX_NAME_LENGTH + 1), "\udcff"):
            self.assertRaises(MalformedCredentialsError, check_new_name, name)
        for password in (b"", b"p" * (MIN - 1), b"p" * (MAX_PASSWORD_LENGTH + 1)):
            self.assertRaises(MalformedCredentialsError, check_new_password, password, MIN)

    @given(
        st.text(st.characters(codec="utf-8", categories=["L", "M", "N"]), max_size=33),
        st.binary(max_size=MAX_PASSWORD_LENGTH + 1),
    )
    def test_registered_can_log_in(self, name: str, password: bytes) -> None:
        """What Register takes is taken by Login too, as the same name and password."""
        body = name.encode() + b":" + password
        try:
            credentials = for_registration(body, 1)
        except MalformedCredentialsError:
            return
        self.assertEqual(for_login(body), credentials)
        self.assertEqual(credentials.name.encode() + b":" + credentials.password, body)


class LoginTests(SynchronousTestCase):
    """What can log in."""

    def test_accounts_of_an_older_file(self) -> None:
        """A name that could not be registered and a password of one byte can log in."""
        for name in ["Max Mustermann", "x" * 60, "do\u0308rte", "a\0b", "😀"]:
            self.assertEqual(for_login(name.encode() + b":1"), Credentials(name, b"1"))

    def test_name_length(self) -> None:
        """A name has up to 255 bytes."""
        longest = "ж" * (MAX_LOGIN_NAME_BYTES // 2) + "x"
        self.assertEqual(for_login(longest.encode() + b":1").name, longest)
        self.assertRaises(MalformedCredentialsError, for_login, b"x" + longest.encode() + b":1")

    def test_password_length(self) -> None:
        """A password may be as long as a packet."""
        self.assertEqual(len(for_login(b"a:" + b"p" * 65533).password), 65533)

    @given(st.binary())
    def test_any_body(self, body: bytes) -> None:
        """Any bytes either are a name and a password or are malformed; nothing else happens."""
        try:
            credentials = for_login(body)
        except MalformedCredentialsError:
            return
        self.assertEqual(credentials.name.encode() + b":" + credentials.password, body)

"""Tests for `chatserver.passwords`."""

from __future__ import annotations

import hashlib
from typing import Any

from argon2 import Parameters, low_level
from argon2.exceptions import HashingError, VerificationError, VerifyMismatchError
from twisted.trial.unittest import SynchronousTestCase

from chatserver.passwords import DEFAULT_COST, Passwords, StoredPassword, parse_cost

CHEAP = parse_cost("m=8,t=1,p=1")
OTHER = parse_cost("m=16,t=2,p=2")
SALT = "28cfa224d09d886eab9befc6c3625d7b"


def legacy(password: bytes, salt: str = SALT) -> StoredPassword:
    """Return a row as the reference server writes it."""
    return StoredPassword(salt, hashlib.sha256(salt.encode() + password).hexdigest())


class CostTests(SynchronousTestCase):
    """`parse_cost`."""

    def test_default(self) -> None:
        """The default is what OWASP recommends, as Argon2id of the present version."""
        parameters = parse_cost(DEFAULT_COST)
        self.assertEqual(
            parameters,
            Parameters(
                type=low_level.Type.ID,
                version=19,
                salt_len=16,
                hash_len=32,
                time_cost=2,
                memory_cost=19456,
                parallelism=1,
            ),
        )

    def test_limits(self) -> None:
        """The least and the greatest numbers that Argon2 knows are taken."""
        self.assertEqual(parse_cost("m=8,t=1,p=1").memory_cost, 8)
        self.assertEqual(parse_cost("m=4294967295,t=4294967295,p=1").time_cost, 2**32 - 1)
        self.assertEqual(parse_cost("m=134217720,t=1,p=16777215").parallelism, 2**24 - 1)

    def test_refused(self) -> None:
        """What Argon2 would refuse is refused with a sentence that names the number."""
        for text, sentence in {
            "m=7,t=1,p=1": "m, the KiB of memory, is 8 to 4294967295, not 7",
            "m=31,t=1,p=4": "m, the KiB of memory, is 32 to 4294967295, not 31",
            "m=4294967296,t=1,p=1": "m, the KiB of memory, is 8 to 4294967295, not 4294967296",
            "m=8,t=0,p=1": "t, the number of passes, is 1 to 4294967295, not 0",
            "m=8,t=4294967296,p=1": "t, the number of passes, is 1 to 4294967295, not 4294967296",
            "m=8,t=1,p=0": "p, the number of lanes, is 1 to 16777215, not 0",
            "m=4294967295,t=1,p=16777216": "p, the number of lanes, is 1 to 16777215, not 16777216",
        }.items():
            self.assertEqual(str(self.assertRaises(ValueError, parse_cost, text)), sentence)

    def test_other_forms(self) -> None:
        """Another form, signs, spaces, other digits or endless ones included, is refused."""
        for text in [
            "",
            "19456",
            "m=8,t=1",
            "t=1,m=8,p=1",
            "m=8,t=1,p=1,",
            "m=8,t=1,p=1\n",
            "m=+8,t=1,p=1",
            "m=-8,t=1,p=1",
            "m=8, t=1, p=1",
            "m=1_000,t=1,p=1",
            "m=٨٨,t=1,p=1",
            "m=8.0,t=1,p=1",
            "m=" + "9" * 5000 + ",t=1,p=1",
        ]:
            error = self.assertRaises(ValueError, parse_cost, text)
            self.assertIn("an Argon2 cost looks like m=19456,t=2,p=1, not ", str(error))
            self.assertEqual(len(str(error).splitlines()), 1)


class PasswordsTests(SynchronousTestCase):
    """`Passwords`, with each Argon2 computation counted."""

    def setUp(self) -> None:
        """Record the memory cost of each computation."""
        self.passwords = Passwords(CHEAP)
        self.computed: list[int] = []
        hash_secret, verify_secret = low_level.hash_secret, low_level.verify_secret

        def counted_hash(secret: bytes, salt: bytes, **parameters: Any) -> bytes:
            self.computed.append(parameters["memory_cost"])
            return hash_secret(secret, salt, **parameters)

        def counted_verify(encoded: bytes, secret: bytes, variant: low_level.Type) -> bool:
            try:
                result: bool = verify_secret(encoded, secret, variant)
            except VerifyMismatchError:
                self.computed.append(int(encoded.split(b"m=")[1].split(b",")[0]))
                raise
            except VerificationError:
                raise  # Argon2 gave up before it computed anything.
            self.computed.append(int(encoded.split(b"m=")[1].split(b",")[0]))
            return result

        self.patch(low_level, "hash_secret", counted_hash)
        self.patch(low_level, "verify_secret", counted_verify)

    def assert_verifies(
        self, stored: StoredPassword | None, password: bytes, result: bool, computed: list[int]
    ) -> None:
        """Verify once, and compare the result and the memory costs that were computed."""
        self.computed.clear()
        self.assertEqual(self.passwords.verify(stored, password), result)
        self.assertEqual(self.computed, computed)

    def test_hash(self) -> None:
        """A new row has an empty salt and an encoded Argon2id hash, another one each time."""
        first, second = self.passwords.hash(b"secret"), self.passwords.hash(b"secret")
        self.assertEqual(first.salt, "")
        self.assertTrue(first.hash.startswith("$argon2id$v=19$m=8,t=1,p=1$"))
        self.assertNotEqual(first, second)
        self.assertEqual(self.computed, [8, 8])

    def test_argon2_row(self) -> None:
        """A row of ours verifies with its password alone, at one computation either way."""
        for password in [b"secret", b"\0", b"\xff" * 65533]:
            stored = self.passwords.hash(password)
            self.assert_verifies(stored, password, True, [8])
            self.assert_verifies(stored, password + b"\0", False, [8])
        self.assertFalse(self.passwords.needs_upgrade(stored))

    def test_other_parameters(self) -> None:
        """A row with other parameters verifies with those, and needs an upgrade."""
        stored = Passwords(OTHER).hash(b"secret")
        self.assert_verifies(stored, b"secret", True, [16])
        self.assert_verifies(stored, b"Secret", False, [16])
        self.assertTrue(self.passwords.needs_upgrade(stored))
        self.assertFalse(Passwords(OTHER).needs_upgrade(stored))

    def test_other_variant(self) -> None:
        """A row of Argon2i verifies too, and needs an upgrade."""
        encoded = low_level.hash_secret(
            b"secret",
            b"saltsalt",
            time_cost=1,
            memory_cost=8,
            parallelism=1,
            hash_len=32,
            type=low_level.Type.I,
        )
        stored = StoredPassword("", encoded.decode())
        self.assert_verifies(stored, b"secret", True, [8])
        self.assert_verifies(stored, b"Secret", False, [8])
        self.assertTrue(self.passwords.needs_upgrade(stored))

    def test_unknown_name(self) -> None:
        """An account that does not exist costs as much as a wrong password."""
        self.assert_verifies(None, b"secret", False, [8])

    def test_legacy_row(self) -> None:
        """A row of the reference server verifies, and needs an upgrade; a wrong password costs
        one computation.
        """
        for password in [b"secret", "größer als acht".encode(), b"\0\xff", b"1"]:
            stored = legacy(password)
            self.assert_verifies(stored, password, True, [])
            self.assert_verifies(stored, password + b"x", False, [8])
            self.assertTrue(self.passwords.needs_upgrade(stored))

    def test_known_legacy_row(self) -> None:
        """The first row of the reference server's file verifies with its password."""
        stored = StoredPassword(
            SALT, "806baa1bc623eece0be2858cadb398a16d5564ee33642a4fff6bf82110f8fc03"
        )
        self.assert_verifies(stored, b"correct horse", True, [])

    def test_garbage(self) -> None:
        """A row that is neither verifies with nothing, at one computation."""
        good = self.passwords.hash(b"secret").hash
        rows = [
            StoredPassword("", ""),
            StoredPassword("", "secret"),
            StoredPassword("", "ß\0"),
            StoredPassword("", hashlib.sha256(b"secret").hexdigest()),
            StoredPassword(SALT, legacy(b"secret").hash.upper()),
            StoredPassword(SALT[:-1], legacy(b"secret", SALT[:-1]).hash),
            StoredPassword(SALT[:-1] + "ß", legacy(b"secret").hash),
            StoredPassword("", good[:-1] + "!"),
            StoredPassword("", good.replace("m=8", "m=7")),
            StoredPassword("", good.replace("m=8", "m=-8")),
            StoredPassword("", good.replace("m=8", "m=99999999999")),
            StoredPassword("", good.replace("argon2id", "argon2x")),
            StoredPassword("", good.replace("p=1", "p=1,x=1")),
        ]
        for stored in rows:
            self.assert_verifies(stored, b"secret", False, [8])
            self.passwords.needs_upgrade(stored)

    def test_failing_argon2(self) -> None:
        """Argon2 that has no memory is an error, not a wrong password."""

        def fail(*args: Any, **parameters: Any) -> bytes:
            raise HashingError("Memory allocation error")

        self.patch(low_level, "hash_secret", fail)
        self.assertRaises(HashingError, self.passwords.hash, b"secret")
        for stored in [None, legacy(b"Secret"), StoredPassword("", "")]:
            self.assertRaises(HashingError, self.passwords.verify, stored, b"secret")

    def test_nothing_is_shown(self) -> None:
        """The repr of a row holds neither salt nor hash."""
        self.assertEqual(repr(legacy(b"secret")), "StoredPassword()")

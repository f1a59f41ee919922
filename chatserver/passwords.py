"""Passwords as they are stored: Argon2id, and SHA-256 in rows of the reference server.

Hashing is slow on purpose: call `Passwords` from a thread, never from the reactor's.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
from dataclasses import dataclass, field

from argon2 import Parameters, extract_parameters, low_level
from argon2.exceptions import InvalidHashError, VerificationError, VerifyMismatchError

DEFAULT_COST = "m=19456,t=2,p=1"
"""19 MiB, two passes, one lane: what OWASP's Password Storage Cheat Sheet recommends for
Argon2id. About 25 ms on one core."""

SALT_LENGTH = 16
"""Bytes of salt. RFC 9106, section 4, recommends 128 bits."""

HASH_LENGTH = 32
"""Bytes of hash. RFC 9106, section 4, recommends 256 bits."""

_MEMORY_PER_LANE = 8
_MAX_UINT32 = 2**32 - 1
_MAX_LANES = 2**24 - 1
"""The limits of RFC 9106, section 3.1. Memory is in KiB."""

# Twenty digits are more than any limit has, and few enough for int().
_COST = re.compile("m=([0-9]{1,20}),t=([0-9]{1,20}),p=([0-9]{1,20})")

_LEGACY_SALT = re.compile("[0-9a-fA-F]{32}")
_LEGACY_HASH = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class StoredPassword:
    """What the accounts table holds in place of a password.

    `salt` is empty and `hash` an encoded Argon2 string; in a row that the reference server
    wrote, `salt` is 32 hex digits and `hash` the hex SHA-256 of those digits and the password.
    """

    salt: str = field(repr=False)
    hash: str = field(repr=False)


def parse_cost(text: str) -> Parameters:
    """Return the Argon2id parameters that `text` names, as in `DEFAULT_COST`.

    :param text: memory in KiB, passes and lanes, in the form and order that encoded hashes
        (PHC strings) have.
    :raises ValueError: that is not the form, or Argon2 would refuse the numbers. The text is
        a sentence for the operator.
    """
    match = _COST.fullmatch(text)
    if match is None:
        raise ValueError(f"an Argon2 cost looks like {DEFAULT_COST}, not {text!r}")
    memory, passes, lanes = (int(number) for number in match.groups())
    if not 1 <= lanes <= _MAX_LANES:
        raise ValueError(f"p, the number of lanes, is 1 to {_MAX_LANES}, not {lanes}")
    if not 1 <= passes <= _MAX_UINT32:
        raise ValueError(f"t, the number of passes, is 1 to {_MAX_UINT32}, not {passes}")
    least = _MEMORY_PER_LANE * lanes
    if not least <= memory <= _MAX_UINT32:
        raise ValueError(f"m, the KiB of memory, is {least} to {_MAX_UINT32}, not {memory}")
    return Parameters(
        type=low_level.Type.ID,
        version=low_level.ARGON2_VERSION,
        salt_len=SALT_LENGTH,
        hash_len=HASH_LENGTH,
        time_cost=passes,
        memory_cost=memory,
        parallelism=lanes,
    )


class Passwords:
    """Hashes passwords with `parameters` and compares them with stored ones.

    Whoever fails to log in learns nothing from the time that it took: every `verify` that
    fails costs one Argon2 computation, and none costs two. Rows with other parameters take the time
    of those, until the next login that succeeds rewrites them.
    """

    def __init__(self, parameters: Parameters) -> None:
        self._parameters = parameters

    def hash(self, password: bytes) -> StoredPassword:
        """Return `password` as a new row holds it.

        :raises argon2.exceptions.HashingError: Argon2 could not, for want of memory say.
        """
        encoded = low_level.hash_secret(
            password,
            os.urandom(self._parameters.salt_len),
            time_cost=self._parameters.time_cost,
            memory_cost=self._parameters.memory_cost,
            parallelism=self._parameters.parallelism,
            hash_len=self._parameters.hash_len,
            type=self._parameters.type,
            version=self._parameters.version,
        )
        return StoredPassword(salt="", hash=encoded.decode("ascii"))

    def verify(self, stored: StoredPassword | None, password: bytes) -> bool:
        """Return whether `password` is the one that was stored.

        :param stored: the account's row, or None when there is no such account.
        :raises argon2.exceptions.HashingError: Argon2 could not, for want of memory say.
        """
        if stored is not None:
            if _is_legacy(stored):
                digest = hashlib.sha256(stored.salt.encode("ascii") + password).hexdigest()
                if hmac.compare_digest(digest, stored.hash):
                    return True
            else:
                try:
                    variant = extract_parameters(stored.hash).type
                    return low_level.verify_secret(stored.hash.encode(), password, variant)
                except VerifyMismatchError:
                    return False
                except (InvalidHashError, VerificationError):
                    pass  # Argon2 could not read the row, and has computed nothing.
        self.hash(password)
        return False

    def needs_upgrade(self, stored: StoredPassword) -> bool:
        """Return whether `hash` would make something else of the password by now: the row is
        the reference server's, or was hashed with other parameters.
        """
        try:
            return extract_parameters(stored.hash) != self._parameters
        except InvalidHashError:
            return True


def _is_legacy(stored: StoredPassword) -> bool:
    """Return whether the reference server wrote this row."""
    return (
        _LEGACY_SALT.fullmatch(stored.salt) is not None
        and _LEGACY_HASH.fullmatch(stored.hash) is not None
    )

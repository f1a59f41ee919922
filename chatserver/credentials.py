"""Usernames and passwords: what the body of a Register or a Login must be.

Both bodies are ``username:password``, split at the first colon, so that a password may hold
colons and a name never does. docs/protocol.md says the same to the authors of clients.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import precis_i18n

MAX_NAME_LENGTH = 32
"""The longest name that can be registered, in code points. docs/protocol.md."""

MAX_LOGIN_NAME_BYTES = 255
"""The longest name that can log in, in bytes of UTF-8: an account of an older file may have
a name that could not be registered today. docs/protocol.md."""

MAX_PASSWORD_LENGTH = 1024
"""The longest password that can be registered, in bytes. docs/protocol.md."""

_USERNAME = precis_i18n.get_profile("UsernameCasePreserved")


class MalformedCredentialsError(ValueError):
    """The body is not what it must be. The text says why and holds nothing of the body."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """A name and its password, which stays out of the repr and so out of every log."""

    name: str
    password: bytes = field(repr=False)


def for_registration(body: bytes, min_password_length: int) -> Credentials:
    """Take apart the body of a Register.

    The name must be one that PRECIS UsernameCasePreserved (RFC 8265, section 3.4) leaves
    exactly as it is: no space, no control character, and one spelling only of a composed letter.
    What passes here passes `for_login` too.

    :param min_password_length: in bytes. An empty password is refused whatever it says.
    :raises MalformedCredentialsError: the body breaks one of the rules.
    """
    credentials = _split(body)
    check_new_name(credentials.name)
    check_new_password(credentials.password, min_password_length)
    return credentials


def check_new_name(name: str) -> None:
    """Let `name` pass if an account may be made with it; see `for_registration`.

    :raises MalformedCredentialsError: it breaks one of the rules.
    """
    if not name:
        raise MalformedCredentialsError("the name is empty")
    if ":" in name:
        raise MalformedCredentialsError("a name holds no colon")
    if len(name) > MAX_NAME_LENGTH:
        raise MalformedCredentialsError(f"a name has at most {MAX_NAME_LENGTH} characters")
    try:
        enforced = _USERNAME.enforce(name)
    except UnicodeEncodeError:
        raise MalformedCredentialsError("the name holds what a name may not hold") from None
    if enforced != name:
        raise MalformedCredentialsError("the name is not in the one form that a name may have")


def check_new_password(password: bytes, min_password_length: int) -> None:
    """Let `password` pass if an account may have it from now on.

    :param min_password_length: in bytes. An empty password is refused whatever it says.
    :raises MalformedCredentialsError: it breaks one of the rules.
    """
    if not password:
        raise MalformedCredentialsError("the password is empty")
    if len(password) < min_password_length:
        raise MalformedCredentialsError(f"a password has at least {min_password_length} bytes")
    if len(password) > MAX_PASSWORD_LENGTH:
        raise MalformedCredentialsError(f"a password has at most {MAX_PASSWORD_LENGTH} bytes")


def for_login(body: bytes) -> Credentials:
    """Take apart the body of a Login: any name of UTF-8 and any password that is not empty.

    :raises MalformedCredentialsError: the body breaks one of the rules.
    """
    credentials = _split(body)
    if len(credentials.name.encode()) > MAX_LOGIN_NAME_BYTES:
        raise MalformedCredentialsError(f"a name has at most {MAX_LOGIN_NAME_BYTES} bytes")
    return credentials


def is_login_name(name: bytes) -> bool:
    """Tell whether somebody can have logged in as `name`."""
    try:
        name.decode()
    except UnicodeDecodeError:
        return False
    return 0 < len(name) <= MAX_LOGIN_NAME_BYTES and b":" not in name


def _split(body: bytes) -> Credentials:
    """Return the name and the password in `body`, neither of them empty."""
    name, colon, password = body.partition(b":")
    if not colon:
        raise MalformedCredentialsError("there is no colon between name and password")
    if not name:
        raise MalformedCredentialsError("the name is empty")
    if not password:
        raise MalformedCredentialsError("the password is empty")
    try:
        return Credentials(name.decode(), password)
    except UnicodeDecodeError:
        raise MalformedCredentialsError("the name is not UTF-8") from None

"""What the machines of a cluster say to each other, as MessagePack.

What comes from the bus is trusted no more than what comes from a client: each message is checked
against these types, and what does not fit is refused as a whole.

Compatibility: a field may be added behind the others (older machines skip it; give it a default),
and a kind may be added under a new tag (older machines ignore it, and nothing is answered).
Whatever else changes needs another `VERSION`, and machines of two versions don't hear each other.
"""

from __future__ import annotations

from typing import Annotated, Any, TypeVar, get_args

import msgspec
from msgspec import Meta, Struct

from chatserver.credentials import MAX_LOGIN_NAME_BYTES
from chatserver.packets import MAX_BODY

VERSION = 1
"""Of this page; it is in every message."""

Version = Annotated[int, Meta(ge=VERSION, le=VERSION)]
Machine = Annotated[str, Meta(pattern="^[0-9a-f]{12}$")]
"""Who a machine is: chosen at random at each start of the server."""
Number = Annotated[int, Meta(ge=0, le=2**63 - 1)]
Name = Annotated[bytes, Meta(min_length=1, max_length=MAX_LOGIN_NAME_BYTES)]
Text = Annotated[bytes, Meta(max_length=MAX_BODY)]
Code = Annotated[bytes, Meta(max_length=16)]
"""An error code of the protocol."""


class UnreadableError(Exception):
    """What came is no message of this version. The text is one line that says why."""


class UnknownKindError(UnreadableError):
    """What came is a message of a kind that only later versions know."""


# --- To all who have a user of one name: the subject is made of it ---------------------------


class Lookup(Struct, array_like=True, tag=1, frozen=True):
    """Who has this user? `machine` asks, and is answered with a `Located` for this `request`."""

    version: Version
    machine: Machine
    request: Number


class Login(Struct, array_like=True, tag=2, frozen=True):
    """The user has logged in here. Of two logins the one with the greater number stands.

    Without `machine` it is of an older version of the server.
    """

    version: Version
    number: Number
    machine: Machine | None = None


class Located(Struct, array_like=True, frozen=True):
    """The answer to a `Lookup`: here, by this login."""

    version: Version
    machine: Machine
    login: Number


# --- From machine to machine, in order ------------------------------------------------------
#
# `to` and `by` are logins: the user whom it concerns and the one who does it. `request` is a
# number of the sender's, for the `Answer`. `invitation` is a number of the inviter's machine.


class Answer(Struct, array_like=True, tag=1, frozen=True):
    """What was asked with `request` was done; with a `code` it was not."""

    request: Number
    code: Code | None


class Offer(Struct, array_like=True, tag=2, frozen=True):
    """An invitation of `name`. It is answered."""

    to: Number
    by: Number
    name: Name
    invitation: Number
    request: Number


class Withdraw(Struct, array_like=True, tag=3, frozen=True):
    """The inviter's machine: `invitation` has ended without the invited one's doing."""

    invitation: Number


class Accept(Struct, array_like=True, tag=4, frozen=True):
    """The invited one's machine: `invitation` is accepted. It is answered."""

    invitation: Number
    request: Number


class End(Struct, array_like=True, tag=5, frozen=True):
    """The invited one's machine: `invitation` was declined, or they are not free any more."""

    invitation: Number
    code: Code


class Say(Struct, array_like=True, tag=6, frozen=True):
    """Messages in a chat. They are answered together."""

    to: Number
    by: Number
    request: Number
    texts: Annotated[list[Text], Meta(min_length=1)]


class Leave(Struct, array_like=True, tag=7, frozen=True):
    """`by` has left the chat with `to`."""

    to: Number
    by: Number


class Hold(Struct, array_like=True, tag=8, frozen=True):
    """`by` does not take what it is sent in the chat with `to`, or has taken it all."""

    to: Number
    by: Number
    is_held: bool


Body = Answer | Offer | Withdraw | Accept | End | Say | Leave | Hold

_AnyBody = Annotated[tuple[Any, ...], Meta(min_length=1)]
_KINDS = {each.__struct_config__.tag for each in get_args(Body)}


class Frame(Struct, array_like=True, frozen=True):
    """What carries a `Body` from machine to machine: the `number`-th of a `generation`.

    Without a body it is a beat, a sign of life: `number` messages were sent.
    """

    version: Version
    sender: Machine
    generation: Number
    number: Number
    body: msgspec.Raw

    @property
    def is_beat(self) -> bool:
        """Whether it carries nothing."""
        return bytes(self.body) == _NOTHING


_NOTHING = msgspec.msgpack.encode(None)

_encoder = msgspec.msgpack.Encoder()
_frames = msgspec.msgpack.Decoder(Frame)
_bodies: msgspec.msgpack.Decoder[Body] = msgspec.msgpack.Decoder(Body)
_kinds: msgspec.msgpack.Decoder[tuple[Any, ...]] = msgspec.msgpack.Decoder(_AnyBody)
_announcements: msgspec.msgpack.Decoder[Lookup | Login] = msgspec.msgpack.Decoder(Lookup | Login)
_locations = msgspec.msgpack.Decoder(Located)

T = TypeVar("T")


def encode(message: Lookup | Login | Located) -> bytes:
    """Return `message` as it goes over the bus."""
    return _encoder.encode(message)


def encode_frame(sender: str, generation: int, number: int, body: Body | None) -> bytes:
    """Return `body` in its `Frame` as it goes over the bus. None is a beat."""
    return _encoder.encode((VERSION, sender, generation, number, body))


def decode_frame(data: bytes) -> Frame:
    """Return the frame that `data` is. Its body is still to be decoded.

    :raises UnreadableError: it is none
    """
    return _decode(_frames, data)


def decode_body(frame: Frame) -> Body:
    """Return what `frame` carries.

    :raises UnknownKindError: it is none of the kinds that this version knows
    :raises UnreadableError: it is, but not as this version knows it
    """
    try:
        return _decode(_bodies, frame.body)
    except UnreadableError as error:
        if _decode(_kinds, frame.body)[0] not in _KINDS:
            raise UnknownKindError(str(error)) from None
        raise


def decode_announcement(data: bytes) -> Lookup | Login:
    """Return what is said to all who have a user of one name.

    :raises UnreadableError: it is neither
    """
    return _decode(_announcements, data)


def decode_location(data: bytes) -> Located:
    """Return the answer to a `Lookup`.

    :raises UnreadableError: it is none
    """
    return _decode(_locations, data)


def _decode(decoder: msgspec.msgpack.Decoder[T], data: bytes | msgspec.Raw) -> T:
    try:
        return decoder.decode(data)
    except (msgspec.DecodeError, ValueError) as error:
        raise UnreadableError(str(error)) from None

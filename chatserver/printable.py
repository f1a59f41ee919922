"""Makes visible what is not printable, so that no text can drive a terminal or forge a line."""

from __future__ import annotations

import unicodedata

_JOINERS = "\u200c\u200d"
"""Zero width non-joiner and joiner: Persian and family emoji need them, and no terminal obeys."""

_TAB = " " * 4


def escape(text: str, also: str = "") -> str:
    """Return `text` with an escape of Python's for each character that is not printable.

    These are newlines, what drives a terminal, what turns the direction of writing, and halves
    of surrogate pairs: all that `str.isprintable` does not take.

    :param also: characters that get an escape too
    """
    if text.isprintable() and not any(character in text for character in also):
        return text
    return "".join(
        character
        if character.isprintable() and character not in also
        else character.encode("unicode_escape").decode("ascii")
        for character in text
    )


def visible(text: str | bytes) -> str:
    """Return on one line what somebody said, or is called, for people to read.

    Bytes are UTF-8, decoded with surrogateescape as the client library decodes names; one that
    is not UTF-8 shows as ``\\xff``. Spaces of all kinds become usual ones.
    """
    return "".join(map(_show, _decode(text)))


def visible_lines(text: str | bytes) -> list[str]:
    """Return what `visible` does, but as several lines where there are newlines."""
    return [visible(line) for line in _decode(text).replace("\r\n", "\n").split("\n")]


def _decode(text: str | bytes) -> str:
    return text.decode("utf-8", "surrogateescape") if isinstance(text, bytes) else text


def _show(character: str) -> str:
    if character.isprintable() or character in _JOINERS:
        return character
    if character == "\t":
        return _TAB
    if unicodedata.category(character) == "Zs":
        return " "
    if "\udc80" <= character <= "\udcff":  # surrogateescape's, of a byte
        return f"\\x{ord(character) - 0xDC00:02x}"
    return escape(character)

"""Why a file is not read: an error without its path, and texts from files made fit to print."""

from __future__ import annotations

_LONGEST = 120


class Refused(ValueError):
    """The file is nothing that is read here, or not made as programs make it. `reading.load_state` adds the path."""


class Damaged(Refused):
    """The file is cut short, or a checksum does not fit."""


def shown(text: object) -> str:
    """A text that a file holds, as a part of one line: short, and without characters that command a terminal."""
    text = str(text)
    short = text if len(text) <= _LONGEST else f"{text[: _LONGEST - 20]}… ({len(text):,} characters)"
    return short if short.isprintable() else ascii(short)[1:-1]

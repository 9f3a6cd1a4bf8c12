"""Which class a video shows in a mirror: what a horizontal flip does to labels that name a side."""

from __future__ import annotations

import logging
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipelines.errors import DataError, ListError

logger = logging.getLogger("pipelines")

NOT_FLIPPED = -1
"""In place of a class whose mirror image is none of the classes: its clips must not be flipped."""


@dataclass(frozen=True)
class Shipped:
    """What is known of a published data set's labels, by their texts: the order of its classes does not matter."""

    pairs: tuple[tuple[str, str], ...]
    """Texts that are each other's mirror images: the labels must have all."""
    same: frozenset[str]
    """Texts with a side's word in another meaning: a mirrored video still shows them."""


# Versions 1 and 2 have the same 174 texts in different orders, and these seven are all with such a word.
_SOMETHING = Shipped(
    pairs=(
        ("Pulling something from left to right", "Pulling something from right to left"),
        ("Pushing something from left to right", "Pushing something from right to left"),
        ("Turning the camera left while filming something", "Turning the camera right while filming something"),
    ),
    same=frozenset(["Plugging something into something but pulling it right out as you remove your hand"]),
)
SHIPPED = {"something-v1": _SOMETHING, "something-v2": _SOMETHING}


def mirror_classes(source: str | Path, labels: Sequence[str] | None, num_classes: int) -> tuple[int, ...]:
    """For each class the one that its mirrored videos show, for `ClipSpec.flip_labels`.

    Args:
        source: `labels`: made from the class names, by exchanging left and right (also leftwards, clockwise and
            anticlockwise …, in any case) as whole words; a name with such a word whose exchanged form is no class gets
            `NOT_FLIPPED`, and a warning says so.
            `something-v1`, `something-v2`: the same, and the names must be Something-Something's.
            A file: `class class` (numbers) a line for two that are each other's mirror image, or one class alone that
            must not be flipped; the others stay as they are.
        labels: class names in the order of their numbers, without which only a file will do.
        num_classes: of the model.

    Returns:
        num_classes entries: the class itself, its partner, or `NOT_FLIPPED`.

    Raises:
        DataError: no names, names that are not the data set's, or that differ only in how they are written; a file that
            cannot be read, or that names a class twice or one that does not exist.
    """
    if source != "labels" and source not in SHIPPED:
        return _read_map(Path(source), num_classes)
    if not labels:
        raise DataError(
            f"flip_labels '{source}' is made from the class names: put labels.txt (a name a line) beside the list, or give a file"
        )
    if len(labels) != num_classes:
        raise DataError(f"flip_labels '{source}': there are {len(labels)} class names for {num_classes} classes")
    shipped = SHIPPED.get(str(source))
    if shipped is None:
        return from_texts(labels)
    missing = [text for pair in shipped.pairs for text in pair if text not in labels]
    if missing:
        raise DataError(
            f"flip_labels '{source}': labels.txt has no class '{missing[0]}', so these are not that data set's labels; "
            "flip_labels = 'labels' makes the map from any names"
        )
    return from_texts(labels, same=shipped.same)


def sides(labels: Sequence[str]) -> list[str]:
    """The class names that have the word of a side, which a flip without `flip_labels` would leave on the wrong videos."""
    return [label for label in labels if _SIDE.search(_key(label))]


def from_texts(labels: Sequence[str], same: Collection[str] = ()) -> tuple[int, ...]:
    """`mirror_classes` by the names alone; those in `same` are taken to stay as they are."""
    keys = [_key(label) for label in labels]
    classes: dict[str, int] = {}
    for number, key in enumerate(keys):
        if classes.setdefault(key, number) != number:
            raise DataError(f"flip_labels: classes {classes[key]} and {number} have the same name, '{labels[number]}'")
    result = list(range(len(labels)))
    for number, key in enumerate(keys):
        if labels[number] not in same and _SIDE.search(key):
            result[number] = classes.get(_SIDE.sub(lambda match: _OTHER[match[0]], key), NOT_FLIPPED)
    alone = [labels[number] for number, partner in enumerate(result) if partner == NOT_FLIPPED]
    if alone:
        logger.warning(
            "%d of %d classes name a side and no class is their mirror image; their clips are not flipped: %s",
            len(alone), len(labels), "; ".join(alone),
        )  # fmt: skip
    return tuple(result)


_SIDES = [
    *((f"left{ending}", f"right{ending}") for ending in ("", "ward", "wards", "most", "hand")),
    ("clockwise", "anticlockwise"),
]
_OTHER = {one: other for pair in _SIDES for one, other in (pair, pair[::-1])}
# Letters alone bound a word, so that it is found in turn_left and left-handed, and not in upright.
_SIDE = re.compile(rf"(?<![^\W\d_])({'|'.join(sorted(_OTHER, key=len, reverse=True))})(?![^\W\d_])")


def _key(label: str) -> str:
    """One spelling for names that mean the same."""
    text = " ".join(label.casefold().split())
    return re.sub(r"(?:anti|counter)[- ]?clockwise", "anticlockwise", text)


def _read_map(path: Path, num_classes: int) -> tuple[int, ...]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        names = ", ".join(("labels", *SHIPPED))
        raise DataError(f"flip_labels '{path}' is none of {names}, and cannot be read as a file: {error}") from None
    result = list(range(num_classes))
    seen: set[int] = set()
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            classes = [int(word) for word in line.split()]
        except ValueError:
            classes = []
        if len(classes) not in (1, 2):
            raise ListError(
                path, number, f"'{line}': expected two class numbers, or one that must not be flipped, as in '30 41'"
            )
        for one, other in zip(classes, reversed(classes), strict=True):
            if not 0 <= one < num_classes:
                raise ListError(path, number, f"'{line}': there is no class {one}, they are 0…{num_classes - 1}")
            if one in seen:
                raise ListError(path, number, f"'{line}': class {one} is named twice, so the map does not pair up")
            seen.add(one)
            result[one] = other if len(classes) == 2 else NOT_FLIPPED
    return tuple(result)

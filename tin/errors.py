"""The one kind of exception that `tin` raises for a user's mistake, and the wording that such errors share."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class TinError(Exception):
    """Something the user can put right. The message says what was wrong, where (file, key, shape) and what to do.

    The command line prints the message as one line and exits with status 2; a traceback would add nothing.
    """


class PeerError(TinError):
    """Another rank failed and says why; this process ends with it and need not repeat it."""


class LostPeers(PeerError):
    """This process lost its connection to the others: one of them died or hangs, or the network between them is cut."""


def unknown_name(kind: str, name: str, valid: Iterable[str]) -> TinError:
    """The error for a name that is not one of `valid`: says the nearest valid name first, then all of them.

    Args:
        kind: what the name stands for, as in "unknown {kind} 'tni_resnet50'".
        name: what was given.
        valid: the names that would have been right.
    """
    names = sorted(valid)
    near = difflib.get_close_matches(name.lower(), names, n=3, cutoff=0.5)
    near.sort(key=lambda candidate: sorted(candidate) != sorted(name.lower()))  # swapped letters before other letters
    hint = f"did you mean '{near[0]}'? " if near else ""
    return TinError(f"unknown {kind} '{name}': {hint}valid are {', '.join(names)}")

"""A file of weights in another's names and form, with nothing lost: every tensor is read back and compared before the file is there."""

from __future__ import annotations

import functools
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from tin.checkpoints.averages import Weights, find_weights
from tin.checkpoints.convert_beside import envelope, read_beside
from tin.checkpoints.convert_names import KINDS, NEEDS_KIND, TARGETS, Kind, Target, names_in
from tin.checkpoints.files import first_line, sync_folder, temporary_file, temporary_name
from tin.checkpoints.names import naming_scheme, plain_names
from tin.checkpoints.reading import load_state
from tin.checkpoints.refusal import shown
from tin.errors import TinError, unknown_name

_SAFETENSORS = ".safetensors"


@dataclass(frozen=True, kw_only=True)
class Conversion:
    """What became of a file's weights.

    Attributes:
        source, out: the files.
        scheme: whose names `source` had, in words.
        target: what `out` is.
        arch: of the network; "tsm or tsn" and the depth where the file does not tell.
        names: the name in `out` of every weight, by its name in `source`.
        dropped: weights that `out` has no place for, by their names in `source`. Only on request.
        dtypes: how many tensors of each type, by its name.
        nbytes: of the tensors.
        averaged: whether these are the moving averages (EMA) that the file has beside the weights.
        beside: keys of what went along beside the weights.
        left_out: keys of what did not.
    """

    source: Path
    out: Path
    scheme: str
    target: Target
    arch: str
    names: dict[str, str]
    dropped: list[str] = field(default_factory=list)
    dtypes: dict[str, int] = field(default_factory=dict)
    nbytes: int = 0
    averaged: bool = False
    beside: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        kinds = ", ".join(f"{count} {name}" for name, count in self.dtypes.items())
        averaged = ", averaged (EMA)" if self.averaged else ""
        renamed = sum(old != new for old, new in self.names.items())
        lines = [
            f"{self.source} ({self.scheme} names): {self.arch}{averaged}, "
            f"{len(self.names) + len(self.dropped)} tensors ({kinds}), {self.nbytes / 2**20:,.1f} MiB",
            f"{self.out} ({self.target}): {len(self.names)} tensors written, {renamed} of them under another name, "
            f"{len(self.dropped)} dropped; read back and equal bit by bit",
        ]
        if self.dropped:
            lines.append(f"  dropped: {_list(self.dropped, 3)}")
        if self.beside:
            lines.append(f"  goes along: {_list(self.beside)}")
        if self.left_out:
            lines.append(f"  left out: {_list(self.left_out)}")
        return "\n".join(lines)


def convert_checkpoint(
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    to: Target,
    *,
    kind: Kind | None = None,
    weights: Weights = "auto",
    drop_temporal: bool = False,
    force: bool = False,
) -> Conversion:
    """Write the weights of a file as another kind of file: other names, another form around them, the same bits.

    "tin" is our names in a dict with `state_dict`; "mmaction2" {meta, state_dict} in its names of TIN, TSM or TSN;
    "tin-original" {epoch, arch, best_prec1, state_dict} in those of the TIN or TSM authors; "torchvision" the tensors alone;
    "safetensors" our names in that format. What stands beside the weights and is plain (a run's recipe and class names, others'
    `meta`) goes along and comes back when the file is converted again; what only serves to go on with training does not.

    Args:
        source: any file that `load_state` reads, of a network that `build_model` knows.
        out: the file to write.
        to: what to write.
        kind: what the network is, for plain names, which do not tell a TSM from a TSN; else None or what the names say.
        weights: which, of a file that has averages of them too (`load_checkpoint`).
        drop_temporal: for "torchvision", which has no place for them: leave TIN modules out, or forget that there is a shift.
        force: write over `out`. The source is never written over.

    Raises:
        TinError: a file that cannot be read, written or must not be overwritten; weights that are unknown or missing, that the
            target has no place for, or whose kind has to be named.
    """
    source, out = Path(source), Path(out)
    if to not in TARGETS:
        raise unknown_name("target", to, TARGETS)
    _check_out(source, out, to, force)
    state = load_state(source)
    found, averaged = find_weights(state, source, weights)
    named = plain_names(found, source)
    depth = _depth(named, source)
    scheme = naming_scheme(found)
    file_kind = _file_kind(scheme, state)
    beside = read_beside(state, file_kind, bare_head=any(name.endswith("base_model.fc.weight") for name in found))
    known = _kind(named, file_kind, beside.arch, kind, source)
    if known:
        beside.arch = f"{known}_resnet{depth}"
    dropped = _without_temporal(named, known, to, drop_temporal, source)
    kept = {plain: name for plain, name in named.items() if name not in dropped}
    if known is None and to in NEEDS_KIND:
        raise TinError(
            f"{source} has plain names, which do not tell a TSM from a TSN, and {to} names differ: say which it is (--as tsm or --as tsn)"
        )
    new = names_in(to, kept, known, bare_head=beside.bare_head)
    tensors = {new[plain]: _whole(found[name]) for plain, name in kept.items()}
    content = envelope(to, tensors, beside)
    try:
        with _temporary(out, to, content) as temporary:
            _compare(temporary, tensors, out)
            os.replace(temporary, out)
    except (OSError, RuntimeError, SafetensorError) as error:
        raise TinError(f"cannot write {out}: {first_line(error)}") from error
    sync_folder(out.parent)
    lost = [] if to != "torchvision" else beside.keys
    return Conversion(
        source=source, out=out, scheme=scheme, target=to, arch=beside.arch or f"tsm_resnet{depth} or tsn_resnet{depth}",
        names={name: new[plain] for plain, name in kept.items()}, dropped=dropped, averaged=averaged,
        dtypes=dict(Counter(str(value.dtype).removeprefix("torch.") for value in found.values())),
        nbytes=sum(value.numel() * value.element_size() for value in found.values()),
        beside=[] if lost else beside.keys, left_out=[*beside.left_out, *lost],
    )  # fmt: skip


# ---------------------------------------------------------------------------------------------------------------------
# what the file is


def _depth(named: Mapping[str, str], source: Path) -> int:
    """Of the ResNet that has these weights, all of them and no others."""
    networks = _networks()
    depth = min(networks, key=lambda depth: len(networks[depth] ^ named.keys()))
    full = networks[depth]
    unknown = [name for plain, name in named.items() if plain not in full]
    # The counters are younger than some files, and a backbone may come without a classifier.
    missing = [name for name in full if name not in named and not name.endswith(".num_batches_tracked")]
    if not any(".tin." in plain for plain in named):
        missing = [name for name in missing if ".tin." not in name]
    if {"fc.weight", "fc.bias"} <= set(missing):
        missing = [name for name in missing if not name.startswith("fc.")]
    if unknown or missing:
        problems = [(unknown, "it does not have"), (sorted(missing), "that are not in the file")]
        parts = "; ".join(f"{len(names)} {what} ({_list(names, 3)})" for names, what in problems if names)
        raise TinError(
            f"{source} is no network that tin-video knows: nearest is a ResNet-{depth}, with weights {parts}; nothing is converted"
        )
    return depth


@functools.cache
def _networks() -> dict[int, frozenset[str]]:
    """All names of the TIN of each depth."""
    from tin.models import build_model  # imports this package's error module and torchvision; needed here alone

    with torch.device("meta"):
        return {depth: frozenset(build_model(f"tin_resnet{depth}", 1).state_dict()) for depth in (18, 34, 50, 101)}


def _file_kind(scheme: str, state: Mapping[str, object]) -> Target:
    if scheme.startswith("MMAction2"):
        return "mmaction2"
    if "repository" in scheme:
        return "tin-original"
    return "safetensors" if "metadata" in state else "tin"


def _kind(
    named: Mapping[str, str], file_kind: Target, arch: str | None, asked: Kind | None, source: Path
) -> Kind | None:
    """TIN, TSM or TSN, by the names first; None where neither they nor anything else tells."""
    told: Kind | None = None
    if any(".tin." in plain for plain in named):
        told = "tin"
    elif any(".conv1.net." in name or ".conv1.conv.net." in name for name in named.values()):
        told = "tsm"
    elif file_kind in NEEDS_KIND:
        told = "tsn"
    elif arch is not None:
        told = next((kind for kind in KINDS if arch.startswith(kind)), None)
    if (asked and (told or asked) != asked) or (asked == "tin" and told is None):
        says = f"it is a {told.upper()}" if told else "it has no TIN modules"
        raise TinError(f"{source} does not fit --as {asked}: {says}, by its names or what stands beside them")
    return told or asked


def _without_temporal(
    named: Mapping[str, str], kind: Kind | None, to: Target, drop_temporal: bool, source: Path
) -> list[str]:
    """The file's names of the weights that are to be dropped."""
    if to != "torchvision":
        if drop_temporal:
            raise TinError(f"--drop-temporal is for --to torchvision; {to} has a place for everything")
        return []
    temporal = [name for plain, name in named.items() if ".tin." in plain]
    if kind in ("tin", "tsm") and not drop_temporal:
        what = f"{len(temporal)} weights of TIN modules ({_list(temporal, 3)})" if temporal else "the shift of a TSM"
        raise TinError(
            f"{source} holds what torchvision's ResNet has no place for: {what}. Without it the network computes something else; "
            f"--drop-temporal leaves it out"
        )
    return temporal


# ---------------------------------------------------------------------------------------------------------------------
# the new file


def _check_out(source: Path, out: Path, to: Target, force: bool) -> None:
    if out.is_dir():
        raise TinError(f"{out} is a directory: give a file name in it")
    if (to == "safetensors") != (out.suffix == _SAFETENSORS):
        right = out.with_suffix(_SAFETENSORS if to == "safetensors" else ".pth")
        raise TinError(
            f"{out} has the ending of another format, which programs go by: name it {right.name}, or as you like"
        )
    if out.exists():
        if source.exists() and out.samefile(source):
            raise TinError(f"{out} is the file to convert: name another for the result")
        if not force:
            raise TinError(f"{out} exists: name another file, or write over it with --force")


def _whole(tensor: Tensor) -> Tensor:
    """The numbers in order, alone in their memory: files hold whole memories."""
    tensor = tensor.detach().contiguous()
    return tensor.clone() if tensor.untyped_storage().nbytes() != tensor.numel() * tensor.element_size() else tensor


@contextmanager
def _temporary(out: Path, to: Target, content: Mapping[str, object]) -> Iterator[Path]:
    if to != "safetensors":
        with temporary_file(out, content) as temporary:
            yield temporary
        return
    out.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_name(out)
    try:
        save_file(content["state_dict"], temporary, metadata=content["metadata"])  # type: ignore[arg-type]
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


def _compare(path: Path, tensors: Mapping[str, Tensor], out: Path) -> None:
    """Read back what was written, as anybody would."""
    written, _ = find_weights(load_state(path), out, "raw")
    if list(written) != list(tensors) and set(written) != set(tensors):
        raise RuntimeError("it reads back with other names")
    for name, tensor in tensors.items():
        if not _same_bits(written[name], tensor):
            raise RuntimeError(f"{name} reads back with other numbers")


def _same_bits(a: Tensor, b: Tensor) -> bool:
    """Also where numbers are none (NaN), which equal nothing."""
    if (a.dtype, a.shape) != (b.dtype, b.shape):
        return False
    raw: Callable[[Tensor], Tensor] = lambda tensor: tensor.contiguous().reshape(-1).view(torch.uint8)  # noqa: E731
    return torch.equal(raw(a), raw(b))


def _list(names: list[str], limit: int = 12) -> str:
    more = f", … {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(map(shown, names[:limit])) + more

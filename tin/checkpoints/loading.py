"""Puts the weights of a file into a model and accounts for every one: loaded, new, dropped or mismatched."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from torch import Tensor, nn

from tin.checkpoints.names import naming_scheme, plain_name
from tin.checkpoints.reading import load_state
from tin.errors import TinError

ENVELOPES = ("model", "state_dict")
"""Keys under which training programs put the weights: MMAction2's, the authors' and ours are `state_dict`."""

Weights = Literal["auto", "ema", "raw"]
"""Which weights of a file that has their moving averages (EMA) too: the averages where there are any, those, or the others."""


@dataclass(frozen=True)
class LoadReport:
    """What became of every weight. All names are the model's, but those of `dropped`, which are the file's.

    Attributes:
        path: the file.
        scheme: whose names the file had, in words.
        loaded: weights that now have the file's values.
        new: weights the file does not have; they keep the values they were initialised with.
        dropped: weights of the file that the model has no place for, or, for a classifier of other classes, no use.
        mismatched: weights both have in different shapes, "name: file (8, 8), model (16, 16)". Not loaded.
        averaged: whether these are the moving averages (EMA) that the file has beside the weights.
    """

    path: Path
    scheme: str
    loaded: list[str] = field(default_factory=list)
    new: list[str] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)
    mismatched: list[str] = field(default_factory=list)
    averaged: bool = False

    @property
    def complete(self) -> bool:
        """Whether the model is now the file's model: nothing new, dropped or mismatched."""
        return not (self.new or self.dropped or self.mismatched)

    def require_complete(self) -> None:
        """For testing and predicting, where a part left at its random start would make every number wrong.

        Raises:
            TinError: a weight is new, dropped or mismatched.
        """
        if not self.complete:
            raise TinError(f"{self.path} is not this model: {self._differences()}; build the model it was trained as")

    def __str__(self) -> str:
        kind = "averaged (EMA) weights" if self.averaged else "weights"
        lines = [f"{self.path} ({self.scheme} names): {len(self.loaded)} {kind} loaded"]
        for word in ("new", "dropped", "mismatched"):
            names = getattr(self, word)
            if names:
                lines.append(f"  {word}: {_list(names, 6)}")
        return "\n".join(lines)

    def _differences(self) -> str:
        parts = [(self.new, "not in the file"), (self.dropped, "not in the model"), (self.mismatched, "of other shape")]
        return "; ".join(f"{len(names)} {what} ({_list(names, 3)})" for names, what in parts if names)


def load_checkpoint(
    model: nn.Module, path: str | os.PathLike[str], strict: bool = True, weights: Weights = "auto"
) -> LoadReport:
    """Load a model's weights from a file in any naming of the field: ours, torchvision's, MMAction2's, the authors' TIN or TSM.

    Two differences are expected when a network starts from another's weights, and are reported but no error: TIN modules
    that the file does not have (ImageNet or TSM into TIN), and a classifier for another number of classes, which is
    dropped. Anything else is an error under `strict`. To test or predict, call `require_complete()` on the report.

    Args:
        model: from `build_model`. Changed only when there is no error.
        path: file with the weights themselves, or with a dict that holds them under `model` or `state_dict`.
        strict: refuse what is not explained. If False, load what fits by name and shape, and report the rest.
        weights: of a run with EMA, "auto" and "ema" take the averages, "raw" what the optimiser had; the report says which.
            Without averages in the file, "ema" is an error.

    Raises:
        TinError: the file cannot be read or has no weights; under `strict` also for any unexplained difference, with its names.
    """
    path = Path(path)
    found, averaged = find_weights(load_state(path), path, weights)
    report, values = _compare(model, found, path, averaged)
    if not report.loaded:
        raise TinError(f"nothing in {path} fits the model: {report._differences()}")
    if strict:
        _refuse_unexplained(model, report)
    model.load_state_dict(values, strict=False)
    return report


def find_weights(state: Mapping[str, Any], path: Path, wanted: Weights) -> tuple[dict[str, Tensor], bool]:
    """The weights by the file's names, and whether they are averages."""
    ema = state.get("ema")
    averages = ema.get("averages") if isinstance(ema, Mapping) else None
    if wanted == "ema" and averages is None:
        raise TinError(f'{path} holds no averaged (EMA) weights: it was trained without train.ema; load it with "raw"')
    for key in ENVELOPES:
        if isinstance(state.get(key), Mapping):
            state = state[key]
            break
    weights = {name: value for name, value in state.items() if isinstance(value, Tensor)}
    if not weights:
        keys = _list([str(key) for key in state], 6) or "nothing"
        raise TinError(
            f"{path} holds no weights: expected tensors, or a dict of them under {' or '.join(ENVELOPES)}; found {keys}"
        )
    if averages is None or wanted == "raw":
        return weights, False
    return weights | averages, True  # what is not averaged, as counters, is the network's own


def _compare(
    model: nn.Module, weights: dict[str, Tensor], path: Path, averaged: bool
) -> tuple[LoadReport, dict[str, Tensor]]:
    """The report, and the values to load by the model's names."""
    report = LoadReport(path, naming_scheme(weights), averaged=averaged)
    own = model.state_dict()
    source: dict[str, str] = {}
    for name in weights:
        plain = plain_name(name)
        if plain in source:
            raise TinError(f"{path} holds {plain} twice, as {source[plain]} and as {name}: keep one of them")
        source[plain] = name
    other_classes = _other_classes(own, {plain: weights[name] for plain, name in source.items()})
    values: dict[str, Tensor] = {}
    for plain, name in source.items():
        if plain not in own or (plain.startswith("fc.") and other_classes):
            report.dropped.append(name)
        elif weights[name].shape != own[plain].shape:
            shapes = f"file {tuple(weights[name].shape)}, model {tuple(own[plain].shape)}"
            report.mismatched.append(f"{plain}: {shapes}")
        else:
            report.loaded.append(plain)
            values[plain] = weights[name]
    missing = (name for name in own if name not in source or (name.startswith("fc.") and other_classes))
    # Files older than PyTorch 0.4.1 have no such counters, and nothing here reads them.
    report.new.extend(name for name in missing if not name.endswith(".num_batches_tracked"))
    return report, values


def _other_classes(own: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> bool:
    """Whether the file's classifier differs from the model's in the number of classes, and in nothing else."""
    ours, theirs = own.get("fc.weight"), weights.get("fc.weight")
    if ours is None or theirs is None or theirs.dim() != 2:
        return False
    return theirs.shape[0] != ours.shape[0] and theirs.shape[1] == ours.shape[1]


def _refuse_unexplained(model: nn.Module, report: LoadReport) -> None:
    # All TIN modules may be missing, as in a TSM; if some are there, the file is a damaged TIN.
    has_modules = any(".tin." in name for name in [*report.loaded, *report.mismatched])
    other_classes = {plain_name(name) for name in report.dropped} & {"fc.weight", "fc.bias"} & set(report.new)
    new = [name for name in report.new if name not in other_classes and (has_modules or ".tin." not in name)]
    dropped = [name for name in report.dropped if plain_name(name) not in other_classes]
    if report.mismatched and all(".tin.offset.fc" in name for name in report.mismatched):
        key, _, shapes = report.mismatched[0].partition(": file ")
        raise TinError(
            f"{report.path} was trained with another number of segments: {key} is {shapes.replace('model', 'the model has')}. "
            f"Build the model with the file's num_segments, or load with strict=False to start the "
            f"{len(report.mismatched)} weights that depend on it afresh"
        )
    if not (new or dropped or report.mismatched):
        return
    unexplained = LoadReport(report.path, report.scheme, new=new, dropped=dropped, mismatched=report.mismatched)
    arch = f" {model.arch}" if hasattr(model, "arch") else ""
    raise TinError(
        f"{report.path} ({report.scheme} names) does not fit the model{arch}: {unexplained._differences()}. "
        f"Build the architecture it was trained as, or load with strict=False to take what fits"
    )


def _list(names: list[str], limit: int) -> str:
    more = f", … {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more

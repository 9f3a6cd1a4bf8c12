"""Puts the weights of a file into a model and accounts for every one: loaded, new, dropped, reshaped or mismatched."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor, nn

from tin.checkpoints.averages import Weights, find_weights
from tin.checkpoints.names import naming_scheme, plain_name, plain_names
from tin.checkpoints.reading import load_state
from tin.checkpoints.refusal import shown
from tin.checkpoints.segments import Segments, can_resample, depends_on_segments, resampled
from tin.errors import TinError

_WORDS = ("new", "dropped", "reshaped", "mismatched")


@dataclass(frozen=True)
class LoadReport:
    """What became of every weight. All names are the model's, but those of `dropped`, which are the file's.

    Attributes:
        path: the file.
        scheme: whose names the file had, in words.
        loaded: weights that now have the file's values.
        new: weights the file does not have; they keep the values they were initialised with.
        dropped: weights of the file that the model has no place for, or, for a classifier of other classes, no use.
        reshaped: weights made from the file's for another number of segments, "name: file (8, 8), model (16, 16)".
        mismatched: weights both have in different shapes, or one of them not as real numbers, in the same words. Not loaded.
        averaged: whether these are the moving averages (EMA) that the file has beside the weights.
    """

    path: Path
    scheme: str
    loaded: list[str] = field(default_factory=list)
    new: list[str] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)
    mismatched: list[str] = field(default_factory=list)
    averaged: bool = False
    reshaped: list[str] = field(default_factory=list)

    @property
    def counts(self) -> dict[str, int]:
        """How many weights are `loaded`, `new`, `dropped`, `reshaped` and `mismatched`."""
        return {word: len(getattr(self, word)) for word in ("loaded", *_WORDS)}

    @property
    def complete(self) -> bool:
        """Whether the model is now the file's model: nothing new, dropped, reshaped or mismatched."""
        return not (self.new or self.dropped or self.reshaped or self.mismatched)

    def require_complete(self) -> None:
        """For testing and predicting, where a part left at its random start would make every number wrong.

        Raises:
            TinError: a weight is new, dropped, reshaped or mismatched.
        """
        if not self.complete:
            raise TinError(f"{self.path} is not this model: {self._differences()}; build the model it was trained as")

    def __str__(self) -> str:
        """Every kind of weight with its count, and the first names of each."""
        kind = "averaged (EMA) weights" if self.averaged else "weights"
        counts = [
            f"{count} {word}"
            for word, count in self.counts.items()
            if word in ("new", "dropped") or (count and word != "loaded")
        ]
        lines = [f"{self.path} ({self.scheme} names): {len(self.loaded)} {kind} loaded, " + ", ".join(counts)]
        for word in _WORDS:
            names = getattr(self, word)
            if names:
                lines.append(f"  {word}: {_list(names, 6)}")
        return "\n".join(lines)

    def _differences(self) -> str:
        parts = [
            (self.new, "not in the file"),
            (self.dropped, "not in the model"),
            (self.reshaped, "made for another number of segments"),
            (self.mismatched, "of other shape"),
        ]
        return "; ".join(f"{len(names)} {what} ({_list(names, 3)})" for names, what in parts if names)


def load_checkpoint(
    model: nn.Module,
    path: str | os.PathLike[str],
    strict: bool = True,
    weights: Weights = "auto",
    segments: Segments = "refuse",
) -> LoadReport:
    """Load a model's weights from a file in any naming of the field: ours, torchvision's, MMAction2's, the authors' TIN or TSM.

    Two differences are expected when a network starts from another's weights, and are reported but no error: TIN modules
    that the file does not have (ImageNet or TSM into TIN), and a classifier for another number of classes, which is
    dropped. Anything else is an error under `strict`. To test or predict, call `require_complete()` on the report. No code in
    the file runs (`load_state`).

    Args:
        model: from `build_model`. Changed only when there is no error.
        path: file with the weights themselves, or with a dict that holds them under `model` or `state_dict`.
        strict: refuse what is not explained. If False, load what fits by name and shape, and report the rest.
        weights: of a run with EMA, "auto" and "ema" take the averages, "raw" what the optimiser had; the report says which.
            Without averages in the file, "ema" is an error.
        segments: of a TIN that was trained with another number of segments, the layers that have it in their shape are an error
            ("refuse"), are resampled in time (`segments.resampled`) and reported as `reshaped`, or keep their random start
            ("fresh") and are reported as `mismatched`.

    Raises:
        TinError: the file cannot be read or has no weights; under `strict` also for any unexplained difference, with its names.
    """
    path = Path(path)
    found, averaged = find_weights(load_state(path), path, weights)
    report, values = _compare(model, found, path, averaged, segments)
    if not values:
        raise TinError(f"nothing in {path} fits the model: {report._differences()}")
    if strict:
        _refuse_unexplained(model, report, found, segments)
    model.load_state_dict(values, strict=False)
    return report


def _compare(
    model: nn.Module, weights: dict[str, Tensor], path: Path, averaged: bool, segments: Segments
) -> tuple[LoadReport, dict[str, Tensor]]:
    """The report, and the values to load by the model's names."""
    report = LoadReport(path, naming_scheme(weights), averaged=averaged)
    own = model.state_dict()
    source = plain_names(weights, path)
    other_classes = _other_classes(own, {plain: weights[name] for plain, name in source.items()})
    values: dict[str, Tensor] = {}
    for plain, name in source.items():
        value = weights[name]
        if plain not in own or (plain.startswith("fc.") and other_classes):
            report.dropped.append(name)
        elif difference := _difference(value, own[plain]):
            if segments == "resample" and can_resample(plain, value, own[plain]):
                report.reshaped.append(f"{plain}: {difference}")
                values[plain] = resampled(plain, value, own[plain].shape[-1])
            else:
                report.mismatched.append(f"{plain}: {difference}")
        else:
            report.loaded.append(plain)
            values[plain] = value
    missing = (name for name in own if name not in source or (name.startswith("fc.") and other_classes))
    # Files older than PyTorch 0.4.1 have no such counters, and nothing here reads them.
    report.new.extend(name for name in missing if not name.endswith(".num_batches_tracked"))
    return report, values


def _difference(value: Tensor, own: Tensor) -> str | None:
    if value.shape != own.shape:
        return f"file {tuple(value.shape)}, model {tuple(own.shape)}"
    if value.is_complex() or (own.is_floating_point() and not value.is_floating_point()):
        return f"file {value.dtype}, model {own.dtype}".replace("torch.", "")
    return None


def _other_classes(own: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> bool:
    """Whether the file's classifier differs from the model's in the number of classes, and in nothing else."""
    ours, theirs = own.get("fc.weight"), weights.get("fc.weight")
    if ours is None or theirs is None or theirs.dim() != 2:
        return False
    return theirs.shape[0] != ours.shape[0] and theirs.shape[1] == ours.shape[1]


def _refuse_unexplained(
    model: nn.Module, report: LoadReport, weights: Mapping[str, Tensor], segments: Segments
) -> None:
    # All TIN modules may be missing, as in a TSM; if some are there, the file is a damaged TIN.
    has_modules = any(".tin." in name for name in [*report.loaded, *report.mismatched])
    other_classes = {plain_name(name) for name in report.dropped} & {"fc.weight", "fc.bias"} & set(report.new)
    new = [name for name in report.new if name not in other_classes and (has_modules or ".tin." not in name)]
    dropped = [name for name in report.dropped if plain_name(name) not in other_classes]
    of_segments = [text for text in report.mismatched if depends_on_segments(text.partition(":")[0])]
    mismatched = [text for text in report.mismatched if segments != "fresh" or text not in set(of_segments)]
    if segments == "refuse" and mismatched and mismatched == of_segments and not (new or dropped):
        key, _, shapes = mismatched[0].partition(": file ")
        raise TinError(
            f"{report.path} was trained with another number of segments: {key} is {shapes.replace('model', 'the model has')}. "
            f"Build the model with the file's num_segments, or have the {len(mismatched)} weights that depend on it resampled in "
            f'time, with segments="resample", or started afresh, with segments="fresh" (tin-cli train: --set '
            f"train.pretrained_segments=resample)"
        )
    arch = getattr(model, "arch", "")
    if arch.startswith("tsn") and any(".conv1.net." in name or ".conv1.conv.net." in name for name in weights):
        raise TinError(
            f"{report.path} ({report.scheme} names) was trained with TSM's shift, which the model {arch} has not: build "
            f"{arch.replace('tsn', 'tsm')}, or load with strict=False to have its weights without the shift"
        )
    if not (new or dropped or mismatched):
        return
    unexplained = LoadReport(report.path, report.scheme, new=new, dropped=dropped, mismatched=mismatched)
    raise TinError(
        f"{report.path} ({report.scheme} names) does not fit the model{arch and ' '}{arch}: {unexplained._differences()}. "
        f"Build the architecture it was trained as, or load with strict=False to take what fits"
    )


def _list(names: list[str], limit: int) -> str:
    more = f", … {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(map(shown, names[:limit])) + more

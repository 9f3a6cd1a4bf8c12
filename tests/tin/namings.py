"""The names that five systems give to the weights of a ResNet with temporal modules, spelled out; made without the code under test."""

from __future__ import annotations

MMACTION2_TIN = "MMAction2 TIN"
MMACTION2_TSM = "MMAction2 TSM"
AUTHORS_TIN = "the TIN authors' repository"
TSM_REPOSITORY = "the TSM repository"

_BLOCKS = {18: (2, 2, 2, 2), 50: (3, 4, 6, 3)}
_NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")


def names(depth: int) -> dict[str, dict[str, str]]:
    """By plain name, the name of each system that has this weight; a TSM has none of `tin`."""
    rows: dict[str, dict[str, str]] = {}

    def everywhere(plain: str, mmaction2: str, authors: str) -> None:
        rows[plain] = {
            MMACTION2_TIN: mmaction2,
            MMACTION2_TSM: mmaction2,
            AUTHORS_TIN: authors,
            TSM_REPOSITORY: authors,
        }

    everywhere("conv1.weight", "backbone.conv1.conv.weight", "module.base_model.conv1.weight")
    for leaf in _NORM:
        everywhere(f"bn1.{leaf}", f"backbone.conv1.bn.{leaf}", f"module.base_model.bn1.{leaf}")
    for stage, count in enumerate(_BLOCKS[depth], 1):
        for block in range(count):
            here = f"layer{stage}.{block}"
            mm, of = f"backbone.{here}", f"module.base_model.{here}"
            rows[f"{here}.conv1.weight"] = {
                MMACTION2_TIN: f"{mm}.conv1.conv.net2.weight",
                MMACTION2_TSM: f"{mm}.conv1.conv.net.weight",
                AUTHORS_TIN: f"{of}.conv1.net2.weight",
                TSM_REPOSITORY: f"{of}.conv1.net.weight",
            }
            everywhere(f"{here}.conv2.weight", f"{mm}.conv2.conv.weight", f"{of}.conv2.weight")
            if depth == 50:
                everywhere(f"{here}.conv3.weight", f"{mm}.conv3.conv.weight", f"{of}.conv3.weight")
            for number in (1, 2, 3) if depth == 50 else (1, 2):
                for leaf in _NORM:
                    everywhere(f"{here}.bn{number}.{leaf}", f"{mm}.conv{number}.bn.{leaf}", f"{of}.bn{number}.{leaf}")
            if block == 0 and (stage > 1 or depth == 50):
                everywhere(f"{here}.downsample.0.weight", f"{mm}.downsample.conv.weight", f"{of}.downsample.0.weight")
                for leaf in _NORM:
                    everywhere(f"{here}.downsample.1.{leaf}", f"{mm}.downsample.bn.{leaf}", f"{of}.downsample.1.{leaf}")
            for leaf in ("weight", "bias"):
                for plain, mmaction2, authors in (
                    ("tin.offset.conv", "offset_net.conv", "biasnet.net.conv"),
                    ("tin.offset.fc1", "offset_net.fc1", "biasnet.net.fc"),
                    ("tin.offset.fc2", "offset_net.fc2", "biasnet.net.lastlayer"),
                    ("tin.gain.conv", "weight_net.conv", "weightnet.net.lastlayer"),
                ):
                    rows[f"{here}.{plain}.{leaf}"] = {
                        MMACTION2_TIN: f"{mm}.conv1.conv.net1.{mmaction2}.{leaf}",
                        AUTHORS_TIN: f"{of}.conv1.net1.{authors}.{leaf}",
                    }
    for leaf in ("weight", "bias"):
        everywhere(f"fc.{leaf}", f"cls_head.fc_cls.{leaf}", f"module.new_fc.{leaf}")
    return rows

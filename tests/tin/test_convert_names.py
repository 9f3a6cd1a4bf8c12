"""Names in every scheme, against a table written down from the public repositories, row by row."""

from __future__ import annotations

import pytest
import torch

import tin
from tin.checkpoints.convert_names import TARGETS, Kind, Target, names_in
from tin.checkpoints.names import naming_scheme, plain_name

# Ours | MMAction2 TIN | MMAction2 TSM | the authors' TIN | the TSM repository. B stands for `layerL.b`; W for weight and bias, N for the
# five of a norm, K for weight alone; `=` for what stands to the left, M for `backbone.`, P for `module.base_model.`.
TABLE = """
conv1.K            | M conv1.conv.K                          | = | P conv1.K                              | =
bn1.N              | M conv1.bn.N                            | = | P bn1.N                                | =
B.conv1.K          | M B.conv1.conv.net2.K                   | M B.conv1.conv.net.K | P B.conv1.net2.K    | P B.conv1.net.K
B.conv2.K          | M B.conv2.conv.K                        | = | P B.conv2.K                            | =
B.conv3.K          | M B.conv3.conv.K                        | = | P B.conv3.K                            | =
B.bn1.N            | M B.conv1.bn.N                          | = | P B.bn1.N                              | =
B.bn2.N            | M B.conv2.bn.N                          | = | P B.bn2.N                              | =
B.bn3.N            | M B.conv3.bn.N                          | = | P B.bn3.N                              | =
B.downsample.0.K   | M B.downsample.conv.K                   | = | P B.downsample.0.K                     | =
B.downsample.1.N   | M B.downsample.bn.N                     | = | P B.downsample.1.N                     | =
B.tin.offset.conv.W| M B.conv1.conv.net1.offset_net.conv.W   |   | P B.conv1.net1.biasnet.net.conv.W      |
B.tin.offset.fc1.W | M B.conv1.conv.net1.offset_net.fc1.W    |   | P B.conv1.net1.biasnet.net.fc.W        |
B.tin.offset.fc2.W | M B.conv1.conv.net1.offset_net.fc2.W    |   | P B.conv1.net1.biasnet.net.lastlayer.W |
B.tin.gain.conv.W  | M B.conv1.conv.net1.weight_net.conv.W   |   | P B.conv1.net1.weightnet.net.lastlayer.W |
fc.W               | cls_head.fc_cls.W                       | = | module.new_fc.W                        | =
"""
COLUMNS: dict[tuple[Target, Kind], int] = {
    ("mmaction2", "tin"): 1, ("mmaction2", "tsm"): 2, ("tin-original", "tin"): 3, ("tin-original", "tsm"): 4,
}  # fmt: skip
ENDINGS = {
    "K": ["weight"],
    "W": ["weight", "bias"],
    "N": ["weight", "bias", "running_mean", "running_var", "num_batches_tracked"],
}
BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}
COUNTS = {("tin", 50): 448, ("tsm", 50): 320}


def by_the_table(target: Target, kind: Kind, depth: int) -> dict[str, str]:
    """Every name of a network in a scheme, by ours."""
    names = {}
    for line in TABLE.strip().splitlines():
        cells = [cell.strip() for cell in line.split("|")]
        column = COLUMNS[target, kind]
        theirs = cells[column - 1] if cells[column] == "=" else cells[column]
        if not theirs:
            continue
        theirs = theirs.replace("M ", "backbone.").replace("P ", "module.base_model.")
        for block in _blocks(cells[0], depth):
            for ending in ENDINGS[cells[0][-1]]:
                ours = cells[0][:-1].replace("B.", f"{block}.") + ending
                name = theirs[:-1].replace("B.", f"{block}.") + ending
                if kind == "tsm" and depth == 101 and block and int(block.partition(".")[2]) % 2:
                    name = name.replace(".net.", ".")  # the authors shift every second block of so deep a network
                names[ours] = name
    return names


def _blocks(row: str, depth: int) -> list[str]:
    if not row.startswith("B."):
        return [""]
    blocks = [
        f"layer{stage}.{b}" for stage, number in zip((1, 2, 3, 4), BLOCKS[depth], strict=True) for b in range(number)
    ]
    if ".downsample." in row:  # where the size or the number of channels changes
        return [block for block in blocks if block.endswith(".0") and (depth >= 50 or block != "layer1.0")]
    return [] if depth < 50 and ("conv3" in row or "bn3" in row) else blocks


@pytest.mark.parametrize("depth", BLOCKS)
@pytest.mark.parametrize(("target", "kind"), COLUMNS)
def test_every_name_is_that_of_the_table_and_comes_back(target: Target, kind: Kind, depth: int) -> None:
    with torch.device("meta"):
        ours = list(tin.build_model(f"{kind}_resnet{depth}", 7).state_dict())
    table = by_the_table(target, kind, depth)
    assert len(ours) == COUNTS.get((kind, depth), len(ours))
    assert set(table) == set(ours)
    named = names_in(target, ours, kind)
    assert list(named) == ours
    assert named == {name: table[name] for name in ours}
    assert len(set(named.values())) == len(ours)
    assert [plain_name(name) for name in named.values()] == ours
    whose = {"mmaction2": f"MMAction2 {kind.upper()}", "tin-original": f"the {kind.upper()}"}[target]
    assert naming_scheme(named.values()).startswith(whose)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("depth", BLOCKS)
def test_a_network_without_a_shift_comes_back_too(target: Target, depth: int) -> None:
    with torch.device("meta"):
        ours = list(tin.build_model(f"tsn_resnet{depth}", 7).state_dict())
    named = names_in(target, ours, "tsn")
    assert [plain_name(name) for name in named.values()] == ours
    assert not any(".net" in name for name in named.values())
    assert (named == {name: name for name in ours}) is (target not in ("mmaction2", "tin-original"))


def test_the_authors_classifier_is_the_networks_own_where_dropout_was_0() -> None:
    names = ["conv1.weight", "fc.weight", "fc.bias"]
    assert list(names_in("tin-original", names, "tin", bare_head=True).values())[1:] == [
        "module.base_model.fc.weight",
        "module.base_model.fc.bias",
    ]
    assert names_in("mmaction2", names, "tin", bare_head=True)["fc.bias"] == "cls_head.fc_cls.bias"

"""Files of weights in other names and forms: the same bits, there and back, and what stands beside them."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

import tin
from tests.tin.networks import filled, same
from tin.checkpoints import load_state, save_checkpoint
from tin.checkpoints.convert import convert_checkpoint
from tin.checkpoints.convert_beside import envelope, read_beside
from tin.checkpoints.convert_names import TARGETS, Kind, Target, names_in
from tin.errors import TinError
from tin.recipes import from_dict
from tin.trained import load_trained

State = dict[str, Tensor]
ELSEWHERE: tuple[Target, ...] = ("mmaction2", "tin-original", "safetensors")
ENDING = {"safetensors": ".safetensors"}


def named(folder: Path, name: str, target: str) -> Path:
    return folder / f"{name}{ENDING.get(target, '.pth')}"


def weights_of(path: Path) -> State:
    state = load_state(path)
    return dict(state.get("state_dict", state))


def assert_equal(actual: State, expected: State) -> None:
    """The same names with the same types, shapes and bits."""
    assert set(actual) == set(expected)
    wrong = [
        name
        for name, value in expected.items()
        if (actual[name].dtype, actual[name].shape) != (value.dtype, value.shape)
        or actual[name].contiguous().numpy().tobytes() != value.contiguous().numpy().tobytes()
    ]
    assert wrong == []


@functools.cache
def names_of(kind: str, depth: int) -> tuple[str, ...]:
    with torch.device("meta"):
        return tuple(tin.build_model(f"{kind}_resnet{depth}", 7).state_dict())


def tiny(kind: str, depth: int = 18, first: float = 1.0) -> State:
    """All weights of a network, of two numbers each: names and bits are all that a conversion looks at."""
    return {
        name: torch.tensor(i) if name.endswith("_tracked") else torch.full((2,), first + i / 1024)
        for i, name in enumerate(names_of(kind, depth))
    }


def odd(kind: str) -> State:
    """Weights with everything that arithmetic would change: NaN with a payload, −0, subnormals, halves, channels-last."""
    state = tiny(kind)
    state["bn1.weight"] = torch.tensor([0x7FC12345, -(2**31), 1], dtype=torch.int32).view(torch.float32)
    state["fc.weight"] = torch.randn(10, 512, generator=torch.Generator().manual_seed(0)).half()
    state["layer2.0.conv2.weight"] = torch.rand(4, 3, 2, 2).contiguous(memory_format=torch.channels_last)
    state["bn1.num_batches_tracked"] = torch.tensor(2**53 + 1)
    return state


class TestRoundTrips:
    @pytest.mark.parametrize("target", ELSEWHERE)
    @pytest.mark.parametrize("kind", ["tin", "tsm", "tsn"])
    def test_every_bit_comes_back(self, tmp_path: Path, kind: Kind, target: Target) -> None:
        state = odd(kind)
        torch.save(state, tmp_path / "in.pth")
        there, back = named(tmp_path, "there", target), tmp_path / "back.pt"
        asked = None if kind == "tin" else kind
        done = convert_checkpoint(tmp_path / "in.pth", there, target, kind=asked)
        assert_equal(weights_of(there), {names_in(target, state, kind)[name]: value for name, value in state.items()})
        assert done.names == names_in(target, state, kind)
        assert (done.dropped, done.left_out) == ([], [])
        again = convert_checkpoint(there, back, "tin")
        assert_equal(weights_of(back), state)
        assert done.arch == again.arch == load_state(back)["arch"] == f"{kind}_resnet18"
        elsewhere = named(tmp_path, "elsewhere", "safetensors" if target != "safetensors" else "mmaction2")
        convert_checkpoint(back, elsewhere, "safetensors" if target != "safetensors" else "mmaction2")
        convert_checkpoint(elsewhere, there, target, force=True)
        assert_equal(weights_of(there), {names_in(target, state, kind)[name]: value for name, value in state.items()})

    @pytest.mark.parametrize("target", ELSEWHERE)
    def test_a_converted_file_is_the_same_network(self, tmp_path: Path, target: Target) -> None:
        saved = filled("tin_resnet18", 1)
        torch.save(saved.state_dict(), tmp_path / "in.pth")
        out = named(tmp_path, "out", target)
        convert_checkpoint(tmp_path / "in.pth", out, target)
        model = filled("tin_resnet18", 2)
        assert tin.load_checkpoint(model, out).complete
        same(model, saved.state_dict())

    def test_every_weight_of_a_tin_resnet50_is_counted(self, tmp_path: Path) -> None:
        torch.save(tiny("tin", 50), tmp_path / "in.pth")
        done = convert_checkpoint(tmp_path / "in.pth", tmp_path / "out.pth", "mmaction2")
        assert len(done.names) == len(weights_of(tmp_path / "out.pth")) == 448
        assert str(done).splitlines() == [
            f"{tmp_path / 'in.pth'} (plain names): tin_resnet50, 448 tensors (395 float32, 53 int64), 0.0 MiB",
            f"{tmp_path / 'out.pth'} (mmaction2): 448 tensors written, 448 of them under another name, 0 dropped; "
            f"read back and equal bit by bit",
        ]

    def test_tin_is_not_changed_by_torchvision_but_what_is_dropped(self, tmp_path: Path) -> None:
        saved = filled("tin_resnet18", 1, classes=1000)
        torch.save(saved.state_dict(), tmp_path / "in.pth")
        with pytest.raises(
            TinError, match=r"no place for: 64 weights of TIN modules \(layer1\.0\.tin\.offset\.conv\.weight,"
        ):
            convert_checkpoint(tmp_path / "in.pth", tmp_path / "out.pth", "torchvision")
        assert not (tmp_path / "out.pth").exists()
        done = convert_checkpoint(tmp_path / "in.pth", tmp_path / "out.pth", "torchvision", drop_temporal=True)
        assert (len(done.names), len(done.dropped)) == (122, 64)
        plain = torchvision.models.resnet18()
        plain.load_state_dict(torch.load(tmp_path / "out.pth", weights_only=True))  # strict
        assert torch.equal(plain.layer1[0].conv1.weight, saved.layer1[0].conv1.weight)
        assert "64 dropped" in str(done)
        assert "  dropped: layer1.0.tin.offset.conv.weight, " in str(done)

    def test_a_tsm_loses_its_shift_on_request_alone(self, tmp_path: Path) -> None:
        torch.save(tiny("tsm"), tmp_path / "in.pth")
        convert_checkpoint(tmp_path / "in.pth", tmp_path / "tsm.pth", "mmaction2", kind="tsm")
        with pytest.raises(TinError, match=r"no place for: the shift of a TSM\. Without it .* something else"):
            convert_checkpoint(tmp_path / "tsm.pth", tmp_path / "out.pth", "torchvision")
        convert_checkpoint(tmp_path / "tsm.pth", tmp_path / "out.pth", "torchvision", drop_temporal=True)
        assert_equal(weights_of(tmp_path / "out.pth"), weights_of(tmp_path / "in.pth"))

    def test_imagenet_weights_of_torchvision_go_there_and_back(self, tmp_path: Path) -> None:
        state = torchvision.models.resnet18().state_dict()
        torch.save(state, tmp_path / "in.pth")
        convert_checkpoint(tmp_path / "in.pth", tmp_path / "tsn.pth", "mmaction2", kind="tsn")
        convert_checkpoint(tmp_path / "tsn.pth", tmp_path / "out.pth", "torchvision")
        assert_equal(torch.load(tmp_path / "out.pth", weights_only=True), dict(state))

    def test_files_with_wrappers_without_counters_or_without_a_classifier(self, tmp_path: Path) -> None:
        state = tiny("tin")
        kept = {
            name: value for name, value in state.items() if "num_batches" not in name and not name.startswith("fc.")
        }
        torch.save({"model": {f"module.{name}": value for name, value in kept.items()}}, tmp_path / "in.pth")
        convert_checkpoint(tmp_path / "in.pth", tmp_path / "out.pth", "mmaction2")
        convert_checkpoint(tmp_path / "out.pth", tmp_path / "back.pth", "tin")
        assert_equal(weights_of(tmp_path / "back.pth"), kept)

    def test_parts_of_larger_memories_are_written_alone(self, tmp_path: Path) -> None:
        state = tiny("tsn")
        state["fc.weight"] = torch.zeros(1000, 512)[500:510]
        torch.save(state, tmp_path / "in.pth")
        convert_checkpoint(tmp_path / "in.pth", tmp_path / "out.pth", "tin")
        smaller = (tmp_path / "in.pth").stat().st_size - (tmp_path / "out.pth").stat().st_size
        assert smaller > 990 * 512 * 4 * 0.95
        assert_equal(weights_of(tmp_path / "out.pth"), state)


class TestKinds:
    def test_plain_names_have_to_be_explained_where_it_matters(self, tmp_path: Path) -> None:
        torch.save(tiny("tsm"), tmp_path / "in.pth")
        for target in ("mmaction2", "tin-original"):
            with pytest.raises(TinError, match=r"do not tell a TSM from a TSN.*--as tsm or --as tsn"):
                convert_checkpoint(tmp_path / "in.pth", tmp_path / "out.pth", target)
        done = convert_checkpoint(tmp_path / "in.pth", tmp_path / "out.pth", "tin")
        assert done.arch == "tsm_resnet18 or tsn_resnet18"
        assert "arch" not in load_state(tmp_path / "out.pth")

    @pytest.mark.parametrize(("is_", "said"), [("tin", "tsm"), ("tsm", "tsn"), ("tsn", "tsm"), ("tsn", "tin")])
    def test_what_the_names_say_is_not_overruled(self, tmp_path: Path, is_: Kind, said: Kind) -> None:
        state = tiny(is_)
        torch.save(
            {"state_dict": {n: state[p] for p, n in names_in("mmaction2", state, is_).items()}}, tmp_path / "in.pth"
        )
        with pytest.raises(TinError, match=rf"does not fit --as {said}: it is a {is_.upper()}"):
            convert_checkpoint(tmp_path / "in.pth", tmp_path / "out.pth", "tin", kind=said)

    def test_no_tin_without_its_modules(self, tmp_path: Path) -> None:
        torch.save(tiny("tsn"), tmp_path / "in.pth")
        with pytest.raises(TinError, match="does not fit --as tin: it has no TIN modules"):
            convert_checkpoint(tmp_path / "in.pth", tmp_path / "out.pth", "mmaction2", kind="tin")

    def test_every_second_block_of_a_deep_tsm_is_shifted(self, tmp_path: Path) -> None:
        torch.save(tiny("tsm", 101), tmp_path / "in.pth")
        convert_checkpoint(tmp_path / "in.pth", tmp_path / "out.pth", "mmaction2", kind="tsm")
        names = {
            name
            for name in weights_of(tmp_path / "out.pth")
            if ".conv1.conv." in name and name.startswith("backbone.layer3")
        }
        assert {name for name in names if ".net." in name} == {
            f"backbone.layer3.{block}.conv1.conv.net.weight" for block in range(0, 23, 2)
        }
        assert len(names) == 23


RECIPE: dict[str, Any] = {
    "name": "small",
    "dataset": "memory",
    "model": {"arch": "tsm_resnet18", "num_classes": 3, "num_segments": 8, "dropout": 0.5},
    "optim": {"lr": 0.1},
    "schedule": {"epochs": 10},
    "train": {"batch_size": 2},
}


def run_state(**more: Any) -> dict[str, Any]:
    """A training checkpoint as `tin.train.state.snapshot` makes it, of a network that looks trained."""
    from tin.train.optim import build_optimizer
    from tin.train.state import snapshot

    recipe = from_dict(RECIPE | more)
    model = filled(recipe.model.arch, 1, classes=3)
    optimizer = build_optimizer(model, recipe.optim, 0.01)
    progress = {"epoch": 4, "best": {"epoch": 3, "top1_acc": 0.8125}}
    return snapshot(
        recipe, model, optimizer, torch.amp.GradScaler("cpu"), progress, 16, seed=7,
        label_names=["fall", "rise", "Drehung"], lists={"train": "/data/train.txt"},
    )  # fmt: skip


def tiny_run(arch: str = "tsm_resnet18", **model: Any) -> dict[str, Any]:
    state = run_state(model=RECIPE["model"] | {"arch": arch} | model)
    return state | {"state_dict": tiny(arch.partition("_")[0])}


class TestBeside:
    @pytest.mark.parametrize("target", ELSEWHERE)
    def test_a_run_comes_back_but_for_the_state_of_its_training(self, tmp_path: Path, target: Target) -> None:
        state = run_state() if target == "mmaction2" else tiny_run()
        save_checkpoint(tmp_path / "best.pt", state)
        out = named(tmp_path, "out", target)
        done = convert_checkpoint(tmp_path / "best.pt", out, target)  # its recipe says that it is a TSM
        assert done.arch == "tsm_resnet18"
        assert {"optimizer", "rng"} < set(done.left_out)
        assert {"recipe", "label_names", "progress"} < set(done.beside)
        convert_checkpoint(out, tmp_path / "back.pt", "tin")
        back = load_state(tmp_path / "back.pt")
        for key in (
            "recipe",
            "label_names",
            "progress",
            "seed",
            "versions",
            "git",
            "lists",
            "global_batch",
            "world_size",
        ):
            assert back[key] == state[key], key
        assert set(back) - set(state) == set()
        assert "optimizer" not in back
        assert_equal(back["state_dict"], state["state_dict"])
        if target != "mmaction2":
            return
        for path in (out, tmp_path / "back.pt"):
            trained = load_trained(path)
            assert trained.recipe == from_dict(RECIPE)
            assert trained.label_names == ["fall", "rise", "Drehung"]
            same(trained.model, state["state_dict"])

    def test_the_authors_code_finds_what_it_reads(self, tmp_path: Path) -> None:
        save_checkpoint(tmp_path / "best.pt", tiny_run())
        convert_checkpoint(tmp_path / "best.pt", tmp_path / "out.pth", "tin-original")
        theirs = torch.load(tmp_path / "out.pth", weights_only=True)
        assert (theirs["epoch"], theirs["arch"], theirs["best_prec1"]) == (4, "resnet18", 81.25)
        assert "module.new_fc.weight" in theirs["state_dict"]

    @pytest.mark.parametrize("bare", [True, False])
    def test_their_classifier_stays_where_it_was(self, tmp_path: Path, bare: bool) -> None:
        state = tiny("tin")
        new = names_in("tin-original", state, "tin", bare_head=bare)
        torch.save(
            {"epoch": 40, "arch": "resnet18", "state_dict": {new[n]: v for n, v in state.items()}}, tmp_path / "in.pth"
        )
        convert_checkpoint(tmp_path / "in.pth", tmp_path / "tin.pt", "tin")
        convert_checkpoint(tmp_path / "tin.pt", tmp_path / "mm.pth", "mmaction2")
        convert_checkpoint(tmp_path / "mm.pth", tmp_path / "out.pth", "tin-original")
        assert ("module.base_model.fc.weight" in weights_of(tmp_path / "out.pth")) is bare
        assert_equal(weights_of(tmp_path / "out.pth"), weights_of(tmp_path / "in.pth"))
        assert {key: load_state(tmp_path / "out.pth")[key] for key in ("epoch", "arch")} == {
            "epoch": 40,
            "arch": "resnet18",
        }

    def test_a_run_without_dropout_gets_the_classifier_that_the_authors_code_builds(self, tmp_path: Path) -> None:
        save_checkpoint(tmp_path / "best.pt", tiny_run(dropout=0.0))
        convert_checkpoint(tmp_path / "best.pt", tmp_path / "out.pth", "tin-original")
        assert "module.base_model.fc.weight" in weights_of(tmp_path / "out.pth")

    def test_what_others_wrote_comes_back_and_what_cannot_is_said(self, tmp_path: Path, mmengine: Any) -> None:
        state = tiny("tin")
        theirs = {names_in("mmaction2", state, "tin")[name]: value for name, value in state.items()}
        meta = {
            "epoch": 40,
            "iter": 123,
            "config": "model = dict()\n",
            "CLASSES": ["a", "b"],
            "acc": np.float64(0.5),
            "lr": float("inf"),
        }
        torch.save(
            {
                "meta": meta, "state_dict": theirs, "optimizer": {"state": {0: {"momentum_buffer": torch.ones(3)}}},
                "message_hub": {"log_scalars": {"loss": mmengine()}}, "param_schedulers": [{"last_step": 3}],
                "extra": {"note": "kept", "history": mmengine(), "tensor": torch.ones(1)},
            },
            tmp_path / "in.pth",
        )  # fmt: skip
        done = convert_checkpoint(tmp_path / "in.pth", tmp_path / "tin.pt", "tin")
        assert sorted(done.left_out) == [
            "extra.history",
            "extra.tensor",
            "message_hub",
            "optimizer",
            "param_schedulers",
        ]
        assert "meta.config" in done.beside
        convert_checkpoint(tmp_path / "tin.pt", tmp_path / "x.safetensors", "safetensors")
        convert_checkpoint(tmp_path / "x.safetensors", tmp_path / "out.pth", "mmaction2")
        back = load_state(tmp_path / "out.pth")
        assert back["meta"] == meta
        assert back["extra"] == {"note": "kept"}
        assert_equal(back["state_dict"], theirs)
        assert set(back) == {"meta", "state_dict", "extra"}

    @pytest.mark.parametrize(
        "carried",
        [
            "nonsense", 3, [], {}, {"arch": 3, "run": [1], "origin": "x"}, {"run": {"recipe": "x"}}, "[" * 10**5,
            {"run": {"recipe": {"model": 1}, "progress": 5}, "origin": {"source": 1, "others": 2}},
            {"run": {"recipe": {}, "progress": {"best": 1}}, "origin": {"source": "mmaction2", "others": {"meta": 1}}},
            {"origin": {"source": "safetensors", "others": {"metadata": {"a": 1}}}},
        ],
    )  # fmt: skip
    def test_nonsense_under_our_key_does_no_harm(self, tmp_path: Path, carried: Any) -> None:
        state = {"state_dict": {}, "meta": {"tin_video": carried}}
        for target in TARGETS:
            written = envelope(target, {}, read_beside(state, "mmaction2"))
            if target == "safetensors":
                assert all(isinstance(text, str) for text in written["metadata"].values())
            assert json.dumps(written)

    def test_texts_of_a_safetensors_file_stay(self, tmp_path: Path) -> None:
        state = tiny("tin")
        save_file(state, tmp_path / "in.safetensors", metadata={"format": "pt", "author": "somebody"})
        convert_checkpoint(tmp_path / "in.safetensors", tmp_path / "x.pth", "tin-original")
        convert_checkpoint(tmp_path / "x.pth", tmp_path / "out.safetensors", "safetensors")
        with safe_open(tmp_path / "out.safetensors", framework="pt") as file:
            assert file.metadata() == {"format": "pt", "author": "somebody"}

    def test_a_safetensors_file_remembers_that_it_is_a_tsm(self, tmp_path: Path) -> None:
        save_file(tiny("tsm"), tmp_path / "in.safetensors", metadata={"format": "pt", "author": "somebody"})
        convert_checkpoint(tmp_path / "in.safetensors", tmp_path / "out.safetensors", "safetensors", kind="tsm")
        assert convert_checkpoint(tmp_path / "out.safetensors", tmp_path / "x.pth", "mmaction2").arch == "tsm_resnet18"

    def test_what_torchvisions_form_has_no_place_for_is_said(self, tmp_path: Path) -> None:
        save_checkpoint(tmp_path / "best.pt", tiny_run("tsn_resnet18"))
        done = convert_checkpoint(tmp_path / "best.pt", tmp_path / "out.pth", "torchvision")
        assert {"recipe", "label_names"} < set(done.left_out)
        assert done.beside == []
        assert all(isinstance(value, Tensor) for value in load_state(tmp_path / "out.pth").values())

    def test_what_stands_beside_bare_weights_and_is_no_weight_is_said(self, tmp_path: Path) -> None:
        torch.save(tiny("tin") | {"note": "x"}, tmp_path / "in.pth")
        convert_checkpoint(tmp_path / "in.pth", tmp_path / "out.pth", "mmaction2")
        convert_checkpoint(tmp_path / "out.pth", tmp_path / "back.pth", "tin")
        assert load_state(tmp_path / "back.pth")["origin"]["others"] == {"note": "x"}


@pytest.fixture
def mmengine(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A class of MMEngine's name, as its files hold objects of."""
    module = types.ModuleType("mmengine.logging.history_buffer")
    buffer = type("HistoryBuffer", (), {"__module__": module.__name__})
    module.HistoryBuffer = buffer  # type: ignore[attr-defined]
    for name in ("mmengine", "mmengine.logging", module.__name__):
        monkeypatch.setitem(sys.modules, name, module)
    return buffer


class TestAverages:
    @pytest.mark.parametrize(("weights", "value"), [("auto", 5.0), ("ema", 5.0), ("raw", 1.0)])
    def test_one_of_the_two_sets_is_converted(self, tmp_path: Path, weights: Any, value: float) -> None:
        raw, averages = tiny("tin"), tiny("tin", first=5)
        floats = {name: tensor for name, tensor in averages.items() if tensor.is_floating_point()}
        save_checkpoint(tmp_path / "in.pt", {"state_dict": raw, "ema": {"updates": 7, "averages": floats}})
        done = convert_checkpoint(tmp_path / "in.pt", tmp_path / "out.pth", "mmaction2", weights=weights)
        assert weights_of(tmp_path / "out.pth")["backbone.conv1.conv.weight"].unique().tolist() == [value]
        assert done.averaged is (value == 5)
        assert ("averaged (EMA)" in str(done)) is done.averaged
        assert done.left_out == ["ema"]

    def test_averages_that_are_not_there_are_not_made_up(self, tmp_path: Path) -> None:
        save_checkpoint(tmp_path / "in.pt", {"state_dict": tiny("tin")})
        with pytest.raises(TinError, match="holds no averaged"):
            convert_checkpoint(tmp_path / "in.pt", tmp_path / "out.pth", "mmaction2", weights="ema")


class TestRefusals:
    @pytest.fixture
    def source(self, tmp_path: Path) -> Path:
        torch.save(tiny("tin"), tmp_path / "in.pth")
        return tmp_path / "in.pth"

    def test_a_file_is_written_over_only_when_asked(self, source: Path, tmp_path: Path) -> None:
        out = tmp_path / "out.pth"
        out.write_text("mine")
        with pytest.raises(TinError, match=r"out\.pth exists: .*--force"):
            convert_checkpoint(source, out, "mmaction2")
        assert out.read_text() == "mine"
        convert_checkpoint(source, out, "mmaction2", force=True)
        assert len(weights_of(out)) == 186

    def test_the_source_is_never_written_over(self, source: Path, tmp_path: Path) -> None:
        before = source.read_bytes()
        os.link(source, tmp_path / "hard.pth")
        (tmp_path / "soft.pth").symlink_to(source)
        for out in (source, tmp_path / "hard.pth", tmp_path / "soft.pth", tmp_path / "." / "in.pth"):
            with pytest.raises(TinError, match="is the file to convert"):
                convert_checkpoint(source, out, "mmaction2", force=True)
        assert source.read_bytes() == before

    def test_an_ending_of_another_format_is_refused(self, source: Path, tmp_path: Path) -> None:
        with pytest.raises(TinError, match=r"ending of another format.* name it out\.safetensors"):
            convert_checkpoint(source, tmp_path / "out.pth", "safetensors")
        with pytest.raises(TinError, match=r"ending of another format.* name it out\.pth"):
            convert_checkpoint(source, tmp_path / "out.safetensors", "tin")
        with pytest.raises(TinError, match="is a directory"):
            convert_checkpoint(source, tmp_path, "tin")

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"layer2.0.conv2.weight": None}, r"nearest is a ResNet-18, with weights 1 that are not in the file \(layer2\.0\.conv2"),
            ({"layer2.0.tin.gain.conv.bias": None}, r"1 that are not in the file \(layer2\.0\.tin\.gain\.conv\.bias\)"),
            ({"fc.bias": None}, r"1 that are not in the file \(fc\.bias\)"),
            ({"extra.weight": torch.ones(1)}, r"1 it does not have \(extra\.weight\); nothing is converted"),
            ({"module.conv1.weight": torch.ones(1)}, r"holds conv1\.weight twice, as conv1\.weight and as module\.conv1\.weight"),
        ],
    )  # fmt: skip
    def test_weights_that_are_not_understood_are_named(
        self, tmp_path: Path, change: dict[str, Tensor | None], message: str
    ) -> None:
        state = tiny("tin")
        for name, value in change.items():
            if value is None:
                del state[name]
            else:
                state[name] = value
        torch.save(state, tmp_path / "in.pth")
        with pytest.raises(TinError, match=message):
            convert_checkpoint(tmp_path / "in.pth", tmp_path / "out.pth", "mmaction2")
        assert os.listdir(tmp_path) == ["in.pth"]

    def test_another_network_is_refused(self, tmp_path: Path) -> None:
        torch.save(torchvision.models.squeezenet1_0().state_dict(), tmp_path / "in.pth")
        with pytest.raises(TinError, match="is no network that tin-video knows"):
            convert_checkpoint(tmp_path / "in.pth", tmp_path / "out.pth", "tin")

    def test_dropping_is_for_torchvision_alone(self, source: Path, tmp_path: Path) -> None:
        with pytest.raises(TinError, match="--drop-temporal is for --to torchvision; mmaction2 has a place"):
            convert_checkpoint(source, tmp_path / "out.pth", "mmaction2", drop_temporal=True)

    @pytest.mark.slow
    def test_a_full_disk_leaves_the_old_file_and_no_litter(self, source: Path, tmp_path: Path) -> None:
        """A real one: a process that may not write files beyond 10 kB."""
        outs = [named(tmp_path, "out", target) for target in ("mmaction2", "safetensors")]
        for out in outs:
            out.write_text("mine")
        script = """
import resource, signal, sys
from tin.checkpoints.convert import convert_checkpoint
from tin.errors import TinError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (10**4, 10**4))
for out, target in zip(sys.argv[2:], ("mmaction2", "safetensors")):
    try:
        convert_checkpoint(sys.argv[1], out, target, force=True)
    except TinError as error:
        print(error)
"""
        ran = subprocess.run(
            [sys.executable, "-c", script, source, *outs], capture_output=True, text=True, check=True
        )  # fmt: skip
        for out, line in zip(outs, ran.stdout.splitlines(), strict=True):
            assert line.startswith(f"cannot write {out}: ")
            assert out.read_text() == "mine"
        assert sorted(os.listdir(tmp_path)) == ["in.pth", "out.pth", "out.safetensors"]

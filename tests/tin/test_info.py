"""Facts about this installation, about files of weights of every origin, and about networks."""

from __future__ import annotations

import hashlib
import pickle
import platform
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision

import tin
from tests.conftest import REPOSITORY
from tin import recipes
from tin.checkpoints import save_checkpoint
from tin.errors import TinError
from tin.info import describe_checkpoint, describe_environment, describe_network, missing
from tin.info.environment import runs_on
from tin.train.ema import Ema
from tin.train.state import snapshot


class TestNetwork:
    def test_tin_resnet50_has_the_published_numbers(self) -> None:
        found = describe_network("tin_resnet50", 174)
        assert found["parameters"] == 23_895_566
        assert found["multiply_adds"] == 32_700_178_304

    @pytest.mark.parametrize("arch", ["tin_resnet18", "tsm_resnet50", "tsn_resnet101"])
    def test_layers_add_up_and_are_named_as_in_the_network(self, arch: str) -> None:
        found = describe_network(arch, 10, 4, 112)
        for key in ("parameters", "multiply_adds"):
            assert sum(layer[key] for layer in found["layers"]) == found[key]
        names = dict(tin.build_model(arch, 10, 4).named_modules())
        assert all(type(names[layer["name"]]).__name__ == layer["kind"] for layer in found["layers"])

    def test_an_unknown_one_is_refused_with_the_nearest(self) -> None:
        with pytest.raises(TinError, match="did you mean 'tin_resnet50'"):
            describe_network("tni_resnet50", 10)


class TestCheckpoint:
    def test_our_own_tells_the_whole_run(self, tmp_path: Path) -> None:
        settings = ["model.arch=tsm_resnet18", "model.num_classes=3", "train.ema=0.99"]
        recipe = recipes.load("tin_motion", settings)
        model = tin.build_model("tsm_resnet18", 3)
        state = snapshot(
            recipe, model, torch.optim.SGD(model.parameters(), 0.1), torch.amp.GradScaler(enabled=False),
            {"epoch": 4, "global_step": 20, "best": {"top1_acc": 0.5, "epoch": 4.0}}, 8, seed=7, label_names=["a", "b", "c"],
            lists={"train": "train.txt"}, ema=Ema(model, 0.99), world_size=2,
        )  # fmt: skip
        save_checkpoint(tmp_path / "best.pt", state)
        found = describe_checkpoint(tmp_path / "best.pt")
        assert found["kind"] == "training checkpoint of tin-cli"
        assert (found["names"], found["version"], found["optimizer"]) == ("tin-cli", state["version"], True)
        assert found["network"] == {"arch": "tsm_resnet18", "num_classes": 3, "num_segments": None}
        assert found["ema"]["tensors"] == len(state["ema"]["averages"])
        assert found["weights"]["parameters"] == sum(p.numel() for p in model.parameters())
        assert found["sha256"] == hashlib.sha256((tmp_path / "best.pt").read_bytes()).hexdigest()
        for key in (
            "progress",
            "recipe",
            "label_names",
            "lists",
            "seed",
            "world_size",
            "global_batch",
            "versions",
            "git",
        ):
            assert found[key] == state[key]

    def test_torchvision_s_is_known_by_its_names(self, tmp_path: Path) -> None:
        torch.save(torchvision.models.resnet34(num_classes=11).state_dict(), tmp_path / "resnet34.pth")
        found = describe_checkpoint(tmp_path / "resnet34.pth")
        assert (found["kind"], found["names"], found["beside"]) == ("weights", "torchvision", {})
        assert found["network"] == {"arch": "tsm_resnet34 or tsn_resnet34", "num_classes": 11, "num_segments": None}

    @pytest.mark.parametrize(
        ("prefix", "conv1", "head", "names", "arch"),
        [
            ("backbone.", "conv1.conv.net2.", "cls_head.fc_cls.", "MMAction2 TIN", "tin_resnet18"),
            ("backbone.", "conv1.conv.net.", "cls_head.fc_cls.", "MMAction2 TSM", "tsm_resnet18"),
            ("module.base_model.", "conv1.net.", "module.new_fc.", "the TSM repository", "tsm_resnet18"),
        ],
    )
    def test_those_of_others_too_and_what_they_say_beside_their_weights(
        self, tmp_path: Path, prefix: str, conv1: str, head: str, names: str, arch: str
    ) -> None:
        weights: dict[str, torch.Tensor] = {}
        for name, value in torchvision.models.resnet18().state_dict().items():
            if name.startswith("fc."):
                weights[name.replace("fc.", head)] = value[:7].clone()
            elif ".conv1.weight" in name:
                weights[prefix + name.replace("conv1.", conv1)] = value
            else:
                weights[prefix + name] = value
        if "TIN" in names:
            weights[f"{prefix}layer1.0.conv1.conv.net1.offset_net.fc1.weight"] = torch.zeros(16, 16)
        meta = {"epoch": 50, "mmcv_version": "1.1.1", "config": "x" * 5000}
        state = {"meta": meta, "state_dict": weights, "best_prec1": torch.tensor(61.5), "optimizer": {"lr": 0.1}}
        torch.save(state, tmp_path / "theirs.pth", _use_new_zipfile_serialization=False)
        found = describe_checkpoint(tmp_path / "theirs.pth")
        assert found["names"] == names
        segments = 16 if "TIN" in names else None
        assert found["network"] == {"arch": arch, "num_classes": 7, "num_segments": segments}
        assert found["beside"] == {"meta.epoch": 50, "meta.mmcv_version": "1.1.1", "best_prec1": 61.5}

    def test_no_object_of_a_file_is_ever_made(self, tmp_path: Path) -> None:
        touched = tmp_path / "touched"

        class Evil:
            def __reduce__(self) -> Any:
                return (Path.touch, (touched,))

        torch.save({"state_dict": {"fc.weight": torch.zeros(2, 2)}, "evil": Evil()}, tmp_path / "evil.pth")
        (tmp_path / "plain.pkl").write_bytes(pickle.dumps(Evil(), protocol=2))
        for name in ("evil.pth", "plain.pkl"):
            found = describe_checkpoint(tmp_path / name)
            assert set(found) == {"path", "bytes", "sha256", "unreadable"}
        assert not touched.exists()

    def test_what_is_none_is_told_why(self, tmp_path: Path) -> None:
        (tmp_path / "empty.pt").write_bytes(b"")
        assert "is empty" in describe_checkpoint(tmp_path / "empty.pt")["unreadable"]
        torch.save({"epoch": 3}, tmp_path / "epoch.pt")
        assert "holds no weights; its keys are epoch" in describe_checkpoint(tmp_path / "epoch.pt")["unreadable"]
        with pytest.raises(TinError, match="there is no checkpoint"):
            describe_checkpoint(tmp_path / "gone.pt")


class TestEnvironment:
    def test_versions_and_the_op_are_those_of_this_process(self) -> None:
        found = describe_environment()
        assert found["versions"]["torch"] == torch.__version__
        assert found["versions"]["python"] == platform.python_version()
        assert found["op"]["cpu"] == tin.ops.backend().cpu
        assert len(found["gpus"]) == torch.cuda.device_count()

    def test_what_is_missing_says_what_follows_and_how_to_get_it(self) -> None:
        found = describe_environment() | {"gpus": [], "apex": "not installed"}
        found["op"] |= {"cpu": "reference", "cpu_reason": "no libtin_cpu.so"}
        things = {thing.what: thing for thing in missing(found)}
        assert "g++" in things["the CPU kernels (no libtin_cpu.so)"].remedy
        assert "github.com/NVIDIA/apex" in things["NVIDIA apex (not installed)"].remedy
        assert missing(found | {"apex": None}) == [t for t in missing(found) if "apex" not in t.what]

    @pytest.mark.skipif(torch.version.cuda is None, reason="this PyTorch was built without CUDA")
    def test_a_gpu_that_the_kernels_were_not_built_for_is_missing_them(self) -> None:
        gpu = {"name": "Old", "capability": "7.5"}
        found = describe_environment() | {"gpus": [gpu]}
        found["op"] |= {"cuda": "native", "libraries": {"libtin_cuda.so": {"architectures": ["8.0", "9.0+PTX"]}}}
        (thing,) = (thing for thing in missing(found) if "compute capability" in thing.what)
        assert thing.what == "CUDA kernels for compute capability 7.5 (Old)"
        assert "TORCH_CUDA_ARCH_LIST=7.5" in thing.remedy
        gpu["capability"] = "9.0"
        assert not [thing for thing in missing(found) if "compute capability" in thing.what]

    @pytest.mark.parametrize(
        ("built", "capability", "runs"),
        [
            (["8.0"], "8.0", True),
            (["8.0"], "8.9", True),
            (["8.6"], "8.0", False),
            (["8.0", "9.0"], "10.0", False),
            (["8.0+PTX"], "12.0", True),
            (["10.0+PTX"], "9.0", False),
            (["9.0a"], "9.0", True),
            (["9.0a+PTX"], "10.0", False),
            (["10.0"], "10.3", True),
        ],
    )
    def test_which_gpus_a_build_runs_on(self, built: list[str], capability: str, runs: bool) -> None:
        assert runs_on(built, capability) is runs

    def test_the_build_wrote_down_what_is_in_the_library(self) -> None:
        library = REPOSITORY / "tin" / "lib" / "libtin_cuda.so"
        if not library.is_file():
            pytest.skip("no compiled kernels here")
        record = describe_environment()["op"]["libraries"]["libtin_cuda.so"]
        assert record["stable_abi"] == "2.11"
        cuobjdump = shutil.which("cuobjdump") or shutil.which("/usr/local/cuda/bin/cuobjdump")
        if cuobjdump is None:
            pytest.skip("no cuobjdump")
        listed = {"--list-elf": "", "--list-ptx": "+PTX"}
        found = set()
        for option, ending in listed.items():
            out = subprocess.run([cuobjdump, option, library], capture_output=True, text=True, check=True).stdout
            for word in out.replace(".", " ").split():
                if word.startswith("sm_"):
                    found.add(f"{word[3:-1]}.{word[-1]}{ending}")
        merged = {name for name in found if f"{name}+PTX" not in found}
        assert set(record["architectures"]) == merged

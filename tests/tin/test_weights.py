"""Starting weights: by the name of published files, fetched once over real HTTPS and checked, or from a file of the user's."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torchvision

import tin
from tests.tin.https_server import Document, HttpsServer
from tin import weights
from tin.errors import TinError
from tin.zoo import published


def publish(
    server: HttpsServer, name: str, state: dict[str, torch.Tensor], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """Have the server give out `state` as the published file `name`; where it will lie."""
    torch.save(state, folder / "new")
    data = (folder / "new").read_bytes()
    digest = hashlib.sha256(data).hexdigest()[:8]
    server.documents[f"{name}-{digest}.pth"] = Document(data)
    entry = replace(published()[name], url=server.url(f"{name}-{digest}.pth"), sha256=digest, mebibytes=None)
    monkeypatch.setitem(published(), name, entry)
    return folder / "torch" / "hub" / "checkpoints" / entry.file


@pytest.fixture
def resnet18(server: HttpsServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = torchvision.models.resnet18().state_dict()
    publish(server, "resnet18_imagenet", state, tmp_path, monkeypatch)
    return state


def test_weights_are_fetched_once_and_loaded(
    tmp_path: Path, server: HttpsServer, resnet18: dict[str, torch.Tensor]
) -> None:
    for arch, name in (("tin_resnet18", "imagenet"), ("tsn_resnet18", "resnet18_imagenet")):
        model = tin.build_model(arch, 5)
        report = weights.load_pretrained(model, name)
        assert report.dropped == ["fc.weight", "fc.bias"]
        assert torch.equal(model.layer4[1].conv2.weight, resnet18["layer4.1.conv2.weight"])
        assert model.fc.weight.abs().max() < 0.01
    assert len(server.requests) == 1
    assert report.path.parent == tmp_path / "torch" / "hub" / "checkpoints"
    assert weights.imagenet("tsm_resnet18") == report.path


def test_a_damaged_file_is_refused_before_it_is_used(resnet18: dict[str, torch.Tensor]) -> None:
    path = weights.imagenet("tin_resnet18")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(TinError, match=r"resnet18_imagenet-.*is damaged: .* delete it"):
        weights.imagenet("tin_resnet18")


@pytest.mark.parametrize("how", ["unreachable", "forbidden"])
def test_without_a_network_the_file_its_source_and_its_place_are_named(
    tmp_path: Path, server: HttpsServer, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    url = "https://localhost:1/resnet18-f37072fd.pth"
    monkeypatch.setitem(published(), "resnet18_imagenet", replace(published()["resnet18_imagenet"], url=url))
    if how == "forbidden":
        monkeypatch.setenv("TIN_OFFLINE", "1")
    with pytest.raises(TinError) as caught:
        weights.load_pretrained(tin.build_model("tin_resnet18", 5), "imagenet")
    message = str(caught.value)
    assert ("TIN_OFFLINE=1 forbids fetching" if how == "forbidden" else "Connection refused") in message
    assert "resnet18-f37072fd.pth" in message
    assert f"download {url}" in message
    assert str(tmp_path / "torch" / "hub" / "checkpoints" / "resnet18-f37072fd.pth") in message
    assert "\n" not in message


def test_a_path_is_a_source_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save(torchvision.models.resnet18().state_dict(), tmp_path / "tsm_r50_k400")
    model = tin.build_model("tsm_resnet18", 1000)
    assert weights.load_pretrained(model, tmp_path / "tsm_r50_k400").complete
    monkeypatch.chdir(tmp_path)
    assert weights.load_pretrained(model, "./tsm_r50_k400").complete
    (tmp_path / "tsm_r50_k400").rename("mine.pth")
    assert weights.load_pretrained(model, "mine.pth").complete


@pytest.mark.parametrize(("wrong", "right"), [("imagnet", "imagenet"), ("tin_r50_k40", "tin_r50_k400"), ("TSM", "tsm")])
def test_a_name_close_to_a_wrong_one_is_suggested(wrong: str, right: str) -> None:
    with pytest.raises(TinError, match=rf"there is no checkpoint {wrong}, .* did you mean '{right}'\?"):
        weights.load_pretrained(tin.build_model("tsm_resnet18", 5), wrong)


def test_what_is_neither_a_name_nor_a_file_is_said_so(tmp_path: Path) -> None:
    for source in ("somewhere/imagenet", "x.pth"):
        with pytest.raises(TinError, match=f"there is no checkpoint {source}: check the path"):
            weights.load_pretrained(tin.build_model("tsm_resnet18", 5), source)


def test_an_unknown_architecture_is_refused() -> None:
    with pytest.raises(TinError, match="unknown architecture 'resnet50': did you mean"):
        weights.imagenet("resnet50")


def test_tsm_weights_start_a_tin_of_the_same_depth_alone(
    tmp_path: Path, server: HttpsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = publish(
        server, "tsm_r50_k400", tin.build_model("tsm_resnet50", 400).state_dict(), tmp_path, monkeypatch
    )  # fmt: skip
    report = weights.load_pretrained(tin.build_model("tin_resnet50", 400), "tsm")
    assert len(report.loaded) == 320
    assert len(report.new) == 128
    assert all(".tin." in name for name in report.new)
    assert weights.tsm("tsn_resnet50") == path
    for name in ("tsm", "tin_r50_sthv1"):
        with pytest.raises(TinError, match="the published weights are of ResNet-50, not tin_resnet18"):
            weights.load_pretrained(tin.build_model("tin_resnet18", 400), name)
    assert len(server.requests) == 1

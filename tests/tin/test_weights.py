"""ImageNet weights: fetched once over real HTTP, checked, and asked for by name where there is no network."""

from __future__ import annotations

import functools
import hashlib
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision

import tin
from tin import weights
from tin.errors import TinError
from tin.models import ARCHITECTURES


class Served:
    """A folder behind a real HTTP server that remembers what was asked of it."""

    def __init__(self, folder: Path) -> None:
        self.requests: list[str] = []
        requests = self.requests

        class Handler(SimpleHTTPRequestHandler):
            def log_request(self, *args: Any) -> None:
                requests.append(self.path)

            def log_error(self, *args: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=str(folder)))
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def url(self, name: str) -> str:
        return f"http://127.0.0.1:{self.server.server_port}/{name}"


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    (tmp_path / "served").mkdir()
    served = Served(tmp_path / "served")
    yield served
    served.server.shutdown()
    served.server.server_close()


def publish(served: Served, folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, torch.Tensor]:
    """Put a ResNet-18's weights on the server under a name that ends in their hash."""
    state: dict[str, torch.Tensor] = torchvision.models.resnet18().state_dict()
    torch.save(state, folder / "new")
    digest = hashlib.sha256((folder / "new").read_bytes()).hexdigest()
    name = f"resnet18-{digest[:8]}.pth"
    (folder / "new").rename(folder / name)
    monkeypatch.setitem(weights.IMAGENET_URLS, "resnet18", served.url(name))
    return state


def test_every_architecture_has_weights_with_a_checkable_name() -> None:
    for arch in ARCHITECTURES:
        name = weights.IMAGENET_URLS[arch.partition("_")[2]].rpartition("/")[2]
        int(name.removesuffix(".pth").rpartition("-")[2], 16)
    assert weights.IMAGENET_URLS["resnet50"].endswith("resnet50-0676ba61.pth")


def test_weights_are_fetched_once_and_loaded(tmp_path: Path, served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    state = publish(served, tmp_path / "served", monkeypatch)
    for arch in ("tin_resnet18", "tsn_resnet18"):
        model = tin.build_model(arch, 5)
        report = weights.load_pretrained(model, "imagenet")
        assert report.dropped == ["fc.weight", "fc.bias"]
        assert torch.equal(model.layer4[1].conv2.weight, state["layer4.1.conv2.weight"])
        assert model.fc.weight.abs().max() < 0.01
    assert len(served.requests) == 1
    assert report.path.parent == tmp_path / "torch" / "hub" / "checkpoints"


def test_a_damaged_file_is_refused_before_it_is_used(
    tmp_path: Path, served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(served, tmp_path / "served", monkeypatch)
    path = weights.imagenet("tin_resnet18")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(TinError, match=r"resnet18-.*is damaged: .* delete it"):
        weights.imagenet("tin_resnet18")


def test_a_download_that_is_not_the_file_leaves_nothing(
    tmp_path: Path, served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "served" / "resnet18-00000000.pth").write_bytes(b"sign in to this hotel's network")
    monkeypatch.setitem(weights.IMAGENET_URLS, "resnet18", served.url("resnet18-00000000.pth"))
    with pytest.raises(TinError, match=r"cannot fetch .*resnet18-00000000\.pth.*hash"):
        weights.imagenet("tin_resnet18")
    assert list((tmp_path / "torch" / "hub" / "checkpoints").iterdir()) == []


def test_without_a_network_the_file_its_source_and_its_place_are_named(
    tmp_path: Path, served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    served.server.shutdown()
    served.server.server_close()
    url = served.url("resnet18-f37072fd.pth")
    monkeypatch.setitem(weights.IMAGENET_URLS, "resnet18", url)
    with pytest.raises(TinError) as caught:
        weights.load_pretrained(tin.build_model("tin_resnet18", 5), "imagenet")
    message = str(caught.value)
    assert "resnet18-f37072fd.pth" in message
    assert f"download {url}" in message
    assert str(tmp_path / "torch" / "hub" / "checkpoints" / "resnet18-f37072fd.pth") in message
    assert "--pretrained" in message
    assert "\n" not in message


def test_a_path_is_a_source_too(tmp_path: Path) -> None:
    torch.save(torchvision.models.resnet18().state_dict(), tmp_path / "mine.pth")
    report = weights.load_pretrained(tin.build_model("tsm_resnet18", 1000), tmp_path / "mine.pth")
    assert report.complete
    with pytest.raises(TinError, match="there is no checkpoint"):
        weights.load_pretrained(tin.build_model("tsm_resnet18", 5), "imagnet")


def test_an_unknown_architecture_is_refused() -> None:
    with pytest.raises(TinError, match="unknown architecture 'resnet50': did you mean"):
        weights.imagenet("resnet50")


def test_tsm_weights_start_a_tin_of_the_same_depth_alone(
    tmp_path: Path, served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    tsm = tin.build_model("tsm_resnet50", 400).state_dict()
    torch.save(tsm, tmp_path / "served" / "new")
    digest = hashlib.sha256((tmp_path / "served" / "new").read_bytes()).hexdigest()
    (tmp_path / "served" / "new").rename(tmp_path / "served" / f"tsm-{digest[:8]}.pth")
    monkeypatch.setattr(weights, "TSM_K400_URL", served.url(f"tsm-{digest[:8]}.pth"))
    report = weights.load_pretrained(tin.build_model("tin_resnet50", 400), "tsm")
    assert len(report.loaded) == 320
    assert len(report.new) == 128
    assert all(".tin." in name for name in report.new)
    with pytest.raises(TinError, match="the published weights are of ResNet-50, not tin_resnet18"):
        weights.load_pretrained(tin.build_model("tin_resnet18", 400), "tsm")

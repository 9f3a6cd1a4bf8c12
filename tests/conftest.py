"""Where the tests find real videos and golden numbers, and the order they run in."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.tin.https_server import HttpsServer

REPOSITORY = Path(__file__).resolve().parent.parent


def _outside(variable: str, name: str) -> Path:
    """A folder of test material that is not part of the repository: `$variable`, else `../shared/name`."""
    folder = Path(os.environ.get(variable, REPOSITORY.parent / "shared" / name))
    if not folder.is_dir():
        pytest.skip(f"no test material at {folder}; set {variable} to a folder that holds it")
    return folder


@pytest.fixture(scope="session", autouse=True)
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What killed processes, compilers and browsers leave among temporary files is removed with the tests'."""
    folder = tmp_path_factory.mktemp("scratch")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", str(folder))
        patch.setattr(tempfile, "tempdir", None)
        yield
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def real_videos() -> Path:
    """Folder with `codecs/`, `codecs.tsv` and `fights/` (see docs/contributing.md)."""
    return _outside("TIN_TEST_VIDEOS", "videos")


@pytest.fixture(scope="session")
def golden() -> Path:
    """Folder with the golden numbers of the public implementations."""
    return _outside("TIN_TEST_GOLDEN", "golden")


@pytest.fixture(scope="session")
def https(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HttpsServer]:
    from tests.tin.https_server import HttpsServer

    server = HttpsServer(tmp_path_factory.mktemp("https"))
    yield server
    server.close()


@pytest.fixture
def server(https: HttpsServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> HttpsServer:
    """A real HTTPS server that downloads trust and that has nothing yet; what they fetch goes to `tmp_path / "torch"`."""
    monkeypatch.setenv("SSL_CERT_FILE", str(https.certificates))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.delenv("TIN_OFFLINE", raising=False)
    https.documents.clear()
    https.requests.clear()
    return https


def pytest_configure() -> None:
    """As in a terminal: a script's background jobs ignore Ctrl-C, what runs under nohup a hang-up, and processes inherit that."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Fast tests first; long proofs only when asked for with `-m prove`; GPU tests only where there is a GPU."""
    if "prove" not in (config.getoption("-m") or ""):
        proofs = [item for item in items if item.get_closest_marker("prove")]
        if proofs:
            config.hook.pytest_deselected(items=proofs)
            items[:] = [item for item in items if item not in proofs]
    if any(item.get_closest_marker("gpu") for item in items):
        import torch

        if not torch.cuda.is_available():
            for item in items:
                if item.get_closest_marker("gpu"):
                    item.add_marker(pytest.mark.skip(reason="no CUDA GPU on this machine"))
    items.sort(key=lambda item: item.get_closest_marker("slow") is not None)

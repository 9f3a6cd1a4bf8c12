"""What `tin-cli info` says of a GPU: its NVDEC, asked of the driver, and kernels that run on it."""

from __future__ import annotations

import pytest
import torch

from pipelines.nvdec_caps import NvdecUnknown, nvdec_caps
from tin.info import describe_environment, missing
from tin.ops import backend

pytestmark = pytest.mark.gpu


def test_the_driver_tells_what_nvdec_takes() -> None:
    try:
        found = nvdec_caps(0)
    except NvdecUnknown as error:
        pytest.skip(str(error))
    (h264,) = (caps for caps in found if caps.codec == "h264" and caps.bits == 8)
    assert 1 <= h264.engines <= 16
    assert h264.smallest[0] <= 64 <= 4096 <= h264.largest[0]
    assert "hevc" in {caps.codec for caps in found}


def test_the_gpu_is_described_and_its_kernels_are_not_missing() -> None:
    found = describe_environment()
    major, minor = torch.cuda.get_device_capability(0)
    assert found["gpus"][0]["capability"] == f"{major}.{minor}"
    assert found["machine"]["gpu"]["name"] == found["gpus"][0]["name"]
    if backend().cuda == "native":
        assert not [thing for thing in missing(found) if "compute capability" in thing.what]

"""Which videos go to NVDEC, the GPU's video decoder: by what NVIDIA says each GPU takes, and by what it refused at run time."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from pipelines.probe import VideoInfo

logger = logging.getLogger("pipelines")

_EIGHT_BIT = frozenset(("yuv420p", "yuvj420p"))
_TEN_BIT = frozenset(("yuv420p10le", "p010le"))
_BLACKWELL = (10, 0)
_TURNED_AWAY = 2  # files of a kind that NVDEC never took, until the kind is taken to be none of its own


@dataclass(frozen=True, slots=True)
class _Codec:
    smallest: int
    largest: int
    formats: frozenset[str]


class Nvdec:
    """What NVDEC of one GPU takes.

    The facts are those of the table "NVDEC Hardware Capabilities" in the NVDEC Application Note of NVIDIA's Video Codec SDK
    13.0, and the smallest sizes that its driver reports: H.264 up to 4096 × 4096 and 8 bits (from Blackwell on 8192 and 10
    bits); HEVC and VP9 up to 8192, 8 and 10 bits; VP8 up to 4096; AV1 on the Ampere of GA10x, on Ada and on Blackwell, but
    on no Turing, GA100 (A100) or Hopper. 4:2:0 alone is asked for, which all of DALI's colour conversion is for. MPEG-4, which
    NVDEC takes too, stays with the CPU: what indices its packed frames have through DALI is not known.

    A table can be wrong about a GPU. So a file that NVDEC refuses, and that PyAV decodes, goes to the CPU from then on; and
    when two files of a kind (codec and pixel format) were refused and none was ever taken, the kind does.

    Args:
        capability: compute capability of the GPU, as `torch.cuda.get_device_capability` gives it.
    """

    def __init__(self, capability: tuple[int, int]) -> None:
        self._capability = capability
        self._codecs = _codecs(capability)
        self._files: set[int] = set()
        self._kinds: set[tuple[str, str]] = set()
        self._taken: set[tuple[str, str]] = set()
        self._refused: Counter[tuple[str, str]] = Counter()

    def objection(self, id: int, info: VideoInfo) -> str | None:
        """Why the video at position `id` of the list is decoded on the CPU; None when NVDEC does it."""
        codec = self._codecs.get(info.codec)
        if codec is None:
            return info.codec
        if info.pixel_format not in codec.formats:
            return f"{info.codec} in {info.pixel_format}"
        if min(info.width, info.height) < codec.smallest:
            return f"{info.codec} with a side below {codec.smallest} pixels"
        if max(info.width, info.height) > codec.largest:
            return f"{info.codec} with a side above {codec.largest} pixels"
        if not info.exact:
            return "edit lists, several video streams or missing times"
        if id in self._files or _kind(info) in self._kinds:
            return "refused before"
        return None

    def took(self, info: VideoInfo) -> None:
        """NVDEC has decoded a video like this one."""
        self._taken.add(_kind(info))

    def refused(self, id: int, name: str, info: VideoInfo, reason: str) -> None:
        """NVDEC would not decode a file that the CPU decodes well. Each file, and each kind, is told once."""
        kind = _kind(info)
        if id in self._files or kind in self._kinds:
            return
        self._files.add(id)
        self._refused[kind] += 1
        if kind not in self._taken and self._refused[kind] >= _TURNED_AWAY:
            self._kinds.add(kind)
            logger.warning("NVDEC refuses %s in %s: all such videos are decoded on the CPU (%s)", *kind, reason)
        else:
            logger.warning("NVDEC refuses %s, which the CPU decodes from now on (%s)", name, reason)

    def tell(self, names: Sequence[str], infos: Sequence[VideoInfo]) -> None:
        """Say, in one line, which readable videos of a list are decoded on the CPU and why; nothing when none is."""
        reasons: dict[str, list[str]] = {}
        for id, (name, info) in enumerate(zip(names, infos, strict=True)):
            if info.error is None and info.template is None and (reason := self.objection(id, info)):
                reasons.setdefault(reason, []).append(name)
        if reasons:
            logger.warning(
                "%d of %d videos are decoded on the CPU, because NVDEC of this GPU (compute capability %d.%d) does not take: %s",
                sum(map(len, reasons.values())),
                len(infos),
                *self._capability,
                "; ".join(f"{reason} ({len(them)}, the first {them[0]})" for reason, them in reasons.items()),
            )


class Router:
    """Which source of `pipelines.graphs.SOURCES` decodes which video. `nvdec` None: no GPU decodes."""

    def __init__(self, nvdec: Nvdec | None) -> None:
        self.nvdec = nvdec

    @classmethod
    def of(cls, device: torch.device) -> Router:
        """The router for a device."""
        return cls(Nvdec(torch.cuda.get_device_capability(device)) if device.type == "cuda" else None)

    def source(self, id: int, info: VideoInfo) -> str:
        """`images` for frame folders; `video` for what NVDEC takes; `decoded` for what our processes decode."""
        if info.template is not None:
            return "images"
        return "video" if self.nvdec is not None and self.nvdec.objection(id, info) is None else "decoded"


def _codecs(capability: tuple[int, int]) -> dict[str, _Codec]:
    blackwell = capability >= _BLACKWELL
    deep = _EIGHT_BIT | _TEN_BIT
    codecs = {
        "h264": _Codec(48, 8192, deep) if blackwell else _Codec(48, 4096, _EIGHT_BIT),
        "hevc": _Codec(144, 8192, deep),
        "vp8": _Codec(48, 4096, _EIGHT_BIT),
        "vp9": _Codec(128, 8192, deep),
    }
    if blackwell or (8, 6) <= capability <= (8, 9):  # 8.0 is GA100, 9.0 Hopper
        codecs["av1"] = _Codec(128, 8192, deep)
    return codecs


def _kind(info: VideoInfo) -> tuple[str, str]:
    return info.codec, info.pixel_format

"""What the NVDEC engines of a GPU take, as its driver says."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass

import torch

_LIBRARY = "libnvcuvid.so.1"
_420 = 1  # cudaVideoChromaFormat
_CODECS = {
    "mpeg1": 0,
    "mpeg2": 1,
    "mpeg4": 2,
    "vc1": 3,
    "h264": 4,
    "mjpeg": 5,
    "hevc": 8,
    "vp8": 9,
    "vp9": 10,
    "av1": 11,
}
"""FFmpeg's names, and cudaVideoCodec's numbers."""
_BITS = (8, 10, 12)


@dataclass(frozen=True, slots=True)
class CodecCaps:
    """One codec in 4:2:0, at one depth."""

    codec: str
    bits: int
    engines: int
    """NVDEC engines that take it."""
    smallest: tuple[int, int]
    """Width and height, pixels."""
    largest: tuple[int, int]


class NvdecUnknown(Exception):
    """The driver cannot be asked; the message says why."""


def nvdec_caps(device: int) -> list[CodecCaps]:
    """Ask NVIDIA's driver (`cuvidGetDecoderCaps` of the Video Codec SDK) about the decoder of a GPU.

    Args:
        device: number of the GPU.

    Returns:
        What is supported, codec by codec; empty where the GPU has no NVDEC.

    Raises:
        NvdecUnknown: there is no driver for video here, or it refuses.
    """
    try:
        ask = ctypes.CDLL(_LIBRARY).cuvidGetDecoderCaps
    except (OSError, AttributeError) as error:
        raise NvdecUnknown(
            f"{_LIBRARY} of the NVIDIA driver does not load ({error}); in a container, set NVIDIA_DRIVER_CAPABILITIES=compute,utility,video"
        ) from None
    found = []
    with torch.cuda.device(device):
        torch.zeros(1, device=f"cuda:{device}")  # makes the CUDA context that the question is about
        for codec, number in _CODECS.items():
            for bits in _BITS:
                caps = _Caps(codec=number, chroma=_420, depth=bits - 8)
                status = ask(ctypes.byref(caps))
                if status:
                    raise NvdecUnknown(f"cuvidGetDecoderCaps answers with CUDA error {status}")
                if caps.supported:
                    smallest, largest = (caps.min_width, caps.min_height), (caps.max_width, caps.max_height)
                    found.append(CodecCaps(codec, bits, caps.engines, smallest, largest))
    return found


class _Caps(ctypes.Structure):
    """CUVIDDECODECAPS of cuviddec.h."""

    _fields_ = (
        ("codec", ctypes.c_int),
        ("chroma", ctypes.c_int),
        ("depth", ctypes.c_uint),
        ("reserved", ctypes.c_uint * 3),
        ("supported", ctypes.c_ubyte),
        ("engines", ctypes.c_ubyte),
        ("output_formats", ctypes.c_ushort),
        ("max_width", ctypes.c_uint),
        ("max_height", ctypes.c_uint),
        ("max_macroblocks", ctypes.c_uint),
        ("min_width", ctypes.c_ushort),
        ("min_height", ctypes.c_ushort),
        ("histogram", ctypes.c_ubyte * 4),
        ("more", ctypes.c_uint * 32),  # 10 in SDK 13; room for what later drivers may add
    )

"""What copies are made like, the options that make an encoder do it, and which encoder works here."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from fractions import Fraction
from typing import Any

import av
import numpy as np
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame

from pipelines.errors import SettingsError
from pipelines.media import reason_of

LIBX264, NVENC = "libx264", "h264_nvenc"
ENCODERS = (LIBX264, NVENC)
PRESETS = {
    LIBX264: ("ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow"),
    NVENC: ("p1", "p2", "p3", "p4", "p5", "p6", "p7"),
}
_DEFAULT_PRESET = {LIBX264: "veryfast", NVENC: "p4"}


@dataclass(frozen=True, kw_only=True)
class TranscodeSettings:
    """What decides every copy. The measured trade is in docs/data.md.

    Attributes:
        short_side: pixels of the shorter side at most, even; smaller pictures are not enlarged.
        gop: frames from one keyframe to the next. Every group stands alone and there are no B-frames.
        crf: quality, 1 (best) to 51, in FFmpeg's meaning of it; NVENC takes it for its constant quality.
        preset: the encoder's own name for how long it tries; None for libx264's veryfast, NVENC's p4.
        encoder: libx264, or h264_nvenc on an NVIDIA GPU with an encoder. `pick_encoder` chooses.

    Raises:
        SettingsError: a value that cannot be.
    """

    short_side: int = 256
    gop: int = 8
    crf: int = 23
    preset: str | None = None
    encoder: str = LIBX264

    def __post_init__(self) -> None:
        if self.short_side < 16 or self.short_side % 2:
            raise SettingsError(f"short_side {self.short_side}: give an even number of at least 16 pixels")
        if not 1 <= self.gop <= 1000:
            raise SettingsError(f"gop {self.gop}: give 1 to 1000 frames")
        if not 1 <= self.crf <= 51:
            raise SettingsError(f"crf {self.crf}: give 1 (best) to 51 (smallest)")
        if self.encoder not in ENCODERS:
            raise SettingsError(f"encoder {self.encoder!r}: give one of {', '.join(ENCODERS)}")
        if self.preset is None:
            object.__setattr__(self, "preset", _DEFAULT_PRESET[self.encoder])
        if self.preset not in PRESETS[self.encoder]:
            raise SettingsError(
                f"preset {self.preset!r} is none of {self.encoder}'s: give one of {', '.join(PRESETS[self.encoder])}"
            )

    def with_encoder(self, encoder: str) -> TranscodeSettings:
        """The same for another encoder, with its default preset."""
        return replace(self, encoder=encoder, preset=None)

    def as_dict(self) -> dict[str, Any]:
        """Plain values by field."""
        return asdict(self)

    def options(self) -> dict[str, str]:
        """FFmpeg's options for the encoder."""
        options = {"g": str(self.gop), "bf": "0", "preset": str(self.preset)}
        if self.encoder == NVENC:
            # Constant quality has no bit rate; no entropy coder that is slow to decode, as with libx264's fastdecode.
            return options | {
                "rc": "vbr", "cq": str(self.crf), "b": "0", "no-scenecut": "1", "forced-idr": "1", "coder": "cavlc",
            }  # fmt: skip
        # Measured on 300-frame Kinetics files: without CABAC and deblocking (fastdecode) random clips decode 1.8 times as fast
        # for a tenth more bytes; B-frames and keyframes at scene cuts bring nothing in groups of eight. Macroblock-tree rate control
        # would save some 4 % at equal PSNR, but libx264's depends on what its process encoded before: one file in a
        # hundred came out in other bytes.
        return options | {"crf": str(self.crf), "tune": "fastdecode", "sc_threshold": "0", "mbtree": "0"}


def pick_encoder(wanted: str = "auto", settings: TranscodeSettings | None = None) -> tuple[str, str]:
    """The encoder to use and, in a few words, why.

    Args:
        wanted: "auto" takes h264_nvenc where a trial encode works, else libx264; or one of ENCODERS, which is tried.
        settings: of the trial's options.

    Raises:
        SettingsError: `wanted` is unknown or does not work here, with FFmpeg's reason.
    """
    if wanted not in ("auto", *ENCODERS):
        raise SettingsError(f"encoder {wanted!r}: give auto or one of {', '.join(ENCODERS)}")
    settings = settings or TranscodeSettings()
    if wanted != "auto":
        reason = _trial(settings.with_encoder(wanted))
        if reason:
            raise SettingsError(f"encoder {wanted} does not work here ({reason}); use auto or another")
        return wanted, "as asked"
    reason = _trial(settings.with_encoder(NVENC))
    return (LIBX264, f"NVENC does not work here ({reason})") if reason else (NVENC, "NVENC works here")


def _trial(settings: TranscodeSettings) -> str | None:
    """Why a few frames cannot be encoded; None when they can."""
    level = av.logging.get_level()
    av.logging.set_level(av.logging.PANIC)
    try:
        context = av.CodecContext.create(settings.encoder, "w")
        assert isinstance(context, VideoCodecContext)
        context.options = settings.options()
        context.width = context.height = 256
        context.pix_fmt, context.thread_count, context.time_base = "yuv420p", 1, Fraction(1, 25)
        packets = 0
        for number in range(3):
            frame = VideoFrame.from_ndarray(np.full((384, 256), 128, np.uint8), format="yuv420p")
            frame.pts = number
            packets += len(context.encode(frame))
        return None if packets + len(context.encode(None)) == 3 else "it loses frames"
    except (av.FFmpegError, ValueError, av.codec.codec.UnknownCodecError) as error:
        return reason_of(error)
    finally:
        av.logging.set_level(level)

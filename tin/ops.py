"""The temporal-interlace op: one call that shifts channel groups in time by fractional offsets, and its PyTorch reference."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tin import _native

__all__ = ["Backend", "backend", "temporal_interlace", "temporal_interlace_reference"]

_FORWARD = "(Tensor x, Tensor offset, Tensor weight, int num_segments, int? group_size=None) -> Tensor"
_BACKWARD = (
    "(Tensor grad, Tensor x, Tensor offset, Tensor weight, int num_segments, bool need_x, bool need_offset,"
    " bool need_weight, int? group_size=None, Tensor? passed=None) -> (Tensor, Tensor, Tensor)"
)  # csrc/register_cpu.cpp defines the same two schemas


def temporal_interlace(
    x: Tensor, offset: Tensor, weight: Tensor, num_segments: int, group_size: int | None = None
) -> Tensor:
    """Shifts the first G·g channels of every clip in time, group by group, by fractional numbers of frames.

    `out[n,t,c] = weight[n,t,k] · ((1-a)·x[n,t-o,c] + a·x[n,t-o-1,c])` with `k = c // g`, `o = floor(offset[n,k])`,
    `a = offset[n,k] - o`; frames outside 0…T-1 read as zero; channels from G·g on pass through.
    The op of TIN (arXiv 2001.06499, section 3.3) and, with offsets (-1, +1) and weight 1, of TSM.

    Args:
        x: (N·T, C, H, W), float32, float16, bfloat16 or float64. Contiguous and channels_last are both native; any
            other layout is first made contiguous (channels_last where its channel stride is 1).
        offset: (N, G), in frames; positive moves content to later frames. Beyond ±T the group reads zeros;
            a NaN makes its group NaN.
        weight: (N, T, G), scale of the output. One dtype with `offset`: that of x, or float32 when x is half.
        num_segments: T, frames a clip.
        group_size: g, channels a group. None: C // (4·G), that is a quarter of the channels, as both TIN
            (4 groups, shift_div 4) and TSM (2 groups, shift_div 8) have it.

    Returns:
        A new tensor of x's shape, dtype and memory format. Differentiable once in x, offset and weight; at an integer
        offset the derivative is the one from the right, weight·(x[t-o-1] - x[t-o]).

    Raises:
        ValueError: shapes do not fit together. TypeError: dtypes or devices do not.
    """
    group_size = _check(x, offset, weight, num_segments, group_size)
    result: Tensor = torch.ops.tin.temporal_interlace(x, offset, weight, num_segments, group_size)
    return result


def temporal_interlace_reference(
    x: Tensor, offset: Tensor, weight: Tensor, num_segments: int, group_size: int | None = None
) -> Tensor:
    """`temporal_interlace` in plain PyTorch, differentiable by autograd: the oracle of the tests and the fallback.

    Arguments, result and errors are those of `temporal_interlace`. Half types compute in float32.
    """
    g = _check(x, offset, weight, num_segments, group_size)
    taps = _Taps(x.detach(), offset, num_segments, g)
    shape, fold = taps.clip_shape, taps.fold
    compute = taps.dtype
    first, second = taps.gather(x[:, :fold].to(compute).reshape(shape), forward=True)
    a = taps.fraction
    # a tap whose coefficient is exactly zero is not read: Inf and NaN stay where they are
    first = torch.where((a == 1) & ~first.isfinite(), 0, first)
    second = torch.where((a == 0) & ~second.isfinite(), 0, second)
    scale = weight.to(compute)[..., None, None, None]
    moved = (scale * ((1 - a) * first + a * second)).to(x.dtype).reshape(x.shape[0], fold, *x.shape[2:])
    out = torch.cat([moved, x[:, fold:]], dim=1)
    return out.contiguous(memory_format=memory_format(x))


@dataclass(frozen=True)
class Backend:
    """Which implementation runs `torch.ops.tin.temporal_interlace`, per device."""

    cpu: str
    """"native" (csrc/) or "reference" (plain PyTorch: right, but several times slower)."""
    cpu_reason: str | None
    """Why the CPU runs the reference; None when native."""
    cuda: str
    """As `cpu`. "native" says that the kernels are loaded, not that a GPU is present."""
    cuda_reason: str | None
    """Why CUDA runs the reference; None when native."""
    simd: str | None
    """Instruction set of the CPU kernels, chosen at load time: "avx512", "avx2", "generic"; None without them."""


def backend() -> Backend:
    """What the op runs on in this process, and why, for bug reports and result files."""
    return Backend(
        cpu="native" if _NATIVE.cpu_reason is None else "reference",
        cpu_reason=_NATIVE.cpu_reason,
        cuda="native" if _NATIVE.cuda_reason is None else "reference",
        cuda_reason=_NATIVE.cuda_reason,
        simd=_NATIVE.simd,
    )


def has_native(device_type: str) -> bool:
    """Whether csrc/'s kernels run on devices of this type in this process."""
    reasons = {"cpu": _NATIVE.cpu_reason, "cuda": _NATIVE.cuda_reason}
    return device_type in reasons and reasons[device_type] is None


# ---------------------------------------------------------------------------------------------------------------------
# checks


def _check(x: Tensor, offset: Tensor, weight: Tensor, num_segments: int, group_size: int | None) -> int:
    """The group size, once shapes, dtypes and devices are known to fit; csrc/tensors.h refuses the same things."""
    if x.dim() != 4:
        raise ValueError(f"x must have shape (N·T, C, H, W), got {tuple(x.shape)}")
    if num_segments < 1:
        raise ValueError(f"num_segments must be at least 1, got {num_segments}")
    frames, channels = x.shape[0], x.shape[1]
    if frames % num_segments != 0:
        raise ValueError(
            f"x must hold whole clips: its {frames} frames are no multiple of num_segments = {num_segments}"
        )
    clips = frames // num_segments
    if offset.dim() != 2 or offset.shape[0] != clips or offset.shape[1] < 1:
        raise ValueError(f"offset must have shape (N, G) = ({clips}, G), G at least 1, got {tuple(offset.shape)}")
    groups = offset.shape[1]
    if weight.dim() != 3 or tuple(weight.shape) != (clips, num_segments, groups):
        raise ValueError(
            f"weight must have shape (N, T, G) = {(clips, num_segments, groups)}, got {tuple(weight.shape)}"
        )
    if group_size is None:
        group_size = channels // (4 * groups)
        if group_size < 1:
            raise ValueError(
                f"x has {channels} channels: a quarter of them makes no {groups} groups; pass group_size to choose"
            )
    if group_size < 1 or groups * group_size > channels:
        raise ValueError(
            f"group_size must be from 1 to C // G = {channels // groups} ({groups} groups, {channels} channels),"
            f" got {group_size}"
        )
    if x.dtype not in (torch.float32, torch.float16, torch.bfloat16, torch.float64):
        raise TypeError(f"x must be float32, float16, bfloat16 or float64, got {x.dtype}")
    if offset.dtype != weight.dtype:
        raise TypeError(f"offset and weight must have one dtype, got {offset.dtype} and {weight.dtype}")
    if offset.dtype != x.dtype and offset.dtype != torch.promote_types(x.dtype, torch.float32):
        wanted = " or ".join(dict.fromkeys([str(x.dtype), str(torch.promote_types(x.dtype, torch.float32))]))
        raise TypeError(f"offset and weight must be {wanted} for x of {x.dtype}, got {offset.dtype}")
    if x.device != offset.device or x.device != weight.device:
        raise TypeError(
            f"x, offset and weight must be on one device, got {x.device}, {offset.device} and {weight.device}"
        )
    return group_size


def memory_format(x: Tensor) -> torch.memory_format:
    """channels_last where x is, or nearly is; csrc/tensors.h decides by the same rule."""
    if x.is_contiguous():
        return torch.contiguous_format
    if x.is_contiguous(memory_format=torch.channels_last) or x.stride(1) == 1:
        return torch.channels_last
    return torch.contiguous_format


def _dense(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=memory_format(x))


# ---------------------------------------------------------------------------------------------------------------------
# the reference


class _Taps:
    """Which two frames every output frame reads, for clips viewed as (N, T, G, g, H, W)."""

    def __init__(self, x: Tensor, offset: Tensor, num_segments: int, group_size: int) -> None:
        groups = offset.shape[1]
        self.dtype = torch.promote_types(x.dtype, torch.float32)
        self.fold = groups * group_size
        self.clip_shape = (offset.shape[0], num_segments, groups, group_size, *x.shape[2:])
        limit = num_segments + 1.0  # every tap of an offset this large is outside
        offset = offset.to(self.dtype)
        offset = torch.where(offset.abs() > limit, offset.detach().clamp(-limit, limit), offset)
        whole = offset.detach().floor()
        self.fraction = (offset - whole)[:, None, :, None, None, None]
        self.whole = whole.nan_to_num(nan=0.0).to(torch.int64)

    def gather(self, clips: Tensor, forward: bool) -> tuple[Tensor, Tensor]:
        """Frames t-o and t-o-1 (forward), or t+o and t+o+1 (the transposed map), of every frame t and group."""
        n, t, k = (torch.arange(size, device=clips.device) for size in self.clip_shape[:3])
        whole = self.whole[:, None, :]
        near = t[None, :, None] - whole if forward else t[None, :, None] + whole
        far = near - 1 if forward else near + 1
        last = self.clip_shape[1] - 1
        found = []
        for frame in (near, far):
            picked = clips[n[:, None, None], frame.clamp(0, last), k[None, None, :]]
            outside = ((frame < 0) | (frame > last))[..., None, None, None]
            found.append(torch.where(outside, 0, picked))
        return found[0], found[1]


def _reference_backward(
    grad: Tensor,
    x: Tensor,
    offset: Tensor,
    weight: Tensor,
    num_segments: int,
    need_x: bool,
    need_offset: bool,
    need_weight: bool,
    group_size: int | None = None,
    passed: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """The three gradients by explicit formulas; an empty tensor stands for one that is not needed.

    `x` may be its first G·g channels alone, all that is read of it. `passed`, a gradient that x has from elsewhere, is added.
    """
    g = _check(grad, offset, weight, num_segments, group_size)
    taps = _Taps(grad, offset, num_segments, g)
    shape, fold, a = taps.clip_shape, taps.fold, taps.fraction
    flow = grad[:, :fold].to(taps.dtype).reshape(shape)
    scale = weight.to(taps.dtype)
    grad_x, grad_offset, grad_weight = grad.new_empty(0), offset.new_empty(0), weight.new_empty(0)
    if need_x:
        near, far = taps.gather(flow * scale[..., None, None, None], forward=False)
        moved = torch.where(a == 1, 0, (1 - a) * near) + torch.where(a == 0, 0, a * far)
        moved = moved.reshape(x.shape[0], fold, *x.shape[2:])
        if passed is not None:
            moved = moved + passed[:, :fold]
        rest = grad[:, fold:] if passed is None else grad[:, fold:] + passed[:, fold:]
        layout = memory_format(x if x.shape == grad.shape else grad)
        grad_x = torch.cat([moved.to(x.dtype), rest], dim=1).contiguous(memory_format=layout)
    if need_offset or need_weight:
        near, far = taps.gather(x[:, :fold].to(taps.dtype).reshape(shape), forward=True)
        near, far = (flow * near).sum((3, 4, 5)), (flow * far).sum((3, 4, 5))
        a = a[..., 0, 0, 0]
        if need_offset:
            grad_offset = (scale * (far - near)).sum(1).to(offset.dtype)
        if need_weight:
            grad_weight = torch.where(a == 1, 0, (1 - a) * near) + torch.where(a == 0, 0, a * far)
            grad_weight = grad_weight.to(weight.dtype)
    return grad_x, grad_offset, grad_weight


# ---------------------------------------------------------------------------------------------------------------------
# registration with PyTorch


_NATIVE = _native.load()
_LIBRARY = torch.library.Library("tin", "FRAGMENT")
_WARNED: set[str] = set()


def _warn_fallback(device: torch.device) -> None:
    """Says once a device kind that the slow way is taken, why, and what to do about it."""
    if device.type in _WARNED:
        return
    _WARNED.add(device.type)
    reason = {"cpu": _NATIVE.cpu_reason, "cuda": _NATIVE.cuda_reason}.get(device.type) or "there are no kernels for it"
    warnings.warn(
        f"temporal_interlace runs its PyTorch reference on {device.type}, several times slower than the compiled"
        f" kernels: {reason}. Install again with a working compiler; `pip install -v` shows what the build said.",
        RuntimeWarning,
        stacklevel=3,
    )


def _reference_kernel(
    x: Tensor, offset: Tensor, weight: Tensor, num_segments: int, group_size: int | None = None
) -> Tensor:
    _warn_fallback(x.device)
    return temporal_interlace_reference(x, offset, weight, num_segments, group_size)


def _fake(x: Tensor, offset: Tensor, weight: Tensor, num_segments: int, group_size: int | None = None) -> Tensor:
    _check(x, offset, weight, num_segments, group_size)
    return torch.empty_like(_dense(x))


def _fake_backward(
    grad: Tensor,
    x: Tensor,
    offset: Tensor,
    weight: Tensor,
    num_segments: int,
    need_x: bool,
    need_offset: bool,
    need_weight: bool,
    group_size: int | None = None,
    passed: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    _check(grad, offset, weight, num_segments, group_size)
    layout = memory_format(x if x.shape == grad.shape else grad)
    return (
        torch.empty_like(grad, memory_format=layout) if need_x else x.new_empty(0),
        offset.new_empty(offset.shape if need_offset else (0,)),
        weight.new_empty(weight.shape if need_weight else (0,)),
    )


def _save_for_backward(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, offset, weight, ctx.num_segments, ctx.group_size = inputs
    keeps_x = ctx.needs_input_grad[1] or ctx.needs_input_grad[2]  # the input's own gradient reads the map alone
    ctx.save_for_backward(x if keeps_x else None, offset, weight)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    x, offset, weight = ctx.saved_tensors
    needs = ctx.needs_input_grad[:3]
    grads = torch.ops.tin.temporal_interlace_backward(
        grad, grad if x is None else x, offset, weight, ctx.num_segments, *needs, ctx.group_size
    )
    return (*(g if need else None for g, need in zip(grads, needs, strict=True)), None, None)


def _refuse_second_backward(ctx: Any, *grads: Tensor) -> None:
    raise NotImplementedError(
        "temporal_interlace can be differentiated once; use temporal_interlace_reference for second derivatives"
    )


def _autocast(device_type: str) -> Any:
    """x keeps its dtype (low precision inside a network); offset and weight are small and stay in float32."""

    def kernel(x: Tensor, offset: Tensor, weight: Tensor, num_segments: int, group_size: int | None = None) -> Tensor:
        wide = torch.promote_types(x.dtype, torch.float32)
        with torch.autocast(device_type, enabled=False):
            result: Tensor = torch.ops.tin.temporal_interlace(
                x, offset.to(wide), weight.to(wide), num_segments, group_size
            )
        return result

    return kernel


def _register() -> None:
    if _NATIVE.cpu_reason is not None:  # else csrc/register_cpu.cpp has defined both
        _LIBRARY.define(f"temporal_interlace{_FORWARD}")
        _LIBRARY.define(f"temporal_interlace_backward{_BACKWARD}")
    # native CPU and CUDA kernels take precedence over these
    _LIBRARY.impl("temporal_interlace", _reference_kernel, "CompositeExplicitAutograd")
    _LIBRARY.impl("temporal_interlace_backward", _reference_backward, "CompositeExplicitAutograd")
    for device_type, key in (("cpu", "AutocastCPU"), ("cuda", "AutocastCUDA")):
        _LIBRARY.impl("temporal_interlace", _autocast(device_type), key)
    torch.library.register_fake("tin::temporal_interlace", _fake, lib=_LIBRARY)
    torch.library.register_fake("tin::temporal_interlace_backward", _fake_backward, lib=_LIBRARY)
    torch.library.register_autograd(
        "tin::temporal_interlace", _backward, setup_context=_save_for_backward, lib=_LIBRARY
    )
    torch.library.register_autograd("tin::temporal_interlace_backward", _refuse_second_backward, lib=_LIBRARY)


_register()

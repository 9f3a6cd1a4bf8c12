"""Inference at full speed: `prepare` turns a trained network into one fast callable for clips of a few fixed shapes."""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_weights

from tin.errors import TinError
from tin.models.interlace import TemporalInterlace, TemporalShift
from tin.models.resnet import TemporalResNet

DTYPES = (torch.float32, torch.float16, torch.bfloat16)
MAX_GRAPHS = 8
"""CUDA graphs kept, one an input shape; the one unused for longest makes room. An evaluation needs two: the last batch is smaller."""


def prepare(
    model: TemporalResNet, example: Tensor, *, dtype: torch.dtype = torch.float32, compile: bool = False
) -> PreparedModel:
    """Make a fast copy of a network for inference; the network itself is left as it is.

    Batch norms are folded into the convolutions before them (in float64), weights are cast once and laid out
    channels_last. Offsets and gains are still computed in float32, and the logits averaged in it. On a GPU the forward
    of each input shape is captured in a CUDA graph: a call is one copy in, one launch, one small copy out.

    Args:
        model: from `tin.build_model`, in evaluation mode.
        example: (N·T, 3, H, W), floating point. Its device is where the copy runs; its shape is made ready now, others
            when they first come (on a GPU that takes a few forwards, then as much memory as their graph needs).
        dtype: what convolutions and classifier compute in: float32, float16 or bfloat16.
        compile: run the network through `torch.compile` too. The first call of each shape then takes up to minutes.

    Raises:
        TinError: the model is in training mode or not of `build_model`; the dtype is none of the three; the weights do
            not fit in it; the example is not what `PreparedModel` takes; torch.compile does not work on this machine.
    """
    network = folded_copy(model, dtype)
    network = network.to(example.device, memory_format=torch.channels_last)
    prepared = PreparedModel(network, example.device, dtype, compile)
    prepared(example)
    return prepared


class PreparedModel:
    """What `prepare` makes: call it with frames, get logits.

    A call never waits for the device. Use one object from one thread and, on a GPU, from one stream: inputs pass through
    buffers of its own. Another thread or stream needs another `prepare`.

    Attributes:
        num_segments: T, frames a clip.
        device: where frames must be.
        dtype: what it computes in.
    """

    def __init__(self, network: TemporalResNet, device: torch.device, dtype: torch.dtype, compiled: bool) -> None:
        self.num_segments = network.num_segments
        self.device = device
        self.dtype = dtype
        self._compiled = compiled
        self._network: Callable[[Tensor], Tensor] = (
            torch.compile(network, fullgraph=True, dynamic=False) if compiled else network
        )
        self._graphs: OrderedDict[torch.Size, _Graph] = OrderedDict()
        self._pool = torch.cuda.graph_pool_handle() if device.type == "cuda" else None

    def __call__(self, frames: Tensor) -> Tensor:
        """Logits (N, num_classes), float32, of frames (N·T, 3, H, W) of any floating type and memory format.

        The result is the caller's own and has no gradient.

        Raises:
            TinError: frames of another rank or type, on another device, that are no whole clips, or that want a gradient.
        """
        self._check(frames)
        with torch.inference_mode(), self._on_device(), torch.autocast(self.device.type, enabled=False):
            logits = self._replay(frames) if self.device.type == "cuda" else self._forward(frames)
        return logits.clone()  # outside of inference mode: an ordinary tensor, and no buffer of a graph

    def __repr__(self) -> str:
        how = [str(self.dtype).removeprefix("torch."), f"T={self.num_segments}", str(self.device)]
        how += ["torch.compile"] * self._compiled + ["CUDA graph"] * (self.device.type == "cuda")
        return f"PreparedModel({', '.join(how)})"

    def _check(self, frames: Tensor) -> None:
        clips, rest = divmod(frames.shape[0] if frames.dim() else 0, self.num_segments)
        if frames.dim() != 4 or frames.shape[1] != 3 or rest or not clips:
            raise TinError(
                f"frames must be (clips · {self.num_segments}, 3, height, width), at least one clip; got {tuple(frames.shape)}"
            )
        if not frames.is_floating_point():
            raise TinError(f"frames must be normalised and of a floating type; got {frames.dtype}")
        if frames.device != self.device:
            raise TinError(f"frames must be on {self.device}, for which the model was prepared; got {frames.device}")
        if frames.requires_grad:
            raise TinError("a prepared model gives no gradients: detach the frames, or call the model itself")

    def _forward(self, frames: Tensor) -> Tensor:
        frames = frames.to(self.dtype).contiguous(memory_format=torch.channels_last)
        if not self._compiled:
            return self._network(frames)
        try:
            return self._network(frames)
        except torch._dynamo.exc.TorchDynamoException as error:
            raise TinError(
                f"torch.compile does not work here ({_first_line(error)}): prepare with compile=False"
            ) from error

    def _replay(self, frames: Tensor) -> Tensor:
        graph = self._graphs.get(frames.shape)
        if graph is None:
            if len(self._graphs) >= MAX_GRAPHS:
                self._graphs.popitem(last=False)
            graph = self._graphs[frames.shape] = _Graph(self._forward, frames, self.dtype, self._pool)
        self._graphs.move_to_end(frames.shape)
        return graph(frames)

    def _on_device(self) -> AbstractContextManager[object]:
        return torch.cuda.device(self.device) if self.device.type == "cuda" else nullcontext()


# ---------------------------------------------------------------------------------------------------------------------
# the network


def folded_copy(model: TemporalResNet, dtype: torch.dtype = torch.float32) -> TemporalResNet:
    """A copy for inference: batch norms folded into convolutions, these and the classifier in `dtype`, temporal modules in float32.

    Raises:
        TinError: the model is in training mode or not of `build_model`; the dtype is none of DTYPES; the weights do not fit in it.
    """
    if not isinstance(model, TemporalResNet):
        raise TinError(
            f"this takes a model of tin.build_model, got {type(model).__name__}: unwrap it "
            f"(`.module` of DistributedDataParallel, `._orig_mod` of torch.compile)"
        )
    if any(module.training for module in model.modules()):
        raise TinError("the model is in training mode, where batch norms cannot be folded: call model.eval() first")
    if dtype not in DTYPES:
        raise TinError(f"dtype must be one of {', '.join(map(str, DTYPES))}; got {dtype}")
    network = copy.deepcopy(model).requires_grad_(False)
    _fold_batch_norms(network)
    _cast(network, dtype)
    return network


_PAIRS = (("conv1", "bn1"), ("conv2", "bn2"), ("conv3", "bn3"), ("0", "1"))
"""A convolution and its batch norm, as torchvision's ResNet names them; the last: in a block's `downsample`."""


def _fold_batch_norms(network: nn.Module) -> None:
    """Leave the same function without batch norms: each convolution gets its norm's scale, and a bias."""
    for module in list(network.modules()):
        children = dict(module.named_children())
        for conv_name, norm_name in _PAIRS:
            conv, norm = children.get(conv_name), children.get(norm_name)
            if not isinstance(conv, nn.Conv2d) or not isinstance(norm, _BatchNorm):
                continue
            assert norm.running_mean is not None
            assert norm.running_var is not None
            conv.weight, conv.bias = fuse_conv_bn_weights(
                conv.weight.double(), None if conv.bias is None else conv.bias.double(),
                norm.running_mean.double(), norm.running_var.double(), norm.eps, norm.weight.double(), norm.bias.double(),
            )  # fmt: skip
            setattr(module, norm_name, nn.Identity())
    network.requires_grad_(False)


def _cast(network: TemporalResNet, dtype: torch.dtype) -> None:
    """Convolutions and classifier to `dtype`, temporal modules to float32."""
    for name, module in network.named_modules():
        if isinstance(module, TemporalInterlace | TemporalShift):
            module.float()
        elif isinstance(module, nn.Conv2d) or module is network.fc:
            module.to(dtype)
            if not all(bool(parameter.isfinite().all()) for parameter in module.parameters()):
                raise TinError(
                    f"the weights of {name}, its batch norm folded in, are not finite in {dtype}: take bfloat16 or float32"
                )


# ---------------------------------------------------------------------------------------------------------------------
# CUDA graphs


class _Graph:
    """The forward of one input shape, recorded once; graphs of one model share their scratch memory."""

    def __init__(self, forward: Callable[[Tensor], Tensor], example: Tensor, dtype: torch.dtype, pool: Any) -> None:
        self.frames = torch.empty_like(example, dtype=dtype, memory_format=torch.channels_last).copy_(example)
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with _fastest_convolutions():
            with torch.cuda.stream(side):
                for _ in range(
                    3
                ):  # compile, choose convolution algorithms, make workspaces: none may happen in a capture
                    forward(self.frames)
            torch.cuda.current_stream().wait_stream(side)
            self.graph = torch.cuda.CUDAGraph()
            # thread_local: decoding threads may allocate device memory meanwhile
            with torch.cuda.graph(self.graph, pool=pool, stream=side, capture_error_mode="thread_local"):
                self.logits = forward(self.frames)

    def __call__(self, frames: Tensor) -> Tensor:
        self.frames.copy_(frames)
        self.graph.replay()
        return self.logits


@contextmanager
def _fastest_convolutions() -> Iterator[None]:
    """Let cuDNN time its algorithms: in a graph the choice is made once for many calls."""
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = True
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]

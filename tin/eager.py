"""Where a network's passes may be joined: our kernels run, and nobody looks at what lies between them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tin import ops


def is_eager(x: Tensor) -> bool:
    """Whether csrc/'s kernels run on x. A compiler fuses the plain operators itself, and better where it sees them."""
    return not torch.compiler.is_compiling() and ops.has_native(x.device.type)


def on_cpu_in_rows(x: Tensor) -> bool:
    """Whether the CPU kernels for channels_last memory, a row of channels a pixel, run on x."""
    return x.device.type == "cpu" and x.is_contiguous(memory_format=torch.channels_last)


def is_dense(x: Tensor) -> bool:
    """Whether x lies in one of the two layouts that the kernels for joins and norms know."""
    return x.is_contiguous() or x.is_contiguous(memory_format=torch.channels_last)


def watched(*modules: nn.Module) -> bool:
    """Whether somebody waits for one of the modules to be called, and may keep what it takes or makes. A forward pre-hook whose
    attribute `keeps_nothing` is true has read what it wants when the module begins: it does not count."""
    everyone = nn.modules.module
    if (
        everyone._global_forward_hooks
        or everyone._global_forward_pre_hooks
        or everyone._global_backward_hooks
        or everyone._global_backward_pre_hooks
    ):
        return True
    for module in modules:
        if module._forward_hooks or module._backward_hooks or module._backward_pre_hooks:
            return True
        pre_hooks = module._forward_pre_hooks
        if pre_hooks and not all(getattr(hook, "keeps_nothing", False) for hook in pre_hooks.values()):
            return True
    return False

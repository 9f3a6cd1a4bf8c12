"""How large a network is: parameters and multiply-adds, layer by layer."""

from __future__ import annotations

from typing import Any

import torch

from tin.models import build_model
from tin.models.inspect import multiply_adds


def describe_network(arch: str, num_classes: int, num_segments: int = 8, input_size: int = 224) -> dict[str, Any]:
    """Parameters of a network and multiply-adds of one clip, in total and of every layer; nothing is computed.

    Multiply-adds are those of convolutions and linear layers (`tin.models.inspect.multiply_adds`).

    Args:
        arch: as `build_model` takes it.
        num_classes: of the classifier.
        num_segments: T, frames of a clip.
        input_size: side of the frames, pixels.

    Returns:
        `arch`, `num_classes`, `num_segments`, `input_size`, `parameters`, `multiply_adds`, and `layers`: in the order of the network,
        `name`, `kind`, `shape` of the weight, `parameters` and `multiply_adds` (0 where none are counted, as of batch norms).

    Raises:
        TinError: unknown architecture, or an impossible number.
    """
    with torch.device("meta"):
        model = build_model(arch, num_classes, num_segments)
    counts = multiply_adds(model, input_size)
    layers = [
        {
            "name": name,
            "kind": type(module).__name__,
            "shape": list(module.weight.shape) if isinstance(getattr(module, "weight", None), torch.Tensor) else [],
            "parameters": own,
            "multiply_adds": counts.get(name, 0),
        }
        for name, module in model.named_modules()
        if (own := sum(parameter.numel() for parameter in module.parameters(recurse=False)))
    ]
    return {
        "arch": arch,
        "num_classes": num_classes,
        "num_segments": num_segments,
        "input_size": input_size,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "multiply_adds": sum(counts.values()),
        "layers": layers,
    }

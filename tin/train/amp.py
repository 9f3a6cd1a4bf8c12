"""Mixed precision by the recipe's word for it."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

import torch

DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16}
"""What convolutions compute in; with "off", in float32."""


def autocast(amp: str, device: torch.device) -> AbstractContextManager[Any]:
    """`torch.autocast` on a device for `amp` = off, fp16 or bf16."""
    dtype = DTYPES.get(amp)
    return torch.autocast(device.type, dtype=dtype, enabled=dtype is not None)

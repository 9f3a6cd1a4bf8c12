"""What stands for the classes and functions that checkpoints of PyTorch programs name: values, arrays, tensors, or a mere note."""

from __future__ import annotations

import math
import re
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tin.checkpoints.foreign import Foreign, Global
from tin.checkpoints.pickles import Maker
from tin.checkpoints.refusal import Refused
from tin.checkpoints.storage import Storage, tensor_of

INERT = (
    "argparse.Namespace",  # the authors' repositories keep their arguments so
    "datetime.date",
    "datetime.datetime",
    "datetime.timedelta",
    "mmengine.logging.history_buffer.HistoryBuffer",  # of the message_hub of MMEngine, one for each thing that was logged
    "types.SimpleNamespace",
)
"""Classes whose objects come back as `Foreign`."""
DICTS = (
    "addict.addict.Dict",
    "collections.Counter",
    "collections.defaultdict",
    "easydict.EasyDict",
    "mmcv.utils.config.ConfigDict",
    "mmengine.config.config.ConfigDict",
)
"""Classes whose objects come back as dicts."""
_NAMES_ALONE = ("builtins.dict", "builtins.float", "builtins.int", "builtins.list", "builtins.object", "builtins.str")
"""Classes that are named, as the default of a defaultdict is, and not called."""


class NumpyType:
    """A numpy dtype of numbers or truth values while it is read; it is whole when its state, with the byte order, has come."""

    def __init__(self, code: str, align: object = False, copy: object = False) -> None:
        if not isinstance(code, str) or not re.fullmatch(r"[<>|=]?(b1|\?|[iu][1248]|f[248]|c8|c16)", code):
            raise Refused("it holds a numpy array of something else than numbers")
        self.dtype = np.dtype(code)

    def build(self, state: Any) -> None:
        if state[1] in ("<", ">"):
            self.dtype = self.dtype.newbyteorder(state[1])


def build(target: Any, state: Any) -> bool:
    """Give a numpy type or array its state; a `pickles.Builder`."""
    if isinstance(target, NumpyType):
        target.build(state)
    elif isinstance(target, np.ndarray):
        shape, numpy_type, fortran, raw = state[-4:]
        raw = _raw(raw, shape, numpy_type)
        # With bytes of just this length for numbers of this type, numpy's own function does nothing but keep them.
        target.__setstate__((1, shape, numpy_type.dtype, bool(fortran), raw))  # type: ignore[arg-type]
    else:
        return False
    return True


def _raw(raw: Any, shape: Any, numpy_type: Any) -> bytes:
    """The bytes of an array, which Python 2 wrote as text, checked against its shape."""
    if not isinstance(numpy_type, NumpyType):
        raise TypeError("a numpy array without a type")
    raw = _bytes(raw)
    if any(type(side) is not int or side < 0 for side in shape) or len(shape) > 32:
        raise ValueError("a numpy array of impossible shape")
    if math.prod(shape) * numpy_type.dtype.itemsize != len(raw):
        raise ValueError("a numpy array that is larger or smaller than its bytes")
    return raw


def _scalar(numpy_type: NumpyType, raw: Any) -> Any:
    return np.frombuffer(_raw(raw, (), numpy_type), numpy_type.dtype)[0].item()


def _array(kind: Global, shape: object, code: object) -> np.ndarray[Any, Any]:
    """Empty: what it holds comes as its state."""
    if kind.name != "numpy.ndarray":
        raise TypeError(f"a numpy array that is a {kind.name}")
    return np.empty(0)


def _array_of(raw: Any, numpy_type: NumpyType, shape: Any, order: str) -> np.ndarray[Any, Any]:
    raw = _raw(raw, shape, numpy_type)
    return np.frombuffer(raw, numpy_type.dtype).reshape(shape, order="F" if order == "F" else "C")


def _encoded(text: str, encoding: str) -> bytes:
    """How protocol 2 writes bytes."""
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise ValueError("bytes that are no text in Latin-1")
    return text.encode("latin-1")


def _bytes(value: bytes | str = b"", encoding: str = "latin-1") -> bytes:
    if isinstance(value, bytes | bytearray):
        return bytes(value)
    return _encoded(value, encoding)  # a number would ask for so many zeros, and is no text


def _ordered(pairs: Any = ()) -> OrderedDict[Any, Any]:
    if not all(type(key) is str for key, _ in pairs):
        raise TypeError("an OrderedDict with keys that are no text")
    return OrderedDict(pairs)


def _dict(*arguments: Any) -> dict[Any, Any]:
    """Of a defaultdict or Counter, and of the dicts with a class of configuration libraries; items follow."""
    return next((dict(argument) for argument in arguments if isinstance(argument, dict)), {})


def _attribute(owner: Global, name: str) -> Global:
    """How protocol 2 writes a method: older files of MMEngine name those of HistoryBuffer. It is not looked up."""
    if type(owner) is not Global or type(name) is not str:
        raise TypeError("an attribute of what is no class")
    return Global(f"{owner.name}.{name}")


def _without_init(kind: Global, base: Any = None, state: Any = None) -> Any:
    """How protocols 0 and 1 write an object."""
    if kind.name not in (*INERT, *DICTS):
        raise TypeError(f"an object of {kind.name}")
    return _dict(state) if kind.name in DICTS else Foreign(kind.name)


def _path(*parts: str) -> str:
    if sum(map(len, parts)) > 4096:
        raise ValueError("a path of more than 4096 characters")
    return "/".join(parts).replace("//", "/", 1)


def _size(sides: Any = ()) -> torch.Size:
    return torch.Size(sides)


def _parameter(data: Tensor, *_: object) -> Tensor:
    return data


def _tensor_v2(
    storage: Storage,
    offset: int,
    size: Any,
    stride: Any,
    grad: object = False,
    hooks: object = None,
    meta: object = None,
) -> Tensor:
    if meta:
        raise Refused("it holds a conjugated or negated view of a tensor, which no network here has")
    return tensor_of(storage, offset, size, stride)


def _tensor_v3(
    storage: Storage,
    offset: int,
    size: Any,
    stride: Any,
    grad: object,
    hooks: object,
    dtype: torch.dtype,
    meta: object = None,
) -> Tensor:
    return _tensor_v2(storage.viewed(dtype), offset, size, stride, meta=meta)


def _from_type(function: Global, kind: object, arguments: tuple[Any, ...], state: object) -> Tensor:
    """A tensor of a subclass, or with attributes: the tensor."""
    return _REBUILD[function.name](*arguments)


def _noted(name: str) -> Maker:
    def note(*arguments: Any) -> Foreign:
        return Foreign(name, arguments)

    return note


def _named(name: str) -> Maker:
    def refuse(*_: Any) -> Any:
        raise TypeError(f"a call of {name}")

    return refuse


_REBUILD: dict[str, Callable[..., Tensor]] = {
    "torch._utils._rebuild_tensor": _tensor_v2,
    "torch._utils._rebuild_tensor_v2": _tensor_v2,
    "torch._utils._rebuild_tensor_v3": _tensor_v3,
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_parameter_with_state": _parameter,
}

MAKERS: Mapping[str, Maker] = {
    **{name: _named(name) for name in (*_NAMES_ALONE, "numpy.ndarray", "torch.Tensor", "torch.nn.parameter.Parameter")},
    **{name: _noted(name) for name in INERT},
    **dict.fromkeys(DICTS, _dict),
    **dict.fromkeys(
        (f"pathlib.{word}Path" for word in ("", "Pure", "Posix", "PurePosix", "Windows", "PureWindows")), _path
    ),
    **_REBUILD,
    "torch._tensor._rebuild_from_type_v2": _from_type,
    "torch.Size": _size,
    "torch.device": lambda kind, index=None: torch.device(kind) if index is None else torch.device(kind, index),
    "torch.serialization._get_layout": lambda name: str(name),
    "collections.OrderedDict": _ordered,
    "collections.deque": lambda items=(), longest=None: list(items),
    "builtins.set": lambda items=(): set(items),
    "builtins.frozenset": lambda items=(): frozenset(items),
    "builtins.complex": lambda real, imaginary: complex(real, imaginary),
    "builtins.bytes": _bytes,
    "builtins.bytearray": _bytes,
    "builtins.getattr": _attribute,
    "copyreg._reconstructor": _without_init,
    "_codecs.encode": _encoded,
    "numpy.dtype": NumpyType,
    "numpy.core.multiarray.scalar": _scalar,
    "numpy.core.multiarray._reconstruct": _array,
    "numpy.core.numeric._frombuffer": _array_of,
}
"""By name, what takes a call's arguments and gives what stands for its result. None looks at more than its arguments."""

CONSTANTS: Mapping[str, object] = {
    str(dtype): dtype for dtype in vars(torch).values() if isinstance(dtype, torch.dtype)
} | {
    f"torch.{prefix}{word}Storage": dtype
    for prefix in ("", "cuda.", "storage.")
    for word, dtype in {
        "Double": torch.float64,
        "Float": torch.float32,
        "Half": torch.float16,
        "BFloat16": torch.bfloat16,
        "Long": torch.int64,
        "Int": torch.int32,
        "Short": torch.int16,
        "Char": torch.int8,
        "Byte": torch.uint8,
        "Bool": torch.bool,
        "ComplexFloat": torch.complex64,
        "ComplexDouble": torch.complex128,
        "Untyped": torch.uint8,
    }.items()
}
"""By name, what stands for it: dtypes, also for the classes of storages."""

"""Pickled tensors and arrays that lie about their shape, their memory or their kind."""

from __future__ import annotations

import pickle
import struct
from collections.abc import Iterator

MANY = pickle.dumps(10**11, 2)[2:-1]


def text(value: str) -> bytes:
    raw = value.encode("utf-8", "surrogatepass")
    return b"X" + struct.pack("<I", len(raw)) + raw


def tensor(
    size: tuple[object, ...],
    stride: tuple[object, ...],
    *,
    offset: object = 0,
    elements: object = 2,
    key: object = "0",
    kind: bytes = b"ctorch\nFloatStorage\n",
    rebuild: bytes = b"ctorch._utils\n_rebuild_tensor_v2\n",
    hooks: bytes = b"ccollections\nOrderedDict\n)R",
) -> bytes:
    """A tensor of a storage of two float32, or one that lies."""

    def value(item: object) -> bytes:
        return pickle.dumps(item, 2)[2:-1]

    identity = b"(" + text("storage") + kind + value(key) + text("cpu") + value(elements) + b"tQ"
    return rebuild + b"(" + identity + value(offset) + value(size) + value(stride) + b"\x89" + hooks + b"tR"


def lying_tensors() -> Iterator[tuple[str, bytes]]:
    far = 1 << 62
    for name, made in {
        "long": tensor((3,), (1,)),
        "far-stride": tensor((2,), (2,)),
        "far-offset": tensor((2,), (1,), offset=1),
        "huge": tensor((1 << 40,), (1,)),
        "huge-square": tensor((1 << 31, 1 << 31), (1 << 31, 1)),
        "overflow": tensor((far, far), (far, far)),
        "wraps": tensor((2,), ((1 << 64) - 1,)),
        "wraps-63": tensor((3,), (1 << 63,)),
        "negative-size": tensor((-1,), (1,)),
        "negative-stride": tensor((2,), (-1,), offset=1),
        "negative-offset": tensor((1,), (1,), offset=-1),
        "repeats": tensor((1 << 40,), (0,)),
        "repeats-square": tensor((1 << 20, 1 << 20), (0, 0)),
        "many-dimensions": tensor((1,) * 1000, (1,) * 1000),
        "unequal": tensor((1, 1), (1,)),
        "float-size": tensor((1.5,), (1,)),
        "bool-size": tensor((True,), (1,)),
        "text-size": tensor(("2",), (1,)),
        "nested-size": tensor(((2,),), (1,)),
        "none-offset": tensor((1,), (1,), offset=None),
        "empty-far": tensor((0,), (1,), offset=far),
        "empty-huge": tensor((0, far), (1, 1)),
        "more-elements": tensor((1,), (1,), elements=3),
        "giant-elements": tensor((1,), (1,), elements=1 << 40),
        "all-elements": tensor((1,), (1,), elements=far),
        "negative-elements": tensor((1,), (1,), elements=-1),
        "float-elements": tensor((1,), (1,), elements=2.0),
        "key-path": tensor((1,), (1,), key="../../../../etc/passwd"),
        "key-absolute": tensor((1,), (1,), key="/etc/passwd"),
        "key-missing": tensor((1,), (1,), key="7"),
        "key-none": tensor((1,), (1,), key=None),
        "key-pickle": tensor((1,), (1,), key="../data.pkl"),
        "kind-other": tensor((1,), (1,), kind=b"ccollections\nOrderedDict\n"),
        "kind-quantised": tensor((1,), (1,), kind=b"ctorch\nQInt8Storage\n"),
        "kind-double": tensor((2,), (1,), kind=b"ctorch\nDoubleStorage\n"),
        "sparse": tensor((1,), (1,), rebuild=b"ctorch._utils\n_rebuild_sparse_tensor\n"),
        "quantised": tensor((1,), (1,), rebuild=b"ctorch._utils\n_rebuild_qtensor\n"),
        "meta": tensor((1,), (1,), rebuild=b"ctorch._utils\n_rebuild_meta_tensor_no_storage\n"),
        "wrapper": tensor((1,), (1,), rebuild=b"ctorch._utils\n_rebuild_wrapper_subclass\n"),
        "class": b"ctorch\nFloatTensor\n" + MANY + b"\x85R",
        "tensor": b"ctorch\nTensor\n" + MANY + b"\x85R",
        "zeros": b"ctorch\nzeros\n" + MANY + b"\x85R",
        "storage": b"ctorch\nFloatStorage\n" + MANY + b"\x85R",
        "untyped": b"ctorch.storage\nUntypedStorage\n" + MANY + b"\x85R",
        "parameter": b"ctorch.nn.parameter\nParameter\nN\x85R",
        "array-object": _array(b"O", (1,), b"\0" * 8),
        "array-huge": _array(b"f8", (1 << 40,), b"\0" * 8),
        "array-overflow": _array(b"f8", (far, far), b""),
        "array-negative": _array(b"f8", (-1,), b""),
        "array-none": _array(b"f8", (0, far), b""),
        "array-dimensions": _array(b"f8", (1,) * 100, b"\0" * 8),
        "array-void": _array(b"V1000000000", (1 << 20,), b""),
        "array-text": _array(b"U1000000000", (1,), b""),
        "array-unset": b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nfloat64\nK\x00\x85C\x01b\x87R",
        "scalar-long": b"cnumpy.core.multiarray\nscalar\n" + dtype(b"f8") + text("x" * 9) + b"\x86R",
    }.items():
        yield f"tensor-{name}", b"\x80\x02}" + text("state_dict") + b"}" + text("conv1.weight") + made + b"ss."


def dtype(code: bytes) -> bytes:
    return (
        b"cnumpy\ndtype\n"
        + text(code.decode())
        + b"K\x00K\x01\x87R(K\x03"
        + text("<")
        + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    )


def _array(code: bytes, shape: tuple[int, ...], raw: bytes) -> bytes:
    encoded = b"c_codecs\nencode\n" + text(raw.decode("latin-1")) + text("latin1") + b"\x86R"
    state = b"(K\x01" + pickle.dumps(shape, 2)[2:-1] + dtype(code) + b"\x89" + encoded + b"tb"
    return b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85" + text("b") + b"\x87R" + state

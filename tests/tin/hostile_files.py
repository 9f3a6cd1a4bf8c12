"""Checkpoint files that attack whoever loads them: hostile pickles in every envelope, envelopes that lie, and sound files mutated."""

from __future__ import annotations

import io
import json
import pickle
import random
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path

import safetensors.torch
import torch

from tests.tin.hostile_pickles import bombs, broken, calling, command
from tests.tin.hostile_tensors import lying_tensors, tensor, text
from tin.checkpoints import save_checkpoint

READABLE = {"broken-empty-dict", "broken-none-weights", "broken-number-keys", "broken-weights-list", "end-count"} | {
    "key-wrappers",
    "keys-terminal",
    "size",
    "tensor-array-none",
}
"""Names of what is no attack on reading: what is in them is refused when it is to become a model."""
SOUND = b"\x80\x02}" + text("state_dict") + b"}" + text("conv1.weight") + tensor((2,), (1,)) + b"ss."
DATA = struct.pack("<2f", 1, 2)


def hostile(canary: str) -> Iterator[tuple[str, bytes]]:
    """Name and content of every file that must be refused.

    Args:
        canary: a path; it appears when code of a file runs.
    """
    for name, raw in all_pickles(canary):
        yield f"zip-{name}.pt", zipped(raw)
        if not name.startswith(("new-", "many-", "wide")):
            yield f"old-{name}.pth", legacy(raw) if b"storage" in raw else legacy(raw, keys=(), data=b"")
    yield from (("zip-" + name + ".pt", raw) for name, raw in _archives())
    yield from (("old-" + name + ".pth", raw) for name, raw in _legacies(canary))
    yield from (("safe-" + name + ".safetensors", raw) for name, raw in _safetensors())
    for name, raw in {
        "pickle": pickle.dumps({"w": [1.0]}),
        "gzip": b"\x1f\x8b\x08\x00" + b"\0" * 50,
        "text": b"weights",
        "nul": bytes(1000),
    }.items():
        yield f"other-{name}.pt", raw


def all_pickles(canary: str) -> Iterator[tuple[str, bytes]]:
    yield from calling(canary)
    yield from bombs()
    yield from broken()
    yield from lying_tensors()


def zipped(pickled: bytes, data: bytes = DATA, root: str = "x") -> bytes:
    """A file as `torch.save` writes it, around any pickle."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, raw in (("data.pkl", pickled), ("byteorder", b"little"), ("data/0", data), ("version", b"3\n")):
            archive.writestr(f"{root}/{name}", raw)
    return buffer.getvalue()


def legacy(
    pickled: bytes,
    keys: object = ("0",),
    data: bytes | None = None,
    system: object = None,
    magic: int = 0x1950A86A20F9469CFC6C,
) -> bytes:
    """A file as `torch.save` wrote it before 1.6, around any pickle."""
    system = {"protocol_version": 1001, "little_endian": True, "type_sizes": {}} if system is None else system
    heads = [pickle.dumps(head, 2) for head in (magic, 1001)] + [
        system if isinstance(system, bytes) else pickle.dumps(system, 2)
    ]
    tail = struct.pack("<q", 2) + DATA if data is None else data
    return b"".join([*heads, pickled, pickle.dumps(list(keys) if isinstance(keys, tuple) else keys, 2), tail])


def _archives() -> Iterator[tuple[str, bytes]]:
    def made(*records: tuple[str, bytes], method: int = zipfile.ZIP_STORED, comment: bytes = b"") -> bytes:
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", method) as archive:
            for name, raw in records:
                archive.writestr(name, raw)
            archive.comment = comment
        return buffer.getvalue()

    sound = zipped(SOUND)
    pkl, data = ("x/data.pkl", SOUND), ("x/data/0", DATA)
    zeros = bytes(40_000_000)
    giant = b"\x80\x02}" + text("w") + tensor((10_000_000,), (1,), elements=10_000_000) + b"s."
    for name, method in (("deflated", zipfile.ZIP_DEFLATED), ("bzip2", zipfile.ZIP_BZIP2)):
        yield f"bomb-{name}", made(("x/data.pkl", giant), ("x/data/0", zeros), method=method)
    yield "deflated-pickle", made(pkl, data, method=zipfile.ZIP_DEFLATED)
    yield "lzma-pickle", made(pkl, data, method=zipfile.ZIP_LZMA)
    for name in ("../x", "/etc/passwd", "x/../../y", "x//y", "x\\..\\y", "x/", "y/other", "x/./z", "nofolder"):
        yield f"name-{name.replace('/', '_')}", made(pkl, data, (name, b"1"))
    yield "root-dots", zipped(SOUND, root="..")
    yield "no-pickle", made(data)
    yield "empty-archive", made()
    yield "torchscript", made(pkl, data, ("x/constants.pkl", b"\x80\x02)."))
    yield "big-endian", made(pkl, data, ("x/byteorder", b"big"))
    yield "byteorder-long", made(pkl, data, ("x/byteorder", b"l" * 1000))
    yield "comment", made(pkl, data, comment=b"tin-crc32:00000000")
    for name in ("x/data.pkl", "x/data/0"):
        buffer = io.BytesIO(sound)
        with zipfile.ZipFile(buffer, "a") as archive:
            archive.filelist.append(archive.getinfo(name))
            archive._didModify = True  # type: ignore[attr-defined]
        yield f"double-{name[2:].replace('/', '_')}", buffer.getvalue()
    directory = sound.rindex(b"PK\x01\x02", 0, sound.index(b"x/data.pkl", sound.index(b"PK\x01\x02")))
    for name, at, packed in (
        ("encrypted", 8, b"\x01\x00"),
        ("method", 10, b"\x63\x00"),
        ("size", 24, b"\xff\xff\xff\x7f"),
        ("both-sizes", 20, b"\xff\xff\xff\x7f" * 2),
        ("zip64", 20, b"\xff" * 8),
        ("crc", 16, b"\0\0\0\0"),
        ("offset", 42, b"\xff\xff\xff\x7f"),
        ("overlap", 42, struct.pack("<I", 60)),
        ("name-length", 28, b"\xff\xff"),
        ("extra-length", 30, b"\xff\xff"),
        ("signature", 0, b"PK\x09\x09"),
    ):
        yield f"directory-{name}", sound[: directory + at] + packed + sound[directory + at + len(packed) :]
    end = sound.rindex(b"PK\x05\x06")
    for name, at, packed in (
        ("count", 8, b"\xff\xff\xff\xff"),
        ("bytes", 12, b"\xff\xff\xff\x7f"),
        ("start", 16, b"\xff\xff\xff\x7f"),
        ("comment", 20, b"\xff\xff"),
    ):
        yield f"end-{name}", sound[: end + at] + packed + sound[end + at + len(packed) :]
    zip64 = b"PK\x06\x06" + struct.pack("<QHHIIQQQQ", 44, 45, 45, 0, 0, 1 << 60, 1 << 60, 1 << 60, 1 << 60)
    locator = b"PK\x06\x07" + struct.pack("<IQI", 0, end, 1)
    yield "end-zip64", sound[:end] + zip64 + locator + b"PK\x05\x06" + b"\xff" * 16 + b"\0\0"
    yield "crowd", _crowd(400_000)
    for part in (0.05, 0.3, 0.6, 0.9, 0.99):
        yield f"cut-{part}", sound[: int(len(sound) * part)]


def _crowd(count: int) -> bytes:
    """A directory of so many entries, each of which would cost its reader a KB."""
    entry = b"PK\x01\x02" + struct.pack("<6H3I5H2I", 20, 20, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0) + b"x"
    directory = entry * count
    local = b"PK\x03\x04" + struct.pack("<5H3I2H", 20, 0, 0, 0, 0, 0, 0, 0, 1, 0) + b"x"
    return (
        local + directory + b"PK\x05\x06" + struct.pack("<4H2IH", 0, 0, 0xFFFF, 0xFFFF, len(directory), len(local), 0)
    )


def _legacies(canary: str) -> Iterator[tuple[str, bytes]]:
    call = b"\x80\x02cposix\nsystem\n" + text(command(canary)) + b"\x85R."
    sound = legacy(SOUND)
    yield "magic", legacy(SOUND, magic=1)
    yield "magic-call", call + sound
    yield "system-call", legacy(SOUND, system=call)
    yield "system-list", legacy(SOUND, system=[])
    yield "big-endian", legacy(SOUND, system={"little_endian": False})
    yield "keys-call", legacy(SOUND)[: -len(DATA) - 8 - len(pickle.dumps(["0"], 2))] + call + DATA
    for name, keys in {
        "none": [],
        "twice": ["0", "0"],
        "other": ["1"],
        "more": ["0", "1"],
        "dict": {},
        "nested": [["0"]],
    }.items():
        yield f"keys-{name}", legacy(SOUND, keys=keys)
    for name, length in {"less": 1, "more": 3, "giant": 1 << 40, "negative": -1, "all": (1 << 63) - 1}.items():
        yield f"length-{name}", legacy(SOUND, data=struct.pack("<q", length) + DATA)
    yield "trailing", sound + b"more"
    giant = b"\x80\x02}" + text("w") + tensor((1 << 33,), (1,), elements=1 << 33) + b"s."
    yield "giant", legacy(giant)
    yield "sizes", legacy(b"\x80\x02]" + tensor((2,), (1,)) + b"a" + tensor((3,), (1,), elements=3) + b"a.")
    for cut in (1, 9, 30, 50, 120, len(sound) - 1, len(sound) - 9):
        yield f"cut-{cut}", sound[:cut]


def _safetensors() -> Iterator[tuple[str, bytes]]:
    def made(header: object, data: bytes = DATA, length: int | None = None) -> bytes:
        raw = header if isinstance(header, bytes) else json.dumps(header).encode()
        return struct.pack("<Q", len(raw) if length is None else length) + raw + data

    def entry(**changes: object) -> dict[str, object]:
        return {"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8], **changes}}

    for length in (0, 1 << 30, 1 << 62, (1 << 64) - 1):
        yield f"length-{length}", made(entry(), length=length)
    yield "spaces", made(b"{" + b" " * 9_000_000 + b"}")
    yield "deep", made(b'{"a":' + b"[" * 200_000 + b"]" * 200_000 + b"}")
    yield (
        "many",
        made(
            b"{"
            + b",".join(b'"%d":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}' % i for i in range(170_000))
            + b"}",
            b"",
        ),
    )
    for name, header in {
        "not-json": b"{nothing",
        "list": b"[1]",
        "null": b"null",
        "number-name": b"{1:2}",
        "utf8": b'{"\xff":1}',
        "dtype": entry(dtype="F99"),
        "dtype-number": entry(dtype=3),
        "shape": entry(shape=[3]),
        "shape-huge": entry(shape=[1 << 62]),
        "shape-overflow": entry(shape=[1 << 32, 1 << 32]),
        "shape-negative": entry(shape=[-2]),
        "shape-float": entry(shape=[2.5]),
        "shape-missing": {"w": {"dtype": "F32", "data_offsets": [0, 8]}},
        "offsets-far": entry(data_offsets=[0, 1 << 40]),
        "offsets-backwards": entry(data_offsets=[8, 0]),
        "offsets-negative": entry(data_offsets=[-8, 0]),
        "offsets-hole": entry(shape=[1], data_offsets=[4, 8]),
        "offsets-one": entry(data_offsets=[0]),
        "rest": entry(shape=[1], data_offsets=[0, 4]),
        "overlap": {**entry(), "v": {"dtype": "F32", "shape": [2], "data_offsets": [4, 12]}},
        "same": {**entry(), "v": entry()["w"]},
        "twice": json.dumps(entry())[:-1].encode() + b', "w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}',
        "metadata": {"__metadata__": {"a": 1}, **entry()},
        "metadata-list": {"__metadata__": [], **entry()},
        "only-metadata": {"__metadata__": {"a": "b"}},
    }.items():
        yield name, made(header)
    yield "no-data", made(entry(), b"")
    yield "one-byte-less", made(entry(), DATA[:-1])
    yield "short", b"\x10\0\0"


def mutated(folder: Path, seed: int, count: int) -> Iterator[tuple[str, bytes]]:
    """Sound files of every format, changed at random: they are refused, or the change is in what no format protects.

    Half of the zip files get the checksum that fits the change, so that it reaches what reads the pickle.
    """
    state = OrderedDict((f"bn1.{leaf}", torch.rand(64)) for leaf in ("weight", "bias", "running_mean", "running_var"))
    whole = {"state_dict": state, "epoch": 3, "lr": 0.1, "meta": {"names": ["a", "b"], "size": torch.Size([2])}}
    save_checkpoint(folder / "sealed", whole)
    torch.save(whole, folder / "zip")
    torch.save(whole, folder / "old", _use_new_zipfile_serialization=False)
    safetensors.torch.save_file(dict(state), folder / "safe", metadata={"arch": "x"})
    originals = {name: (folder / name).read_bytes() for name in ("sealed", "zip", "old", "safe")}
    with zipfile.ZipFile(folder / "zip") as archive:
        pickled, data = archive.read("zip/data.pkl"), [archive.read(f"zip/data/{i}") for i in range(4)]
    chance = random.Random(seed)
    for i in range(count):
        kind = ("pickle", "old", "pickle", "zip", "safe", "sealed")[i % 6]
        if kind == "pickle":
            buffer = io.BytesIO()
            with zipfile.ZipFile(buffer, "w") as archive:
                for name, raw in {
                    "data.pkl": _changed(pickled, chance),
                    **{f"data/{k}": v for k, v in enumerate(data)},
                }.items():
                    archive.writestr(f"zip/{name}", raw)
            yield f"mutated-{i}-pickle.pt", buffer.getvalue()
        else:
            yield f"mutated-{i}-{kind}.{'safetensors' if kind == 'safe' else 'pt'}", _changed(originals[kind], chance)


def _changed(raw: bytes, chance: random.Random) -> bytes:
    at, length = chance.randrange(len(raw)), chance.choice((1, 1, 2, 4, 8, 64))
    some = chance.randbytes(length)
    return chance.choice(
        (
            raw[:at] + bytes([raw[at] ^ 1 << chance.randrange(8)]) + raw[at + 1 :],
            raw[:at] + some + raw[at + length :],
            raw[:at] + some + raw[at:],
            raw[:at] + raw[at + length :],
            raw[:at] + b"\xff" * length + raw[at + length :],
            raw[:at] + raw[max(0, at - length) : at] * 3 + raw[at:],
            raw[: max(1, at)],
        )
    )

"""Pickles that attack whoever loads them: by code, by size and by depth."""

from __future__ import annotations

import pickle
import struct
from collections.abc import Iterator

from tests.tin.hostile_tensors import dtype, tensor, text

CALLS = (
    ("os", "system"),
    ("posix", "system"),
    ("nt", "system"),
    ("os", "popen"),
    ("os", "execl"),
    ("subprocess", "Popen"),
    ("subprocess", "check_output"),
    ("subprocess", "run"),
    ("commands", "getoutput"),
    ("pty", "spawn"),
    ("builtins", "eval"),
    ("builtins", "exec"),
    ("__builtin__", "eval"),
    ("__builtin__", "execfile"),
    ("builtins", "compile"),
    ("builtins", "__import__"),
    ("importlib", "import_module"),
    ("builtins", "open"),
    ("io", "open"),
    ("_io", "FileIO"),
    ("runpy", "run_path"),
    ("pickle", "loads"),
    ("_pickle", "loads"),
    ("marshal", "loads"),
    ("shelve", "open"),
    ("torch", "load"),
    ("torch.serialization", "load"),
    ("torch.jit", "load"),
    ("torch.hub", "load"),
    ("torch._utils", "_import_dotted_name"),
    ("torch.utils.cpp_extension", "load_inline"),
    ("torch._dynamo.utils", "import_submodule"),
    ("numpy", "load"),
    ("numpy.testing._private.utils", "runstring"),
    ("numpy.core.multiarray", "fromfile"),
    ("operator", "methodcaller"),
    ("operator", "attrgetter"),
    ("functools", "partial"),
    ("functools", "reduce"),
    ("types", "FunctionType"),
    ("types", "CodeType"),
    ("code", "interact"),
    ("timeit", "timeit"),
    ("cProfile", "run"),
    ("shutil", "rmtree"),
    ("os", "remove"),
    ("pathlib", "Path.unlink"),
    ("ctypes", "CDLL"),
    ("webbrowser", "open"),
    ("asyncio.unix_events", "_UnixSubprocessTransport._start"),
    ("multiprocessing.util", "spawnv_passfds"),
    ("mmengine.config.config", "Config.fromfile"),
    ("mmengine.logging.history_buffer", "HistoryBuffer.register_statistics"),
    ("collections", "OrderedDict.__init__.__globals__"),
    ("copyreg", "__newobj__"),
    ("copyreg", "add_extension"),
    ("encodings", "search_function"),
    ("_codecs", "lookup"),
    ("codecs", "decode"),
    ("weakref", "finalize"),
)
"""What a hostile pickle calls with a command; some do harm with it, some are steps on the way."""


def number(value: int) -> bytes:
    return pickle.dumps(value, 2)[2:-1]


def command(canary: str) -> str:
    return f"touch {canary}"


def calling(canary: str) -> Iterator[tuple[str, bytes]]:
    """By GLOBAL and REDUCE, by STACK_GLOBAL and NEWOBJ."""
    argument = text(command(canary))
    for module, name in CALLS:
        yield (
            f"call-{module}.{name}",
            b"\x80\x02}" + text("w") + f"c{module}\n{name}\n".encode() + argument + b"\x85Rs.",
        )
        yield (
            f"new-{module}.{name}",
            b"\x80\x04}" + text("w") + text(module) + text(name) + b"\x93" + argument + b"\x85\x81s.",
        )
    run = b"cposix\nsystem\n"
    yield "inst", b"\x80\x02(" + argument + b"iposix\nsystem\n."
    yield "obj", b"\x80\x02(" + run + argument + b"o."
    yield "ext", b"\x80\x02\x82\x01" + argument + b"\x85R."
    yield "persid", b"Pposix.system\n."
    yield (
        "getattr",
        b"\x80\x02c__builtin__\ngetattr\nc__builtin__\nbytes\n" + text("fromhex") + b"\x86R" + argument + b"\x85R.",
    )
    allowed = b"ccollections\nOrderedDict\n"
    for step in ("__init__", "__globals__", "update", "__class__", "fromkeys"):
        yield (
            f"getattr-{step}",
            b"\x80\x02c__builtin__\ngetattr\n" + allowed + text(step) + b"\x86R" + argument + b"\x85R.",
        )
    yield "dotted", b"\x80\x04" + text("collections") + text("OrderedDict.fromkeys") + b"\x93" + argument + b"\x85R."
    yield "reconstructor", b"\x80\x02ccopy_reg\n_reconstructor\ncposix\nsystem\nc__builtin__\nobject\nN\x87R."
    yield "setstate", b"\x80\x02cargparse\nNamespace\n)\x81}" + text("__class__") + run + b"sb" + argument + b"\x85R."
    yield (
        "build-slots",
        b"\x80\x02" + allowed + b")R" + b"}" + text("__reduce__") + run + b"s}\x86b" + argument + b"\x85R.",
    )
    yield "defaultdict", b"\x80\x02ccollections\ndefaultdict\n" + run + b"\x85R" + argument + b"\x8c\x01aRs."
    yield "from-type", b"\x80\x02ctorch._tensor\n_rebuild_from_type_v2\n(" + run + run + argument + b"\x85NtR."
    yield "hooks", b"\x80\x02}" + text("w") + tensor((2,), (1,), hooks=run + argument + b"\x85R") + b"s."
    yield "numpy-object", b"\x80\x02cnumpy\ndtype\n" + text("O") + b"K\x00K\x01\x87R."


def bombs() -> Iterator[tuple[str, bytes]]:
    """Small files that would be large, deep, endless or slow."""
    start = b"\x80\x02}" + text("state_dict")
    yield "deep-tuple", start + b"K\x01" + b"\x85" * 400_000 + b"s."
    yield "deep-list", start + b"]" * 100_000 + b"a" * 99_999 + b"s."
    yield "deep-dict", start + (b"}" + text("a")) * 50_000 + b"K\x01" + b"s" * 50_000 + b"s."
    yield "deep-foreign", start + b"cargparse\nNamespace\n)\x81" * 30_000 + b"b" * 29_999 + b"s."
    yield "deep-key", start + b"}K\x01" + b"\x85" * 400_000 + b"K\x01ss."
    yield "deep-set", b"\x80\x02c__builtin__\nset\n]K\x01" + b"\x85" * 400_000 + b"a\x85R."
    laughs = b"".join(b"](" + b"h%c" % (i - 1) * 10 + b"eq%c" % i for i in range(1, 60))
    yield "laughs", start + b"(]q\x00" + laughs + b"ls."
    shared = b"".join(b"(" + b"h%c" % (i - 1) * 10 + b"tq%c" % i for i in range(1, 60))
    yield "laughs-tuple", start + b"()q\x00" + shared + b"ts."
    yield "cycle-list", start + b"]q\x00h\x00as."
    yield "cycle-dict", start + b"}q\x00" + text("a") + b"h\x00ss."
    yield "cycle-foreign", start + b"cargparse\nNamespace\n)\x81q\x00h\x00bs."
    yield "many-sets", b"\x80\x04(" + b"\x8f" * 3_000_000 + b"t."
    yield "many-nones", b"\x80\x02(" + b"N" * 3_000_000 + b"t."
    yield "many-marks", b"\x80\x02" + b"(" * 3_000_000
    yield "many-memos", b"\x80\x04N" + b"\x94" * 3_000_000 + b"."
    yield "many-dicts", b"\x80\x02(" + b"ccollections\nOrderedDict\n)R" * 100_000 + b"t."
    yield "claims-text", start + b"\x8d" + struct.pack("<Q", 1 << 62) + b"a"
    yield "claims-text-4", start + b"X" + struct.pack("<I", 0xFFFFFFFF) + b"a"
    yield "claims-bytes", start + b"\x8e" + struct.pack("<Q", 1 << 40) + b"a"
    yield "claims-bytearray", start + b"\x96" + struct.pack("<Q", 1 << 40) + b"a"
    yield "claims-long", start + b"\x8b" + struct.pack("<i", 0x7FFFFFFF) + b"a"
    yield "claims-frame", b"\x80\x04\x95" + struct.pack("<Q", 1 << 62) + b"N."
    yield "memo-far", b"\x80\x02}Nr" + struct.pack("<I", 0xFFFFFFFF) + b"0."
    yield "long", start + b"\x8b" + struct.pack("<i", 1_000_000) + b"\x7f" * 1_000_000 + b"s."
    yield "long-key", b"\x80\x02}\x8b" + struct.pack("<i", 100_000) + b"\x7f" * 100_000 + b"K\x01s."
    yield "long-decimal", start + b"L" + b"9" * 500_000 + b"L\ns."
    yield "bytearray", start + b"c__builtin__\nbytearray\n" + number(10**11) + b"\x85Rs."
    yield "bytes", start + b"c__builtin__\nbytes\n" + number(10**11) + b"\x85Rs."
    yield "range-set", start + b"c__builtin__\nset\nc__builtin__\nrange\n" + number(10**11) + b"\x85R\x85Rs."
    yield "device", start + b"ctorch\ndevice\n" + text("a" * 1_000_000) + b"\x85Rs."
    yield "idna", start + b"c_codecs\nencode\n" + text("\xe9" * 200_000) + text("idna") + b"\x86Rs."
    yield "codec-import", start + b"c_codecs\nencode\n" + text("a") + text("antigravity") + b"\x86Rs."
    modulus = (1 << 61) - 1  # of Python's hash of numbers
    yield "colliding-keys", b"\x80\x02}(" + b"".join(number(i * modulus) + b"N" for i in range(30_000)) + b"u."
    yield "size", start + b"ctorch\nSize\n(" + b"K\x01" * 100_000 + b"t\x85Rs."
    much = b"(" + text("a" * 1_000_000) + b"q\x00"
    again = b"h\x01h\x00h\x02\x86R" * 20_000
    latin = text("latin1") + b"q\x02"
    yield "copies-bytes", b"\x80\x02" + much + b"c_codecs\nencode\nq\x01" + latin + again + b"t."
    yield "copies-path", b"\x80\x02" + much + b"cpathlib\nPath\n(" + b"h\x00" * 20_000 + b"tRt."
    items = b"(](" + b"N" * 100_000 + b"eq\x00"
    for name, kind in (("deque", b"ccollections\ndeque\n"), ("frozenset", b"c__builtin__\nfrozenset\n")):
        yield f"copies-{name}", b"\x80\x02" + items + kind + b"q\x01" + b"h\x01h\x00\x85R" * 20_000 + b"t."
    pairs = b"(](" + b"".join(text(str(i)) + b"N\x86" for i in range(20_000)) + b"eq\x00"
    yield (
        "copies-ordered",
        b"\x80\x02" + pairs + b"ccollections\nOrderedDict\nq\x01" + b"h\x01h\x00\x85R" * 20_000 + b"t.",
    )
    shape, code = number(1_000_000) + b"\x85", dtype(b"i1")
    made = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85" + text("b") + b"\x87R"
    state = b"(K\x01" + shape + code + b"\x89h\x00tq\x03"
    yield "copies-array", b"\x80\x02" + much + state + (made + b"h\x03b") * 3_000 + b"t."
    wide = text("\U0001f600" + "a" * 4_000_000)
    yield "wide-text", b"\x80\x02(" + wide * 4 + b"t."
    yield "name-long", b"\x80\x02c" + b"a" * 3_000_000 + b"\nb\n."
    yield "name-terminal", b"\x80\x04" + text("os\x1b]0;owned\x07\n") + text("sys\ntem") + b"\x93."
    yield "key-wrappers", b"\x80\x02}" + text("module." * 300_000) + tensor((2,), (1,)) + b"s."
    yield "keys-terminal", b"\x80\x02}" + text("\x1b]0;owned\x07\nx") + tensor((2,), (1,)) + b"s."


def broken() -> Iterator[tuple[str, bytes]]:
    """Opcodes in impossible order, and values where no checkpoint has them."""
    for name, raw in {
        "empty": b"",
        "stop": b".",
        "nothing": b"\x80\x02.",
        "no-stop": b"\x80\x02}",
        "two-values": b"\x80\x02}}.",
        "open-mark": b"\x80\x02}(.",
        "pop-empty": b"\x80\x02s.",
        "reduce-empty": b"\x80\x02R.",
        "build-empty": b"\x80\x02b.",
        "get-missing": b"\x80\x02h\x09.",
        "append-dict": b"\x80\x02}Na.",
        "set-list": b"\x80\x02]NNs.",
        "odd": b"\x80\x02}(Nu.",
        "reduce-text": b"\x80\x02X\x01\x00\x00\x00aN\x85R.",
        "reduce-dict": b"\x80\x02}N\x85R.",
        "build-text": b"\x80\x02X\x01\x00\x00\x00a}b.",
        "key-list": b"\x80\x02}]Ns.",
        "key-dict": b"\x80\x02}}Ns.",
        "global-half": b"\x80\x02cos",
        "global-bytes": b"\x80\x02c\xff\nx\n.",
        "stack-global": b"\x80\x04NN\x93.",
        "unknown": b"\x80\x02\xfe.",
        "buffer": b"\x80\x05\x97.",
        "pop": b"\x80\x02}N0.",
        "dup": b"\x80\x02}2.",
        "root-list": b"\x80\x02].",
        "root-number": b"\x80\x02K\x01.",
        "root-text": b"\x80\x02X\x01\x00\x00\x00a.",
        "root-global": b"\x80\x02ccollections\nOrderedDict\n.",
        "empty-dict": b"\x80\x02}.",
        "utf8": b"\x80\x02X\x01\x00\x00\x00\xff.",
        "number-keys": b"\x80\x02}K\x01K\x02s.",
        "none-weights": b"\x80\x02}X\x0a\x00\x00\x00state_dictNs.",
        "weights-list": b"\x80\x02}X\x0a\x00\x00\x00state_dict]s.",
        "persistent-text": b"\x80\x02X\x01\x00\x00\x00aQ.",
        "persistent-short": b"\x80\x02X\x07\x00\x00\x00storage\x85Q.",
        "float": b"\x80\x02Fnan0\n.",
        "int": b"\x80\x02I12x\n.",
    }.items():
        yield f"broken-{name}", raw

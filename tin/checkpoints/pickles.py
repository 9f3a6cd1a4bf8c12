"""Pickles read as data: a machine that builds plain values from the opcodes and can call nothing but a given table of makers."""

from __future__ import annotations

import pickletools
from collections.abc import Callable, Iterable, Mapping
from sys import getsizeof
from typing import Any, Protocol, cast

from tin.checkpoints.foreign import Foreign, Global, check_nesting
from tin.checkpoints.refusal import Damaged, Refused, shown

MAX_OPCODES = 1_000_000
"""About 300 bytes of memory each at worst; a training checkpoint of a ResNet-101 with its optimiser has 70,000."""
MAX_BYTES = 128 << 20
"""Texts may take four times their bytes in memory. Half a million steps of MMEngine's history take about 100 MB."""
MAX_BITS = 128
FREE_BYTES = 256 << 20
"""That a pickle's values may take in memory, beside twice its own size: the size of a text that becomes bytes, then an array."""
MAX_ODD_KEYS = 20_000
"""Keys that are no text. Their hashes can be chosen to collide, and then each costs as much time as there are others."""


class Source(Protocol):
    """Bytes, one after another."""

    def read(self, size: int, /) -> bytes: ...

    def readline(self) -> bytes: ...


Maker = Callable[..., Any]
"""Takes the arguments of a call in the pickle, returns what stands for its result; any exception refuses the file."""
Builder = Callable[[Any, Any], bool]
"""Gives an object its state, both as read; False if it is an object that has none."""


def read_pickle(
    source: Source,
    makers: Mapping[str, Maker],
    constants: Mapping[str, object],
    build: Builder,
    persistent: Callable[[object], object] | None = None,
) -> Any:
    """The value of one pickle; `source` then stands behind it.

    Nothing is imported and nothing called but `makers`, `build` and `persistent`. Time and memory are bounded by the limits above.

    Args:
        makers: by "module.name", with Python 3's names of modules. Others that the pickle names refuse it.
        constants: by "module.name", what stands for it; no calls.
        persistent: what stands for a persistent id.

    Raises:
        Refused: the pickle is damaged, too big, or names a class that is in neither table.
    """
    machine = _Machine(makers, constants, build, persistent)
    try:
        return check_nesting(machine.run(_Limited(source)))
    except Refused:
        raise
    except MemoryError:
        raise
    except Exception as error:  # arguments that do not fit a maker, a stack that is empty: all are damage
        raise Damaged(f"its pickle is cut short or wrong: {shown(error) or type(error).__name__}") from error


class _Limited:
    """A source of which no more than MAX_BYTES are read. No `tell`, so that pickletools does not ask at every opcode."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._left = MAX_BYTES

    @property
    def spent(self) -> int:
        """Bytes that were read."""
        return MAX_BYTES - self._left

    def read(self, size: int) -> bytes:
        self._spend(size)  # before the memory for a size that the file only claims is taken
        return self._source.read(size)

    def readline(self) -> bytes:
        line = self._source.readline()
        self._spend(len(line))
        return line

    def _spend(self, size: int) -> None:
        self._left -= size
        if self._left < 0:
            raise Refused(f"its pickle is cut short or longer than {MAX_BYTES >> 20} MB")


class _Machine:
    """The stack machine of the pickle format."""

    def __init__(
        self,
        makers: Mapping[str, Maker],
        constants: Mapping[str, object],
        build: Builder,
        persistent: Callable[[object], object] | None,
    ) -> None:
        self._makers, self._constants = makers, constants
        self._build, self._persistent = build, persistent
        self._stack: list[Any] = []
        self._below: list[list[Any]] = []  # the stacks under each mark
        self._memo: dict[int, Any] = {}
        self._odd_keys = 0
        self._made = 0  # bytes of memory, about

    def run(self, source: _Limited) -> Any:
        self._source = source
        for count, (opcode, argument, _) in enumerate(pickletools.genops(cast("Any", source))):
            if count > MAX_OPCODES:
                raise Refused(f"its pickle has more than {MAX_OPCODES:,} instructions")
            self._check_memory()
            name = opcode.name
            if name in _LITERALS:
                if type(argument) is int and argument.bit_length() > MAX_BITS:
                    raise Refused(f"its pickle has a number of more than {MAX_BITS} bits")
                self._push(argument)
            elif name in _FIXED:
                self._stack.append(_FIXED[name])
            elif name in _EMPTY:
                self._push(_EMPTY[name]())
            elif name == "STOP":
                if self._below or len(self._stack) != 1:
                    raise Damaged("its pickle ends in the middle of a value")
                return self._stack[0]
            elif action := _ACTIONS.get(name):
                action(self, argument)
            else:
                raise Refused(f"its pickle has the instruction {name}, which no checkpoint needs")
        raise Damaged("its pickle is cut short")

    # ---- stack and memo ------------------------------------------------------------------------------------------------------

    def _check_memory(self) -> None:
        if self._made > FREE_BYTES + 2 * self._source.spent:
            raise Refused("its pickle makes much of little: its values take far more memory than it has bytes")

    def _push(self, value: Any) -> None:
        self._made += getsizeof(value)
        self._stack.append(value)

    def _mark(self, _: Any) -> None:
        self._below.append(self._stack)
        self._stack = []

    def _since_mark(self) -> list[Any]:
        items, self._stack = self._stack, self._below.pop()
        return items

    def _nothing(self, _: Any) -> None:
        pass

    def _put(self, index: int) -> None:
        self._made += _ENTRY_BYTES
        self._memo[index] = self._stack[-1]

    def _memoize(self, _: Any) -> None:
        self._put(len(self._memo))

    def _get(self, index: int) -> None:
        self._stack.append(self._memo[index])

    # ---- containers ----------------------------------------------------------------------------------------------------------

    def _tuple(self, _: Any) -> None:
        items = self._since_mark()
        self._push(tuple(items))

    def _tuple_of(self, count: int) -> None:
        if len(self._stack) < count:
            raise IndexError("a tuple of more values than there are")
        items = tuple(self._stack[-count:])
        del self._stack[-count:]
        self._push(items)

    def _list(self, _: Any) -> None:
        items = self._since_mark()
        self._push(items)

    def _dict(self, _: Any) -> None:
        items = self._since_mark()
        self._stack.append({})
        self._set_items(items)

    def _append(self, _: Any) -> None:
        self._extend([self._stack.pop()])

    def _appends(self, _: Any) -> None:
        self._extend(self._since_mark())

    def _extend(self, items: list[Any]) -> None:
        if type(self._stack[-1]) is not list:
            raise TypeError("values appended to what is no list")
        self._stack[-1].extend(items)

    def _setitem(self, _: Any) -> None:
        value, key = self._stack.pop(), self._stack.pop()
        self._set_items([key, value])

    def _setitems(self, _: Any) -> None:
        self._set_items(self._since_mark())

    def _set_items(self, items: list[Any]) -> None:
        target = self._stack[-1]
        if not isinstance(target, dict):
            raise TypeError("keys given to what is no dict")
        self._check_keys(items[::2])
        self._made += _ENTRY_BYTES * len(items)
        target.update(zip(items[::2], items[1::2], strict=True))

    def _add_items(self, _: Any) -> None:
        items = self._since_mark()
        if type(self._stack[-1]) is not set:
            raise TypeError("values added to what is no set")
        self._check_keys(items)
        self._made += _ENTRY_BYTES * len(items)
        self._stack[-1].update(items)

    def _frozenset(self, _: Any) -> None:
        items = self._since_mark()
        self._check_keys(items)
        self._push(frozenset(items))

    def _check_keys(self, keys: Iterable[Any]) -> None:
        """Hashing a deep tuple would overflow the C stack, hashing an object could run its code."""
        for key in keys:
            if type(key) is str:
                continue
            self._odd_keys += 1
            simple = type(key) in _SCALARS or (type(key) is tuple and all(type(part) in _SCALARS for part in key))
            if not simple:
                raise TypeError(f"a {type(key).__name__} as a key")
        if self._odd_keys > MAX_ODD_KEYS:
            raise Refused(f"its pickle has more than {MAX_ODD_KEYS:,} keys that are no text")

    # ---- what the pickle names -----------------------------------------------------------------------------------------------

    def _global(self, argument: str) -> None:
        self._push_global(*argument.split(" ", 1))

    def _stack_global(self, _: Any) -> None:
        name, module = self._stack.pop(), self._stack.pop()
        if type(module) is not str or type(name) is not str:
            raise TypeError("a class without a name")
        self._push_global(module, name)

    def _push_global(self, module: str, name: str) -> None:
        full = f"{_PYTHON_3.get(module, module)}.{name}".replace("numpy._core.", "numpy.core.", 1)
        if full in self._constants:
            self._stack.append(self._constants[full])
        elif (
            full in self._makers or full.rpartition(".")[0] in self._makers
        ):  # the latter a method, and no maker: a name
            self._stack.append(Global(full))
        else:
            raise UnknownGlobal(full)

    def _reduce(self, _: Any) -> None:
        arguments, function = self._stack.pop(), self._stack.pop()
        if type(function) is not Global or type(arguments) is not tuple:
            raise TypeError("a call of what is no class or function")
        if function.name not in self._makers:
            raise UnknownGlobal(function.name)
        self._charge(arguments)
        if function.name in _HASHING:
            self._check_keys(arguments[0] if arguments else ())
        self._stack.append(self._makers[function.name](*arguments))

    def _build_state(self, _: Any) -> None:
        state, target = self._stack.pop(), self._stack[-1]
        self._charge(state if type(state) is tuple else (state,))
        if isinstance(target, Foreign):
            target.state = state
        elif not isinstance(target, dict | list) and not self._build(target, state):
            raise TypeError(f"a state for a {type(target).__name__}")
        # The attributes of dicts and lists are left out: those of a state_dict are versions of its modules.

    def _charge(self, values: tuple[Any, ...]) -> None:
        """Whatever is made of values may copy them, and a few bytes of a pickle can name a large value again."""
        for value in values:
            if isinstance(value, str | bytes | bytearray):
                self._made += getsizeof(value)
            elif isinstance(value, list | tuple | dict | set | frozenset):
                self._made += _ENTRY_BYTES * len(value)
        self._check_memory()  # before they are copied

    def _persistent_id(self, _: Any) -> None:
        if self._persistent is None:
            raise TypeError("a tensor where none can be")
        self._stack.append(self._persistent(self._stack.pop()))


class UnknownGlobal(Refused):
    """The pickle names a class or function that is not known here.

    Attributes:
        name: "module.name".
    """

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


_ENTRY_BYTES = 100
_SCALARS = frozenset({str, int, float, bool, bytes, type(None)})
_HASHING = frozenset({"builtins.set", "builtins.frozenset"})
_PYTHON_3 = {"__builtin__": "builtins", "copy_reg": "copyreg"}

_LITERALS = frozenset(
    {"INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"}
    | {"STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"}
    | {"BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"}
)
_FIXED: dict[str, Any] = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_EMPTY: dict[str, Callable[[], Any]] = {"EMPTY_LIST": list, "EMPTY_DICT": dict, "EMPTY_SET": set}
_ACTIONS: dict[str, Callable[[_Machine, Any], None]] = {
    "PROTO": _Machine._nothing,
    "FRAME": _Machine._nothing,
    "MARK": _Machine._mark,
    "PUT": _Machine._put,
    "BINPUT": _Machine._put,
    "LONG_BINPUT": _Machine._put,
    "MEMOIZE": _Machine._memoize,
    "GET": _Machine._get,
    "BINGET": _Machine._get,
    "LONG_BINGET": _Machine._get,
    "TUPLE": _Machine._tuple,
    "TUPLE1": lambda machine, _: machine._tuple_of(1),
    "TUPLE2": lambda machine, _: machine._tuple_of(2),
    "TUPLE3": lambda machine, _: machine._tuple_of(3),
    "LIST": _Machine._list,
    "DICT": _Machine._dict,
    "APPEND": _Machine._append,
    "APPENDS": _Machine._appends,
    "SETITEM": _Machine._setitem,
    "SETITEMS": _Machine._setitems,
    "ADDITEMS": _Machine._add_items,
    "FROZENSET": _Machine._frozenset,
    "GLOBAL": _Machine._global,
    "STACK_GLOBAL": _Machine._stack_global,
    "REDUCE": _Machine._reduce,
    "NEWOBJ": _Machine._reduce,
    "BUILD": _Machine._build_state,
    "BINPERSID": _Machine._persistent_id,
}

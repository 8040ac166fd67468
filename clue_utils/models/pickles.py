"""Read the weights, or the words, in a pickle without running anything else that it may hold.

A pickle is a program that builds objects. Here it runs on an interpreter that knows only what tables of arrays need: a
list of instructions, dicts with text for keys, and a handful of names, each of which stands for a function below; any
other ends the reading. No NumPy or PyTorch object is ever in the program's hands, and what it may claim is bounded by
the size of its file. Formats: ``paddle.save`` (``model_state.pdparams``), and ``torch.save`` in its zip form and in the
form it had before PyTorch 1.6 (``pytorch_model.bin``); see ``torch/serialization.py`` in PyTorch's source.
"""

from __future__ import annotations

import io
import math
import pickle
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path
from pickle import UnpicklingError
from typing import IO, Any

import numpy as np

from clue_utils.errors import UserError, shorten, show
from clue_utils.language import say
from clue_utils.models.vocabulary import read_bytes

StateDict = dict[str, np.ndarray]
Known = dict[tuple[str, str], Any]
_INSTRUCTIONS = [
    getattr(pickle, name)[0]
    for name in """
    PROTO FRAME STOP MARK POP POP_MARK NONE NEWTRUE NEWFALSE INT BININT BININT1 BININT2 LONG1 BINFLOAT
    SHORT_BINSTRING BINSTRING SHORT_BINBYTES BINBYTES BINBYTES8 UNICODE BINUNICODE SHORT_BINUNICODE BINUNICODE8
    EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3 EMPTY_DICT DICT SETITEM SETITEMS EMPTY_LIST APPEND APPENDS
    PUT BINPUT LONG_BINPUT MEMOIZE GET BINGET LONG_BINGET GLOBAL STACK_GLOBAL REDUCE BUILD BINPERSID
    """.split()
]
_NUMBER_TYPES = frozenset("f2 f4 f8 i1 i2 i4 i8 u1 u2 b1".split())
# Arrays may share the bytes of a file, as tied weights do, but not without limit.
_MAX_EXPANSION = 4
_TORCH_MAGIC = 0x1950A86A20F9469CFC6C
# bfloat16 is widened to float32 once it is read.
_BFLOAT16 = np.dtype([("bfloat16", "<u2")])
_STORAGES: dict[str, np.dtype] = {
    "FloatStorage": np.dtype("<f4"),
    "DoubleStorage": np.dtype("<f8"),
    "HalfStorage": np.dtype("<f2"),
    "BFloat16Storage": _BFLOAT16,
    "LongStorage": np.dtype("<i8"),
    "IntStorage": np.dtype("<i4"),
    "ShortStorage": np.dtype("<i2"),
    "CharStorage": np.dtype("i1"),
    "ByteStorage": np.dtype("u1"),
    "BoolStorage": np.dtype("?"),
}


def read_paddle_pickle(path: Path) -> StateDict:
    """Read ``model_state.pdparams``: arrays by parameter name.

    Raises:
        UserError: the file is damaged, or holds something that is not a table of arrays.
    """

    def read(file: IO[bytes], budget: _Budget) -> Any:
        return _Interpreter(file, _paddle_names(budget)).load()

    table = _table(path, read)
    # Paddle keeps a tensor as the pair of its internal name and its array.
    values = {key: value[1] if isinstance(value, tuple) and len(value) == 2 else value for key, value in table.items()}
    values.pop("StructuredToParameterName@@", None)
    return _require_arrays(path, values)


def read_torch_pickle(path: Path) -> StateDict:
    """Read ``pytorch_model.bin``: arrays by parameter name.

    Raises:
        UserError: the file is damaged, or holds something that is not a table of tensors.
    """

    def read(file: IO[bytes], budget: _Budget) -> Any:
        return _read_torch_zip(file, budget) if zipfile.is_zipfile(file) else _read_torch_stream(file, budget)

    return _require_arrays(path, dict(_table(path, read)))


def read_words(path: Path) -> list[str]:
    """Read a dictionary of words that a pickle holds as a set, list or dict of texts (ernie-tiny's): sorted.

    Raises:
        UserError: the file is damaged, larger than any dictionary, or holds something else.
    """
    content = io.BytesIO(read_bytes(path))
    words = _guarded(path, lambda *_: _Words(content, _WORD_NAMES).load(), say("a dictionary of words"))
    if not isinstance(words, (dict, set, frozenset, list, tuple)) or not all(type(word) is str for word in words):
        raise UserError(say("{path}: holds something else than words", path=path))
    return sorted(words)


def _guarded(path: Path, read: Callable[[IO[bytes], _Budget], Any], what: str | None = None) -> Any:
    try:
        with open(path, "rb") as file:
            return read(file, _Budget(_MAX_EXPANSION * path.stat().st_size))
    except UnpicklingError as error:
        raise UserError(f"{path}: {error}") from None
    except OSError:
        raise
    except Exception as error:  # a damaged pickle can raise anything
        raise UserError(
            say(
                "{path}: damaged or not {what} ({name}: {error})",
                path=path,
                what=what or say("a file of weights"),
                name=type(error).__name__,
                error=shorten(error),
            )
        ) from error


def _table(path: Path, read: Callable[[IO[bytes], _Budget], Any]) -> Any:
    table = _guarded(path, read)
    if not isinstance(table, dict):
        raise UserError(say("{path}: holds a {name}, not a table of weights", path=path, name=type(table).__name__))
    return table


def _require_arrays(path: Path, values: dict[str, Any]) -> StateDict:
    arrays = {}
    for name, value in values.items():
        if not isinstance(value, _Array):
            raise UserError(say("{path}: {name} is not an array of numbers", path=path, name=show(name)))
        array = value.array
        if array.dtype == _BFLOAT16:
            array = (array["bfloat16"].astype("<u4") << 16).view("<f4")
        arrays[name] = np.ascontiguousarray(array)
    return arrays


class _Budget:
    """Bytes that all arrays of a file may take together."""

    def __init__(self, num_bytes: int) -> None:
        self._left = num_bytes

    def take(self, num_bytes: int) -> None:
        self._left -= num_bytes
        if self._left < 0:
            raise UnpicklingError(say("refused: its arrays claim more memory than the file has bytes for"))


# --- the interpreter ---------------------------------------------------------------------------------------------


class _Stateful:
    """What a pickle may give a state to."""

    __slots__ = ()

    def set_state(self, state: Any) -> None:
        raise NotImplementedError


class _Table(dict[str, Any], _Stateful):
    """Stands for ``collections.OrderedDict``; the attributes that PyTorch gives one, such as versions, are dropped."""

    def __init__(self, pairs: Iterable[Any] = ()) -> None:
        super().__init__()
        for key, value in pairs:
            self[_text(key)] = value

    def set_state(self, state: Any) -> None:
        pass


class _Array(_Stateful):
    """An array as the outcome of a pickle; wrapped, so that the program cannot reach it."""

    __slots__ = ("array",)

    def __init__(self, array: np.ndarray) -> None:
        self.array = array


class _NumberType(_Stateful):
    """Stands for ``numpy.dtype``."""

    __slots__ = ("dtype",)

    def __init__(self, name: Any, *_: Any) -> None:
        if type(name) is not str or name not in _NUMBER_TYPES:
            raise UnpicklingError(say("refused: arrays of something else than numbers"))
        self.dtype = np.dtype(name)

    def set_state(self, state: Any) -> None:
        """Version, byte order, and what only structured types have."""
        if state[1] not in ("<", "|", "=") or any(part is not None for part in state[2:5]):
            raise UnpicklingError(say("refused: an unusual type of numbers"))


class _PaddleArray(_Array):
    """Stands for ``numpy.core.multiarray._reconstruct``: an empty array that is then given its state."""

    __slots__ = ("_budget",)

    def __init__(self, budget: _Budget) -> None:
        super().__init__(np.zeros(0, np.float32))
        self._budget = budget

    def set_state(self, state: Any) -> None:
        """Version, shape, type, whether in Fortran's order, and bytes."""
        _, shape, number_type, is_fortran, data = state
        if type(number_type) is not _NumberType or type(data) not in (bytes, str):
            raise UnpicklingError(say("refused: an unusual array"))
        self._budget.take(len(data))
        raw = data.encode("latin1") if isinstance(data, str) else data
        self.array = np.frombuffer(raw, number_type.dtype).reshape(shape, order="F" if is_fortran else "C")


def _text(value: Any) -> str:
    if type(value) is not str:
        raise UnpicklingError(say("refused: a key that is no text"))
    return value


# Python's interpreter of pickles that is written in Python: its instructions can be chosen.
_PythonUnpickler: Any = pickle._Unpickler


class _Interpreter(_PythonUnpickler):
    """Knows the given names and no other."""

    dispatch = {code: _PythonUnpickler.dispatch[code] for code in _INSTRUCTIONS}

    def __init__(self, file: IO[bytes], known: Known, load_storage: Callable[..., Any] | None = None) -> None:
        super().__init__(file, encoding="latin1")
        self._known, self._load_storage = known, load_storage

    def find_class(self, module: Any, name: Any) -> Any:
        if (_text(module), _text(name)) not in self._known:
            raise UnpicklingError(
                say(
                    "refused: the file asks to run {value}, which no table of weights needs",
                    value=shorten(f"{module}.{name}"),
                )
            )
        return self._known[module, name]

    def persistent_load(self, pid: Any) -> Any:
        kind, storage_type, key, _, size = pid[:5]
        if kind != "storage" or type(storage_type) is not _StorageType or type(size) is not int or size < 0:
            raise UnpicklingError(say("an object that is no tensor's storage"))
        if self._load_storage is None:
            raise UnpicklingError(say("a storage where there can be none"))
        return _Array(self._load_storage(storage_type.dtype, str(key), size))

    def load_build(self) -> None:
        state = self.stack.pop()
        if not isinstance(self.stack[-1], _Stateful):
            raise UnpicklingError(say("refused: a state for what has none"))
        self.stack[-1].set_state(state)

    def load_setitem(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self.stack[-1][_text(key)] = value

    def load_setitems(self) -> None:
        items = self.pop_mark()
        for key, value in zip(items[::2], items[1::2], strict=True):
            self.stack[-1][_text(key)] = value

    def load_dict(self) -> None:
        items = self.pop_mark()
        self.append({_text(key): value for key, value in zip(items[::2], items[1::2], strict=True)})

    dispatch |= {
        pickle.BUILD[0]: load_build,
        pickle.SETITEM[0]: load_setitem,
        pickle.SETITEMS[0]: load_setitems,
        pickle.DICT[0]: load_dict,
    }


class _Words(_Interpreter):
    """Knows sets and the lists of old protocols, and no arrays."""

    dispatch = _Interpreter.dispatch | {
        getattr(pickle, name)[0]: _PythonUnpickler.dispatch[getattr(pickle, name)[0]]
        for name in ("LIST", "EMPTY_SET", "ADDITEMS", "FROZENSET")
    }


_WORD_NAMES: Known = {
    (module, name): lambda items=(): set(items)
    for module in ("builtins", "__builtin__")
    for name in ("set", "frozenset")
}


# --- Paddle ------------------------------------------------------------------------------------------------------


def _paddle_names(budget: _Budget) -> Known:
    def encode(text: str, encoding: str) -> bytes:
        """Stands for ``_codecs.encode``, by which old protocols write bytes."""
        if encoding != "latin1":
            raise UnpicklingError(say("unexpected encoding {encoding}", encoding=show(encoding)))
        budget.take(len(text))
        return text.encode("latin1")

    def reconstruct(*_: Any) -> _PaddleArray:
        return _PaddleArray(budget)

    return {
        ("collections", "OrderedDict"): _Table,
        ("numpy", "ndarray"): "ndarray",
        ("numpy", "dtype"): _NumberType,
        ("numpy.core.multiarray", "_reconstruct"): reconstruct,
        ("numpy._core.multiarray", "_reconstruct"): reconstruct,
        ("_codecs", "encode"): encode,
        ("builtins", "tuple"): _tuple,
        ("__builtin__", "tuple"): _tuple,
    }


def _tuple(items: Any = ()) -> tuple[Any, ...]:
    return tuple(items)


# --- PyTorch -----------------------------------------------------------------------------------------------------


class _StorageType:
    """Stands for ``torch.FloatStorage`` and the like."""

    __slots__ = ("dtype",)

    def __init__(self, dtype: np.dtype) -> None:
        self.dtype = dtype


def _torch_names(budget: _Budget) -> Known:
    def strided(storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> _Array:
        """Stands for ``torch._utils._rebuild_tensor_v2``: a view on a storage, held to the storage's bounds."""
        if type(storage) is not _Array or any(type(n) is not int or n < 0 for n in (offset, *size, *stride)):
            raise UnpicklingError(say("a tensor that is none"))
        values = storage.array
        last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
        if 0 not in size and last >= len(values):
            raise UnpicklingError(say("a tensor lies outside its storage"))
        budget.take(math.prod(size) * values.itemsize)
        if 0 in size:
            return _Array(np.zeros(size, values.dtype))
        steps = [values.itemsize * n for n in stride]
        return _Array(np.lib.stride_tricks.as_strided(values[offset:], size, steps, writeable=False))

    def parameter(data: Any, *_: Any) -> Any:
        """Stands for ``torch._utils._rebuild_parameter``."""
        return data

    return {
        ("collections", "OrderedDict"): _Table,
        ("torch._utils", "_rebuild_tensor_v2"): strided,
        ("torch._utils", "_rebuild_parameter"): parameter,
        **{("torch", name): _StorageType(dtype) for name, dtype in _STORAGES.items()},
    }


def _read_torch_zip(file: IO[bytes], budget: _Budget) -> Any:
    with zipfile.ZipFile(file) as archive:
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
            raise UnpicklingError(say("refused: compressed, which torch.save never does"))
        table = next(name for name in archive.namelist() if name.endswith("data.pkl"))
        folder = table.removesuffix("data.pkl") + "data/"
        storages: dict[str, np.ndarray] = {}

        def load_storage(dtype: np.dtype, key: str, size: int) -> np.ndarray:
            if key not in storages:
                storages[key] = np.frombuffer(archive.read(folder + key), dtype, count=size)
            return storages[key]

        with archive.open(table) as stream:
            return _Interpreter(stream, _torch_names(budget), load_storage).load()


def _read_torch_stream(file: IO[bytes], budget: _Budget) -> Any:
    """The older form: four pickles, the storages' keys, then each storage's length and bytes."""
    file.seek(0)
    if _Interpreter(file, {}).load() != _TORCH_MAGIC:
        raise ValueError(say("not written by torch.save"))
    for _ in range(2):  # version of the format, sizes of the writer's integers
        _Interpreter(file, {}).load()
    storages: dict[str, np.ndarray] = {}

    def load_storage(dtype: np.dtype, key: str, size: int) -> np.ndarray:
        if key not in storages:
            budget.take(size * dtype.itemsize)
            storages[key] = np.zeros(size, dtype)  # filled below
        return storages[key]

    table = _Interpreter(file, _torch_names(budget), load_storage).load()
    keys = _Interpreter(file, {}).load()
    if sorted(keys) != sorted(storages):
        raise ValueError(say("its storages are not those of its tensors"))
    for key in keys:
        storage = storages[key]
        if file.read(8) != len(storage).to_bytes(8, "little"):
            raise ValueError(say("storage {key} has another length than its tensors", key=shorten(key)))
        if file.readinto(storage.view("u1")) != storage.nbytes:  # type: ignore[attr-defined]
            raise EOFError(say("the file ends inside a storage"))
    return table

"""Read the weights in a pickle without running anything else that it may hold.

A pickle names functions to be called while it is read; here only those that make arrays out of bytes are known, and
any other ends the reading. Formats: ``paddle.save`` (``model_state.pdparams``), and ``torch.save`` in its zip form and
in the form it had before PyTorch 1.6 (``pytorch_model.bin``); see ``torch/serialization.py`` in PyTorch's source.
"""

from __future__ import annotations

import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import IO, Any

import numpy as np

from clue_utils.errors import UserError

StateDict = dict[str, np.ndarray]

_TORCH_MAGIC = 0x1950A86A20F9469CFC6C
# bfloat16 is widened to float32 once it is read.
_BFLOAT16 = np.dtype([("bfloat16", "<u2")])
_STORAGES = {
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

    def read(file: IO[bytes]) -> Any:
        return _Unpickler(file, _ARRAYS).load()

    table = _guarded(path, read)
    # Paddle keeps a tensor as the pair of its internal name and its array.
    values = {key: value[1] if isinstance(value, tuple) and len(value) == 2 else value for key, value in table.items()}
    values.pop("StructuredToParameterName@@", None)
    return _require_arrays(path, values)


def read_torch_pickle(path: Path) -> StateDict:
    """Read ``pytorch_model.bin``: arrays by parameter name.

    Raises:
        UserError: the file is damaged, or holds something that is not a table of tensors.
    """

    def read(file: IO[bytes]) -> Any:
        return _read_torch_zip(file) if zipfile.is_zipfile(file) else _read_torch_stream(file, path.stat().st_size)

    return _require_arrays(path, dict(_guarded(path, read)))


def _guarded(path: Path, read: Any) -> Any:
    try:
        with open(path, "rb") as file:
            table = read(file)
    except pickle.UnpicklingError as error:
        raise UserError(f"{path}: {error}") from None
    except OSError:
        raise
    except Exception as error:  # a damaged pickle can raise anything
        raise UserError(f"{path}: damaged or not a file of weights ({type(error).__name__}: {error})") from error
    if not isinstance(table, dict):
        raise UserError(f"{path}: holds a {type(table).__name__}, not a table of weights")
    return table


def _require_arrays(path: Path, values: dict[Any, Any]) -> StateDict:
    for name, value in values.items():
        if not isinstance(name, str) or not isinstance(value, np.ndarray) or value.dtype.hasobject:
            raise UserError(f"{path}: {name!r} is not an array of numbers")
        if value.dtype == _BFLOAT16:
            values[name] = (value["bfloat16"].astype("<u4") << 16).view("<f4")
    return {name: np.ascontiguousarray(value) for name, value in values.items()}


def _encode(text: str, encoding: str) -> bytes:
    """Stands for ``_codecs.encode``, by which old protocols write bytes."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"unexpected encoding {encoding!r}")
    return text.encode("latin1")


def _strided(storage: np.ndarray, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: Any) -> np.ndarray:
    """Stands for ``torch._utils._rebuild_tensor_v2``: a view on a storage, held to the storage's bounds."""
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if min((offset, *size, *stride)) < 0 or (0 not in size and last >= len(storage)):
        raise pickle.UnpicklingError("a tensor lies outside its storage")
    if 0 in size:
        return np.zeros(size, storage.dtype)
    step = storage.dtype.itemsize
    return np.lib.stride_tricks.as_strided(storage[offset:], size, [step * n for n in stride], writeable=False)


def _parameter(data: np.ndarray, *_: Any) -> np.ndarray:
    """Stands for ``torch._utils._rebuild_parameter``."""
    return data


_reconstruct = np.zeros(0).__reduce__()[0]
_ARRAYS = {
    ("collections", "OrderedDict"): OrderedDict,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
    ("_codecs", "encode"): _encode,
    ("builtins", "tuple"): tuple,
    ("__builtin__", "tuple"): tuple,
}
_TENSORS = {
    ("collections", "OrderedDict"): OrderedDict,
    ("torch._utils", "_rebuild_tensor_v2"): _strided,
    ("torch._utils", "_rebuild_parameter"): _parameter,
} | {("torch", name): dtype for name, dtype in _STORAGES.items()}


class _Unpickler(pickle.Unpickler):
    """Knows the given names and no other."""

    def __init__(self, file: IO[bytes], known: dict[tuple[str, str], Any], load_storage: Any = None) -> None:
        super().__init__(file, encoding="latin1")
        self._known, self._load_storage = known, load_storage

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self._known:
            raise pickle.UnpicklingError(
                f"refused: the file asks to run {module}.{name}, which no table of weights needs"
            )
        return self._known[module, name]

    def persistent_load(self, pid: Any) -> Any:
        kind, dtype, key, _, size = pid[:5]
        if kind != "storage" or self._load_storage is None or not isinstance(dtype, np.dtype) or size < 0:
            raise pickle.UnpicklingError("an object that is no tensor's storage")
        return self._load_storage(dtype, str(key), int(size))


def _read_torch_zip(file: IO[bytes]) -> Any:
    with zipfile.ZipFile(file) as archive:
        table = next(name for name in archive.namelist() if name.endswith("data.pkl"))
        folder = table.removesuffix("data.pkl") + "data/"
        storages: dict[str, np.ndarray] = {}

        def load_storage(dtype: np.dtype, key: str, size: int) -> np.ndarray:
            if key not in storages:
                storages[key] = np.frombuffer(archive.read(folder + key), dtype, count=size)
            return storages[key]

        with archive.open(table) as stream:
            return _Unpickler(stream, _TENSORS, load_storage).load()


def _read_torch_stream(file: IO[bytes], num_bytes: int) -> Any:
    """The older form: four pickles, the storages' keys, then each storage's length and bytes."""
    file.seek(0)
    if _Unpickler(file, {}).load() != _TORCH_MAGIC:
        raise ValueError("not written by torch.save")
    for _ in range(2):  # version of the format, sizes of the writer's integers
        _Unpickler(file, {}).load()
    storages: dict[str, np.ndarray] = {}

    def load_storage(dtype: np.dtype, key: str, size: int) -> np.ndarray:
        if size * dtype.itemsize > num_bytes:
            raise pickle.UnpicklingError("a storage larger than its file")
        return storages.setdefault(key, np.empty(size, dtype))  # filled below

    table = _Unpickler(file, _TENSORS, load_storage).load()
    for key in _Unpickler(file, {}).load():
        storage = storages[key]
        if file.read(8) != len(storage).to_bytes(8, "little"):
            raise ValueError(f"storage {key} has another length than its tensors")
        if file.readinto(storage.view("u1")) != storage.nbytes:  # type: ignore[attr-defined]
            raise EOFError("the file ends inside a storage")
    return table

"""The weights of a checkpoint, whatever files hold them: by name, each read when it is asked for."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open

from clue_utils.errors import UserError, shorten
from clue_utils.language import say
from clue_utils.models.pickles import read_paddle_pickle, read_torch_pickle
from clue_utils.models.vocabulary import read_object
from clue_utils.record import WEIGHTS_FILE

logger = logging.getLogger(__name__)
_PICKLES: dict[str, Callable[[Path], dict[str, np.ndarray]]] = {
    "model_state.pdparams": read_paddle_pickle,
    "pytorch_model.bin": read_torch_pickle,
}
# The preferred first; each may be cut into parts that an index lists.
WEIGHTS_FILES = (WEIGHTS_FILE, *_PICKLES)
INDEX = ".index.json"
# Weights of other frameworks, by the ends of their files' names.
_FOREIGN = {".h5": "TensorFlow", ".ckpt.index": "TensorFlow", ".msgpack": "Flax", ".onnx": "ONNX", ".gguf": "GGUF"}
# A model of this kind has some hundreds of tensors; the header that lists them takes about a hundred bytes for each.
_MAX_TENSORS = 20_000
_MAX_HEADER_BYTES = 1 << 23
# safetensors' name of a type of numbers -> NumPy's.
_FLOATS = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}


class Weights:
    """Tensors by name.

    Attributes:
        files: the files that hold them.
        shapes: name -> shape.
        kinds: name -> kind of numbers, such as "float16".
        format: what the files say of their writer: "pt" for PyTorch, "np" or "pd" for Paddle, "" where they do not.
    """

    def __init__(self, files: Iterable[Path]) -> None:
        self.files = list(files)
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.kinds: dict[str, str] = {}
        self.format = ""
        self._arrays: dict[str, np.ndarray] = {}
        self._file_of: dict[str, Path] = {}
        for file in self.files:
            self._list_safetensors(file) if file.suffix == ".safetensors" else self._read_pickle(file)
        if not self.shapes:
            raise UserError(say("{files}: holds no tensor", files=self.files[0]))

    def _list_safetensors(self, file: Path) -> None:
        with open(file, "rb") as stream:
            header_bytes = int.from_bytes(stream.read(8), "little")
        if _MAX_HEADER_BYTES < header_bytes < file.stat().st_size:
            raise UserError(
                say(
                    "{file}: refused, its list of tensors takes {header_bytes:,} bytes",
                    file=file,
                    header_bytes=header_bytes,
                )
            )
        try:
            with safe_open(str(file), framework="np") as tensors:
                self.format = (tensors.metadata() or {}).get("format", self.format)
                for name in tensors.keys():  # noqa: SIM118, it is no mapping
                    part = tensors.get_slice(name)
                    kind = part.get_dtype()
                    self._add(name, tuple(part.get_shape()), _FLOATS.get(kind, kind.lower()), file)
        except (SafetensorError, OSError, ValueError) as error:
            raise UserError(
                say("{file}: damaged, or no file of safetensors ({error})", file=file, error=shorten(error, 120))
            ) from None

    def _read_pickle(self, file: Path) -> None:
        logger.warning(
            say(
                "{file} is a pickle: reading arrays from it and nothing else; safetensors load faster and safer",
                file=file,
            )
        )
        read = read_torch_pickle if file.suffix == ".bin" else read_paddle_pickle
        self.format = "pt" if file.suffix == ".bin" else "pd"
        for name, array in read(file).items():
            self._add(name, array.shape, array.dtype.name, file)
            self._arrays[name] = array

    def _add(self, name: str, shape: tuple[int, ...], kind: str, file: Path) -> None:
        if name in self.shapes:
            raise UserError(say("{file}: {name} is in another file too", file=file, name=name))
        self.shapes[name], self.kinds[name], self._file_of[name] = shape, kind, file
        if len(self.shapes) > _MAX_TENSORS:
            raise UserError(
                say("{file}: refused, it holds more than {max_tensors:,} tensors", file=file, max_tensors=_MAX_TENSORS)
            )

    def get(self, name: str) -> np.ndarray:
        """A tensor, float32.

        Raises:
            UserError: it is made of something else than floating-point numbers, or of some that are not finite.
        """
        if self.kinds[name] not in _FLOATS.values():
            raise UserError(
                say(
                    "{file_of}: {name} is of {kinds}: weights that are quantised or no floating-point numbers "
                    "cannot be fine-tuned; take the checkpoint in float32 or float16",
                    file_of=self._file_of[name],
                    name=name,
                    kinds=self.kinds[name],
                )
            )
        with np.errstate(over="ignore"):  # of float64
            value = np.ascontiguousarray(self._arrays[name] if name in self._arrays else self._read(name), np.float32)
        if not np.isfinite(value).all():
            raise UserError(
                say(
                    "{file_of}: {name} holds NaN or infinity: copy it anew, or train it again",
                    file_of=self._file_of[name],
                    name=name,
                )
            )
        return value

    def _read(self, name: str) -> np.ndarray:
        if self.kinds[name] == "bfloat16":
            return self._read_bfloat16(name)
        with safe_open(str(self._file_of[name]), framework="np") as tensors:
            value: np.ndarray = tensors.get_tensor(name)
        return value

    def _read_bfloat16(self, name: str) -> np.ndarray:
        """A tensor of a type that NumPy has not: the upper halves of float32 numbers."""
        with open(self._file_of[name], "rb") as stream:
            header_bytes = int.from_bytes(stream.read(8), "little")
            begin, end = json.loads(stream.read(header_bytes))[name]["data_offsets"]
            stream.seek(8 + header_bytes + begin)
            halves = np.frombuffer(stream.read(end - begin), "<u2")
        return (halves.astype("<u4") << 16).view("<f4").reshape(self.shapes[name])


def has_weights(folder: Path) -> bool:
    """Whether a folder holds weights that can be read."""
    return bool(_find(folder))


def _find(folder: Path) -> Path | None:
    """The file of weights in a folder that is preferred, or the index of its parts."""
    names = [name for file in WEIGHTS_FILES for name in (file, file + INDEX)]
    return next((folder / name for name in names if (folder / name).is_file()), None)


def open_weights(folder: Path) -> Weights:
    """The weights in a folder.

    Raises:
        UserError: there are none, or they cannot be read.
    """
    found = _find(folder)
    if found is None:
        foreign = {
            path.name: framework
            for path in sorted(folder.iterdir())
            for end, framework in _FOREIGN.items()
            if path.name.endswith(end)
        }
        if foreign:
            name, framework = next(iter(foreign.items()))
            raise UserError(
                say(
                    "{folder}: {framework}'s weights cannot be read; take the PyTorch or Paddle form of the "
                    "checkpoint ({weights_files})",
                    folder=folder / name,
                    framework=framework,
                    weights_files=say(" or ").join(WEIGHTS_FILES),
                )
            )
        raise UserError(
            say(
                "{folder}: no weights in this folder (looked for {weights_files})",
                folder=folder,
                weights_files=", ".join(WEIGHTS_FILES),
            )
        )
    return Weights(list_parts(found) if found.name.endswith(INDEX) else [found])


def list_parts(index: Path, must_exist: bool = True) -> list[Path]:
    """The files that an index of weights lists, all of them beside it and of its own kind.

    Raises:
        UserError: it names something else, or cannot be read.
    """
    suffix = Path(index.name.removesuffix(INDEX)).suffix
    parts = read_object(index).get("weight_map")
    names = list(parts.values()) if isinstance(parts, dict) else []
    is_safe = (isinstance(name, str) and name == Path(name).name and name.endswith(suffix) for name in names)
    if not names or not all(is_safe):
        raise UserError(
            say(
                "{index}: refused, it names none, or others than {suffix} files of this folder",
                index=index,
                suffix=suffix,
            )
        )
    files = [index.parent / name for name in sorted(set(names))]
    for file in files if must_exist else ():
        if len(file.name) > 255 or not file.is_file():
            raise UserError(
                say("{parent}: is missing, {name} lists it", parent=index.parent / shorten(file.name), name=index.name)
            )
    return files


def require_safe_shards(folder: Path) -> None:
    """Refuse an index of weights that names other files than safetensors beside it: PaddleNLP would unpickle those.

    Raises:
        UserError: it does, or it cannot be read.
    """
    for index in folder.glob(f"*{INDEX}"):
        if not index.name.endswith(f".safetensors{INDEX}"):
            raise UserError(say("{index}: refused, it names files that are no safetensors", index=index))
        list_parts(index, must_exist=False)

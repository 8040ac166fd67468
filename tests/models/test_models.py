"""Checkpoints as users have them: Paddle's and PyTorch's, safetensors and pickles, and pickles that mean harm."""

from __future__ import annotations

import io
import json
import os
import pickle
import shutil
import struct
import sys
import types
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clue_utils import models
from clue_utils.errors import UserError
from clue_utils.models import pickles
from clue_utils.tasks import TASKS


class Tensor:
    """Pickled as PyTorch pickles a tensor: a call of ``torch._utils._rebuild_tensor_v2`` on a storage."""

    def __init__(self, array: np.ndarray, key: str) -> None:
        self.array, self.key = np.ascontiguousarray(array), key

    def __reduce__(self) -> Any:
        strides = tuple(step // self.array.itemsize for step in self.array.strides)
        storage = Storage(self.array, self.key)
        rebuild = sys.modules["torch._utils"]._rebuild_tensor_v2
        return rebuild, (storage, 0, self.array.shape, strides, False, OrderedDict())


class Storage:
    def __init__(self, array: np.ndarray, key: str) -> None:
        self.array, self.key = array, key


class TorchPickler(pickle.Pickler):
    def persistent_id(self, value: Any) -> Any:
        if isinstance(value, Storage):
            kind = {"f": "FloatStorage", "i": "LongStorage"}[value.array.dtype.kind]
            return "storage", getattr(sys.modules["torch"], kind), value.key, "cpu", value.array.size
        return None


@pytest.fixture
def torch(monkeypatch):
    """Just the names that a pickle of PyTorch's refers to."""

    def named(name: str, module: str) -> Any:
        return type(name, (), {"__module__": module, "__qualname__": name})

    for module, names in (("torch", ("FloatStorage", "LongStorage")), ("torch._utils", ("_rebuild_tensor_v2",))):
        fake = types.ModuleType(module)
        for name in names:
            setattr(fake, name, named(name, module))
        monkeypatch.setitem(sys.modules, module, fake)


def dumps(value: Any) -> bytes:
    stream = io.BytesIO()
    TorchPickler(stream, 2).dump(value)
    return stream.getvalue()


def write_zip(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """As ``torch.save`` writes today."""
    tensors = {name: Tensor(array, str(i)) for i, (name, array) in enumerate(arrays.items())}
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", dumps(OrderedDict(tensors)))
        for tensor in tensors.values():
            archive.writestr(f"archive/data/{tensor.key}", tensor.array.tobytes())


def write_stream(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """As ``torch.save`` wrote before version 1.6."""
    tensors = {name: Tensor(array, str(i)) for i, (name, array) in enumerate(arrays.items())}
    with open(path, "wb") as file:
        for head in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}, OrderedDict(tensors)):
            file.write(dumps(head))
        file.write(dumps([tensor.key for tensor in tensors.values()]))
        for tensor in tensors.values():
            file.write(tensor.array.size.to_bytes(8, "little") + tensor.array.tobytes())


ARRAYS = {
    "a": np.arange(12, dtype=np.float32).reshape(3, 4),
    "b": np.float32([1.5]),
    "c": np.zeros((0, 2), np.float32),
}


@pytest.mark.parametrize("write", [write_zip, write_stream])
def test_weights_of_pytorch_are_read_without_pytorch(torch, tmp_path, write):
    write(tmp_path / "pytorch_model.bin", ARRAYS)
    read = pickles.read_torch_pickle(tmp_path / "pytorch_model.bin")
    assert list(read) == list(ARRAYS)
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(read[name], array)


@pytest.mark.parametrize("write", [write_zip, write_stream])
def test_a_cut_off_pickle_is_one_line(torch, tmp_path, write):
    path = tmp_path / "pytorch_model.bin"
    write(path, ARRAYS)
    whole = path.read_bytes()
    for length in range(0, len(whole), 13):
        path.write_bytes(whole[:length])
        with pytest.raises(UserError, match="pytorch_model.bin: "):
            pickles.read_torch_pickle(path)


def test_a_tensor_beyond_its_storage_is_refused(torch, tmp_path):
    class Beyond(Tensor):
        def __reduce__(self):
            rebuild, (storage, _, shape, strides, *rest) = super().__reduce__()
            return rebuild, (storage, 10**9, shape, strides, *rest)

    path = tmp_path / "pytorch_model.bin"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", dumps({"a": Beyond(ARRAYS["a"], "0")}))
        archive.writestr("archive/data/0", ARRAYS["a"].tobytes())
    with pytest.raises(UserError, match="outside its storage"):
        pickles.read_torch_pickle(path)


class Harm:
    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.trace),)


@pytest.mark.parametrize("name", ["model_state.pdparams", "pytorch_model.bin"])
def test_a_pickle_that_runs_code_is_caught(demo, tmp_path, name, caplog):
    folder, trace = tmp_path / "model", tmp_path / "harm"
    shutil.copytree(demo / "model", folder)
    (folder / "model.safetensors").unlink()
    payload = pickle.dumps({"w": Harm(trace)})
    if name.endswith(".bin"):
        with zipfile.ZipFile(folder / name, "w") as archive:
            archive.writestr("archive/data.pkl", payload)
    else:
        (folder / name).write_bytes(payload)
    with pytest.raises(UserError, match=rf"{name}: refused: the file asks to run posix\.mkdir"):
        models.load_model(str(folder), TASKS["TNEWS"], 0.1, 15, training=True)
    assert not trace.exists()
    pickle.loads(payload)  # which does harm where it is trusted
    assert trace.exists()


# Pickles by hand, since no honest program would write them: length-prefixed text and bytes, names, marks.
def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def global_(module: str, attribute: str) -> bytes:
    return f"c{module}\n{attribute}\n".encode()


def table(value: bytes) -> bytes:
    return b"\x80\x02}(" + text("w") + value + b"u."


def number(value: int) -> bytes:
    return b"J" + struct.pack("<i", value)


RAW = b"B" + struct.pack("<I", 8) + b"\0" * 8
OBJECTS = global_("numpy", "dtype") + b"(" + text("O8") + b"\x89\x88tR"
FLOATS = global_("numpy", "dtype") + b"(" + text("f4") + b"\x89\x88tR"
EMPTY = (
    global_("numpy.core.multiarray", "_reconstruct") + b"(" + global_("numpy", "ndarray") + b"(K\0t" + text("b") + b"tR"
)
STRANGE_STATE = b"(" + number(3) + text("|") + b"N(" + text("a") + b"t}" + number(-1) * 2 + b"K\0tb"


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (table(EMPTY + b"(K\x01(K\x01t" + OBJECTS + b"\x89" + RAW + b"tb"), "something else than numbers"),
        (
            table(EMPTY + b"(K\x01(K\x01t" + FLOATS + STRANGE_STATE + b"\x89" + RAW + b"tb"),
            "an unusual type of numbers",
        ),
        (table(EMPTY + b"(K\x01(" + number(1 << 28) + b"t" + FLOATS + b"\x89" + RAW + b"tb"), "cannot reshape"),
        (table(global_("numpy", "ndarray") + b"((" + number(1 << 28) + b"t" + FLOATS + b"tR"), "not callable"),
        (b"\x80\x02})" + b"q\0h\0\x86" * 60 + b"Ns.", "a key that is no text"),
        (b"\x80\x02})" + b"\x85" * 300_000 + b"Ns.", "a key that is no text"),
        (
            table(global_("collections", "OrderedDict") + b")R" + global_("numpy", "dtype") + b"b"),
            "is not an array of numbers",
        ),
        (
            table(
                b"(" + text("storage") + global_("collections", "OrderedDict") + text("0") + text("cpu") + b"K\x01tQ"
            ),
            "storage",
        ),
    ],
    ids=["objects", "fields", "shape", "size", "hash", "depth", "state", "storage"],
)
def test_a_pickle_that_means_harm_to_the_reader_is_refused(tmp_path, content, line):
    path = tmp_path / "model_state.pdparams"
    path.write_bytes(content)
    with pytest.raises(UserError, match=line) as error:
        pickles.read_paddle_pickle(path)
    assert str(error.value).startswith(f"{path}: ") and "\n" not in str(error.value)


def test_a_memo_of_any_number_takes_no_memory(tmp_path):
    path = tmp_path / "model_state.pdparams"
    path.write_bytes(b"\x80\x02}r\xff\xff\xff\x7f.")
    assert pickles.read_paddle_pickle(path) == {}


def test_a_compressed_pickle_of_pytorch_is_refused(tmp_path):
    path = tmp_path / "pytorch_model.bin"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/data.pkl", table(b"N"))
    with pytest.raises(UserError, match="compressed, which torch.save never does"):
        pickles.read_torch_pickle(path)


def test_an_index_that_leads_to_a_pickle_is_refused(demo, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(demo / "model", folder)
    (folder / "model.safetensors").unlink()
    trace = tmp_path / "harm"
    (folder / "x.pdparams").write_bytes(pickle.dumps({"w": Harm(trace)}))
    index = {"metadata": {}, "weight_map": {"ernie.pooler.dense.bias": "x.pdparams"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(UserError, match=r"index\.json: refused, it names none, or others than \.safetensors"):
        models.load_model(str(folder), TASKS["TNEWS"], 0.1, 15, training=True)
    assert not trace.exists()


def test_a_pickle_beside_safetensors_is_not_opened(demo, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(demo / "model", folder)
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Harm(tmp_path / "harm")))
    models.load_model(str(folder), TASKS["TNEWS"], 0.1, 15, training=True)
    assert not (tmp_path / "harm").exists()


def test_a_pickle_of_paddle_s_gives_the_same_model(demo, tmp_path, caplog):
    import paddle

    whole = models.load_model(str(demo / "model"), TASKS["TNEWS"], 0.1, 15, training=True)
    folder = tmp_path / "model"
    whole.save_pretrained(folder, safe_serialization=False)
    assert (folder / "model_state.pdparams").is_file()
    read = models.load_model(str(folder), TASKS["TNEWS"], 0.1, 15, training=False)
    for name, value in whole.state_dict().items():
        assert paddle.equal_all(value, read.state_dict()[name]), name
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "model_state.pdparams"]

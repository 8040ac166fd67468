"""From records to batches: encoding, the feature cache, padding, and the order of batches."""

from __future__ import annotations

import bisect
import hashlib
import itertools
import json
import logging
import math
import multiprocessing
import operator
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
from filelock import FileLock
from tqdm import tqdm

from clue_utils import results, runtime
from clue_utils.data import Records
from clue_utils.errors import UserError

logger = logging.getLogger(__name__)

# One feature: name -> integer, list of integers, or list of such lists (the choices of one question).
Feature = dict[str, Any]
Encode = Callable[[dict[str, Any]], Sequence[Feature]]
Batch = dict[str, np.ndarray]
Collate = Callable[[Sequence[Feature]], Batch]

_ROWS_PER_CHUNK = 512
# How many batches are formed at a time from rows in order of length.
_BATCHES_TO_SORT = 50
# Part of every cache key: raise it when the meaning or layout of cached features changes.
_CACHE_FORMAT = 3


class Encoder(Protocol):
    """What ``build_features`` needs of a method: see ``pipeline.Method``."""

    def settings(self) -> dict[str, Any]: ...

    def encode(self, record: dict[str, Any]) -> Sequence[Feature]: ...


class Features(Sequence[Feature]):
    """Encoded records of one split, memory-mapped from an Arrow file.

    ``features[i]`` is a dict of name -> int, 1-D int32 array, or list of such arrays; a slice gives a list of them.
    Nothing but the touched pages is held in memory.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        reader = pa.ipc.open_file(pa.memory_map(str(path)))
        self.names: list[str] = reader.schema.names
        batches = [reader.get_batch(i) for i in range(reader.num_record_batches)]
        for batch in batches:
            batch.validate(full=True)  # that no offset leads out of the file
        self._chunks = [[_arrays(column) for column in batch.columns] for batch in batches]
        self._ends = np.cumsum([batch.num_rows for batch in batches]).tolist()

    def __len__(self) -> int:
        return int(self._ends[-1]) if self._ends else 0

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        position = operator.index(index)
        if position < 0:
            position += len(self)
        if not 0 <= position < len(self):
            raise IndexError(f"no row {index} among {len(self)}")
        chunk = bisect.bisect_right(self._ends, position)
        row = position - (self._ends[chunk - 1] if chunk else 0)
        return {name: _cell(arrays, row) for name, arrays in zip(self.names, self._chunks[chunk], strict=True)}

    def _column(self, name: str) -> list[Arrays]:
        i = self.names.index(name)
        return [chunk[i] for chunk in self._chunks]

    def column(self, name: str) -> np.ndarray:
        """All values of a scalar column, int64 [len(self)]."""
        return np.concatenate([values for (values,) in self._column(name)] or [np.zeros(0, np.int64)])

    def sizes(self) -> np.ndarray:
        """Tokens of each row when its sequences are padded to the longest of them, int64 [len(self)]."""
        return np.concatenate([_padded_size(arrays) for arrays in self._column("input_ids")])


# What a column is made of: its values; before them, for lists, where each begins (and the last ends) among the values;
# before that, for lists of lists, where each begins among the lists.
Arrays = tuple[np.ndarray, ...]


def _arrays(column: Any) -> Arrays:
    """The arrays of an Arrow column, without a copy: slicing them is several times as fast as asking Arrow."""
    offsets = []
    while pa.types.is_list(column.type):
        offsets.append(column.offsets.to_numpy())
        column = column.values
    return (*offsets, column.to_numpy())


def _cell(arrays: Arrays, row: int) -> Any:
    *outer, values = arrays
    if not outer:
        return int(values[row])
    if len(outer) == 1:
        (begins,) = outer
        return values[begins[row] : begins[row + 1]]
    lists, begins = outer
    ends = begins[lists[row] : lists[row + 1] + 1].tolist()
    return [values[begin:end] for begin, end in itertools.pairwise(ends)]


def _padded_size(arrays: Arrays) -> np.ndarray:
    *lists, begins, _ = arrays
    lengths = np.diff(begins).astype(np.int64)
    return np.maximum.reduceat(lengths, lists[0][:-1]) * np.diff(lists[0]) if lists else lengths


# --- the cache ---------------------------------------------------------------------------------------------------


def tokenizer_fingerprint(tokenizer: Any) -> str:
    """Hex SHA-256 of what decides a tokenizer's output: its class, vocabulary and settings."""
    basic = getattr(tokenizer, "basic_tokenizer", None)
    settings = {name: sorted(v) if isinstance(v, set) else v for name, v in vars(basic).items()} if basic else {}
    # Of other values, such as RoFormer's vocabulary, the text is an address in memory.
    plain = {name: value for name, value in settings.items() if isinstance(value, str | int | list | None)}
    pieces = getattr(tokenizer, "sp_model", None)
    general = ("split_special_tokens", "truncation_side", "model_input_names", "unique_no_split_tokens")
    state = {
        "basic": [type(basic).__name__, *sorted((name, str(value)) for name, value in plain.items())],
        "class": type(tokenizer).__name__,
        "vocab": sorted(tokenizer.get_vocab().items()),
        "special": sorted((str(k), str(v)) for k, v in tokenizer.special_tokens_map.items()),
        "lower": getattr(tokenizer, "do_lower_case", None),
        "general": [getattr(tokenizer, name, None) for name in general],
        "sentencepiece": hashlib.sha256(pieces.serialized_model_proto()).hexdigest() if pieces else None,
    }
    return hashlib.sha256(json.dumps(state, ensure_ascii=False).encode()).hexdigest()


def build_features(
    records: Records,
    method: Encoder,
    tokenizer: Any,
    cache_dir: Path,
    num_proc: int | None = None,
    overwrite: bool = False,
) -> Features:
    """Encode records, or find them already encoded on disk.

    The file is named by everything the features depend on: the data's checksum, the tokenizer and the encoder's
    settings, and by its own checksum, which is compared whenever it is opened. It is written under another name and
    renamed when complete, and a lock lets one process build while others wait, so many trials may start at once.

    Args:
        method: encodes a record; its ``settings()`` are part of the cache's key.
        num_proc: processes that encode; None: one for each processor.
        overwrite: encode again although the file is there.

    Raises:
        UserError: one of the processes died, or nothing can be written to ``cache_dir``.
    """
    key = {
        "format": _CACHE_FORMAT,
        "task": records.task.name,
        "split": records.split,
        "data": records.sha256,
        "tokenizer": tokenizer_fingerprint(tokenizer),
        **method.settings(),
    }
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:24]
    stem = cache_dir / f"{records.task.name.lower()}-{records.split}-{digest}"
    # A complete file never changes, so that a cache that others have filled need not be writable.
    path = None if overwrite else _find(stem)
    how = "from cache"
    try:
        if path is None:
            cache_dir.mkdir(parents=True, exist_ok=True)
            with FileLock(f"{stem}.lock", mode=results.default_permissions()):
                path = None if overwrite else _find(stem)  # another process may have built it meanwhile
                if path is None:
                    _clear(stem, overwrite)
                    path, how = _write(records, method.encode, stem, num_proc or runtime.num_processors()), "built in"
    except OSError as error:
        if error.errno not in runtime.USER_ERRNOS:
            raise
        raise UserError(
            f"{cache_dir}: cannot keep features there ({error.strerror}): free some space, make it "
            "writable, or name another folder in CLUE_CACHE_DIR"
        ) from None
    features = Features(path)
    logger.info("%s %s: %d features %s %s", records.task.name, records.split, len(features), how, path)
    return features


def _find(stem: Path) -> Path | None:
    """The complete, undamaged file of a build, if it is there."""
    files = stem.parent.glob(f"{stem.name}.*.arrow")
    return next((path for path in files if path.name == f"{stem.name}.{_checksum(path)}.arrow"), None)


def _clear(stem: Path, overwrite: bool) -> None:
    """Remove what is in the way of a build: damaged files, and what builds that were killed have left."""
    for path in stem.parent.glob(f"{stem.name}.*.arrow"):
        if not overwrite:
            logger.warning("%s: damaged (its checksum is another one), building it again", path)
        path.unlink()
    for leftover in stem.parent.glob(f"{stem.name}.*.tmp"):
        leftover.unlink()


def _checksum(path: Path) -> str:
    return results.sha256_of(path)[:16]


def _write(records: Records, encode: Encode, path: Path, num_proc: int) -> Path:
    """Encode and write records; return ``path`` with checksum and suffix."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    writer = None
    try:
        progress = tqdm(total=len(records), desc=f"features {records.split}", unit="record", disable=None, leave=False)
        with progress, pa.OSFile(str(temporary), "wb") as sink:
            for batch in _encode_chunks(records, encode, num_proc):
                if writer is None:
                    writer = pa.ipc.new_file(sink, batch.schema)
                if batch.num_rows:
                    writer.write_batch(batch)
                progress.update(_ROWS_PER_CHUNK)
            if writer is not None:
                writer.close()
        complete = path.with_name(f"{path.name}.{_checksum(temporary)}.arrow")
        os.replace(temporary, complete)
        return complete
    finally:
        temporary.unlink(missing_ok=True)


# Set before the worker processes fork, so that records and tokenizer need not be pickled.
_job: tuple[Records, Encode] | None = None


def _encode_chunk(begin: int) -> Any:
    assert _job is not None
    records, encode = _job
    stop = min(begin + _ROWS_PER_CHUNK, len(records))
    rows = [feature for i in range(begin, stop) for feature in encode(records[i])]
    names = list(rows[0])
    return pa.RecordBatch.from_pydict({name: _arrow([row[name] for row in rows]) for name in names})


def _arrow(values: list[Any]) -> Any:
    kind: Any = pa.int64()
    if not isinstance(values[0], int):
        nested = len(values[0]) > 0 and isinstance(values[0][0], list)
        kind = pa.list_(pa.list_(pa.int32())) if nested else pa.list_(pa.int32())
    return pa.array(values, type=kind)


def _encode_chunks(records: Records, encode: Encode, num_proc: int) -> Iterator[Any]:
    global _job
    begins = range(0, len(records), _ROWS_PER_CHUNK)
    _job = (records, encode)
    try:
        if num_proc == 1 or len(begins) < 4:  # starting processes would take longer than the work
            yield from map(_encode_chunk, begins)
        else:
            with ProcessPoolExecutor(
                min(num_proc, len(begins)), multiprocessing.get_context("fork"), _begin_worker
            ) as pool:
                yield from pool.map(_encode_chunk, begins)
    except BrokenProcessPool:
        raise UserError(
            "a process that builds features was killed, perhaps for want of memory: pass --num_proc 1 to use less"
        ) from None
    finally:
        _job = None


def _begin_worker() -> None:
    """What the parent does on a signal is not for its workers; that it has ended, be it by SIGKILL, is."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def end_with_parent() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()


# --- batches -----------------------------------------------------------------------------------------------------


def collate(
    features: Sequence[Feature], pad_token_id: int, pad_to_multiple_of: int = 1, max_length: int = sys.maxsize
) -> Batch:
    """Pad rows to the longest sequence among them.

    Args:
        pad_to_multiple_of: pad further, to such a multiple, but not beyond ``max_length``.

    Returns:
        int64 arrays: ``input_ids``, ``token_type_ids`` (if the features have them) and ``attention_mask`` of shape
        [batch, length], or [batch, choices, length] for rows that hold several sequences; every scalar as [batch].
    """
    batch: Batch = {}
    lengths = np.array([_sequence_lengths(feature["input_ids"]) for feature in features])
    longest = int(lengths.max())
    width = max(longest, min(math.ceil(longest / pad_to_multiple_of) * pad_to_multiple_of, max_length))
    for name, value in features[0].items():
        if isinstance(value, int):
            batch[name] = np.array([feature[name] for feature in features], np.int64)
        elif name in ("input_ids", "token_type_ids"):
            padding = pad_token_id if name == "input_ids" else 0
            batch[name] = _pad([feature[name] for feature in features], padding, width)
    batch["attention_mask"] = (np.arange(width) < lengths[..., None]).astype(np.int64)
    return batch


def _sequence_lengths(sequences: Any) -> Any:
    return [len(sequence) for sequence in sequences] if isinstance(sequences, list) else len(sequences)


def _pad(rows: Sequence[Any], value: int, width: int) -> np.ndarray:
    nested = isinstance(rows[0], list)
    sequences = [sequence for row in rows for sequence in row] if nested else rows
    padded = np.full((len(sequences), width), value, np.int64)
    for line, sequence in zip(padded, sequences, strict=True):
        line[: len(sequence)] = sequence
    return padded.reshape(len(rows), len(rows[0]), -1) if nested else padded


def length_ordered_batches(sizes: np.ndarray, batch_size: int, max_tokens: int) -> list[np.ndarray]:
    """Row numbers in batches of similar length, longest first, so that little is padded and memory peaks at once.

    Args:
        sizes: tokens of each row, see ``Features.sizes``.
        batch_size: rows of a batch at the most.
        max_tokens: tokens of a batch at the most, padding included; a longer row is a batch of its own.
    """
    order = np.argsort(-sizes, kind="stable")
    batches = []
    begin = 0
    while begin < len(order):
        fitting = max_tokens // max(1, int(sizes[order[begin]]))
        end = begin + min(batch_size, max(1, fitting))
        batches.append(order[begin:end])
        begin = end
    return batches


def shuffled_batches(num_rows: int, batch_size: int, seed: int, epoch: int) -> list[np.ndarray]:
    """Row numbers of one epoch in an order that depends on seed and epoch alone; the last batch may be smaller."""
    order = np.random.default_rng([seed, epoch]).permutation(num_rows)
    return [order[i : i + batch_size] for i in range(0, num_rows, batch_size)]


def length_grouped_batches(sizes: np.ndarray, batch_size: int, seed: int, epoch: int) -> list[np.ndarray]:
    """As ``shuffled_batches``, with rows of similar length in a batch.

    Some fifty batches' worth of shuffled rows at a time are put in order of length and cut into batches, as in
    fairseq and transformers; the order of the batches is shuffled again. Only the last batch may be smaller.
    """
    rng = np.random.default_rng([seed, epoch])
    order = rng.permutation(len(sizes))
    pool = _BATCHES_TO_SORT * batch_size
    parts = [order[i : i + pool] for i in range(0, len(order), pool)]
    order = np.concatenate([part[np.argsort(-sizes[part], kind="stable")] for part in parts])
    batches = [order[i : i + batch_size] for i in range(0, len(order), batch_size)]
    num_full = len(order) // batch_size
    return [batches[i] for i in rng.permutation(num_full)] + batches[num_full:]


def batches_per_epoch(num_rows: int, batch_size: int) -> int:
    return math.ceil(num_rows / batch_size)

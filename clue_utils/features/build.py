"""Encode examples, once: the cache of features."""

from __future__ import annotations

import gc
import hashlib
import json
import logging
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import pyarrow as pa
from tqdm import tqdm

from clue_utils import cli, environment
from clue_utils.data.examples import Examples
from clue_utils.errors import USER_ERRNOS, UserError
from clue_utils.features.method import Method
from clue_utils.features.store import Feature, Features
from clue_utils.files import digest_of, locked, put, scratch
from clue_utils.language import say
from clue_utils.tasks import Example

logger = logging.getLogger(__name__)
Encode = Callable[[Example], Sequence[Feature]]
_ROWS_PER_CHUNK = 512
# Part of every cache key: raise it when the meaning or layout of cached features changes.
_CACHE_FORMAT = 3


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
    files = {name: content for name, content in getattr(tokenizer, "resources", {}).items() if name != "vocab.txt"}
    words = getattr(tokenizer, "words", None)
    if files or words or basic is None:  # other than word pieces
        known = [*getattr(tokenizer, "resource_files_names", ()), *tokenizer.special_tokens_map]
        given = getattr(tokenizer, "init_kwargs", {})
        plain = {k: v for k, v in given.items() if isinstance(v, str | int) and k not in known}
        state["files"] = [(name, hashlib.sha256(content).hexdigest()) for name, content in sorted(files.items())]
        state["words"] = words
        state["settings"] = sorted((name, str(value)) for name, value in plain.items())
    marks = [-1], [-2]  # in the place of two texts
    cls, sep = tokenizer.cls_token_id, tokenizer.sep_token_id
    pair = [
        tokenizer.build_inputs_with_special_tokens(*marks),
        tokenizer.create_token_type_ids_from_sequences(*marks),
    ]
    if pair != [[cls, -1, sep, -2, sep], [0, 0, 0, 1, 1]]:  # BERT's keys are older than this
        state["pair"] = pair
    return hashlib.sha256(json.dumps(state, ensure_ascii=False).encode()).hexdigest()


def build_features(
    examples: Examples,
    method: Method,
    tokenizer: Any,
    cache_dir: Path,
    num_proc: int | None = None,
    overwrite: bool = False,
    on_progress: Callable[[], None] = lambda: None,
) -> Features:
    """Encode examples, or find them already encoded on disk.

    The file is named by everything the features depend on: the data's checksum, the tokenizer and the encoder's
    settings, and by its own checksum, which is compared whenever it is opened. It is written under another name and
    renamed when complete, and a lock lets one process build while others wait, so many trials may start at once.

    Args:
        method: encodes an example; its ``settings()`` are part of the cache's key.
        num_proc: processes that encode; None: one for each processor.
        overwrite: encode again although the file is there.
        on_progress: called now and then while examples are encoded.

    Raises:
        UserError: one of the processes died, or nothing can be written to ``cache_dir``.
    """
    key = {
        "format": _CACHE_FORMAT,
        "task": examples.task.name,
        "split": examples.split,
        "data": examples.sha256,
        "tokenizer": tokenizer_fingerprint(tokenizer),
        **method.settings(),
    }
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:24]
    stem = cache_dir / f"{examples.task.name.lower()}-{examples.split}-{digest}"
    # A complete file never changes, so that a cache that others have filled need not be writable.
    path = None if overwrite else _find(stem)
    how = "from cache"
    try:
        if path is None:
            cache_dir.mkdir(parents=True, exist_ok=True)
            waited = f"{examples.task.name} {examples.split}"
            note = say("{data}: waiting for the process that builds these features", data=waited)
            with locked(stem.with_name(f"{stem.name}.lock"), note=note):
                path = None if overwrite else _find(stem)  # another process may have built it meanwhile
                if path is None:
                    _clear(stem, overwrite)
                    path = _write(examples, method.encode, stem, num_proc or environment.num_processors(), on_progress)
                    how = "built in"
    except OSError as error:
        if error.errno not in USER_ERRNOS:
            raise
        raise UserError(
            say(
                "{cache_dir}: cannot keep features there ({strerror}): free some space, make it writable, or name "
                "another folder in CLUE_CACHE_DIR",
                cache_dir=cache_dir,
                strerror=error.strerror,
            )
        ) from None
    features = Features(path)
    logger.info("%s %s: %d features %s %s", examples.task.name, examples.split, len(features), how, path)
    return features


def _find(stem: Path) -> Path | None:
    """The complete, undamaged file of a build, if it is there."""
    files = stem.parent.glob(f"{stem.name}.*.arrow")
    return next((path for path in files if path.name == f"{stem.name}.{_checksum(path)}.arrow"), None)


def _clear(stem: Path, overwrite: bool) -> None:
    """Remove damaged files, which are in the way of a build."""
    for path in stem.parent.glob(f"{stem.name}.*.arrow"):
        if not overwrite:
            logger.warning(say("{path}: damaged (its checksum is another one), building it again", path=path))
        path.unlink()


def _checksum(path: Path) -> str:
    return digest_of(path)[:16]


def _write(examples: Examples, encode: Encode, stem: Path, num_proc: int, on_progress: Callable[[], None]) -> Path:
    """Encode and write examples; return ``stem`` with checksum and suffix."""
    writer = None
    with scratch(stem) as written:
        desc = f"features {examples.split}"
        pulse = cli.Pulse(desc, len(examples), "examples")
        progress = tqdm(total=len(examples), desc=desc, unit="example", disable=None, leave=False)
        with progress, pa.OSFile(str(written), "wb") as sink:
            for batch in _encode_chunks(examples, encode, num_proc):
                if writer is None:
                    writer = pa.ipc.new_file(sink, batch.schema)
                if batch.num_rows:
                    writer.write_batch(batch)
                progress.update(_ROWS_PER_CHUNK)
                pulse.advance(_ROWS_PER_CHUNK)
                on_progress()
            if writer is not None:
                writer.close()
        complete = stem.with_name(f"{stem.name}.{_checksum(written)}.arrow")
        put(written, complete)
        return complete


# Set before the worker processes fork, so that examples and tokenizer need not be pickled.
_job: tuple[Examples, Encode] | None = None


def _encode_chunk(begin: int) -> Any:
    assert _job is not None
    examples, encode = _job
    stop = min(begin + _ROWS_PER_CHUNK, len(examples))
    return _record_batch([feature for i in range(begin, stop) for feature in encode(examples[i])])


def features_in_memory(rows: Sequence[Feature]) -> Features:
    """Features, at least one, that no file is made of."""
    return Features.in_memory(_record_batch(rows))


def _record_batch(rows: Sequence[Feature]) -> Any:
    names = list(rows[0])
    return pa.RecordBatch.from_pydict({name: _arrow([row[name] for row in rows]) for name in names})


def _arrow(values: list[Any]) -> Any:
    kind: Any = pa.int64()
    if not isinstance(values[0], int):
        nested = len(values[0]) > 0 and isinstance(values[0][0], list)
        kind = pa.list_(pa.list_(pa.int32())) if nested else pa.list_(pa.int32())
    return pa.array(values, type=kind)


def _encode_chunks(examples: Examples, encode: Encode, num_proc: int) -> Iterator[Any]:
    global _job
    begins = range(0, len(examples), _ROWS_PER_CHUNK)
    _job = (examples, encode)
    try:
        if num_proc == 1 or len(begins) < 4:  # starting processes would take longer than the work
            yield from map(_encode_chunk, begins)
        else:
            with ProcessPoolExecutor(
                min(num_proc, len(begins)), multiprocessing.get_context("fork"), _begin_worker
            ) as pool:
                gc.freeze()  # what the children collected might be memory of this process's GPU
                chunks = pool.map(_encode_chunk, begins)
                gc.unfreeze()
                yield from chunks
    except BrokenProcessPool:
        raise UserError(
            say("a process that builds features was killed, perhaps for want of memory: pass --num_proc 1 to use less")
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

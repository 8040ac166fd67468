"""Find the official files of a task and load them.

Where they are looked for: the folder given, else ``$CLUE_DATA_DIR``, else a cache that is filled by download. The
files are described in the CLUE repository (https://github.com/CLUEbenchmark/CLUE); names, fields and labels stand in
``tasks``, and ``readers`` reads and checks them.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from clue_utils.data.download import MACOS_FOLDER, fetch
from clue_utils.data.packed_rows import PackedRows
from clue_utils.data.readers import READERS, Reader
from clue_utils.errors import UserError
from clue_utils.language import say
from clue_utils.tasks import NO_LABEL, TASKS, Example, Task

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Examples(Sequence[Example]):
    """The checked examples of one split, see :func:`load_examples`.

    Attributes:
        files: what was read, in order; a file of answers comes last.
        sha256: hex digest over the bytes of ``files``, one after the other.
        num_dropped: examples left out because their gold label is "-".
    """

    task: Task
    split: str
    rows: Sequence[Example] = field(repr=False)
    files: tuple[Path, ...]
    sha256: str
    num_dropped: int

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: Any) -> Any:
        return self.rows[index]

    def __iter__(self) -> Iterator[Example]:
        return iter(self.rows)


def cache_dir() -> Path:
    """Folder for what can be made again: ``$CLUE_CACHE_DIR``, else ``clue_benchmark`` in the user's cache folder."""
    if given := os.environ.get("CLUE_CACHE_DIR"):
        return Path(given).expanduser()
    # The XDG base directory specification has relative paths ignored.
    if os.path.isabs(given := os.environ.get("XDG_CACHE_HOME", "")):
        return Path(given) / "clue_benchmark"
    try:
        return Path.home() / ".cache" / "clue_benchmark"
    except RuntimeError:
        raise UserError(say("no home folder to keep a cache in: set CLUE_CACHE_DIR")) from None


def load_examples(
    task: Task, split: str, data_dir: str | os.PathLike[str] | None = None, limit: int | None = None
) -> Examples:
    """Read one split of a task; with ``limit`` its first so many examples, which have a checksum of their own.

    ``data_dir`` (else ``$CLUE_DATA_DIR``) holds the task's folder (``tnews_public/``), or is that folder; the files
    may be one folder deeper, as some archives unpack. Given neither, the data is downloaded to ``cache_dir()/"data"``.
    A given folder is taken whatever its files' checksums, and the log says which known release they are.

    Rows by ``task.kind``; in test splits, gold answers are ignored and left out where there are any:

    - classification: the fields of ``task.fields``; ``id``, the record's own or else its position in the file from 0;
      ``label``, the position in ``task.labels`` (int). Examples with gold label "-" are left out and counted.
    - multiple_choice: ``id`` (int; in tests the question's own, else a running number), ``context`` (list of str),
      ``question``, ``choice`` (list of 2 to 4 str), ``label``: position of the answer in ``choice``. Where the choices
      repeat the answer, as in two official training questions, it is the first of these positions: equal choices get
      equal scores and the first highest is what is predicted. A test question with more than four choices keeps the
      first four, as in the published runs, with a warning.
    - span: ``id`` (str), ``context``, ``question``, ``answers``: list of ``{"text": str, "answer_start": int}``, the
      start in characters as in the file, which may be wrong or negative; empty in tests.
    - cloze: ``content`` (list of str), ``candidates`` (list of 10 str), and ``answers``: position in ``candidates``
      (int) by tag, for each tag of the row in order.

    Raises:
        UserError: the folder or a file is missing, or something in a file is not as described.
    """
    files = find_files(task, split, data_dir)
    reader = Reader()
    has_answers = split not in task.test_splits
    num_dropped = 0

    def labelled() -> Iterator[Example]:
        nonlocal num_dropped
        for row in READERS[task.kind](reader, task, has_answers, files):
            if row is None:
                num_dropped += 1
            else:
                yield row

    rows = PackedRows(labelled())
    sha256, num_all = reader.sha256.hexdigest(), len(rows)
    if limit is not None and limit < num_all:  # all are checked
        rows = PackedRows(rows[:limit])
        sha256 = hashlib.sha256(f"{sha256} {limit}".encode()).hexdigest()
    names = ", ".join(map(str, files))
    if not rows:
        if num_dropped:
            raise UserError(
                say('{names}: no example with a gold label other than "{label}"', names=names, label=NO_LABEL)
            )
        raise UserError(say("{names}: no example", names=names))
    logger.info(
        "%s %s: %d examples%s from %s; %s",
        task.name,
        split,
        len(rows),
        (f", the first of {num_all}," if len(rows) < num_all else "")
        + (f" ({num_dropped} without a gold label left out)" if num_dropped else ""),
        names,
        _describe_release(task, split, reader.md5),
    )
    return Examples(task, split, rows, files, sha256, num_dropped)


def _given(data_dir: str | os.PathLike[str] | None) -> str | os.PathLike[str] | None:
    """The folder that the user names: in a flag, or in the environment."""
    return data_dir if data_dir is not None else os.environ.get("CLUE_DATA_DIR") or None


def data_root(data_dir: str | os.PathLike[str] | None) -> Path:
    """The folder with the tasks' folders, which need not be there."""
    given = _given(data_dir)
    return cache_dir() / "data" if given is None else Path(given).expanduser()


def require_given(task: Task, splits: Iterable[str], data_dir: str | os.PathLike[str] | None) -> None:
    """See that the files of some splits are where the user says, or were downloaded before; what is not, will be.

    Raises:
        UserError: one is missing.
    """
    is_at_hand = task.is_own or _given(data_dir) is not None or (data_root(None) / task.folder).is_dir()
    for split in splits:
        if is_at_hand or task.splits[split].is_placed:
            find_files(task, split, data_dir)


def find_files(task: Task, split: str, data_dir: str | os.PathLike[str] | None) -> tuple[Path, ...]:
    """The files of a split in reading order, as :func:`load_examples` looks for them; fetched if need be.

    Raises:
        UserError: one is missing.
    """
    spec = task.splits[split]
    if task.is_own and not spec.files:
        word = {"dev": "validation"}.get(split, split)
        raise UserError(
            say('{source}: no {word} file: name it in "files", or pass --{word}_file', source=task.source, word=word)
        )
    if spec.is_placed:
        paths = [Path(name) for name in (*spec.files[0], *([spec.answers] if spec.answers else []))]
        for path in paths:
            if not path.exists():
                raise UserError(
                    say("{path}: no such file, of the {split} split of {name}", path=path, split=split, name=task.name)
                )
        return tuple(paths)
    given = _given(data_dir)
    if given is None:
        folder = fetch(task, data_root(None))
    else:
        folder = _find_folder(task, Path(given), "CLUE_DATA_DIR" if data_dir is None else "--data_dir")
    return _find_files(folder, task, split)


def _find_folder(task: Task, root: Path, source: str) -> Path:
    """The folder with the task's files; ``source`` is what named ``root``."""
    names = {name for split in task.splits.values() for files in split.files for name in files}
    # The folder of another task has files of the same names: never take those.
    others = {other.folder for other in TASKS.values()} - {task.folder}
    try:
        root = root.expanduser()
        if not root.is_dir():
            raise UserError(say("{source} {root}: not a folder", source=source, root=root))
        own = root / task.folder
        deeper = [path for path in sorted(own.iterdir()) if path.is_dir()] if own.is_dir() else []
        deeper = [path for path in deeper if path.name != MACOS_FOLDER and not path.name.startswith(".")]
        for candidates in ([own], deeper, [root] if root.resolve().name not in others else []):
            found = [folder for folder in candidates if any((folder / name).exists() for name in names)]
            if len(found) > 1:
                raise UserError(
                    say(
                        "{source}: {name}'s files are in both {one} and {other}: name one",
                        source=source,
                        name=task.name,
                        one=found[0],
                        other=found[1],
                    )
                )
            if found:
                return found[0]
    except (OSError, RuntimeError) as error:
        raise UserError(
            say("{source} {root}: cannot be read ({error})", source=source, root=root, error=error)
        ) from None
    raise UserError(
        say(
            "{source} {root}: no files of {name}; looked for {folder}/ with {names}, and for these files in the "
            "folder itself",
            source=source,
            root=root,
            name=task.name,
            folder=task.folder,
            names=", ".join(sorted(names)),
        )
    )


def _find_files(folder: Path, task: Task, split: str) -> tuple[Path, ...]:
    """The files of a split in a folder, in reading order."""
    spec = task.splits[split]
    alternatives = [names + ((spec.answers,) if spec.answers else ()) for names in spec.files]
    missing = [[name for name in names if not (folder / name).exists()] for names in alternatives]
    for names, absent in zip(alternatives, missing, strict=True):
        if not absent:
            return tuple(folder / name for name in names)
    accepted = say(" or ").join(say(" with ").join(names) for names in alternatives)
    raise UserError(
        say(
            "{folder}: no {missing}: the {split} split of {name} needs {accepted}",
            folder=folder,
            missing=missing[0][0],
            split=split,
            name=task.name,
            accepted=accepted,
        )
    )


def _describe_release(task: Task, split: str, md5: Mapping[Path, str]) -> str:
    """What the files' checksums say; warns of files that a known release has under another split."""
    if task.is_own:
        return "own data"
    spec = TASKS.get(task.name, task).splits.get(split) or task.splits[split]
    own_names = {name for names in spec.files for name in names}
    known = {path: task.md5[digest] for path, digest in md5.items() if digest in task.md5}
    for path, name in known.items():
        if name not in own_names:
            logger.warning(say("{path}: by its checksum this is the official {name}", path=path, name=name))
    if len(known) == len(md5):
        return "checksum of the known release"
    official = f"the official split has {spec.num_examples:,} examples"
    if not own_names & set(task.md5.values()):
        return f"no checksum of a release is known, {official}"
    return f"checksum of no known release (a subset or another one), {official}"

"""Features of a split, mapped from the cache."""

from __future__ import annotations

import bisect
import copy
import itertools
import operator
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

# One feature: name -> integer, list of integers, or list of such lists (the choices of one question).
Feature = dict[str, Any]


class Features(Sequence[Feature]):
    """Encoded examples of one split, memory-mapped from an Arrow file.

    ``features[i]`` is a dict of name -> int, 1-D int32 array, or list of such arrays; a slice gives a list of them.
    Nothing but the touched pages is held in memory.
    """

    def __init__(self, path: Path) -> None:
        import pyarrow as pa  # which takes as long as all else that --help does

        reader = pa.ipc.open_file(pa.memory_map(str(path)))
        batches = [reader.get_batch(i) for i in range(reader.num_record_batches)]
        for batch in batches:
            batch.validate(full=True)  # that no offset leads out of the file
        self._take(path, reader.schema.names, batches)

    @classmethod
    def in_memory(cls, batch: Any) -> Features:
        """The features of an Arrow record batch, of which there is no file."""
        features = cls.__new__(cls)
        features._take(None, batch.schema.names, [batch])
        return features

    def _take(self, path: Path | None, names: list[str], batches: list[Any]) -> None:
        self.path, self.names = path, names
        self._chunks = [[_arrays(column) for column in batch.columns] for batch in batches]
        self._ends = np.cumsum([batch.num_rows for batch in batches]).tolist()

    def followed_by(self, other: Features) -> Features:
        """The rows of both, those of ``other`` last."""
        both = copy.copy(self)
        order = [other.names.index(name) for name in self.names]
        both._chunks = self._chunks + [[chunk[i] for i in order] for chunk in other._chunks]
        both._ends = self._ends + [len(self) + end for end in other._ends]
        return both

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

    def longest(self) -> np.ndarray:
        """Tokens of the longest sequence of each row, int64 [len(self)]."""
        return np.concatenate([_longest(arrays) for arrays in self._column("input_ids")])


# What a column is made of: its values; before them, for lists, where each begins (and the last ends) among the values;
# before that, for lists of lists, where each begins among the lists.
Arrays = tuple[np.ndarray, ...]


def _arrays(column: Any) -> Arrays:
    """The arrays of an Arrow column, without a copy: slicing them is several times as fast as asking Arrow."""
    offsets = []
    while hasattr(column, "offsets"):  # a list
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


def _longest(arrays: Arrays) -> np.ndarray:
    *lists, begins, _ = arrays
    lengths = np.diff(begins).astype(np.int64)
    return np.maximum.reduceat(lengths, lists[0][:-1]) if lists else lengths


def _padded_size(arrays: Arrays) -> np.ndarray:
    lists = arrays[:-2]
    longest = _longest(arrays)
    return longest * np.diff(lists[0]) if lists else longest

"""Features of a split, mapped from the cache."""

from __future__ import annotations

import bisect
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


def _padded_size(arrays: Arrays) -> np.ndarray:
    *lists, begins, _ = arrays
    lengths = np.diff(begins).astype(np.int64)
    return np.maximum.reduceat(lengths, lists[0][:-1]) * np.diff(lists[0]) if lists else lengths

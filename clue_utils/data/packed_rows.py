"""Many small examples in little memory."""

from __future__ import annotations

import marshal
from array import array
from collections.abc import Iterable, Sequence
from typing import Any

from clue_utils.tasks import Example


class PackedRows(Sequence[Example]):
    """Rows in one block of memory, each unpacked when it is read.

    They take a fraction of what as many dicts would, and none of it is copied in a process that is forked to encode
    them, which counting references to dicts would do page by page.
    """

    def __init__(self, rows: Iterable[Example]) -> None:
        self._block = bytearray()
        self._ends = array("q")
        for row in rows:
            self._block += marshal.dumps(row)  # quick, and for the plain values of JSON; never written to disk
            self._ends.append(len(self._block))

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        number = range(len(self))[index]
        begin = self._ends[number - 1] if number else 0
        return marshal.loads(memoryview(self._block)[begin : self._ends[number]])

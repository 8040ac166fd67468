"""The comparison with PyTorch, as far as it goes without: its batch, and a Python that is none."""

from __future__ import annotations

import numpy as np
import pytest

import compare_pytorch
from clue_utils.errors import UserError


def test_a_character_is_an_id_and_padding_stands_at_the_end():
    rows, num_ids = compare_pytorch.make_rows([("一二", "三"), ("三", "一三二四")])
    assert num_ids == compare_pytorch.NUM_SPECIAL + 4
    ids, segments, mask = (rows[name] for name in ("input_ids", "token_type_ids", "attention_mask"))
    one, two, three, four = (compare_pytorch.NUM_SPECIAL + "一三二四".index(char) for char in "一二三四")
    assert ids.tolist() == [[3, one, two, 4, three, 4, 0, 0], [3, three, 4, one, three, two, four, 4]]
    assert segments.tolist() == [[0, 0, 0, 0, 1, 1, 0, 0], [0, 0, 0, 1, 1, 1, 1, 1]]
    np.testing.assert_array_equal(mask, ids > 0)


def test_the_texts_are_of_several_lengths(monkeypatch):
    monkeypatch.delenv("CLUE_DATA_DIR", raising=False)
    texts = compare_pytorch.read_texts()
    assert len(texts) == compare_pytorch.NUM_TEXTS and len({len(a) + len(b) for a, b in texts}) > 3


def test_a_python_without_pytorch_is_one_line(tmp_path, capsys):
    with pytest.raises(UserError, match=r"^--pytorch /nowhere: No such file or directory$"):
        compare_pytorch.main(["--pytorch", "/nowhere", "--architectures", "bert"])
    program = tmp_path / "python"
    program.write_text("#!/bin/sh\necho ModuleNotFoundError: torch >&2\nexit 1\n", encoding="utf-8")
    program.chmod(0o755)
    with pytest.raises(UserError, match="ModuleNotFoundError: torch$"):
        compare_pytorch.main(["--pytorch", str(program), "--architectures", "bert"])

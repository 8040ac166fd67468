"""The check of the published models: its texts fill the lengths that it says."""

from __future__ import annotations

import check_models
import run_c3
import run_cmrc2018
from clue_utils.data.examples import load_examples
from clue_utils.tasks import TASKS
from clue_utils.training.classification import Classification
from demo.records import make_data, sizes_for

SETTINGS = {"doc_stride": 128, "max_query_length": 64, "n_best_size": 20, "max_answer_length": 50}


def test_every_text_fills_its_task_s_length(tokenizer, tmp_path):
    make_data(tmp_path, sizes=sizes_for(4))
    check_models.lengthen(tmp_path)
    for name in check_models.TASK_NAMES:
        task = TASKS[name]
        length = task.max_seq_length
        method = {
            "C3": lambda n=length: run_c3.C3(tokenizer, n),
            "CMRC2018": lambda n=length: run_cmrc2018.Cmrc2018(tokenizer, n, **SETTINGS),
        }.get(name, lambda n=length, task=task: Classification(task, tokenizer, n))()
        for split in ("train", *task.test_splits):
            for example in load_examples(task, split, tmp_path):
                ids = method.encode(example)[0]["input_ids"]
                rows = ids if name == "C3" else [ids]
                assert [len(row) for row in rows] == [length] * len(rows), (name, split)

#!/usr/bin/env python
"""Compare encoders and heads with those of PyTorch: the same random weights, the same texts.

Every architecture whose checkpoints are read in PyTorch's form is made there, small, with each of the heads, and saved
as its users save it; the folder is loaded here as any is. The table shows the largest difference of what both compute
for 20 texts of several lengths in one batch, and after it the largest value. Above 1e-5 of that it is a failure.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from clue_utils import cli, environment
from clue_utils.data.examples import load_examples
from clue_utils.errors import UserError
from clue_utils.report.render import markdown_rows, markdown_table
from clue_utils.tasks import TASKS
from demo.records import make_data, sizes_for

environment.import_libraries()

import paddle  # noqa: E402

from clue_utils import models  # noqa: E402
from clue_utils.models import heads  # noqa: E402
from clue_utils.models.families import BY_TYPE, Family  # noqa: E402
from clue_utils.models.generic_heads import encode  # noqa: E402

PYTORCH_PART = Path(__file__).with_name("random_pytorch.py")
TOLERANCE = 1e-5
NUM_TEXTS, NUM_CHOICES, NUM_SPECIAL = 20, 4, 10
# What a class of transformers is called at its end -> the task whose head that is.
TASK_OF = {
    "ForSequenceClassification": "TNEWS",
    "ForMultipleChoice": "C3",
    "ForQuestionAnswering": "CMRC2018",
    "Model": "TNEWS",
}
SIZES = {
    "hidden_size": 32,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 160,
    "hidden_act": "gelu",
    # By the names of single architectures.
    "num_key_value_heads": 2,
    "head_dim": 8,
    "d_inner": 64,
    "encoder_ffn_dim": 64,
    "decoder_ffn_dim": 64,
    "decoder_layers": 1,
    "decoder_attention_heads": 4,
}
# Whose heads stand over the decoder there.
ENCODERS_ALONE = ["mbart"]
# Which takes the last place of a row there, and so is padded on the left; positions are relative.
PADDED_LEFT = ["xlnet"]
# Which would embed the segments as words.
WITHOUT_SEGMENTS = ["gpt2"]
_DEBERTA = {"relative_attention": True, "pos_att_type": ["p2c", "c2p"], "position_biased_input": False}
# Architecture -> settings that change what is computed, beside the sizes; each is tried.
VARIANTS: dict[str, list[dict[str, Any]]] = {
    "albert": [{"embedding_size": 16, "hidden_act": "gelu_new"}],
    "electra": [{"embedding_size": 32}, {"embedding_size": 16}],
    "ernie": [{}, {"use_task_id": True, "task_type_vocab_size": 3, "type_vocab_size": 4}],
    "roformer": [{}, {"embedding_size": 16}, {"rotary_value": True}],
    "deberta-v2": [
        {},
        _DEBERTA | {"position_buckets": 32, "share_att_key": True, "norm_rel_ebd": "layer_norm"},
        _DEBERTA | {"position_buckets": 32, "share_att_key": True, "conv_kernel_size": 3, "conv_act": "gelu"},
        _DEBERTA | {"type_vocab_size": 2, "embedding_size": 16},
    ],
    "modernbert": [
        {"local_attention": 16},
        {"classifier_pooling": "mean", "attention_bias": True, "mlp_bias": True, "norm_bias": True},
    ],
}


def make_rows(texts: list[tuple[str, str]]) -> tuple[dict[str, np.ndarray], int]:
    """Pairs of texts as a padded batch int64 [texts, length], a character an id, and how many ids there are."""
    numbers = {char: NUM_SPECIAL + i for i, char in enumerate(sorted({*"".join(a + b for a, b in texts)}))}
    cls, sep = 3, 4
    ids = [[cls, *map(numbers.get, a), sep, *map(numbers.get, b), sep] for a, b in texts]
    length = max(map(len, ids))
    mask = (np.arange(length) < np.array([len(row) for row in ids])[:, None]).astype(np.int64)
    first = np.array([len(a) + 2 for a, _ in texts])[:, None]
    padded: Any = [row + [0] * (length - len(row)) for row in ids]
    segments = (np.arange(length) >= first) * mask
    batch = {"input_ids": np.array(padded), "token_type_ids": segments, "attention_mask": mask}
    return batch, NUM_SPECIAL + len(numbers)


def read_texts() -> list[tuple[str, str]]:
    """Pairs of AFQMC's, the first ones of the training set: the real records if there are any, else the demo's."""
    with tempfile.TemporaryDirectory() as folder:
        if not os.environ.get("CLUE_DATA_DIR"):
            make_data(Path(folder), sizes=sizes_for(NUM_TEXTS))
        examples = load_examples(TASKS["AFQMC"], "train", os.environ.get("CLUE_DATA_DIR") or folder)
        return [(examples[i]["sentence1"][:70], examples[i]["sentence2"][:70]) for i in range(NUM_TEXTS)]


def compute(folder: Path, end: str) -> np.ndarray:
    """What the model of a folder gives for the batch that lies beside it."""
    task = TASKS[TASK_OF[end]]
    num_outputs = NUM_CHOICES if end == "ForMultipleChoice" else len(task.labels)
    model = models.load_model(str(folder), task, 0.1, num_outputs, training=end == "Model")
    model.eval()
    with np.load(folder / "reference.npz") as stored, paddle.no_grad():
        batch = {name: paddle.to_tensor(stored[name]) for name in stored.files if name != "output"}
        if end == "Model":
            output: np.ndarray = encode(model, **heads.model_inputs(model, batch))[0].numpy()
        elif end == "ForQuestionAnswering":
            output = paddle.stack(heads.span_logits(model, batch), axis=-1).numpy()
        else:
            output = heads.logits(model, batch).numpy()
    return output


def compare(folder: Path, end: str) -> tuple[float, float]:
    """The largest difference of what both gave, and the largest value; of what stands at padding, nothing counts.

    Raises:
        UserError: the folder is refused.
    """
    output = compute(folder, end)
    with np.load(folder / "reference.npz") as stored:
        expected, mask = stored["output"], stored["attention_mask"].astype(bool)
    if end in ("Model", "ForQuestionAnswering"):
        output, expected = output[mask], expected[mask]
    return float(np.abs(output - expected).max()), float(np.abs(expected).max())


def make_folders(python: str, top: Path, families: list[Family]) -> None:
    """Let PyTorch make the models and compute.

    Raises:
        UserError: it could not; its last line is given.
    """
    rows, num_ids = make_rows(read_texts())
    arrays: dict[str, Any] = {**rows}
    np.savez(top / "rows.npz", **arrays)
    sizes = SIZES | {"vocab_size": num_ids}
    variants = {family.model_type: VARIANTS.get(family.model_type, [{}]) for family in families}
    job = {"sizes": sizes, "variants": variants, "num_labels": len(TASKS["TNEWS"].labels), "num_choices": NUM_CHOICES}
    (top / "job.json").write_text(
        json.dumps(
            job
            | {
                "ends": list(TASK_OF),
                "encoders_alone": ENCODERS_ALONE,
                "padded_left": PADDED_LEFT,
                "without_segments": WITHOUT_SEGMENTS,
            }
        ),
        encoding="utf-8",
    )
    try:
        done = subprocess.run([python, PYTORCH_PART, top], capture_output=True, text=True, check=False)
    except OSError as error:
        raise UserError(f"--pytorch {python}: {error.strerror}") from None
    if done.returncode:
        raise UserError(f"--pytorch {python}: {(done.stderr.strip() or done.stdout.strip()).splitlines()[-1]}")


def main(argv: list[str] | None = None) -> None:
    example = "PYTHONPATH=scripts python scripts/dev/compare_pytorch.py --pytorch ~/torch-env/bin/python"
    parser = cli.Parser(description=__doc__, epilog=f"example: {example}")
    parser.add_argument("--pytorch", metavar="PYTHON", required=True, help="a Python with PyTorch and transformers")
    of_both = {name: family for name, family in BY_TYPE.items() if family.torch_prefix}
    parser.add_argument("--architectures", nargs="+", choices=[*of_both], default=[*of_both], help="(default: all)")
    args = parser.parse_args(argv)
    environment.tune_cpu()
    failures, notes = [], []
    print(markdown_table(["architecture", "settings", *TASK_OF]), end="", flush=True)
    with tempfile.TemporaryDirectory() as temporary:
        make_folders(args.pytorch, Path(temporary), [of_both[name] for name in args.architectures])
        for name in args.architectures:
            for i, settings in enumerate(VARIANTS.get(name, [{}])):
                cells = []
                for end in TASK_OF:
                    folder = Path(temporary, name, str(i), end)
                    if not folder.exists():
                        cells.append("none in PyTorch")
                        continue
                    try:
                        off, largest = compare(folder, end)
                    except UserError as error:
                        cells.append("refused")
                        notes.append(f"{name}, {end}: {str(error).replace(temporary, '')}")
                        continue
                    cells.append(f"{off:.1e} / {largest:.1f}")
                    if not off <= TOLERANCE * max(1, largest) or math.isnan(off):
                        failures.append(f"{name}, {end}")
                print(markdown_rows([[name, ", ".join(f"{k} {v}" for k, v in settings.items()), *cells]]), end="")
    print(*notes, sep="\n")
    if failures:
        raise UserError(f"another computation than PyTorch's: {'; '.join(failures)}")


if __name__ == "__main__":
    cli.run(main)

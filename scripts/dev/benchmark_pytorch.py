#!/usr/bin/env python
"""Do a training script's job with PyTorch and transformers and write what it cost; a part of scripts/dev/benchmark.py.

usage: benchmark_pytorch.py REPORT MODEL TRAIN_FEATURES DEV_FEATURES SETTINGS

The encoder starts from the same weights and reads the same features in the same batches and order; evaluation is in
order of length, too. Features are given, and evaluation computes logits alone: neither encoding nor scoring costs
PyTorch anything, nor do the first steps and the first evaluation of a model that is compiled count. Needs torch,
transformers, safetensors, pyarrow, filelock and tqdm.
"""

from __future__ import annotations

import json
import re
import sys
import time
from pathlib import Path
from typing import Any

BEGIN = time.time()
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch  # noqa: E402
from safetensors.numpy import load_file  # noqa: E402
from transformers import (  # noqa: E402
    BertConfig,
    BertForMultipleChoice,
    BertForQuestionAnswering,
    BertForSequenceClassification,
    get_linear_schedule_with_warmup,
)

from benchmark_job import measure_matrix_rate  # noqa: E402
from clue_utils import environment  # noqa: E402
from clue_utils.features.batches import (  # noqa: E402
    collate,
    length_ordered_batches,
    shuffled_batches,
)
from clue_utils.features.store import Features  # noqa: E402

CLASSES = {
    "classification": BertForSequenceClassification,
    "multiple_choice": BertForMultipleChoice,
    "cloze": BertForMultipleChoice,
    "span": BertForQuestionAnswering,
}
# PaddleNLP's names of an ERNIE encoder -> transformers' names of the same BERT.
NAMES = (
    (r"^(ernie\.)?", "bert."),
    (r"embeddings\.layer_norm", "embeddings.LayerNorm"),
    (r"encoder\.layers", "encoder.layer"),
    (r"self_attn\.q_proj", "attention.self.query"),
    (r"self_attn\.k_proj", "attention.self.key"),
    (r"self_attn\.v_proj", "attention.self.value"),
    (r"self_attn\.out_proj", "attention.output.dense"),
    (r"linear1", "intermediate.dense"),
    (r"linear2", "output.dense"),
    (r"norm1", "attention.output.LayerNorm"),
    (r"norm2", "output.LayerNorm"),
)


def load_model(folder: Path, settings: dict[str, Any]) -> torch.nn.Module:
    """The model of a task with the encoder of an ERNIE checkpoint folder without task embeddings."""
    config = json.loads((folder / "config.json").read_text())
    dropout = settings["dropout"]
    sizes = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
    model = CLASSES[settings["kind"]](
        BertConfig(
            **{name: config[name] for name in (*sizes, "max_position_embeddings", "type_vocab_size")},
            hidden_dropout_prob=dropout,
            attention_probs_dropout_prob=dropout,
            attn_implementation="sdpa",
            num_labels=2 if settings["kind"] == "span" else settings["num_outputs"],
        )
    )
    state = {}
    for name, value in load_file(str(folder / "model.safetensors")).items():
        new = name
        for pattern, replacement in NAMES:
            new = re.sub(pattern, replacement, new)
        # Paddle keeps the weight of a linear layer as [in, out].
        is_linear = value.ndim == 2 and "embeddings" not in name
        state[new] = torch.from_numpy(value.T.copy() if is_linear else value)
    missing, unexpected = model.load_state_dict(state, strict=False)
    unknown = [name for name in (*missing, *unexpected) if name.startswith("bert.") and "pooler" not in name]
    if unknown:
        raise ValueError(f"weights that do not go together: {unknown}")
    return model


def main() -> None:
    report, folder, train_path, dev_path, text = sys.argv[1:]
    settings = json.loads(text)
    model = load_model(Path(folder), settings)
    train, dev = Features(Path(train_path)), Features(Path(dev_path))
    decayed = [p for n, p in model.named_parameters() if not n.endswith("bias") and "norm" not in n.lower()]
    others = [p for n, p in model.named_parameters() if n.endswith("bias") or "norm" in n.lower()]
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": 0.01}, {"params": others, "weight_decay": 0.0}],
        lr=settings["learning_rate"],
        fused=True,
    )
    num_steps = settings["max_steps"]
    schedule = get_linear_schedule_with_warmup(optimizer, int(0.1 * num_steps), num_steps)
    batches = [rows for epoch in range(1000) for rows in shuffled_batches(len(train), settings["batch_size"], 42, epoch)
               if epoch * len(train) < num_steps * settings["batch_size"] + len(train)][:num_steps]  # fmt: skip
    cost: dict[str, Any] = {"features": None, "evaluations": [], "losses": []}
    cost |= dict.fromkeys(("tokens", "padded_tokens", "squared_lengths"), 0)

    def inputs(rows: Any, features: Features) -> dict[str, torch.Tensor]:
        batch = collate([features[int(i)] for i in rows], 0)
        cost["last"] = batch["attention_mask"]
        names = {"label": "labels", "start": "start_positions", "end": "end_positions"}
        kept = {names.get(k, k): torch.from_numpy(v) for k, v in batch.items() if k in (*names, *MODEL_INPUTS)}
        return kept

    def evaluate() -> None:
        begin = time.perf_counter()
        model.eval()
        with torch.inference_mode():
            for rows in length_ordered_batches(dev.sizes(), settings["eval_batch_size"], settings["max_tokens"]):
                batch = inputs(rows, dev)
                compute(**{name: batch[name] for name in MODEL_INPUTS if name in batch})
        model.train()
        cost["evaluations"].append(time.perf_counter() - begin)

    # Lengths differ from batch to batch: a second length is compiled for too, and then any.
    num_uncounted = min(_COMPILING_STEPS, num_steps - 1) if settings["compiles"] else 0
    compute = torch.compile(model, dynamic=True) if settings["compiles"] else model
    model.train()
    training = 0.0
    for step, rows in enumerate(batches, 1):
        begin = time.perf_counter()
        loss = compute(**inputs(rows, train)).loss
        lengths = cost["last"].sum(axis=-1)
        cost["tokens"] += int(lengths.sum())
        cost["squared_lengths"] += int((lengths**2).sum())
        cost["padded_tokens"] += cost["last"].size
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        training += time.perf_counter() - begin if step > num_uncounted else 0.0
        cost.setdefault("first_step", time.time() - BEGIN)
        if step % settings["logging_steps"] == 0:
            cost["losses"].append(loss.item())
        if step % settings["save_steps"] == 0 or step == num_steps:
            evaluate()
    del cost["last"]
    if settings["compiles"] and len(cost["evaluations"]) > 1:
        del cost["evaluations"][0]
    cost |= {
        "steps": num_steps,
        "steps_per_second": (num_steps - num_uncounted) / training,
        "seconds": time.time() - BEGIN,
        "peak_memory": environment.peak_memory_bytes(),
        "matrix_rate": measure_matrix_rate(torch.ones(2048, 2048)),
    }
    Path(report).write_text(json.dumps(cost))


# In which torch.compile compiles.
_COMPILING_STEPS = 3
MODEL_INPUTS = ("input_ids", "token_type_ids", "attention_mask")

if __name__ == "__main__":
    main()

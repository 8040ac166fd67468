"""How many of Paddle's operations a step is made of: what the host launches one by one while a card waits for it.

Numbers, unlike seconds, are the same on every machine:

    PYTHONPATH=. .venv/bin/python scripts/dev/count_operations.py --num_layers 12
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import paddle
from paddlenlp.transformers import ErnieConfig, ErnieForSequenceClassification

from clue_utils.models import cpu_layers, gpu_layers
from clue_utils.models.heads import label_loss, to_tensors
from clue_utils.training import optimizer

_core: Any = paddle.base.core
_FLAG = "FLAGS_low_precision_op_list"
# What a model computes with, and its optimizer and clip: Paddle's own; those of this project on a processor and, where
# all operations give the same bits, on a card.
KINDS: dict[str, tuple[Callable[[paddle.nn.Layer], None], tuple[Any, Any]]] = {
    "paddle": (lambda model: None, (paddle.optimizer.AdamW, paddle.nn.ClipGradByGlobalNorm)),
    "cpu": (cpu_layers.speed_up, (optimizer.AdamW, optimizer.HostClipGradByGlobalNorm)),
    "card": (gpu_layers.speed_up, (optimizer.AdamW, optimizer.ClipGradByGlobalNorm)),
}


def count(action: Callable[[], object]) -> Counter[str]:
    """Operations of Paddle's API that a call executes, by name; those of gradients, which C++ calls, are not seen."""
    before = paddle.get_flags(_FLAG)
    paddle.set_flags({_FLAG: 1})
    _core.clear_low_precision_op_list()
    try:
        action()
        found = _core.get_low_precision_op_list()
    finally:
        paddle.set_flags(before)
    # "calls in float16,calls in bfloat16,calls in float32,others"
    return Counter({name: sum(map(int, str(calls).split(","))) for name, calls in found.items()})


def of_a_step(kind: str, num_layers: int, hidden_size: int = 24) -> tuple[dict[str, Counter[str]], int]:
    """Operations of the second step of a small ERNIE classifier, on the device that is set.

    Args:
        kind: one of ``KINDS``.

    Returns:
        "batch" (to the device), "forward" and "optimizer" -> operations by name; the number of parameters.
    """
    speed_up, classes = KINDS[kind]
    sizes = {"hidden_size": hidden_size, "intermediate_size": 4 * hidden_size, "num_attention_heads": 12}
    model = ErnieForSequenceClassification(
        ErnieConfig(vocab_size=100, num_hidden_layers=num_layers, use_task_id=True, num_labels=15, **sizes)
    )
    speed_up(model)
    optimizer_class, clip_class = classes
    adamw = optimizer_class(
        learning_rate=1e-4,
        parameters=model.parameters(),
        weight_decay=0.01,
        apply_decay_param_fun=optimizer.decayed_parameters(model).__contains__,
        grad_clip=clip_class(1.0),
    )
    ids = np.arange(8).reshape(2, 4) + 1
    arrays = {"input_ids": ids, "token_type_ids": ids * 0, "attention_mask": ids * 0 + 1, "label": ids[:, 0]}
    found: dict[str, Counter[str]] = {}
    batch: dict[str, paddle.Tensor] = {}
    losses: list[paddle.Tensor] = []
    for _ in range(2):  # the first makes the moments
        found["batch"] = count(lambda: batch.update(to_tensors(arrays)))
        found["forward"] = count(lambda: losses.append(label_loss(model, batch).sum()))
        losses.pop().backward()
        found["optimizer"] = count(adamw.step)
        adamw.clear_grad(set_to_zero=False)
    return found, len(model.parameters())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num_layers", type=int, default=12)
    num_layers = parser.parse_args().num_layers
    for kind in KINDS:
        found, num_parameters = of_a_step(kind, num_layers)
        print(f"{kind}: {num_layers} layers, {num_parameters} parameters")
        for part, operations in found.items():
            most = ", ".join(f"{name} {number}" for name, number in operations.most_common(8))
            print(f"  {part}: {operations.total()} ({most})")


if __name__ == "__main__":
    main()

"""DistilBERT (Sanh et al., "DistilBERT, a distilled version of BERT", 2019)."""

from __future__ import annotations

from typing import Any

import paddle


class DistilBertNeck(paddle.nn.Linear):
    """What stands before the classifier of Hugging Face's DistilBERT: float [..., hidden_size] -> the same shape."""

    def __init__(self, config: Any) -> None:
        super().__init__(config.hidden_size, config.hidden_size)

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        return paddle.nn.functional.relu(super().forward(x))

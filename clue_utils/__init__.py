"""What the CLUE scripts share: the task registry, data, features, the training loop, evaluation, submission.

Nothing is imported here. ``device``, ``models``, ``predictor`` and what trains and predicts in ``training`` import
PaddlePaddle at their top; every other module does not, and answers at once. The one name of the package itself,
``Predictor``, loads PaddlePaddle when it is asked for.
"""

from __future__ import annotations

import importlib
from typing import Any

__all__ = ["Predictor"]


def __getattr__(name: str) -> Any:
    if name != "Predictor":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    # Paddle reads its settings when it is imported.
    importlib.import_module("clue_utils.environment").load_libraries()
    return importlib.import_module("clue_utils.predictor").Predictor

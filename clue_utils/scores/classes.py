"""What is mistaken for what: precision, recall and F1 of each class, and the confusion matrix."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from clue_utils.strict_json import JsonObject


def class_scores(chosen: np.ndarray, labels: np.ndarray, names: Sequence[str]) -> JsonObject:
    """Precision, recall and F1 by class, as scikit-learn has them (0 where nothing is divided by), and the confusion.

    Args:
        chosen: class that each example is answered with, integers [examples].
        labels: its gold class, integers [examples].
        names: of the classes, by id.

    Returns:
        ``classes``: name -> ``precision``, ``recall``, ``f1`` (fractions), ``num_gold``; ``confusion``: gold name ->
        name of the answer -> how often, zeros left out.
    """
    from sklearn.metrics import precision_recall_fscore_support  # takes a second to import

    columns = precision_recall_fscore_support(labels, chosen, labels=range(len(names)), zero_division=0)
    classes = {
        name: {"precision": float(p), "recall": float(r), "f1": float(f), "num_gold": int(n)}
        for name, p, r, f, n in zip(names, *columns, strict=True)
    }
    confusion: dict[str, dict[str, int]] = {}
    for (gold, answer), count in sorted(Counter(zip(labels.tolist(), chosen.tolist(), strict=True)).items()):
        confusion.setdefault(names[gold], {})[names[answer]] = count
    return {"classes": classes, "confusion": confusion}

"""A module imports PaddlePaddle at its top or never: a script's only late import is that of what needs it."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

TOP = Path(__file__).parents[1]
MODULES = [path for folder in ("clue_utils", "classification", "mrc") for path in sorted((TOP / folder).rglob("*.py"))]
PLAIN_SCRIPTS = {"run_clue_classifier.py", "run_c3.py", "run_chid.py", "run_cmrc2018.py"}
# What is slow to import and not always needed.
SLOW = {
    "store.py": ["pyarrow"],
    "chid.py": ["scipy.optimize"],
    "classes.py": ["sklearn.metrics"],
    "verdict.py": ["scipy"],
    "record.py": ["visualdl"],
    "onnx_model.py": ["onnx", "onnxruntime"],  # the second may not be there
    "__main__.py": ["clue_utils"],  # needs packages that may not be there
}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(TOP)))
def test_imports_stand_at_the_top(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
    outside = ["clue_utils"] * (path.parent.name in ("classification", "mrc"))  # see ``clue_utils.outside``
    late = [
        node.module if isinstance(node, ast.ImportFrom) else node.names[0].name
        for node in imports
        if node not in tree.body
    ]
    assert late == outside + SLOW.get(path.name, ["clue_utils.training.session"] if path.name in PLAIN_SCRIPTS else [])

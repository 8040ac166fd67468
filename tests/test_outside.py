"""Scripts that are started by a Python without the project's packages."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from clue_utils import outside, project

TOP = Path(__file__).parents[1]
SCRIPTS = [path for folder in ("classification", "mrc", "scripts") for path in sorted((TOP / folder).glob("*.py"))]


@pytest.mark.parametrize("script", ["classification/run_clue_classifier.py", "scripts/check_submission.py"])
def test_a_bare_python_gets_one_line(tmp_path, script):
    """-S leaves out what is installed, as the system's Python has it not."""
    bare = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    words = [sys.executable, "-S", TOP / script, "--help"]
    done = subprocess.run(words, cwd=tmp_path, env=bare, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert done.stderr.startswith(f"error: {sys.executable} has no package ") and ".venv/bin/activate" in done.stderr


def test_an_interrupt_while_modules_are_imported_is_one_line(tmp_path):
    """It comes before a script has begun what turns exceptions into lines."""
    (tmp_path / "slow.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGINT)\nprint('goes on')\n")
    code = "from clue_utils import outside; outside.explain(); import slow; print('goes on')"
    environ = os.environ | {"PYTHONPATH": f"{TOP}{os.pathsep}{tmp_path}"}
    done = subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "interrupted\n")


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_every_script_that_runs_the_project_s_modules_says_so(path):
    text = path.read_text(encoding="utf-8")
    if "from clue_utils" in text:
        first = text.index("import clue_utils" if "import clue_utils" in text else "from clue_utils")
        assert text[first:].startswith("from clue_utils import outside\n\n    outside.explain()\n")


def test_the_remedy_is_the_next_thing_to_type(tmp_path, monkeypatch):
    monkeypatch.setattr(project, "TOP", tmp_path)
    monkeypatch.chdir(tmp_path)
    assert outside.remedy().endswith("bash scripts/setup_env.sh, and enter it: source .venv/bin/activate")
    (tmp_path / ".venv/bin").mkdir(parents=True)
    (tmp_path / ".venv/bin/python").touch()
    assert outside.remedy() == "enter the project's environment: source .venv/bin/activate"
    (tmp_path / "mrc").mkdir()
    monkeypatch.chdir(tmp_path / "mrc")
    assert outside.remedy() == "enter the project's environment: source ../.venv/bin/activate"
    monkeypatch.setattr(sys, "prefix", str(tmp_path / ".venv"))
    assert outside.remedy() == "make the environment whole: bash scripts/setup_env.sh"


def test_only_a_package_that_is_not_installed_is_missing():
    assert "no package nowhere:" in outside.missing(ModuleNotFoundError("...", name="nowhere.module"))
    assert not outside.missing(ModuleNotFoundError("...", name="clue_utils.nowhere"))
    assert not outside.missing(ImportError("...", name="nowhere"))

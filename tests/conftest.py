"""Fixtures that all tests share."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import make_demo
from clue_utils import runtime

runtime.tune_cpu()
# A shell that runs the tests in the background has its children ignore interrupts, which some tests are about.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def clue_data_dir() -> Path:
    """The folder with real records, in the official layout."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data" / "clue"
    folder = Path(os.environ.get("CLUE_DATA_DIR") or beside)
    if not folder.is_dir():
        pytest.skip(f"needs real records: set CLUE_DATA_DIR ({folder} is not a folder)")
    if (folder.parent / make_demo.MANIFEST).is_file():
        pytest.skip(f"needs real records: CLUE_DATA_DIR names demo data ({folder})")
    return folder


@pytest.fixture(autouse=True)
def fresh_logging() -> None:
    """Let no test depend on how a script that was run before has set up the log."""
    root = logging.getLogger("clue_utils")
    root.handlers.clear()
    root.setLevel(logging.NOTSET)
    root.propagate = True


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Keep cached features out of the user's home."""
    os.environ["CLUE_CACHE_DIR"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo folder that the project makes itself: ``model`` and ``data``."""
    runtime.import_libraries()
    folder = tmp_path_factory.mktemp("demo")
    make_demo.make_demo(folder)
    return folder


@pytest.fixture(scope="session")
def tokenizer(demo: Path) -> Any:
    from clue_utils.models import load_tokenizer

    return load_tokenizer(str(demo / "model"))


@pytest.fixture(scope="session")
def run_script() -> Callable[..., tuple[int, str, str]]:
    """Run a script's ``main(argv)`` in this process as the command line would: (status, standard output, error)."""
    import contextlib
    import io

    def run(main: Callable[[list[str]], None], *words: Any) -> tuple[int, str, str]:
        out, err = io.StringIO(), io.StringIO()
        status = 0
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                runtime.run(lambda: main([str(word) for word in words]))
            except SystemExit as end:
                status = int(end.code or 0)
        return status, out.getvalue(), err.getvalue()

    return run


@pytest.fixture(scope="session")
def run_on_demo(run_script: Callable[..., Any], demo: Path) -> Callable[..., tuple[int, str, str]]:
    """As ``run_script``, with the demo data, and the demo model if no other is given: main, output folder, flags."""

    def run(main: Callable[[list[str]], None], output: Path, *words: Any, model: Path | None = None) -> Any:
        common = ("--model_name_or_path", model or demo / "model", "--data_dir", demo / "data", "--device", "cpu")
        return run_script(main, *common, "--output_dir", output, *words)

    return run

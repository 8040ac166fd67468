"""Fixtures that all tests share."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from filelock import FileLock

import make_demo
from clue_utils import cli, environment
from demo.records import make_data, sizes_for
from warm_python import WarmPython

# One thread for each process, as several run side by side; sums also come out the same on any number of processors.
os.environ.setdefault("OMP_NUM_THREADS", "1")
environment.tune_cpu()
# No test finds data but where it says; the workers, which are started after this, find the real examples all the same.
REAL_EXAMPLES = os.environ.setdefault("CLUE_TEST_EXAMPLES", os.environ.pop("CLUE_DATA_DIR", ""))
os.environ["CLUE_LANG"] = "en"  # whatever the locale
os.environ.pop("PYTHON", None)  # names the interpreter that .venv is made with; the scripts take it for the one to run
# A shell that runs the tests in the background has its children ignore interrupts, which some tests are about.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """``-n auto``: a worker for each processor that ``taskset`` and the like leave us; none for a single one."""
    processors = environment.num_processors()
    return processors if processors > 1 else 0


@pytest.fixture(scope="session")
def clue_data_dir() -> Path:
    """The folder with real examples, in the official layout."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data" / "clue"
    folder = Path(REAL_EXAMPLES or beside)
    if not folder.is_dir():
        pytest.skip(f"needs real examples: set CLUE_DATA_DIR ({folder} is not a folder)")
    if (folder.parent / make_demo.MANIFEST).is_file():
        pytest.skip(f"needs real examples: CLUE_DATA_DIR names demo data ({folder})")
    return folder


@pytest.fixture(autouse=True)
def fresh_logging() -> None:
    """Let no test depend on how a script that was run before has set up the log."""
    root = logging.getLogger("clue_utils")
    root.handlers.clear()
    root.setLevel(logging.NOTSET)
    root.propagate = True


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A temporary folder that the workers of this run of the tests share."""
    folder = tmp_path_factory.getbasetemp()
    return folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder


@pytest.fixture(scope="session", autouse=True)
def own_cache(shared_folder: Path) -> None:
    """Keep cached features out of the user's home."""
    os.environ["CLUE_CACHE_DIR"] = str(shared_folder / "shared-cache")


@pytest.fixture(scope="session")
def demo(shared_folder: Path) -> Path:
    """The demo folder that the project makes itself: ``model`` and ``data``. Tests write nothing there."""
    environment.import_libraries()
    folder = shared_folder / "shared-demo"
    with FileLock(f"{folder}.lock"):
        if not (folder / make_demo.MANIFEST).exists():
            make_demo.make_demo(folder)
    return folder


@pytest.fixture(scope="session")
def few_examples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Demo data of a few examples for each task, where a test is not about learning."""
    folder = tmp_path_factory.mktemp("few") / "data"
    make_data(folder, sizes=sizes_for(16))
    return folder


@pytest.fixture
def chinese(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have everything that people read be said in Chinese."""
    monkeypatch.setenv("CLUE_LANG", "zh")


@pytest.fixture(scope="session")
def warm_python() -> Iterator[Path]:
    """A program that takes the words of ``python`` and has Paddle imported already."""
    server = WarmPython()
    yield server.path
    server.close()


@pytest.fixture
def scalers(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Have Paddle's GradScaler take the CPU for a card, which has its kernels too; those that are made.

    Each notes in ``taken`` which updates were not left out.
    """
    environment.import_libraries()
    import paddle
    from paddle.amp import grad_scaler

    card = SimpleNamespace(is_gpu_place=lambda: True)
    monkeypatch.setattr(grad_scaler, "_dygraph_tracer", lambda: SimpleNamespace(_expected_place=card))
    made: list[Any] = []

    class Noting(paddle.amp.GradScaler):  # type: ignore[misc]
        def __init__(self, *words: Any, **settings: Any) -> None:
            super().__init__(*words, **settings)
            self.taken: list[bool] = []
            made.append(self)

        def step(self, optimizer: Any) -> None:
            before = [parameter.numpy().copy() for parameter in optimizer._parameter_list]
            super().step(optimizer)
            self.taken.append(not getattr(self, "_cache_found_inf", False))
            after = [parameter.numpy() for parameter in optimizer._parameter_list]
            assert self.taken[-1] or all((one == other).all() for one, other in zip(before, after, strict=True))

    monkeypatch.setattr(paddle.amp, "GradScaler", Noting)
    return made


@pytest.fixture(scope="session")
def tokenizer(demo: Path) -> Any:
    from clue_utils.models import load_tokenizer

    return load_tokenizer(str(demo / "model"))


@pytest.fixture(scope="session")
def tiny_tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Any]:
    """Kind, one of ``tiny_tokenizers.KINDS`` -> a tokenizer of that kind."""
    import functools

    import tiny_tokenizers

    folder = tmp_path_factory.mktemp("tiny")
    tiny_tokenizers.train(folder)
    return functools.cache(lambda kind: tiny_tokenizers.make(kind, folder))


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
                cli.run(lambda: main([str(word) for word in words]))
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

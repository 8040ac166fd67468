"""Programs that a part starts: calls of ``on_device``, alone or as ranks, and the project's own scripts.

Imports no PaddlePaddle, and a part keeps no card for itself: cards may be set to take one process alone.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from clue_utils import project
from clue_utils.errors import UserError
from clue_utils.files import digest_of
from clue_utils.grid import trial
from clue_utils.language import say

FOLDERS = ("", "classification", "mrc", "scripts", "scripts/dev")
# A run of few steps on the demo, whose every step leaves a line in metrics.jsonl.
TINY = ("--max_seq_length", 24, "--batch_size", 8, "--learning_rate", 1e-3, "--logging_steps", 1, "--num_proc", 1)
Variables = Mapping[str, str | None]
NO_CARD = "no GPU is used"


@dataclass(frozen=True)
class Bench:
    """Where a part works.

    Attributes:
        device: "gpu" or "cpu".
        scratch: a folder that is removed in the end, on the disk of ``--output_dir``.
    """

    device: str
    scratch: Path

    @property
    def on_card(self) -> bool:
        return self.device == "gpu"

    @property
    def num_cards(self) -> int:
        """Cards to use together; the parts of divided ones (MIG), which NCCL does not join, count as one."""
        return trial.num_together(trial.visible_gpus()) if self.on_card else 0

    @property
    def model(self) -> Path:
        """The demo model, 2 layers of 128."""
        return self._demo("demo", 96) / "model"

    @property
    def data(self) -> Path:
        """Demo data: 96 examples to train with and 24 of each other split."""
        return self._demo("demo", 96) / "data"

    @property
    def long_data(self) -> Path:
        """Demo data of 400 examples to train with, whose texts fill the lengths of ``try_architectures.FULL_TASKS``."""
        data, done = self._demo("long", 400) / "data", self.scratch / "long/lengthened"
        if not done.exists():
            self.call("lengthen", data=data)
            done.touch()
        return data

    def random_model(self, name: str) -> Path:
        """A published model's architecture with random weights."""
        folder = self.scratch / name.replace("/", "-")
        if not (folder / "config.json").is_file():
            self.call("make_random_model", name=name, folder=folder)
        return folder

    def _demo(self, name: str, records: int) -> Path:
        folder = self.scratch / name
        if not (folder / "demo.json").is_file():
            self.run([project.TOP / "scripts/make_demo.py", "--output", folder, "--records", records])
        return folder

    def folder(self, name: str) -> Path:
        """A new folder below ``scratch``."""
        return Path(tempfile.mkdtemp(prefix=f"{name}-", dir=self.scratch))

    def run(self, words: Sequence[object], **variables: str | None) -> str:
        """Run a program of the project to its end; return what it printed.

        Raises:
            UserError: it failed; its last line is given.
        """
        return self.start(words, **variables).finish()

    def start(self, words: Sequence[object], **variables: str | None) -> Program:
        """Start a Python program of the project.

        Args:
            variables: of the environment; None takes one out of it.
        """
        descriptor, name = tempfile.mkstemp(dir=self.scratch, suffix=".log")
        command = [str(word) for word in (trial.interpreter(), *words)]
        environment = {name: value for name, value in (self.environment() | variables).items() if value is not None}
        with open(descriptor, "w", encoding="utf-8") as output:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, text=True, env=environment
            )
        return Program(command, process, Path(name))

    def environment(self) -> dict[str, str]:
        """The environment with the project's modules, and this check's own cache of features."""
        paths = [str(project.TOP / folder) for folder in FOLDERS]
        given = os.environ.get("PYTHONPATH")
        python_path = os.pathsep.join([*paths, *([given] if given else [])])
        cache = str(self.scratch / "cache")
        return os.environ | {"PYTHONPATH": python_path, "CLUE_CACHE_DIR": cache, "PYTHONUNBUFFERED": "1"}

    def start_call(
        self, function: str, num_ranks: int = 1, variables: Variables | None = None, **arguments: Any
    ) -> Program:
        """As :meth:`call`, without waiting for the end."""
        folder = self.folder(function)
        file = folder / "arguments.json"
        file.write_text(json.dumps(arguments, default=str), encoding="utf-8")
        launcher = ["-m", "paddle.distributed.launch", "--nproc_per_node", num_ranks, "--log_dir", folder / "log"]
        words = [*(launcher if num_ranks > 1 else []), Path(__file__).with_name("call.py"), function, file]
        visible: Variables = {}
        if num_ranks > max(1, len(trial.visible_gpus())):
            # The launcher deals out what CUDA_VISIBLE_DEVICES names, be it for ranks on the CPU, and has one too few.
            numbers = ",".join(map(str, range(num_ranks)))
            visible = {"CUDA_VISIBLE_DEVICES": numbers if trial.visible_gpus() else None}
        return replace(self.start(words, **{**visible, **(variables or {})}), logs=folder / "log", answers=folder)

    def call(self, function: str, num_ranks: int = 1, variables: Variables | None = None, **arguments: Any) -> Any:
        """What a function of ``on_device`` returns, in a process of its own; of several ranks a list.

        Args:
            variables: of the environment; None takes one out of it.
            arguments: in JSON's types, or paths.

        Raises:
            UserError: it failed; its last line is given.
        """
        program = self.start_call(function, num_ranks, variables, **arguments)
        program.finish()
        files = [program.answers / f"answer-{rank}.json" for rank in range(num_ranks)]
        answers = [json.loads(file.read_text(encoding="utf-8")) for file in files]
        return answers if num_ranks > 1 else answers[0]


@dataclass(frozen=True)
class Program:
    """A program that was started.

    Attributes:
        output: the file that it prints to.
        logs: folder that the launcher keeps the ranks' output in.
        answers: folder that a called function's answer comes to.
    """

    words: Sequence[str]
    process: subprocess.Popen[str]
    output: Path
    logs: Path = Path()
    answers: Path = Path()

    def finish(self) -> str:
        """Wait for the end, then print what the program has printed, and return it.

        Raises:
            UserError: it failed; its last line is given.
        """
        status = self.process.wait()
        text = self.output.read_text(encoding="utf-8", errors="replace")
        print("$", shlex.join(self.words), f"\n{text}", flush=True)
        if not status:
            return text
        files = sorted(self.logs.glob("workerlog.*")) if self.answers != Path() else []
        for path in files:
            print(path.name, *trial.last_lines(path, 30), sep="\n", flush=True)
        texts = [path.read_text(encoding="utf-8", errors="replace") for path in files] or [text]
        lines = [line.strip() for part in texts for line in part.splitlines() if line.strip()]
        said = [line for line in lines if "error: " in line.lower()] or lines or [f"ended with status {status}"]
        raise UserError(said[-1].partition("error: ")[2] or said[-1])

    def wait_until(self, condition: Callable[[], bool]) -> None:
        """Wait for a condition.

        Raises:
            UserError: the program ended before.
        """
        while not condition():
            if self.process.poll() is not None:
                self.finish()
                raise UserError(say("it ended before it could be stopped"))
            time.sleep(0.02)


def losses(output: Path) -> list[float]:
    """The losses that a run has logged, in order."""
    return [line["loss"] for line in _metrics(output) if line["kind"] == "train"]


def _metrics(output: Path) -> list[dict[str, Any]]:
    try:
        lines = (output / "metrics.jsonl").read_text(encoding="utf-8").split("\n")[:-1]
    except FileNotFoundError:
        return []
    return [json.loads(line) for line in lines]


def weights_digest(output: Path) -> str:
    """SHA-256 of the weights that a run has kept, its first 16 digits."""
    return digest_of(output / "model.safetensors")[:16]


def result(output: Path) -> dict[str, Any]:
    """What ``result.json`` says."""
    fields: dict[str, Any] = json.loads((output / "result.json").read_text(encoding="utf-8"))
    return fields

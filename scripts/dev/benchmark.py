#!/usr/bin/env python
"""Measure training jobs: this project, the same jobs as earlier scripts do them, and PyTorch with transformers.

Each job (load, encode, train with evaluations on the way) runs in processes of its own, the systems in turn, so that
what else the machine does falls on all of them alike. Printed and written are medians over the rounds, and the ratio to
this project, whose range over the rounds stands in brackets. See scripts/dev/benchmark_job.py for what "plain" is and
scripts/dev/benchmark_pytorch.py for what PyTorch is spared.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clue_utils import cli, environment, project, tasks
from clue_utils.cli import Parser, positive_int
from clue_utils.errors import UserError
from clue_utils.grid import trial
from clue_utils.report.render import markdown_rows, markdown_table
from demo.model import make_model
from make_demo import make_demo

EXAMPLE = """\
examples:
  bash scripts/benchmark.sh --tasks TNEWS --steps 50
  bash scripts/benchmark.sh --no_model --steps 500
  bash scripts/benchmark.sh --data_dir data --tokenizer ernie-3.0-base-zh --pytorch ~/torch-env/bin/python
  bash scripts/benchmark.sh --model_size base --steps 20 --no_plain --pytorch ~/torch-env/bin/python --compile
"""
# Layers and hidden size: that of quick measurements, and that of most published models.
MODEL_SIZES = {"small": (4, 256), "base": (12, 768)}
# A job's batch size and sequence length; reading tasks have several sequences an example.
SHAPES = {"classification": (32, 128), "multiple_choice": (4, 256), "span": (8, 256), "cloze": (4, 64)}


@dataclass(frozen=True)
class Measure:
    """A line of the table: its name, its unit, and how it is computed from a job's report (None: not measured).

    ``grows``: part of the table of ``--growth``, too. ``is_compared``: its ratio to ours says something.
    """

    name: str
    unit: str
    digits: int
    compute: Any
    less_is_better: bool = True
    grows: bool = False
    is_compared: bool = True

    def __str__(self) -> str:
        return f"{self.name}, {self.unit}"


def _evaluation(cost: dict[str, Any]) -> float:
    return statistics.median(cost["evaluations"])


MEASURES = (
    Measure("whole job", "s", 1, lambda cost: cost["seconds"]),
    Measure("to the first step", "s", 1, lambda cost: cost["first_step"]),
    Measure("encoding", "s", 2, lambda cost: cost["features"], grows=True),
    Measure("training", "steps/s", 2, lambda cost: cost["steps_per_second"], less_is_better=False, grows=True),
    Measure(
        "training",
        "tokens/s",
        0,
        lambda cost: cost["steps_per_second"] * cost["tokens"] / cost["steps"],
        less_is_better=False,
        grows=True,
    ),
    Measure("one evaluation", "s", 2, _evaluation, grows=True),
    Measure("peak memory", "GiB", 2, lambda cost: cost["peak_memory"] / 2**30, grows=True),
    Measure("padding", "share", 3, lambda cost: 1 - cost["tokens"] / cost["padded_tokens"], is_compared=False),
    Measure("limit of training", "steps/s", 2, lambda cost: cost.get("limit"), is_compared=False),
    Measure("training", "share of the limit", 3, lambda cost: cost.get("limit_share"), is_compared=False),
)
# What PyTorch's jobs are called: as it comes, and with its forward and backward compiled.
PYTORCH = ("pytorch", "pytorch compiled")


def matrix_operations(cost: dict[str, Any], sizes: dict[str, int]) -> float:
    """Operations of the matrix products of one step, of tokens alone: forward, and twice that backward.

    12 h^2 weights a layer for each token, and scores and sums over the tokens of its sequence (Kaplan et al., "Scaling
    Laws for Neural Language Models", 2020, table 1). What is computed for padding is no part of it.
    """
    layers, hidden = sizes["num_hidden_layers"], sizes["hidden_size"]
    operations = cost["tokens"] * 24 * hidden**2 + cost["squared_lengths"] * 4 * hidden
    return 3 * layers * operations / cost["steps"]


class Bench:
    """Runs jobs in a scratch folder."""

    def __init__(self, args: Any, scratch: Path) -> None:
        self.args, self.scratch = args, scratch
        self._sizes: dict[Path, dict[str, int]] = {}

    def model(self, num_layers: int, hidden_size: int) -> Path:
        """A model of these sizes, made when first asked for."""
        folder = self.scratch / f"model-{num_layers}-{hidden_size}"
        if folder not in self._sizes:
            from clue_utils.models import load_tokenizer

            self._sizes[folder] = {
                "num_hidden_layers": num_layers,
                "hidden_size": hidden_size,
                "num_attention_heads": max(1, hidden_size // 64),
                "intermediate_size": 4 * hidden_size,
                "max_position_embeddings": 512,
                "type_vocab_size": 2,
            }
            make_model(folder, sizes=self._sizes[folder], tokenizer=load_tokenizer(self.args.tokenizer))
        return folder

    def run(
        self,
        system: str,
        task: tasks.Task,
        model: Path,
        max_seq_length: int | None = None,
        examples: int | None = None,
        num_processes: int = 1,
    ) -> dict[str, Any]:
        """What one job cost, as its report says; ``batch_size`` is shared out over the processes.

        Raises:
            UserError: the job failed.
        """
        args = self.args
        batch_size, length = SHAPES[task.kind]
        batch_size, length = args.batch_size or batch_size, max_seq_length or args.max_seq_length or length
        settings = {
            "learning_rate": 1e-4,
            "batch_size": batch_size // num_processes,
            "max_steps": args.steps,
            "save_steps": max(1, args.steps // 2),
            "logging_steps": max(1, args.steps // 10),
            "eval_batch_size": 64,
            "dropout": args.dropout,
        }
        report, cache = self.scratch / "report.json", self.scratch / "cache"
        report.unlink(missing_ok=True)
        environment = os.environ | {"CLUE_CACHE_DIR": str(cache)}
        if system in PYTORCH:
            from clue_utils.training.predict import max_tokens

            extra = {"kind": task.kind, "num_outputs": len(task.labels), "max_tokens": max_tokens()}
            extra["compiles"] = system == PYTORCH[1]
            features = [max((cache / "features").glob(f"{task.name.lower()}-{split}-*.arrow"), key=_age)
                        for split in ("train", "dev")]  # fmt: skip
            command = [args.pytorch, project.TOP / "scripts/dev/benchmark_pytorch.py", report, model, *features]
            command.append(json.dumps(settings | extra))
        else:
            output = self.scratch / "output"
            shutil.rmtree(output, ignore_errors=True)
            flags = {"data_dir": args.data_dir, "device": "cpu", "max_seq_length": length, **settings}
            command = [sys.executable]
            if num_processes > 1:
                command += ["-m", "paddle.distributed.launch", "--nproc_per_node", num_processes]
                command += ["--log_dir", self.scratch / "log", "--master", "127.0.0.1:8791"]
            command += [project.TOP / "scripts/dev/benchmark_job.py", system, report, examples or args.records]
            command += ["--no_model"] if args.no_model else []
            command += [*trial.script_words(task, model, output), "--do_train", "--overwrite_cache"]
            command += ["--do_predict"] if args.predict else []
            command += [word for name, value in flags.items() for word in (f"--{name}", value)]
            if system == "plain":
                for name in ("OMP_NUM_THREADS", "MKL_DEBUG_CPU_TYPE"):
                    environment.pop(name, None)
        done = subprocess.run([str(word) for word in command], env=environment, capture_output=True, text=True)
        if done.returncode or not report.exists():
            lines = (done.stderr.strip() or done.stdout.strip() or "no message").splitlines()
            raise UserError(f"{system} {task.name} failed: {lines[-1][:300]}")
        cost: dict[str, Any] = json.loads(report.read_text())
        if not args.no_model:
            cost["matrix_operations"] = matrix_operations(cost, self._sizes[model])
        return cost


def add_limits(rounds: dict[str, list[dict[str, Any]]]) -> None:
    """Set the steps a second of which the tokens' matrix products alone would allow, and what share each job reached.

    The machine's rate of matrix products is the highest that any of the jobs measured.
    """
    costs = [cost for system in rounds.values() for cost in system if "matrix_operations" in cost]
    machine = max((cost["matrix_rate"] for cost in costs), default=1.0)
    for cost in costs:
        cost["limit"] = machine / cost["matrix_operations"]
        cost["limit_share"] = cost["steps_per_second"] / cost["limit"]


def _age(path: Path) -> float:
    return path.stat().st_mtime


def compare(rounds: dict[str, list[dict[str, Any]]]) -> list[list[str]]:
    """Rows of a task's table: measure, and for each system its median and, in brackets, the ratio to ours.

    A ratio above 1 says that ours is better: so many times as fast, or so many times less memory.
    """
    rows = []
    for measure in MEASURES:
        row = [str(measure)]
        for system, costs in rounds.items():
            values = [value for cost in costs if (value := measure.compute(cost)) is not None]
            if not values:
                row.append("–")
                continue
            text = f"{statistics.median(values):,.{measure.digits}f}"
            if system != "ours" and measure.is_compared:
                ours = [measure.compute(cost) for cost in rounds["ours"]]
                ratios = [_ratio(other, own, measure.less_is_better) for other, own in zip(values, ours, strict=True)]
                text += f" ({statistics.median(ratios):.2f}; {min(ratios):.2f}–{max(ratios):.2f})"
            row.append(text)
        rows.append(row)
    return rows


def _ratio(other: float, own: float, less_is_better: bool) -> float:
    return (other / own if less_is_better else own / other) if own and other else float("nan")


def same_results(rounds: dict[str, list[dict[str, Any]]]) -> str:
    """How the numbers of ours differ from those of the plain mode."""
    plain, ours = rounds["plain"][0], rounds["ours"][0]
    difference = max((abs(a - b) for a, b in zip(plain["losses"], ours["losses"], strict=True)), default=0.0)
    scores = [
        all(a[name] == b[name] for name in a if name != "loss")
        for a, b in zip(plain["metrics"], ours["metrics"], strict=True)
    ]
    text = f"{len(ours['losses'])} logged losses differ by at most {difference:.1e}; "
    text += f"scores of {len(scores)} evaluations {'are the same' if all(scores) else 'DIFFER'}"
    if ours["predictions"]:
        same = plain["predictions"] == ours["predictions"]
        text += f"; {len(ours['predictions'])} prediction files {'are the same' if same else 'DIFFER'}"
    return text


# What grows -> values of it, as arguments of ``Bench.run``.
GROWTH: dict[str, list[dict[str, Any]]] = {
    "sequence length": [{"max_seq_length": length} for length in (64, 128, 256, 512)],
    "model": [{"model": sizes} for sizes in ((2, 128), (4, 256), (6, 384), (6, 768))],
    "examples of a split": [{"examples": number} for number in (250, 500, 1000)],
    "processes": [{"num_processes": number} for number in (1, 2)],
}


def measure_growth(bench: Bench) -> str:
    """A table in Markdown of what a job costs as one thing grows; IFLYTEK, whose texts fill any length."""
    args, task = bench.args, tasks.get_task("IFLYTEK")
    measures = [measure for measure in MEASURES if measure.grows]
    text = markdown_table(["grows", "to", *map(str, measures)])
    for what, variants in GROWTH.items():
        for variant in variants:
            settings = dict(variant)
            model = bench.model(*settings.pop("model", (args.layers, args.hidden_size)))
            costs = [bench.run("ours", task, model, **settings) for _ in range(args.rounds)]
            (value,) = variant.values()
            columns = [statistics.median(map(measure.compute, costs)) for measure in measures]
            shown = "x".join(map(str, value)) if isinstance(value, tuple) else str(value)
            row = markdown_rows([[what, shown, *(f"{column:,.2f}" for column in columns)]])
            print(row, end="", flush=True)
            text += row
    return text


def plot(path: Path, results: dict[str, dict[str, list[dict[str, Any]]]]) -> None:
    """Bars of whole-job seconds, a group for each task."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    systems = list(next(iter(results.values())))
    figure, axes = pyplot.subplots(figsize=(1.8 + 1.6 * len(results), 3.6), layout="constrained")
    for i, system in enumerate(systems):
        values = [statistics.median(cost["seconds"] for cost in rounds[system]) for rounds in results.values()]
        places = [place + 0.8 * (i + 0.5) / len(systems) - 0.4 for place in range(len(results))]
        bars = axes.bar(places, values, 0.8 / len(systems), label=system)
        axes.bar_label(bars, fmt="%.0f", fontsize=8)
    axes.set_xticks(range(len(results)), list(results))
    axes.set_ylabel("seconds, whole job (log)")
    axes.set_yscale("log")
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150)
    pyplot.close(figure)


def main(argv: list[str] | None = None) -> None:
    parser = Parser(description=__doc__, epilog=EXAMPLE)
    parser.add_argument("--tasks", nargs="+", default=["TNEWS", "C3", "CMRC2018", "CHID"], metavar="TASK")
    parser.add_argument("--rounds", type=positive_int, default=3, help="(default: %(default)s)")
    parser.add_argument("--steps", type=positive_int, default=200, help="steps of a job (default: %(default)s)")
    parser.add_argument("--records", type=positive_int, default=2000, help="of each split (default: %(default)s)")
    parser.add_argument("--batch_size", type=positive_int, help="(default: 4 to 32, by task)")
    parser.add_argument("--max_seq_length", type=positive_int, help="(default: 64 to 256, by task)")
    parser.add_argument(
        "--model_size",
        choices=MODEL_SIZES,
        default="small",
        help="layers and hidden size: 4 of 256, or 12 of 768 (default: %(default)s)",
    )
    parser.add_argument("--layers", type=positive_int, help="of the model (default: as --model_size says)")
    parser.add_argument("--hidden_size", type=positive_int, help="of the model (default: as --model_size says)")
    parser.add_argument(
        "--dropout", type=float, default=0.1, help="on all sides; at 0 numbers are compared, too (default: 0.1)"
    )
    parser.add_argument("--data_dir", help="official files (default: the demo data, made anew)")
    parser.add_argument("--tokenizer", help="model or folder whose vocabulary is taken (default: the demo model)")
    parser.add_argument("--no_plain", action="store_true", help="leave out earlier scripts' ways, which take longest")
    parser.add_argument(
        "--pytorch", metavar="PYTHON", help="a Python that has PyTorch and transformers, to compare with"
    )
    parser.add_argument("--compile", action="store_true", help="measure PyTorch with torch.compile, too")
    parser.add_argument("--growth", action="store_true", help="show instead how the cost of a job grows, for ours")
    parser.add_argument("--no_model", action="store_true", help="compute nothing: what the loops themselves cost")
    parser.add_argument(
        "--predict", action="store_true", help="predict the test sets too, and compare the files at dropout 0"
    )
    parser.add_argument("--output", type=Path, default=Path("benchmark"), help="folder (default: %(default)s)")
    args = parser.parse_args(argv)
    layers, hidden_size = MODEL_SIZES[args.model_size]
    args.layers, args.hidden_size = args.layers or layers, args.hidden_size or hidden_size
    chosen = [tasks.get_task(name) for name in args.tasks]
    environment.tune_cpu()
    environment.import_libraries()
    systems = [*(() if args.no_plain else ("plain",)), "ours"]
    systems += PYTORCH[: 1 + args.compile] if args.pytorch else ()
    if args.no_model and args.pytorch:
        raise UserError("--no_model compares plain and ours: leave out --pytorch")
    if args.compile and not args.pytorch:
        raise UserError("--compile is PyTorch's: name a Python that has it with --pytorch")
    if not args.pytorch:
        print("PyTorch is left out: --pytorch names a Python that has it")
    with tempfile.TemporaryDirectory() as temporary:
        scratch = Path(temporary)
        if not args.data_dir or not args.tokenizer:
            make_demo(scratch / "demo")
        args.data_dir = args.data_dir or scratch / "demo/data"
        args.tokenizer = args.tokenizer or str(scratch / "demo/model")
        args.output.mkdir(parents=True, exist_ok=True)
        bench = Bench(args, scratch)
        results: dict[str, dict[str, list[dict[str, Any]]]] = {}
        if args.growth:
            (args.output / "growth.md").write_text(measure_growth(bench), encoding="utf-8")
            print(f"growth.md is in {args.output}")
            return
        model = bench.model(args.layers, args.hidden_size)
        for task in chosen:
            results[task.name] = {system: [] for system in systems}
            for number in range(1, args.rounds + 1):
                for system in systems:
                    cost = bench.run(system, task, model)
                    results[task.name][system].append(cost)
                    print(f"{task.name} {number}/{args.rounds} {system}: {cost['seconds']:.1f} s", flush=True)
            add_limits(results[task.name])
    text = describe(args, results)
    print(f"\n{text}")
    (args.output / "benchmark.md").write_text(text, encoding="utf-8")
    (args.output / "benchmark.json").write_text(json.dumps(results, indent=1), encoding="utf-8")
    plot(args.output / "benchmark.png", results)
    print(f"benchmark.md, benchmark.json and benchmark.png are in {args.output}")


def describe_processor(cpuinfo: str) -> str:
    """Name of a processor, and the instructions that the kernels of its matrix products take.

    Args:
        cpuinfo: text of ``/proc/cpuinfo``, or "" where there is none.
    """
    fields = dict(line.split(":", 1) for line in cpuinfo.splitlines() if ":" in line)
    said = {name.strip(): value.strip() for name, value in fields.items()}
    flags = said.get("flags", "").split()
    known = {"avx512f": "AVX-512", "avx2": "AVX2"}
    instructions = next((name for flag, name in known.items() if flag in flags), "no AVX2")
    told = os.environ.get("MKL_DEBUG_CPU_TYPE")
    path = f"{instructions}, MKL_DEBUG_CPU_TYPE {told}" if told else instructions
    return f"{said.get('model name', platform.processor() or platform.machine())} ({path})"


def _cpuinfo() -> str:
    try:
        return Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return ""


def describe(args: Any, results: dict[str, dict[str, list[dict[str, Any]]]]) -> str:
    """The tables in Markdown."""
    versions = ", ".join(f"{name} {version}" for name, version in environment.versions().items())
    lines = [
        f"ERNIE, {args.layers} layers of {args.hidden_size}, random weights, dropout {args.dropout:g}; {args.steps} "
        f"steps, evaluated twice; at most {args.records} examples a split; {args.rounds} rounds. "
        f"{describe_processor(_cpuinfo())}, {environment.num_processors()} cores; {versions}. "
        "In brackets the ratio to ours, median and range: above 1, ours is better.",
        "",
    ]
    for name, rounds in results.items():
        lines.append(markdown_table([name, *rounds], compare(rounds)))
        if {"plain", "ours"} <= set(rounds) and not args.dropout:  # which picks other units in each
            lines += [f"{name}, ours against plain: {same_results(rounds)}.", ""]
    return "\n".join(lines)


if __name__ == "__main__":
    cli.run(main)

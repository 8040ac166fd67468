"""What starts further processes while a model is on the card: features, grid, predictions, and the Trainer."""

from __future__ import annotations

import shutil

from clue_utils import project
from clue_utils.grid import trial
from clue_utils.tasks import TASKS
from gpu_check import jobs
from gpu_check.checks import Report
from gpu_check.jobs import NO_CARD, Bench

_TNEWS = TASKS["TNEWS"]
_TRAINER = project.TOP / "classification/run_clue_classifier_trainer.py"


def check(report: Report, bench: Bench) -> None:
    check_features(report, bench)
    check_grid(report, bench)
    check_trainer(report, bench)


def check_features(report: Report, bench: Bench) -> None:
    """Two processes encode a test set while the trained model is on the device."""
    with report.failing("a new test set beside a model in memory"):
        output = bench.folder("predicted")
        flags = ["--data_dir", bench.data, "--device", bench.device, "--max_steps", 2, "--batch_size", 8]
        flags += ["--max_seq_length", 20, "--num_proc", 2, "--overwrite_cache", "--do_train", "--do_predict"]
        bench.run(trial.script_words(_TNEWS, bench.model, output, *flags))
        found = sum((output / name).is_file() for name in _TNEWS.submissions.values())
        report.equal("new test sets beside a model in memory: files", found, len(_TNEWS.submissions))


def check_grid(report: Report, bench: Bench) -> None:
    """Two trials of a grid search, on two cards where there are; then predictions of the better one, zipped."""
    if not shutil.which("parallel"):
        report.not_run("grid search, predict_and_zip", "GNU parallel is not installed")
        return
    with report.failing("grid search of 2 trials"):
        results = bench.folder("results")
        words = [project.TOP / "scripts/grid_search.py", bench.model, "--tasks", "TNEWS", "--results", results]
        words += ["--learning_rates", "1e-4", "1e-3", "--batch_sizes", 16]
        if not bench.on_card:
            words += ["--cpu_slots", 2]
        words += ["--", "--max_steps", 3, "--max_seq_length", 20, "--data_dir", bench.data, "--num_proc", 1]
        bench.run(words)
        ended = [jobs.result(path.parent) for path in sorted(results.rglob("result.json"))]
        report.equal("grid search: trials finished", sum(one["status"] == "finished" for one in ended), 2)
        kinds = sorted({str(one.get("device")) for one in ended})
        report.info("grid search: devices", ", ".join(kinds))
        if bench.num_cards < 2:
            report.not_run("a card for each trial", NO_CARD if not bench.on_card else "one card")
        zipped = bench.scratch / "submit.zip"
        (folder,) = [path for path in results.iterdir() if path.is_dir()]
        words = [project.TOP / "scripts/predict_and_zip.py", folder, "--output", zipped]
        bench.run([*words, "--", "--data_dir", bench.data, "--device", bench.device])
        report.equal("predict_and_zip", "zip there" if zipped.is_file() else "no zip", "zip there")


def check_trainer(report: Report, bench: Bench) -> None:
    """PaddleNLP's Trainer: train, go on, export, and the inference model beside the checkpoint."""
    with report.failing("Trainer"):
        output = bench.folder("trainer")
        words = [_TRAINER, "--dataset", "tnews", "--model_name_or_path", bench.model, "--output_dir", output]
        words += ["--data_dir", bench.data, "--device", bench.device, "--max_seq_length", 24, "--save_steps", 5]
        words += ["--per_device_train_batch_size", 8, "--learning_rate", 1e-3, "--do_train"]
        words += ["--max_steps", 10]
        bench.call("stop_trainer", words=words[1:], step=3)
        stopped = [path.name for path in output.glob("checkpoint-*")]
        report.equal("Trainer, stopped at update 3: leaves", " ".join(stopped) or "nothing", "checkpoint-3")
        bench.run([*words, "--do_export"])
        report.equal("Trainer, goes on to update 10", jobs.result(output)["status"], "finished")
        difference = bench.call("exported_difference", folder=output, data=bench.data, requested=bench.device)
        # The passes of the inference engine fuse operations, on a card more of them.
        bound = 1e-3 if bench.on_card else 1e-4
        report.at_most("Trainer, exported model beside the checkpoint", difference, bound)

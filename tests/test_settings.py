"""Flags: suggestions, values and their origin, and answers without loading PaddlePaddle."""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

import run_c3
import run_chid
import run_clue_classifier
import run_cmrc2018
from clue_utils import cli
from clue_utils.errors import UserError
from clue_utils.record import Run, trained_with
from clue_utils.settings import Settings, differences, flag, flags_of_trials, recorded
from clue_utils.tasks import TASKS
from clue_utils.training.cloze import ChidSettings

TOP = Path(__file__).parents[1]


def resolved(*words: str, task: str = "TNEWS", gpus: int = 1, kind: type[Settings] = Settings):
    """The settings that flags come to; a model "x" that none of the words names."""
    model = () if "--model_name_or_path" in words else ("--model_name_or_path", "x")
    flags = kind.parser().parse_args([*model, *words])
    return kind.resolve(vars(flags), TASKS[task], gpus, trained_with(flags.model_name_or_path, TASKS[task]))


def test_every_flag_of_the_published_command_is_taken():
    args = resolved(
        *"--max_seq_length 128 --batch_size 32 --learning_rate 3e-5 --num_train_epochs 6 --logging_steps 100 --seed 42 "
        "--save_steps 100 --warmup_proportion 0.1 --weight_decay 0.01 --adam_epsilon 1e-8 "
        "--output_dir ernie-3.0-base-zh/models/TNEWS/3e-5_32/ --device gpu --dropout 0.1 "
        "--gradient_accumulation_steps 1 --do_train".split(),
        " ",  # what a backslash followed by a blank leaves
    )
    assert args.num_train_epochs == 6 and args.device == "gpu" and args.do_train


def test_origin_of_each_value():
    args = resolved("--do_train", "--learning_rate", "1e-4")
    assert (args.learning_rate, args.sources["learning_rate"]) == (1e-4, "command line")
    assert (args.max_seq_length, args.sources["max_seq_length"]) == (128, "registry, TNEWS")
    assert (args.batch_size, args.sources["batch_size"]) == (
        32,
        "published best of ernie-3.0-base-zh; this model has none",
    )
    assert (args.save_steps, args.max_steps, args.output_dir) == (100, -1, "best_tnews_model")


def test_values_are_logged_as_tables_have_them_within_a_terminal(caplog):
    caplog.set_level("INFO")
    resolved("--do_train", "--model_name_or_path", "demo/model").log(TASKS["TNEWS"], 1)
    lines = caplog.messages[1:]
    assert "  learning_rate: 3e-5 (published best of ernie-3.0-base-zh; this model has none)" in lines
    assert "  adam_epsilon: 1e-8 (default)" in lines and "  dropout: 0.1" in "\n".join(lines)
    assert all(len(line) <= 80 for line in lines)


def test_a_published_model_brings_its_own_best_run():
    args = resolved("--do_train", "--model_name_or_path", "ernie-1.0", task="CLUEWSC2020")
    assert (args.learning_rate, args.batch_size, args.dropout) == (2e-5, 8, 0.0)


@pytest.mark.parametrize(
    ("task", "words", "gpus", "each", "warning"),
    [
        ("C3", "ernie-gram-zh --do_train", 4, 6, ""),
        ("TNEWS", "/data/ernie-3.0-base-zh --do_train", 4, 8, ""),
        ("C3", "ernie-3.0-base-zh --do_train", 3, 10, "batch of 32 examples .* 3 GPUs: 10 on each make 30, .* on 2 "),
        ("AFQMC", "ernie-1.0 --do_train", 5, 3, "batch of 16 examples .* over 5 GPUs: 3 on each make 15, .* on 4 of"),
        ("C3", "ernie-gram-zh --do_train", 32, 1, "batch of 24 examples .* 1 on each make 32, .* on 24 of the GPUs"),
        ("C3", "ernie-3.0-base-zh --do_train --batch_size 11", 3, 11, ""),
        ("C3", "ernie-3.0-base-zh --do_eval", 3, 10, ""),
    ],
)
def test_the_published_batch_is_shared_out_over_the_gpus(caplog, task, words, gpus, each, warning):
    args = resolved("--model_name_or_path", *words.split(), task=task, gpus=gpus)
    args.log(TASKS[task], gpus)
    assert args.batch_size == each
    lines = [entry.getMessage() for entry in caplog.records if entry.levelname == "WARNING"]
    assert len(lines) == bool(warning) and all(re.search(warning, line) for line in lines)


def test_a_checkpoint_s_values_come_before_the_registry_s(tmp_path):
    result = {"task": "TNEWS", "hyper_parameters": {"max_seq_length": 64, "seed": 7}}
    (tmp_path / "result.json").write_text(json.dumps(result))
    args = resolved("--model_name_or_path", str(tmp_path), "--do_predict")
    assert (args.max_seq_length, args.sources["max_seq_length"]) == (64, "checkpoint")
    other = resolved("--model_name_or_path", str(tmp_path), "--do_train", task="CSL")
    assert other.max_seq_length == 256


def test_a_part_of_an_epoch_hinders_only_further_training(tmp_path):
    (tmp_path / "result.json").write_text(json.dumps({"task": "TNEWS", "hyper_parameters": {"num_train_epochs": 0.5}}))
    for action, is_refused in (("--do_predict", False), ("--do_train", True)):
        with pytest.raises(UserError, match="num_train_epochs") if is_refused else contextlib.nullcontext():
            resolved("--model_name_or_path", str(tmp_path), action)


def test_settings_of_one_script_are_part_of_the_run(tmp_path):
    words = ("--model_name_or_path", str(tmp_path), "--do_predict")
    recorded = {"assignment": "greedy", "max_seq_length": 32}
    (tmp_path / "result.json").write_text(json.dumps({"task": "CHID", "hyper_parameters": recorded}))
    args = resolved(*words, task="CHID", kind=ChidSettings)
    assert (args.assignment, args.sources["assignment"]) == ("greedy", "checkpoint")
    assert args.hyper_parameters()["assignment"] == "greedy"
    (tmp_path / "result.json").write_text(json.dumps({"task": "CHID", "hyper_parameters": {"assignment": "lucky"}}))
    with pytest.raises(UserError, match="assignment cannot be 'lucky'"):
        resolved(*words, task="CHID", kind=ChidSettings)


@pytest.mark.parametrize(
    "value",
    ["long", -1, None, 1.5, True, [64], 10**400],
    ids=["text", "negative", "null", "float", "bool", "list", "huge"],
)
def test_a_checkpoint_s_values_are_checked_like_flags(tmp_path, value):
    (tmp_path / "result.json").write_text(json.dumps({"task": "TNEWS", "hyper_parameters": {"max_seq_length": value}}))
    with pytest.raises(UserError, match="result.json.*max_seq_length"):
        resolved("--model_name_or_path", str(tmp_path), "--do_predict")


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("--do_trian", "did you mean --do_train?"),
        ("--lr 1e-5", "'--lr': did you mean --learning_rate?"),
        ("--per_device_train_batch_size=8", "did you mean --batch_size?"),
        ("--warmup_ratio 0.1", "did you mean --warmup_proportion?"),
        ("--num_epochs 3", "did you mean --num_train_epochs?"),
        ("--fp16", "did you mean --precision fp16?"),
        ("--gpu 0", "did you mean --device gpu?"),
        ("--recompute", "--gradient_accumulation_steps N saves memory"),
        ("--lr_scheduler_type cosine", "run_clue_classifier_trainer.py has other schedules"),
        ("--do_train true", "'true': a switch takes no value: name it, or leave it out"),
        ("--gpus 0,1", "paddle.distributed.launch --gpus"),
        ("--do_lower_case", "the model's own tokenizer_config.json says"),
        ("--evaluation_strategy=steps", "--save_steps N evaluates every N steps"),
        ("--resume_from_checkpoint x", "the same command goes on"),
        ("--hellp", "unknown argument '--hellp' (--help"),
        ("--batch_size 0", "--batch_size: '0' is not an integer of at least 1"),
        (f"--batch_size {'9' * 400}", "is not an integer of at least 1"),
        ("--learning_rate nan", "--learning_rate: 'nan' is not a number above 0"),
        ("--dropout 1", "--dropout: '1' is not a number from 0 to below 1"),
        ("--max_steps 0", "--max_steps: '0' is not a number of steps"),
        ("--device tpu", "--device: invalid choice: 'tpu'"),
        ("--save_best_model perhaps", "--save_best_model: 'perhaps' is neither true nor false"),
    ],
)
def test_a_wrong_flag_gets_one_line_and_status_2(capsys, words, line):
    with pytest.raises(SystemExit) as end:
        run_clue_classifier.main(["--task_name", "TNEWS", "--model_name_or_path", "x", *words.split()])
    printed = capsys.readouterr().err
    assert end.value.code == 2 and line in printed and printed.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "are_shown"), [("--do_train", True), ("--do_train --do_eval", True), ("--do_eval", False)]
)
def test_settings_of_training_are_shown_where_something_is_trained(caplog, words, are_shown):
    with caplog.at_level("INFO", logger="clue_utils"):
        resolved(*words.split()).log(TASKS["TNEWS"], 1)
    assert ("learning_rate" in caplog.text) is are_shown and "max_seq_length: 128" in caplog.text


def test_a_mistyped_flag_that_is_required_is_named_before_it_is_missed(capsys):
    with pytest.raises(SystemExit):
        run_clue_classifier.main("--task_name TNEWS --modle_name_or_path x --do_train".split())
    assert "'--modle_name_or_path': did you mean --model_name_or_path?" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ([], "nothing to do"),
        (["--do_train", "--batch_size", "2", "--gradient_accumulation_steps", "3"], "more than --batch_size 2"),
        (["--do_train", "--do_predict", "--save_best_model", "false"], "keeps no checkpoint"),
        (["--do_train", "--do_export", "--save_best_model", "false"], "keeps no checkpoint"),
        (["--do_eval", "--export_onnx"], "--export_onnx is for what --do_export writes"),
        (["--do_export", "--ensemble", "y"], "writes one model: drop --ensemble"),
    ],
)
def test_flags_that_contradict_each_other(words, line):
    with pytest.raises(UserError, match=line):
        resolved(*words)


@dataclass(frozen=True, kw_only=True)
class SmoothedSettings(Settings):
    smoothing: float = recorded("smoothing", cli.proportion, "of labels", 0.25)
    smoothing_kernel: str = recorded("smoothing", ("flat", "steep"), "its form", "flat", may_change=True)
    show_smoothing: bool = flag("smoothing", bool, "print it", False)


def test_a_new_flag_is_one_field(tmp_path, caplog):
    kind = SmoothedSettings
    shown = kind.parser().format_help()
    assert "\nsmoothing:\n  --smoothing X " in shown and "of labels (default: 0.25)" in shown
    assert "  --smoothing_kernel {flat,steep}" in shown and "  --show_smoothing " in shown
    args = resolved("--do_train", "--smoothing", "0.5", "--show_smoothing", kind=kind)
    assert (args.smoothing, args.smoothing_kernel, args.show_smoothing) == (0.5, "flat", True)
    own = {"smoothing": 0.5, "smoothing_kernel": "flat"}
    assert args.hyper_parameters() == resolved("--do_train").hyper_parameters() | own
    with caplog.at_level("INFO", logger="clue_utils"):
        args.log(TASKS["TNEWS"], 1)
    assert "  smoothing: 0.5 (command line)" in caplog.messages
    assert "  smoothing_kernel: flat (default)" in caplog.messages and "show_smoothing" not in caplog.text

    # A run in its output folder tells it from others, and its checkpoint brings it along.
    words = ("--do_train", "--output_dir", str(tmp_path))
    Run("TNEWS", "accuracy", resolved(*words, "--smoothing", "0.5", kind=kind), "cpu").write(history=[])
    Run("TNEWS", "accuracy", resolved(*words, "--smoothing", "0.5", "--smoothing_kernel", "steep", kind=kind), "cpu")
    for other in (resolved(*words, kind=kind), resolved(*words)):
        with pytest.raises(UserError, match=r"other settings \(smoothing 0.5 there, (0.25|None) now\)"):
            Run("TNEWS", "accuracy", other, "cpu")
    words = ("--model_name_or_path", str(tmp_path), "--do_eval")
    assert resolved(*words, kind=kind).sources["smoothing"] == "checkpoint"
    values = {"smoothing": 0.1, "show_smoothing": True}
    (tmp_path / "result.json").write_text(json.dumps({"task": "TNEWS", "hyper_parameters": values}))
    args = resolved(*words, kind=kind)
    assert (args.smoothing, args.show_smoothing) == (0.1, False)
    (tmp_path / "result.json").write_text(json.dumps({"task": "TNEWS", "hyper_parameters": {"smoothing": 1}}))
    with pytest.raises(UserError, match="hyper-parameter smoothing cannot be 1; pass --smoothing"):
        resolved(*words, kind=kind)


def test_what_is_recorded_keeps_its_names():
    """Checkpoints of every version go by them."""
    names = "max_seq_length batch_size learning_rate num_train_epochs warmup_proportion warmup_steps weight_decay "
    names += "adam_epsilon max_grad_norm dropout lora_rank gradient_accumulation_steps group_by_length fused_attention "
    names += "fgm r_drop ema layer_decay train_on_dev precision seed logging_steps save_steps"
    recorded = resolved("--do_train").hyper_parameters()
    assert [*recorded] == names.split()
    flags = Settings.flags()
    assert [name for name, value in recorded.items() if not flags[name].accepts(value)] == []


def test_settings_that_differ():
    recorded = {"model": "x", "status": "finished", "hyper_parameters": {"a": 1, "b": 2, "logging_steps": 5}}
    now = {"model": "y", "hyper_parameters": {"a": 1, "b": 3, "c": 4, "logging_steps": 6}}
    assert differences(recorded, now) == {"model": ("x", "y"), "b": (2, 3), "c": (None, 4)}
    assert differences(now, recorded, ignoring={"status", "model"}) == {"b": (3, 2), "c": (4, None)}


@pytest.mark.parametrize("name", ["group_by_length", "fused_attention"])
def test_a_switch_that_a_record_does_not_know_was_off(name):
    """A run of an earlier version can be gone on with."""
    recorded, off, on = ({"hyper_parameters": {"a": 1} | more} for more in ({}, {name: False}, {name: True}))
    assert differences(recorded, off) == differences(off, recorded) == {}
    assert differences(recorded, on) == {name: (False, True)} and differences(on, recorded) == {name: (True, False)}


@pytest.mark.parametrize(
    ("name", "off", "on"),
    [
        *(("lora_rank", 0, 8), ("fgm", 0.0, 1.0), ("r_drop", 0.0, 4.0), ("ema", 0.0, 0.999)),
        *(("layer_decay", 1.0, 0.9), ("train_on_dev", False, True)),
    ],
)
def test_a_run_that_does_not_know_of_a_later_flag_was_without(name, off, on):
    recorded, none, some = ({"hyper_parameters": more} for more in ({}, {name: off}, {name: on}))
    assert differences(recorded, none) == differences(none, recorded) == {}
    assert differences(recorded, some) == {name: (off, on)}
    assert resolved("--do_train").hyper_parameters()[name] == off


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("--do_train --do_eval --train_on_dev", "a score on it says nothing: drop --do_eval, or pass --train_on_dev f"),
        ("--do_train --prune --train_on_dev", "drop --prune"),
        ("--do_train --r_drop 1 --dropout 0", "pass a --dropout above 0"),
    ],
)
def test_flags_of_competitors_that_do_not_go_together(words, line):
    with pytest.raises(UserError, match=line):
        resolved(*words.split())


def test_a_search_is_not_over_runs_without_a_score():
    with pytest.raises(UserError, match="--train_on_dev leaves no score to choose trials by"):
        flags_of_trials(["--train_on_dev"])


@pytest.mark.parametrize("words", ["--dropout 0", "--seed=0", "--do_train", "--device cpu", "--output_dir o"])
def test_a_trial_sets_some_flags_itself(words):
    with pytest.raises(UserError, match=f"{words.split('=')[0].split()[0]} is set by the trial itself"):
        flags_of_trials(["--max_steps", "3", *words.split()])


def test_flags_of_trials_leave_to_a_script_what_it_alone_knows():
    assert flags_of_trials("--assignment greedy --max_steps 3".split())["max_steps"] == 3


@pytest.mark.parametrize("module", [run_clue_classifier, run_c3, run_chid, run_cmrc2018], ids=lambda m: m.__name__)
def test_help_does_not_load_paddle(module):
    code = (
        "import sys, runpy\nsys.argv = ['x', '--help']\n"
        f"try: runpy.run_path({module.__file__!r}, run_name='__main__')\n"
        "finally: print([m for m in ('paddle', 'paddlenlp', 'datasets', 'scipy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=TOP)
    assert "--learning_rate" in done.stdout and "example:" in done.stdout
    assert done.stdout.endswith("[]\n")

"""What becomes of PaddleNLP's TrainingArguments in the Trainer script: taken, recorded, or refused by name."""

from __future__ import annotations

import dataclasses
import json

import pytest
from safetensors.numpy import load_file

import run_clue_classifier as plain
import run_clue_classifier_trainer
from clue_utils import settings, tasks
from clue_utils.errors import UserError
from clue_utils.record import trained_with
from clue_utils.training import trainer_arguments
from clue_utils.training.session import Session
from clue_utils.training.trainer import SeededBatches
from clue_utils.training.trainer_arguments import NOT_RECORDED, NUMBERS, RECORDED, TrainingArguments

REQUIRED = "--dataset tnews --model_name_or_path m --output_dir o --do_train"


@pytest.fixture(scope="module")
def flags_of():
    return lambda *words: trainer_arguments.parse_arguments([*REQUIRED.split(), *map(str, words)], None)


@pytest.fixture(scope="module")
def completed(flags_of):
    """What flags come to: PaddleNLP's arguments."""

    def complete(*words):
        flags = flags_of(*words)
        trained = trained_with(flags.model_name_or_path, tasks.TASKS["TNEWS"])
        return trainer_arguments.resolve(flags, tasks.TASKS["TNEWS"], 1, trained).trainer

    return complete


@pytest.fixture(scope="module")
def run(run_on_demo):
    words = "--dataset tnews --do_train --max_seq_length 16 --per_device_train_batch_size 32 --learning_rate 1e-3"
    return lambda output, *more: run_on_demo(run_clue_classifier_trainer.main, output, *words.split(), *more)


def evaluated(folder):
    return [entry["step"] for entry in json.loads((folder / "result.json").read_text())["history"]]


def checkpoints(folder):
    return sorted(int(path.name.removeprefix("checkpoint-")) for path in folder.glob("checkpoint-*"))


# What the two strategies and --load_best_model_at_end come to, or a part of the line that refuses them.
STRATEGIES = [
    ("", "steps steps True"),
    ("--load_best_model_at_end false", "steps steps False"),
    ("--evaluation_strategy epoch", "epoch epoch True"),
    ("--save_strategy epoch", "epoch epoch True"),
    ("--evaluation_strategy epoch --save_strategy epoch", "epoch epoch True"),
    ("--evaluation_strategy epoch --save_strategy epoch --load_best_model_at_end", "epoch epoch True"),
    ("--evaluation_strategy epoch --save_strategy epoch --load_best_model_at_end false", "epoch epoch False"),
    ("--evaluation_strategy epoch --save_strategy epoch --eval_steps 3 --save_steps 5", "epoch epoch True"),
    ("--evaluation_strategy steps --save_strategy steps", "steps steps True"),
    ("--evaluation_strategy steps --save_steps 9", "steps steps True"),
    ("--evaluation_strategy no", "no steps False"),
    ("--evaluation_strategy no --load_best_model_at_end false", "no steps False"),
    ("--evaluation_strategy no --save_strategy epoch", "no epoch False"),
    ("--evaluation_strategy no --save_strategy no", "no no False"),
    ("--save_strategy no", "no no False"),
    ("--save_strategy no --evaluation_strategy epoch --load_best_model_at_end false", "epoch no False"),
    ("--save_strategy no --eval_steps 5 --load_best_model_at_end false", "steps no False"),
    ("--evaluation_strategy epoch --save_strategy steps --load_best_model_at_end false", "epoch steps False"),
    ("--evaluation_strategy steps --save_strategy epoch --load_best_model_at_end false", "steps epoch False"),
    ("--eval_steps 3 --save_steps 10 --load_best_model_at_end false", "steps steps False"),
    ("--eval_steps 5 --save_steps 10", "steps steps True"),
]
REFUSED = [
    ("--evaluation_strategy no --load_best_model_at_end", "--evaluation_strategy no evaluates none"),
    ("--save_strategy no --load_best_model_at_end", "--save_strategy no leaves no checkpoint"),
    ("--save_strategy no --evaluation_strategy steps", "--save_strategy no writes none"),
    ("--evaluation_strategy epoch --save_strategy steps", "--evaluation_strategy epoch and --save_strategy steps"),
    ("--evaluation_strategy steps --save_strategy epoch", "--evaluation_strategy steps and --save_strategy epoch"),
    ("--evaluation_strategy epoch --save_steps 10", "--evaluation_strategy epoch and --save_steps 10 differ"),
    ("--save_strategy epoch --eval_steps 5", "--eval_steps 5 and --save_strategy epoch differ"),
    ("--eval_steps 3 --save_steps 10", "--save_steps 10 is not a multiple of --eval_steps 3"),
    ("--eval_steps 30", "--save_steps 100 is not a multiple of --eval_steps 30"),
]


@pytest.mark.parametrize(("words", "outcome"), STRATEGIES)
def test_what_strategies_come_to(completed, words, outcome):
    names = ("evaluation_strategy", "save_strategy", "load_best_model_at_end")
    assert " ".join(str(completed(*words.split())[name]) for name in names) == outcome


@pytest.mark.parametrize(("words", "line"), REFUSED)
def test_strategies_that_cannot_keep_the_best_are_refused_in_the_user_s_words(completed, words, line):
    with pytest.raises(UserError, match=line) as error:
        completed(*words.split())
    assert "--load_best_model_at_end false" in str(error.value) and "\n" not in str(error.value)


def test_an_evaluation_and_a_checkpoint_after_each_epoch(run, tmp_path):
    words = "--evaluation_strategy epoch --save_strategy epoch --num_train_epochs 2 --load_best_model_at_end True"
    batch = ("--per_device_train_batch_size", 128)  # of 800 examples
    status, _, error = run(tmp_path, *words.split(), "--metric_for_best_model", "accuracy", *batch)
    assert status == 0, error
    result = json.loads((tmp_path / "result.json").read_text())
    assert evaluated(tmp_path) == checkpoints(tmp_path) == [7, 14]
    best = max(result["history"], key=lambda entry: entry["accuracy"])
    assert (result["best_step"], result["best_metric"]) == (best["step"], best["accuracy"])
    state = json.loads((tmp_path / "trainer_state.json").read_text())
    assert state["best_model_checkpoint"].endswith(f"checkpoint-{best['step']}")


@pytest.mark.parametrize(
    ("words", "evaluations", "saved"),
    [
        ("--max_steps 5 --save_steps 2", [2, 4, 5], [2, 4, 5]),
        ("--max_steps 3", [3], [3]),
        ("--max_steps 5 --eval_steps 2 --save_steps 3 --load_best_model_at_end false", [2, 4, 5], [3, 5]),
        ("--max_steps 3 --evaluation_strategy no --save_steps 2", [], [2, 3]),
        ("--max_steps 3 --eval_steps 2 --save_strategy no --load_best_model_at_end false", [2, 3], []),
        ("--num_train_epochs 0.12 --evaluation_strategy epoch", [3], [3]),
    ],
)
def test_the_last_update_is_evaluated_and_saved_too(run, tmp_path, words, evaluations, saved):
    status, _, error = run(tmp_path, *words.split())
    assert status == 0, error
    assert (evaluated(tmp_path), checkpoints(tmp_path)) == (evaluations, saved)


@pytest.mark.parametrize(
    ("words", "kept"), [((), 4), (("--metric_for_best_model", "loss"), 2), (("--load_best_model_at_end", "false"), 6)]
)
def test_the_record_names_what_is_kept(run, tmp_path, monkeypatch, words, kept):
    """Chosen by another metric than the task's, or not at all: the score on record is that of the kept weights."""
    scores = {2: (0.3, 0.5), 4: (0.5, 0.9), 6: (0.4, 0.8)}
    # The kept weights are evaluated again, for their answers, where they are not the last.
    steps = [*scores, kept]
    metrics = iter([{"accuracy": scores[step][0], "loss": scores[step][1]} for step in steps])
    monkeypatch.setattr(Session, "evaluate", lambda *_: next(metrics))
    status, _, error = run(tmp_path, "--max_steps", 6, "--save_steps", 2, *words)
    assert status == 0, error
    result = json.loads((tmp_path / "result.json").read_text())
    assert (result["best_step"], result["best_metric"]) == (kept, scores[kept][0])
    assert result["best_metrics"] == {"accuracy": scores[kept][0], "loss": scores[kept][1]}
    (stored,) = (tmp_path / f"checkpoint-{kept}").glob("model*.safetensors")
    ours, theirs = load_file(str(tmp_path / "model.safetensors")), load_file(str(stored))
    assert ours.keys() == theirs.keys() and all((ours[name] == theirs[name]).all() for name in ours)


def test_an_epoch_s_leftover_batches_are_not_part_of_the_next_update():
    def rows(epoch, num_parts, num_steps=100):
        per_epoch = max(1, 5 // num_parts)
        batches = SeededBatches(range(18), 4, 1, num_parts, per_epoch, num_steps)
        batches.set_epoch(epoch)
        return list(batches)

    assert [len(rows(0, parts)) for parts in (1, 2, 3, 5, 8)] == [5, 4, 3, 5, 5]
    assert rows(1, 2) == rows(1, 1)[:4]
    assert [len(rows(epoch, 2, num_steps=3)) for epoch in (0, 1, 2)] == [4, 2, 0]


def other_value(field):
    """A value that a flag does not have when left out, as on a command line."""
    if isinstance(field.default, bool):
        return not field.default
    if isinstance(field.default, (int, float)):
        return field.default + 7
    words = {"skip_data_intervals": "1", "hybrid_parallel_topo_order": "pp_first"}
    return words.get(field.name, 7 if "int" in str(field.type) else "stage1")


def test_what_the_script_has_no_flag_for_is_not_said_to_be_given(flags_of, caplog):
    caplog.set_level("INFO")
    trainer_arguments.resolve(flags_of("--seed", 3), tasks.TASKS["TNEWS"], 1, {}).log(tasks.TASKS["TNEWS"], 1)
    assert [line for line in caplog.messages if "command line" in line] == ["  seed: 3 (command line)"]
    assert "  fgm: 0.0 (default)" in caplog.messages


def test_each_training_argument_is_recorded_or_refused_or_cannot_change_what_is_learnt():
    names = {entry.name for entry in dataclasses.fields(TrainingArguments)}
    plain = {*settings.HYPER_PARAMETERS} & names
    groups = (set(trainer_arguments.REFUSED), set(NOT_RECORDED), set(RECORDED), plain)
    assert sum(len(group) for group in groups) == len(set().union(*groups)) == len(names)
    assert set().union(*groups) == names and {*trainer_arguments.WORDS} <= names
    assert {*NUMBERS} <= names | {"dropout", "lora_rank", "max_seq_length", "num_proc"}
    assert {"adam_beta1", "adam_beta2", "optim", "lr_scheduler_type", "lr_end", "power", "num_cycles"} <= {*RECORDED}
    assert {"fp16_opt_level", "scale_loss", "evaluation_strategy", "metric_for_best_model"} <= {*RECORDED}


def test_a_flag_without_effect_here_is_refused_by_name(flags_of, capsys):
    fields = {entry.name: entry for entry in dataclasses.fields(TrainingArguments)}
    for name, reason in trainer_arguments.REFUSED.items():
        with pytest.raises(SystemExit):
            flags_of(f"--{name}", other_value(fields[name]))
        error = capsys.readouterr().err
        assert error.startswith(f"error: --{name} ") and reason in error and error.count("\n") == 1
        if isinstance(fields[name].default, (bool, int, float)):
            flags_of(f"--{name}", fields[name].default)  # what it is anyway may be said


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("--learning_rat 1", "unknown argument '--learning_rat': did you mean --learning_rate?"),
        (
            "--task_file mood.json",
            "--task_file: not with the Trainer: run classification/run_clue_classifier.py (--help",
        ),
        ("--fgm=1.0", "--fgm: not with the Trainer: run classification/run_clue_classifier.py ("),
        ("--batch_size 8", "unknown argument '--batch_size': did you mean --per_device_train_batch_size?"),
        ("--precision bf16", "unknown argument '--precision': did you mean --bf16?"),
        ("--learning_rate -1", "argument --learning_rate: '-1.0' is not a number above 0"),
        ("--metric_for_best_model eval_f1", "--metric_for_best_model eval_f1: choose one of accuracy, loss"),
        ("--adam_beta1 1", "argument --adam_beta1: '1.0' is not a number from 0 to below 1"),
        ("--eval_steps 0", "argument --eval_steps: '0' is not an integer of at least 1"),
        ("--optim adafactor", "--optim adafactor: choose one of adamw, adamw_mini"),
        ("--lr_scheduler_type step", "--lr_scheduler_type step: choose one of linear, cosine"),
        ("--fp16_opt_level 2", "--fp16_opt_level 2: choose one of O0, O1, O2"),
        ("--bf16 --fp16", "--bf16 and --fp16 exclude each other"),
        ("--tf32 --fp16", "--fp16 and --tf32 exclude each other"),
    ],
)
def test_a_value_that_the_trainer_cannot_use_is_one_line(flags_of, capsys, words, line):
    with pytest.raises(SystemExit):
        flags_of(*words.split())
    assert capsys.readouterr().err.startswith(f"error: {line}")


@pytest.mark.parametrize("precision", ["bf16", "fp16", "tf32", "fp32"])
def test_the_precision_is_named_by_a_flag_of_its_own(flags_of, precision):
    flags = flags_of(*([] if precision == "fp32" else [f"--{precision}"]))
    args = trainer_arguments.resolve(flags, tasks.TASKS["TNEWS"], 1, {})
    assert args.precision == precision
    paddlenlp = trainer_arguments.training_arguments(args, "cpu")
    assert (paddlenlp.bf16, paddlenlp.fp16) == (precision == "bf16", precision == "fp16")


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (
            "--lr_scheduler_type polynomial --lr_end 1 --learning_rate 1e-3",
            "--lr_end 1.0 must be below --learning_rate",
        ),
        ("--greater_is_better false", "would keep the worst accuracy"),
        ("--metric_for_best_model loss --greater_is_better true", "would keep the worst loss"),
    ],
)
def test_flags_that_contradict_each_other_are_one_line(completed, words, line):
    with pytest.raises(UserError, match=line):
        completed(*words.split())


CHANGED = {
    "adam_beta1": 0.8,
    "adam_beta2": 0.9,
    "lr_scheduler_type": "cosine",
    "num_cycles": 2.0,
    "lr_end": 1e-5,
    "power": 2.0,
    "optim": "adamw_custom",
    "fp16_opt_level": "O2",
    "scale_loss": 2.0,
    "to_static": True,
    "amp_master_grad": True,
    "amp_custom_black_list": ["mean"],
    "amp_custom_white_list": ["mean"],
    "evaluation_strategy": "epoch",
    "save_strategy": "epoch",
    "eval_steps": 1,
    "load_best_model_at_end": False,
    "metric_for_best_model": "eval_loss",
    "per_device_train_batch_size": 16,
}


def test_what_changes_learning_is_recorded_and_compared_when_a_run_is_gone_on_with(run, tmp_path):
    assert {*CHANGED} == {*RECORDED}
    flags = ("--max_steps", 2, "--save_steps", 2)
    assert run(tmp_path, *flags)[0] == 0
    recorded = json.loads((tmp_path / "result.json").read_text())["hyper_parameters"]
    assert recorded["adam_beta1"] == 0.9 and recorded["evaluation_strategy"] == recorded["save_strategy"] == "steps"
    for name, value in CHANGED.items():
        more = [f"--{name}", *(value if isinstance(value, list) else [value])]
        if name in ("evaluation_strategy", "save_strategy"):
            more += ["--load_best_model_at_end", "false"]
        status, _, error = run(tmp_path, *flags, *more)
        assert status == 2 and f"{name} {recorded[name]} there, {value} now" in error, error
    assert run(tmp_path, *flags, "--logging_steps", 1)[0] == 0


def test_the_same_batch_in_other_parts_is_another_run(run, tmp_path):
    """Where an epoch's last batches fall is another matter then, unlike in the plain script."""
    assert run(tmp_path, "--max_steps", 1)[0] == 0
    words = ("--max_steps", 1, "--per_device_train_batch_size", 16, "--gradient_accumulation_steps", 2)
    status, _, error = run(tmp_path, *words)
    assert status == 2 and "per_device_train_batch_size 32 there, 16 now" in error


def test_a_loss_that_is_not_finite_is_one_line(run, tmp_path):
    status, _, error = run(tmp_path, "--max_steps", 3, "--learning_rate", 1e38)
    assert status == 2 and "lower --learning_rate or raise --warmup_ratio" in error and "Traceback" not in error


def test_going_on_from_a_plain_script_s_run_by_epochs(completed, tmp_path):
    """Its example says --save_steps 0, which is once an epoch there."""
    hyper_parameters = {"save_steps": 0, "batch_size": 8}
    (tmp_path / "result.json").write_text(json.dumps({"task": "TNEWS", "hyper_parameters": hyper_parameters}))
    trainer = completed("--model_name_or_path", tmp_path)
    assert (trainer["evaluation_strategy"], trainer["save_strategy"]) == ("epoch", "epoch")
    with pytest.raises(UserError, match="--save_strategy steps: .*pass --save_steps too"):
        completed("--model_name_or_path", tmp_path, "--save_strategy", "steps")


def test_a_run_of_the_plain_script_is_not_gone_on_with_nor_the_other_way_round(run, run_on_demo, tmp_path):
    common = ("--max_seq_length", 16, "--learning_rate", 1e-3, "--max_steps", 1)
    flags = ("--task_name", "TNEWS", "--do_train", "--batch_size", 32, *common)
    for name in ("trainer", "plain"):
        jobs = [lambda folder: run(folder, *common), lambda folder: run_on_demo(plain.main, folder, *flags)]
        first, second = jobs if name == "trainer" else jobs[::-1]
        assert first(tmp_path / name)[0] == 0
        status, _, error = second(tmp_path / name)
        assert status == 2 and "holds a run with other settings (adam_beta1" in error and "more): choose" in error

"""The parts as they go on cards, which are played: what is asked of them, and what is made of the answers."""

from __future__ import annotations

import inspect
import json
from pathlib import Path

import pytest

from clue_utils.errors import UserError
from clue_utils.settings import PRECISIONS
from gpu_check import determinism, device_choice, jobs, machine, memory, precision, processes, several_cards, speed
from gpu_check.checks import FAIL, INFO, NOT_RUN, OK, SLOW, Report
from gpu_check.jobs import Bench

UUIDS = ["GPU-aaaaaaaa-0000-0000-0000-000000000000", "GPU-bbbbbbbb-0000-0000-0000-000000000000"]
UPDATE = {"seconds": 0.05, "host_seconds": 0.03, "records": 32, "tokens": 1000, "padded": 0.2, "evaluation": 1.0}
UPDATE |= {"checkpoint": 4.0, "checkpoint_bytes": 10**9, "kernels": 1500, "kernel_seconds": 0.045}
UPDATE |= {"copies": 4, "waits": 4}


def place(requested, num_ranks=1, variables=None):
    """What the project does on a machine with two cards."""
    visible = (variables or {}).get("CUDA_VISIBLE_DEVICES", "0,1")
    backends = ("gloo", "nccl") if num_ranks > 1 else ("", "")
    if requested == "cpu" or visible == "-1":
        return [{"device": "cpu", "place": "Place(cpu)", "uuid": "", "backend": backends[0]}] * num_ranks
    numbers = [UUIDS.index(name) if name in UUIDS else int(name) for name in visible.split(",")]
    return [
        {"device": f"gpu:{rank}", "place": f"Place(gpu:{rank})", "uuid": UUIDS[numbers[rank]], "backend": backends[1]}
        for rank in range(num_ranks)
    ]


class PlayedBench(Bench):
    """Cards that answer as they are told; each call must fit the function that it names."""

    on_card = True
    num_cards = 2

    def __init__(self, scratch, functions, **answers):
        super().__init__("gpu", scratch)
        object.__setattr__(self, "functions", functions)
        object.__setattr__(self, "answers", answers)
        object.__setattr__(self, "asked", [])
        for name in ("demo", "long"):
            (scratch / name).mkdir()
            (scratch / name / "demo.json").touch()

    def call(self, function, num_ranks=1, variables=None, **arguments):
        inspect.signature(getattr(self.functions, function)).bind(**arguments)
        json.dumps(arguments, default=str)
        self.asked.append((function, arguments, variables or {}))
        answer = self.answers[function]
        found = answer(num_ranks=num_ranks, variables=variables, **arguments) if callable(answer) else answer
        if isinstance(found, Exception):
            raise found
        return found if num_ranks > 1 or function != "place" else found[0]

    def run(self, words, **variables):
        raise UserError("no program is run here")


@pytest.fixture
def play(demo, tmp_path):
    """Run a part's function on played cards; return name -> check, and the bench."""
    from gpu_check import on_device

    def run(function, **answers):
        found = {}
        bench = PlayedBench(tmp_path, on_device, make_random_model=None, lengthen=None, **answers)
        report = Report("part", lambda check: found.update({check.name: check}))
        function(report, bench)
        return found, bench

    return run


@pytest.fixture
def two_cards(monkeypatch):
    monkeypatch.setattr(device_choice.trial, "visible_gpus", lambda: ("0", "1"))
    answers = {"index": "0\n1\n", "uuid": "\n".join(UUIDS)}
    monkeypatch.setattr(machine, "ask_driver", lambda *words: answers.get(words[0].partition("=")[2], ""))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


def test_the_build_must_hold_code_for_every_card(play):
    build = {"is_for_cuda": True, "version": "3.3.1", "cuda": "13.0", "cudnn": "9", "nccl": "2", "flags": {}}
    build |= {"architectures": [75, 80, 90], "capabilities": [[8, 6], [7, 0]]}
    found, _ = play(machine.check_build, build=build)
    assert found["code of this build runs on card 0"].status == OK
    missing = found["code of this build runs on card 1"]
    assert missing.status == FAIL and "12.6" in missing.note
    assert found["PaddlePaddle"].value == "3.3.1, CUDA 13.0"


def test_cards_are_chosen_and_known_by_their_uuids(play, two_cards):
    found, _ = play(device_choice.check, place=place)
    assert {check.status for check in found.values()} == {OK}
    assert found["no --device"].value == "gpu:0" and found["2 ranks"].value == "gpu:0 nccl, gpu:1 nccl"
    assert "CUDA_VISIBLE_DEVICES: the last card first" in found


def test_parts_of_a_divided_card_are_not_used_together(tmp_path, monkeypatch):
    for gpus, number in ((("0", "1"), 2), (("MIG-aa", "MIG-bb"), 1), ((), 0)):
        monkeypatch.setattr(jobs.trial, "visible_gpus", lambda gpus=gpus: gpus)
        assert Bench("gpu", tmp_path).num_cards == number
        assert Bench("cpu", tmp_path).num_cards == 0


def test_a_cpu_that_is_a_card_after_all_is_a_failure(play, two_cards):
    def ignoring(requested, num_ranks=1, variables=None):
        return place(None, num_ranks)

    found, _ = play(device_choice.check, place=ignoring)
    assert found["--device cpu"].status == found["--device cpu, 2 ranks"].status == FAIL
    assert found["CUDA_VISIBLE_DEVICES: a UUID"].value == "another card"


def test_each_precision_is_held_against_the_cpu(play):
    def evaluate(flags, batch_sizes, **_):
        name = flags[flags.index("--precision") + 1]
        if name == "bf16":
            return UserError("--precision bf16: gpu:0 cannot compute with it; pass fp32 or fp16")
        off = 0.5 if name == "fp16" else 0.0
        return [{"logits": [[0.0, 1.0 + off], [2.0, 0.0]], "seconds": 1.0}] * len(batch_sizes)

    losses = [2.0] * 40 + [1.0] * 10
    found, bench = play(
        precision.check,
        product_errors={"matmul": 1e-6, "linear, forward": 4e-4},
        train={"losses": losses, "weights": "ab"},
        evaluate=evaluate,
    )
    assert found["fp32, logits beside the CPU's"].status == OK
    assert found["fp16, logits beside the CPU's"].status == FAIL
    assert found["fp16, same labels as the CPU"].value == 100
    assert found["bf16 beside the CPU"].status == NOT_RUN
    assert ("tf32, loss curve beside the CPU's" in found) == ("tf32" in PRECISIONS)
    assert found["--precision fp32, linear, forward (4e-04 off)"].value == "TF32"
    assert found["fp32, loss curve beside the CPU's"].value == 0


@pytest.mark.parametrize(("resumed", "plain"), [("ab", "ab"), ("cd", "ab"), ("ab", "cd")])
def test_bits_are_compared_with_those_after_a_kill_and_of_paddles_own(play, resumed, plain):
    def train(output, kill_at=0, **more):
        folder = Path(output)
        if kill_at:
            (folder / "checkpoint-10").mkdir()
            return UserError("ended with status -9")
        (folder / "result.json").write_text(json.dumps({"card": {"name": "a card"}}))
        weights = resumed if "killed" in folder.name else plain if more.get("plain") else "ab"
        return {"losses": [], "weights": weights}

    found, bench = play(determinism.check, train=train)
    for name in ("fp32", "fp16"):
        assert found[f"{name}, killed at step 15 and resumed"].status == (OK if resumed == "ab" else FAIL)
        assert found[f"{name}, weights of Paddle's own layers and optimizer"].status == (OK if plain == "ab" else FAIL)
    assert found["result.json names the card"].value == "a card"
    assert found["without Paddle's deterministic flags"].value == "same bits"
    switched_off = [variables for _, _, variables in bench.asked if variables]
    assert switched_off == [{"FLAGS_embedding_deterministic": "0", "FLAGS_cudnn_deterministic": "0"}] * 2


def test_ranks_are_held_against_one_process(play, monkeypatch):
    monkeypatch.setattr(several_cards, "check_ends", lambda *_: None)

    def work(num_ranks, **_):
        one = {"losses": [1.0, 0.5], "losses_in_parts": [1.0, 0.5], "logits": "ab"}
        two = one | {"losses_in_parts": [1.0, 0.6], "weights": ["ab", "ab"], "gb_per_second": 100.0}
        two |= {"seconds": {"off": 0.01, "on": 0.011}}
        return [two, two] if num_ranks > 1 else one

    found, bench = play(several_cards.check, train={"losses": [], "weights": ""}, work_of_rank=work)
    assert found["losses of 2 ranks beside 1 process"].status == OK
    assert found["losses of 2 ranks with 2 parts each"].status == FAIL
    assert found["weights of a second run of 2 ranks"].status == found["logits on the second rank"].status == OK
    flags = [arguments["flags"] for function, arguments, _ in bench.asked if function == "work_of_rank"]
    assert [each[each.index("--device") + 1] for each in flags] == ["gpu", "gpu"]


def test_sizes_say_in_how_many_parts_a_batch_fits(play):
    peaks = {"TNEWS": {"parts": 1, "update": 3.0, "evaluation": 1.0}, "C3": {"error": "out of memory"}}
    peaks |= {"CHID": {"parts": 2, "update": 3.0, "evaluation": 1.0}}
    found, _ = play(memory.check_sizes, peaks=peaks)
    assert found["12L768H TNEWS, an update"].value == 3.0
    assert found["24L1024H C3"].status == FAIL
    assert found["24L1024H CHID, parts that a batch needs here"].value == 2


def test_an_update_is_told_apart_by_what_it_waits_for(play):
    launch_bound = UPDATE | {"kernel_seconds": 0.01, "copies": 40}
    found, bench = play(
        speed.check_card,
        updates_of_tasks=lambda shapes, **_: {name: launch_bound if name == "TNEWS" else UPDATE for name in shapes},
    )
    assert found["TNEWS fp32, launch-bound: time in kernels"].value == pytest.approx(20)
    assert found["C3 bf16, the card is kept busy: time in kernels"].value == pytest.approx(90)
    assert found["TNEWS fp32, copies of an update"].status == SLOW
    assert found["C3 fp32, copies of an update"].status == OK
    assert found["TNEWS fp32, a checkpoint beside 100 updates"].value == pytest.approx(80)
    assert found["TNEWS fp32 with FLAGS_use_stride_kernel=0, updates"].status == INFO
    asked = [arguments["flags"] for _, arguments, variables in bench.asked if "flags" in arguments and not variables]
    used = {flags[flags.index("--precision") + 1] for flags in asked}
    assert used == {*PRECISIONS} - {"fp16"}


def test_a_program_that_fails_is_one_failure(play):
    found, _ = play(processes.check_features)
    assert found["a new test set beside a model in memory"].note == "no program is run here"


@pytest.mark.parametrize(
    ("printed", "said"),
    [
        ("a line\nerror: the data is missing\n", "the data is missing"),
        (
            "Traceback (most recent call last):\n  File x\nValueError: no such card\n",
            "ValueError: no such card",
        ),
        ("only this\n\n", "only this"),
        ("", "ended with status 3"),
    ],
)
def test_the_line_that_says_why_a_program_failed(tmp_path, monkeypatch, printed, said):
    monkeypatch.delenv("PYTHON", raising=False)
    program = Bench("cpu", tmp_path).start(["-c", f"import sys; print({printed!r}, end=''); sys.exit(3)"])
    with pytest.raises(UserError) as failure:
        program.finish()
    assert str(failure.value) == said


def test_a_launcher_finds_a_number_for_each_rank(tmp_path, monkeypatch):
    """With one card and two ranks on the CPU, and with no card but a list of none."""
    asked = []

    def start(_, words, **variables):
        asked.append(variables)
        return jobs.Program(words, None, tmp_path)

    monkeypatch.setattr(Bench, "start", start)
    for cards, expected in (((), [None]), (("0",), ["0,1"]), (("0", "1"), [])):
        monkeypatch.setattr(jobs.trial, "visible_gpus", lambda cards=cards: cards)
        asked.clear()
        Bench("cpu", tmp_path).start_call("place", num_ranks=2, requested="cpu")
        assert [*asked[0].values()] == expected

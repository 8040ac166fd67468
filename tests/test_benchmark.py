"""The benchmark's arithmetic, and that its plain mode does the same job."""

from __future__ import annotations

import json
import sys

import pytest

import benchmark


def cost(seconds, steps_per_second=2.0, **more):
    fields = {"seconds": seconds, "first_step": 1.0, "features": 0.5, "steps_per_second": steps_per_second}
    fields |= {"tokens": 80, "padded_tokens": 100, "steps": 10, "evaluations": [1.0, 3.0]}
    return (
        fields
        | {"peak_memory": 2**30, "limit": 4.0, "limit_share": 0.5, "losses": [1.0], "metrics": [], "predictions": {}}
        | more
    )


def test_medians_and_ratios_to_ours():
    rounds = {
        "plain": [cost(30.0), cost(50.0), cost(90.0)],
        "ours": [cost(10.0, 8.0), cost(10.0, 8.0), cost(30.0, 8.0)],
    }
    rows = {row[0]: row[1:] for row in benchmark.compare(rounds)}
    assert rows["whole job, s"] == ["50.0 (3.00; 3.00–5.00)", "10.0"]
    assert rows["training, steps/s"] == ["2.00 (4.00; 4.00–4.00)", "8.00"]
    assert rows["training, tokens/s"] == ["16 (4.00; 4.00–4.00)", "64"]
    assert rows["one evaluation, s"][1] == "2.00" and rows["padding, share"] == ["0.200", "0.200"]


def test_the_limit_is_that_of_the_tokens_at_the_highest_rate_measured():
    rounds = {
        "plain": [{"matrix_operations": 10.0, "steps_per_second": 1.0, "matrix_rate": 40.0}],
        "ours": [{"matrix_operations": 10.0, "steps_per_second": 5.0, "matrix_rate": 80.0}],
    }
    benchmark.add_limits(rounds)
    assert [rounds[system][0]["limit"] for system in rounds] == [8.0, 8.0]
    assert [rounds[system][0]["limit_share"] for system in rounds] == [0.125, 0.625]


def test_operations_are_those_of_tokens():
    """Each token meets 12 h^2 weights, and each token of its sequence twice; both ways, and once more back."""
    sizes = {"num_hidden_layers": 2, "hidden_size": 10}
    costs = {"tokens": 7 + 3, "squared_lengths": 7**2 + 3**2, "steps": 1, "padded_tokens": 14}
    by_hand = 2 * 3 * sum(2 * 12 * 10**2 * length + 2 * 2 * 10 * length**2 for length in (7, 3))
    assert benchmark.matrix_operations(costs, sizes) == by_hand


@pytest.mark.parametrize(
    ("flags", "variable", "expected"),
    [
        ("fpu avx2 avx512f", "7", "AMD EPYC (AVX-512, MKL_DEBUG_CPU_TYPE 7)"),
        ("fpu avx2", None, "AMD EPYC (AVX2)"),
        ("fpu", None, "AMD EPYC (no AVX2)"),
    ],
)
def test_the_processor_and_its_path_are_named(flags, variable, expected, monkeypatch):
    monkeypatch.delenv("MKL_DEBUG_CPU_TYPE", raising=False)
    if variable:
        monkeypatch.setenv("MKL_DEBUG_CPU_TYPE", variable)
    core = f"processor : 0\nmodel name\t: AMD EPYC\nflags\t\t: {flags}\n\n"
    assert benchmark.describe_processor(2 * core) == expected
    assert benchmark.describe_processor("").count("(") == 1


def test_differences_are_told():
    ours = cost(1.0, losses=[1.0, 0.5], metrics=[{"loss": 1.0, "accuracy": 0.5}], predictions={"a": "1"})
    other = ours | {"losses": [1.0, 0.5001], "metrics": [{"loss": 1.1, "accuracy": 0.25}], "predictions": {"a": "2"}}
    same = benchmark.same_results({"plain": [ours], "ours": [ours]})
    assert same.startswith("2 logged losses differ by at most 0.0e+00; scores of 1 evaluations are the same; 1 predict")
    different = benchmark.same_results({"plain": [other], "ours": [ours]})
    assert different.startswith("2 logged losses differ by at most 1.0e-04; scores of 1 evaluations DIFFER;")
    assert same.endswith("files are the same") and different.endswith("files DIFFER")


@pytest.mark.parametrize("task", ["TNEWS", "C3"])
def test_plain_and_ours_learn_the_same(task, few_examples, demo, tmp_path, warm_python, monkeypatch):
    monkeypatch.setattr(sys, "executable", str(warm_python))  # what it runs its jobs with
    words = ["--tasks", task, "--predict", "--dropout", 0, "--data_dir", few_examples, "--tokenizer", demo / "model"]
    words += "--steps 4 --rounds 1 --records 40 --layers 1 --hidden_size 64 --batch_size 4 --output".split()
    benchmark.main([*map(str, words), str(tmp_path)])
    results = json.loads((tmp_path / "benchmark.json").read_text())[task]
    (plain,), (ours,) = results["plain"], results["ours"]
    # They take sums in another order: near ties, which predictions may hold, are theirs to decide.
    assert plain["losses"] == pytest.approx(ours["losses"], abs=1e-4) and len(ours["losses"]) == 4
    assert plain["predictions"].keys() == ours["predictions"].keys() != set()
    assert plain["tokens"] == ours["tokens"]
    table = (tmp_path / "benchmark.md").read_text()
    assert f"| {task} | plain | ours |" in table and "4 logged losses differ by at most" in table
    assert (tmp_path / "benchmark.png").stat().st_size > 5000

"""The registry against the published tables and the leaderboard's rules."""

from __future__ import annotations

import pytest

from clue_utils.errors import UserError
from clue_utils.published import PUBLISHED_MODELS, REFERENCE_MODEL, best_run, published_model
from clue_utils.tasks import TASKS, get_task


def test_grid_has_the_published_number_of_runs():
    runs = {t.name: len(t.learning_rates) * len(t.batch_sizes) * len(t.dropouts) for t in TASKS.values()}
    assert sum(runs.values()) == 134
    assert runs["CLUEWSC2020"] == 32 and runs["IFLYTEK"] == 24 and runs["C3"] == 6


@pytest.mark.parametrize("model", PUBLISHED_MODELS, ids=lambda model: model.title)
def test_published_average_is_the_mean_of_the_row(model):
    scores = [score.value for score in model.scores.values()]
    assert sum(scores) / len(TASKS) == pytest.approx(model.average, abs=0.0051)


@pytest.mark.parametrize("model", PUBLISHED_MODELS, ids=lambda model: model.title)
def test_published_best_runs_are_in_the_grid(model):
    for name, best in model.best_runs.items():
        task = TASKS[name]
        assert best.learning_rate in task.learning_rates
        assert best.batch_size in task.batch_sizes
        assert best.dropout in task.dropouts


def test_leaderboard_names_are_unique_and_differ_by_test_version():
    names = [name for task in TASKS.values() for name in task.submissions.values()]
    assert len(names) == len(set(names)) == 14
    assert TASKS["OCNLI"].submissions == {"test": "ocnli_50k_predict.json"}
    assert TASKS["TNEWS"].plain_submission == "tnews_predict.json"


def test_label_orders_are_those_of_paddlenlp():
    assert TASKS["CMNLI"].labels == ("contradiction", "entailment", "neutral")
    assert TASKS["OCNLI"].labels == ("entailment", "contradiction", "neutral")
    assert TASKS["CLUEWSC2020"].labels == ("true", "false")
    assert len(TASKS["TNEWS"].labels) == 15 and "105" not in TASKS["TNEWS"].labels
    assert len(TASKS["IFLYTEK"].labels) == 119


def test_names_in_any_letter_case():
    assert get_task("cluewsc2020") is TASKS["CLUEWSC2020"]


def test_a_misspelt_task_gets_the_right_one_of_those_that_can_be_meant():
    with pytest.raises(UserError, match=r"'wsc': did you mean CLUEWSC2020\?"):
        get_task("wsc")
    with pytest.raises(UserError, match=r"'afamc': did you mean AFQMC\? Else choose one of AFQMC, TNEWS.*, C3$"):
        get_task("afamc")
    with pytest.raises(UserError, match="'C4': choose one of AFQMC.*, CSL, or .* --task_file$"):
        get_task("C4", "classification", takes_file=True)


def test_a_model_without_a_row_takes_the_reference_model_s_best_run():
    own, origin = best_run("my/model", TASKS["TNEWS"])
    assert own == best_run(REFERENCE_MODEL, TASKS["TNEWS"])[0]
    assert origin == "published best of ernie-3.0-base-zh; this model has none"
    assert best_run("ernie-gram-zh", TASKS["CLUEWSC2020"])[0] == (3e-5, 16, 0.0)


@pytest.mark.parametrize("model", PUBLISHED_MODELS, ids=lambda model: model.title)
def test_a_local_copy_has_the_row_of_the_model_it_is_named_after(model):
    last_part = model.name.rpartition("/")[2]
    for path in (model.name, last_part, f"/data/models/{last_part}", f"../{last_part}/", f"hub/{last_part}/."):
        assert published_model(path) is model
        for task in TASKS.values():
            run, origin = best_run(path, task)
            known = "" if path == model.name else ", known by the last part of the path"
            assert (run, origin) == (model.best_runs[task.name], f"published best of {model.name}{known}")
    for path in (f"/data/{last_part}/mine", f"my-{last_part}", f"{last_part}-x", "", ".", "/"):
        assert published_model(path) is None

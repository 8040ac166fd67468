"""READMEs and pages: every command runs, on demo data, both languages say the same, links and pictures are right."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shutil
import subprocess
from datetime import datetime, timezone
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image

import check_links
import errors
import make_demo
import quickstart
import readme_pictures
import readme_tables
from clue_utils import dev_predictions, tasks
from clue_utils.columns import display_width
from clue_utils.grid import outcomes, search_space
from clue_utils.language import LANGUAGES, VARIABLE

TOP = Path(__file__).parents[1]
PAGES = check_links.pages()
CHINESE = [name for name in PAGES if check_links.twin(name) in PAGES and not name.endswith("_en.md")]
# Whose commands run, in an order in which each finds what those before it have trained.
IN_ORDER = [
    "README.md",
    *("docs/training.md", "docs/distributed.md", "docs/trainer.md", "docs/models.md", "docs/compare.md"),
    *("docs/submission.md", "docs/your_texts.md", "docs/your_task.md", "docs/setup.md", "docs/benchmark.md"),
]
# Whose code other tests look after: tests/models/test_export.py, tests/test_wheel.py.
OTHERS = ("docs/inference.md", "docs/install.md")
SEARCH, TASK = "docs/grid_search.md", "docs/your_task.md"
ARCHITECTURE = ("docs/new_architecture.md", "docs/new_architecture_en.md")
FOLDERS = ("classification", "clue_utils", "mrc", "scripts")
# Blocks that are not run, by their first word or words, and why.
NOT_RUN = {
    "bash scripts/quickstart.sh": "makes the environment that the tests run in",
    "bash scripts/setup_env.sh": "makes the environment that the tests run in",
    "pip install": "the tests run in what is installed",
    "awk": "needs a network and a GPU",
    "curl": "needs a network",
    "python scripts/serve.py": "serves until it is stopped",
}
# A search, and what needs one: lines of these blocks stand in SEARCH, too.
OF_A_SEARCH = ("bash scripts/grid_search.sh", "bash scripts/predict_and_zip.sh")
# What a machine without GPUs runs in the place of a command, and what makes a long one short.
INSTEAD = (
    (' --nnodes 2 --master 192.168.0.1:8090 --gpus "0,1,2,3"', " --nproc_per_node 2"),
    (' --gpus "0,1,2,3"', " --nproc_per_node 2"),
    (" --gpus 0,1,2,3 ", " --tasks TNEWS --learning_rates 3e-5 5e-5 --batch_sizes 16 "),
    (" --device gpu ", " --device cpu "),
    (" --published ", " --published --tasks TNEWS "),
    ("compare.py rbt6 ", "compare.py ernie-3.0-base-zh "),
    ("check_gpu.sh ", "check_gpu.sh --only machine determinism "),
    ("--steps 10 --records 40", "--tasks TNEWS --steps 2 --rounds 1 --records 8"),
)


def blocks(name: str) -> list[tuple[str, str]]:
    """Language and text of each block of code of a page that is a program."""
    found = re.findall(r"^```(\w+)\n(.*?)^```$", PAGES[name], re.DOTALL | re.MULTILINE)
    return [(language, text) for language, text in found if language in ("python", "shell")]


def without_comments(text: str) -> str:
    return re.sub(r"(^|\s+)#.*", "", text)


@pytest.fixture(scope="module")
def place(tmp_path_factory, demo, few_examples):
    """A copy of the project with small demo data, and a demo model under the name of a published one."""
    top = tmp_path_factory.mktemp("a place") / "project"
    for folder in FOLDERS:
        shutil.copytree(TOP / folder, top / folder, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(few_examples, top / "cache/data")
    for name in ("ernie-3.0-base-zh", "home/hf/chinese-roberta-wwm-ext"):
        shutil.copytree(demo / "model", top / name)
    return top


@pytest.fixture(scope="module")
def run(place, warm_python):
    """Run a block as a reader would, but for the time that it takes to import Paddle; return what it prints."""

    def run(language, text):
        environment = os.environ | {
            "CLUE_CACHE_DIR": str(place / "cache"),
            "CLUE_DATA_DIR": str(place / "cache/data"),
            "HOME": str(place / "home"),
            "PATH": f"{warm_python.parent}:{os.environ['PATH']}",
            "PYTHON": str(warm_python),
            "PYTHONPATH": str(place),
        }
        for words, others in INSTEAD:
            text = text.replace(words, others)
        command = ["bash", "-e", "-o", "pipefail", "-c"] if language == "shell" else [warm_python, "-c"]
        done = subprocess.run([*command, text], cwd=place, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, f"{text}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
        return done.stdout

    return run


def test_every_block_runs(place, run):
    ran: dict[str, str] = {}
    for name in IN_ORDER:
        for language, text in blocks(name):
            if not text.startswith((*NOT_RUN, *OF_A_SEARCH)) and text not in ran:
                ran[text] = run(language, text)
    assert len(ran) >= 20
    assert len(list((place / "models").glob("*/result.json"))) == 11  # MOOD too
    assert (place / "submit.zip").is_file() and (place / "benchmark/benchmark.md").is_file()
    assert len((place / "answers.jsonl").read_text(encoding="utf-8").splitlines()) == 2
    assert (place / "answers.csv").is_file() and any('"inputs": {"comment": ' in output for output in ran.values())


@pytest.mark.skipif(shutil.which("parallel") is None, reason="needs GNU parallel")
def test_the_grid_search_runs(place, run):
    (block,) = (text for _, text in blocks(SEARCH))
    output = run("shell", block)
    assert "2 finished, 0 failed" in output
    assert list(place.rglob("report.html"))
    first, *_ = (text for _, text in blocks(TASK))
    (block,) = (text for _, text in blocks(TASK) if text.startswith(OF_A_SEARCH))
    assert re.search(r"^model .* MOOD$", run("shell", first + block), re.MULTILINE)


@pytest.mark.parametrize("name", [name for name in CHINESE if name not in (SEARCH, TASK)])
def test_commands_of_a_search_are_those_that_are_run(name):
    (searched,) = (text for _, text in blocks(SEARCH))
    known = {" ".join(line.split()) for line in without_comments(searched).splitlines()}
    shown = [text for _, text in blocks(name) if text.startswith(OF_A_SEARCH)]
    lines = [" ".join(line.split()) for text in shown for line in without_comments(text).splitlines()]
    assert [line for line in lines if line not in known] == []


def test_what_is_not_run_or_replaced_stands_in_a_page():
    texts = [text for name in PAGES if not name.endswith("_en.md") for _, text in blocks(name)]
    assert {words for text in texts for words in NOT_RUN if text.startswith(words)} == set(NOT_RUN)
    assert [words for words, _ in INSTEAD if words not in "".join(texts)] == []
    looked_after = {*IN_ORDER, *OTHERS, SEARCH, ARCHITECTURE[0]}
    others = [text for name in CHINESE if name not in looked_after for _, text in blocks(name)]
    assert [text for text in others if not text.startswith((*NOT_RUN, *OF_A_SEARCH))] == []


@pytest.mark.parametrize("name", PAGES)
def test_a_command_for_the_demo_model_names_the_demo_data(name):
    """Else it asks the network for the official data, which the reader of such a line has none of."""
    lines = re.findall(r"`((?:bash|python) [^`\n]*demo/model[^`\n]*)`", PAGES[name])
    assert [line for line in lines if "--data_dir demo/data" not in line] == []


@pytest.mark.parametrize("name", CHINESE)
def test_both_languages_of_a_page_have_the_same_commands_sections_tables_and_pictures(name):
    names = (name, check_links.twin(name))
    chinese, english = (PAGES[name] for name in names)
    first, second = ([(language, without_comments(text)) for language, text in blocks(name)] for name in names)
    assert first == second
    for pattern in (r"^##+ ", r"^\|", r"^- ", r"^!\["):
        assert len(re.findall(pattern, chinese, re.MULTILINE)) == len(re.findall(pattern, english, re.MULTILINE)), (
            pattern
        )
    assert [name.replace("_zh.png", ".png") for name in SHOWN.findall(chinese)] == SHOWN.findall(english)


def test_both_guides_to_a_new_architecture_show_the_code_as_it_is():
    """What they show of Python, whole or a row of a table, stands in the modules that they are about."""
    modules = "".join(path.read_text(encoding="utf-8") for path in (TOP / "clue_utils/models").rglob("*.py"))
    chinese, english = (
        re.findall(r"^```(\w+)\n(.*?)^```$", PAGES[name], re.DOTALL | re.MULTILINE) for name in ARCHITECTURE
    )
    assert chinese == english and len(chinese) >= 7
    assert [text for language, text in chinese if language != "shell" and text not in modules] == []
    # These import what lies in scripts/, which nothing puts on the path by itself.
    commands = [line for language, text in english if language == "shell" for line in text.splitlines()]
    assert len(commands) >= 5
    assert [line for line in commands if not line.startswith("PYTHONPATH=scripts python scripts/dev/")] == []


@pytest.mark.parametrize("name", [name for name in PAGES if name != "CHANGELOG.md"])
def test_files_and_flags_that_are_named_exist(name):
    text = PAGES[name]
    text = re.sub("<!-- flags -->.*<!-- /flags -->", "", text, flags=re.DOTALL)  # made from the parsers
    if "migration" in name:  # names of others, in the first column and between it and ours
        text = re.sub(r"^\|[^|]*\|", "", text, flags=re.MULTILINE)
    paths = set(re.findall(r"(?<![\w/.])((?:classification|clue_utils|mrc|scripts|tests|docs)/[\w./-]+\.\w+)", text))
    assert [path for path in paths if not (TOP / path).exists()] == []
    sources = [
        path for end in ("py", "sh") for folder in (*FOLDERS, "tests") for path in (TOP / folder).rglob(f"*.{end}")
    ]
    known = "\n".join(path.read_text(encoding="utf-8") for path in sources)
    known += "".join(f"--{name}\n" for kind in readme_tables.kinds().values() for name in kind.flags())
    others = {"--no-deps", "--no-build-isolation", "--extra-index-url", "--yes", "--logdir", "--gpus", "--nnodes"}
    others |= {"--master", "--nproc_per_node", "--per_device_train_batch_size", "--metric_for_best_model"}
    others |= {"--load_best_model_at_end", "--save_total_limit", "--strict", "--disable-pip"}
    others |= {"--fail", "--location", "--remote-name"}  # curl's
    others |= {"--build-arg", "--entrypoint", "--ipc", "--rm", "--user"}  # docker's
    flags = set(re.findall(r"(?<![\w-])--[a-z][a-z_-]+", text)) - others
    assert [flag for flag in sorted(flags) if flag not in known] == []


def test_tables_are_what_the_registry_and_the_parsers_say():
    readme_tables.main(["--check"])


@pytest.mark.parametrize(("page", "word"), [("docs/flags.md", "（默认："), ("docs/flags_en.md", r"\(default: ")])
def test_the_table_of_flags_tells_each_default_that_help_tells(page, word):
    rows = dict(re.findall(r"^\| `--(\w+)` \| (.*) \|$", PAGES[page], re.MULTILINE))
    flags = {name: flag for kind in readme_tables.kinds().values() for name, flag in kind.flags().items()}
    assert rows.keys() == flags.keys()
    told = {name for name, flag in flags.items() if "(default: " in flag.text}
    assert {name for name in told if not re.search(word, rows[name])} == set() and len(told) > 25


def test_no_link_is_dead():
    assert check_links.problems(PAGES) == []
    assert len(PAGES) == len(check_links.pages()) >= 40


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("[here](docs/nowhere.md)", "docs/a.md: docs/nowhere.md: no such file"),
        ("[here](#no-such-heading)", "docs/a.md: #no-such-heading: no such heading"),
        ("[here](b.md#gone)", "docs/a.md: b.md#gone: no such heading"),
        ("[here](b_en.md)", "docs/a.md: b_en.md: a page in the other language"),
        ("[here](b.md#two-words), [web](https://example.com/#x)\n```shell\n[not](a-link)\n```", None),
    ],
)
def test_the_check_of_links_finds_what_is_dead(tmp_path, line, problem):
    (tmp_path / "docs").mkdir()
    pages = {"docs/a.md": f"# A\n\n[English](a_en.md)\n\n{line}\n", "docs/b.md": "# B\n\n## Two `words`\n"}
    pages |= {"docs/a_en.md": "# A\n", "docs/b_en.md": "# B\n"}
    for name, text in pages.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    found = check_links.problems(check_links.pages(tmp_path), tmp_path, front=[*pages])
    assert found == ([problem] if problem else [])


def test_the_chinese_readme_is_read_in_five_minutes():
    """A page of 2,500 characters beside tables and code."""
    text = re.sub(r"^```.*?^```$|^\|.*?$", "", PAGES["README.md"], flags=re.DOTALL | re.MULTILINE)
    assert len(re.findall(r"[\u4e00-\u9fff]", text)) <= 2500


# What the pages show of the program: made anew by scripts/dev/readme_pictures.py where a test says it is out of date.
PICTURES = [(name, tongue) for name in readme_pictures.NAMES for tongue in LANGUAGES]
SHOWN = re.compile(r"!\[.*?\]\((?:docs/)?(.*?)\)")


def test_pages_show_the_pictures_that_the_script_takes_each_in_its_language():
    shown = {name: SHOWN.findall(text) for name, text in PAGES.items()}
    files = {path.name for path in (TOP / "docs").glob("*.png")}
    taken = {readme_pictures.file_of(Path(), *picture).name for picture in PICTURES}
    assert {name for names in shown.values() for name in names} == files == taken
    wrong = [page for page in CHINESE for name in shown[page] if not name.endswith("_zh.png")]
    assert (
        wrong + [page for page in CHINESE for name in shown[check_links.twin(page)] if name.endswith("_zh.png")] == []
    )
    assert [name for name in files if (TOP / "docs" / name).stat().st_size > 300_000] == []


def of_a_quickstart(tongue: str, monkeypatch) -> readme_pictures.Picture:
    """With records in the place of trainings."""

    def run_script(words, *_, **__):
        folder = Path(words[words.index("--output_dir") + 1])
        task = tasks.TASKS[folder.name]
        folder.mkdir()
        (folder / "result.json").write_text(json.dumps({"metric": task.metric, "best_metric": 0.5}))
        for name in task.submissions.values():
            (folder / name).touch()
        return 0

    def make(words, **_):
        make_demo.main([str(word) for word in words[2:]])

    monkeypatch.setattr(make_demo, "make_demo", lambda *_: True)
    monkeypatch.setattr(quickstart, "subprocess", SimpleNamespace(run=make))
    monkeypatch.setattr(quickstart.trial, "run_script", run_script)
    monkeypatch.setattr(quickstart.cli, "configure_logging", lambda _: None)
    monkeypatch.setattr(quickstart.write, "zip_predictions", lambda *_: {"a file": 1})
    with contextlib.redirect_stdout(io.StringIO()) as out:
        quickstart.main([])
    Path("quickstart.log").write_text("set-up: all is in place\n" + out.getvalue(), encoding="utf-8")
    (picture,) = readme_pictures.quickstarts([tongue], Path("quickstart.log"))
    return picture


def of_a_search(tongue: str, monkeypatch) -> readme_pictures.Picture:
    """With a program that leaves records in the place of the search, and waits to be interrupted."""
    flags = readme_pictures.SEARCH
    trials = [
        search_space.Trial(task, float(rate), 16, 0.1, 42, 1)
        for task in readme_pictures.SEARCHED
        for rate in flags[flags.index("--learning_rates") + 1 : flags.index("--batch_sizes")]
    ]
    folder = Path("results/model")
    outcomes.add_to_plan(folder, [trial.folder for trial in trials], {1: 1})
    now = datetime.now(timezone.utc).isoformat()
    fields: dict[str, object] = {"metric": "accuracy", "best_metric": 0.5, "wall_time": 90.0, "num_processes": 1}
    for number, trial in enumerate(trials):
        record = fields | {"task": trial.task, "model": "model", "status": "finished" if number < 3 else "running"}
        record |= {"last_seen": now, "progress": {"step": 5, "num_steps": 9, "loss": 0.5, "seconds_left": 400.0}}
        (folder / trial.folder).mkdir(parents=True)
        (folder / trial.folder / "result.json").write_text(json.dumps(record))
    monkeypatch.setattr(readme_pictures, "_words", lambda _: ["sleep", "600"])
    begun = readme_pictures.watch(folder, Path())
    assert begun.num_ended == 3 and len(begun.running) == 1
    return readme_pictures.of_search(begun, tongue)


def of_a_report(tongue: str, monkeypatch) -> readme_pictures.Picture:
    (picture,) = readme_pictures.reports([tongue])
    return picture


def of_mistakes(tongue: str, monkeypatch) -> readme_pictures.Picture:
    """With answers in the place of a training."""

    def run(words, place, *_):
        if not words[0].endswith("errors.py"):
            return
        monkeypatch.chdir(place)
        names = tasks.TASKS["TNEWS"].names
        lines = [
            {"id": number, "inputs": {"sentence": "今天"}, "is_cut": False, "gold": names[0], "answer": answer}
            | {"probabilities": {names[0]: 0.25, names[1]: 0.75}, "is_right": answer == names[0]}
            for number, answer in enumerate(names[:2])
        ]
        folder = Path("models/tnews")
        folder.mkdir(parents=True)
        written = dev_predictions.write(folder, lines)
        scores = {"precision": 0.5, "recall": 0.5, "f1": 0.5, "num_gold": 2}
        record = {"task": "TNEWS", "dev_predictions": written, "classes": {name: scores for name in names}}
        (folder / "result.json").write_text(json.dumps(record))
        with contextlib.redirect_stdout(io.StringIO()):
            errors.main(words[1:])

    monkeypatch.setattr(readme_pictures, "_run", run)
    (picture,) = readme_pictures.mistakes([tongue])
    return picture


@pytest.mark.parametrize(("name", "tongue"), PICTURES)
def test_a_picture_shows_what_the_program_prints_now(name, tongue, tmp_path, monkeypatch):
    """But for numbers: a picture keeps what can be read on it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(VARIABLE, tongue)
    make = {"quickstart": of_a_quickstart, "search": of_a_search, "report": of_a_report, "mistakes": of_mistakes}[name]
    now = make(tongue, monkeypatch)
    then = readme_pictures.description(readme_pictures.file_of(TOP / "docs", name, tongue))
    remedy = f"out of date: python scripts/dev/readme_pictures.py {name}"
    assert readme_pictures.essence(then) == readme_pictures.essence(now.text), remedy
    if name in ("quickstart", "search"):
        assert max(map(display_width, then.splitlines())) <= readme_pictures.COLUMNS


def test_a_picture_is_taken_by_the_browser_and_keeps_its_text(run_script, tmp_path):
    Image.new("RGB", (40, 20), "white").save(tmp_path / "white.png")
    browser = tmp_path / "browser"
    copy = f'cp "{tmp_path}/white.png" "${{word#*=}}"'
    browser.write_text(f'#!/bin/sh\nfor word; do case "$word" in --screenshot=*) {copy};; esac; done\n')
    browser.chmod(0o755)
    (tmp_path / "log").write_text("set-up: done\n\n制作演示\n[1/10] <AFQMC>\n", encoding="utf-8")
    words = ["quickstart", "--language", "zh", "--log", tmp_path / "log", "--output", tmp_path]
    status, said, error = run_script(readme_pictures.main, *words, "--browser", browser)
    assert (status, said, error) == (0, f"{tmp_path}/quickstart_zh.png\n", "")
    text = "$ bash scripts/quickstart.sh\n\n制作演示\n[1/10] <AFQMC>"
    assert readme_pictures.description(tmp_path / "quickstart_zh.png") == text
    status, _, error = run_script(readme_pictures.main, *words, "--browser", tmp_path / "none")
    assert status == 2 and error == f"error: --browser {tmp_path}/none: no such program\n"
    status, _, error = run_script(readme_pictures.main, *words, "--browser", "false")
    assert status == 2 and re.fullmatch(r"error: --browser false: no picture was taken \(.*\)\n", error)


def test_a_wide_character_takes_two_columns_of_a_picture():
    picture = readme_pictures.of_terminal("a", "b（中，文）", "b（中，文）")
    assert picture.source.count("<i>") == 5 and "b<i>（</i><i>中</i>" in picture.source


def test_the_essence_of_a_text_is_what_stays_from_run_to_run():
    first = "TNEWS 3e-5_32_0.1_42 1200/5004 24 % 1.2034 55.00 12 min\n======------------ 31 %  about 3 h 3 min left\n"
    second = "==-------- 7 % about 95 s left\nAFQMC  1e-3_16_0.1_42 5/114  4 % 0.7 50.00   9 s\n"
    assert readme_pictures.essence(first) == readme_pictures.essence(second) != []
    assert readme_pictures.essence("已结束 2/4 个，剩余 3 小时 3 分") == readme_pictures.essence(
        "已结束 1/9 个，剩余 12 分钟"
    )
    assert readme_pictures.essence("about 5 s left") != readme_pictures.essence("still 5 s left")

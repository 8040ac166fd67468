"""READMEs and guides: every command runs, on demo data, and both languages say the same."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

import readme_tables

TOP = Path(__file__).parents[1]
READMES = ("README.md", "README_en.md")
GUIDES = ("docs/new_architecture.md", "docs/new_architecture_en.md")
INFERENCE = ("docs/inference.md", "docs/inference_en.md")  # whose code is run by tests/models/test_export.py
TEXTS = ("docs/your_texts.md", "docs/your_texts_en.md")
TASK = ("docs/your_task.md", "docs/your_task_en.md")
INSTALL = ("docs/install.md", "docs/install_en.md")  # whose commands tests/test_wheel.py is about
GRID = "bash scripts/grid_search.sh"
FOLDERS = ("classification", "clue_utils", "mrc", "scripts")
# Blocks that are not run, by their first word or words, and why.
NOT_RUN = {
    "bash scripts/quickstart.sh": "the two commands: they make the environment and run these tests",
    "bash scripts/setup_env.sh": "the tests run in what it makes",
    "pip install": "the tests run in what is installed",
    "awk": "needs a network and a GPU",
    "python scripts/serve.py": "serves until it is stopped",
}
# What a machine without GPUs runs in the place of a command, and what makes a long one short.
INSTEAD = (
    (' --nnodes 2 --master 192.168.0.1:8090 --gpus "0,1,2,3"', " --nproc_per_node 2"),
    (' --gpus "0,1,2,3"', " --nproc_per_node 2"),
    (" --gpus 0,1,2,3 ", " --tasks TNEWS --learning_rates 3e-5 5e-5 --batch_sizes 16 "),
    (" --published ", " --published --tasks TNEWS "),
    ("compare.py rbt6 ", "compare.py ernie-3.0-base-zh "),
    ("check_gpu.sh ", "check_gpu.sh --only machine determinism "),
    ("--steps 40 --records 120", "--tasks TNEWS --steps 2 --rounds 1 --records 8"),
)


def blocks(name: str) -> list[tuple[str, str]]:
    """Language and text of each block of code of a file."""
    return re.findall(r"^```(\w+)\n(.*?)^```$", (TOP / name).read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


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
    ran = []
    for name in ("README.md", TEXTS[0], TASK[0]):  # the guides use what the README has trained
        for language, text in blocks(name):
            if not text.startswith((*NOT_RUN, GRID)):
                ran.append(run(language, text))
    assert len(ran) >= 16
    assert len(list((place / "models").glob("*/result.json"))) == 11  # MOOD too
    assert (place / "submit.zip").is_file() and (place / "benchmark/benchmark.md").is_file()
    assert len((place / "answers.jsonl").read_text(encoding="utf-8").splitlines()) == 2
    assert (place / "answers.csv").is_file() and '"inputs": {"comment": ' in ran[-1]


@pytest.mark.skipif(shutil.which("parallel") is None, reason="needs GNU parallel")
def test_the_grid_search_runs(place, run):
    (block,) = (text for _, text in blocks("README.md") if text.startswith(GRID))
    output = run("shell", block)
    assert "2 finished, 0 failed" in output
    assert list(place.rglob("report.html"))
    first, *_ = (text for _, text in blocks(TASK[0]))
    (block,) = (text for _, text in blocks(TASK[0]) if text.startswith(GRID))
    assert re.search(r"^model .* MOOD$", run("shell", first + block), re.MULTILINE)


def test_what_is_not_run_stands_in_the_readme():
    assert {words for _, text in blocks("README.md") for words in NOT_RUN if text.startswith(words)} == set(NOT_RUN)
    text = "".join(text for _, text in blocks("README.md"))
    assert all(words in text for words, _ in INSTEAD)


def test_both_readmes_have_the_same_commands_sections_tables_and_pictures():
    chinese, english = ((TOP / name).read_text(encoding="utf-8") for name in READMES)
    assert [(language, without_comments(text)) for language, text in blocks(READMES[0])] == [
        (language, without_comments(text)) for language, text in blocks(READMES[1])
    ]
    for pattern in (r"^##+ ", r"^\|", r"^- ", r"^!\["):
        assert len(re.findall(pattern, chinese, re.MULTILINE)) == len(re.findall(pattern, english, re.MULTILINE)), (
            pattern
        )
    assert re.findall(r"!\[.*?\]\((.*?)\)", chinese) == re.findall(r"!\[.*?\]\((.*?)\)", english)


@pytest.mark.parametrize("names", [INFERENCE, TEXTS, TASK, INSTALL], ids=lambda names: names[0])
def test_both_languages_of_a_guide_show_the_same_code_and_tables(names):
    chinese, english = map(blocks, names)
    texts = [(TOP / name).read_text(encoding="utf-8") for name in names]
    for pattern in (r"^##+ ", r"^\|"):
        assert len({len(re.findall(pattern, text, re.MULTILINE)) for text in texts}) == 1, pattern
    assert [(language, without_comments(text)) for language, text in chinese] == [
        (language, without_comments(text)) for language, text in english
    ]


def test_both_guides_to_a_new_architecture_show_the_code_as_it_is():
    """What they show of Python, whole or a row of a table, stands in the modules that they are about."""
    modules = "".join(path.read_text(encoding="utf-8") for path in (TOP / "clue_utils/models").rglob("*.py"))
    chinese, english = map(blocks, GUIDES)
    assert chinese == english and len(chinese) >= 7
    assert [text for language, text in chinese if language != "shell" and text not in modules] == []
    # These import what lies in scripts/, which nothing puts on the path by itself.
    commands = [line for language, text in english if language == "shell" for line in text.splitlines()]
    assert len(commands) >= 5
    assert [line for line in commands if not line.startswith("PYTHONPATH=scripts python scripts/dev/")] == []


@pytest.mark.parametrize(
    "name", [*READMES, *GUIDES, *INFERENCE, *TEXTS, *TASK, *INSTALL, "CONTRIBUTING.md", "SECURITY.md"]
)
def test_files_and_flags_that_are_named_exist(name):
    text = (TOP / name).read_text(encoding="utf-8")
    text = re.sub("<!-- flags -->.*<!-- /flags -->", "", text, flags=re.DOTALL)  # made from the parsers
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
    others |= {"--build-arg", "--entrypoint", "--ipc", "--rm", "--user"}  # of docker
    flags = set(re.findall(r"(?<![\w-])--[a-z][a-z_-]+", text)) - others
    assert [flag for flag in sorted(flags) if flag not in known] == []


def test_tables_are_what_the_registry_and_the_parsers_say():
    readme_tables.main(["--check"])

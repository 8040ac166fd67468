"""The wheel and source distribution, ``clue`` away from the repository, and the files that go with a release."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest
import yaml

from clue_utils import project

TOP = Path(__file__).parents[1]
VERSION = project.version()
PROGRAMS = ("classification", "mrc", "scripts")
# Run by every command but this one, which imports Paddle for its flags.
LIGHT = [name for name in project.COMMANDS if name != "trainer"]
ALL_HELP = """\
import sys
from clue_utils.__main__ import main

for name in sys.argv[1:]:
    sys.argv = ["clue", name, "--help"]
    try:
        main()
    except SystemExit as end:
        assert end.code == 0, name
    print("-----")
"""


def copy(names: list[str], place: Path) -> None:
    """Copy files and folders of the project."""
    for path in (TOP / name for name in names):
        if path.is_dir():
            shutil.copytree(path, place / path.name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(path, place)


def files_of(*folders: str, suffix: str = "") -> dict[str, bytes]:
    paths = [path for folder in folders for path in (TOP / folder).rglob(f"*{suffix}") if path.is_file()]
    return {str(path.relative_to(TOP)): path.read_bytes() for path in paths if "__pycache__" not in path.parts}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """A wheel, built as the images build it: without a network, of what .dockerignore lets through."""
    place = tmp_path_factory.mktemp("wheel")
    source = place / "project"
    source.mkdir()
    copy(re.findall(r"^!(.*)$", (TOP / ".dockerignore").read_text(encoding="utf-8"), re.MULTILINE), source)
    command = [sys.executable, "-m", "pip", "wheel", "--no-build-isolation", "--no-deps", "--no-index"]
    command += ["--disable-pip-version-check", "--no-cache-dir", "--wheel-dir", place, source]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    (path,) = place.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """A folder that the wheel is installed in, for which unpacking is enough."""
    folder = tmp_path_factory.mktemp("site") / "site packages"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


@pytest.fixture
def clue(installed, tmp_path):
    """Run Python away from the repository, where ``clue_utils`` is the wheel's; return the ended process."""

    def run(*words, python=sys.executable, **variables):
        environment = os.environ | {"PYTHONPATH": str(installed), "COLUMNS": "80", **variables}
        command = [str(word) for word in (python, *words)]
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)

    return run


def test_the_wheel_holds_the_programs_themselves(wheel):
    with zipfile.ZipFile(wheel) as archive:
        found = {name: archive.read(name) for name in archive.namelist() if ".dist-info/" not in name}
    locks = [TOP / "requirements.txt", TOP / "requirements-gpu.txt"]
    scripts = [TOP / "scripts/language.sh", TOP / "scripts/python.sh", TOP / "scripts/run_trial.sh"]
    programs = files_of(*PROGRAMS, suffix=".py") | {
        str(path.relative_to(TOP)): path.read_bytes() for path in [*locks, *scripts]
    }
    assert found == files_of("clue_utils") | {f"clue_utils/programs/{name}": data for name, data in programs.items()}


def test_the_wheel_says_what_it_is(wheel):
    assert wheel.name == f"clue_benchmark-{VERSION}-py3-none-any.whl"
    with zipfile.ZipFile(wheel) as archive:
        texts = {Path(name).name: archive.read(name).decode() for name in archive.namelist() if ".dist-info/" in name}
    told = Parser().parsestr(texts["METADATA"])
    assert (told["Name"], told["Version"], told["License"]) == ("clue-benchmark", VERSION, "Apache-2.0")
    lines = (TOP / "requirements.in").read_text(encoding="utf-8").splitlines()
    assert told.get_all("Requires-Dist") == [line for line in lines if line and not line.startswith("#")]
    assert re.findall(r"^(\w+) = (.*)$", texts["entry_points.txt"], re.MULTILINE) == [
        ("clue", "clue_utils.__main__:main")
    ]


def test_the_source_distribution_is_the_whole_project(tmp_path):
    manifest = (TOP / "MANIFEST.in").read_text(encoding="utf-8")
    folders = re.findall(r"^graft (\S+)$", manifest, re.MULTILINE)
    patterns = [word for words in re.findall(r"^include (.*)$", manifest, re.MULTILINE) for word in words.split()]
    patterns += ["LICENSE", "MANIFEST.in", "pyproject.toml", "setup.cfg"]
    names = [path.name for pattern in patterns for path in TOP.glob(pattern)]
    (tmp_path / "project").mkdir()
    copy([*folders, *names], tmp_path / "project")
    build = "import sys; from setuptools import build_meta; build_meta.build_sdist(sys.argv[1])"
    done = subprocess.run(
        [sys.executable, "-c", build, tmp_path], cwd=tmp_path / "project", capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    top = f"clue_benchmark-{VERSION}"
    with tarfile.open(tmp_path / f"{top}.tar.gz") as archive:
        found = {name.removeprefix(f"{top}/") for name in archive.getnames()}
    assert {*files_of(*folders), *names} - found == set()
    tops = {"README.md", "requirements-override.in", "Dockerfile.gpu", ".dockerignore", "CITATION.cff"}
    deep = {"classification/run_clue_classifier.py", "mrc/run_c3.py", "scripts/setup_env.sh", "docs/install.md"}
    assert tops | deep | {"tests/conftest.py", ".github/ISSUE_TEMPLATE/bug.en.yml", ".ci/run"} <= found


def test_each_command_speaks_of_itself_as_it_is_typed(clue):
    done = clue("-c", ALL_HELP, *LIGHT, CLUE_LANG="en")
    assert done.returncode == 0, done.stderr
    *texts, _ = done.stdout.split("-----\n")
    for name, text in zip(LIGHT, texts, strict=True):
        assert re.match(rf"usage: clue {name}\b", text), text[:200]
        typed = r"(?<![\w/])(?:scripts|mrc|classification)/(?!grid_search\.slurm)|\w\.sh\b|\brun_\w+\.py"
        assert re.findall(typed, text) == [], name  # Slurm jobs need the repository


def test_what_is_said_names_the_commands_of_clue(clue):
    said = "from clue_utils.language import say; print(say('bash scripts/report.sh {name}', name='report.sh'))"
    assert clue("-S", "-c", said, CLUE_LANG="en").stdout == "clue report report.sh\n"


def test_clue_lists_its_commands_and_finds_what_was_meant(clue, installed):
    done = clue("-m", "clue_utils", CLUE_LANG="en")
    assert done.returncode == 0 and [line for line in done.stdout.splitlines() if len(line) > 80] == []
    assert re.findall(r"^  (\w+) +[A-Z]", done.stdout, re.MULTILINE) == [*project.COMMANDS, "where"]
    refused = clue("-m", "clue_utils", "clasify", CLUE_LANG="en")
    assert refused.returncode == 2 and refused.stderr.startswith("error: ") and refused.stderr.count("\n") == 1
    assert "did you mean classify?" in refused.stderr


def test_version_where_and_a_missing_package_tell_what_to_install(clue, installed):
    """Before anything else is installed."""
    assert clue("-S", "-m", "clue_utils", "--version").stdout == f"clue-benchmark {VERSION}\n"
    lock = installed / "clue_utils/programs/requirements.txt"
    assert clue("-S", "-m", "clue_utils", "where", "requirements.txt").stdout == f"{lock}\n"
    bare = clue("-S", "-m", "clue_utils", "classify", "--help")
    assert (bare.returncode, bare.stdout) == (2, "")
    assert re.fullmatch(rf"error: \S+ has no package \w+: pip install --no-deps -r '{lock}'\n", bare.stderr)
    none = clue("-m", "clue_utils", "where", "nothing")
    assert (none.returncode, none.stdout) == (2, "") and none.stderr.count("\n") == 1


def test_it_trains_predicts_and_zips(clue, warm_python, demo, few_examples, tmp_path):
    def run(*words):
        done = clue("-m", "clue_utils", *words, python=warm_python, PYTHON=str(warm_python))
        assert done.returncode == 0, done.stderr
        return done.stdout

    run(
        *("classify", "--task_name", "TNEWS", "--model_name_or_path", demo / "model", "--data_dir", few_examples),
        *("--output_dir", "tnews", "--do_train", "--do_eval", "--do_predict", "--max_steps", 1, "--device", "cpu"),
    )
    run("zip", "tnews", "--output", "submit.zip")
    assert "no problem found" in run("check", "submit.zip", "--data_dir", few_examples)
    with zipfile.ZipFile(tmp_path / "submit.zip") as archive:
        assert archive.namelist() == ["tnews10_predict.json", "tnews11_predict.json"]


def test_it_tries_a_machine(clue, warm_python, tmp_path):
    words = ("-m", "clue_utils", "gpu", "--device", "cpu", "--only", "machine", "--output_dir", "check")
    done = clue(*words, PYTHON=str(warm_python))  # what imports Paddle
    assert done.returncode == 0 and "FAIL" not in done.stdout, done.stdout + done.stderr
    assert (tmp_path / "check/gpu-check.md").is_file()


def test_commands_in_a_text_become_those_of_clue():
    for text, expected in {
        "run bash scripts/report.sh 'a model'": "run clue report 'a model'",
        "python mrc/run_c3.py --task_file x": "clue c3 --task_file x",
        "grid_search.sh --seeds": "clue grid --seeds",
        "  python -m paddle.distributed.launch run_c3.py": "  python -m paddle.distributed.launch clue c3",
        "bash scripts/setup_env.sh --cuda installs one": '"$(clue where requirements-gpu.txt)" installs one',
        "pip install -r requirements.txt": 'pip install -r "$(clue where requirements.txt)"',
        '"$(clue where requirements.txt)"': '"$(clue where requirements.txt)"',
        "/a/scripts/report.sh my_report.sh report.shx": "/a/scripts/report.sh my_report.sh report.shx",
    }.items():
        assert project.with_commands(text) == expected
        assert project.as_typed(text) == text  # in the repository


def test_each_command_stands_for_a_program_that_is_there():
    for command in project.COMMANDS.values():
        assert (TOP / command.script).is_file()
        assert command.folder.joinpath(*command.module_name.split(".")).with_suffix(".py").is_file()


def test_one_version_everywhere():
    cited = yaml.safe_load((TOP / "CITATION.cff").read_text(encoding="utf-8"))
    changes = (TOP / "CHANGELOG.md").read_text(encoding="utf-8")
    released = re.search(r"^## (\S+) \((\S+)\)$", changes, re.MULTILINE)
    assert released and released.groups() == (cited["version"], str(cited["date-released"]))
    assert cited["version"] == VERSION


def test_issue_forms_ask_the_same_in_both_languages():
    forms = [
        yaml.safe_load((TOP / f".github/ISSUE_TEMPLATE/bug.{language}.yml").read_text(encoding="utf-8"))
        for language in ("zh-CN", "en")
    ]
    asked = [
        [
            (part["type"], part.get("id"), part.get("validations"), part["attributes"].get("render"))
            for part in form["body"]
        ]
        for form in forms
    ]
    assert asked[0] == asked[1] and {"result", "gpu_check"} <= {name for _, name, _, _ in asked[0]}
    assert "gpu-check/gpu-check.md" in str(forms[0]) and "gpu-check/gpu-check.md" in str(forms[1])


def test_the_images_are_made_of_what_is_there():
    ignored = (TOP / ".dockerignore").read_text(encoding="utf-8")
    for name in ("Dockerfile", "Dockerfile.gpu"):
        text = (TOP / name).read_text(encoding="utf-8")
        for lock in re.findall(r"^COPY (requirements\S*)", text, re.MULTILINE):
            assert f"!{lock}\n" in ignored and (TOP / lock).is_file()
        assert {*re.findall(r"/locks/(\S+\.txt)", text)} == {
            *re.findall(r"^COPY (requirements\S*)", text, re.MULTILINE)
        }
    (cuda,) = re.findall(r"^ARG CUDA=(\S+)$", text, re.MULTILINE)
    gpu_lock = (TOP / "requirements-gpu.txt").read_text(encoding="utf-8")
    assert re.search(rf"^#   CUDA {re.escape(cuda)} +https://", gpu_lock, re.MULTILINE)

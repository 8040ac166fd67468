"""The set-up of the environment, with stubs for Python and uv, and the lock that it installs."""

from __future__ import annotations

import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from clue_utils import cards

TOP = Path(__file__).parents[1]
TOOLS = "bash cat cksum cp dirname flock grep mkdir readlink rm rmdir sed sort tail tee touch tr wc".split()
PYTHON = """#!{bash}
echo "$*" >>{place}/calls
case "$*" in
  scripts/interpreter.py) echo {version} {can_make} "$(readlink -f "$0")" ;;
  -V) echo "Python {version}.9" ;;
  "-m venv .venv") mkdir -p .venv/bin && cp "$0" .venv/bin/python ;;
  "-m pip "* | "-m ensurepip") ;;
  *) exit 1 ;;
esac
"""
NVIDIA_SMI = """#!{bash}
case "$*" in
  *compute_cap*) printf '{capabilities}\\n' ;;
  *) echo "| NVIDIA-SMI 580.65.06    Driver Version: 580.65.06    CUDA Version: {driver}     |" ;;
esac
"""
UV = """#!{bash}
echo "uv $*" >>{place}/calls
[ {status} = 0 ] || {{ echo "error: no download" >&2; exit {status}; }}
cp {place}/python-of-uv .venv/python && mkdir .venv/bin && cp .venv/python .venv/bin/python
"""


class Place:
    """A copy of the project's set-up beside a folder of programs, which is all that ``PATH`` names."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.project = folder / "project"
        self.bin = folder / "bin"
        self.bin.mkdir()
        (self.project / "scripts").mkdir(parents=True)
        for name in ("setup_env.sh", "language.sh", "interpreter.py"):
            shutil.copy(TOP / "scripts" / name, self.project / "scripts")
        for name in ("requirements.txt", "requirements-gpu.txt", "requirements-dev.txt", "setup.cfg", "pyproject.toml"):
            shutil.copy(TOP / name, self.project)
        for name in TOOLS:
            if program := shutil.which(name):  # flock is not everywhere
                (self.bin / name).symlink_to(program)
        self.path = str(self.bin)

    def program(self, name: str, text: str, **values: object) -> Path:
        path = self.folder / name
        path.write_text(text.format(bash=shutil.which("bash"), place=self.folder, **values), encoding="utf-8")
        path.chmod(0o755)
        return path

    def python(self, name: str, version: str, can_make: str = "venv") -> Path:
        return self.program(f"bin/{name}", PYTHON, version=version, can_make=can_make)

    def uv(self, status: int = 0) -> None:
        self.program("python-of-uv", PYTHON, version="3.12", can_make="venv")
        self.program("bin/uv", UV, status=status)

    def cards(self, *capabilities: str, driver: str = "13.0") -> None:
        """Have nvidia-smi show cards of these compute capabilities."""
        self.program("bin/nvidia-smi", NVIDIA_SMI, capabilities="\\n".join(capabilities), driver=driver)

    def installs(self) -> list[str]:
        """What pip was called with since the last time, but for pip itself and the project."""
        installs = [call.partition(" off ")[2] for call in self.calls() if call.startswith("-m pip")]
        return [words for words in installs if " -r " in words or words.startswith("-c")]

    def set_up(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        kept = {key: value for key, value in os.environ.items() if key != "PYTHON"} | {"PATH": self.path}
        command = [self.bin / "bash", self.project / "scripts/setup_env.sh", *arguments]
        return subprocess.run(command, env=kept | environment, capture_output=True, text=True, encoding="utf-8")

    def calls(self) -> list[str]:
        """What the stubs were called with since the last time."""
        path = self.folder / "calls"
        calls = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        path.unlink(missing_ok=True)
        return calls


@pytest.fixture
def place(tmp_path):
    return Place(tmp_path)


@pytest.mark.parametrize(
    ("there", "chosen"),
    [
        ({"python3.9": "3.9", "python3.13": "3.13", "python3": "3.13"}, "python3.13"),
        ({"python3": "3.13"}, "python3"),
        ({"python3": "3.14", "python": "3.10"}, "python"),
        ({"python3": "3.13", "python3.13": "3.13", "python3.12": "3.12", "python3.11": "3.11"}, "python3.12"),
    ],
)
def test_a_python_that_will_do_is_found(place, there, chosen):
    for name, version in there.items():
        place.python(name, version)
    done = place.set_up()
    assert (done.returncode, done.stderr) == (0, "")
    assert f"set-up: .venv with Python {there[chosen]}.9 of {place.bin / chosen}\n" in done.stdout


def test_the_lock_is_installed_without_dependencies_and_once(place):
    place.python("python3", "3.11")
    done = place.set_up("--dev")
    assert done.returncode == 0, done.stderr
    installs = [call for call in place.calls() if call.startswith("-m pip")]
    assert len(installs) == 4 and all("--no-deps" in call for call in installs[1:])
    again = place.set_up("--dev")
    assert (again.returncode, again.stdout, again.stderr, place.calls()) == (0, "", "", [])


GPU_LOCK = (TOP / "requirements-gpu.txt").read_text(encoding="utf-8")
(INDEX,) = set(re.findall(r"^#   CUDA .* (\S+/cu)\d+/$", GPU_LOCK, re.MULTILINE))
GPU_INSTALLS = [
    "--no-deps --build-constraint requirements-gpu.txt -r requirements-gpu.txt --extra-index-url " + INDEX,
    "-c requirements-gpu.txt paddlepaddle-gpu --extra-index-url " + INDEX,
]


def gpu_installs(cuda: str) -> list[str]:
    return [f"{words}{cuda.replace('.', '')}/" for words in GPU_INSTALLS]


def test_the_gpu_build_is_installed_and_kept(place):
    python = place.python("python3", "3.11")
    assert place.set_up().returncode == 0 and len(place.installs()) == 1
    done = place.set_up("--cuda", "12.6", "--dev")
    assert (done.returncode, done.stderr) == (0, "")
    assert f".venv with Python 3.11.9 of {python}, PaddlePaddle for CUDA 12.6\n" in done.stdout
    assert place.installs() == [*gpu_installs("12.6"), "--no-deps -r requirements-dev.txt"]
    # It stays what it is, whatever is not said; what the lock holds anew comes from the same index.
    for words in ((), ("--dev",), ("--dev", "--cuda", "12.6")):
        assert (place.set_up(*words).stdout, place.calls()) == ("", [])
    with open(place.project / "requirements-gpu.txt", "a") as lock:
        lock.write("another==1\n")
    assert place.set_up().returncode == 0 and place.installs() == gpu_installs("12.6")
    (place.project / ".venv/set-up.unfinished").touch()
    assert place.set_up().returncode == 0 and place.installs() == gpu_installs("12.6")
    assert place.set_up("--cuda", "11.8").returncode == 0 and place.installs() == gpu_installs("11.8")


@pytest.mark.parametrize(
    ("capabilities", "driver", "cuda"),
    [
        (["7.0"], "13.0", "12.6"),
        (["7.0", "7.0"], "12.4", "12.6"),
        (["7.0"], "11.4", "11.8"),
        (["12.0"], "13.0", "12.9"),
        (["8.0", "12.0"], "13.0", "12.9"),
        (["8.6", "[N/A]"], "13.0", "12.6"),
        (["99.0"], "13.0", "no build is known for the driver and all cards of this machine; name the version"),
        (["7.0", "12.0"], "13.0", "no build is known for the driver and all cards of this machine; name the version"),
        (["12.0"], "11.8", "no build is known for the driver and all cards of this machine; name the version"),
        (["[N/A]"], "13.0", "nvidia-smi shows no card; name the version, one of 11.8 12.6 12.9 13.0"),
        (["Field compute_cap is not a valid field to query."], "11.0", "nvidia-smi shows no card"),
    ],
)
def test_the_build_goes_by_the_cards(place, capabilities, driver, cuda):
    place.python("python3", "3.11")
    place.cards(*capabilities, driver=driver)
    done = place.set_up("--cuda")
    if " " in cuda:
        assert (done.returncode, done.stdout) == (2, "") and done.stderr.startswith(f"set-up: --cuda: {cuda}")
        assert done.stderr.count("\n") == 1 and not (place.project / ".venv").exists()
    else:
        assert done.returncode == 0 and place.installs() == gpu_installs(cuda), done.stderr


def test_a_build_that_cannot_run_is_refused(place):
    place.python("python3", "3.11")
    place.cards("7.0")
    unknown = place.set_up("--cuda", "12.5")
    assert unknown.stderr == "set-up: --cuda 12.5: no such build; choose one of 11.8 12.6 12.9 13.0\n"
    newer = place.set_up("--dev", "--cuda", "13.0")
    assert newer.stderr == "set-up: --cuda 13.0 does not run on a card of compute capability 7.0: take 12.6 or 11.8\n"
    assert unknown.returncode == newer.returncode == 2 and place.calls() == []
    # One of several cards will do; without --cuda a GPU is only pointed out.
    place.cards("6.1", "12.0")
    assert place.set_up("--cuda", "13.0").returncode == 0 and place.installs() == gpu_installs("13.0")
    shutil.rmtree(place.project / ".venv")
    done = place.set_up()
    assert done.returncode == 0 and "bash scripts/setup_env.sh --cuda\n" in done.stdout and len(place.installs()) == 1


def test_the_venv_that_is_active_is_made_anew(place):
    base = place.python("base", "3.12")
    active = place.project / ".venv/bin"
    active.mkdir(parents=True)
    (active / "python3.12").symlink_to(base)
    (place.project / ".venv/set-up.packages").write_text("an older lock")
    place.path = f"{active}:{place.path}"
    done = place.set_up()
    assert (done.returncode, done.stderr) == (0, "")
    assert f"Python 3.12.9 of {base}\n" in done.stdout


def test_uv_supplies_a_python_where_none_will_do(place):
    place.python("python3", "3.9")
    place.uv()
    done = place.set_up()
    assert (done.returncode, done.stderr) == (0, "")
    assert "set-up: .venv with Python 3.12 of uv\n" in done.stdout
    calls = place.calls()
    assert "uv venv --quiet --allow-existing --python 3.12 .venv" in calls and "-m ensurepip" in calls


def test_uv_is_left_alone_where_a_python_will_do(place):
    place.python("python3", "3.13")
    place.uv()
    assert place.set_up().returncode == 0
    assert not [call for call in place.calls() if call.startswith("uv")]


def test_refusals_are_one_line_that_names_the_remedy(place):
    def refused(**environment):
        done = place.set_up(**environment)
        assert (done.returncode, done.stdout) == (2, "")
        (line,) = done.stderr.splitlines()
        return line

    remedy = "install one, or name it: PYTHON=/path/to/python bash scripts/setup_env.sh"
    assert refused() == f"set-up: no Python from 3.10 to 3.13 found; {remedy}"
    chinese = "安装：未找到 Python 3.10 到 3.13；请安装，或指定其路径：PYTHON=/path/to/python bash scripts/setup_env.sh"
    assert refused(CLUE_LANG="zh") == chinese
    old = place.python("python3", "3.9")
    assert refused() == f"set-up: no Python from 3.10 to 3.13 found; {remedy}"
    place.uv()
    assert refused(PYTHON=str(old)) == f"set-up: PYTHON={old} is Python 3.9; 3.10 to 3.13 is needed"
    assert refused(PYTHON="none") == "set-up: PYTHON=none is no Python; 3.10 to 3.13 is needed"
    place.python("python3", "3.13", can_make="no-venv")
    assert refused().endswith("Python 3.13 has no venv module; on Debian or Ubuntu: apt-get install python3.13-venv")
    place.python("python3", "3.9")
    place.uv(status=1)
    done = place.set_up()
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == f"set-up: no Python from 3.10 to 3.13 found, and uv supplies none; {remedy}"


def pins(lock: str) -> dict[str, str]:
    """Version by name of what a lock holds for this Python."""
    lines = (line.split("#")[0].strip() for line in (TOP / lock).read_text(encoding="utf-8").splitlines())
    requirements = [Requirement(line) for line in lines if line]
    assert all(str(requirement.specifier).startswith("==") for requirement in requirements)
    return {
        canonicalize_name(requirement.name): str(requirement.specifier)[2:]
        for requirement in requirements
        if requirement.marker is None or requirement.marker.evaluate()
    }


def test_the_gpu_lock_is_the_lock_with_another_wheel():
    locked, gpu = pins("requirements.txt"), pins("requirements-gpu.txt")
    locked["paddlepaddle-gpu"] = locked.pop("paddlepaddle")
    assert gpu == locked


def test_the_gpu_lock_tells_which_build_is_for_which_card():
    told = re.findall(r"^#   compute capability ([0-9. ]+): CUDA ([0-9. ]+) \((.*)\)$", GPU_LOCK, re.MULTILINE)
    assert told == [
        (" ".join(f"{major}.{minor}" for major, minor in some.capabilities), " ".join(some.builds), some.names)
        for some in cards.CARDS
    ]
    indexes = dict(re.findall(rf"^#   CUDA ([0-9.]+) +{re.escape(INDEX)}(\d+)/$", GPU_LOCK, re.MULTILINE))
    assert indexes == {version: version.replace(".", "") for version in indexes}
    assert set(indexes) == {version for some in cards.CARDS for version in some.builds}


@pytest.mark.parametrize(("name", "either"), [("setup_en.md", " or "), ("setup.md", " 或 ")])
def test_the_page_on_installing_tells_the_same_in_brief(name, either):
    text = (TOP / "docs" / name).read_text(encoding="utf-8")
    told = re.findall(rf"^\| .* \| ([0-9.]+(?:{either}[0-9.]+)?) \|$", text, re.MULTILINE)
    old, new, others = (tuple(builds.split(either)) for builds in told)
    for some in cards.CARDS:
        expected = old if re.search("V100|P100", some.names) else new if "B200" in some.names else others
        assert some.builds[: len(expected)] == expected


def test_the_lock_holds_all_that_its_packages_ask_for():
    locked = pins("requirements.txt")
    installed = {canonicalize_name(found.name): found for found in importlib.metadata.distributions()}
    if any(name not in installed or installed[name].version != version for name, version in locked.items()):
        pytest.skip("needs the locked set, as scripts/setup_env.sh installs it")
    unmet = set()
    for name in locked:
        for requirement in map(Requirement, installed[name].requires or ()):
            asked = canonicalize_name(requirement.name)
            if (requirement.marker is None or requirement.marker.evaluate({"extra": ""})) and (
                asked not in locked or not requirement.specifier.contains(locked[asked], prereleases=True)
            ):
                unmet.add((name, asked))
    # requirements-override.in lifts these.
    known = {("paddlenlp", "numpy"), ("fast-dataindex", "numpy")}
    if sys.version_info >= (3, 13):
        known |= {("paddlenlp", "paddle2onnx")}
    else:
        known |= {("paddle2onnx", "onnx"), ("paddle2onnx", "polygraphy")}
        known |= {("paddle2onnx", "onnxoptimizer")} if sys.version_info < (3, 12) else set()
    assert unmet == known

"""Where the project's programs lie, in the repository or an installed wheel, and how a user types them.

In the repository the programs are the files of ``classification/``, ``mrc/`` and ``scripts/``, typed as such. A wheel
holds the same files within this package, see setup.cfg; they are typed as subcommands of ``clue`` then.
"""

from __future__ import annotations

import configparser
import importlib.metadata
import re
from dataclasses import dataclass
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent
# The folder from which ``clue_utils`` is imported.
MODULES = _PACKAGE.parent
IS_INSTALLED = (_PACKAGE / "programs").is_dir()
# The folder of classification/, mrc/ and scripts/.
TOP = _PACKAGE / "programs" if IS_INSTALLED else MODULES


def version() -> str:
    """The project's version, which stands in setup.cfg and goes from there into a wheel; "" where neither is."""
    if IS_INSTALLED:
        return importlib.metadata.version("clue-benchmark")
    described = configparser.ConfigParser()
    described.read(TOP / "setup.cfg", encoding="utf-8")
    return described.get("metadata", "version", fallback="")


@dataclass(frozen=True)
class Command:
    """A subcommand of ``clue``.

    Attributes:
        script: what is typed in the repository, relative to its top folder.
        module: imported from the script's folder, its ``main`` is the program; default: named as the script.
    """

    script: str
    module: str = ""

    @property
    def folder(self) -> Path:
        return (TOP / self.script).parent

    @property
    def module_name(self) -> str:
        return self.module or Path(self.script).stem


# In the order of their use.
COMMANDS = {
    "demo": Command("scripts/make_demo.py"),
    "models": Command("scripts/list_models.py"),
    "classify": Command("classification/run_clue_classifier.py"),
    "trainer": Command("classification/run_clue_classifier_trainer.py"),
    "cmrc2018": Command("mrc/run_cmrc2018.py"),
    "chid": Command("mrc/run_chid.py"),
    "c3": Command("mrc/run_c3.py"),
    "errors": Command("scripts/errors.py"),
    "compare": Command("scripts/compare.py"),
    "serve": Command("scripts/serve.py"),
    "grid": Command("scripts/grid_search.sh"),
    "trials": Command("scripts/list_trials.py"),
    "trial": Command("scripts/run_trial.sh"),
    "report": Command("scripts/report.sh"),
    "submit": Command("scripts/predict_and_zip.sh"),
    "zip": Command("scripts/zip_predictions.py"),
    "check": Command("scripts/check_submission.py"),
    "gpu": Command("scripts/check_gpu.sh", "gpu_check.__main__"),
}
_BY_FILE = {Path(command.script).name: name for name, command in COMMANDS.items()}
# Not a part of a path, such as of the file itself.
_TYPED = re.compile(
    r"(?<![\w./-])(?:(?:bash|python) )?(?:(?:classification|mrc|scripts)/)?"
    rf"({'|'.join(map(re.escape, _BY_FILE))})(?!\w)"
)
_LOCKS = re.compile(r"(?<![\w./-])(?<!where )(requirements(?:-gpu)?\.txt)(?!\w)")


def as_typed(text: str) -> str:
    """A text for the user in which the repository's commands stand as they are typed where the project runs.

    "bash scripts/report.sh MODEL" of the repository is "clue report MODEL" of a wheel.
    """
    return with_commands(text) if IS_INSTALLED else text


def with_commands(text: str) -> str:
    """A text with subcommands of ``clue`` in the place of the repository's scripts, and where a wheel has the locks."""
    # The lock for GPUs says at its top how it is installed.
    text = text.replace("bash scripts/setup_env.sh --cuda", "requirements-gpu.txt")
    text = _LOCKS.sub(r'"$(clue where \1)"', text)
    return _TYPED.sub(lambda found: f"clue {_BY_FILE[found[1]]}", text)

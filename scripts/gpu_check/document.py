"""What is left of a check: gpu-check.json and gpu-check.md, which say the same and name no person, machine or folder.

gpu-check.json holds one object:

=============  =====================================================================================================
``format``     1; another number where a name below changes its meaning
``project``    version of the project
``device``     "gpu" or "cpu"
``seconds``    of all parts together
``versions``   package -> version, of Python and what decides the numbers
``parts``      list of ``name``, ``title``, ``seconds`` (taken), ``limit_seconds``, ``cut_short`` ("": came to its end)
``checks``     list of ``part``, ``name``, ``status``, ``value``, ``unit``, ``bound``, ``relation``, ``note``: see
               ``checks.Check``
``counts``     status -> number of checks
``verdict``    list of ``claim`` (of README.md), ``status`` ("ok", "FAIL", "not run"), ``measured``
``slowest``    list of ``what``, ``value``, ``unit``, ``try``: the slowest first
=============  =====================================================================================================
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from clue_utils import environment, project
from clue_utils.files import write_text_atomically
from clue_utils.report.render import escape_markdown, markdown_table
from gpu_check import verdict
from gpu_check.checks import FAIL, INFO, NOT_RUN, OK, SLOW, Check

FORMAT = 1
STATUSES = (OK, FAIL, SLOW, NOT_RUN, INFO)


def outcome(device: str, checks: Sequence[Check], ended: Sequence[Any]) -> dict[str, Any]:
    """The content of gpu-check.json.

    Args:
        ended: how each part ended, as ``__main__.Ended``.
    """
    return {
        "format": FORMAT,
        "project": project.version(),
        "device": device,
        "seconds": round(sum(end.seconds for end in ended), 1),
        "versions": environment.versions(),
        "parts": [
            {
                "name": end.part.name,
                "title": end.part.title,
                "seconds": round(end.seconds, 1),
                "limit_seconds": end.part.seconds,
                "cut_short": end.cut_short,
            }
            for end in ended
        ],
        "checks": [dataclasses.asdict(check) for check in checks],
        "counts": {status: sum(check.status == status for check in checks) for status in STATUSES},
        "verdict": verdict.claims(checks),
        "slowest": verdict.slowest(checks),
    }


def summary(outcome: dict[str, Any]) -> str:
    """One line: how many checks of each kind, and the time."""
    counts = ", ".join(f"{number} {status}" for status, number in outcome["counts"].items() if number)
    return f"{counts}; {outcome['seconds']:.0f} s"


def markdown(outcome: dict[str, Any]) -> str:
    """The content of gpu-check.md."""
    versions = ", ".join(f"{name} {version}" for name, version in outcome["versions"].items())
    lines = [f"## GPU check: {summary(outcome)}", "", f"Device: {outcome['device']}. {versions}.", ""]
    names = ("status", "claim", "measured")
    rows = [[escape_markdown(claim[name]) for name in names] for claim in outcome["verdict"]]
    lines += [markdown_table(["", "what README.md says", "measured"], rows)] if rows else []
    rows = [[item["what"], f"{item['value']:.3g} {item['unit']}", item["try"]] for item in outcome["slowest"]]
    lines += [markdown_table(["slowest", "seconds", "to try"], rows)] if rows else []
    for part in outcome["parts"]:
        checks = [Check(**check) for check in outcome["checks"] if check["part"] == part["name"]]
        cells = [[check.status, check.name, check.shown_value, check.shown_bound, check.note] for check in checks]
        rows = [[escape_markdown(cell) for cell in row] for row in cells]
        lines.append(f"### {part['name']}: {part['title']} ({part['seconds']:.0f} s)\n")
        lines.append(markdown_table(["", "check", "value", "bound", "note"], rows))
    return "\n".join(lines)


def write(folder: Path, outcome: dict[str, Any]) -> None:
    """Write both files whole."""
    text = json.dumps(outcome, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    write_text_atomically(folder / "gpu-check.json", text)
    write_text_atomically(folder / "gpu-check.md", markdown(outcome))

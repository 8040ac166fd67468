#!/usr/bin/env python
"""Bring the catalogue of translations up to date: texts that are new get a place, those that are gone leave theirs.

A text is what is given to say() or later(), in templates too, and whatever the scripts' --help and the list of
commands show. What is new has an empty translation until somebody writes it, and is said in English until then.
"""

from __future__ import annotations

import ast
import contextlib
import importlib
import io
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

from clue_utils import cli, commands, language, project
from clue_utils.errors import UserError
from clue_utils.files import write_text_atomically

TOP = Path(__file__).resolve().parents[2]
FOLDERS = ("clue_utils", "classification", "mrc", "scripts")
# Programs for developers, and their tools: English for all.
NOT_TRANSLATED = ("scripts/dev", "scripts/demo")
# Scripts without flags of their own to tell of; the Trainer's, which needs PaddlePaddle, has PaddleNLP's texts too.
NO_HELP = ("run_clue_classifier_trainer", "interpreter", "slurm_job", "use_gpu")
ARGPARSE = "argparse"
HEADER = """\
# English text -> Chinese. Written by scripts/dev/catalogue.py but for the translations.
msgid ""
msgstr "Language: zh_CN\\nContent-Type: text/plain; charset=UTF-8\\n"
"""
_MARK = "\u2060"


def texts() -> dict[str, str]:
    """Every text that is said -> where, in the order of the catalogue."""
    found: dict[str, str] = {}
    for folder in FOLDERS:
        for path in sorted((TOP / folder).rglob("*")):
            place = path.relative_to(TOP).as_posix()
            if path.suffix not in (".py", ".jinja") or place.startswith(NOT_TRANSLATED):
                continue
            content = path.read_text(encoding="utf-8")
            for text in _in_python(content) if path.suffix == ".py" else re.findall(r'say\("([^"]*)"', content):
                found.setdefault(text, place)
    for script in scripts():
        for text in _in_help(script):
            found.setdefault(text, f"{script.parent.name}/{script.name} --help")
    for command in project.COMMANDS.values():
        if (text := commands.docstring(command)) not in found:
            found.setdefault(text.partition("\n")[0], "clue_utils/commands.py")
    return dict(sorted(found.items(), key=lambda item: item[1]))


def _in_python(content: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(content)):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("say", "later") and node.args:
            first = node.args[0]
            if isinstance(first, ast.Constant) and isinstance(first.value, str):
                yield first.value


def scripts() -> list[Path]:
    """The scripts with a --help that is translated."""
    found = [path for folder in FOLDERS[1:] for path in sorted((TOP / folder).glob("*.py"))]
    return [path for path in found if path.stem not in NO_HELP] + [TOP / "scripts/gpu_check/__main__.py"]


def _in_help(script: Path) -> list[str]:
    """Every text that a script's --help looks up and that is not made of others."""
    asked = _Asked()
    with language.using("zh"), mock.patch.object(language, "catalogue", lambda: asked):
        show_help(script)
    return list(asked)


def show_help(script: Path) -> str:
    """What a script's --help shows."""
    shown = io.StringIO()
    folder, name = script.parent, script.stem
    if name == "__main__":  # of a package
        folder, name = folder.parent, f"{folder.name}.__main__"
    with mock.patch.object(sys, "path", [str(folder), *sys.path]), contextlib.redirect_stdout(shown):
        module = importlib.import_module(name)
        with contextlib.suppress(SystemExit):
            module.main(["--help"])
    return shown.getvalue()


class _Asked(dict[str, str]):
    """A catalogue that notes what it is asked for, and knows its own answers again."""

    def get(self, text: str, default: str) -> str:  # type: ignore[override]
        if _MARK not in text and text.strip():
            self[text] = text
        return _MARK + default


def updated(said: dict[str, str]) -> str:
    """The catalogue as it should be for these texts."""
    known = language.catalogue()
    # Versions of Python differ in what argparse says.
    of_argparse = _kept_for_argparse()
    said = {text: place for text, place in said.items() if text not in of_argparse} | of_argparse
    entries = [
        f"#: {place}\nmsgid {_quoted(text)}\nmsgstr {_quoted(known.get(text, ''))}\n" for text, place in said.items()
    ]
    return "\n".join([HEADER, *entries])


def _kept_for_argparse() -> dict[str, str]:
    content = language.CATALOGUE.read_text(encoding="utf-8")
    found = re.findall(rf"^#: {ARGPARSE}\nmsgid (.*)$", content, re.MULTILINE)
    return dict.fromkeys(map(json.loads, found), ARGPARSE)


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def main(argv: list[str] | None = None) -> None:
    parser = cli.Parser(description=__doc__, epilog="example: python scripts/dev/catalogue.py --check")
    parser.add_argument("--check", action="store_true", help="write nothing, fail where it is not up to date")
    args = parser.parse_args(argv)
    said, path = texts(), language.CATALOGUE
    new = updated(said)
    missing = [text for text in said if text not in language.catalogue()]
    if new != path.read_text(encoding="utf-8"):
        if args.check:
            raise UserError(f"{path.relative_to(TOP)} is not up to date: run python scripts/dev/catalogue.py")
        write_text_atomically(path, new)
    print(*missing, f"{len(missing)} without a translation", sep="\n")


if __name__ == "__main__":
    cli.run(main)

#!/usr/bin/env python
"""Take the pictures of the READMEs and pages, each in English (docs/NAME.png) and in Chinese (docs/NAME_zh.png).

quickstart, search and mistakes are of real runs of the demo, made on this machine: the quickstart, a grid search in
its midst, the mistakes of a short training. The search that report is of is made up: it would take days. A picture
takes a browser, Chromium, and keeps what can be read on it as its description, by which a test finds what is out of
date.
"""

from __future__ import annotations

import contextlib
import functools
import html
import io
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path

from PIL import Image, PngImagePlugin
from rich.console import Console
from rich.terminal_theme import SVG_EXPORT_THEME

from clue_utils import cli, language, published
from clue_utils.errors import UserError
from clue_utils.grid import progress, screen
from clue_utils.report import collect, page
from clue_utils.tasks import TASKS
from made_up_search import make_search

TOP = Path(__file__).resolve().parents[2]
USAGE = "python scripts/dev/readme_pictures.py [NAME...] [--language en|zh] [--browser PROGRAM] [FLAG...]"
COLUMNS = 80
# How lines on the set-up begin in either language, which depend on what was there before.
SET_UP = ("set-up:", "安装：")
# Of a picture: enough for a page's text and heat maps, and a file of a quarter of the size.
COLOURS = 96
MODEL = "hfl/rbt6"  # whose published scores the made-up search is around
SEARCHED = ("AFQMC", "TNEWS")
SEARCH = ["scripts/grid_search.sh", "demo/model", "--tasks", *SEARCHED, "--learning_rates", "5e-4", "1e-3"]
SEARCH += ["--batch_sizes", "16", "32", "--cpu_slots", "2", "--", "--data_dir", "demo/data"]
SEARCH += ["--max_seq_length", "64", "--num_train_epochs", "3", "--logging_steps", "5", "--save_steps", "20"]
# Too short to get everything right.
TRAINING = ["classification/run_clue_classifier.py", "--task_name", "TNEWS", "--model_name_or_path", "demo/model"]
TRAINING += ["--data_dir", "demo/data", "--output_dir", "models/tnews", "--device", "cpu", "--do_train", "--do_eval"]
TRAINING += ["--learning_rate", "1e-3", "--batch_size", "16", "--max_seq_length", "64", "--num_train_epochs", "2"]
# Left out of pictures of pages, which are long: a report's notes, and of its model's tables all but the first; of
# mistakes the scores of classes.
CUT = "<style>.notes, .pair > .scroll:nth-child(n+2), .pair > div:nth-child(2) { display: none; }</style></head>"

_TERMINAL = """<!doctype html><meta charset="utf-8"><style>
body {{ margin: 16px 20px; background: #10141c; color: #e6e6e6 }}
pre {{ margin: 0; font: 16px/22px "DejaVu Sans Mono", monospace }} b {{ color: #7ee0a0 }}
i {{ display: inline-block; width: 19.27px; font-size: 18px; font-style: normal; line-height: 1; text-align: center }}
</style><pre>{text}</pre>"""
_LINE, _MARGIN = 22, 32
# What holds words of the program on a page, and no records.
_LABELS = frozenset({"h1", "h2", "h3", "caption", "p", "dt", "footer"})


@dataclass(frozen=True)
class Picture:
    """What a picture is taken of.

    Attributes:
        source: a page of HTML.
        text: what can be read on it, lines of a terminal or labels of a page.
        width, height: in pixels.
    """

    source: str
    text: str
    width: int
    height: int


def main(argv: Sequence[str] | None = None) -> None:
    parser = cli.Parser(usage=USAGE, description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(NAMES)} (default: all)")
    parser.add_argument("--language", choices=language.LANGUAGES, help="of the pictures (default: both)")
    parser.add_argument("--log", type=Path, metavar="FILE", help="what a quickstart printed in that language")
    parser.add_argument("--browser", default="chromium", metavar="PROGRAM", help="(default: chromium)")
    parser.add_argument("--output", type=Path, default=TOP / "docs", metavar="DIR", help="(default: docs)")
    args = parser.parse_args(argv)
    if unknown := [name for name in args.names if name not in NAMES]:
        raise UserError(f"{unknown[0]}: no such picture: name {', '.join(NAMES)}")
    if args.log and (not args.language or args.names != ["quickstart"]):
        raise UserError("--log: say quickstart and --language, which it is in")
    if not shutil.which(args.browser):
        raise UserError(f"--browser {args.browser}: no such program")
    languages = [args.language] if args.language else [*language.LANGUAGES]
    makers = NAMES | {"quickstart": functools.partial(quickstarts, log=args.log)}
    for name in args.names or NAMES:
        for tongue, picture in zip(languages, makers[name](languages), strict=True):
            take(picture, file_of(args.output, name, tongue), args.browser)
            print(file_of(args.output, name, tongue), flush=True)


def file_of(folder: Path, name: str, tongue: str) -> Path:
    return folder / f"{name}{'' if tongue == 'en' else '_' + tongue}.png"


def take(picture: Picture, output: Path, browser: str) -> None:
    """Have a browser take a picture.

    Raises:
        UserError: it fails.
    """
    with tempfile.TemporaryDirectory() as scratch:
        source, shot = Path(scratch) / "page.html", Path(scratch) / "shot.png"
        source.write_text(picture.source, encoding="utf-8")
        flags = ("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars")
        size = f"--window-size={picture.width},{picture.height}"
        try:
            words = [browser, *flags, size, f"--screenshot={shot}", source.as_uri()]
            subprocess.run(words, check=True, capture_output=True)
            image = Image.open(shot).convert("RGB")
        except (OSError, subprocess.CalledProcessError) as error:
            raise UserError(f"--browser {browser}: no picture was taken ({error})") from None
    about = PngImagePlugin.PngInfo()
    about.add_itxt("Description", picture.text, zip=True)
    image.quantize(COLOURS, dither=Image.Dither.NONE).save(output, optimize=True, pnginfo=about)


def description(path: Path) -> str:
    """What can be read on a picture, see ``Picture.text``."""
    with Image.open(path) as image:
        return str(image.info.get("Description", ""))


def essence(text: str) -> list[str]:
    """The kinds of lines of a text: without numbers, names of tasks, bars, spaces of columns, order."""
    found = set()
    for line in text.splitlines():
        line = re.sub(r"=*-{6,}|={6,}-*", "", line)
        line = re.sub("|".join(TASKS), "TASK", line)
        line = re.sub(r"\d[\d.,:/_e-]*", "0", line)
        line = re.sub(r"0 (s|min|h 0 min|秒|分钟|小时 0 分)(?!\w)", "0 s", line)  # as a time is long or short
        found.add(" ".join(line.split()))
    return sorted(found - {""})


def of_terminal(command: str, markup: str, text: str) -> Picture:
    """A terminal of 80 columns, in which a wide character takes two.

    Args:
        markup: what the command has printed, as HTML.
        text: the same without colours.
    """
    shown = f"<b>$ {html.escape(command)}</b>\n\n{markup}"
    shown = re.sub(r"[\u2e80-\ua4cf\uac00-\ud7a3\uf900-\ufaff\ufe30-\ufe4f\uff00-\uff60]", r"<i>\g<0></i>", shown)
    height = _LINE * (text.count("\n") + 3) + _MARGIN
    return Picture(_TERMINAL.format(text=shown), f"$ {command}\n\n{text}", round(COLUMNS * 9.64) + 40, height)


def of_page(source: str, width: int, height: int) -> Picture:
    """The upper part of a page that the project has written, without what is cut."""
    parser = _Labels()
    parser.feed(source)
    labels = [" ".join("".join(label).split()) for label in parser.labels]
    return Picture(source.replace("</head>", CUT), "\n".join(labels), width, height)


class _Labels(HTMLParser):
    """Collects what a page says beside records: headings, captions, names of columns, explanations."""

    def __init__(self) -> None:
        super().__init__()
        self.labels: list[list[str]] = []
        self._within = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if not self._within and (tag in _LABELS or (tag == "th" and ("scope", "col") in attrs)):
            self._within = tag
            self.labels.append([])

    def handle_endtag(self, tag: str) -> None:
        if tag == self._within:
            self._within = ""

    def handle_data(self, data: str) -> None:
        if self._within:
            self.labels[-1].append(data)


def quickstarts(languages: Sequence[str], log: Path | None = None) -> Iterator[Picture]:
    """Of what the quickstart prints the first time, without what it installs; the folder demo is made anew."""
    for tongue in languages:
        if not log:
            shutil.rmtree(TOP / "demo", ignore_errors=True)
        text = log.read_text(encoding="utf-8") if log else _run(["scripts/quickstart.sh"], TOP, tongue)
        text = "\n".join(line for line in text.splitlines() if not line.startswith(SET_UP)).strip()
        yield of_terminal("bash scripts/quickstart.sh", html.escape(text), text)


def searches(languages: Sequence[str]) -> Iterator[Picture]:
    """Of a search of the demo model in its midst, the same moment in each language."""
    with _workplace() as folder:
        seen = watch(folder / "results/model", folder)
    for tongue in languages:
        yield of_search(seen, tongue)


def of_search(seen: progress.Progress, tongue: str) -> Picture:
    """The screen of a search."""
    console = Console(file=io.StringIO(), record=True, force_terminal=True, width=COLUMNS, highlight=False)
    with language.using(tongue):
        console.print(screen.render("model", seen))
    text = "\n".join(map(str.rstrip, console.export_text(clear=False).rstrip().splitlines()))
    markup = console.export_html(theme=SVG_EXPORT_THEME, code_format="{code}", inline_styles=True)
    return of_terminal("bash scripts/report.sh demo/model --watch", markup, text)


def watch(folder: Path, place: Path) -> progress.Progress:
    """Start a search in a place with the demo, stop it in its midst, and return what it was at.

    Args:
        folder: where it leaves the trials' records.

    Raises:
        UserError: it ended before that.
    """
    with open(place / "search.log", "w") as log:
        search = subprocess.Popen(_words(SEARCH), cwd=place, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    reader = progress.Reader(folder)
    try:
        while search.poll() is None:
            time.sleep(0.5)
            if not (folder / "plan.json").is_file():
                continue
            seen = reader.read()
            if is_telling(seen):
                return seen
    finally:
        search.terminate()  # what runs ends with a checkpoint
        search.wait()
    raise UserError("the search ended unseen; its log:\n" + (place / "search.log").read_text(encoding="utf-8"))


def is_telling(seen: progress.Progress) -> bool:
    """Whether a search is in its midst: half has ended, all that runs has begun to learn, each task has a score."""
    is_learning = seen.running and all(state.step and state.loss for state in seen.running)
    is_half = seen.num_ended >= len(seen.states) // 2 and seen.seconds_left is not None
    return bool(is_learning and is_half and len(seen.best()) == len(SEARCHED))


def reports(languages: Sequence[str]) -> Iterator[Picture]:
    """Of the page on a made-up search."""
    row = next(row for row in published.PUBLISHED_MODELS if row.name == MODEL)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / Path(row.name).name
        make_search(folder, row, random.Random(0))
        for tongue in languages:
            with language.using(tongue):
                source = page.to_html(collect.read_models([str(folder)], Path(scratch)))
            yield of_page(source, 1080, 1900)


def mistakes(languages: Sequence[str]) -> Iterator[Picture]:
    """Of the page on what a short training gets wrong."""
    with _workplace() as folder:
        _run(TRAINING, folder)
        for tongue in languages:
            _run(["scripts/errors.py", "models/tnews", "--num", "5"], folder, tongue)
            yield of_page((folder / "models/tnews/errors.html").read_text(encoding="utf-8"), 1080, 1560)


# The pictures, each of them a function of the languages, one picture a language.
NAMES: dict[str, Callable[[Sequence[str]], Iterator[Picture]]] = {
    "quickstart": quickstarts,
    "search": searches,
    "report": reports,
    "mistakes": mistakes,
}


@contextlib.contextmanager
def _workplace() -> Iterator[Path]:
    """A folder in which the demo of the project's top folder is found, which is made if need be."""
    _run(["scripts/make_demo.py", "--output", "demo"], TOP)
    with tempfile.TemporaryDirectory() as scratch:
        (Path(scratch) / "demo").symlink_to(TOP / "demo")
        yield Path(scratch)


def _words(command: Sequence[str]) -> list[str]:
    program = "bash" if command[0].endswith(".sh") else sys.executable
    return [program, str(TOP / command[0]), *command[1:]]


def _run(command: Sequence[str], place: Path, tongue: str = "en") -> str:
    """What a script of the project prints.

    Raises:
        UserError: it fails.
    """
    environment = os.environ | {language.VARIABLE: tongue, "COLUMNS": str(COLUMNS)}
    done = subprocess.run(
        _words(command), cwd=place, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True
    )
    if done.returncode:
        raise UserError(f"{command[0]} ended with status {done.returncode}")
    return done.stdout


if __name__ == "__main__":
    cli.run(main)

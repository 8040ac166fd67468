#!/usr/bin/env python
"""Write what the registry and the scripts know into the READMEs and the pages of docs/, each in its own language.

Each table stands between a pair of comments such as <!-- scores --> and <!-- /scores -->, in one page of each language.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from check_links import twin
from clue_utils import cli, published, tasks
from clue_utils import language as languages
from clue_utils.errors import UserError
from clue_utils.files import write_text_atomically
from clue_utils.report.collect import setting_text
from clue_utils.report.render import markdown_table
from clue_utils.settings import GROUPS, Flag, Lookup, Settings
from clue_utils.training.cloze import ChidSettings
from clue_utils.training.span import Cmrc2018Settings

TOP = Path(__file__).resolve().parents[2]
LANGUAGES = ("zh", "en")
# Flags, variables, files, and names that hold <task>.
_CODE = re.compile(
    r"((?<![\w-])--[a-z_]+|\$[A-Z_]+|\w*<task>[\w.]*|[\w/]*\.(?:csv|jsonl?|onnx|txt)\b|\b[a-z]+/(?!\w))", re.ASCII
)
# What each task is about, which the registry need not know.
TOPICS = {
    "AFQMC": ("语义相似度", "similar questions"),
    "TNEWS": ("新闻标题分类", "news titles"),
    "IFLYTEK": ("应用描述分类", "descriptions of apps"),
    "CMNLI": ("自然语言推理", "inference"),
    "OCNLI": ("自然语言推理", "inference"),
    "CLUEWSC2020": ("代词消歧", "what a pronoun stands for"),
    "CSL": ("论文关键词识别", "keywords of papers"),
    "CMRC2018": ("抽取式阅读理解", "answers found in a text"),
    "CHID": ("成语完形填空", "idioms to fill in"),
    "C3": ("多项选择阅读理解", "multiple choice"),
}
# Headings of tables: Chinese and English.
WORDS = {
    "model": ("模型", "model"),
    "size": ("规模", "size"),
    "task": ("任务", "task"),
    "about": ("内容", "about"),
    "metric": ("指标", "metric"),
    "epochs": ("轮数", "epochs"),
    "length": ("最大长度", "length"),
    "warm-up": ("预热比例", "warm-up"),
    "cards": ("卡数", "cards"),
    "learning rates": ("学习率", "learning rates"),
    "batch sizes": ("batch size", "batch sizes"),
    "dropout": ("dropout", "dropout"),
    "evaluated": ("评估间隔", "evaluated"),
    "address": ("下载地址", "address"),
    "MB": ("大小（MB）", "MB"),
    "folder": ("解压到", "unpack into"),
    "flag": ("参数", "flag"),
    "meaning": ("含义", "meaning"),
}


def words(language: str, *names: str) -> list[str]:
    return [WORDS[name][LANGUAGES.index(language)] for name in names]


def scores(language: str) -> str:
    """The published scores: accuracy, and EM/F1 of the looser metric for CMRC2018, in percent."""
    rows = []
    for model in published.PUBLISHED_MODELS:
        cells = [
            f"{score.value:.2f}" + (f"/{score.f1:.2f}" if score.f1 is not None else "")
            for score in model.scores.values()
        ]
        rows.append([f"`{model.name}`", model.config, f"{model.average:.2f}", *cells])
    return markdown_table([*words(language, "model", "size"), "AVG", *tasks.TASKS], rows)


def hyper_parameters(language: str) -> str:
    """Learning rate and batch size, and dropout where the grid searches it, of the published scores."""
    searched = {task.name for task in tasks.TASKS.values() if len(task.dropouts) > 1}
    rows = [
        [f"`{model.name}`", *(setting_text(best, task in searched) for task, best in model.best_runs.items())]
        for model in published.PUBLISHED_MODELS
    ]
    return markdown_table([*words(language, "model"), *tasks.TASKS], rows)


def settings_of_tasks(language: str) -> str:
    """What every published run of a task has in common, what the grid searches, and how often is evaluated."""
    every, epoch = ("每 {} 步", "每个 epoch") if language == "zh" else ("every {} steps", "each epoch")
    accuracy = "准确率" if language == "zh" else "accuracy"
    rows = []
    for task in tasks.TASKS.values():
        rates = [cli.short_exponent(f"{rate:g}") for rate in task.learning_rates]
        rows.append(
            [
                *(task.name, TOPICS[task.name][LANGUAGES.index(language)], "EM" if task.metric == "em" else accuracy),
                *(str(task.num_train_epochs), str(task.max_seq_length), f"{task.warmup_proportion:g}"),
                *(str(task.num_gpus), ", ".join(rates), ", ".join(map(str, task.batch_sizes))),
                *(", ".join(f"{dropout:g}" for dropout in task.dropouts),),
                every.format(task.save_steps) if task.save_steps else epoch,
            ]
        )
    names = ("task", "about", "metric", "epochs", "length", "warm-up", "cards", "learning rates", "batch sizes")
    return markdown_table(words(language, *names, "dropout", "evaluated"), rows)


def archives(language: str) -> str:
    """Where each task's data is downloaded from, its size, and the folder that holds it."""
    rows = []
    for task in (*tasks.TASKS.values(), tasks.DIAGNOSTICS):
        size = "–" if task.archive.num_bytes is None else f"{task.archive.num_bytes / 1e6:.2f}"
        rows.append([task.name, *(f"<{url}>" for url in task.archive.urls), size, f"`{task.folder}/`"])
    return markdown_table(words(language, "task", "address", "MB", "folder"), rows)


def kinds() -> dict[str, type[Settings]]:
    """Script -> its settings, of the four plain scripts."""
    for folder in ("classification", "mrc"):
        sys.path.insert(0, str(TOP / folder))
    import run_clue_classifier

    return {
        "run_clue_classifier.py": run_clue_classifier.ClassifierSettings,
        "run_c3.py": Settings,
        "run_chid.py": ChidSettings,
        "run_cmrc2018.py": Cmrc2018Settings,
    }


def marked(text: str) -> str:
    """A text of ``--help`` with what is typed or named in code's letters; Markdown would take <task> for a tag."""
    return text if "`" in text else _CODE.sub(r"`\1`", text)


def said(english: str, language: str) -> str:
    """A text of ``--help`` in a language."""
    with languages.using(language):
        return marked(languages.say(english))


def meaning(flag: Flag, language: str) -> str:
    """What a flag does, the words it takes and its default."""
    text = said(flag.help, language)
    if isinstance(flag.takes, tuple):
        either = ("、" if language == "zh" else ", ").join(f"`{word}`" for word in flag.takes)
        text = f"{either}。{text}" if language == "zh" else f"{either}: {text}"
    if flag.default in (None, ()) or isinstance(flag.default, bool) or "(default: " in flag.help:
        return text
    default = said(flag.default.words, language) if isinstance(flag.default, Lookup) else f"`{flag.default}`"
    return f"{text}（默认：{default}）" if language == "zh" else f"{text} (default: {default})"


def flags(language: str) -> str:
    """Every flag of the four scripts below the headings of ``--help``; what one script alone has names it."""
    found: dict[str, dict[str, Flag]] = {}
    owners: dict[str, list[str]] = {}
    for script, kind in kinds().items():
        for group, its in kind.flags_by_group().items():
            found.setdefault(group, {}).update(its)
            for name in its:
                owners.setdefault(name, []).append(f"`{script}`")
    parts: list[str] = []
    brackets = "（{}）" if language == "zh" else " ({})"
    for group, its in found.items():
        rows = []
        for name, flag in its.items():
            only = "" if len(owners[name]) == len(kinds()) else brackets.format(", ".join(owners[name]))
            rows.append([f"`--{name}`", meaning(flag, language) + only])
        heading = said(group, language) if group in GROUPS else group
        below = GROUPS.get(group)
        parts += [f"## {heading[0].upper()}{heading[1:]}\n", *([said(below, language) + "\n"] if below else [])]
        parts.append(markdown_table(words(language, "flag", "meaning"), rows))
    return "\n".join(parts)


# Table -> what makes it, and the page that it stands in, by its name in Chinese.
TABLES: dict[str, tuple[Callable[[str], str], str]] = {
    "scores": (scores, "README.md"),
    "tasks": (settings_of_tasks, "README.md"),
    "hyper_parameters": (hyper_parameters, "docs/results.md"),
    "archives": (archives, "docs/data.md"),
    "flags": (flags, "docs/flags.md"),
}


def updated(text: str, path: Path, names: Sequence[str], language: str) -> str:
    """A page with its tables as they should be.

    Raises:
        UserError: a table has no place in it.
    """
    for name in names:
        pattern = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
        if not pattern.search(text):
            raise UserError(f"{path}: no place for a table: put <!-- {name} --> and <!-- /{name} --> into it")
        content = TABLES[name][0](language)
        text = pattern.sub(lambda found, content=content: f"{found[1]}{content}{found[2]}", text)  # type: ignore[misc]
    return text


def main(argv: list[str] | None = None) -> None:
    parser = cli.Parser(description=__doc__, epilog="example: python scripts/dev/readme_tables.py --check")
    parser.add_argument("--check", action="store_true", help="write nothing, fail where a table is not up to date")
    args = parser.parse_args(argv)
    for page in dict.fromkeys(page for _, page in TABLES.values()):
        names = [name for name, (_, place) in TABLES.items() if place == page]
        for language, name in zip(LANGUAGES, (page, twin(page)), strict=True):
            path = TOP / name
            text = path.read_text(encoding="utf-8")
            new = updated(text, path, names, language)
            if new == text:
                continue
            if args.check:
                raise UserError(f"{name} is not up to date: run python scripts/dev/readme_tables.py")
            write_text_atomically(path, new)
            print(f"{name} brought up to date")


if __name__ == "__main__":
    cli.run(main)

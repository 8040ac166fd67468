"""What people read is said in their language: the catalogue is complete, and chosen by CLUE_LANG and the locale."""

from __future__ import annotations

import ast
import io
import os
import re
import signal
import string
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

import catalogue
import grid_search
import list_trials
import predict_and_zip
import run_clue_classifier
from clue_utils import cli, commands, device, environment, language, project, published, strict_json
from clue_utils.columns import display_width, wrapped
from clue_utils.errors import Stopped, UserError, ending_of
from clue_utils.grid import trial
from clue_utils.language import say

TOP = Path(__file__).resolve().parents[1]
# What makes a line of an error: its text is a user's to read.
_ERRORS = (
    "UserError",
    "HTTPException",
    "ArgumentTypeError",
    "Ending",
    "error",
    "refusal",
    "_FieldError",
    "_Wrong",
    "NotJson",
)
_CHINESE = re.compile(r"[\u4e00-\u9fff]")


@pytest.fixture(scope="module")
def said() -> dict[str, str]:
    return catalogue.texts()


def test_everything_that_is_said_has_a_translation_and_nothing_else(said):
    assert [text for text in said if text not in language.catalogue()] == []
    is_up_to_date = catalogue.updated(said) == language.CATALOGUE.read_text(encoding="utf-8")
    assert is_up_to_date, "run scripts/dev/catalogue.py"  # without a comparison line by line, which takes long
    assert len(said) > 900


def fields(text: str) -> set[tuple[str | None, ...]]:
    """What stands in braces and behind percent signs of a text."""
    found: set[tuple[str | None, ...]] = {part[1:] for part in string.Formatter().parse(text) if part[1]}
    return found | {(word,) for word in re.findall(r"%(?:\(\w+\))?[srd]", text)}


def test_translations_keep_every_value_and_the_names_of_flags():
    for english, chinese in language.catalogue().items():
        if not english.startswith("examples:"):
            assert fields(english) == fields(chinese), english
        assert {*re.findall(r"--[a-z]\w+", chinese)} == {*re.findall(r"--[a-z]\w+", english)}, english
        assert english.endswith("\n") == chinese.endswith("\n"), english


def bare_texts(path: Path) -> list[str]:
    """Words that errors are given as they stand, which would be English for all."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        name = getattr(node.func, "attr", getattr(node.func, "id", "")) if isinstance(node, ast.Call) else ""
        if name not in _ERRORS:
            continue
        for text in node.args[1:2] if name in ("_FieldError", "_Wrong", "HTTPException") else node.args[:1]:
            parts = text.values if isinstance(text, ast.JoinedStr) else [text]
            words = "".join(str(part.value) for part in parts if isinstance(part, ast.Constant))
            found += [f"{path.name}:{node.lineno}: {words}"] if re.search("[A-Za-z]{2}", words) else []
    return found


def test_every_error_is_said_by_the_catalogue():
    paths = [path for folder in catalogue.FOLDERS for path in (TOP / folder).rglob("*.py")]
    told = [path for path in paths if not path.relative_to(TOP).as_posix().startswith(catalogue.NOT_TRANSLATED)]
    assert [text for path in told for text in bare_texts(path)] == []


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, "en"),
        ({"LANG": "zh_CN.UTF-8"}, "zh"),
        ({"LANG": "zh_TW"}, "zh"),
        ({"LANG": "en_US.UTF-8"}, "en"),
        ({"LC_MESSAGES": "zh_CN", "LANG": "en_US.UTF-8"}, "zh"),
        ({"LC_ALL": "C", "LC_MESSAGES": "zh_CN", "LANG": "zh_CN"}, "en"),
        ({"LC_ALL": "", "LANG": "zh_CN"}, "zh"),
        ({"CLUE_LANG": "zh", "LC_ALL": "C"}, "zh"),
        ({"CLUE_LANG": "en", "LC_ALL": "zh_CN.UTF-8"}, "en"),
        ({"CLUE_LANG": "en", "LANGUAGE": "zh", "LANG": "zh_CN"}, "en"),
        ({"LANGUAGE": "zh_CN:en", "LANG": "en_US.UTF-8"}, "zh"),
        ({"LANGUAGE": "en:zh", "LC_ALL": "zh_CN.UTF-8"}, "en"),
        ({"LANGUAGE": "fr:zh", "LANG": "fr_FR.UTF-8"}, "zh"),
        ({"LANGUAGE": "zh", "LANG": "C.UTF-8"}, "en"),
        ({"LANGUAGE": "zh"}, "en"),
    ],
)
def test_the_language_is_chosen_by_clue_lang_then_as_gettext_does(variables, expected, monkeypatch):
    for name in (language.VARIABLE, "LANGUAGE", "LC_ALL", "LC_MESSAGES", "LANG"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert language.current() == expected
    with language.using("zh"):
        assert say("task") == "任务"
    of_shells = subprocess.run(["bash", "-c", "source scripts/language.sh; say en zh"], cwd=TOP, stdout=subprocess.PIPE)
    assert of_shells.stdout.decode().strip() == expected


def test_english_takes_no_catalogue_and_what_it_lacks_is_english(chinese, monkeypatch):
    assert say("of {who} only", who="ours") == "of ours only" and say("{} stays {") == "{} stays {"
    monkeypatch.setenv("CLUE_LANG", "en")
    monkeypatch.setattr(language, "catalogue", lambda: pytest.fail("read"))
    assert say("task") == "task"


@pytest.mark.parametrize("script", catalogue.scripts(), ids=lambda path: path.stem)
@pytest.mark.parametrize("columns", [80, 120])
def test_help_is_chinese_and_fits_the_terminal(script, columns, chinese, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(columns))
    shown = catalogue.show_help(script)
    lines = shown.splitlines()
    assert lines[0].startswith("用法：") and "选项：" in lines and "显示本帮助并退出" in shown
    assert "default" not in shown and "example:" not in shown
    wide = [line for line in lines if display_width(line) > columns]
    assert [line for line in wide if not re.match(r"示例：|  +(python |bash |clue |--)", line)] == []  # to be copied
    assert not [line for line in lines if re.match(r" *[，。；、）]", line)]


def test_the_list_of_commands_is_chinese_and_fits_the_terminal(chinese, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    lines = commands.listing().splitlines()
    named = [line for line in lines if re.match(r"  \w", line)]
    assert [line.split()[0] for line in named] == [*project.COMMANDS, "where"]
    assert [line for line in named if not _CHINESE.search(line)] == []
    assert all(display_width(line) <= 80 for line in lines)


def test_help_is_english_else(monkeypatch):
    for script in catalogue.scripts():
        shown = catalogue.show_help(script).replace("国产新能源汽车出口增长", "")
        assert shown.startswith("usage: ") and not _CHINESE.search(shown)


@pytest.mark.parametrize(
    ("script", "words", "expected"),
    [
        (run_clue_classifier, "--task_name TNEWS", "缺少必需的参数：--model_name_or_path（--help 列出全部参数）"),
        (run_clue_classifier, "--model_nam x", "未知参数 '--model_nam'：是否想输入 --model_name_or_path？"),
        (run_clue_classifier, "--batch_size", "参数 --batch_size：需要一个值"),
        (run_clue_classifier, "--batch_size 0", "参数 --batch_size：'0' 不是不小于 1 的整数"),
        (run_clue_classifier, "--device tpu", "参数 --device：无效的取值 'tpu'（可选：'gpu', 'xpu', 'cpu'）"),
        (run_clue_classifier, "--ensemble", "参数 --ensemble：至少需要一个值"),
        (run_clue_classifier, "--model_name_or_path m", "请用 --task_name 指定 CLUE 的一个任务"),
        (
            run_clue_classifier,
            "--model_name_or_path m --task_name C3",
            "--task_name C3 是阅读理解任务：",
        ),
        (run_clue_classifier, "--model_name_or_path m --task_name x", "未知任务 'x'：请选择 AFQMC, "),
        (run_clue_classifier, "--model_name_or_path m --task_name TNEWS", "没有要执行的操作：请指定 --do_train、"),
        (grid_search, "", "未指定模型：bash scripts/grid_search.sh MODEL"),
        (grid_search, "m --hosts nowhere", "--hosts nowhere：文件不存在"),
        (grid_search, "m --gpus x,", "参数 --gpus：x,：请写成 0,1,2,3 这样的编号"),
        (list_trials, "--tasks X", "未知任务 'X'"),
        (list_trials, "m --published", "--published：m 没有公开得分，只有 "),
        (predict_and_zip, "nowhere", "nowhere：目录不存在"),
    ],
)
def test_mistakes_are_told_in_one_line_of_chinese(script, words, expected, chinese, run_script):
    status, _, error = run_script(script.main, *words.split())
    assert status == 2 and error.count("\n") == 1 and error.startswith(f"error: {expected}"), error


def test_endings_are_told_in_chinese(chinese):
    assert ending_of(Stopped(15)).reason == "因 SIGTERM 停止；再次运行相同的命令即可继续"
    assert ending_of(MemoryError()).reason == "内存或显存不足（没有详细信息）"
    assert cli.duration(11100) == "3 小时 5 分"


@pytest.mark.parametrize("chosen", language.LANGUAGES)
def test_why_gpus_cannot_be_used_is_found_in_what_a_program_has_said(chosen, monkeypatch):
    monkeypatch.setattr(device, "_num_cards", lambda kind: 0)
    with language.using(chosen):
        with pytest.raises(UserError) as caught:
            device.set_device("gpu")
        reason = trial.reason_of(f"something\nerror: {caught.value}\n")
        assert reason == environment.why_no_card("gpu", device._is_built_for("gpu"))
        assert bool(_CHINESE.search(reason)) == (chosen == "zh")


def test_what_is_wrong_with_json_is_told_in_chinese(chinese):
    with pytest.raises(strict_json.NotJson, match="^不是 JSON（第 2 列：键应为双引号括起的字符串）$"):
        strict_json.parse(b"{")


def test_a_terminal_that_cannot_show_a_character_shows_its_number(monkeypatch):
    shown = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(shown, encoding="ascii", write_through=True))
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    cli.run(lambda: print("得分 a"))
    assert shown.getvalue() == rb"\u5f97\u5206 a" + os.linesep.encode()


def test_paragraphs_are_as_wide_as_a_terminal_and_whole_in_a_file(monkeypatch):
    text = "得分为百分制，" * 12
    monkeypatch.setenv("COLUMNS", "40")
    assert cli.for_terminal(text) == text
    monkeypatch.setattr(sys, "stdout", SimpleNamespace(isatty=lambda: True))
    lines = cli.for_terminal(text).splitlines()
    assert "".join(lines) == text and max(map(display_width, lines)) <= 40


@pytest.mark.parametrize("columns", [7, 20, 44, 80])
def test_lines_are_cut_by_their_width(columns):
    text = "a word or two 然后是中文，没有空格的（和括号） and English again，--a_long_flag/of/a/path 等。" * 3
    lines = [*wrapped(text, columns)]
    assert all(display_width(part) <= columns for part in lines)
    assert "".join(lines).replace(" ", "") == text.replace(" ", "")
    assert not [line for line in lines if line[0] in "，。）"]
    assert display_width("中a，") == 5


def test_a_program_of_its_own_follows_the_locale_without_importing_paddle():
    """As a user starts it, in a terminal of a Chinese system."""
    variables = {name: value for name, value in os.environ.items() if name not in (language.VARIABLE, "LC_ALL")}
    variables |= {"LANG": "zh_CN.UTF-8", "PYTHONPATH": str(TOP), "PYTHONIOENCODING": "utf-8"}
    code = "import sys, run_c3\ntry: run_c3.main(['--hel'])\nfinally: assert 'paddle' not in sys.modules"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=TOP / "mrc", env=variables, capture_output=True, text=True, encoding="utf-8"
    )
    assert done.returncode == 2 and done.stderr.startswith("error: 未知参数 '--hel'"), done.stderr


def test_names_of_published_rates_in_help_are_those_of_the_registry(said):
    """The one help that names a number of the code."""
    assert f"the model's best; with --lora_rank {published.LORA_LEARNING_RATE:.0e}" in said

"""The submission checker: broken zips are named rightly, a good one passes."""

from __future__ import annotations

import json
import re
import stat
import subprocess
import sys
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import check_submission
from clue_utils.columns import display_width
from clue_utils.errors import UserError
from clue_utils.leaderboard import check_file, check_zip, file_names, write
from clue_utils.tasks import DIAGNOSTICS
from demo.records import make_data, sizes_for

TOP = Path(__file__).parents[2]
Files = dict[str, bytes]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    make_data(folder, sizes=sizes_for(32))
    return folder


@pytest.fixture(scope="module")
def good(data: Path) -> Files:
    """All fourteen files for the demo's test sets."""
    files = {}
    for name, (task, split) in file_names.submission_files().items():
        ids, _ = file_names.expected_ids(task, split, data)
        assert ids is not None
        label = {"classification": task.labels[:1], "multiple_choice": [1], "span": ["甲"], "cloze": [3]}[task.kind][0]
        answers: Any = [(id_, label) for id_ in ids]
        if task.kind in ("span", "cloze"):
            answers = dict(answers)
        files[name] = write.format_predictions(task, answers).encode()
    return files


def write_zip(path: Path, files: Files | list[tuple[str, bytes]]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items() if isinstance(files, dict) else files:
            archive.writestr(name, content)
    return path


def changed(name: str, change: Callable[[bytes], bytes]) -> Callable[[Files], Files]:
    return lambda files: files | {name: change(files[name])}


def replaced(name: str, old: bytes, new: bytes) -> Callable[[Files], Files]:
    def change(content: bytes) -> bytes:
        assert old in content
        return content.replace(old, new, 1)

    return changed(name, change)


def lines_of(name: str, change: Callable[[list[bytes]], list[bytes]]) -> Callable[[Files], Files]:
    return changed(name, lambda content: b"".join(line + b"\n" for line in change(content.splitlines())))


def renamed(old: str, new: str) -> Callable[[Files], Files]:
    return lambda files: {new if name == old else name: content for name, content in files.items()}


def edited(name: str, change: Callable[[dict[str, Any]], dict[str, Any]]) -> Callable[[Files], Files]:
    return changed(name, lambda content: json.dumps(change(json.loads(content)), indent=4).encode())


def without_first(answers: dict[str, Any]) -> dict[str, Any]:
    return dict(list(answers.items())[1:])


def added(name: str, content: bytes = b"{}") -> Callable[[Files], Files]:
    return lambda files: files | {name: content}


TNEWS, OCNLI, C3, CMRC, CHID = (
    "tnews11_predict.json",
    "ocnli_50k_predict.json",
    "c311_predict.json",
    "cmrc2018_predict.json",
    "chid11_predict.json",
)
BROKEN: dict[str, tuple[Callable[[Files], Files], str]] = {
    "half a pair": (
        lambda files: {name: text for name, text in files.items() if name != "tnews10_predict.json"},
        f"tnews10_predict.json: missing, although {TNEWS} is there",
    ),
    "name: ocnli": (renamed(OCNLI, "ocnli_predict.json"), f"ocnli_predict.json: not a file name.*; name it {OCNLI}"),
    "name: plain copy": (added("tnews_predict.json"), f"tnews_predict.json: .*plain copy of {TNEWS}: leave it out"),
    "name: wsc": (added("wsc_predict.json"), "wsc_predict.json: .*; name it cluewsc11_predict.json"),
    "name: capitals": (renamed("csl_predict.json", "CSL_predict.json"), "CSL_predict.json: .*name it csl_predict.json"),
    "name: typing error": (
        renamed("afqmc_predict.json", "afqmc_predcit.json"),
        "afqmc_predcit.json: .*did you mean afqmc_predict.json",
    ),
    "name: a baseline's": (added("test_prediction.json"), "test_prediction.json: not a file name of the leaderboard"),
    "in a folder": (renamed(TNEWS, f"submit/{TNEWS}"), f"submit/{TNEWS}: in a folder; put the file at the top level"),
    "a folder": (added("submit/", b""), "submit/: a folder; put the files at the top level"),
    "path leads out": (renamed(TNEWS, f"../{TNEWS}"), f"../{TNEWS}: a path that leads out of the zip"),
    "mac rubbish": (added(f"__MACOSX/._{TNEWS}", b"\0"), f"__MACOSX/._{TNEWS}: left behind by an operating system"),
    "byte order mark": (changed(TNEWS, lambda c: b"\xef\xbb\xbf" + c), f"{TNEWS}:1: begins with a byte order mark"),
    "not UTF-8": (replaced(CMRC, "甲".encode(), "甲".encode("gbk")), f"{CMRC}:2: not UTF-8"),
    "empty file": (changed(TNEWS, lambda c: b""), f"{TNEWS}: empty"),
    "blank line": (lines_of(TNEWS, lambda ls: [*ls[:2], b"", *ls[2:]]), f"{TNEWS}:3: blank line"),
    "a line without id": (
        lines_of(TNEWS, lambda ls: [*ls, b'{"label": "100"}']),
        f'{TNEWS}:.*no "id"',
    ),
    "array": (
        changed(TNEWS, lambda c: json.dumps([json.loads(line) for line in c.splitlines()]).encode()),
        f"{TNEWS}:1: .*JSON array for the whole file",
    ),
    "single object": (changed(TNEWS, lambda c: b'{"0": "102"}\n'), f"{TNEWS}:1: .*single object for the whole file"),
    "cut off": (changed(TNEWS, lambda c: c[:-9]), rf"{TNEWS}:4: not JSON"),
    "NaN": (replaced(TNEWS, b'"label": "100"', b'"label": NaN'), f"{TNEWS}:1: not JSON .NaN is not a JSON number"),
    "repeated key": (replaced(TNEWS, b'"id": 0', b'"id": 0, "id": 0'), f"{TNEWS}:1: key 'id' occurs twice"),
    "not an object": (
        replaced(TNEWS, b'{"id": 1, "label": "100"}', b"[1, 2]"),
        rf"{TNEWS}:2: \[1, 2\] is not an object",
    ),
    "carriage return": (replaced(TNEWS, b"\n", b"\r\r\n"), f"{TNEWS}:1: a carriage return within the line"),
    "no label": (replaced(TNEWS, b', "label": "100"', b""), f'{TNEWS}:1: .*no "label"'),
    "unknown label": (replaced(TNEWS, b'"100"', b'"105"'), f"{TNEWS}:1: label '105' is not one of TNEWS's"),
    "number for label": (replaced(TNEWS, b'"100"', b"100"), f'{TNEWS}:1: label 100 is not a text: write "100"'),
    "class index": (replaced(OCNLI, b'"entailment"', b"0"), f'{OCNLI}:1: label 0 .*position of "entailment"'),
    "boolean": (
        replaced("cluewsc11_predict.json", b'"true"', b"true"),
        'cluewsc11_predict.json:1: label True is not a text: write "true"',
    ),
    "choice as text": (replaced(C3, b'"label": 1', b'"label": "1"'), f"{C3}:1: label '1' is a text: write 1 without"),
    "boolean choice": (replaced(C3, b'"label": 1', b'"label": true'), f"{C3}:1: label True is not 0 to 3"),
    "fifth choice": (replaced(C3, b'"label": 1', b'"label": 4'), f"{C3}:1: label 4 is not 0 to 3"),
    "text for id": (replaced(TNEWS, b'"id": 0', b'"id": "0"'), f"{TNEWS}:1: id '0' is not an integer"),
    "repeated id": (replaced(TNEWS, b'"id": 1', b'"id": 0'), f"{TNEWS}:2: id 0 occurs twice, first in line 1"),
    "unknown id": (replaced(TNEWS, b'"id": 1', b'"id": 999'), f"{TNEWS}:2: id 999 is not in the test file"),
    "missing line": (lines_of(TNEWS, lambda ls: ls[1:]), f"{TNEWS}: id 0 is missing"),
    "wrong order": (lines_of(TNEWS, lambda ls: ls[::-1]), f"{TNEWS}:1: id 3 stands where the test file has 0: 4 lines"),
    "tag missing": (edited(CHID, without_first), f"{CHID}: tag '#idiom.*#' of the test file is missing"),
    "tag too many": (edited(CHID, lambda a: a | {"#idiom9#": 1}), f"{CHID}: tag '#idiom9#' is not in the test file"),
    "eleventh idiom": (edited(CHID, lambda a: a | {next(iter(a)): 10}), f"{CHID}:2: answer 10 is not 0 to 9"),
    "question missing": (edited(CMRC, without_first), f"{CMRC}: question id '.*' of the test file is missing"),
    "question too many": (edited(CMRC, lambda a: a | {"X": "甲"}), f"{CMRC}: question id 'X' is not in the test file"),
    "empty answer": (edited(CMRC, lambda a: a | {next(iter(a)): " "}), f"{CMRC}:2: answer is empty"),
    "number for an answer": (edited(CMRC, lambda a: a | {next(iter(a)): 3}), f"{CMRC}:2: answer 3 is not a text"),
    "array for object": (changed(CMRC, lambda c: b"[]"), f"{CMRC}:1: not one JSON object .* but a JSON array"),
    "lines for object": (changed(CMRC, lambda c: b'{"a": "b"}\n{"c": "d"}\n'), f"{CMRC}:1: not one JSON object"),
    "question twice": (replaced(CMRC, b"QUERY_1", b"QUERY_0"), f"{CMRC}:3: key '.*' occurs twice"),
}


def run_check(run_script: Any, path: Path, data: Path) -> tuple[list[str], list[str]]:
    """Problems and notes; the script's status says the same, and it prints nothing else on them."""
    status, out, err = run_script(check_submission.main, path, "--data_dir", data)
    lines = out.splitlines()
    notes = [line for line in lines if line.startswith("note: ")]
    if status == 0:
        assert not err
        return [], notes
    problems = [line for line in lines if line not in notes]
    number = f"{len(problems)} problem{'s' if len(problems) > 1 else ''}"
    assert (status, err) == (2, f"error: {path}: {number}, listed above; do not submit it\n")
    return problems, notes


def names(problems: list[str], pattern: str) -> bool:
    return any(re.match(pattern, problem) for problem in problems)


@pytest.mark.parametrize("case", BROKEN)
def test_what_is_wrong_is_named(tmp_path, data, good, run_script, case):
    change, pattern = BROKEN[case]
    problems, _ = run_check(run_script, write_zip(tmp_path / "submit.zip", change(good)), data)
    assert names(problems, pattern), problems
    expected = {"half a pair": 1, "name: plain copy": 1, "not UTF-8": 1, "number for label": 1, "wrong order": 1}
    assert len(problems) == expected.get(case, len(problems))


def test_a_good_zip_passes_with_a_table(tmp_path, data, good, run_script):
    path = write_zip(tmp_path / "submit.zip", good)
    status, out, err = run_script(check_submission.main, path, "--data_dir", data)
    assert (status, err) == (0, "")
    lines = [line for line in out.splitlines() if not line.startswith("note: ")]
    assert len(lines) == 1 + 14 + 1 and lines[-1] == f"{path}: 14 files, no problem found"
    assert any(line.split() == ["TNEWS", "test1.1", "4", TNEWS, "ids", "of", "test.json"] for line in lines)


def test_of_ids_that_are_missing_in_a_row_one_line_tells(tmp_path, data, good, run_script):
    lines = good[TNEWS].splitlines(keepends=True)
    path = write_zip(tmp_path / "submit.zip", good | {TNEWS: b"".join(lines[:1])})
    problems, _ = run_check(run_script, path, data)
    assert f"{TNEWS}: ids 1 to 3 are missing, 3 in all" in problems and len(problems) == 2


def test_a_zip_of_other_data_than_the_official_is_told_of_its_flag(tmp_path, good, run_script, monkeypatch):
    monkeypatch.setenv("CLUE_CACHE_DIR", str(tmp_path / "nothing"))
    monkeypatch.delenv("CLUE_DATA_DIR", raising=False)
    status, _, err = run_script(check_submission.main, write_zip(tmp_path / "submit.zip", good))
    assert status == 2 and err.count("\n") == 1 and "do not submit it; if other data" in err and "--data_dir" in err


def test_what_is_wrong_is_named_in_chinese(tmp_path, data, good, run_script, chinese):
    bad = BROKEN["a line without id"][0](good) | {"notes.txt": b""}
    zip_path = write_zip(tmp_path / "bad.zip", bad)
    status, said, error = run_script(check_submission.main, zip_path, "--data_dir", data)
    assert status == 2 and re.fullmatch(r"error: .*：有 \d 个问题，见上；请不要提交\n", error)
    assert f'{TNEWS}:5: 应为含 "id" 和 "label" 的对象：缺少 "id"\n' in said and "notes.txt: 不是榜单的文件名；" in said
    status, said, _ = run_script(check_submission.main, write_zip(tmp_path / "good.zip", good), "--data_dir", data)
    assert status == 0 and "14 个文件，未发现问题" in said
    head, first, *_ = (line for line in said.splitlines() if line.startswith(("任务", "AFQMC")))
    assert head.split() == ["任务", "测试集", "预测数", "文件", "比较依据"]
    assert display_width(head.partition("文件")[0]) == len(first.partition("afqmc")[0])


def test_tasks_left_out_and_line_ends_are_notes(tmp_path, data, good, run_script):
    files = {"afqmc_predict.json": good["afqmc_predict.json"].replace(b"\n", b"\r\n")}
    problems, notes = run_check(run_script, write_zip(tmp_path / "submit.zip", files), data)
    assert not problems and len(notes) == 11
    assert "note: C3: left out (c310_predict.json, c311_predict.json)" in notes
    assert names(notes, "note: afqmc_predict.json: lines end as on Windows")
    assert names(notes, "note: afqmc_predict.json: all [0-9]+ answers are '0': a model that has not learnt gives such")


@pytest.mark.parametrize(("name", "answer"), [(TNEWS, "'100'"), (C3, "1"), (CMRC, "'甲'"), (CHID, "3")])
def test_one_answer_to_everything_is_noted_and_two_are_not(tmp_path, data, good, run_script, name, answer):
    problems, notes = run_check(run_script, write_zip(tmp_path / "submit.zip", good), data)
    pattern = rf"note: {name}: all \d+ answers are {answer}: "
    assert not problems and names(notes, pattern)
    other = {TNEWS: b'"101"', C3: b"0", CMRC: '"乙"'.encode(), CHID: b"4"}[name]
    old = {TNEWS: b'"100"', C3: b'"label": 1', CMRC: '"甲"'.encode(), CHID: b": 3"}[name]
    new = old.replace(old.split(b": ")[-1], other)
    changed_file = good | {name: good[name].replace(old, new, 1)}
    problems, notes = run_check(run_script, write_zip(tmp_path / "submit.zip", changed_file), data)
    assert not problems and not names(notes, pattern)


def test_every_problem_is_named_not_only_the_first(tmp_path, data, good, run_script):
    files = good | {TNEWS: good[TNEWS].replace(b'"100"', b'"x"'), C3: good[C3].replace(b": 1}", b": 9}")}
    problems, _ = run_check(run_script, write_zip(tmp_path / "submit.zip", files), data)
    assert [problem.split(": ")[0] for problem in problems] == [f"{TNEWS}:{n}" for n in range(1, 5)] + [
        f"{C3}:{n}" for n in range(1, 5)
    ]


def test_without_data_the_official_sizes_count(tmp_path, monkeypatch):
    monkeypatch.delenv("CLUE_DATA_DIR", raising=False)
    lines = [b'{"id": %d, "label": "neutral"}' % i for i in range(3000)]
    for count, wrong in ((3000, None), (2999, "2,999 predictions, but the official test set has 3,000")):
        path = write_zip(tmp_path / f"{count}.zip", {OCNLI: b"\n".join(lines[:count])})
        findings = check_zip.check_zip(path)
        assert findings.problems == ([f"{OCNLI}: {wrong}", f"{OCNLI}: id 2999 is missing"] if wrong else [])
    findings = check_zip.check_zip(write_zip(tmp_path / "c.zip", {CMRC: b'{"DEV_0_QUERY_0": "a"}'}))
    assert names(findings.problems, f"{CMRC}: 1 predictions, but the official test set has 2,000")
    assert names(findings.problems, f"{CMRC}: 'DEV_0_QUERY_0' is not a question id such as TEST_0_QUERY_0")
    # A row of CHID has one blank or several.
    for count in (3446, 3448):
        answers = json.dumps({f"#idiom{i:06d}#": 0 for i in range(count)})
        problems = check_zip.check_zip(write_zip(tmp_path / "d.zip", {CHID: answers.encode()})).problems
        wrong = f"{CHID}: 3,446 predictions, but the official test1.1 set has at least 3,447"
        assert (wrong in problems) == (count == 3446) and len(problems) == 1 + (count == 3446)


def test_a_name_twice(tmp_path, data, good, run_script):
    with pytest.warns(UserWarning, match="Duplicate name"):
        path = write_zip(tmp_path / "submit.zip", [*good.items(), (TNEWS, good[TNEWS])])
    problems, _ = run_check(run_script, path, data)
    assert problems == [f"{TNEWS}: {TNEWS} is in the zip twice (the first is {TNEWS})"]


def test_a_password(tmp_path, data, good, run_script):
    path = write_zip(tmp_path / "submit.zip", {TNEWS: good[TNEWS], "tnews10_predict.json": good[TNEWS]})
    content = bytearray(path.read_bytes())
    for header, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.find(header) + offset] |= 1
    path.write_bytes(content)
    assert run_check(run_script, path, data)[0] == [f"{TNEWS}: encrypted; zip it without a password"]


def test_a_link(tmp_path, data, good, run_script):
    path = tmp_path / "submit.zip"
    with zipfile.ZipFile(path, "w") as archive:
        link = zipfile.ZipInfo("csl_predict.json")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, "/etc/passwd")
    assert names(run_check(run_script, path, data)[0], "csl_predict.json: a link in place of a file")


@pytest.mark.parametrize("change", ["text", "cut off", "flipped", "empty"])
def test_a_damaged_zip(tmp_path, data, good, run_script, change):
    path = write_zip(tmp_path / "submit.zip", {"afqmc_predict.json": good["afqmc_predict.json"] * 99})
    content = bytearray(path.read_bytes())
    if change == "flipped":
        content[70] ^= 0xFF
    path.write_bytes({"text": b"hello\n", "cut off": content[:80], "empty": b""}.get(change, bytes(content)))
    pattern = "afqmc_predict.json: damaged" if change == "flipped" else "submit.zip: not a zip, or a damaged one"
    (problem,) = run_check(run_script, path, data)[0]
    assert names([problem], pattern)


def test_absurd_sizes(tmp_path, data, run_script, monkeypatch):
    path = write_zip(tmp_path / "submit.zip", {"csl_predict.json": b" " * (check_file.MAX_FILE_BYTES + 1)})
    assert path.stat().st_size < 10**6
    assert run_check(run_script, path, data)[0] == ["csl_predict.json: more than 8 MB: not a prediction file"]
    monkeypatch.setattr(check_zip, "MAX_ZIP_BYTES", path.stat().st_size - 1)
    (problem,) = run_check(run_script, path, data)[0]
    assert names([problem], "submit.zip: more than 0 MB: not a zip of prediction files alone")
    monkeypatch.undo()
    path = write_zip(tmp_path / "many.zip", {f"{i}.json": b"" for i in range(1001)})
    assert run_check(run_script, path, data)[0] == ["the zip holds 1,001 files: they cannot all be predictions"]


SIZE = 7 << 20  # below the bound of a file
TOO_MANY = "more than 5,000 {}: no test set of the leaderboard is as large"
HOSTILE: dict[str, tuple[str, bytes, str]] = {
    "objects": (TNEWS, b"{}\n" * (SIZE // 3), TOO_MANY.format("lines")),
    "lines after a good one": (OCNLI, b'{"id": 0, "label": "neutral"}' + b"\n" * SIZE, TOO_MANY.format("lines")),
    "one key in a line": (TNEWS, b"{" + b'"id":0,' * (SIZE // 7) + b'"label":"100"}', TOO_MANY.format("values")),
    "array for an object": (CMRC, b"[" + b"[]," * (SIZE // 3) + b"[]]", TOO_MANY.format("values")),
    "keys": (
        CMRC,
        b"{" + b",".join(b'"%d":"a"' % i for i in range(5001)) + b"}",
        TOO_MANY.format("answers"),
    ),
    "nesting": (CMRC, b"[" * 300_000, "nested too deeply"),
    "label": (TNEWS, b'{"id": 0, "label": "' + b"1" * SIZE + b'"}\n', "label '1111.* is not one of TNEWS's"),
    "number": (C3, b'{"id": 0, "label": ' + b"1" * SIZE + b"}\n", "a number with too many digits"),
    "key": (CMRC, b'{"' + b"k" * SIZE + b'": 1}', "answer 1 is not a text .'kkk"),
    "not closed": (CMRC, b'{"a": "' + b"k" * SIZE, "not JSON .Unterminated string"),
    "four-byte characters": (CMRC, b'{"\xf0\x9f\x98\x80": "' + "😀".encode() * (SIZE // 4) + b'"}', "1 predictions"),
    "half a pair": (CMRC, rb'{"\ud800": "\udfff"}', r"'\\ud800' is not a question id"),
    "overflow": (C3, b'{"id": 1e999, "label": 1e999}\n', "id inf is not an integer"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_absurd_content_is_refused_in_little_memory(tmp_path, run_script, monkeypatch, case):
    monkeypatch.delenv("CLUE_DATA_DIR", raising=False)
    monkeypatch.setattr(check_file, "MAX_PREDICTIONS", 5000)
    name, content, pattern = HOSTILE[case]
    path = write_zip(tmp_path / "submit.zip", {name: content})
    tracemalloc.start()
    try:
        status, out, err = run_script(check_submission.main, path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert status == 2 and re.search(pattern, out), out
    lines = out.splitlines()
    assert max(map(len, [*lines, err])) < 240 and len(lines) < 100
    assert peak < 100 << 20, f"{peak >> 20} MB"


def test_names_in_a_zip_are_shown_on_one_short_line(tmp_path, data, run_script):
    path = write_zip(tmp_path / "submit.zip", {"a\n\x1b[31m" + "b" * 60_000: b"{}", "\u202e" * 20_000: b"{}"})
    problems, _ = run_check(run_script, path, data)
    assert len(problems) == 2 and all(problem.isprintable() and len(problem) < 240 for problem in problems)


def test_zipping_reads_no_more_of_a_file_than_it_takes_to_refuse_it(tmp_path):
    with (tmp_path / TNEWS).open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(UserError, match=f"{TNEWS}: more than 8 MB: not a prediction file"):
        write.zip_predictions([tmp_path], tmp_path / "submit.zip")


def test_a_zip_that_unpacks_without_bound(tmp_path, run_script):
    path = tmp_path / "submit.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_BZIP2) as archive:
        archive.writestr("csl_predict.json", b" " * (1 << 20))
    status, out, err = run_script(check_submission.main, path)
    assert status == 2 and "csl_predict.json: compressed in an unusual way" in out + err


def test_many_of_one_kind_are_counted_and_looked_for_only_as_far_as_they_are_named(monkeypatch):
    searched = []
    monkeypatch.setattr(check_file, "_line_of", lambda content, key: searched.append(key))
    answers = {f"#idiom{i:06d}#": 99 for i in range(5000)}
    findings = check_file.Findings()
    check_file.check_prediction("chid11_predict.json", json.dumps(answers).encode(), "f", findings)
    assert len(searched) == check_file.MAX_LINES == len(findings.problems) - 1
    assert findings.problems[-1] == "f: answer: 4,990 more like these"


def test_no_such_zip_or_data(tmp_path, good, run_script):
    status, out, err = run_script(check_submission.main, tmp_path / "none.zip")
    assert (status, out, err) == (2, "", f"error: {tmp_path / 'none.zip'}: no such file\n")
    path = write_zip(tmp_path / "submit.zip", good)
    status, out, err = run_script(check_submission.main, path, "--data_dir", tmp_path / "none")
    assert (status, err) == (2, f"error: --data_dir {tmp_path / 'none'}: not a folder\n")


def test_the_diagnostics_are_known_and_optional(tmp_path):
    (name,) = DIAGNOSTICS.submissions.values()
    pairs = "".join(json.dumps({"premise": "甲", "hypothesis": "乙", "index": i}) + "\n" for i in range(2))
    folder = tmp_path / "data" / DIAGNOSTICS.folder
    folder.mkdir(parents=True)
    (folder / "diagnostics_test.json").write_text(pairs)
    text = write.format_predictions(DIAGNOSTICS, [(0, "neutral"), (1, "entailment")]).encode()
    assert check_zip.check_zip(write_zip(tmp_path / "a.zip", {name: text}), folder.parent).problems == []
    wrong = text.replace(b"neutral", b"maybe")
    findings = check_zip.check_zip(write_zip(tmp_path / "b.zip", {name: wrong}), folder.parent)
    assert names(findings.problems, f"{name}:1: label 'maybe' is not one of")


def test_zipping_compares_with_the_test_files(tmp_path, data, good):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "csl_predict.json").write_bytes(good["csl_predict.json"])
    zipped = write.zip_predictions([tmp_path / "a"], tmp_path / "submit.zip", data)
    assert zipped == {"csl_predict.json": 4}
    (tmp_path / "a" / "csl_predict.json").write_bytes(good["csl_predict.json"].replace(b'"id": 1', b'"id": 71'))
    with pytest.raises(UserError, match=r"csl_predict.json:2: id 71 is not in the test file \(and 1 more"):
        write.zip_predictions([tmp_path / "a"], tmp_path / "submit.zip", data)


def test_answers_without_loading_paddle():
    code = (
        "import sys; sys.path += ['scripts']; import check_submission\n"
        "try: check_submission.main(['--help'])\n"
        "except SystemExit: pass\n"
        "assert not {'paddle', 'paddlenlp', 'numpy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=TOP, check=True, stdout=subprocess.DEVNULL)

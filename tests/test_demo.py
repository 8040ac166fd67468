"""The demo data and model: formats, sameness, and that ordinary loading reads them."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

import make_demo
from clue_utils.data.examples import load_examples
from clue_utils.errors import UserError
from clue_utils.tasks import CLASSIFICATION_TASKS, NO_LABEL, TASKS
from demo.model import make_model, vocabulary
from demo.records import WITHOUT_LABEL, make_data, sizes_for

RECORDS = 96


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("demo") / "data"
    make_data(folder, 0, sizes_for(RECORDS))
    return folder


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("demo") / "model"
    make_model(folder, 0)
    return folder


@pytest.fixture(scope="module")
def tokenizer(model_folder):
    from clue_utils.models import load_tokenizer

    return load_tokenizer(str(model_folder))


@pytest.fixture
def without_model(monkeypatch):
    """Demos of data and a stand-in for the model, which takes seconds to make."""

    def make_model(folder: Path, seed: int) -> None:
        folder.mkdir()
        (folder / "model.safetensors").write_text(str(seed))

    monkeypatch.setattr(make_demo, "make_model", make_model)


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_seed_decides_every_byte(data, tmp_path):
    sizes = sizes_for(RECORDS)
    make_data(tmp_path / "same", 0, sizes)
    make_data(tmp_path / "other", 1, sizes)
    assert contents(tmp_path / "same") == contents(data)
    other = contents(tmp_path / "other")
    assert {name for name, content in contents(data).items() if content == other[name]} == {
        "tnews_public/labels.json",
        "iflytek_public/labels.json",
    }


@pytest.mark.parametrize("task", TASKS.values(), ids=list(TASKS))
def test_every_split_is_read_as_the_real_files_are(data, task):
    sizes = sizes_for(RECORDS)[task.name]
    for split in task.splits:
        records = load_examples(task, split, data)
        assert len(records) + records.num_dropped == sizes.of(split)
        assert bool(records.num_dropped) == ((task.name, split) in WITHOUT_LABEL)


@pytest.mark.parametrize("name", CLASSIFICATION_TASKS)
def test_classification_files_have_the_official_fields(data, name):
    task = TASKS[name]
    fields = {*task.fields, *(["keywords"] if name == "TNEWS" else [])}
    extra = {
        "TNEWS": {"label_desc"},
        "IFLYTEK": {"label_des"},
        "CLUEWSC2020": {"idx"},
        "CSL": {"id"},
        "OCNLI": {"level", "genre", "prem_id", "id", *(f"label{i}" for i in range(5))},
    }.get(name, set())
    for split in ("train", "dev"):
        records = lines(data / task.folder / task.splits[split].files[0][0])
        assert all(set(record) == fields | {"label"} | extra for record in records)
        assert {record["label"] for record in records} <= {*task.labels, NO_LABEL}
    for split in task.test_splits:
        records = lines(data / task.folder / task.splits[split].files[0][0])
        assert all(set(record) == fields | {"id"} for record in records)
        assert [record["id"] for record in records] == list(range(len(records)))
        assert all(record.get("keywords", "") == "" for record in records)
    if name in ("TNEWS", "IFLYTEK"):
        assert [label["label"] for label in lines(data / task.folder / "labels.json")] == list(task.labels)


def test_every_label_occurs_in_the_default_training_sets(tmp_path):
    make_data(tmp_path)
    for name in CLASSIFICATION_TASKS:
        assert {record["label"] for record in load_examples(TASKS[name], "train", tmp_path)} == set(
            range(len(TASKS[name].labels))
        )


def test_texts_hold_what_breaks_naive_readers(data):
    for task in TASKS.values():
        for split in task.splits.values():
            text = "".join((data / task.folder / file).read_text(encoding="utf-8") for file in split.files[0])
            assert "\u2028" in text, task.name
            assert len(text.splitlines()) > text.count("\n")


def test_wsc_spans_stand_at_their_indices_on_both_sides(data):
    orders = set()
    for record in lines(data / "cluewsc2020_public/train.json"):
        target = record["target"]
        for span in ("span1", "span2"):
            assert record["text"].startswith(target[f"{span}_text"], target[f"{span}_index"])
        orders.add(target["span1_index"] < target["span2_index"])
    assert orders == {True, False}


def test_c3_documents(data):
    ids = []
    num_choices = set()
    for name in ("d-train", "m-train", "d-dev", "m-dev", "test1.0", "test1.1"):
        documents = json.loads((data / f"c3_public/{name}.json").read_text(encoding="utf-8"))
        for context, questions, _ in documents:
            for question in questions:
                assert len(set(question["choice"])) == len(question["choice"])
                num_choices.add(len(question["choice"]))
                if name.startswith("test"):
                    ids.append(question["id"])
                    assert "answer" not in question
                else:
                    assert question["choice"].count(question["answer"]) == 1
                    assert question["answer"][-4:] in "".join(context)
    assert num_choices == {2, 3, 4}
    assert ids == 2 * list(range(RECORDS // 8))
    assert any(len("".join(c)) > 512 for c, _, _ in json.loads((data / "c3_public/d-train.json").read_text("utf-8")))


@pytest.mark.parametrize("split, golds", [("train", 1), ("dev", 3), ("test", 3)])
def test_cmrc2018_answers_stand_where_they_say(data, split, golds):
    ids = []
    longest = 0
    document = json.loads((data / f"cmrc2018_public/{split}.json").read_text(encoding="utf-8"))
    for article in document["data"]:
        (paragraph,) = article["paragraphs"]
        context = paragraph["context"]
        longest = max(longest, len(context))
        for question in paragraph["qas"]:
            ids.append(question["id"])
            assert len(question["answers"]) == golds
            for number, answer in enumerate(question["answers"], 1):
                if split == "test":
                    assert answer == {"text": f"FAKE_ANSWER_{number}", "answer_start": -1}
                else:
                    assert context.count(question["answers"][0]["text"]) == 1
                    assert context.startswith(answer["text"], answer["answer_start"])
    assert len(ids) == len(set(ids)) == sizes_for(RECORDS)["CMRC2018"].of(split)
    assert split != "train" or longest > 512


def test_chid_rows(data):
    seen: set[str] = set()
    for split in TASKS["CHID"].splits:
        rows = lines(data / f"chid_public/{split}.json")
        path = data / f"chid_public/{split}_answer.json"
        assert path.exists() == (split in ("train", "dev"))
        answers = json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
        tags_of_rows = [re.findall(r"#idiom\d+#", "\n".join(row["content"])) for row in rows]
        for row, tags in zip(rows, tags_of_rows, strict=True):
            assert len(set(row["candidates"])) == 10
            if answers:
                assert len({answers[tag] for tag in tags}) == len(tags)
                assert all(answers[tag] in range(10) for tag in tags)
        tags = [tag for of_row in tags_of_rows for tag in of_row]
        assert len(set(tags)) == len(tags) and not seen & set(tags)
        assert answers is None or list(answers) == tags
        seen |= set(tags)
        assert {len(of_row) for of_row in tags_of_rows} == {1, 2, 3}
        assert max(len(row["content"]) for row in rows) > 1


def test_a_complete_demo_is_left_alone(tmp_path, without_model, capsys):
    arguments = ["--output", str(tmp_path / "demo"), "--records", "16"]
    make_demo.main(arguments)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    assert "made" in capsys.readouterr().out
    make_demo.main(arguments)
    assert "left as it is" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before
    assert sorted(path.name for path in (tmp_path / "demo").iterdir()) == ["data", "demo.json", "model"]


def test_other_parameters_or_a_damaged_file_make_it_anew_and_keep_what_else_is_there(tmp_path, without_model):
    output = tmp_path / "demo"
    assert make_demo.make_demo(output, 0, 16)
    first = contents(output)
    (output / "output").mkdir()
    (output / "output/result.json").write_text("{}")
    (output / "data/csl_public/dev.json").write_text("")
    assert make_demo.make_demo(output, 0, 16)
    assert contents(output) == first | {"output/result.json": b"{}"}
    assert make_demo.make_demo(output, 1, 16)
    assert contents(output)["model/model.safetensors"] == b"1"


def test_nothing_is_left_of_a_demo_that_fails(tmp_path, without_model, monkeypatch):
    output = tmp_path / "demo"
    assert make_demo.make_demo(output, 0, 16)
    before = contents(output)

    def fail(folder: Path, seed: int) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(make_demo, "make_model", fail)
    with pytest.raises(OSError, match="disk full"):
        make_demo.make_demo(output, 1, 16)
    assert contents(output) == before
    with pytest.raises(OSError, match="disk full"):
        make_demo.make_demo(tmp_path / "new", 0, 16)
    assert contents(tmp_path / "new") == {}


def test_a_folder_of_the_user_s_is_not_overwritten(tmp_path, without_model):
    (tmp_path / "data").mkdir()
    (tmp_path / "data/mine.txt").write_text("mine")
    with pytest.raises(UserError, match="not made by this script"):
        make_demo.make_demo(tmp_path, 0, 16)
    assert contents(tmp_path) == {"data/mine.txt": b"mine"}


def test_help_and_data_need_no_paddle(tmp_path):
    code = (
        "import sys, pathlib, make_demo\n"
        "from demo.records import make_data, sizes_for\n"
        "make_data(pathlib.Path(sys.argv[1]), 0, sizes_for(8))\n"
        "assert 'paddle' not in sys.modules\n"
        "make_demo.main(['--help'])"
    )
    search = [Path(make_demo.__file__).parent, Path(make_demo.__file__).parents[1]]
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path[:0] = {[str(path) for path in search]!r}\n{code}", str(tmp_path)],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0 and "--records" in done.stdout, done.stderr


def test_the_vocabulary_has_no_piece_twice():
    pieces = vocabulary()
    assert len(set(pieces)) == len(pieces)
    assert pieces[:6] == ["[PAD]", "[CLS]", "[SEP]", "[MASK]", "[UNK]", "[unused1]"]
    assert sum("\u4e00" <= piece <= "\u9fff" for piece in pieces) == 6763


def test_the_model_is_the_same_each_time(model_folder, tmp_path):
    make_model(tmp_path, 0)
    assert contents(tmp_path) == contents(model_folder)
    make_model(tmp_path, 1)
    differing = {name for name, content in contents(tmp_path).items() if content != contents(model_folder)[name]}
    assert differing == {"model.safetensors"}


@pytest.mark.parametrize("task, num_outputs", [("TNEWS", 15), ("C3", 4), ("CHID", 10), ("CMRC2018", 2)])
def test_every_kind_of_head_loads(model_folder, task, num_outputs):
    import paddle
    from safetensors.numpy import load_file

    from clue_utils.models import load_model

    model = load_model(str(model_folder), TASKS[task], 0.1, num_outputs, training=True)
    stored = load_file(str(model_folder / "model.safetensors"))
    loaded = model.ernie.state_dict()
    assert {name.removeprefix("ernie.") for name in stored} == set(loaded)
    for name, values in stored.items():
        assert (loaded[name.removeprefix("ernie.")].numpy() == values).all()
    ids = paddle.ones([2, num_outputs, 8] if TASKS[task].kind in ("cloze", "multiple_choice") else [2, 8], "int64")
    outputs = model(ids) if task == "CMRC2018" else [model(ids)]
    assert {tuple(output.shape) for output in outputs} == {(2, 8) if task == "CMRC2018" else (2, num_outputs)}


def test_the_tokenizer_knows_its_own_pieces(tokenizer):
    for piece in ("[unused1]", "[MASK]", "[PAD]"):
        number = tokenizer.convert_tokens_to_ids(piece)
        assert number == vocabulary().index(piece) != tokenizer.unk_token_id
        assert tokenizer.convert_ids_to_tokens([number]) == [piece]
    assert tokenizer.tokenize("[MASK]") == ["[MASK]"]
    assert len(tokenizer) == len(vocabulary())


def test_demo_texts_hold_no_unknown_word(tokenizer, data):
    unknown = set()
    for task in TASKS.values():
        for split in task.splits.values():
            for file in split.files[0]:
                text = (data / task.folder / file).read_text(encoding="utf-8").replace("\u2028", " ")
                for line in text.split("\n"):
                    for start in range(0, len(line), 2000):
                        pieces = tokenizer.tokenize(line[start : start + 2000])
                        unknown |= {line[:40] for piece in pieces if piece == tokenizer.unk_token}
    assert not unknown
    text = "公园里有人在下棋iphone15。"
    assert tokenizer.convert_tokens_to_string(tokenizer.tokenize(text)).replace(" ", "") == text

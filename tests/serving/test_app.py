"""The HTTP interface, in process, over a model that stands in."""

from __future__ import annotations

import asyncio
import json
import logging
import re
from pathlib import Path
from typing import Any

import httpx
import pytest

from clue_utils import tasks
from clue_utils.serving import app as serving
from clue_utils.serving.app import Limits, create_app
from clue_utils.serving.batching import Batcher
from clue_utils.serving.examples import example, form
from serving_fakes import FakeModel, hold, start


def call(batcher: Batcher, method: str, path: str, limits: Limits | None = None, **content: Any) -> httpx.Response:
    async def run() -> httpx.Response:
        transport = httpx.ASGITransport(create_app(batcher, limits), raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            return await client.request(method, path, **content)

    return asyncio.run(run())


@pytest.fixture
def one():
    batcher = start(FakeModel())
    yield batcher
    batcher.stop(60)


@pytest.fixture
def two():
    batcher = start(FakeModel("TNEWS"), FakeModel("CMRC2018"))
    yield batcher
    batcher.stop(60)


def test_inputs_are_answered_in_their_order(one):
    answer = call(one, "POST", "/predict", json={"inputs": ["新闻", {"sentence": "体育"}]})
    assert answer.status_code == 200 and answer.headers["content-type"] == "application/json"
    assert answer.json() == {"model": "a", "outputs": [{"label": "新闻"}, {"label": {"sentence": "体育"}}]}
    assert "新闻" in answer.text  # a terminal shows it
    assert call(one, "POST", "/predict", json={"input": "新闻"}).json() == {"model": "a", "output": {"label": "新闻"}}
    assert call(one, "POST", "/predict", json={"inputs": []}).json() == {"model": "a", "outputs": []}
    call(one, "POST", "/predict", json={"inputs": [["前", "后"]]})
    assert one.models["a"].batches[-1] == [("前", "后")]  # a pair


def test_models_are_chosen_by_name(two):
    for path, body in (("/predict", {"model": "b", "input": "x"}), ("/models/b/predict", {"input": "x"})):
        assert call(two, "POST", path, json=body).json() == {"model": "b", "output": {"label": "x"}}
    assert (two.models["a"].batches, two.models["b"].batches) == ([], [["x"], ["x"]])
    served = call(two, "GET", "/models").json()["models"]
    assert [(m["name"], m["task"], m["kind"]) for m in served] == [
        ("a", "TNEWS", "classification"),
        ("b", "CMRC2018", "span"),
    ]
    assert served[0]["fields"] == {"sentence": "string"} and "news_tech" in served[0]["classes"]


@pytest.mark.parametrize(
    ("path", "content", "status", "words"),
    [
        ("/predict", b"", 400, "not JSON"),
        ("/predict", b'{"input": "x"\n"y"}', 400, "line 2"),
        ("/predict", "新闻".encode("gbk"), 400, "send it in UTF-8"),
        ("/predict", b"[" * 100_000, 400, "nested too deeply"),
        ("/predict", b'["x"]', 400, "no object"),
        ("/predict", b'{"model": "a", "input": "x", "input": "y"}', 400, "'input' twice"),
        ("/predict", b'{"model": "a", "text": "x"}', 400, "'text' is unknown"),
        ("/predict", b'{"model": "a"}', 400, "either inputs"),
        ("/predict", b'{"model": "a", "input": "x", "inputs": []}', 400, "either inputs"),
        ("/predict", b'{"model": "a", "inputs": "x"}', 400, "no list"),
        ("/predict", b'{"input": "x"}', 400, "name one of a, b"),
        ("/predict", b'{"model": ["a"], "input": "x"}', 400, "name one of a, b"),
        ("/predict", b'{"model": "c", "input": "x"}', 404, "no model 'c'"),
        ("/models/c%0Ad/predict", b'{"input": "x"}', 404, r"no model 'c\nd'"),
        ("/models/a/predict", b'{"model": "a", "input": "x"}', 400, "names it already"),
        ("/predict", b'{"model": "a", "inputs": ["x", "bad"]}', 422, "inputs[1]: bad"),
        ("/predict", b'{"model": "a", "input": "bad"}', 422, "input: bad"),
        ("/predict", b'{"model": "a", "input": {"raise": "memory"}}', 503, "out of memory (no more)"),
        ("/predict", b'{"model": "a", "input": {"raise": "defect"}}', 500, "its log says why"),
        ("/predict", b'{"model": "a", "inputs": [1, 2, 3, 4, 5]}', 413, "5 inputs: send at most 4"),
        ("/predict", b'{"model": "a", "input": "' + b"x" * 200_000 + b'"}', 413, "more than 150000 bytes"),
        ("/nowhere%0A", b"", 404, r"POST /nowhere\n: no such address, see /docs"),
        ("/health", b"", 405, "POST /health"),
    ],
    ids=lambda value: str(value)[:24],
)
def test_an_error_is_one_line(two, path, content, status, words):
    answer = call(two, "POST", path, Limits(inputs=4, body_bytes=150_000), content=content)
    assert answer.status_code == status
    assert list(answer.json()) == ["error"]
    assert words in answer.json()["error"] and answer.json()["error"].isprintable()
    assert call(two, "POST", "/predict", json={"model": "a", "input": "x"}).status_code == 200


def test_errors_are_in_the_language_of_the_server(two, chinese):
    for path, content, said in (
        ("/predict", b"{", "请求体不是 JSON（第 2 列：键应为双引号括起的字符串），第 1 行"),
        ("/predict", b'{"model": "c", "input": "x"}', "没有名为 'c' 的模型：请指定 a, b 之一"),
        ("/nowhere", b"", "POST /nowhere：没有这个地址，见 /docs"),
    ):
        assert call(two, "POST", path, content=content).json() == {"error": said}


def test_half_of_a_pair_of_surrogates_comes_back_as_it_came(one):
    answer = call(one, "POST", "/predict", content=rb'{"input": "\ud83d"}')
    assert answer.status_code == 200 and rb"\ud83d" in answer.content


def test_a_full_queue_refuses(one):
    model = FakeModel(is_held=True)
    batcher = start(model, max_waiting=1)
    hold(batcher, model)
    batcher.submit("a", ["waits"])
    answer = call(batcher, "POST", "/predict", json={"input": "x"})
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1") and "try again" in answer.json()["error"]
    model.leave()
    batcher.stop(60)
    assert call(batcher, "POST", "/predict", json={"input": "x"}).json() == {"error": "the server ends"}
    health = call(batcher, "GET", "/health")
    assert health.status_code == 503 and health.json()["status"] == "failed"


def test_health_says_what_waits(one):
    call(one, "POST", "/predict", json={"inputs": ["x", "y"]})
    health = call(one, "GET", "/health")
    expected = {"status": "ok", "models": ["a"], "waiting": 0, "answered": 2, "batches": 1}
    assert health.status_code == 200 and health.json() == expected


def request(path: str) -> dict[str, Any]:
    return {
        "type": "http",
        "method": "POST",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": [],
    }


def test_the_work_of_a_client_that_has_gone_is_dropped(caplog):
    model = FakeModel(is_held=True)
    batcher = start(model)
    hold(batcher, model)
    come = [{"type": "http.request", "body": b'{"input": "gone"}'}, {"type": "http.disconnect"}]
    sent = []

    async def receive():
        return come.pop(0)

    async def send(message):
        sent.append(message)

    with caplog.at_level(logging.INFO, "clue_utils"):
        asyncio.run(create_app(batcher)(request("/predict"), receive, send))
    assert batcher.num_waiting == 0 and " 499, 1 inputs" in caplog.text
    model.leave()
    batcher.stop(60)
    assert model.batches == [["first"]]


def test_what_the_end_does_not_wait_for_is_told(one):
    model = FakeModel(is_held=True)
    batcher = start(model)
    hold(batcher, model)
    come, sent = [{"type": "http.request", "body": b'{"inputs": ["x", "y"]}'}], []

    async def receive():
        return come.pop(0) if come else await asyncio.Event().wait()

    async def send(message):
        sent.append(message)

    async def run():
        task = asyncio.ensure_future(create_app(batcher)(request("/predict"), receive, send))
        while not batcher.num_waiting:
            await asyncio.sleep(0)
        task.cancel()
        await task

    asyncio.run(run())
    assert sent[0]["status"] == 503 and json.loads(sent[1]["body"]) == {"error": "the server ends"}
    assert (batcher.num_given_up, batcher.num_waiting) == (2, 0)
    model.leave()
    batcher.stop(60)


@pytest.mark.parametrize(("has_gone", "status"), [(False, 408), (True, 499)])
def test_a_body_that_does_not_end_is_not_waited_for(one, monkeypatch, has_gone, status):
    monkeypatch.setattr(serving, "_BODY_SECONDS", 0.01)
    come = [{"type": "http.request", "body": b"{", "more_body": True}]
    come += [{"type": "http.disconnect"}] if has_gone else []
    sent = []

    async def receive():
        return come.pop(0) if come else await asyncio.Event().wait()

    async def send(message):
        sent.append(message)

    asyncio.run(create_app(one)(request("/predict"), receive, send))
    assert sent[0]["status"] == status and one.models["a"].batches == []


def test_a_request_is_one_line_of_the_log(one, caplog):
    with caplog.at_level(logging.INFO, "clue_utils"):
        call(one, "POST", "/models/a/predict", json={"inputs": ["x", "y"]})
        call(one, "GET", "/%0A%1B[31merror" + "x" * 500)
    first, second = caplog.messages
    assert re.fullmatch(r"\d\d:\d\d:\d\d 127\.0\.0\.1 POST /models/a/predict 200, 2 inputs, \d+ ms", first)
    assert second.isprintable() and r"GET /\n\x1b[31merror" in second and len(second) < 160


def test_pages_take_nothing_from_elsewhere(two):
    for path in ("/", "/docs", "/files/page.js", "/files/docs.js", "/files/page.css"):
        answer = call(two, "GET", path)
        policy = answer.headers["content-security-policy"]
        assert answer.status_code == 200 and "default-src 'none'; script-src 'self'" in policy
        assert "unsafe" not in policy and answer.headers["x-content-type-options"] == "nosniff"
        assert "//" not in re.sub(r"^ *// .*$|; // .*$", "", answer.text, flags=re.MULTILINE)  # no address of a host
        # Nothing that would read a text as HTML or as a program.
        assert not re.search(r"innerHTML|outerHTML|insertAdjacent|document\.write|eval\(|\bon\w+=|style=", answer.text)
        for name in re.findall(r'(?:href|src)="([^"]+)"', answer.text):
            assert name == "data:," or call(two, "GET", "/" + name.removeprefix(".")).status_code == 200


def test_the_addresses_are_described(two):
    described = call(two, "GET", "/openapi.json").json()["paths"]
    assert sorted(described) == ["/health", "/models", "/models/{name}/predict", "/predict"]
    page = call(two, "GET", "/docs").text
    for path, methods in described.items():
        (method,) = methods
        assert f"{method.upper()} {path.replace('{name}', 'NAME')}" in page
    statuses = {status for status in described["/predict"]["post"]["responses"] if status != "200"}
    assert statuses == set(re.findall(r'<th scope="row">(\d+)</th>', page))


@pytest.mark.parametrize("task", tasks.TASKS.values(), ids=lambda task: task.name)
def test_every_task_has_an_example_of_its_form(task):
    def has_form(value: Any, kind: Any) -> bool:
        if isinstance(kind, dict):
            return value.keys() == kind.keys() and all(has_form(value[name], kind[name]) for name in kind)
        if isinstance(kind, list):
            return isinstance(value, list) and all(has_form(one, kind[0]) for one in value)
        return isinstance(value, {"string": str, "integer": int}[kind])

    given = example(task)
    assert has_form(given, form(task.fields))
    if target := given.get("target"):
        for span in ("span1", "span2"):
            begin = target[f"{span}_index"]
            assert given["text"][begin:].startswith(target[f"{span}_text"])
    json.dumps(given)


def test_the_files_are_shipped():
    packaged = (Path(__file__).parents[2] / "setup.cfg").read_text(encoding="utf-8")
    assert "clue_utils.serving = files/*" in packaged

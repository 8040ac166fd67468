"""The program: its flags, and how it ends."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import urllib.request
from pathlib import Path

import pytest

import load
import run_clue_classifier
import serve
from clue_utils import environment

TOP = Path(__file__).parents[2]
# Requests that wait at the end, and the inputs of each; answers of one input each before.
REQUESTS, INPUTS, BEFORE = 16, 8, 5


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "no model: name the output folder of a run"),
        (("{a}/nowhere",), "nowhere: no such folder"),
        (("news={a}/nowhere",), "nowhere: no such folder"),
        (("{a}/run", "{b}/run"), "would both be 'run': name one as NAME="),
        (("{a}/run", "--port", "65536"), "'65536' is not a port, from 0 to 65535"),
        (("{a}/run", "--port", "{taken}"), "--port {taken}: Address already in use; choose another --port"),
        (("{a}/run", "--host", "a..b", "--port", "0"), "--host a..b: "),
        (("{a}/run", "--max_inputs", "2", "--max_waiting", "1"), "--max_inputs 2: more than --max_waiting 1"),
    ],
    ids=lambda value: None if isinstance(value, str) else " ".join(value) or "nothing",
)
def test_a_mistake_is_told_before_paddle_is_loaded(run_script, tmp_path, monkeypatch, words, message):
    monkeypatch.setattr(environment, "load_libraries", lambda *_: pytest.fail("Paddle is loaded"))
    places = {"a": tmp_path / "a", "b": tmp_path / "b"}
    for place in places.values():
        (place / "run").mkdir(parents=True)
    with socket.create_server(("127.0.0.1", 0)) as server:
        names = {**places, "taken": server.getsockname()[1]}
        status, out, err = run_script(serve.main, *(word.format(**names) for word in words))
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert err.startswith("error: ") and message.format(**names) in err


def test_models_have_their_folders_names_or_others(tmp_path, monkeypatch):
    for name in ("tnews", "a=b"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path)
    words = ["tnews/", "news=tnews", "a=b", "other=a=b"]
    assert serve._name_models(words) == {"tnews": "tnews/", "news": "tnews", "a=b": "a=b", "other": "a=b"}


@pytest.fixture(scope="module")
def model(tmp_path_factory, run_script, demo, few_examples):
    folder = tmp_path_factory.mktemp("served") / "tnews"
    words = ("--task_name", "TNEWS", "--do_train", "--max_steps", "1", "--max_seq_length", "32", "--device", "cpu")
    places = ("--model_name_or_path", demo / "model", "--data_dir", few_examples, "--output_dir", folder)
    status, _, err = run_script(run_clue_classifier.main, *words, *places)
    assert status == 0, err
    return folder


def test_what_has_come_by_the_end_is_answered(model, warm_python):
    from clue_utils import Predictor

    texts = [f"第{i}条新闻" for i in range(INPUTS)]
    body = json.dumps({"inputs": texts}).encode()
    request = b"POST /predict HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    flags = ["--port", "0", "--device", "cpu", "--batch_size", "1", "--seconds_to_stop", "3600"]
    command = [warm_python, TOP / "scripts/serve.py", model, *flags]  # one request is at work at a time
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, **pipes, text=True, env=os.environ | {"PYTHONPATH": str(TOP)}) as server:
        assert server.stdout and server.stderr
        try:
            line = next((line for line in server.stdout if line.startswith("serving at ")), "")
            assert line, server.stderr.read()
            address = ("127.0.0.1", int(line.partition("/,")[0].rpartition(":")[2]))
            seconds, _ = asyncio.run(load.load(address[1], texts, clients=2, requests=BEFORE, limit=3600))
            assert len(seconds) == BEFORE
            clients = [socket.create_connection(address) for _ in range(REQUESTS)]
            for client in clients:
                client.sendall(request)
            come = 0
            while come < BEFORE + INPUTS * (REQUESTS - 1):
                with urllib.request.urlopen("http://{}:{}/health".format(*address)) as answer:
                    health = json.load(answer)
                come = health["waiting"] + health["answered"]
            server.send_signal(signal.SIGTERM)
            answers = [client.makefile("rb").read() for client in clients]
            out, err = server.communicate()
        finally:
            server.kill()
    expected = [answer["label"] for answer in Predictor(model, device="cpu")(texts)]
    for answer in answers:
        head, _, content = answer.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 ")
        assert [output["label"] for output in json.loads(content)["outputs"]] == expected
    assert server.returncode == 0
    assert err == "stopping: what waits is answered within 3600 s; Ctrl-C again ends it at once\n"
    assert out.endswith(f"stopped; {BEFORE + INPUTS * REQUESTS} inputs answered\n")
    assert out.count(f" POST /predict 200, {INPUTS} inputs, ") == REQUESTS
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(address)

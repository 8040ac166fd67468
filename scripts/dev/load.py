#!/usr/bin/env python
"""Load a server of a model on this machine: answers a second and how long they take, in batches and one at a time.

Each client sends one input, waits for the answer, and sends the next, over a connection that stays open. Clients and
server share the machine's processors.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from clue_utils import cli
from clue_utils.errors import UserError
from clue_utils.report.render import markdown_table

SERVE = Path(__file__).resolve().parents[1] / "serve.py"
USAGE = "python scripts/dev/load.py MODEL [--inputs FILE] [--clients N ...] [--requests N] [--seconds X] [-- FLAG...]"
EXAMPLE = """\
examples:
  python scripts/dev/load.py models/tnews --inputs data/tnews_public/test.json
  python scripts/dev/load.py models/cmrc2018 --seconds 60 -- --device gpu
flags behind -- are the server's
"""


def main(argv: Sequence[str] | None = None) -> None:
    words, flags = cli.split_at_dashes(argv)
    parser = cli.Parser(usage=USAGE, description=__doc__, epilog=EXAMPLE)
    parser.add_argument("model", metavar="MODEL", help="the output folder of a run")
    parser.add_argument("--inputs", type=Path, metavar="FILE", help="JSON lines (default: the page's example, always)")
    parser.add_argument("--clients", type=cli.positive_int, nargs="+", default=(1, 32), help="(default: 1 32)")
    parser.add_argument("--batch_sizes", type=cli.positive_int, nargs="+", default=(64, 1), help="(default: 64 1)")
    parser.add_argument("--requests", type=cli.positive_int, default=2000, help="of a line, at most (default: 2000)")
    parser.add_argument("--seconds", type=cli.positive_float, default=20.0, help="of a line, at most (default: 20)")
    args = parser.parse_args(words)
    rows = []
    for batch_size in args.batch_sizes:
        command = [sys.executable, str(SERVE), args.model, "--port", "0", "--quiet", "--batch_size", str(batch_size)]
        with subprocess.Popen([*command, *flags], stdout=subprocess.PIPE, text=True) as server:
            try:
                port = _port(server)
                inputs = _inputs(args.inputs, port)
                asyncio.run(load(port, inputs, 1, 8, args.seconds))  # what is first slow is not counted
                for clients in args.clients:
                    before, used = _get(port, "health"), _processor_seconds(server.pid)
                    seconds, total = asyncio.run(load(port, inputs, clients, args.requests, args.seconds))
                    after = _get(port, "health")
                    batches = after["batches"] - before["batches"]
                    used = (_processor_seconds(server.pid) - used) / len(seconds)
                    rows.append(
                        [str(batch_size), str(clients), str(len(seconds)), f"{len(seconds) / total:.1f}"]
                        + [f"{1000 * np.percentile(seconds, q):.1f}" for q in (50, 99)]
                        + [f"{1000 * used:.1f}", f"{(after['answered'] - before['answered']) / batches:.1f}"]
                    )
            finally:
                server.terminate()
    names = "batch_size|clients|requests|requests/s|median, ms|99th percentile, ms|processor, ms each|inputs a batch"
    print(markdown_table(names.split("|"), rows))


def _processor_seconds(pid: int) -> float:
    """Processor time that a process has used, which what else the machine does disturbs less than it does a clock."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _port(server: subprocess.Popen[str]) -> int:
    """Wait until the server serves; the port that it has taken."""
    assert server.stdout
    for line in server.stdout:
        if line.startswith("serving at "):
            return int(line.partition("/,")[0].rpartition(":")[2])
    raise UserError("the server did not start; see what it says above")


def _get(port: int, path: str) -> Any:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/{path}") as answer:
        return json.load(answer)


def _inputs(path: Path | None, port: int) -> list[Any]:
    if path is None:
        return [_get(port, "models")["models"][0]["example"]]
    try:
        return [json.loads(line) for line in path.read_bytes().split(b"\n") if line.strip()]
    except ValueError as error:
        raise UserError(f"--inputs {path}: not JSON lines ({error})") from None


async def load(port: int, inputs: list[Any], clients: int, requests: int, limit: float) -> tuple[list[float], float]:
    """Have clients send requests of one input each until there were so many, or ``limit`` seconds are over.

    Returns:
        Seconds of each request, and of all together.

    Raises:
        UserError: the server refused one.
    """
    begin = time.perf_counter()
    supply = itertools.islice(itertools.cycle(inputs), requests)
    parts = await asyncio.gather(*(_client(port, supply, begin + limit) for _ in range(clients)))
    return [one for part in parts for one in part], time.perf_counter() - begin


async def _client(port: int, supply: Iterator[Any], until: float) -> list[float]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    seconds = []
    for one in supply:
        if (begin := time.perf_counter()) >= until:
            break
        body = json.dumps({"input": one}).encode()
        writer.write(b"POST /predict HTTP/1.1\r\nHost: load\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        length = int(head.partition(b"content-length:")[2].split(b"\r\n")[0])
        answer = await reader.readexactly(length)
        if b" 200 " not in head[:16]:
            raise UserError(f"the server refused a request: {answer.decode()}")
        seconds.append(time.perf_counter() - begin)
    writer.close()
    return seconds


if __name__ == "__main__":
    cli.run(main)

#!/usr/bin/env python
"""Serve fine-tuned models over HTTP: a page to type into, and addresses for programs, which /docs describes."""

from __future__ import annotations

import os
import sys

if __name__ == "__main__":
    sys.path.append(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    from clue_utils import outside

    outside.explain()

import contextlib
import logging
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import uvicorn

from clue_utils import cli, environment
from clue_utils.errors import Stopped, UserError, one_line, shorten, show
from clue_utils.language import later, say
from clue_utils.serving.app import Limits, create_app
from clue_utils.serving.batching import Batcher, Model
from clue_utils.settings import PRECISIONS

logger = logging.getLogger("clue_utils.serving")
USAGE = "python scripts/serve.py [NAME=]MODEL... [--port N] [FLAG...]"
EXAMPLE = """\
examples:
  python scripts/serve.py models/tnews --port 8000
  curl 127.0.0.1:8000/predict -d '{"inputs": ["国产新能源汽车出口增长"]}'
  python scripts/serve.py news=models/tnews reading=models/cmrc2018 --quiet
"""
HOST, PORT = "127.0.0.1", 8000
_PORT = cli.Number(int, lambda n: 0 <= n < 1 << 16, later("a port, from 0 to 65535"))
# Seconds for those who wait at the end, and for a batch at work whose clients have gone: less, together, than
# the thirty after which Kubernetes ends a process.
_SECONDS_TO_ANSWER, _SECONDS_TO_END = 20, 5


def main(argv: Sequence[str] | None = None) -> None:
    limits = Limits()
    parser = cli.Parser(usage=USAGE, description=__doc__, epilog=EXAMPLE)
    parser.add_argument(
        "models",
        nargs="*",
        metavar="MODEL",
        help="the output folder of a run, or NAME=FOLDER; its name is the folder's otherwise",
    )
    parser.add_argument("--host", default=HOST, help="address to listen at (default: %(default)s, this machine alone)")
    parser.add_argument(
        "--port", type=_PORT, default=PORT, help="0: any that is free, which is printed (default: %(default)s)"
    )
    parser.add_argument("--batch_size", type=cli.positive_int, default=64, help="inputs of a batch (default: 64)")
    parser.add_argument(
        "--max_inputs", type=cli.positive_int, default=limits.inputs, help="of a request (default: %(default)s)"
    )
    parser.add_argument(
        "--max_bytes",
        type=cli.positive_int,
        default=limits.body_bytes,
        help="of a request's body (default: %(default)s)",
    )
    parser.add_argument(
        "--max_waiting",
        type=cli.positive_int,
        default=1024,
        help="inputs that wait; a request that finds no room is refused with 503 (default: 1024)",
    )
    parser.add_argument(
        "--seconds_to_stop",
        type=cli.positive_int,
        default=_SECONDS_TO_ANSWER,
        help="what waits at the end is answered within so many, or refused (default: %(default)s)",
    )
    parser.add_argument("--device", choices=("gpu", "xpu", "cpu"), help="(default: a GPU where there is one)")
    parser.add_argument("--precision", choices=tuple(PRECISIONS), default="fp32", help="(default: fp32)")
    parser.add_argument("--max_seq_length", type=cli.positive_int, help="(default: that of the run)")
    parser.add_argument("--quiet", action="store_true", help="no line for each request")
    args = parser.parse_args(argv)
    if args.max_inputs > args.max_waiting:
        raise UserError(
            say(
                "--max_inputs {max_inputs}: more than --max_waiting {max_waiting}; raise that",
                max_inputs=args.max_inputs,
                max_waiting=args.max_waiting,
            )
        )
    folders = _name_models(args.models)
    cli.configure_logging("info")
    # Held from now on: rather refused at once than when the models are loaded.
    with _bind(args.host, args.port) as listener:
        batcher = Batcher(lambda: _load(folders, args), args.batch_size, args.max_waiting)
        environment.load_libraries(args.device)
        batcher.start()
        for name, model in batcher.models.items():
            logger.info("%s: %s, from %s", show(name), model.task.name, shorten(folders[name]))
        address, port = listener.getsockname()[:2]
        if not address.startswith("127.") and address != "::1":
            logger.warning(
                say(
                    "warning: --host {host}: whoever reaches this machine can use the models, unencrypted and without "
                    "a password; put a proxy before it",
                    host=shorten(args.host),
                )
            )
        listener.listen()  # whoever reads the next line may connect
        logger.info("serving at http://%s:%d/, ends by Ctrl-C", f"[{address}]" if ":" in address else address, port)
        if args.quiet:
            cli.configure_logging("warning")
        has_ended = _serve(batcher, listener, Limits(args.max_inputs, args.max_bytes), args.seconds_to_stop)
    if left := batcher.num_given_up:
        print(f"error: {say('stopped, {left} inputs were not answered', left=left)}", file=sys.stderr, flush=True)
    else:
        print(say("stopped; {num_answered} inputs answered", num_answered=batcher.num_answered), flush=True)
    if not has_ended:
        sys.stdout.flush()
        os._exit(bool(left))  # the thread is at work in Paddle, which a normal end would pull from under it
    if left:
        sys.exit(1)


def _name_models(words: Sequence[str]) -> dict[str, str]:
    """Name -> folder.

    Raises:
        UserError: there is none, a folder is missing, or two have one name.
    """
    folders: dict[str, str] = {}
    for word in words:
        given, is_named, folder = word.partition("=")
        if not is_named or Path(word).is_dir():
            given, folder = "", word
        if not Path(folder).is_dir():
            raise UserError(say("{folder}: no such folder; name the output folder of a run", folder=folder or word))
        name = given or Path(folder).resolve().name
        if name in folders:
            raise UserError(
                say(
                    "{folders} and {folder} would both be {name}: name one as NAME={folder}",
                    folders=folders[name],
                    folder=folder,
                    name=show(name),
                )
            )
        folders[name] = folder
    if not folders:
        raise UserError(say("no model: name the output folder of a run, such as models/tnews (--help shows examples)"))
    return folders


def _bind(host: str, port: int) -> socket.socket:
    """A socket with the address, which nobody can connect to yet."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
    except (OSError, UnicodeError) as error:
        raise UserError(
            say("--host {host}: {reason}", host=shorten(host), reason=getattr(error, "strerror", None) or error)
        ) from None
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        listener.close()
        raise UserError(
            say(
                "--host {host} --port {port}: {strerror}; choose another --port",
                host=shorten(host),
                port=port,
                strerror=one_line(error.strerror or str(error)),
            )
        ) from None
    return listener


def _load(folders: Mapping[str, str], args: object) -> dict[str, Model]:
    from clue_utils.predictor import Predictor

    names = ("device", "batch_size", "precision", "max_seq_length")
    settings = {name: getattr(args, name) for name in names}
    return {name: Predictor(folder, **settings) for name, folder in folders.items()}


class _Server(uvicorn.Server):
    """Says at once that it ends."""

    def handle_exit(self, sig: int, frame: Any) -> None:
        if not self.should_exit:
            left = self.config.timeout_graceful_shutdown
            cli.say_at_once(
                say("stopping: what waits is answered within {seconds} s; Ctrl-C again ends it at once", seconds=left)
            )
        super().handle_exit(sig, frame)


def _serve(batcher: Batcher, listener: socket.socket, limits: Limits, seconds_to_stop: int) -> bool:
    """Serve until a signal ends it, and answer what has come by then; a second Ctrl-C ends it at once.

    Returns:
        Whether the batcher's thread has ended.
    """
    config = uvicorn.Config(
        create_app(batcher, limits),
        http="h11",
        ws="none",
        loop="asyncio",
        lifespan="off",
        log_config=None,
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=seconds_to_stop,
    )
    server = _Server(config)
    # The signal that ended it is raised once more when everything is done.
    with contextlib.suppress(Stopped, KeyboardInterrupt):
        server.run([listener])
    return batcher.stop(0 if server.force_exit else _SECONDS_TO_END)


if __name__ == "__main__":
    cli.run(main)

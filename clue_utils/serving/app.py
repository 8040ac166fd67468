"""The HTTP interface, a FastAPI application over a :class:`~clue_utils.serving.batching.Batcher`.

- ``POST /predict``, ``POST /models/{name}/predict``: answers to one input or several;
- ``GET /models``: what is served; ``GET /health``: whether it works, and what waits;
- ``GET /``: a page to type into; ``GET /docs``: the addresses with examples; ``GET /openapi.json``.

An error is an object with one line in the server's language, ``{"error": "..."}``: 400 for what is not JSON, 404 for
a model that is not served, 408 and 413 for a body that comes too slowly or is too large (413 for too many inputs, too),
422 for an input that is not as the task wants it, with its number; 503 where too much waits already, memory does not
suffice, or the server ends.

Both pages load nothing from other hosts, and what models and users write is only ever shown as text.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastapi import FastAPI, HTTPException, Request, Response
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from clue_utils import strict_json
from clue_utils.errors import UserError, ending_of, one_line, shorten, show
from clue_utils.language import later, say
from clue_utils.serving.batching import Batcher, Model, QueueFull, Stopping
from clue_utils.serving.examples import example, form
from clue_utils.strict_json import JsonObject

logger = logging.getLogger(__name__)
_FILES = Path(__file__).parent / "files"
# Seconds that a body may take to arrive.
_BODY_SECONDS = 30
# Not a status of HTTP: what logs commonly say of a client that has gone; nobody receives it.
_CLIENT_GONE = 499
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}


@dataclass(frozen=True)
class Limits:
    """What a request may ask for.

    Attributes:
        inputs: at the most.
        body_bytes: of its body at the most.
    """

    inputs: int = 256
    body_bytes: int = 1 << 20


class _Json(Response):
    """JSON in UTF-8 that a terminal shows; half of a surrogate pair, which UTF-8 has no place for, stays an escape."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        return json.dumps(content, ensure_ascii=False, allow_nan=False).encode("utf-8", "backslashreplace")


def create_app(batcher: Batcher, limits: Limits | None = None) -> FastAPI:
    """The application for a batcher that has been started."""
    limits = limits or Limits()
    app = FastAPI(title="CLUE models", docs_url=None, redoc_url=None, default_response_class=_Json)
    app.add_middleware(_AccessLog)
    app.add_exception_handler(StarletteHTTPException, _refused)
    app.add_exception_handler(Exception, _failed)

    for path, name, media_type in (
        ("/", "page.html", "text/html"),
        ("/docs", "docs.html", "text/html"),
        ("/files/page.js", "page.js", "text/javascript"),
        ("/files/docs.js", "docs.js", "text/javascript"),
        ("/files/page.css", "page.css", "text/css"),
    ):
        _add_file(app, path, name, media_type)

    @app.get("/health", summary="Whether the server works, and what waits")
    async def health() -> _Json:
        content = {
            "status": "ok" if batcher.is_alive else "failed",
            "models": list(batcher.models),
            "waiting": batcher.num_waiting,
            "answered": batcher.num_answered,
            "batches": batcher.num_batches,
        }
        return _Json(content, 200 if batcher.is_alive else 503)

    @app.get("/models", summary="What is served")
    async def models() -> _Json:
        return _Json({"models": [_describe(name, model) for name, model in batcher.models.items()]})

    @app.post("/predict", summary="Answer inputs; `model` may be left out where one is served", **_schema())
    async def predict(request: Request) -> _Json:
        return await _answer(request, None, batcher, limits)

    @app.post("/models/{name}/predict", summary="Answer inputs with the model of this name", **_schema())
    async def predict_with(name: str, request: Request) -> _Json:
        return await _answer(request, name, batcher, limits)

    return app


def _add_file(app: FastAPI, path: str, name: str, media_type: str) -> None:
    content = (_FILES / name).read_bytes()

    @app.get(path, include_in_schema=False)
    async def file() -> Response:
        return Response(content, media_type=media_type, headers=_HEADERS)


def _describe(name: str, model: Model) -> JsonObject:
    task = model.task
    return {
        "name": name,
        "task": task.name,
        "kind": task.kind,
        "fields": form(task.fields),
        "classes": list(task.names),
        "example": example(task),
    }


def _schema() -> dict[str, Any]:
    """What the description of a route says of its body, which is read here and not by FastAPI, within the limits."""
    one = {"description": "a text, a pair of texts, or an object with the task's fields, `id` optional"}
    body = {
        "type": "object",
        "properties": {
            "model": {"type": "string"},
            "input": one,
            "inputs": {"type": "array", "items": one},
        },
    }
    error = {"type": "object", "properties": {"error": {"type": "string"}}}
    content = {"application/json": {"schema": error}}
    statuses = {
        400: "not JSON, or neither input nor inputs",
        404: "no such model",
        408: "the body came too slowly",
        413: "too large a body, or too many inputs",
        422: "an input is not as the task wants it",
        503: "too much waits already",
    }
    return {
        "openapi_extra": {"requestBody": {"required": True, "content": {"application/json": {"schema": body}}}},
        "responses": {number: {"description": text, "content": content} for number, text in statuses.items()},
    }


async def _answer(request: Request, name: str | None, batcher: Batcher, limits: Limits) -> _Json:
    body = await _read_body(request, limits.body_bytes)
    if name is None:
        name = _name_of_model(body, batcher.models)
    elif "model" in body:
        raise HTTPException(400, say("model: the address names it already"))
    if name not in batcher.models:
        names = ", ".join(batcher.models)
        raise HTTPException(404, say("no model {name} is served: name one of {names}", name=show(name), names=names))
    inputs, is_single = _inputs(body, limits.inputs)
    request.state.num_inputs = len(inputs)
    outputs = await _wait(request, name, inputs, is_single, batcher) if inputs else []
    return _Json({"model": name, **({"output": outputs[0]} if is_single else {"outputs": outputs})})


async def _wait(request: Request, name: str, inputs: list[Any], is_single: bool, batcher: Batcher) -> list[JsonObject]:
    """The answers; a request whose client has gone is dropped, if it still waits."""
    try:
        answers = asyncio.wrap_future(batcher.submit(name, inputs))
    except QueueFull:
        raise HTTPException(503, say("too much waits already: try again later"), {"Retry-After": "1"}) from None
    except Stopping:
        raise HTTPException(503, say("the server ends")) from None
    gone = asyncio.ensure_future(request.receive())  # after the body, nothing but the client's leaving is told
    try:
        await asyncio.wait((answers, gone), return_when=asyncio.FIRST_COMPLETED)
        if not answers.done():
            raise HTTPException(_CLIENT_GONE, say("the client has gone"))
        return answers.result()
    except HTTPException:
        raise
    except asyncio.CancelledError:  # the server ends, and does not wait any longer
        batcher.num_given_up += len(inputs)
        raise HTTPException(503, say("the server ends")) from None
    except Exception as error:
        if (ending := ending_of(error)) is None:
            raise
        reason = ending.reason
        if is_single and reason.startswith("inputs[0]"):
            reason = "input" + reason.removeprefix("inputs[0]")  # what the client calls it
        raise HTTPException(422 if isinstance(error, UserError) else 503, reason) from None
    finally:
        gone.cancel()
        answers.cancel()


async def _read_body(request: Request, limit: int) -> JsonObject:
    try:
        content = await asyncio.wait_for(_receive(request, limit), _BODY_SECONDS)
        body, repeated = strict_json.parse(content, remedy=later("send it in UTF-8"))
    except asyncio.TimeoutError:
        raise HTTPException(408, say("the body did not arrive within {seconds} s", seconds=_BODY_SECONDS)) from None
    except ClientDisconnect:
        raise HTTPException(_CLIENT_GONE, say("the client has gone")) from None
    except strict_json.NotJson as error:
        where = say(", line {number}", number=error.line) if error.line else ""
        raise HTTPException(400, say("the body is {error}{where}", error=error, where=where)) from None
    if repeated:
        raise HTTPException(400, say("the body has {name} twice in one object", name=show(repeated[0])))
    if not isinstance(body, dict):
        raise HTTPException(400, say('the body is no object: send {"inputs": [...]} or {"input": ...}'))
    return body


async def _receive(request: Request, limit: int) -> bytes:
    content = bytearray()
    async for part in request.stream():
        content += part
        if len(content) > limit:
            raise HTTPException(413, say("the body has more than {limit} bytes: send less at a time", limit=limit))
    return bytes(content)


def _name_of_model(body: JsonObject, models: Mapping[str, Model]) -> str:
    name = body.get("model", next(iter(models)) if len(models) == 1 else None)
    if not isinstance(name, str):
        raise HTTPException(400, say("model: name one of {names}", names=", ".join(models)))
    return name


def _inputs(body: JsonObject, limit: int) -> tuple[list[Any], bool]:
    """The inputs of a body, as a predictor takes them, and whether it asked for the answer to a single one."""
    if unknown := set(body) - {"model", "input", "inputs"}:
        raise HTTPException(400, say("{name} is unknown: send model, and inputs or input", name=show(min(unknown))))
    if ("input" in body) == ("inputs" in body):
        raise HTTPException(400, say("send either inputs, a list, or input, a single one"))
    is_single = "input" in body
    inputs = [body["input"]] if is_single else body["inputs"]
    if not isinstance(inputs, list):
        raise HTTPException(400, say("inputs is no list: send a single one as input"))
    if len(inputs) > limit:
        raise HTTPException(
            413, say("{number} inputs: send at most {limit} at a time", number=len(inputs), limit=limit)
        )
    return [tuple(one) if isinstance(one, list) else one for one in inputs], is_single


async def _refused(request: Request, error: Exception) -> _Json:
    assert isinstance(error, StarletteHTTPException)
    reason = str(error.detail)
    if error.status_code in (404, 405) and not isinstance(error, HTTPException):  # no route of ours
        address = f"{request.method} {shorten(request.scope['path'])}"
        reason = say("{address}: no such address, see /docs", address=address)
    return _Json({"error": one_line(reason)}, error.status_code, dict(error.headers or {}))


async def _failed(request: Request, error: Exception) -> _Json:
    return _Json({"error": say("the server failed, and its log says why")}, 500)


class _AccessLog:
    """Writes a line for each request: time, client, method and path, status, inputs, milliseconds."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status, begin = 500, time.perf_counter()

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, noting)
        finally:
            logger.info(
                "%s %s %s %s %d, %d inputs, %.0f ms",
                time.strftime("%H:%M:%S"),
                (scope.get("client") or ("-",))[0],
                scope["method"],
                shorten(scope["path"]),
                status,
                scope.get("state", {}).get("num_inputs", 0),
                1000 * (time.perf_counter() - begin),
            )

"""The HTTP surface, as vLLM has it."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import Awaitable
from dataclasses import dataclass, field
from typing import TypeVar

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import ValidationError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from stand_in_engine import answering, reply, script
from stand_in_engine.body import Asked, ChatAsked, NamedChoice, TextAsked
from stand_in_engine.engine import Engine
from stand_in_engine.errors import ApiError, from_validation, invalid_body, unknown_model
from stand_in_engine.script import Rule

VERSION = "0.32.0"
Body = TypeVar("Body", bound=Asked)
Result = TypeVar("Result")


class ClientGoneError(Exception):
    """The client hung up; nobody reads what is answered."""


@dataclass(frozen=True)
class Service:
    """The endpoints.

    Attributes:
        engine: Gives the answers.
        rules: Say which.
        model: Served name.
        root: The model's folder, as `/v1/models` names it.
        max_model_len: Tokens of prompt and answer together.
    """

    engine: Engine
    rules: list[Rule]
    model: str
    root: str
    max_model_len: int
    started: int = field(default=0)

    async def chat(self, request: Request) -> Response:
        """`/v1/chat/completions`."""
        asked = await self._read(request, ChatAsked)
        prompt = asked.prompt_tokens
        asked.check(prompt, self.max_model_len)
        self.engine.admit()
        plan = answering.plan_chat(
            asked, self.rules, garbage=self._garbage, room=self.max_model_len - prompt
        )
        named = isinstance(asked.tool_choice, NamedChoice)
        insisted = asked.forced is not None
        shape = reply.Chat(f"chatcmpl-{_id(request)}", self.model, plan.tool, insisted, named)
        if asked.stream:
            return self._stream(shape, plan, prompt, asked)
        done = answering.collected(self.engine, plan, prompt)
        text, reason, made = await unless_gone(request, done)
        stop = plan.stop if reason == "stop" else None
        return JSONResponse(shape.whole(text, reason, stop, reply.usage(prompt, made)))

    async def text(self, request: Request) -> Response:
        """`/v1/completions`."""
        asked = await self._read(request, TextAsked)
        sizes = [len(script.tokens_of(prompt)) for prompt in asked.prompts]
        asked.check(max(sizes), self.max_model_len)
        self.engine.admit()
        plans = [self._plan_text(asked, prompt) for prompt in asked.prompts]
        shape = reply.Text(f"cmpl-{_id(request)}", self.model)
        if asked.stream:
            return self._stream(shape, plans[0], sizes[0], asked)
        done = asyncio.gather(
            *(answering.collected(self.engine, p, s) for p, s in zip(plans, sizes, strict=True))
        )
        results = await unless_gone(request, done)
        choices = [
            shape.choice(i, text, reason, plan.stop if reason == "stop" else None)
            for i, ((text, reason, _), plan) in enumerate(zip(results, plans, strict=True))
        ]
        counts = reply.usage(sum(sizes), sum(made for _, _, made in results))
        return JSONResponse(shape.whole_of(choices, counts))

    def _plan_text(self, asked: TextAsked, prompt: str) -> answering.Plan:
        answer = script.choose(self.rules, prompt, {}, result_given=False)
        room = self.max_model_len - len(script.tokens_of(prompt))
        if asked.limit is None:
            asked = asked.model_copy(update={"max_tokens": 16})  # the API's default
        return answering.plan(answer, asked, garbage=self._garbage, room=room)

    def _stream(
        self, shape: reply.Chat | reply.Text, plan: answering.Plan, prompt: int, asked: Asked
    ) -> Response:
        events = answering.streamed(self.engine, shape, plan, prompt, asked)
        return StreamingResponse(events, media_type="text/event-stream")

    @property
    def _garbage(self) -> bool:
        return "garbage" in self.engine.faults.now()

    async def _read(self, request: Request, kind: type[Body]) -> Body:
        try:
            body = await request.json()
        except json.JSONDecodeError as error:
            found = {"type": "json_invalid", "loc": (error.pos,), "msg": "JSON decode error"}
            raise invalid_body([{**found, "input": {}}]) from None
        try:
            asked = kind.model_validate(body)
        except ValidationError as error:
            raise from_validation(error) from None
        if asked.model is not None and asked.model != self.model:
            raise unknown_model(asked.model, self.model)
        return asked

    async def tokenize(self, request: Request) -> Response:
        """`/tokenize`: words, not the model's own tokens."""
        body = await request.json()
        if "messages" in body:
            texts = [m.text for m in ChatAsked.model_validate(body).messages]
        else:
            texts = [str(body.get("prompt", ""))]
        ids = [script.token_id(token) for text in texts for token in script.tokens_of(text)]
        size = {"count": len(ids), "max_model_len": self.max_model_len}
        return JSONResponse({**size, "tokens": ids, "token_strs": None})

    async def models(self, _: Request) -> Response:
        """`/v1/models`."""
        card = {"id": self.model, "object": "model", "created": self.started, "owned_by": "vllm"}
        card |= {"root": self.root, "parent": None, "max_model_len": self.max_model_len}
        return JSONResponse({"object": "list", "data": [{**card, "permission": []}]})

    async def alive(self, _: Request) -> Response:
        """`/health`: says 200 for as long as the process lives, draining or not, as vLLM does."""
        return Response()

    async def version(self, _: Request) -> Response:
        """`/version`: of the vLLM that is stood in for."""
        return JSONResponse({"version": VERSION})

    async def metrics(self, _: Request) -> Response:
        """`/metrics`."""
        page = generate_latest(self.engine.metrics.registry)
        return Response(page, headers={"content-type": CONTENT_TYPE_LATEST})

    async def load(self, _: Request) -> Response:
        """`/load`."""
        return JSONResponse({"server_load": self.engine.open})


async def unless_gone(request: Request, work: Awaitable[Result]) -> Result:
    """Wait for `work`, and cancel it if the client hangs up meanwhile.

    Raises:
        ClientGoneError: It did.
    """
    doing = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(_hang_up(request))
    try:
        await asyncio.wait({doing, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not doing.done():
            raise ClientGoneError
        return doing.result()
    finally:
        doing.cancel()
        leaving.cancel()


async def _hang_up(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _id(request: Request) -> str:
    return request.headers.get("x-request-id") or secrets.token_hex(8)


class RequestId:
    """Answers with the request's `X-Request-Id`, or one of its own."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        given = dict(scope["headers"]).get(b"x-request-id", secrets.token_hex(16).encode())

        async def named(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"x-request-id", given)]
            await send(message)

        await self.app(scope, receive, named)


async def _refuse(_: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    return JSONResponse(error.body, error.status)


async def _unread(_: Request, __: Exception) -> Response:
    return Response(status_code=499)


async def _http(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return JSONResponse({"detail": error.detail}, error.status_code, error.headers)


def make_app(service: Service) -> Starlette:
    """The application."""
    return Starlette(
        routes=[
            Route("/v1/chat/completions", service.chat, methods=["POST"]),
            Route("/v1/completions", service.text, methods=["POST"]),
            Route("/v1/models", service.models),
            Route("/tokenize", service.tokenize, methods=["POST"]),
            Route("/health", service.alive),
            Route("/ping", service.alive, methods=["GET", "POST"]),
            Route("/version", service.version),
            Route("/load", service.load),
            Route("/metrics", service.metrics),
        ],
        middleware=[Middleware(RequestId)],
        exception_handlers={
            ApiError: _refuse,
            ClientGoneError: _unread,
            HTTPException: _http,
        },
    )

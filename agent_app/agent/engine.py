"""One streamed completion from one OpenAI-compatible engine, and every way it can fail."""

import json
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

import httpx2
import orjson

from agent_app.agent.events import Usage
from agent_app.agent.wire import read_lines

CONNECT_SECONDS = 3.0
WRITE_SECONDS = 15.0
ERROR_WORD_CHARACTERS = 80
OUR_FAULT = frozenset({400, 404, 405, 413, 415, 422})  # retrying cannot help


@dataclass(frozen=True, slots=True)
class Chunk:
    """One event of the engine's stream, in our words."""

    text: str = ""
    tool_calls: tuple[dict[str, Any], ...] = ()
    finish_reason: str | None = None
    usage: Usage | None = None
    thought: bool = False
    """It is of the model's reasoning, which is not passed on."""


OPENED = Chunk()
"""The engine took the request on; from here on it works for us."""


class EngineFailure(Exception):
    """The engine did not finish this completion.

    Args:
        reason: A short word for metrics: connect, status_503, abort, error_event, cut, silence.
        detail: What the engine said, for the log.
        reached: It took the request on, so a retry costs GPU time.
        permanent: The request is at fault and would fail again.
    """

    def __init__(
        self, reason: str, detail: str, *, reached: bool = True, permanent: bool = False
    ) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail
        self.reached = reached
        self.permanent = permanent


def engine_timeout(silence_seconds: float) -> httpx2.Timeout:
    """Return timeouts that bound a dead connection but not a long answer."""
    return httpx2.Timeout(
        connect=CONNECT_SECONDS, read=silence_seconds, write=WRITE_SECONDS, pool=CONNECT_SECONDS
    )


async def stream_completion(
    client: httpx2.AsyncClient,
    url: str,
    body: dict[str, Any],
    headers: dict[str, str],
    *,
    path: str = "/v1/chat/completions",
) -> AsyncGenerator[Chunk, None]:
    """Stream one chat completion; return only when the engine has truly finished it.

    Raises:
        EngineFailure: Anything else, "abort" and error events inside HTTP 200 included.
    """
    finished = False
    lines = stream_lines(client, f"{url}{path}", body, headers)
    try:
        async with aclosing(lines):
            async for line in lines:
                if not line:
                    yield OPENED
                if not line.startswith("data:"):
                    continue
                data = line[5:].strip()
                if data == "[DONE]":
                    break
                chunk = _read(data)
                finished = finished or chunk.finish_reason is not None
                yield chunk
    except EngineFailure:
        if not finished:  # else the answer is whole, and at most a count is missing
            raise
    if not finished:
        raise EngineFailure("cut", "the stream ended without a finish_reason")


async def stream_lines(
    client: httpx2.AsyncClient, url: str, body: dict[str, Any], headers: dict[str, str]
) -> AsyncGenerator[str, None]:
    """Yield an empty line once the engine has taken the request on, then those of its answer.

    Raises:
        EngineFailure: It cannot be reached, refuses, falls silent or cuts the stream.
    """
    try:
        async with client.stream("POST", url, json=body, headers=headers) as response:
            if response.status_code != 200:
                raise await _refusal(response)
            yield ""
            async for line in read_lines(response):
                if line:
                    yield line
    except (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout) as error:
        raise EngineFailure("connect", str(error), reached=False) from error
    except httpx2.TimeoutException as error:
        raise EngineFailure("silence", type(error).__name__) from error
    except httpx2.HTTPError as error:
        raise EngineFailure("cut", f"{type(error).__name__}: {error}") from error


async def _refusal(response: httpx2.Response) -> EngineFailure:
    await response.aread()
    status = response.status_code
    return EngineFailure(
        f"status_{status}",
        describe_refusal(response.text),
        reached=status not in {429, 502, 503, 504},
        permanent=status in OUR_FAULT,
    )


def describe_refusal(body: str) -> str:
    """Return what an engine's error says of itself, fit for a log: its type, code and field.

    Its message is left out, because engines quote the request in it; the engine's own log has it,
    under the same request ID.
    """
    try:
        document = json.loads(body)
        error = document.get("error") or document
        words = [f"{name}={error[name]}" for name in ("type", "code", "param") if error.get(name)]
    except (ValueError, AttributeError, TypeError):
        return f"{len(body)} characters that are no JSON object"
    return " ".join(word[:ERROR_WORD_CHARACTERS] for word in words)


def _read(data: str) -> Chunk:
    try:
        event = orjson.loads(data)
        if "error" in event:
            error = event["error"] or {}
            code = error.get("code") if isinstance(error, dict) else None
            raise EngineFailure("error_event", describe_refusal(data), permanent=code in OUR_FAULT)
        usage = event.get("usage")
        choices = event.get("choices") or [{}]
        delta = choices[0].get("delta") or {}
        reason = choices[0].get("finish_reason")
        if reason == "abort":
            raise EngineFailure("abort", "the engine dropped the request")
        return Chunk(
            text=delta.get("content") or "",
            tool_calls=tuple(delta.get("tool_calls") or ()),
            finish_reason=reason,
            usage=Usage(usage["prompt_tokens"], usage.get("completion_tokens") or 0)
            if usage
            else None,
            thought=bool(delta.get("reasoning") or delta.get("reasoning_content")),
        )
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise EngineFailure("garbage", f"{len(data)} characters that are no event") from error

"""One streamed completion from one OpenAI-compatible engine, and every way it can fail."""

import json
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Any

import httpx2

from agent_app.agent.events import Usage

CONNECT_SECONDS = 3.0
WRITE_SECONDS = 15.0
ERROR_BODY_BYTES = 4096
OUR_FAULT = frozenset({400, 404, 405, 413, 415, 422})  # retrying cannot help


@dataclass(frozen=True, slots=True)
class Chunk:
    """One event of the engine's stream, in our words."""

    text: str = ""
    tool_calls: tuple[dict[str, Any], ...] = ()
    finish_reason: str | None = None
    usage: Usage | None = None


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
    client: httpx2.AsyncClient, url: str, body: dict[str, Any], headers: dict[str, str]
) -> AsyncGenerator[Chunk, None]:
    """Stream one chat completion; return only when the engine has truly finished it.

    Raises:
        EngineFailure: Anything else, "abort" and error events inside HTTP 200 included.
    """
    finished = False
    try:
        async with client.stream(
            "POST", f"{url}/v1/chat/completions", json=body, headers=headers
        ) as response:
            if response.status_code != 200:
                raise await _refusal(response)
            async for line in response.aiter_lines():
                if not line.startswith("data:"):
                    continue
                data = line[5:].strip()
                if data == "[DONE]":
                    break
                chunk = _read(data)
                finished = finished or chunk.finish_reason is not None
                yield chunk
    except (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout) as error:
        raise EngineFailure("connect", str(error), reached=False) from error
    except httpx2.TimeoutException as error:
        raise EngineFailure("silence", type(error).__name__) from error
    except httpx2.HTTPError as error:
        raise EngineFailure("cut", f"{type(error).__name__}: {error}") from error
    if not finished:
        raise EngineFailure("cut", "the stream ended without a finish_reason")


async def _refusal(response: httpx2.Response) -> EngineFailure:
    await response.aread()
    status = response.status_code
    return EngineFailure(
        f"status_{status}",
        response.text[:ERROR_BODY_BYTES],
        reached=status not in {429, 502, 503, 504},
        permanent=status in OUR_FAULT,
    )


def _read(data: str) -> Chunk:
    try:
        event = json.loads(data)
        if "error" in event:
            error = event["error"] or {}
            code = error.get("code") if isinstance(error, dict) else None
            raise EngineFailure("error_event", data[:ERROR_BODY_BYTES], permanent=code in OUR_FAULT)
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
        )
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise EngineFailure("garbage", data[:200]) from error

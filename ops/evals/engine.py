"""Asks an OpenAI-compatible endpoint, streaming, so that the first token's time is known."""

from __future__ import annotations

import json
import ssl
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import httpx2

from ops.errors import OpsError
from ops.evals.graders import Reply

ANSWER_SECONDS = 300.0


@dataclass(frozen=True)
class Timed:
    """An answer with its times in seconds and its tokens."""

    reply: Reply
    first_token: float
    whole: float
    tokens: int


class Endpoint:
    """A served model.

    Args:
        url: Base address, without `/v1`.
        model: The served name.
        key: Sent as a bearer; empty for none.
        ca_file: CA of an https address, empty for the system's.
    """

    def __init__(self, url: str, model: str, key: str = "", ca_file: str = "") -> None:
        self.url = url.rstrip("/")
        self.model = model
        self._client = httpx2.Client(
            timeout=ANSWER_SECONDS,
            verify=ssl.create_default_context(cafile=ca_file or None),
            headers={"Authorization": f"Bearer {key}"} if key else {},
            trust_env=False,
            limits=httpx2.Limits(max_connections=None),
        )

    def ask(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        tools: Sequence[Mapping[str, Any]] = (),
        max_tokens: int = 256,
        temperature: float = 0.0,
        seed: int = 1,
        model: str = "",
    ) -> Timed:
        """Ask once.

        Raises:
            OpsError: The endpoint failed; that is no wrong answer but no answer.
        """
        body: dict[str, Any] = {
            "model": model or self.model,
            "messages": list(messages),
            "max_tokens": max_tokens,
            "temperature": temperature,
            "seed": seed,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        if tools:
            body["tools"] = list(tools)
        answer = _Answer()
        try:
            with self._client.stream("POST", f"{self.url}/v1/chat/completions", json=body) as got:
                if got.status_code != 200:
                    raise self._failed(f"{got.status_code} {got.read().decode()[:300]}")
                for line in got.iter_lines():
                    if line.startswith("data: ") and line != "data: [DONE]":
                        answer.take(json.loads(line[6:]))
        except (httpx2.HTTPError, ValueError) as error:
            raise self._failed(f"{type(error).__name__}: {error}") from error
        if not answer.finished:
            raise self._failed("the answer was cut")
        return answer.timed()

    def _failed(self, why: str) -> OpsError:
        return OpsError(f"{self.model} gave no answer: {why}", place=self.url)


class _Answer:
    """One stream, put together."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._first = 0.0
        self._text: list[str] = []
        self._calls: dict[int, dict[str, str]] = {}
        self._tokens = 0
        self.finished = False

    def take(self, event: Mapping[str, Any]) -> None:
        """Take in one event; an error event and "abort" are failures.

        Raises:
            ValueError: It is one.
        """
        if "error" in event:
            raise ValueError(json.dumps(event["error"])[:300])
        if usage := event.get("usage"):
            self._tokens = usage.get("completion_tokens") or 0
        for choice in event.get("choices") or ():
            delta = choice.get("delta") or {}
            if choice.get("finish_reason") == "abort":
                raise ValueError("abort")
            self.finished = self.finished or choice.get("finish_reason") is not None
            if (delta.get("content") or delta.get("tool_calls")) and not self._first:
                self._first = time.monotonic()
            self._text.append(delta.get("content") or "")
            for call in delta.get("tool_calls") or ():
                entry = self._calls.setdefault(call.get("index", 0), {"name": "", "arguments": ""})
                function = call.get("function") or {}
                entry["name"] += function.get("name") or ""
                entry["arguments"] += function.get("arguments") or ""

    def timed(self) -> Timed:
        """The whole."""
        now = time.monotonic()
        calls = tuple(call for _, call in sorted(self._calls.items()))
        return Timed(
            Reply("".join(self._text), calls),
            (self._first or now) - self._began,
            now - self._began,
            self._tokens,
        )

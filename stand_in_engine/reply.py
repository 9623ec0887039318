"""Answers in vLLM's shapes: whole, as chunks of a stream, for chat and for plain completions."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

FINGERPRINT = "vllm-0.32.0-stand-in"
NOTHING_ELSE: dict[str, Any] = {
    "prompt_logprobs": None,
    "prompt_token_ids": None,
    "prompt_text": None,
    "kv_transfer_params": None,
    "ec_transfer_params": None,
    "metrics": None,
}


def event(data: dict[str, Any]) -> str:
    """A server-sent event."""
    return f"data: {json.dumps(data, ensure_ascii=False, separators=(',', ':'))}\n\n"


DONE = "data: [DONE]\n\n"


def usage(prompt: int, made: int) -> dict[str, Any]:
    """Token counts."""
    return {"prompt_tokens": prompt, "total_tokens": prompt + made, "completion_tokens": made}


def _call_id() -> str:
    return f"chatcmpl-tool-{secrets.token_hex(8)}"


@dataclass(frozen=True)
class Chat:
    """Shapes of `/v1/chat/completions`.

    Attributes:
        id: Of the request, as vLLM makes it from `X-Request-Id`.
        model: Served name.
        tool: Name of the tool that the answer calls; its text is then the arguments.
        insisted: The request insisted on a call; the content is then empty instead of null.
        named: It named the tool too; the finish reason is then `stop`.
    """

    id: str
    model: str
    tool: str | None = None
    insisted: bool = False
    named: bool = False
    created: int = field(default_factory=lambda: int(time.time()))

    def _frame(self, kind: str, choices: list[dict[str, Any]]) -> dict[str, Any]:
        frame = {"id": self.id, "object": kind, "created": self.created, "model": self.model}
        return {**frame, "choices": choices}

    def _finish(self, reason: str) -> str:
        return "tool_calls" if self.tool and reason == "stop" and not self.named else reason

    def whole(self, text: str, reason: str, stop: str | None, counts: dict[str, Any]) -> Any:
        """The answer of a request that does not stream."""
        message: dict[str, Any] = {"role": "assistant", "content": text, "refusal": None}
        message |= {"annotations": None, "audio": None, "function_call": None}
        if self.tool:
            function = {"name": self.tool, "arguments": text}
            call = {"id": _call_id(), "type": "function", "function": function}
            message |= {"content": "" if self.insisted else None, "tool_calls": [call]}
        choice = {
            "index": 0,
            "message": {**message, "reasoning": None},
            "logprobs": None,
            "finish_reason": self._finish(reason),
            "stop_reason": stop,
            "token_ids": None,
            "routed_experts": None,
        }
        details = {"prompt_tokens_details": None, "completion_tokens_details": None}
        return {
            **self._frame("chat.completion", [choice]),
            "service_tier": None,
            "system_fingerprint": FINGERPRINT,
            "usage": {**counts, **details},
            **NOTHING_ELSE,
        }

    def _chunk(self, delta: dict[str, Any], **more: Any) -> dict[str, Any]:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": None, **more}
        return self._frame("chat.completion.chunk", [choice])

    def opening(self) -> Iterator[dict[str, Any]]:
        """What comes before the first token's own chunk."""
        role = {"role": "assistant", "content": ""}
        yield {**self._chunk(role), "prompt_token_ids": None, "prompt_text": None}
        if self.tool:
            call = {"id": _call_id(), "type": "function", "index": 0}
            delta = {"content": None, "tool_calls": [{**call, "function": {"name": self.tool}}]}
            yield self._chunk(delta, token_ids=None)

    def token(self, text: str) -> dict[str, Any]:
        """A token in the middle."""
        return self._chunk(self._delta(text), token_ids=None)

    def _delta(self, text: str) -> dict[str, Any]:
        if not self.tool:
            return {"content": text}
        return {
            "content": None,
            "tool_calls": [{"index": 0, "function": {"arguments": text}}],
        }

    def ending(
        self, text: str, reason: str, stop: str | None, *, fingerprint: bool
    ) -> Iterator[dict[str, Any]]:
        """The last token and why it is the last."""
        if self.tool and text:
            yield self.token(text)
            text = ""
        delta = {} if self.tool else {"content": text}
        end = {"finish_reason": self._finish(reason), "stop_reason": stop, "token_ids": None}
        chunk = self._chunk(delta, **end)
        yield {**chunk, "system_fingerprint": FINGERPRINT} if fingerprint else chunk

    def usage(self, counts: dict[str, Any]) -> dict[str, Any]:
        """The chunk after the last, where the client asked for it."""
        frame = self._frame("chat.completion.chunk", [])
        return {**frame, "usage": counts, "system_fingerprint": FINGERPRINT}


@dataclass(frozen=True)
class Text:
    """Shapes of `/v1/completions`; the same methods as `Chat`."""

    id: str
    model: str
    created: int = field(default_factory=lambda: int(time.time()))

    def _frame(self, choices: list[dict[str, Any]]) -> dict[str, Any]:
        frame = {"id": self.id, "object": "text_completion", "created": self.created}
        return {**frame, "model": self.model, "choices": choices}

    @staticmethod
    def choice(index: int, text: str, reason: str | None, stop: str | None) -> dict[str, Any]:
        """One prompt's answer, or a piece of it."""
        end = {"logprobs": None, "finish_reason": reason, "stop_reason": stop, "token_ids": None}
        return {"index": index, "text": text, **end, "prompt_token_ids": None}

    def whole_of(self, choices: list[dict[str, Any]], counts: dict[str, Any]) -> dict[str, Any]:
        """The answer to all prompts of a request."""
        details = {"prompt_tokens_details": None, "completion_tokens_details": None}
        return {
            **self._frame(
                [{**c, "prompt_logprobs": None, "routed_experts": None} for c in choices]
            ),
            "service_tier": None,
            "system_fingerprint": FINGERPRINT,
            "usage": {**counts, **details},
            "kv_transfer_params": None,
            "ec_transfer_params": None,
            "metrics": None,
        }

    def opening(self) -> Iterator[dict[str, Any]]:
        """Nothing comes before the first token."""
        yield from ()

    def token(self, text: str) -> dict[str, Any]:
        """A token in the middle."""
        return self._frame([self.choice(0, text, None, None)])

    def ending(
        self, text: str, reason: str, stop: str | None, *, fingerprint: bool
    ) -> Iterator[dict[str, Any]]:
        """The last token and why it is the last; the fingerprint comes with the usage alone."""
        del fingerprint
        yield self._frame([self.choice(0, text, reason, stop)])

    def usage(self, counts: dict[str, Any]) -> dict[str, Any]:
        """The chunk after the last, where the client asked for it."""
        return {**self._frame([]), "usage": counts, "system_fingerprint": FINGERPRINT}

"""One message of the model, put together from the chunks of its stream."""

import hashlib
from collections.abc import Sequence
from typing import Any

from agent_app.agent.conversation import Message, estimate
from agent_app.agent.engine import Chunk
from agent_app.agent.events import NO_USAGE, Usage

TOOL_CALL_ID_LENGTH = 9  # what Mistral's templates insist on; others take any


class Answer:
    """Collects chunks.

    Args:
        step: Names the message: run and step, so that a replay of the step gives the same name.
        prompt: What the engine was given; without it an estimate has the answer alone.
    """

    def __init__(self, step: str, prompt: Sequence[Message] = ()) -> None:
        self._step = step
        self._prompt = prompt
        self._begun = False
        self._text: list[str] = []
        self._calls: dict[int, dict[str, str]] = {}
        self._usage: Usage | None = None
        self._chunks = 0
        self.finish_reason = "stop"

    def add(self, chunk: Chunk) -> None:
        """Take in the next chunk."""
        self._begun = True
        if chunk.text:
            self._text.append(chunk.text)
        for delta in chunk.tool_calls:
            self._add_call(delta)
        self._chunks += bool(chunk.text or chunk.tool_calls)
        self._usage = chunk.usage or self._usage
        self.finish_reason = chunk.finish_reason or self.finish_reason

    def withdraw(self, *, calls_only: bool = False) -> None:
        """Forget calls, and the text as well where it does not stand."""
        self._calls = {}
        if not (calls_only and self._text):
            self._begun, self._text, self._usage, self._chunks = False, [], None, 0
            self.finish_reason = "stop"

    def _add_call(self, delta: dict[str, Any]) -> None:
        call = self._calls.setdefault(delta.get("index", 0), {"name": "", "arguments": ""})
        function = delta.get("function") or {}
        call["name"] += function.get("name") or ""
        call["arguments"] += function.get("arguments") or ""

    @property
    def usage(self) -> Usage:
        """The engine's latest count; where it gave none, an estimate from prompt and chunks."""
        if self._usage is not None:
            return self._usage
        return Usage(estimate(self._prompt), self._chunks) if self._begun else NO_USAGE

    @property
    def message(self) -> Message:
        """The whole message.

        Tool calls get ids of our own: unique and the same on replay, whatever the engine gives.
        """
        message: Message = {"id": self._step, "role": "assistant", "content": "".join(self._text)}
        if self._calls:
            message["tool_calls"] = [
                {
                    "id": call_id(self._step, index),
                    "type": "function",
                    "function": {**call, "arguments": call["arguments"] or "{}"},
                }
                for index, call in sorted(self._calls.items())
            ]
        return message


def call_id(step: str, index: int) -> str:
    """Return the id of a step's tool call by its place."""
    return hashlib.sha256(f"{step}/{index}".encode()).hexdigest()[:TOOL_CALL_ID_LENGTH]

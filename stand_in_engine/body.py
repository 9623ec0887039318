"""What a client may ask: the fields that mean something here; all others pass unread."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from stand_in_engine.errors import bad_value
from stand_in_engine.script import tokens_of

PER_MESSAGE = 4  # tokens that a chat template adds around a message, roughly


class StreamOptions(BaseModel):
    """`stream_options`."""

    include_usage: bool | None = False
    continuous_usage_stats: bool | None = False


class Asked(BaseModel):
    """What both endpoints share."""

    model_config = ConfigDict(extra="allow")

    model: str | None = None
    max_tokens: int | None = None
    temperature: float | None = None
    n: int = 1
    stop: str | list[str] | None = None
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    ignore_eos: bool = False
    logprobs: bool | int | None = None

    @property
    def limit(self) -> int | None:
        """Most tokens to generate."""
        return self.max_tokens

    @property
    def include_usage(self) -> bool:
        """Whether a stream ends with the usage."""
        return bool(self.stream_options and self.stream_options.include_usage)

    @property
    def usage_in_chunks(self) -> bool:
        """Whether each chunk of a stream carries the usage so far."""
        options = self.stream_options
        return bool(options and options.include_usage and options.continuous_usage_stats)

    @property
    def stops(self) -> list[str]:
        """Texts that end the answer."""
        return [self.stop] if isinstance(self.stop, str) else self.stop or []

    def check(self, prompt_tokens: int, max_model_len: int) -> None:
        """Refuse what vLLM refuses.

        Raises:
            ApiError: 400, with the field.
        """
        if self.temperature is not None and self.temperature < 0:
            message = f"temperature must be non-negative, got {self.temperature}."
            raise bad_value(message, "temperature", self.temperature)
        if self.n != 1:
            raise bad_value(f"n must be 1 when using greedy sampling, got {self.n}.", None)
        if self.stream_options and not self.stream:
            message = "Stream options can only be defined when `stream=True`."
            raise bad_value(message, "stream_options")
        if self.logprobs:
            raise bad_value("logprobs are not available: there is no model here.", "logprobs")
        if self.limit is not None and self.limit < 1:
            message = f"max_tokens must be at least 1, got {self.limit}."
            raise bad_value(message, "max_tokens", self.limit)
        if self.limit is not None and self.limit > max_model_len:
            message = (
                f"max_tokens={self.limit} cannot be greater than max_model_len={max_model_len}. "
                "Please request fewer output tokens."
            )
            raise bad_value(message, "max_tokens", self.limit)
        if prompt_tokens > max_model_len:
            message = (
                f"This model's maximum context length is {max_model_len} tokens. However, your "
                f"prompt contains {prompt_tokens} input tokens, which exceeds this limit even "
                "without any output tokens. Please reduce the length of the input prompt."
            )
            raise bad_value(message, "input_tokens", prompt_tokens)


class Message(BaseModel):
    """One message of a conversation."""

    model_config = ConfigDict(extra="allow")

    role: str
    content: str | list[dict[str, Any]] | None = None

    @property
    def text(self) -> str:
        """All text of the message."""
        if isinstance(self.content, list):
            return "\n".join(str(part.get("text", "")) for part in self.content)
        return self.content or ""


class Function(BaseModel):
    """A function that a tool offers."""

    name: str
    parameters: dict[str, Any] | None = None


class Tool(BaseModel):
    """A tool."""

    function: Function


class NamedChoice(BaseModel):
    """The tool that must be called."""

    function: Function


class ChatAsked(Asked):
    """Body of `/v1/chat/completions`."""

    messages: list[Message]
    max_completion_tokens: int | None = None
    tools: list[Tool] | None = None
    tool_choice: NamedChoice | str | None = None
    continue_final_message: bool = False
    add_generation_prompt: bool = True

    @property
    def begun(self) -> str:
        """The beginning of the answer, where the last message is that."""
        return self.messages[-1].text if self.continue_final_message else ""

    @property
    def result_given(self) -> bool:
        """The conversation has a tool's result for its question already."""
        before = self.messages[:-1] if self.continue_final_message else self.messages
        return bool(before) and before[-1].role == "tool"

    @property
    def limit(self) -> int | None:
        """Most tokens to generate."""
        return self.max_completion_tokens or self.max_tokens

    @property
    def prompt_tokens(self) -> int:
        """Length of the conversation."""
        return sum(PER_MESSAGE + len(tokens_of(message.text)) for message in self.messages)

    @property
    def question(self) -> str:
        """The last user message."""
        return next((m.text for m in reversed(self.messages) if m.role == "user"), "")

    @property
    def offered(self) -> dict[str, Any]:
        """Tools that may be called, by name."""
        if self.tool_choice == "none":
            return {}
        return {tool.function.name: tool.function.model_dump() for tool in self.tools or []}

    @property
    def forced(self) -> str | None:
        """The tool that must be called, if any must."""
        if isinstance(self.tool_choice, NamedChoice):
            return self.tool_choice.function.name
        return next(iter(self.offered), None) if self.tool_choice == "required" else None

    def check(self, prompt_tokens: int, max_model_len: int) -> None:
        """Refuse an empty conversation too.

        Raises:
            ApiError: 400.
        """
        if not self.messages:
            message = "Cannot apply chat template to an empty conversation."
            raise bad_value(f"{message} Provide at least one message.", None)
        if self.continue_final_message and self.add_generation_prompt:
            message = (
                "Cannot set both `continue_final_message` and `add_generation_prompt` to True."
            )
            raise bad_value(message, None)
        super().check(prompt_tokens, max_model_len)


class TextAsked(Asked):
    """Body of `/v1/completions`."""

    prompt: str | list[str] | None = Field(default=None)

    @property
    def prompts(self) -> list[str]:
        """One or several prompts.

        Raises:
            ApiError: 400, none is given.
        """
        given = [self.prompt] if isinstance(self.prompt, str) else self.prompt
        if not given:
            raise bad_value(
                "Either prompt or prompt_embeds must be provided and non-empty.", "prompt"
            )
        return given

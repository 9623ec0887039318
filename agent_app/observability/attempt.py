"""What is measured and traced of one attempt at one engine."""

import time
from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from agent_app.observability import metrics, tracing

if TYPE_CHECKING:
    from agent_app.agent.engine import Chunk


class AttemptWatch:
    """Times the first token and every gap; costs 0.2 µs a chunk, as measured.

    Args:
        model: The served name.
        url: The engine's address.
        body: The request; only its parameters are read.
    """

    __slots__ = ("_finish", "_first", "_gaps", "_last", "_model", "_span", "_started", "_usage")

    def __init__(self, model: str, url: str, body: Mapping[str, Any]) -> None:
        self._model = model
        self._gaps = metrics.TOKEN_GAP.labels(model)
        self._first = self._last = 0.0
        self._usage: Any = None
        self._finish = ""
        self._span = tracing.begin(f"chat {model}", "client", _attributes(model, url, body))
        self._started = time.perf_counter()

    @property
    def headers(self) -> Mapping[str, str]:
        """Trace context for the engine."""
        return self._span.headers

    def saw(self, chunk: "Chunk") -> None:
        """Note a chunk of the answer."""
        if chunk.text or chunk.tool_calls:
            now = time.perf_counter()
            if self._last:
                self._gaps.observe(now - self._last)
            else:
                self._first = now - self._started
                metrics.ENGINE_FIRST_TOKEN.labels(self._model).observe(self._first)
            self._last = now
        self._usage = chunk.usage or self._usage
        self._finish = chunk.finish_reason or self._finish

    def passed_on(self) -> None:
        """Begin the next gap: what a slow client took of the last one is not the engine's."""
        if self._last:
            self._last = time.perf_counter()

    def __enter__(self) -> "AttemptWatch":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End the span; a consumer that went away is no failure of the engine."""
        if self._span is tracing.NOTHING:
            return
        found: dict[str, tracing.Value] = {"gen_ai.response.model": self._model}
        if self._first:
            found["gen_ai.response.time_to_first_chunk"] = self._first
        if self._finish:
            found["gen_ai.response.finish_reasons"] = (self._finish,)
        if self._usage is not None:
            found["gen_ai.usage.input_tokens"] = self._usage.prompt_tokens
            found["gen_ai.usage.output_tokens"] = self._usage.completion_tokens
        self._span.set(found)
        if kind is GeneratorExit:
            self._span.event("client_left")
        elif error is not None:
            self._span.fail(getattr(error, "reason", None) or type(error).__name__)
        self._span.end()


def _attributes(model: str, url: str, body: Mapping[str, Any]) -> dict[str, tracing.Value]:
    engine = urlsplit(url)
    found: dict[str, tracing.Value] = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "vllm",
        "gen_ai.request.model": model,
        "gen_ai.request.stream": True,
        "server.address": engine.hostname or "",
        "server.port": engine.port or (443 if engine.scheme == "https" else 80),
    }
    for name in ("max_tokens", "temperature", "top_p", "seed"):
        value = body.get(name)
        if isinstance(value, int | float):
            found[f"gen_ai.request.{name}"] = value
    return found

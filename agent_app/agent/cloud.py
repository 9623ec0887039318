"""One OpenAI-compatible service elsewhere: what is sent there, its breaker, its price."""

import ssl
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import httpx2
import structlog

from agent_app.agent.conversation import Message
from agent_app.agent.engine import Chunk, EngineFailure, engine_timeout, stream_completion
from agent_app.agent.events import Usage
from agent_app.config import Cloud
from agent_app.observability import metrics

SENT = frozenset(
    {
        "messages",
        "tools",
        "tool_choice",
        "parallel_tool_calls",
        "temperature",
        "top_p",
        "frequency_penalty",
        "presence_penalty",
        "seed",
        "stop",
        "response_format",
    }
)
"""OpenAI's own parameters; what vLLM alone knows stays here."""
SENT_OF_A_MESSAGE = frozenset({"role", "content", "name", "tool_calls", "tool_call_id"})

log = structlog.get_logger(__name__)


class Breaker:
    """Leaves a service alone after failures in a row, then lets one request try it.

    Args:
        failures: So many open it.
        seconds: For so long.
    """

    def __init__(self, *, failures: int, seconds: float) -> None:
        self._most = failures
        self._seconds = seconds
        self._failures = 0
        self._open_until = 0.0
        self._trying = False

    @property
    def lets_through(self) -> bool:
        """Whether a request may go now."""
        if self._failures < self._most:
            return True
        return time.monotonic() >= self._open_until and not self._trying

    def begin(self) -> None:
        """A request goes."""
        self._trying = self._failures >= self._most

    def failed(self) -> None:
        """It was the service's fault."""
        self._failures += 1
        self._open_until = time.monotonic() + self._seconds
        self._trying = False

    def succeeded(self) -> None:
        """It answered."""
        self._failures = 0
        self._trying = False

    def let_go(self) -> None:
        """Nothing was learnt: the client left, or the request was at fault."""
        self._trying = False


class CloudEngine:
    """Streams completions from one cloud.

    Args:
        config: Where and how.
        secret: Its API key, or "".
        client: HTTP client of its own: with the system's CAs, not the fleet's.
    """

    def __init__(self, config: Cloud, secret: str, client: httpx2.AsyncClient) -> None:
        self.config = config
        self.name = f"cloud:{config.name}"
        self.breaker = Breaker(failures=config.breaker_failures, seconds=config.breaker_seconds)
        self._client = client
        self._secret = secret
        self._url = str(config.endpoint).rstrip("/")

    async def stream(self, body: dict[str, Any], *, request_id: str) -> AsyncGenerator[Chunk, None]:
        """Stream one completion, with one attempt.

        Args:
            body: The request as our own engine would get it.
            request_id: All that tells it which request this is; never a key of ours.

        Raises:
            EngineFailure: It did not finish it.
        """
        deadline = time.monotonic() + self.config.seconds
        self.breaker.begin()
        try:
            async with aclosing(
                stream_completion(
                    self._client,
                    self._url,
                    self.request(body),
                    self._headers(request_id),
                    path="/chat/completions",
                )
            ) as chunks:
                async for chunk in chunks:
                    if time.monotonic() > deadline:
                        raise EngineFailure("slow", f"longer than {self.config.seconds:g} s")
                    yield chunk
            self.breaker.succeeded()
        except EngineFailure as failure:
            if not failure.permanent:
                self.breaker.failed()
            raise self._note(failure) from None
        finally:
            self.breaker.let_go()

    def request(self, body: dict[str, Any]) -> dict[str, Any]:
        """Return what crosses: messages, tools and OpenAI's own parameters, nothing else."""
        sent = {
            name: value
            for name, value in body.items()
            if name in SENT and name not in self.config.drop
        }
        return {
            **sent,
            "messages": [_plain(message) for message in body["messages"]],
            self.config.max_tokens_field: body["max_tokens"],
            "model": self.config.model,
            "stream": True,
            "stream_options": {"include_usage": True},
        }

    def cost(self, usage: Usage) -> float:
        """Return the price of these tokens, in the currency of the configuration."""
        prompt = usage.prompt_tokens * self.config.price_per_million_prompt
        completion = usage.completion_tokens * self.config.price_per_million_completion
        return round((prompt + completion) / 1e6, 6)

    def _headers(self, request_id: str) -> dict[str, str]:
        headers = {**self.config.headers, "X-Request-Id": request_id}
        if self._secret:
            name = self.config.credential_header
            bearer = name.lower() == "authorization"
            headers[name] = f"Bearer {self._secret}" if bearer else self._secret
        return headers

    def _note(self, failure: EngineFailure) -> EngineFailure:
        """Log a failure, without our secret if the service repeats it."""
        detail = failure.detail
        if self._secret:
            detail = detail.replace(self._secret, "…")
        metrics.ENGINE_FAILURES.labels(self.name, failure.reason).inc()
        log.warning("cloud_failed", cloud=self.name, reason=failure.reason, detail=detail)
        return EngineFailure(
            failure.reason, detail, reached=failure.reached, permanent=failure.permanent
        )


def _plain(message: Message) -> Message:
    return {name: value for name, value in message.items() if name in SENT_OF_A_MESSAGE}


def make_cloud_client(config: Cloud) -> httpx2.AsyncClient:
    """Return the client for one cloud; it follows no redirect, so the API key goes nowhere else."""
    return httpx2.AsyncClient(
        timeout=engine_timeout(config.silence_seconds),
        verify=ssl.create_default_context(cafile=config.tls_ca_file or None),
        proxy=config.proxy or None,
        trust_env=False,
        follow_redirects=False,
    )

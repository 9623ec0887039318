"""Texts become vectors at an endpoint that speaks OpenAI's `/v1/embeddings`."""

import asyncio
import math
import ssl
from typing import Any

import httpx2

from agent_app.config import Embeddings

CONNECT_SECONDS = 3.0
_CURES = {
    401: "check embeddings.credential",
    403: "check embeddings.credential",
    404: "check embeddings.endpoint and embeddings.model",
}


class EmbeddingFailure(Exception):
    """The endpoint gave no vectors; the message tells why, without the request's texts."""


class EmbeddingClient:
    """Asks one endpoint, for the semantic cache and the knowledge base.

    Args:
        config: Where, and how long its vectors are.
        secret: Its API key, or "".
        ca_file: CA that vouches for it; "" means the system's. Of use for a resident one only.
    """

    def __init__(self, config: Embeddings, secret: str, ca_file: str) -> None:
        self.config = config
        base = str(config.endpoint).rstrip("/")
        self._url = f"{base}/embeddings" if _path(config) else f"{base}/v1/embeddings"
        self._headers = {"Authorization": f"Bearer {secret}"} if secret else {}
        trusted = ca_file if config.resident else ""
        self._client = httpx2.AsyncClient(
            timeout=httpx2.Timeout(config.seconds, connect=min(config.seconds, CONNECT_SECONDS)),
            trust_env=False,
            verify=ssl.create_default_context(cafile=trusted or None),
        )

    @property
    def identity(self) -> str:
        """What vectors must have in common to be compared: model, and how passages are marked."""
        prefix = self.config.document_prefix
        return f"{self.config.model} after {prefix!r}" if prefix else self.config.model

    def may_read(self, *, resident: bool) -> bool:
        """Tell whether a text of a key may go there; those of resident keys stay on our hosts."""
        return self.config.resident or not resident

    async def passages(self, texts: list[str]) -> list[list[float]]:
        """Return the vectors of passages, in their order.

        Raises:
            EmbeddingFailure: The endpoint did not give them.
        """
        return await self._ask([self.config.document_prefix + text for text in texts])

    async def question(self, text: str) -> list[float]:
        """Return the vector of a question.

        Raises:
            EmbeddingFailure: The endpoint did not give it.
        """
        return (await self._ask([self.config.query_prefix + text]))[0]

    async def aclose(self) -> None:
        """Close its connections."""
        await self._client.aclose()

    async def _ask(self, texts: list[str]) -> list[list[float]]:
        body = {"model": self.config.model, "input": texts, "encoding_format": "float"}
        seconds = self.config.seconds
        try:
            async with asyncio.timeout(seconds):
                response = await self._client.post(self._url, json=body, headers=self._headers)
        except (httpx2.TimeoutException, TimeoutError) as error:
            raise EmbeddingFailure(f"the endpoint took longer than {seconds:g} s") from error
        except httpx2.HTTPError as error:
            raise EmbeddingFailure(
                f"the endpoint cannot be reached: {type(error).__name__}"
            ) from error
        if response.status_code != 200:
            cure = _CURES.get(response.status_code, "")
            raise EmbeddingFailure(
                f"the endpoint answers {response.status_code}{cure and ': '}{cure}"
            )
        return self._vectors(response, len(texts))

    def _vectors(self, response: httpx2.Response, count: int) -> list[list[float]]:
        try:
            data: list[dict[str, Any]] = response.json()["data"]
            found = [
                [float(value) for value in item["embedding"]]
                for item in sorted(data, key=lambda item: int(item["index"]))
            ]
        except (KeyError, TypeError, ValueError) as error:
            raise EmbeddingFailure("the endpoint's answer is not one of OpenAI's") from error
        if len(found) != count:
            raise EmbeddingFailure(f"the endpoint gave {len(found)} vectors for {count} texts")
        for vector in found:
            if len(vector) != self.config.dimensions:
                raise EmbeddingFailure(
                    f"vectors of {self.config.model} have {len(vector)} dimensions, "
                    f"not {self.config.dimensions}: set embeddings.dimensions"
                )
            if not all(map(math.isfinite, vector)):
                raise EmbeddingFailure("the endpoint gave a vector with values that are no numbers")
        return found


def _path(config: Embeddings) -> str:
    return (config.endpoint.path or "").strip("/")

"""The HTTP client with which a server at a URL is reached."""

import ssl
from collections.abc import AsyncIterator

import httpx2

from agent_app.config import McpServer, read_secret
from agent_app.errors import ConfigError

CONNECT_SECONDS = 5.0
WRITE_SECONDS = 15.0
MESSAGE_BYTES = 1_048_576


class _BoundedStream(httpx2.AsyncByteStream):
    def __init__(self, stream: httpx2.AsyncByteStream) -> None:
        self._stream = stream

    async def __aiter__(self) -> AsyncIterator[bytes]:
        size = 0
        async for chunk in self._stream:
            size += len(chunk)
            if size > MESSAGE_BYTES:
                raise httpx2.StreamError(f"the result is over {MESSAGE_BYTES} bytes")
            yield chunk

    async def aclose(self) -> None:
        await self._stream.aclose()


class BoundedTransport(httpx2.AsyncHTTPTransport):
    """Ends answers beyond a size; those of event streams the SDK bounds event by event."""

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send the request and bound its answer."""
        response = await super().handle_async_request(request)
        kind = response.headers.get("content-type", "")
        if not kind.startswith("text/event-stream"):
            assert isinstance(response.stream, httpx2.AsyncByteStream)
            response.stream = _BoundedStream(response.stream)
        return response


def read_headers(settings: McpServer) -> dict[str, str]:
    """Return the headers that the configuration names, from their credentials.

    Raises:
        ConfigError: A credential is missing, or is not fit for a header.
    """
    headers = {name: read_secret(credential) for name, credential in settings.headers.items()}
    for name, value in headers.items():
        if not value.isascii() or not value.isprintable():
            raise ConfigError(
                f"the value of header {name} must be one line of ASCII",
                place=f"credential {settings.headers[name]}",
                cure="write nothing but the header's value into it",
            )
    return headers


def make_client(headers: dict[str, str], ca_file: str) -> httpx2.AsyncClient:
    """Return a client without a bound on silence: each call has its own."""
    return httpx2.AsyncClient(
        headers=headers,
        timeout=httpx2.Timeout(
            connect=CONNECT_SECONDS, read=None, write=WRITE_SECONDS, pool=CONNECT_SECONDS
        ),
        transport=BoundedTransport(verify=ssl.create_default_context(cafile=ca_file or None)),
        trust_env=False,
    )

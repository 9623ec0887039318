"""Starts the sessions with the configured servers, in tasks of their own."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any

from mcp.client.streamable_http import streamable_http_client

from agent_app.config import Config, McpServer
from agent_app.state.audit import Audit
from agent_app.tools.mcp.http import MESSAGE_BYTES, make_client, read_headers
from agent_app.tools.mcp.link import OpenTransport, ServerLink
from agent_app.tools.mcp.stdio import make_environment, open_stdio
from agent_app.tools.mcp.tool import McpTool
from agent_app.tools.toolbox import Tool

START_SECONDS = 2.0
"""How long a start waits for first sessions, so that a first question finds the tools; a server
that takes longer joins later."""


async def start_servers(
    config: Config, stack: contextlib.AsyncExitStack, audit: Audit
) -> tuple[list[ServerLink], list[Tool]]:
    """Return the servers and their tools; the sessions end with the stack.

    Raises:
        ConfigError: A credential is missing.
    """
    for name in ("mcp", "client"):  # the SDK's loggers, which repeat what a server sends
        logging.getLogger(name).setLevel(logging.CRITICAL)
    links = [
        ServerLink(name, settings, _make_opener(name, settings, config.tls_ca_file), audit)
        for name, settings in config.tools.mcp.items()
    ]
    tasks = [asyncio.create_task(link.work(), name=f"mcp-{link.name}") for link in links]
    stack.push_async_callback(_end, tasks)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(START_SECONDS):
            await asyncio.gather(*(link.settled() for link in links))
    return links, [McpTool(link, tool) for link in links for tool in link.settings.tools]


async def _end(tasks: "list[asyncio.Task[None]]") -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _make_opener(name: str, settings: McpServer, ca_file: str) -> OpenTransport:
    if settings.url is None:
        return partial(open_stdio, name, settings, make_environment(settings))
    return partial(_open_http, str(settings.url), read_headers(settings), ca_file)


@contextlib.asynccontextmanager
async def _open_http(
    url: str, headers: dict[str, str], ca_file: str, _ended: Callable[[], None]
) -> AsyncIterator[Any]:
    async with (
        make_client(headers, ca_file) as client,
        streamable_http_client(
            url, http_client=client, max_sse_event_size=MESSAGE_BYTES
        ) as streams,
    ):
        yield streams

"""The session with one server: held, watched, and made anew when it ends."""

import asyncio
import contextlib
import random
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import anyio
import structlog
from mcp import Client, MCPError
from mcp.client import ClientSession
from mcp.client.subscriptions import ListenNotSupportedError, SubscriptionLost
from mcp_types import (
    CONNECTION_CLOSED,
    INVALID_PARAMS,
    INVALID_REQUEST,
    METHOD_NOT_FOUND,
    CallToolRequest,
    CallToolRequestParams,
    CallToolResult,
    Implementation,
    ServerNotification,
    ToolListChangedNotification,
)
from mcp_types import Tool as ServerTool
from pydantic import ValidationError

from agent_app import __version__
from agent_app.config import McpServer
from agent_app.observability import metrics
from agent_app.state.audit import Audit
from agent_app.tools.mcp.schema import Offer, Unfit, clean, read_tool
from agent_app.tools.toolbox import OutcomeUnknown, ToolUnavailable

CONNECT_SECONDS = 20.0  # a server of before 2026 may take ten to let the first question go
LIST_SECONDS = 10.0
LISTED_TOOLS = 1_000
RELIST_SECONDS = 60.0  # also how soon a server that died in silence is noticed
SETTLE_SECONDS = 0.5  # changes that come together are read once
FIRST_PAUSE_SECONDS = 0.2
LONGEST_PAUSE_SECONDS = 30.0
STEADY_SECONDS = 30.0  # a session that lasted so long ends the backoff
WAIT_SECONDS = 5.0  # how long a call waits for a session that is being made
NOT_DONE = frozenset({INVALID_PARAMS, INVALID_REQUEST, METHOD_NOT_FOUND})
ERROR_CHARACTERS = 300

log = structlog.get_logger(__name__)

Transport = AbstractAsyncContextManager[Any]
OpenTransport = Callable[[Callable[[], None]], Transport]
"""Given what to call when the connection ends, returns a transport not yet entered."""


class ServerLink:
    """One server.

    Args:
        name: As the configuration names it.
        settings: What of it may be used.
        open_transport: How it is reached.
        audit: Told when a tool is not what it was.
    """

    def __init__(
        self, name: str, settings: McpServer, open_transport: OpenTransport, audit: Audit
    ) -> None:
        self.name = name
        self.settings = settings
        self.offers: dict[str, Offer] = {}
        """What of the allowed tools the server has now; empty without a session."""
        self.why_down = "it was not reached yet"
        self._open_transport = open_transport
        self._audit = audit
        self._session: ClientSession | None = None
        self._digests: dict[str, str] = {}
        self._up = asyncio.Event()
        self._wake = asyncio.Event()
        self._ended = False
        self._settled = asyncio.Event()

    async def work(self) -> None:
        """Hold a session for ever; when it ends make the next, later each time."""
        pause = FIRST_PAUSE_SECONDS
        while True:
            started = time.monotonic()
            try:
                await self._hold_session()
                why = "the server ended the session"
            except Exception as error:
                why = _explain(error)
            self._session, self.offers, self.why_down = None, {}, why
            self._up.clear()
            self._settled.set()
            metrics.MCP_SERVER_UP.labels(self.name).set(0)
            if time.monotonic() - started > STEADY_SECONDS:
                pause = FIRST_PAUSE_SECONDS
            log.warning("mcp_server_down", server=self.name, why=why, again_in=round(pause, 1))
            await asyncio.sleep(pause * random.uniform(0.7, 1.0))  # noqa: S311 - jitter
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS)

    async def settled(self) -> None:
        """Wait until the first attempt succeeded or failed."""
        await self._settled.wait()

    async def offer(self, tool: str) -> Offer:
        """Return what the server has under a name, waiting a little for a session being made.

        Raises:
            ToolUnavailable: No session, or no such tool in it.
        """
        await self._connected()
        try:
            return self.offers[tool]
        except KeyError:
            raise ToolUnavailable(f"{self.name} does not offer {tool} now") from None

    async def call(self, tool: str, arguments: dict[str, Any]) -> CallToolResult:
        """Call a tool; cancelled, the call is cancelled at the server.

        Raises:
            ToolUnavailable: It was not called.
            OutcomeUnknown: It was, and no answer came.
        """
        session = await self._connected()
        request = CallToolRequest(params=CallToolRequestParams(name=tool, arguments=arguments))
        try:
            # Not `call_tool`: that holds the result against the server's own schema, unbounded.
            return await session.send_request(request, CallToolResult)
        except MCPError as error:
            said = clean(error.error.message, ERROR_CHARACTERS)
            if error.code == INVALID_REQUEST and "terminated" in said:  # it forgot our session
                self._end()
            if error.code in NOT_DONE:
                raise ToolUnavailable(f"{self.name} refused the call: {said}") from error
            if error.code == CONNECTION_CLOSED:
                raise OutcomeUnknown(f"{self.name} went away during the call") from error
            raise OutcomeUnknown(f"{self.name} failed: {said}") from error
        except ValidationError as error:
            raise OutcomeUnknown(f"{self.name} gave an answer that is not MCP") from error
        except (anyio.ClosedResourceError, anyio.BrokenResourceError) as error:
            self._end()
            raise OutcomeUnknown(f"{self.name} went away during the call") from error

    async def _connected(self) -> ClientSession:
        if self._session is None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(WAIT_SECONDS):
                    await self._up.wait()
        if self._session is None:
            raise ToolUnavailable(f"{self.name} cannot be reached now; go on without it")
        return self._session

    def _end(self) -> None:
        self._ended = True
        self._wake.set()

    async def _hold_session(self) -> None:
        self._ended = False
        self._wake.clear()
        async with contextlib.AsyncExitStack() as stack:
            async with asyncio.timeout(CONNECT_SECONDS):
                client = await stack.enter_async_context(
                    Client(
                        self._open_transport(self._end),
                        message_handler=self._hear,
                        cache=None,
                        client_info=Implementation(name="rackhand-agent-app", version=__version__),
                    )
                )
            await self._list(client)
            self._session, self.why_down = client.session, ""
            self._up.set()
            self._settled.set()
            metrics.MCP_SERVER_UP.labels(self.name).set(1)
            log.info("mcp_server_up", server=self.name, tools=sorted(self.offers))
            async with anyio.create_task_group() as group:
                group.start_soon(self._listen, client)
                await self._watch(client)
                group.cancel_scope.cancel()

    async def _watch(self, client: Client) -> None:
        """Return when the session ended; until then keep the list of tools as the server has it."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(RELIST_SECONDS):
                    await self._wake.wait()
                    self._wake.clear()
                    if not self._ended:
                        await asyncio.sleep(SETTLE_SECONDS)
            if self._ended:
                return
            await self._list(client)

    async def _hear(self, message: ServerNotification | Exception) -> None:
        if isinstance(message, ToolListChangedNotification):
            self._wake.set()

    async def _listen(self, client: Client) -> None:
        """Hear of changed tools as the protocol has it since 2026; before, `_hear` does."""
        try:
            async with client.listen(tools_list_changed=True) as changes:
                self._wake.set()  # what changed before we listened
                async for _ in changes:
                    self._wake.set()
        except (ListenNotSupportedError, SubscriptionLost, MCPError, TimeoutError) as error:
            log.debug("mcp_no_subscription", server=self.name, why=type(error).__name__)

    async def _list(self, client: Client) -> None:
        """Take over what of the allowed tools the server has, and say what changed."""
        found: dict[str, ServerTool] = {}
        cursor, seen = None, 0
        async with asyncio.timeout(LIST_SECONDS):
            while seen < LISTED_TOOLS:
                page = await client.list_tools(cursor=cursor)
                seen += max(1, len(page.tools))
                for tool in page.tools:
                    if tool.name in self.settings.tools:
                        found.setdefault(tool.name, tool)
                cursor = page.next_cursor
                if cursor is None:
                    break
        offers: dict[str, Offer] = {}
        for name in self.settings.tools:
            if name not in found:
                log.warning("mcp_tool_missing", server=self.name, tool=name)
                continue
            try:
                offers[name] = read_tool(found[name])
            except Unfit as error:
                log.warning("mcp_tool_unfit", server=self.name, tool=name, why=str(error))
        self.offers = offers
        await self._note_changes()

    async def _note_changes(self) -> None:
        for tool, offer in self.offers.items():
            before = self._digests.get(tool)
            self._digests[tool] = offer.digest
            if before in (None, offer.digest):
                continue
            details = {
                "server": self.name,
                "tool": tool,
                "before": before,
                "after": offer.digest,
                "needs_approval": tool in self.settings.approval,
            }
            log.warning("mcp_tool_changed", **details)
            await self._audit.record("mcp.tool_changed", details=details)


def _explain(error: BaseException) -> str:
    """Return the first cause of a failure in one line; it may come wrapped by a task group."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if isinstance(error, TimeoutError):
        return "it did not answer in time"
    return clean(f"{type(error).__name__}: {error}".replace("\n", " "), ERROR_CHARACTERS)

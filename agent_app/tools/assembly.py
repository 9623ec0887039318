"""Makes the tools that the configuration names."""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from agent_app.config import Config, SqlTool, read_secret
from agent_app.knowledge.search import Knowledge
from agent_app.state.audit import Audit
from agent_app.state.database import Pool
from agent_app.state.tickets import Tickets
from agent_app.tools.knowledge import SearchKnowledge
from agent_app.tools.sql import QueryDatabase, make_reading_pool
from agent_app.tools.tickets import CreateTicket
from agent_app.tools.toolbox import Tool


class Remote(Protocol):
    """A server that tools come from, as readiness sees it."""

    name: str
    why_down: str
    """"" while it can be called."""


@dataclass(frozen=True, slots=True)
class Kit:
    """All tools, and the MCP servers that some come from."""

    tools: list[Tool]
    servers: Sequence[Remote]


async def make_tools(
    config: Config,
    pool: Pool,
    knowledge: Knowledge,
    stack: contextlib.AsyncExitStack,
    audit: Audit,
) -> Kit:
    """Return the tools; what they hold open is closed with the stack.

    Raises:
        ConfigError: A tool's credential is missing.
    """
    tools: list[Tool] = [SearchKnowledge(knowledge)]
    servers: Sequence[Remote] = ()
    if config.tools.sql is not None:
        tools.append(await _make_sql(config.tools.sql, stack))
    if config.tools.tickets is not None:
        webhook = config.tools.tickets.webhook_url is not None
        tools.append(CreateTicket(Tickets(pool), webhook=webhook))
    if config.tools.mcp:
        from agent_app.tools.mcp.start import start_servers  # a second of imports

        servers, theirs = await start_servers(config, stack, audit)
        tools.extend(theirs)
    return Kit(tools, servers)


async def _make_sql(settings: SqlTool, stack: contextlib.AsyncExitStack) -> QueryDatabase:
    pool = make_reading_pool(settings, read_secret("tools_sql_password"))
    await pool.open(wait=False)
    stack.push_async_callback(pool.close)
    tool = QueryDatabase(settings, pool)
    await tool.describe()
    return tool

"""Makes the tools that the configuration names."""

import asyncio
import contextlib
import ssl

import httpx2

from agent_app.config import Config, SqlTool, TicketTool, read_secret
from agent_app.state.database import Pool
from agent_app.state.knowledge import Knowledge
from agent_app.state.tickets import Tickets
from agent_app.tools.knowledge import SearchKnowledge
from agent_app.tools.sql import QueryDatabase, make_reading_pool
from agent_app.tools.tickets import Courier, CreateTicket
from agent_app.tools.toolbox import Tool


async def make_tools(config: Config, pool: Pool, stack: contextlib.AsyncExitStack) -> list[Tool]:
    """Return the tools; what they hold open is closed with the stack.

    Raises:
        ConfigError: A tool's credential is missing.
    """
    tools: list[Tool] = [SearchKnowledge(Knowledge(pool))]
    if config.tools.sql is not None:
        tools.append(await _make_sql(config.tools.sql, stack))
    if config.tools.tickets is not None:
        tools.append(await _make_tickets(config.tools.tickets, config, pool, stack))
    return tools


async def _make_sql(settings: SqlTool, stack: contextlib.AsyncExitStack) -> QueryDatabase:
    pool = make_reading_pool(settings, read_secret("tools_sql_password"))
    await pool.open(wait=False)
    stack.push_async_callback(pool.close)
    tool = QueryDatabase(settings, pool)
    await tool.describe()
    return tool


async def _make_tickets(
    settings: TicketTool, config: Config, pool: Pool, stack: contextlib.AsyncExitStack
) -> CreateTicket:
    tickets = Tickets(pool)
    if settings.webhook_url is not None:
        secret = read_secret("tools_ticket_webhook_secret")
        client = await stack.enter_async_context(
            httpx2.AsyncClient(
                verify=ssl.create_default_context(cafile=config.tls_ca_file or None),
                trust_env=False,
            )
        )
        courier = Courier(
            tickets,
            client,
            url=str(settings.webhook_url),
            secret=secret,
            attempts=settings.webhook_attempts,
        )
        stack.callback(asyncio.create_task(courier.work()).cancel)
    return CreateTicket(tickets, webhook=settings.webhook_url is not None)

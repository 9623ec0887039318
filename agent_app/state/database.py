"""The connection pool, and LangGraph's saver on it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import psycopg
from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
from psycopg import AsyncConnection
from psycopg.conninfo import make_conninfo
from psycopg.rows import DictRow, dict_row
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from agent_app.config import Database
from agent_app.errors import DatabaseUnavailable

Pool = AsyncConnectionPool[AsyncConnection[DictRow]]

CONNECT_SECONDS = 5
POOL_WAIT_SECONDS = 5.0
STATEMENT_MILLISECONDS = 15_000


def connection_string(database: Database, *, user: str, password: str, options: str = "") -> str:
    """Return libpq's connection string for one of our roles."""
    arguments = {
        "host": database.host,
        "port": str(database.port),
        "dbname": database.name,
        "user": user,
        "password": password,
        "sslmode": database.sslmode,
        "connect_timeout": str(CONNECT_SECONDS),
        "application_name": "agent_app",
    }
    if database.sslrootcert:
        arguments["sslrootcert"] = database.sslrootcert
    if options:
        arguments["options"] = options
    return make_conninfo(**arguments)


def make_pool(database: Database, password: str) -> Pool:
    """Return the pool, still closed: opening it is the lifespan's work."""
    return AsyncConnectionPool(
        connection_string(
            database,
            user=database.user,
            password=password,
            options=f"-c search_path=app,checkpoints -c statement_timeout={STATEMENT_MILLISECONDS}",
        ),
        min_size=2,
        max_size=database.pool_size,
        timeout=POOL_WAIT_SECONDS,
        open=False,
        check=AsyncConnectionPool.check_connection,
        reconnect_timeout=30,
        kwargs={"autocommit": True, "prepare_threshold": 0, "row_factory": dict_row},
        connection_class=AsyncConnection[DictRow],
    )


class PooledSaver(AsyncPostgresSaver):
    """LangGraph's saver without its one lock for all threads.

    Upstream takes `self.lock` around every statement even with a pool, so all runs of a process
    queue behind each other. A semaphore of half the pool leaves the other half to the rest.
    """

    def __init__(self, pool: Pool, *, parallel: int) -> None:
        super().__init__(pool)
        self.lock = asyncio.Semaphore(parallel)  # type: ignore[assignment]


@asynccontextmanager
async def database_errors() -> AsyncIterator[None]:
    """Turn the driver's "cannot reach it" into our own error; let the rest through."""
    try:
        yield
    except (PoolTimeout, psycopg.OperationalError) as error:
        raise DatabaseUnavailable(
            "the database does not answer", place=type(error).__name__, cure="try again shortly"
        ) from error

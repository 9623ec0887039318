"""The connection pool, and LangGraph's saver on it."""

import asyncio
import select
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import psycopg
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import (
    WRITES_IDX_MAP,
    ChannelVersions,
    Checkpoint,
    CheckpointMetadata,
    CheckpointTuple,
)
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
BEGIN_SECONDS = 0.005  # the request to the engine goes out first
FIRST_RUN = (
    "__first_run"  # of a thread, in a graph's configuration: nobody need look for a checkpoint
)


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
        check=check_connection,
        reconnect_timeout=30,
        kwargs={"autocommit": True, "prepare_threshold": 0, "row_factory": dict_row},
        connection_class=AsyncConnection[DictRow],
    )


async def check_connection(connection: AsyncConnection[DictRow]) -> None:
    """Make sure a pooled connection still lives, and spare a round trip where nothing says else.

    A server that ended a connection has written so, or closed it: only then is it asked. psycopg's
    own check asks before every use, which doubles what a turn waits for the database.

    Raises:
        psycopg.OperationalError: It is dead.
    """
    waiting = select.poll()
    waiting.register(connection.fileno(), select.POLLIN)
    if waiting.poll(0):
        await AsyncConnectionPool.check_connection(connection)


class PooledSaver(AsyncPostgresSaver):
    """LangGraph's saver without its one lock for all threads.

    Upstream takes `self.lock` around every statement even with a pool, so all runs of a process
    queue behind each other. A semaphore of half the pool leaves the other half to the rest.

    The checkpoint that a run begins with is written while the model is asked: a run that died
    before it was there begins anew from its message in `app.runs`, where the next message finds it
    too. Whatever is written or read of the thread next waits for it, and so every effect does. The
    one that LangGraph makes before, of an input that nothing has taken in yet, is not written.
    """

    def __init__(self, pool: Pool, *, parallel: int) -> None:
        super().__init__(pool)
        self.lock = asyncio.Semaphore(parallel)  # type: ignore[assignment]
        self._starting: set[str] = set()
        self._begun: dict[str, asyncio.Task[RunnableConfig]] = {}

    async def _let_begin(self, config: RunnableConfig) -> None:
        if task := self._begun.pop(config["configurable"]["thread_id"], None):
            await task

    async def aput(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """Save a checkpoint; see the class for when."""
        place = config["configurable"]
        thread = place["thread_id"]
        if metadata.get("source") == "input":
            self._starting.add(thread)
            return {"configurable": {**place, "checkpoint_id": checkpoint["id"]}}
        await self._let_begin(config)
        put = super().aput

        async def put_again() -> RunnableConfig:
            """Once more where PostgreSQL went away under it: a row that is there stays as it is."""
            try:
                return await put(config, checkpoint, metadata, new_versions)
            except psycopg.OperationalError:
                return await put(config, checkpoint, metadata, new_versions)

        if thread not in self._starting:
            return await put_again()
        self._starting.discard(thread)

        async def put_later() -> RunnableConfig:
            await asyncio.sleep(BEGIN_SECONDS)
            return await put_again()

        self._begun[thread] = asyncio.create_task(put_later())
        return {"configurable": {**place, "checkpoint_id": checkpoint["id"]}}

    async def aput_writes(
        self,
        config: RunnableConfig,
        writes: Sequence[tuple[str, Any]],
        task_id: str,
        task_path: str = "",
    ) -> None:
        """Save what stops a step; what it changes is in the checkpoint that follows at once.

        LangGraph keeps changes apart for steps that run side by side, of which one may fail; ours
        run one after another.
        """
        if all(channel in WRITES_IDX_MAP for channel, _ in writes):
            await self._let_begin(config)
            await super().aput_writes(config, writes, task_id, task_path)

    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """Return a thread's newest checkpoint, or the one that is named; every run begins so."""
        self._starting.discard(config["configurable"]["thread_id"])
        if config["configurable"].get(FIRST_RUN):
            return None
        await self._let_begin(config)
        return await super().aget_tuple(config)


@asynccontextmanager
async def database_errors() -> AsyncIterator[None]:
    """Turn the driver's "cannot reach it" into our own error; let the rest through."""
    try:
        yield
    except (PoolTimeout, psycopg.OperationalError) as error:
        raise DatabaseUnavailable(
            "the database does not answer", place=type(error).__name__, cure="try again shortly"
        ) from error

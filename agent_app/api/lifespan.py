"""Makes the services when a process starts and takes them down when it ends."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import httpx2
import redis.asyncio as redis
import structlog

from agent_app.access.admission import Doorkeeper
from agent_app.access.keys import Digester, Keyring
from agent_app.access.limits import Gate
from agent_app.agent.engine import engine_timeout
from agent_app.agent.pool import EnginePool
from agent_app.agent.runner import Runner
from agent_app.api.services import Services
from agent_app.config import Config, read_secret
from agent_app.errors import AgentAppError
from agent_app.state.database import Pool, PooledSaver, make_pool
from agent_app.state.effects import Effects
from agent_app.state.readiness import Readiness
from agent_app.state.runs import Runs
from agent_app.state.threads import Threads
from agent_app.state.usage import UsageTable
from agent_app.tools.assembly import make_tools
from agent_app.tools.toolbox import Tool, Toolbox

KEPT_ENGINE_CONNECTIONS = 64
REDIS_SECONDS = 3

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Secrets:
    """The credentials of a serving process."""

    digester: Digester
    database_password: str
    redis_password: str


def read_secrets() -> Secrets:
    """Read them all.

    Raises:
        ConfigError: One is missing or unfit.
    """
    return Secrets(
        Digester(read_secret("key_secret")),
        read_secret("database_password"),
        read_secret("redis_password", required=False),
    )


@contextlib.asynccontextmanager
async def make_services(config: Config, owner: str, secrets: Secrets) -> AsyncIterator[Services]:
    """Yield the services of this process; it starts even while its neighbours are down."""
    async with contextlib.AsyncExitStack() as stack:
        client = await stack.enter_async_context(_engine_client(config))
        pool = make_pool(config.database, secrets.database_password)
        await pool.open(wait=False)
        stack.push_async_callback(pool.close)
        caches = {
            "redis_cache": _redis(config.redis.cache_url, secrets, config.tls_ca_file),
            "redis_state": _redis(config.redis.state_url, secrets, config.tls_ca_file),
        }
        for cache in caches.values():
            stack.push_async_callback(cache.aclose)
        engines = {
            name: EnginePool(name, model, config.limits, client)
            for name, model in config.models.items()
        }
        usage = UsageTable(pool)
        door = Doorkeeper(Gate(caches["redis_state"], config.limits), usage)
        tools = await make_tools(config, pool, stack)
        runner = await _make_runner(config, owner, pool, engines, tools, door)
        leases = asyncio.create_task(runner.keep_leases())
        stack.callback(leases.cancel)
        yield Services(
            config=config,
            keyring=Keyring(pool, secrets.digester),
            runner=runner,
            readiness=Readiness(config, pool, caches, engines),
            threads=Threads(pool),
            usage=usage,
        )


async def _make_runner(
    config: Config,
    owner: str,
    pool: Pool,
    engines: dict[str, EnginePool],
    tools: list[Tool],
    door: Doorkeeper,
) -> Runner:
    runs = Runs(pool, owner=owner, lease_seconds=config.limits.lease_seconds)
    try:
        if left := await runs.release_own():
            log.warning("runs_interrupted_by_our_last_end", count=left)
    except AgentAppError as error:  # their leases run out and say the same a little later
        log.warning("runs_not_released", why=str(error))
    toolbox = Toolbox(tools, Effects(pool), seconds=config.limits.tool_seconds)
    saver = PooledSaver(pool, parallel=config.database.pool_size // 2)
    return Runner(config, engines, toolbox, runs, saver, door)


def _engine_client(config: Config) -> httpx2.AsyncClient:
    return httpx2.AsyncClient(
        timeout=engine_timeout(config.limits.engine_silence_seconds),
        limits=httpx2.Limits(
            max_connections=None, max_keepalive_connections=KEPT_ENGINE_CONNECTIONS
        ),
        verify=ssl.create_default_context(cafile=config.tls_ca_file or None),
        trust_env=False,
    )


def _redis(url: str, secrets: Secrets, ca_file: str) -> redis.Redis:
    tls: dict[str, Any] = {"ssl_ca_certs": ca_file} if url.startswith("rediss:") and ca_file else {}
    return redis.Redis.from_url(
        url,
        password=secrets.redis_password or None,
        socket_timeout=REDIS_SECONDS,
        socket_connect_timeout=REDIS_SECONDS,
        **tls,
    )

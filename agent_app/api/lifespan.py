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
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialWithJitterBackoff, NoBackoff

from agent_app.access.admission import Doorkeeper
from agent_app.access.keys import Digester, Keyring
from agent_app.access.limits import Gate
from agent_app.agent.engine import engine_timeout
from agent_app.agent.pool import EnginePool
from agent_app.agent.relay import Relay
from agent_app.agent.runner import Runner
from agent_app.agent.shared_queue import SharedQueue
from agent_app.agent.switchboard import Switchboard
from agent_app.agent.turnstile import Turnstile
from agent_app.agent.wire import EngineTransport
from agent_app.api.outside import make_cache, make_embeddings, make_router
from agent_app.api.services import Services
from agent_app.audit.sealer import Sealer
from agent_app.audit.vault import Vault
from agent_app.config import Config, Limits, read_other, read_secret
from agent_app.errors import AgentAppError, ConfigError
from agent_app.jobs.assembly import start_background
from agent_app.knowledge.search import Knowledge
from agent_app.knowledge.semantic import Semantic
from agent_app.observability import tracing
from agent_app.observability.logging import log_loop_error
from agent_app.observability.vitals import take_pulse
from agent_app.state.approvals import Approvals
from agent_app.state.audit import Audit
from agent_app.state.database import Pool, PooledSaver, connection_string, make_pool
from agent_app.state.effects import Effects
from agent_app.state.jobs import JobTable
from agent_app.state.readiness import Readiness
from agent_app.state.runs import Runs, Unsettled
from agent_app.state.threads import Threads
from agent_app.state.usage import UsageTable
from agent_app.tools.approval import ApprovalDesk
from agent_app.tools.assembly import make_tools
from agent_app.tools.toolbox import Tool, Toolbox
from agent_app.webhooks.destinations import Destinations

KEPT_ENGINE_CONNECTIONS = 64
REDIS_SECONDS = 3
REDIS_RETRIES = 2
REDIS_BACKOFF_SECONDS = 0.01
REDIS_BACKOFF_MOST_SECONDS = 0.05

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Secrets:
    """The credentials of a serving process."""

    digester: Digester
    vault: Vault
    database_password: str
    redis_password: str
    telemetry_headers: str
    outside: dict[str, str]
    """Of clouds and the embeddings endpoint, by the names the configuration has for them."""


def read_secrets(config: Config) -> Secrets:
    """Read them all.

    Raises:
        ConfigError: One is missing or unfit.
    """
    return Secrets(
        Digester(read_secret("key_secret"), read_other("key_secret")),
        Vault(read_secret("audit_secret")),
        read_secret("database_password"),
        read_secret("redis_password", required=False),
        read_secret("telemetry_headers", required=False),
        {name: read_secret(name) for name in config.outside_credentials()},
    )


@contextlib.asynccontextmanager
async def make_services(config: Config, owner: str, secrets: Secrets) -> AsyncIterator[Services]:
    """Yield the services of this process; it starts even while its neighbours are down."""
    asyncio.get_running_loop().set_exception_handler(log_loop_error)
    async with contextlib.AsyncExitStack() as stack:
        _record_spans(config, owner, secrets, stack)
        client = await stack.enter_async_context(_engine_client(config))
        pool = make_pool(config.database, secrets.database_password)
        await pool.open(wait=False)
        stack.push_async_callback(pool.close)
        audit = await _start_audit(config, secrets, pool, stack)
        caches = {
            "redis_cache": _redis(config.redis.cache_url, secrets, config.tls_ca_file, _retry()),
            "redis_state": _redis(config.redis.state_url, secrets, config.tls_ca_file, _retry()),
        }
        for client_of_redis in caches.values():
            stack.push_async_callback(client_of_redis.aclose)
        engines = {
            name: EnginePool(name, model, config.limits, client)
            for name, model in config.models.items()
        }
        # Of its own, and without a retry: the answer to a report tells whose turn it is, once.
        # Where it is lost the turnstile goes on alone and hands in all that it knows afresh.
        queues = _redis(config.redis.state_url, secrets, config.tls_ca_file, Retry(NoBackoff(), 0))
        stack.push_async_callback(queues.aclose)
        for engine in engines.values():
            await stack.enter_async_context(_turnstile(engine, config.limits, owner, queues))
        usage = UsageTable(pool)
        door = Doorkeeper(Gate(caches["redis_state"], config.limits), usage, audit)
        embeddings = make_embeddings(config, secrets.outside, stack)
        semantic = Semantic(pool, embeddings) if embeddings is not None else None
        knowledge = Knowledge(pool, config.knowledge, semantic)
        kit = await make_tools(config, pool, knowledge, stack, audit)
        approvals = Approvals(pool)
        desk = ApprovalDesk(config.tools.need_approval, config.approvals, approvals, audit)
        router = await make_router(config, secrets.outside, pool, engines, audit, stack)
        cache = make_cache(config, caches["redis_cache"], embeddings, stack)
        switchboard = Switchboard(router, cache)
        runner, left = await _make_runner(
            config, owner, pool, engines, switchboard, kit.tools, desk, door, audit
        )
        stack.callback(asyncio.create_task(runner.recover_usage(left)).cancel)
        for work in (runner.keep_leases(), take_pulse(pool.get_stats)):
            stack.callback(asyncio.create_task(work).cancel)
        if semantic is not None:
            stack.callback(asyncio.create_task(semantic.keep_up()).cancel)
        keyring = Keyring(pool, secrets.digester)
        workers = await start_background(config, owner, pool, runner, keyring, audit, stack)
        yield Services(
            config=config,
            keyring=keyring,
            runner=runner,
            relay=Relay(runner, door, config.limits),
            readiness=Readiness(
                config,
                pool,
                caches,
                engines,
                kit.servers,
                semantic=semantic,
                may_degrade=router.may_degrade,
            ),
            threads=Threads(pool),
            usage=usage,
            approvals=approvals,
            audit=audit,
            jobs=JobTable(pool),
            workers=workers,
            destinations=Destinations(config.jobs.webhook_hosts),
        )


async def _start_audit(
    config: Config, secrets: Secrets, pool: Pool, stack: contextlib.AsyncExitStack
) -> Audit:
    """Return the audit, whose writer and sealer end with the stack: the writer first."""
    conninfo = connection_string(
        config.database, user=config.database.user, password=secrets.database_password
    )
    sealer, audit = Sealer(conninfo, secrets.vault), Audit(pool)
    sealing = asyncio.create_task(sealer.work())
    writing = asyncio.create_task(audit.work())

    async def end() -> None:
        writing.cancel()
        await asyncio.wait({writing})
        await audit.close()
        sealer.stop()
        await sealing

    stack.push_async_callback(end)
    return audit


@contextlib.asynccontextmanager
async def _turnstile(
    engine: EnginePool, limits: Limits, owner: str, client: redis.Redis
) -> AsyncIterator[None]:
    """Put a turnstile before the engines of a model, and keep it going."""
    engine.turnstile = turnstile = Turnstile(
        engine.name,
        limits,
        process=owner,
        shared=SharedQueue(client, engine.name, owner),
        capacity=engine.capacity,
    )
    keeping = asyncio.create_task(turnstile.keep())
    try:
        yield
    finally:
        keeping.cancel()
        await turnstile.close()


def _record_spans(
    config: Config, owner: str, secrets: Secrets, stack: contextlib.AsyncExitStack
) -> None:
    if not config.telemetry.otlp_endpoint:
        return
    from agent_app.observability.otlp import OtlpTracer

    headers = _read_headers(secrets.telemetry_headers)
    tracer = OtlpTracer(config.telemetry, headers, config.tls_ca_file, owner)
    tracing.install(tracer)
    stack.push_async_callback(tracer.close)
    stack.callback(tracing.install, None)


def _read_headers(text: str) -> dict[str, str]:
    headers = {}
    for line in text.splitlines():
        name, colon, value = line.partition(":")
        if not colon or not name.strip():
            raise ConfigError(
                "not a header",
                place="credential telemetry_headers",
                cure="write one `Name: value` a line into it",
            )
        headers[name.strip().lower()] = value.strip()
    return headers


async def _make_runner(
    config: Config,
    owner: str,
    pool: Pool,
    engines: dict[str, EnginePool],
    switchboard: Switchboard,
    tools: list[Tool],
    desk: ApprovalDesk,
    door: Doorkeeper,
    audit: Audit,
) -> tuple[Runner, list[Unsettled]]:
    """Return the runner, and what an earlier life of this process left unfinished."""
    runs = Runs(pool, owner=owner, lease_seconds=config.limits.lease_seconds)
    left: list[Unsettled] = []
    try:
        if left := await runs.release_own():
            log.warning("runs_interrupted_by_our_last_end", count=len(left))
    except AgentAppError as error:  # their leases run out and say the same a little later
        log.warning("runs_not_released", why=str(error))
    toolbox = Toolbox(tools, Effects(pool), audit, seconds=config.limits.tool_seconds)
    saver = PooledSaver(pool, parallel=config.database.pool_size // 2)
    runner = Runner(config, engines, switchboard, toolbox, desk, runs, saver, door)
    return runner, left


def _engine_client(config: Config) -> httpx2.AsyncClient:
    return httpx2.AsyncClient(
        timeout=engine_timeout(config.limits.engine_silence_seconds),
        transport=EngineTransport(
            ssl.create_default_context(cafile=config.tls_ca_file or None),
            idle=KEPT_ENGINE_CONNECTIONS,
        ),
        trust_env=False,
    )


def _retry() -> Retry:
    """For questions that may be asked twice: Redis closes its clients when it reads users anew."""
    backoff = ExponentialWithJitterBackoff(REDIS_BACKOFF_MOST_SECONDS, REDIS_BACKOFF_SECONDS)
    return Retry(backoff, REDIS_RETRIES)


def _redis(url: str, secrets: Secrets, ca_file: str, retry: Retry) -> redis.Redis:
    tls: dict[str, Any] = {"ssl_ca_certs": ca_file} if url.startswith("rediss:") and ca_file else {}
    return redis.Redis.from_url(
        url,
        password=secrets.redis_password or None,
        retry=retry,
        socket_timeout=REDIS_SECONDS,
        socket_connect_timeout=REDIS_SECONDS,
        **tls,
    )

"""The ASGI application: routes, middleware, errors, and the lifespan that makes the services."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import httpx2
import redis.asyncio as redis
import structlog
from asgi_correlation_id import CorrelationIdMiddleware
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from agent_app import __version__
from agent_app.access.keys import Digester, Keyring
from agent_app.agent.engine import engine_timeout
from agent_app.agent.pool import EnginePool
from agent_app.agent.runner import Runner
from agent_app.agent.tools import SearchKnowledge, Toolbox
from agent_app.api import chat, health, openai
from agent_app.api.middleware import BodyLimit, RequestLog, is_correlation_id
from agent_app.api.services import Services, current_correlation
from agent_app.config import Config, read_secret
from agent_app.errors import AgentAppError, InvalidRequest
from agent_app.state.database import PooledSaver, make_pool
from agent_app.state.effects import Effects
from agent_app.state.knowledge import Knowledge
from agent_app.state.readiness import Readiness
from agent_app.state.runs import Runs

log = structlog.get_logger(__name__)

_HTTP_CODES = {404: "not_found", 405: "method_not_allowed", 413: "body_too_large"}


def create_app(config: Config, *, owner: str) -> FastAPI:
    """Return the application.

    Args:
        config: The configuration.
        owner: Names this process among all that share the database; the same after a restart.

    Raises:
        ConfigError: A credential is missing or unfit.
    """
    digester = Digester(read_secret("key_secret"))
    database_password = read_secret("database_password")
    redis_password = read_secret("redis_password", required=False)

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with _services(
            config, owner, digester, database_password, redis_password
        ) as services:
            app.state.services = services
            yield

    app = FastAPI(
        title="Rackhand agent app",
        version=__version__,
        lifespan=lifespan,
        docs_url="/docs" if config.docs else None,
        redoc_url=None,
        openapi_url="/openapi.json" if config.docs else None,
    )
    for part in (health, chat, openai):
        app.include_router(part.router)
    app.add_exception_handler(AgentAppError, _answer_error)
    app.add_exception_handler(RequestValidationError, _answer_invalid)
    app.add_exception_handler(HTTPException, _answer_http)
    app.add_exception_handler(Exception, _answer_unexpected)
    app.add_middleware(BodyLimit, most=config.limits.body_bytes)
    app.add_middleware(RequestLog)
    app.add_middleware(
        CorrelationIdMiddleware,
        header_name="X-Request-ID",
        generator=lambda: uuid4().hex,
        validator=is_correlation_id,
    )
    return app


@contextlib.asynccontextmanager
async def _services(
    config: Config, owner: str, digester: Digester, database_password: str, redis_password: str
) -> AsyncIterator[Services]:
    limits = config.limits
    async with contextlib.AsyncExitStack() as stack:
        client = await stack.enter_async_context(
            httpx2.AsyncClient(
                timeout=engine_timeout(limits.engine_silence_seconds),
                limits=httpx2.Limits(max_connections=None, max_keepalive_connections=64),
                verify=ssl.create_default_context(cafile=config.tls_ca_file or None),
                trust_env=False,
            )
        )
        pool = make_pool(config.database, database_password)
        await pool.open(wait=False)  # starts without the database; /ready says so meanwhile
        stack.push_async_callback(pool.close)
        caches = {
            name: _redis(url, redis_password, config.tls_ca_file)
            for name, url in (
                ("redis_cache", config.redis.cache_url),
                ("redis_state", config.redis.state_url),
            )
        }
        for cache in caches.values():
            stack.push_async_callback(cache.aclose)
        engines = {
            name: EnginePool(name, model, limits, client) for name, model in config.models.items()
        }
        toolbox = Toolbox(
            [SearchKnowledge(Knowledge(pool))], Effects(pool), seconds=limits.tool_seconds
        )
        runs = Runs(pool, owner=owner, lease_seconds=limits.lease_seconds)
        saver = PooledSaver(pool, parallel=config.database.pool_size // 2)
        runner = Runner(config, engines, toolbox, runs, saver)
        with contextlib.suppress(AgentAppError):  # the lease says the same a little later
            if left := await runs.release_own():
                log.warning("runs_interrupted_by_our_last_end", count=left)
        leases = asyncio.create_task(runner.keep_leases())
        try:
            yield Services(
                config, Keyring(pool, digester), runner, Readiness(config, pool, caches, engines)
            )
        finally:
            leases.cancel()


def _redis(url: str, password: str, ca_file: str) -> redis.Redis:
    tls: dict[str, Any] = {"ssl_ca_certs": ca_file} if url.startswith("rediss:") and ca_file else {}
    return redis.Redis.from_url(
        url, password=password or None, socket_timeout=3, socket_connect_timeout=3, **tls
    )


def _error_body(code: str, message: str, *, retryable: bool, status: int) -> dict[str, Any]:
    return {
        "error": {
            "code": code,
            "message": message,
            "type": "server_error" if status >= 500 else "invalid_request_error",
            "param": None,
            "retryable": retryable,
            "request_id": current_correlation(),
        }
    }


async def _answer_error(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, AgentAppError)
    if error.status >= 500:
        log.warning("request_failed", code=error.code, why=str(error))
    headers = {"Retry-After": "2"} if error.retryable else {}
    if error.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    body = _error_body(error.code, error.message, retryable=error.retryable, status=error.status)
    return JSONResponse(body, status_code=error.status, headers=headers)


async def _answer_invalid(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    problems = "; ".join(
        f"{'.'.join(str(part) for part in problem['loc'])}: {problem['msg']}"
        for problem in error.errors()
    )
    return await _answer_error(request, InvalidRequest(problems[:1000]))


async def _answer_http(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    code = _HTTP_CODES.get(error.status_code, "http_error")
    body = _error_body(code, str(error.detail), retryable=False, status=error.status_code)
    return JSONResponse(body, status_code=error.status_code, headers=error.headers)


async def _answer_unexpected(_request: Request, _error: Exception) -> JSONResponse:
    """Say nothing of the cause: the server logs it."""
    body = _error_body("internal_error", "internal error", retryable=False, status=500)
    return JSONResponse(body, status_code=500)

"""The ASGI application: routes, middleware, errors, and the lifespan that makes the services."""

import contextlib
from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import structlog
from asgi_correlation_id import CorrelationIdMiddleware
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from agent_app import __version__
from agent_app.api import chat, health, openai, page, threads, usage
from agent_app.api.lifespan import make_services, read_secrets
from agent_app.api.middleware import BodyLimit, RequestLog, is_correlation_id
from agent_app.api.services import current_correlation
from agent_app.config import Config
from agent_app.errors import AgentAppError, InvalidRequest

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
    secrets = read_secrets()

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with make_services(config, owner, secrets) as services:
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
    for part in (health, chat, openai, threads, usage, page):
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
    headers |= error.headers
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

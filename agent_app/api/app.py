"""The ASGI application: routes, middleware, errors, and the lifespan that makes the services."""

import contextlib
from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

from asgi_correlation_id import CorrelationIdMiddleware
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from agent_app import __version__
from agent_app.api import (
    approvals,
    chat,
    errors,
    health,
    jobs,
    openai,
    page,
    responses,
    threads,
    usage,
)
from agent_app.api.lifespan import make_services, read_secrets
from agent_app.api.middleware import BodyLimit, RequestLog, is_correlation_id
from agent_app.config import Config
from agent_app.errors import AgentAppError

OPEN_ROUTERS = (health.router, page.router)
"""Routes that want no key."""
ROUTERS = (
    chat.router,
    openai.router,
    responses.router,
    threads.router,
    approvals.router,
    jobs.router,
    usage.router,
)


class Api(FastAPI):
    """FastAPI whose schema says what we answer: a wrong request gets our 400, never its 422."""

    def openapi(self) -> dict[str, Any]:
        """Return the OpenAPI document."""
        document = super().openapi()
        schemas = document.get("components", {}).get("schemas", {})
        if schemas.pop("HTTPValidationError", None) is not None:
            schemas.pop("ValidationError", None)
            for path in document["paths"].values():
                for operation in path.values():
                    if "HTTPValidationError" in str(operation["responses"].get("422")):
                        del operation["responses"]["422"]
        return document


def make_api(lifespan: Any = None, *, docs: bool = True) -> Api:
    """Return the application with its routes and errors, without anything behind them."""
    app = Api(
        title="Rackhand agent app",
        version=__version__,
        summary="Chat with an agent over HTTP, or speak OpenAI's API with it.",
        lifespan=lifespan,
        docs_url="/docs" if docs else None,
        redoc_url=None,
        openapi_url="/openapi.json" if docs else None,
    )
    for router in OPEN_ROUTERS:
        app.include_router(router)
    for router in ROUTERS:
        app.include_router(router, responses=errors.ERRORS)
    app.add_exception_handler(AgentAppError, errors.answer_error)
    app.add_exception_handler(RequestValidationError, errors.answer_invalid)
    app.add_exception_handler(HTTPException, errors.answer_http)
    app.add_exception_handler(Exception, errors.answer_unexpected)
    return app


def create_app(config: Config, *, owner: str) -> FastAPI:
    """Return the application.

    Args:
        config: The configuration.
        owner: Names this process among all that share the database; the same after a restart.

    Raises:
        ConfigError: A credential is missing or unfit.
    """
    secrets = read_secrets(config)

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with make_services(config, owner, secrets) as services:
            app.state.services = services
            yield

    app = make_api(lifespan, docs=config.docs)
    app.add_middleware(BodyLimit, most=config.limits.body_bytes)
    app.add_middleware(RequestLog, accept_traceparent=config.telemetry.accept_traceparent)
    app.add_middleware(
        CorrelationIdMiddleware,
        header_name="X-Request-ID",
        generator=lambda: uuid4().hex,
        validator=is_correlation_id,
    )
    return app

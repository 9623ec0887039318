"""What the routes work with, made once per process by the lifespan."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated

import structlog
from asgi_correlation_id import correlation_id
from fastapi import Depends, Header, Request, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from agent_app.access.keys import SHOWN_CHARACTERS, Key, Keyring
from agent_app.agent.cache import Wish
from agent_app.agent.relay import Relay
from agent_app.agent.runner import Runner
from agent_app.config import Config
from agent_app.errors import Forbidden, Unauthorized
from agent_app.jobs.worker import Workers
from agent_app.state.approvals import Approvals
from agent_app.state.audit import Audit
from agent_app.state.jobs import JobTable
from agent_app.state.readiness import Readiness
from agent_app.state.threads import Threads
from agent_app.state.usage import UsageTable
from agent_app.webhooks.destinations import Destinations


@dataclass(frozen=True, slots=True)
class Services:
    """The parts of a running process."""

    config: Config
    keyring: Keyring
    runner: Runner
    relay: Relay
    readiness: Readiness
    threads: Threads
    usage: UsageTable
    approvals: Approvals
    audit: Audit
    jobs: JobTable
    workers: Workers
    destinations: Destinations

    async def drain(self) -> None:
        """Hand back jobs at once; let streams finish for a while."""
        await asyncio.gather(self.workers.drain(), self.runner.drain())


async def get_services(request: Request) -> Services:
    """Return this process's services."""
    services: Services = request.app.state.services
    return services


ServicesNow = Annotated[Services, Depends(get_services)]
_bearer = HTTPBearer(auto_error=False, description="An API key: rh_…")


async def require_key(
    services: ServicesNow,
    credentials: Annotated[HTTPAuthorizationCredentials | None, Security(_bearer)],
) -> Key:
    """Return the caller's key, whatever it may do.

    Raises:
        Unauthorized: No valid key.
    """
    if credentials is None:
        raise Unauthorized("give an API key: Authorization: Bearer rh_…")
    key = await services.keyring.check(credentials.credentials)
    shown = credentials.credentials[:SHOWN_CHARACTERS]
    structlog.contextvars.bind_contextvars(key=shown)  # in every log line of it from here on
    return key


AnyKey = Annotated[Key, Depends(require_key)]


def require_scope(scope: str) -> Callable[[Key], Awaitable[Key]]:
    """Return a dependency that gives the caller's key, or raises Forbidden without the scope."""

    async def require(key: AnyKey) -> Key:
        if scope not in key.scopes:
            raise Forbidden(f"this key lacks the scope {scope}")
        return key

    return require


ChatKey = Annotated[Key, Depends(require_scope("chat"))]
AdminKey = Annotated[Key, Depends(require_scope("admin"))]
FeatureTag = Annotated[
    str,
    Header(
        alias="X-Feature",
        pattern=r"^([a-z0-9][a-z0-9._-]{0,39})?$",
        description="What the tokens are for, in your own words; usage is counted under it.",
    ),
]


async def read_wish(
    cache_control: Annotated[
        str,
        Header(description="`no-store`: no cached answer, and keep none; `no-cache`: ask anew."),
    ] = "",
    x_cache: Annotated[
        str,
        Header(
            pattern="^(sampled)?$",
            description="`sampled`: a cached answer will do although the temperature is above 0.",
        ),
    ] = "",
) -> Wish:
    """Return what the client wants of the cache of answers."""
    directives = {part.strip().lower() for part in cache_control.split(",")}
    keep = "no-store" not in directives
    return Wish(
        lookup=keep and "no-cache" not in directives, keep=keep, sampled=x_cache == "sampled"
    )


CacheWish = Annotated[Wish, Depends(read_wish)]


def current_correlation() -> str:
    """Return the request's correlation ID."""
    return correlation_id.get() or ""

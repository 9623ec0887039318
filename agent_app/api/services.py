"""What the routes work with, made once per process by the lifespan."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated

from asgi_correlation_id import correlation_id
from fastapi import Depends, Header, Request, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from agent_app.access.keys import Key, Keyring
from agent_app.agent.runner import Runner
from agent_app.config import Config
from agent_app.errors import Forbidden, Unauthorized
from agent_app.state.readiness import Readiness
from agent_app.state.threads import Threads
from agent_app.state.usage import UsageTable


@dataclass(frozen=True, slots=True)
class Services:
    """The parts of a running process."""

    config: Config
    keyring: Keyring
    runner: Runner
    readiness: Readiness
    threads: Threads
    usage: UsageTable


def get_services(request: Request) -> Services:
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
    return await services.keyring.check(credentials.credentials)


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


def current_correlation() -> str:
    """Return the request's correlation ID."""
    return correlation_id.get() or ""

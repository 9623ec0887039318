"""What the routes work with, made once per process by the lifespan."""

from dataclasses import dataclass
from typing import Annotated

from asgi_correlation_id import correlation_id
from fastapi import Depends, Request, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from agent_app.access.keys import Key, Keyring
from agent_app.agent.runner import Runner
from agent_app.config import Config
from agent_app.errors import Forbidden, Unauthorized
from agent_app.state.readiness import Readiness
from agent_app.state.threads import Threads


@dataclass(frozen=True, slots=True)
class Services:
    """The parts of a running process."""

    config: Config
    keyring: Keyring
    runner: Runner
    readiness: Readiness
    threads: Threads


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
    """Return the caller's key, which may chat.

    Raises:
        Unauthorized: No valid key.
        Forbidden: The key may do other things only.
    """
    if credentials is None:
        raise Unauthorized("give an API key: Authorization: Bearer rh_…")
    key = await services.keyring.check(credentials.credentials)
    if "chat" not in key.scopes:
        raise Forbidden("this key lacks the scope chat")
    return key


ChatKey = Annotated[Key, Depends(require_key)]


def current_correlation() -> str:
    """Return the request's correlation ID."""
    return correlation_id.get() or ""

"""Where state lives: PostgreSQL and Redis."""

from typing import Literal

from pydantic import Field

from agent_app.config.section import Section


class Database(Section):
    """Where PostgreSQL is and as whom we come."""

    host: str
    port: int = Field(default=5432, ge=1, le=65535)
    name: str = "rackhand"
    user: str = "agent_app"
    owner: str = "rackhand_owner"
    sslmode: Literal["disable", "prefer", "require", "verify-ca", "verify-full"] = "prefer"
    sslrootcert: str = ""
    pool_size: int = Field(default=20, ge=2, le=200)


class RedisUrls(Section):
    """The two Redis databases; passwords come as a credential, never in the URL."""

    cache_url: str = "redis://127.0.0.1:6379/0"
    state_url: str = "redis://127.0.0.1:6380/0"

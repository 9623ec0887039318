"""The fixtures of the app's own tests: real PostgreSQL and Redis, engines, the app as a process."""

from tests.agent_app.conftest import (
    app,
    configuration,
    database,
    engine,
    postgres,
    prepared,
    redis_server,
    sql,
    template,
)

__all__ = [
    "app",
    "configuration",
    "database",
    "engine",
    "postgres",
    "prepared",
    "redis_server",
    "sql",
    "template",
]

"""Fixtures: real PostgreSQL and Redis, a scripted engine, and the app as a process."""

import tempfile
from collections.abc import AsyncIterator, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import psycopg
import pytest
from app_process import AppProcess, kill_what_is_left
from data_servers import Postgres, RedisServer
from scripted_engine import ScriptedEngine

_numbers = count(1)

TEMPLATE = "rackhand_template"
KNOWLEDGE = {
    "ports.md": "# Ports\n\nThe engine proxy listens on port 8000.\n",
    "slots.md": "# Slots\n\nEach model has two slots, blue and green.\n",
}


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    # Not under pytest's folder: any other pytest of this user closes that one to the postgres user.
    with tempfile.TemporaryDirectory(prefix="rackhand-test-postgres-") as folder:
        server = Postgres(Path(folder))
        yield server
        server.stop()


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    yield server
    server.stop()


@pytest.fixture(autouse=True)
def _nothing_is_left() -> Iterator[None]:
    yield
    kill_what_is_left()


@pytest.fixture
async def engine() -> AsyncIterator[ScriptedEngine]:
    async with ScriptedEngine().serving() as engine:
        yield engine


@pytest.fixture(scope="session")
def template(postgres: Postgres, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A database with tables, knowledge and a key, made by the commands themselves, to copy."""
    postgres.make_database(TEMPLATE)
    process = AppProcess(
        tmp_path_factory.mktemp("template"),
        {
            "database": {"host": "127.0.0.1", "port": postgres.port, "name": TEMPLATE},
            "models": {"demo": {"endpoints": ["http://127.0.0.1:1"]}},
            "default_model": "demo",
        },
    )
    process.run("migrate")
    documents = process.folder / "knowledge"
    documents.mkdir()
    for name, text in KNOWLEDGE.items():
        (documents / name).write_text(text)
    process.run("knowledge", "ingest", str(documents))
    return process.run("keys", "create", "--name", "test")


@pytest.fixture
def database(postgres: Postgres, template: str) -> Iterator[str]:
    name = f"rackhand_{next(_numbers)}"
    postgres.copy_database(TEMPLATE, name)
    yield name
    postgres.drop_database(name)


@pytest.fixture
def sql(postgres: Postgres, database: str) -> Iterator["psycopg.Connection[tuple[Any, ...]]"]:
    with postgres.admin(database) as connection:
        yield connection


@pytest.fixture
def configuration(
    postgres: Postgres, database: str, redis_server: RedisServer, engine: ScriptedEngine
) -> dict[str, Any]:
    """What a test may change before `app` starts."""
    redis_server.empty()
    return {
        "database": {"host": "127.0.0.1", "port": postgres.port, "name": database},
        "redis": {
            "cache_url": f"redis://127.0.0.1:{redis_server.port}/0",
            "state_url": f"redis://127.0.0.1:{redis_server.port}/1",
        },
        "models": {"demo": {"endpoints": [engine.url]}},
        "default_model": "demo",
        "limits": {"engine_wait_seconds": 20, "drain_seconds": 2, "ready_probe_seconds": 0.2},
    }


@pytest.fixture
async def prepared(
    tmp_path: Path, configuration: dict[str, Any], template: str
) -> AsyncIterator[AppProcess]:
    """The app with its tables, knowledge and a key, not yet serving."""
    process = AppProcess(tmp_path, configuration)
    process.key = template
    yield process
    await process.client.aclose()
    if process.process is not None and process.process.is_alive():
        await process.kill()


@pytest.fixture
async def app(prepared: AppProcess) -> AppProcess:
    await prepared.start()
    return prepared

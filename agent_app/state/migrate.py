"""Bring the database's tables to what this release needs, whoever else tries the same."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import psycopg
from alembic import command
from alembic.config import Config as AlembicConfig
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from langgraph.checkpoint.postgres import PostgresSaver
from psycopg.rows import dict_row
from sqlalchemy import Connection, create_engine
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from agent_app.config import Config, read_secret
from agent_app.errors import ConfigError, DatabaseUnavailable
from agent_app.state.audit import Entry, append_now
from agent_app.state.database import connection_string
from agent_app.state.vectors import ensure_index

LOCK_KEY = 0x5261636B  # "Rack"; any constant that nothing else in this database uses
LOCK_WAIT_SECONDS = 300.0
LOCK_POLL_SECONDS = 0.2


def migrate(config: Config) -> str:
    """Run the app's migrations and LangGraph's setup, once at a time.

    Returns:
        The revision the database is at.

    Raises:
        DatabaseUnavailable: It does not answer, or the lock was never free.
        ConfigError: The database lacks what the postgres role makes.
    """
    password = read_secret("database_owner_password")
    conninfo = partial(
        connection_string, config.database, user=config.database.owner, password=password
    )
    try:
        with psycopg.connect(conninfo(), autocommit=True) as guard, _locked(guard):
            before = _revision(guard)
            _run_alembic(conninfo())
            _set_up_checkpoints(conninfo(options="-c search_path=checkpoints"))
            if config.embeddings is not None:
                ensure_index(guard, config.embeddings.dimensions)
            after = _revision(guard)
            if after != before:
                append_now(guard, Entry("database.migrate", details={"from": before, "to": after}))
    except psycopg.OperationalError as error:
        raise DatabaseUnavailable(
            str(error).strip(), place=config.database.host, cure="check database: in the config"
        ) from error
    except (psycopg.errors.InvalidSchemaName, psycopg.errors.InsufficientPrivilege) as error:
        raise ConfigError(
            str(error).strip(),
            place=f"database {config.database.name}",
            cure="run the postgres role: it makes the schemas and gives them to the owner",
        ) from error
    return after


def _revision(connection: psycopg.Connection) -> str:
    row = connection.execute("SELECT to_regclass('app.alembic_version') IS NOT NULL").fetchone()
    if not row or not row[0]:
        return ""
    row = connection.execute("SELECT version_num FROM app.alembic_version").fetchone()
    return str(row[0]) if row else ""


@contextmanager
def _locked(connection: psycopg.Connection) -> Iterator[None]:
    """Hold the advisory lock.

    It is polled, not waited for: a waiter would hold a snapshot, on which the lock's holder would
    wait in CREATE INDEX CONCURRENTLY, for ever.
    """
    deadline = time.monotonic() + LOCK_WAIT_SECONDS
    while True:
        row = connection.execute("SELECT pg_try_advisory_lock(%s)", (LOCK_KEY,)).fetchone()
        if row and row[0]:
            break
        if time.monotonic() > deadline:
            raise DatabaseUnavailable(
                f"another migration held the lock for {LOCK_WAIT_SECONDS:.0f} s",
                cure="look in pg_locks for its process and end it",
            )
        time.sleep(LOCK_POLL_SECONDS)
    try:
        yield
    finally:
        connection.execute("SELECT pg_advisory_unlock(%s)", (LOCK_KEY,))


def _run_alembic(conninfo: str) -> None:
    engine = create_engine(
        "postgresql+psycopg://", creator=lambda: psycopg.connect(conninfo), poolclass=NullPool
    )
    settings = AlembicConfig()
    settings.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    try:
        with engine.connect() as connection:
            if _is_ahead(connection, settings):
                return
            connection.rollback()  # what asking began, or the migrations would be part of it
            settings.attributes["connection"] = connection
            command.upgrade(settings, "head")
    except DBAPIError as error:  # the driver's own error says it better
        raise (error.orig or error) from error


def _is_ahead(connection: Connection, settings: AlembicConfig) -> bool:
    """Whether a later release moved the database on; migrations only add, so this one goes on."""
    known = {script.revision for script in ScriptDirectory.from_config(settings).walk_revisions()}
    there = MigrationContext.configure(connection, opts={"version_table_schema": "app"})
    return bool(set(there.get_current_heads()) - known)


def _set_up_checkpoints(conninfo: str) -> None:
    with psycopg.connect(
        conninfo, autocommit=True, prepare_threshold=0, row_factory=dict_row
    ) as connection:
        PostgresSaver(connection).setup()

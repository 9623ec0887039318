"""What several commands have in common: their options and their connection."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from agent_app.config import Config, read_secret
from agent_app.errors import ConfigError, DatabaseUnavailable

if TYPE_CHECKING:
    import psycopg

ConfigPath = Annotated[Path, typer.Option("--config", help="The configuration file.")]
DEFAULT_CONFIG = Path("/etc/agent_app/config.yml")
AsJson = Annotated[bool, typer.Option("--json", help="For scripts.")]


@contextmanager
def open_database(config: Config) -> "Iterator[psycopg.Connection]":
    """Yield a connection as the app's own role.

    Raises:
        ConfigError: The tables are not there.
        DatabaseUnavailable: It does not answer.
    """
    import psycopg

    from agent_app.state.database import connection_string

    conninfo = connection_string(
        config.database, user=config.database.user, password=read_secret("database_password")
    )
    place = f"{config.database.host}:{config.database.port}/{config.database.name}"
    try:
        with psycopg.connect(conninfo, autocommit=True) as connection:
            yield connection
    except psycopg.errors.UndefinedTable as error:
        raise ConfigError(
            "the tables are not there", place=place, cure="run agent-app migrate"
        ) from error
    except psycopg.OperationalError as error:
        raise DatabaseUnavailable(
            str(error).strip(), place=place, cure="check database: in the config"
        ) from error

"""Makes what searches by meaning, for commands; a serving process has its own connections."""

import contextlib
from collections.abc import AsyncIterator

from agent_app.agent.embeddings import EmbeddingClient
from agent_app.config import Config, read_secret
from agent_app.knowledge.semantic import Semantic
from agent_app.state.database import Pool, make_pool

COMMAND_CONNECTIONS = 3


@contextlib.asynccontextmanager
async def open_pool(config: Config) -> AsyncIterator[Pool]:
    """Yield a small pool of connections for a command."""
    database = config.database.model_copy(update={"pool_size": COMMAND_CONNECTIONS})
    async with make_pool(database, read_secret("database_password")) as pool:
        yield pool


@contextlib.asynccontextmanager
async def open_semantic(config: Config) -> AsyncIterator[Semantic | None]:
    """Yield semantic search, or None where no embedding model is configured.

    Raises:
        ConfigError: A credential is missing.
    """
    settings = config.embeddings
    if settings is None:
        yield None
        return
    secret = read_secret(settings.credential) if settings.credential else ""
    client = EmbeddingClient(settings, secret, config.tls_ca_file)
    async with contextlib.aclosing(client), open_pool(config) as pool:
        yield Semantic(pool, client)

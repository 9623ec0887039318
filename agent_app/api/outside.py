"""Makes what reaches beyond our engines: clouds, the embeddings endpoint, the cache of answers."""

import contextlib

import redis.asyncio as redis

from agent_app.agent.cache import AnswerCache
from agent_app.agent.cloud import CloudEngine, make_cloud_client
from agent_app.agent.embeddings import EmbeddingClient
from agent_app.agent.outing import Outings
from agent_app.agent.pool import EnginePool
from agent_app.agent.router import Router
from agent_app.agent.semantic import SameQuestion
from agent_app.config import Config
from agent_app.state.audit import Audit
from agent_app.state.cloud_spend import CloudSpend
from agent_app.state.database import Pool
from agent_app.state.responses import Responses


async def make_router(
    config: Config,
    secrets: dict[str, str],
    pool: Pool,
    engines: dict[str, EnginePool],
    audit: Audit,
    stack: contextlib.AsyncExitStack,
) -> Router:
    """Return the router; its clients close with the stack."""
    clouds = {}
    for model, policy in config.routes.items():
        if policy.cloud is None:
            continue
        client = await stack.enter_async_context(make_cloud_client(policy.cloud))
        secret = secrets.get(policy.cloud.credential, "")
        clouds[model] = CloudEngine(policy.cloud, secret, client)
    return Router(config, engines, clouds, Outings(config, CloudSpend(pool), audit))


def make_embeddings(
    config: Config, secrets: dict[str, str], stack: contextlib.AsyncExitStack
) -> EmbeddingClient | None:
    """Return who makes vectors, for the cache and the knowledge base; None where nobody does."""
    if config.embeddings is None:
        return None
    secret = secrets.get(config.embeddings.credential, "")
    client = EmbeddingClient(config.embeddings, secret, config.tls_ca_file)
    stack.push_async_callback(client.aclose)
    return client


def make_cache(
    config: Config,
    client: redis.Redis,
    embeddings: EmbeddingClient | None,
    stack: contextlib.AsyncExitStack,
) -> AnswerCache | None:
    """Return the cache of answers, None where it is off."""
    if not config.cache.on:
        return None
    responses, same = Responses(client, seconds=config.cache.seconds), None
    if config.cache.semantic is not None and embeddings is not None:
        same = SameQuestion(responses, embeddings, config.cache.semantic)
    cache = AnswerCache(responses, config.cache, same)
    stack.push_async_callback(cache.aclose)
    return cache

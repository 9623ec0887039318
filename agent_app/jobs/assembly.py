"""Makes what works in the background: workers for jobs, and the courier of webhooks."""

import asyncio
import contextlib
import ssl

import httpx2

from agent_app.access.keys import Keyring
from agent_app.agent.runner import Runner
from agent_app.config import Config, read_secret
from agent_app.jobs.worker import Workers
from agent_app.state.audit import Audit
from agent_app.state.bell import Bell
from agent_app.state.database import Pool
from agent_app.state.job_queue import JobQueue
from agent_app.state.threads import Threads
from agent_app.state.webhooks import Delivery, Webhooks
from agent_app.webhooks.courier import Courier, Sender
from agent_app.webhooks.destinations import Destinations
from agent_app.webhooks.signature import key_secret


async def start_background(
    config: Config,
    owner: str,
    pool: Pool,
    runner: Runner,
    keyring: Keyring,
    audit: Audit,
    stack: contextlib.AsyncExitStack,
) -> Workers:
    """Start the workers and the courier; they end with the stack.

    Raises:
        ConfigError: A webhook's credential is missing.
    """
    bell = Bell(pool)
    if senders := make_senders(config):
        client = await stack.enter_async_context(_client(config))
        courier = Courier(Webhooks(pool, owner=owner), client, senders, bell)
        stack.push_async_callback(courier.close)
        stack.callback(asyncio.create_task(courier.work(), name="courier").cancel)
    lease_seconds = config.limits.lease_seconds
    workers = Workers(
        config.jobs,
        queue=JobQueue(pool, owner=owner, lease_seconds=lease_seconds),
        runner=runner,
        keyring=keyring,
        threads=Threads(pool),
        audit=audit,
        bell=bell,
        lease_seconds=lease_seconds,
    )
    await workers.start()
    stack.push_async_callback(workers.drain)
    stack.callback(asyncio.create_task(bell.listen(), name="bell").cancel)
    return workers


def make_senders(config: Config) -> dict[str, Sender]:
    """Return how each family of webhooks is sent, of those that the configuration switches on.

    Raises:
        ConfigError: A webhook's credential is missing.
    """
    senders: dict[str, Sender] = {}
    tickets = config.tools.tickets
    if tickets is not None and tickets.webhook_url is not None:
        secret = read_secret("tools_ticket_webhook_secret")
        senders["ticket"] = Sender(
            lambda _delivery: secret, tickets.webhook_attempts, url=str(tickets.webhook_url)
        )
    if config.jobs.webhook_hosts:
        root = read_secret("webhook_secret")

        def secret_of(delivery: Delivery) -> str:
            assert delivery.key_id is not None
            return key_secret(root, delivery.key_id)

        senders["job"] = Sender(
            secret_of,
            config.jobs.webhook_attempts,
            destinations=Destinations(config.jobs.webhook_hosts),
        )
    return senders


def _client(config: Config) -> httpx2.AsyncClient:
    return httpx2.AsyncClient(
        verify=ssl.create_default_context(cafile=config.tls_ca_file or None),
        trust_env=False,
        follow_redirects=False,
        limits=httpx2.Limits(max_connections=None, max_keepalive_connections=0),
    )

"""Posts what is due in the outbox; any number of processes may do so together."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import httpx2
import structlog

from agent_app.errors import AgentAppError, InvalidRequest
from agent_app.observability import metrics
from agent_app.state.bell import Bell, Work, wait_for_ring
from agent_app.state.webhooks import Delivery, Webhooks
from agent_app.webhooks.destinations import Destinations, pin
from agent_app.webhooks.signature import sign

POLL_SECONDS = 1.0
POST_SECONDS = 10.0  # less than a claim lasts, so that no other process posts the same meanwhile
POSTS = 16
"""Posts under way at a time in this process."""
POSTS_PER_LANE = 4
"""Of one key, so that receivers who only time out leave room to others."""
CLOSE_SECONDS = 2.0

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Sender:
    """How one family of webhooks is sent.

    Args:
        secret: Returns what signs a delivery.
        attempts: How many each has.
        url: Where all go; "" where each has a URL of its own.
        destinations: What those may be; None where the operator chose the URL.
    """

    secret: Callable[[Delivery], str]
    attempts: int
    url: str = ""
    destinations: Destinations | None = None


@dataclass(frozen=True, slots=True)
class _Failure:
    why: str
    receivers: bool
    """The receiver is at fault, not this one delivery: others to it can wait as well."""
    final: bool = False


class Courier:
    """Takes deliveries from the outbox and posts them, several at a time.

    Args:
        webhooks: The outbox.
        client: Without redirects, proxies and connections kept: one to an address was checked
            for the name it was opened for only.
        senders: By family, `ticket` and `job`; others are left alone.
        bell: Rings when there is something new.
    """

    def __init__(
        self,
        webhooks: Webhooks,
        client: httpx2.AsyncClient,
        senders: dict[str, Sender],
        bell: Bell,
    ) -> None:
        self._webhooks = webhooks
        self._client = client
        self._senders = senders
        self._rung = bell.subscribe(Work.WEBHOOKS)
        self._posting: set[asyncio.Task[None]] = set()
        self._lanes: Counter[str] = Counter()

    async def work(self) -> None:
        """Deliver for ever."""
        await self._release()
        while True:
            self._rung.clear()
            try:
                took = await self._take_next()
            except AgentAppError as error:
                log.warning("outbox_not_reached", why=str(error))
                took = False
            except Exception:
                log.exception("outbox_failed")
                took = False
            if not took:
                await wait_for_ring(self._rung, POLL_SECONDS)

    async def _release(self) -> None:
        """Make due again what we claimed and posted in an earlier life, or could not finish."""
        try:
            await self._webhooks.release_own()
        except AgentAppError as error:  # they are due again a little later
            log.warning("webhooks_not_released", why=str(error))

    async def close(self) -> None:
        """Let posts under way finish for a moment; the rest is posted again, by whoever lives."""
        posting = set(self._posting)
        if posting:
            await asyncio.wait(posting, timeout=CLOSE_SECONDS)
        for task in posting:
            task.cancel()
        await asyncio.gather(*posting, return_exceptions=True)
        await self._release()

    async def _take_next(self) -> bool:
        """Begin to post one delivery; return whether there was one."""
        if len(self._posting) >= POSTS:
            await asyncio.wait(self._posting, return_when=asyncio.FIRST_COMPLETED)
        full = [lane for lane, posts in self._lanes.items() if posts >= POSTS_PER_LANE]
        delivery = await self._webhooks.claim(self._senders, full=full)
        if delivery is None:
            return False
        self._lanes[delivery.lane] += 1
        task = asyncio.create_task(self._deliver(delivery), name=f"webhook-{delivery.id}")
        self._posting.add(task)

        def forget(task: "asyncio.Task[None]") -> None:
            self._posting.discard(task)
            self._lanes -= Counter([delivery.lane])
            self._rung.set()

        task.add_done_callback(forget)
        return True

    async def _deliver(self, delivery: Delivery) -> None:
        sender = self._senders[delivery.family]
        try:
            failure = await self._post(delivery, sender)
            if failure is None:
                await self._webhooks.delivered(delivery)
                metrics.WEBHOOKS.labels(delivery.kind, "delivered").inc()
                return
            given_up = await self._webhooks.failed(
                delivery,
                failure.why,
                most=sender.attempts,
                pause=failure.receivers,
                final=failure.final,
            )
            outcome = "given_up" if given_up else "failed"
            metrics.WEBHOOKS.labels(delivery.kind, outcome).inc()
            log.warning(
                "webhook_failed",
                id=str(delivery.id),
                kind=delivery.kind,
                attempt=delivery.attempts,
                given_up=given_up,
                why=failure.why,
            )
        except AgentAppError as error:  # posted again when the claim ends: a receiver knows the id
            log.warning("webhook_not_noted", id=str(delivery.id), why=str(error))
        except Exception:
            log.exception("webhook_broke", id=str(delivery.id))

    async def _post(self, delivery: Delivery, sender: Sender) -> _Failure | None:
        url = delivery.url or sender.url
        try:
            async with asyncio.timeout(POST_SECONDS):
                if sender.destinations is None:
                    return _judge(await self._send(httpx2.URL(url), delivery, sender))
                failure: _Failure | None = None
                for address in await sender.destinations.resolve(url):
                    pinned, headers, extensions = pin(url, address)
                    try:
                        status = await self._send(pinned, delivery, sender, headers, extensions)
                        return _judge(status)
                    except httpx2.ConnectError as error:
                        failure = _Failure(type(error).__name__, receivers=True)
                return failure
        except InvalidRequest as error:  # no longer allowed, or for now not resolved
            return _Failure(error.message, receivers=False)
        except (httpx2.HTTPError, httpx2.InvalidURL, TimeoutError) as error:
            return _Failure(type(error).__name__, receivers=True)

    async def _send(
        self,
        url: httpx2.URL,
        delivery: Delivery,
        sender: Sender,
        headers: dict[str, str] | None = None,
        extensions: dict[str, str] | None = None,
    ) -> int:
        """Post and return the status; what the receiver says besides is not read."""
        timestamp = str(int(time.time()))
        signature = sign(sender.secret(delivery), timestamp, delivery.body)
        request = self._client.build_request(
            "POST",
            url,
            content=delivery.body.encode(),
            headers={
                **(headers or {}),
                "Content-Type": "application/json",
                "User-Agent": "rackhand-agent-app",
                "X-Webhook-Id": str(delivery.id),
                "X-Webhook-Timestamp": timestamp,
                "X-Webhook-Signature": f"sha256={signature}",
            },
            extensions=extensions or {},
        )
        response = await self._client.send(request, stream=True, follow_redirects=False)
        await response.aclose()
        return response.status_code


def _judge(status: int) -> _Failure | None:
    if 200 <= status < 300:
        return None
    # A 4xx is about this delivery, but for "too many" and "not now".
    receivers = status >= 500 or status in (408, 429)
    return _Failure(f"status {status}", receivers=receivers)

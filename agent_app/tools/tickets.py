"""The tool `create_ticket`, and the task that posts tickets to the operator's webhook."""

import asyncio
import hashlib
import hmac
import time
from typing import Any

import httpx2
import structlog

from agent_app.errors import AgentAppError
from agent_app.state.tickets import Delivery, Ticket, Tickets
from agent_app.tools.toolbox import CallContext, InvalidArguments, Output

TITLE_CHARACTERS = 200
BODY_CHARACTERS = 8_000
PRIORITIES = ("low", "normal", "high")
POLL_SECONDS = 1.0
POST_SECONDS = 10.0  # less than a claim lasts, so that no other process posts the same meanwhile

log = structlog.get_logger(__name__)


class CreateTicket:
    """Writes a ticket, once per call however often the call is repeated."""

    name = "create_ticket"
    schema: dict[str, Any] = {  # noqa: RUF012 - constant
        "type": "function",
        "function": {
            "name": "create_ticket",
            "description": "Open a ticket for the people who operate this service.",
            "parameters": {
                "type": "object",
                "properties": {
                    "title": {"type": "string", "maxLength": TITLE_CHARACTERS},
                    "body": {"type": "string", "maxLength": BODY_CHARACTERS},
                    "priority": {"type": "string", "enum": list(PRIORITIES)},
                },
                "required": ["title", "body"],
            },
        },
    }

    def __init__(self, tickets: Tickets, *, webhook: bool) -> None:
        self._tickets = tickets
        self._webhook = webhook

    async def run(self, arguments: dict[str, Any], context: CallContext) -> Output:
        """Write the ticket and return its number."""
        number = await self._tickets.create(
            _read(arguments),
            run_id=context.run_id,
            call_id=context.call_id,
            thread_id=context.thread_id,
            webhook=self._webhook,
        )
        return Output(f"ticket {number} is open")


def _read(arguments: dict[str, Any]) -> Ticket:
    title, body = arguments.get("title"), arguments.get("body")
    priority = arguments.get("priority", "normal")
    for name, text, most in (("title", title, TITLE_CHARACTERS), ("body", body, BODY_CHARACTERS)):
        if not isinstance(text, str) or not text.strip() or len(text) > most or "\0" in text:
            raise InvalidArguments(f"{name} must be a text of 1 to {most} characters")
    if priority not in PRIORITIES:
        raise InvalidArguments(f"priority must be one of {', '.join(PRIORITIES)}")
    return Ticket(str(title), str(body), priority)


def sign(secret: str, timestamp: str, body: str) -> str:
    """Return the signature a receiver compares: HMAC-SHA256 of `<timestamp>.<body>`, in hex."""
    text = f"{timestamp}.{body}".encode()
    return hmac.new(secret.encode(), text, hashlib.sha256).hexdigest()


class Courier:
    """Posts what is due in the outbox; any number of processes may do so together."""

    def __init__(
        self,
        tickets: Tickets,
        client: httpx2.AsyncClient,
        *,
        url: str,
        secret: str,
        attempts: int,
    ) -> None:
        self._tickets = tickets
        self._client = client
        self._url = url
        self._secret = secret
        self._attempts = attempts

    async def work(self) -> None:
        """Deliver for ever."""
        while True:
            try:
                idle = not await self.deliver_next()
            except AgentAppError as error:
                log.warning("outbox_not_reached", why=str(error))
                idle = True
            except Exception:
                log.exception("outbox_failed")
                idle = True
            if idle:
                await asyncio.sleep(POLL_SECONDS)

    async def deliver_next(self) -> bool:
        """Post one delivery; return whether there was one."""
        delivery = await self._tickets.claim()
        if delivery is None:
            return False
        why = await self._post(delivery)
        if not why:
            await self._tickets.delivered(delivery)
            return True
        log.warning("webhook_failed", id=str(delivery.id), attempt=delivery.attempts, why=why)
        await self._tickets.failed(delivery, why, most=self._attempts)
        return True

    async def _post(self, delivery: Delivery) -> str:
        timestamp = str(int(time.time()))
        headers = {
            "Content-Type": "application/json",
            "X-Webhook-Id": str(delivery.id),
            "X-Webhook-Timestamp": timestamp,
            "X-Webhook-Signature": f"sha256={sign(self._secret, timestamp, delivery.body)}",
        }
        try:
            async with asyncio.timeout(POST_SECONDS):
                response = await self._client.post(
                    self._url, content=delivery.body.encode(), headers=headers
                )
        except (httpx2.HTTPError, TimeoutError) as error:
            return type(error).__name__
        return "" if response.is_success else f"status {response.status_code}"

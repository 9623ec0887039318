"""The fair queue that all processes of all hosts share, kept in Redis by one atomic script.

Each report is one call, however many steps it speaks of. A process is woken by a message; were the
message lost, its next report would bring the same news.
"""

import asyncio
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import redis.asyncio as redis
import structlog

from agent_app.agent.queue_terms import Line, Report, Ruling, Ticket

REDIS_WAIT_SECONDS = 0.5
REDIS_PAUSE_SECONDS = 1.0
"""After a failure Redis is left alone so long, as in access/limits.py."""
FULL = "full"
"""The message that says: others wait, give your reserve back."""

_SCRIPT = Path(__file__).with_name("queue_script.lua").read_text(encoding="utf-8")
_PARTS = ("alive", "held", "spare", "told", "tags", "order", "waiting", "weights", "state", "knows")

log = structlog.get_logger(__name__)


class SharedQueue:
    """One model's queue in Redis.

    Args:
        client: The `state` database.
        model: The model's served name.
        process: Names this process among all; the same after a restart.
    """

    def __init__(self, client: redis.Redis, model: str, process: str) -> None:
        self._client = client
        self._model = model
        self._process = process
        self._script = client.register_script(_SCRIPT)
        self._keys = [f"queue:{{{model}}}:{part}" for part in _PARTS]
        self._channel = f"queue:{{{model}}}:wake:"
        self._away_until = 0.0

    async def turn(self, report: Report, now: float | None = None) -> Ruling | None:
        """Hand in a report; None where Redis gives no answer in time.

        Args:
            report: Of this process.
            now: A clock in the place of Redis's own, for tests.
        """
        if time.monotonic() < self._away_until:
            return None
        arguments = [_encode(report), self._channel, *([] if now is None else [repr(now)])]
        try:
            async with asyncio.timeout(REDIS_WAIT_SECONDS):
                answer = await self._script(keys=self._keys, args=arguments)
        except (TimeoutError, redis.RedisError, OSError) as error:
            self._away_until = time.monotonic() + REDIS_PAUSE_SECONDS
            log.warning("queue_not_shared", model=self._model, why=type(error).__name__)
            return None
        return _decode(json.loads(answer))

    async def listen(self, heard: Callable[[str], None]) -> None:
        """Call back with each message to this process, for ever, whatever happens to Redis."""
        while True:
            try:
                async with self._client.pubsub(ignore_subscribe_messages=True) as pubsub:
                    await pubsub.subscribe(self._channel + self._process)
                    async for message in pubsub.listen():
                        heard(message["data"].decode())
            except (redis.RedisError, OSError):
                await asyncio.sleep(REDIS_PAUSE_SECONDS)


def _encode(report: Report) -> str:
    return json.dumps(
        {
            "process": report.process,
            "lease_seconds": report.lease_seconds,
            "capacity": report.capacity,
            "length": report.length,
            "held": report.held,
            "used": report.used,
            "joins": [str(ticket) for ticket in report.joins],
            "gone": [str(ticket) for ticket in report.gone],
            "charges": [
                (charge.flow.key, charge.flow.weight, charge.tokens, charge.starts)
                for charge in report.charges
            ],
            "asks": [str(ticket) for ticket in report.asks],
            "afresh": report.afresh,
        },
        separators=(",", ":"),
    )


def _decode(answer: dict[str, Any]) -> Ruling:
    """Return the ruling of the script's answer, where an empty list may look like an object."""
    if not answer["known"]:
        return Ruling(known=False)
    told = answer["told"].splitlines()
    granted = [line[1:].rsplit("|", 1) for line in told if line.startswith("+")]
    return Ruling(
        granted=tuple((Ticket.parse(text), float(tag)) for text, tag in granted),
        refused=tuple(Ticket.parse(line[1:]) for line in told if line.startswith("-")),
        reserve=answer["reserve"],
        spare=answer["spare"],
        waiting=answer["waiting"],
        processes=answer["processes"],
        time=float(answer["time"]),
        rate=float(answer["rate"]),
        lines={key: Line(float(tag), w, count) for key, tag, w, count in answer["lines"] or ()},
        ranks={Ticket.parse(text): rank for text, rank in answer["ranks"] or ()},
    )

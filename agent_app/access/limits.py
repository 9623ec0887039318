"""Limits per key, enforced for all processes together by one atomic script in Redis.

Requests and tokens a minute are leaky buckets that hold one minute's worth (GCRA: each is one
time stamp that moves ahead with use). Tokens are taken when a run begins, by estimate, and put
right when it ends; what a dead process took drains by itself within a minute. Concurrent runs are
leases, which end with their process.
"""

import asyncio
import math
import time
from dataclasses import dataclass, fields, replace
from typing import Any
from uuid import UUID, uuid4

import redis.asyncio as redis
import structlog

from agent_app.config import Limits
from agent_app.errors import RateLimited
from agent_app.observability import metrics

REDIS_WAIT_SECONDS = 0.5
REDIS_PAUSE_SECONDS = 1.0
"""After a failure Redis is left alone so long: an outage must not slow every request."""

log = structlog.get_logger(__name__)

# A lease that is there already is the same question once more, whose first answer was lost.
_TAKE = """
local requests, tokens, runs = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local cost, lease, seconds = tonumber(ARGV[4]), ARGV[5], tonumber(ARGV[6])
local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1000000
local function taken(key) return math.max(tonumber(redis.call('GET', key) or '0'), now) end
local request_end, token_end = taken(KEYS[1]), taken(KEYS[2])
local why, wait = '', 0
redis.call('ZREMRANGEBYSCORE', KEYS[3], '-inf', now)
local function refuse(name, after)
  if after > wait then why, wait = name, after end
end
local taken_before = redis.call('ZSCORE', KEYS[3], lease)
if not taken_before then
  if runs > 0 and redis.call('ZCARD', KEYS[3]) >= runs then refuse('runs', 1) end
  if requests > 0 then refuse('requests', request_end + 60 / requests - now - 60) end
  if tokens > 0 then refuse('tokens', token_end + cost * 60 / tokens - now - 60) end
end
if wait < 0.000001 and not taken_before then
  why = ''
  if requests > 0 then
    request_end = request_end + 60 / requests
    redis.call('SET', KEYS[1], string.format('%.6f', request_end), 'EX', 120)
  end
  if tokens > 0 then
    token_end = token_end + cost * 60 / tokens
    redis.call('SET', KEYS[2], string.format('%.6f', token_end), 'EX', 120)
  end
  redis.call('ZADD', KEYS[3], now + seconds, lease)
  redis.call('EXPIRE', KEYS[3], math.ceil(seconds) + 1)
end
return {why, tostring(wait), tostring(request_end - now), tostring(token_end - now),
        string.format('%.6f', now)}
"""

# A late refund must not hand out what has drained since: unused capacity cannot be saved up.
_SETTLE = """
if redis.call('ZREM', KEYS[2], ARGV[1]) == 0 then return 0 end
local tokens, cost, used = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
if tokens == 0 then return 1 end
local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1000000
local left = math.max(0, cost - (now - tonumber(ARGV[5])) * tokens / 60)
local ends = math.max(tonumber(redis.call('GET', KEYS[1]) or '0'), now)
ends = ends + math.max(used - cost, -left) * 60 / tokens
local keep = math.ceil(math.max(ends - now, 0)) + 60
redis.call('SET', KEYS[1], string.format('%.6f', ends), 'EX', keep)
return 1
"""

# By Redis's clock, as all else.
_RENEW = """
local time, seconds = redis.call('TIME'), tonumber(ARGV[1])
for n = 2, #ARGV do redis.call('ZADD', KEYS[1], 'XX', time[1] + seconds, ARGV[n]) end
redis.call('EXPIRE', KEYS[1], math.ceil(seconds) + 1)
return 1
"""


@dataclass(frozen=True, slots=True)
class KeyLimits:
    """Bounds of one key; None stands for the configuration's, 0 for none."""

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    concurrent_runs: int | None = None
    budget_soft: int | None = None
    """Tokens of a calendar month (UTC), prompt and answer; so are the next two."""
    budget_medium: int | None = None
    budget_hard: int | None = None
    weight: int | None = None
    """Share of full engines beside other keys, 1 to 1000."""

    def over(self, limits: Limits) -> "KeyLimits":
        """Return these, with the configuration's where there is none."""
        return replace(
            self,
            **{
                name: getattr(limits, f"key_{name}")
                for name in LIMIT_NAMES
                if getattr(self, name) is None
            },
        )


LIMIT_NAMES = tuple(field.name for field in fields(KeyLimits))


@dataclass(frozen=True, slots=True)
class Grant:
    """Leave for one run; settled when it ends."""

    key_id: UUID
    limits: KeyLimits
    tokens: int
    headers: dict[str, str]
    lease: str
    taken_at: str = ""
    """Redis's own clock; "" where Redis was not asked."""


class Gate:
    """Lets runs begin within their keys' limits.

    Without Redis it lets all of them: a lost cache must not stop the service, and `limits.runs`
    still bounds the process. Each such run is counted, and the outage logged.
    """

    def __init__(self, client: redis.Redis, limits: Limits) -> None:
        self._limits = limits
        self._take = client.register_script(_TAKE)
        self._settle = client.register_script(_SETTLE)
        self._renew = client.register_script(_RENEW)
        self._held: dict[str, Grant] = {}
        self._away_until = 0.0

    async def enter(self, key_id: UUID, own: KeyLimits, *, tokens: int) -> Grant:
        """Take a run's share of the key's limits.

        Args:
            key_id: Whose.
            own: Its limits.
            tokens: Most that the run's first step may use, by estimate.

        Raises:
            RateLimited: One of them is used up.
        """
        limits = own.over(self._limits)
        if limits.tokens_per_minute:  # else a long prompt would never be let in
            tokens = min(tokens, limits.tokens_per_minute)
        grant = Grant(key_id, limits, tokens, {}, uuid4().hex)
        bounds = (limits.requests_per_minute, limits.tokens_per_minute, limits.concurrent_runs)
        if not any(bounds):
            return grant
        values = [bound or 0 for bound in bounds]
        arguments: list[str | float] = [*values, tokens, grant.lease, self._limits.lease_seconds]
        keys = [_name(key_id, part) for part in ("requests", "tokens", "runs")]
        answer = await self._ask(self._take(keys=keys, args=arguments))
        if answer is None:
            metrics.LIMITS_OPEN.inc()
            return grant
        why, wait, request_seconds, token_seconds, now = (part.decode() for part in answer)
        headers = {
            **_headers("requests", values[0], float(request_seconds)),
            **_headers("tokens", values[1], float(token_seconds)),
        }
        if why:
            metrics.LIMITED.labels(why).inc()
            raise _refusal(why, limits, float(wait), headers)
        grant = replace(grant, headers=headers, taken_at=now)
        self._held[grant.lease] = grant
        return grant

    async def leave(self, grant: Grant, *, used: int) -> None:
        """Give the run's place back and put its tokens right.

        Args:
            grant: What `enter` gave.
            used: Tokens in the engine's count.
        """
        if self._held.pop(grant.lease, None) is None:
            return
        arguments: list[Any] = [
            grant.lease,
            grant.limits.tokens_per_minute or 0,
            grant.tokens,
            used,
            grant.taken_at,
        ]
        keys = [_name(grant.key_id, part) for part in ("tokens", "runs")]
        await self._ask(self._settle(keys=keys, args=arguments))

    async def renew(self) -> None:
        """Renew the leases of the runs under way here."""
        leases: dict[UUID, list[str]] = {}
        for grant in self._held.values():
            leases.setdefault(grant.key_id, []).append(grant.lease)
        for key_id, names in leases.items():
            arguments: list[str | float] = [self._limits.lease_seconds, *names]
            await self._ask(self._renew(keys=[_name(key_id, "runs")], args=arguments))

    async def _ask(self, question: Any) -> Any:
        """Return Redis's answer, None where it gives none in time."""
        if time.monotonic() < self._away_until:
            question.close()
            return None
        try:
            async with asyncio.timeout(REDIS_WAIT_SECONDS):
                return await question
        except (TimeoutError, redis.RedisError, OSError) as error:
            self._away_until = time.monotonic() + REDIS_PAUSE_SECONDS
            log.warning("limits_not_enforced", why=type(error).__name__)
            return None


def _name(key_id: UUID, part: str) -> str:
    return f"limits:{{{key_id}}}:{part}"


def _headers(name: str, limit: int, taken_seconds: float) -> dict[str, str]:
    if not limit:
        return {}
    left = max(0, math.floor((60 - taken_seconds) * limit / 60 + 1e-6))
    return {
        f"x-ratelimit-limit-{name}": str(limit),
        f"x-ratelimit-remaining-{name}": str(left),
        f"x-ratelimit-reset-{name}": f"{max(0.0, taken_seconds):.3f}s",
    }


def _refusal(why: str, limits: KeyLimits, wait: float, headers: dict[str, str]) -> RateLimited:
    text = {
        "requests": f"{limits.requests_per_minute} requests a minute",
        "tokens": f"{limits.tokens_per_minute} tokens a minute",
        "runs": f"{limits.concurrent_runs} runs at a time",
    }[why]
    seconds = max(1, math.ceil(wait))
    return RateLimited(
        f"this key's limit of {text} is reached; try again in {seconds} s",
        headers={**headers, "Retry-After": str(seconds)},
    )

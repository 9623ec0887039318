"""What Redis holds of a subject: every name there carries the id of its key, thread or run."""

import re
from collections.abc import Iterable, Iterator
from typing import Any
from uuid import UUID

import redis

from agent_app.config import Config
from agent_app.errors import AgentAppError

SCAN_COUNT = 1_000
SECONDS = 5

_ID = re.compile(r"[0-9a-f]{8}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{12}")


class RedisUnavailable(AgentAppError):
    """Redis does not answer."""

    code = "redis_unavailable"
    status = 503
    retryable = True


class RedisNames:
    """Both Redis databases, by their keys' names.

    Args:
        config: Where they are.
        password: Of both.
    """

    def __init__(self, config: Config, password: str) -> None:
        urls = {"redis_cache": config.redis.cache_url, "redis_state": config.redis.state_url}
        self._clients = {
            name: redis.Redis.from_url(
                url,
                password=password or None,
                socket_timeout=SECONDS,
                socket_connect_timeout=SECONDS,
                **_tls(url, config.tls_ca_file),
            )
            for name, url in urls.items()
        }

    def count(self, ids: Iterable[UUID]) -> dict[str, int]:
        """Return how many names carry one of the ids, by database."""
        return self._each(ids, delete=False)

    def forget(self, ids: Iterable[UUID]) -> dict[str, int]:
        """Delete what carries one of the ids; return how many, by database.

        Raises:
            RedisUnavailable: One does not answer; again is safe.
        """
        return self._each(ids, delete=True)

    def _each(self, ids: Iterable[UUID], *, delete: bool) -> dict[str, int]:
        wanted, found = {id_.hex for id_ in ids}, {}
        for name, client in self._clients.items():
            try:
                count = 0
                for key in _matching(client, wanted):
                    count += int(client.unlink(key)) if delete else 1
                found[name] = count
            except (redis.RedisError, OSError) as error:
                raise RedisUnavailable(
                    f"Redis does not answer: {type(error).__name__}",
                    place=name,
                    cure="start it and give the command again; what was done stays done",
                ) from error
        return found


def _matching(client: Any, wanted: set[str]) -> Iterator[bytes]:
    for key in client.scan_iter(count=SCAN_COUNT):
        ids = {text.replace("-", "") for text in _ID.findall(key.decode(errors="replace"))}
        if ids & wanted:
            yield key


def _tls(url: str, ca_file: str) -> dict[str, Any]:
    return {"ssl_ca_certs": ca_file} if url.startswith("rediss:") and ca_file else {}

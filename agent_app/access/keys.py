"""API keys: `rh_…` with a client, an HMAC-SHA256 of it in the database."""

import hashlib
import hmac
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from agent_app.access.limits import LIMIT_NAMES, KeyLimits
from agent_app.errors import ConfigError, Unauthorized
from agent_app.state.database import Pool, database_errors

KEY_PREFIX = "rh_"
SHOWN_CHARACTERS = 11
SECRET_CHARACTERS = 16
CACHE_SECONDS = 5.0
CACHE_ENTRIES = 10_000
SCOPES = ("chat", "admin", "approve")
COLLECTION_SCOPE = "knowledge:"  # and a collection's name; without one a key searches all of them


@dataclass(frozen=True, slots=True)
class Key:
    """A key that was accepted."""

    id: UUID
    name: str
    scopes: frozenset[str]
    expires_at: datetime | None
    limits: KeyLimits
    resident: bool = False
    """Its data stays on our own hosts: no cloud is ever asked for it."""
    cache_generation: int = 0
    """Names its cached answers; the next number makes those before it unreachable."""


class Digester:
    """Turns keys into what the database holds.

    Args:
        secret: The HMAC's key, at least 16 characters.
        other: One that it follows, or that is to follow it; empty for none. Keys that were made
            with it are good, too, and are kept under `secret` once they are used.

    Raises:
        ConfigError: The secret is empty or short.
    """

    def __init__(self, secret: str, other: str = "") -> None:
        if len(secret) < SECRET_CHARACTERS:
            raise ConfigError(
                f"key_secret is shorter than {SECRET_CHARACTERS} characters",
                place="credential key_secret",
                cure="write 32 random bytes in hex into it (openssl rand -hex 32)",
            )
        self._secret = secret.encode()
        self._other = other.encode()

    def digest(self, key: str) -> str:
        """Return the HMAC-SHA256 of a key, in hex."""
        return hmac.new(self._secret, key.encode(), hashlib.sha256).hexdigest()

    def other_digest(self, key: str) -> str:
        """Return the same by the other secret, empty where there is none."""
        if not self._other:
            return ""
        return hmac.new(self._other, key.encode(), hashlib.sha256).hexdigest()


def make_key() -> str:
    """Return a new random key: 256 bits."""
    return KEY_PREFIX + secrets.token_urlsafe(32)


class Keyring:
    """Checks keys against PostgreSQL, remembering good ones for five seconds."""

    def __init__(self, pool: Pool, digester: Digester) -> None:
        self._pool = pool
        self._digester = digester
        self._cache: dict[str, tuple[float, Key]] = {}

    async def check(self, presented: str) -> Key:
        """Return the key's record.

        Raises:
            Unauthorized: It is unknown, expired or revoked; the message does not say which.
        """
        if not presented.startswith(KEY_PREFIX) or len(presented) > 200:
            raise _refused()
        digest = self._digester.digest(presented)
        found = self._cache.get(digest)
        if found is None or found[0] < time.monotonic():
            found = (time.monotonic() + CACHE_SECONDS, await self._load(digest, presented))
            if len(self._cache) >= CACHE_ENTRIES:
                self._cache.clear()
            self._cache[digest] = found
        key = found[1]
        if key.expires_at is not None and key.expires_at <= datetime.now(UTC):
            raise _refused()
        return key

    async def find(self, key_id: UUID) -> Key:
        """Return a key's record by its id: for work that outlives the request that began it.

        Raises:
            Unauthorized: It is expired or revoked.
        """
        async with database_errors(), self._pool.connection() as connection:
            row = await (await connection.execute(_FIND, {"id": key_id})).fetchone()
        if row is None:
            raise _refused()
        return _key(row)

    async def _load(self, digest: str, presented: str) -> Key:
        self._cache.pop(digest, None)
        values = {"digest": digest, "other": self._digester.other_digest(presented)}
        async with database_errors(), self._pool.connection() as connection:
            cursor = await connection.execute(_LOAD, values)
            row = await cursor.fetchone()
        if row is None or not hmac.compare_digest(row["matched"], digest):
            raise _refused()
        return _key(row)


# After a rotation of the key the one before it opens the same until its overlap ends. After one of
# the HMAC's secret what was made with the secret before it is kept by the new one from now on.
_LOAD = """
UPDATE app.api_keys SET last_used_at = now(),
    digest = CASE digest WHEN %(other)s THEN %(digest)s ELSE digest END,
    previous_digest = CASE previous_digest WHEN %(other)s THEN %(digest)s ELSE previous_digest END
WHERE (digest IN (%(digest)s, %(other)s)
        OR (previous_digest IN (%(digest)s, %(other)s) AND previous_until > now()))
    AND revoked_at IS NULL
RETURNING *,
    CASE WHEN digest = %(digest)s THEN digest ELSE previous_digest END AS matched,
    CASE WHEN digest = %(digest)s THEN expires_at ELSE least(expires_at, previous_until) END
        AS until
"""

_FIND = """
SELECT *, expires_at AS until FROM app.api_keys
WHERE id = %(id)s AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now())
"""


def _key(row: dict[str, Any]) -> Key:
    limits = KeyLimits(**{name: row[name] for name in LIMIT_NAMES})
    return Key(
        row["id"],
        row["name"],
        _scopes(row["scopes"]),
        row["until"],
        limits,
        row["resident"],
        row["cache_generation"],
    )


def _scopes(names: Sequence[str]) -> frozenset[str]:
    return frozenset(names)


def _refused() -> Unauthorized:
    return Unauthorized("the API key is missing, unknown, expired or revoked")

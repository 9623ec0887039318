"""Make, list and revoke keys: the operator's side."""

import re
from datetime import UTC, date, datetime, timedelta
from typing import Any

import psycopg
from psycopg import sql
from psycopg.rows import dict_row

from agent_app.access.keys import SCOPES, SHOWN_CHARACTERS, Digester, make_key
from agent_app.access.limits import LIMIT_NAMES
from agent_app.errors import InvalidRequest, NotFound
from agent_app.state.usage import ROWS

_DURATION = re.compile(r"([1-9]\d{0,4})([hdw])")
_UNITS = {"h": timedelta(hours=1), "d": timedelta(days=1), "w": timedelta(weeks=1)}


def parse_duration(text: str) -> timedelta:
    """Return the span of a text such as `12h`, `90d` or `8w`.

    Raises:
        InvalidRequest: It is none.
    """
    match = _DURATION.fullmatch(text)
    if match is None:
        raise InvalidRequest(f"{text!r} is not a span", place="--expires", cure="write 90d or 12h")
    return int(match[1]) * _UNITS[match[2]]


def create_key(
    connection: psycopg.Connection,
    digester: Digester,
    name: str,
    *,
    expires: timedelta | None,
    scopes: list[str],
    limits: dict[str, int | None] | None = None,
) -> dict[str, Any]:
    """Make a key; its text is in the result and nowhere else.

    Raises:
        InvalidRequest: The name is taken by a live key, or a scope does not exist.
    """
    if unknown := sorted(set(scopes) - set(SCOPES)):
        raise InvalidRequest(
            f"unknown scope {', '.join(unknown)}", place="--scope", cure=f"use {', '.join(SCOPES)}"
        )
    key = make_key()
    chosen = limits or {}
    try:
        row = connection.execute(
            _INSERT,
            (
                name,
                key[:SHOWN_CHARACTERS],
                digester.digest(key),
                scopes,
                datetime.now(UTC) + expires if expires else None,
                *(chosen.get(name) for name in LIMIT_NAMES),
            ),
        ).fetchone()
    except psycopg.errors.UniqueViolation as error:
        raise InvalidRequest(
            f"a live key is named {name!r} already",
            place="--name",
            cure=f"choose another name, or first: agent-app keys revoke {name}",
        ) from error
    assert row is not None
    return {"id": row[0], "name": name, "key": key, "scopes": scopes, "expires_at": _iso(row[1])}


_REVOKE = """
UPDATE app.api_keys SET revoked_at = now()
WHERE (name = %(name)s OR id::text = %(name)s) AND revoked_at IS NULL
"""
_ROTATE = """
UPDATE app.api_keys SET previous_digest = digest, previous_until = now() + %(overlap)s,
    digest = %(digest)s, prefix = %(prefix)s
WHERE (name = %(name)s OR id::text = %(name)s) AND revoked_at IS NULL
RETURNING previous_until
"""
_LIMIT = """
UPDATE app.api_keys SET {}
WHERE (name = %(name)s OR id::text = %(name)s) AND revoked_at IS NULL
"""
_INSERT = """
INSERT INTO app.api_keys (name, prefix, digest, scopes, expires_at, requests_per_minute,
    tokens_per_minute, concurrent_runs, budget_soft, budget_medium, budget_hard)
VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s) RETURNING id::text, expires_at
"""


def parse_limits(words: list[str]) -> dict[str, int | None]:
    """Return limits from words such as `tokens_per_minute=9000`; `default` is the configuration's.

    Raises:
        InvalidRequest: One is unknown or no number.
    """
    limits: dict[str, int | None] = {}
    for word in words:
        name, _, value = word.partition("=")
        if name not in LIMIT_NAMES or not re.fullmatch(r"default|\d{1,9}", value):
            raise InvalidRequest(
                f"{word!r} is not a limit",
                cure="write NAME=NUMBER (0: none) or NAME=default; "
                f"names: {', '.join(LIMIT_NAMES)}",
            )
        limits[name] = None if value == "default" else int(value)
    return limits


def limit_key(connection: psycopg.Connection, name: str, limits: dict[str, int | None]) -> None:
    """Change the named limits of a live key; processes see it within five seconds.

    Raises:
        NotFound: There is none of this name or id.
        InvalidRequest: No limit is given.
    """
    if not limits:
        raise InvalidRequest("no limit is given", cure="write one, such as tokens_per_minute=9000")
    changes = sql.SQL(", ").join(
        sql.SQL("{} = {}").format(sql.Identifier(limit), sql.Literal(value))
        for limit, value in limits.items()
    )
    statement = sql.SQL(_LIMIT).format(changes)
    if connection.execute(statement, {"name": name}).rowcount == 0:
        raise _no_such_key(name)


def rotate_key(
    connection: psycopg.Connection, digester: Digester, name: str, *, overlap: timedelta
) -> dict[str, Any]:
    """Give a live key a new secret; the one before it opens until the overlap ends.

    The key stays the same: its threads, limits and usage with it. A third secret ends the first.

    Raises:
        NotFound: There is none of this name or id.
    """
    key = make_key()
    row = connection.execute(
        _ROTATE,
        {
            "name": name,
            "overlap": overlap,
            "digest": digester.digest(key),
            "prefix": key[:SHOWN_CHARACTERS],
        },
    ).fetchone()
    if row is None:
        raise _no_such_key(name)
    return {"name": name, "key": key, "previous_until": _iso(row[0])}


def list_keys(connection: psycopg.Connection) -> list[dict[str, Any]]:
    """Return every key, without what would open the door."""
    cursor = connection.cursor(row_factory=dict_row)
    rows = cursor.execute(
        "SELECT id::text, name, prefix, scopes, created_at, expires_at, revoked_at, last_used_at,"
        " requests_per_minute, tokens_per_minute, concurrent_runs, budget_soft, budget_medium,"
        " budget_hard, previous_until FROM app.api_keys ORDER BY created_at"
    ).fetchall()
    return [
        {name: _iso(value) if isinstance(value, datetime) else value for name, value in row.items()}
        for row in rows
    ]


def revoke_key(connection: psycopg.Connection, name: str) -> None:
    """Revoke the live key of this name or id; processes forget it within five seconds.

    Raises:
        NotFound: There is none.
    """
    cursor = connection.execute(_REVOKE, {"name": name})
    if cursor.rowcount == 0:
        raise _no_such_key(name)


def list_usage(
    connection: psycopg.Connection, first: date, name: str | None
) -> list[dict[str, Any]]:
    """Return a month's usage, of all keys or of those with this name."""
    cursor = connection.cursor(row_factory=dict_row)
    return cursor.execute(ROWS, {"first": first, "key": None, "name": name}).fetchall()


def _no_such_key(name: str) -> NotFound:
    return NotFound(f"no live key is named {name!r}", cure="see agent-app keys list")


def _iso(value: datetime | None) -> str | None:
    return value.isoformat() if value else None

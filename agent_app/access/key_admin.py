"""Make, list and revoke keys: the operator's side, each act with its entry in the audit."""

import re
from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import UUID

import psycopg
from psycopg import sql
from psycopg.rows import dict_row

from agent_app.access.keys import COLLECTION_SCOPE, SCOPES, SHOWN_CHARACTERS, Digester, make_key
from agent_app.access.limits import LIMIT_NAMES
from agent_app.errors import InvalidRequest, NotFound
from agent_app.state.audit import Entry, append_now, current_operator
from agent_app.state.usage import ROWS

NOBODY = UUID(int=0)
"""The key that the sums of erased keys count under; it opens nothing."""

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
    resident: bool = False,
) -> dict[str, Any]:
    """Make a key; its text is in the result and nowhere else.

    Raises:
        InvalidRequest: The name is taken by a live key, or a scope does not exist.
    """
    _check_scopes(scopes)
    key = make_key()
    chosen = limits or {}
    values = (
        name,
        key[:SHOWN_CHARACTERS],
        digester.digest(key),
        scopes,
        datetime.now(UTC) + expires if expires else None,
        *(chosen.get(name) for name in LIMIT_NAMES),
        resident,
    )
    try:
        with connection.transaction():
            row = connection.execute(_INSERT, values).fetchone()
            assert row is not None
            made = {"name": name, "scopes": scopes, "resident": resident}
            made["expires_at"] = _iso(row[1])
            _tell(connection, "key.create", row[0], {**made, "limits": chosen})
    except psycopg.errors.UniqueViolation as error:
        raise InvalidRequest(
            f"a live key is named {name!r} already",
            place="--name",
            cure=f"choose another name, or first: agent-app keys revoke {name}",
        ) from error
    return {"id": str(row[0]), "key": key, **made}


def _check_scopes(scopes: list[str]) -> None:
    if unknown := sorted(
        s for s in set(scopes) - set(SCOPES) if not s.startswith(COLLECTION_SCOPE)
    ):
        raise InvalidRequest(
            f"unknown scope {', '.join(unknown)}",
            place="--scope",
            cure=f"use {', '.join(SCOPES)}, {COLLECTION_SCOPE}COLLECTION",
        )


_REVOKE = """
UPDATE app.api_keys SET revoked_at = now()
WHERE (name = %(name)s OR id::text = %(name)s) AND revoked_at IS NULL
RETURNING id, name
"""
_ROTATE = """
UPDATE app.api_keys SET previous_digest = digest, previous_until = now() + %(overlap)s,
    digest = %(digest)s, prefix = %(prefix)s
WHERE (name = %(name)s OR id::text = %(name)s) AND revoked_at IS NULL
RETURNING previous_until, id, name
"""
_LIMIT = """
UPDATE app.api_keys SET {}
WHERE (name = %(name)s OR id::text = %(name)s) AND revoked_at IS NULL
RETURNING id, name
"""
_INSERT = """
INSERT INTO app.api_keys (name, prefix, digest, scopes, expires_at, requests_per_minute,
    tokens_per_minute, concurrent_runs, budget_soft, budget_medium, budget_hard, weight,
    resident)
VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s) RETURNING id, expires_at
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
    if limits.get("weight") is not None and not 1 <= (limits["weight"] or 0) <= 1000:
        raise InvalidRequest("a weight is from 1 to 1000", cure="write weight=2 or weight=default")
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
    with connection.transaction():
        row = connection.execute(statement, {"name": name}).fetchone()
        if row is None:
            raise _no_such_key(name)
        _tell(connection, "key.limit", row[0], {"name": row[1], "limits": limits})


def rotate_key(
    connection: psycopg.Connection, digester: Digester, name: str, *, overlap: timedelta
) -> dict[str, Any]:
    """Give a live key a new secret; the one before it opens until the overlap ends.

    The key stays the same: its threads, limits and usage with it. A third secret ends the first.

    Raises:
        NotFound: There is none of this name or id.
    """
    key = make_key()
    values = {
        "name": name,
        "overlap": overlap,
        "digest": digester.digest(key),
        "prefix": key[:SHOWN_CHARACTERS],
    }
    with connection.transaction():
        row = connection.execute(_ROTATE, values).fetchone()
        if row is None:
            raise _no_such_key(name)
        details = {"name": row[2], "previous_until": _iso(row[0])}
        _tell(connection, "key.rotate", row[1], details)
    return {"name": name, "key": key, "previous_until": _iso(row[0])}


def list_keys(connection: psycopg.Connection) -> list[dict[str, Any]]:
    """Return every key, without what would open the door."""
    cursor = connection.cursor(row_factory=dict_row)
    rows = cursor.execute(
        "SELECT id::text, name, prefix, scopes, created_at, expires_at, revoked_at, last_used_at,"
        " requests_per_minute, tokens_per_minute, concurrent_runs, budget_soft, budget_medium,"
        " budget_hard, weight, previous_until, resident FROM app.api_keys WHERE id <> %s"
        " ORDER BY created_at",
        (NOBODY,),
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
    with connection.transaction():
        row = connection.execute(_REVOKE, {"name": name}).fetchone()
        if row is None:
            raise _no_such_key(name)
        _tell(connection, "key.revoke", row[0], {"name": row[1]})


def list_usage(
    connection: psycopg.Connection, first: date, name: str | None
) -> list[dict[str, Any]]:
    """Return a month's usage, of all keys or of those with this name."""
    cursor = connection.cursor(row_factory=dict_row)
    return cursor.execute(ROWS, {"first": first, "key": None, "name": name}).fetchall()


def find_key(connection: psycopg.Connection, name: str) -> tuple[UUID, str]:
    """Return id and name of the key of this name or id, revoked or not.

    Raises:
        NotFound: There is none.
        InvalidRequest: Several keys had the name.
    """
    rows = connection.execute(
        "SELECT id, name, revoked_at IS NULL AS live FROM app.api_keys"
        " WHERE (name = %(name)s OR id::text = %(name)s) AND id <> %(nobody)s",
        {"name": name, "nobody": NOBODY},
    ).fetchall()
    if not rows:
        raise NotFound(f"no key is named {name!r}", cure="see agent-app keys list --json")
    if len(rows) > 1:
        ids = ", ".join(f"{row[0]}{' (live)' if row[2] else ''}" for row in rows)
        raise InvalidRequest(f"several keys are or were named {name!r}", cure=f"give one of {ids}")
    return rows[0][0], rows[0][1]


def find_key_id(connection: psycopg.Connection, name: str) -> UUID:
    """Return the id of the key of this name or id; an id need not be there any more.

    Raises:
        NotFound: There is none of this name.
        InvalidRequest: Several keys had the name.
    """
    try:
        return find_key(connection, name)[0]
    except NotFound:
        try:
            return UUID(name)
        except ValueError:
            pass
        raise


def _tell(connection: psycopg.Connection, kind: str, key_id: UUID, details: dict[str, Any]) -> None:
    append_now(
        connection, Entry(kind, key_id, details=details, actor=f"operator {current_operator()}")
    )


def _no_such_key(name: str) -> NotFound:
    return NotFound(f"no live key is named {name!r}", cure="see agent-app keys list")


def _iso(value: datetime | None) -> str | None:
    return value.isoformat() if value else None

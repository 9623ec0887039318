"""Make, list and revoke keys: the operator's side."""

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
from psycopg.rows import dict_row

from agent_app.access.keys import SCOPES, SHOWN_CHARACTERS, Digester, make_key
from agent_app.errors import InvalidRequest, NotFound

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
    try:
        row = connection.execute(
            "INSERT INTO app.api_keys (name, prefix, digest, scopes, expires_at)"
            " VALUES (%s, %s, %s, %s, %s) RETURNING id::text, expires_at",
            (
                name,
                key[:SHOWN_CHARACTERS],
                digester.digest(key),
                scopes,
                datetime.now(UTC) + expires if expires else None,
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


def list_keys(connection: psycopg.Connection) -> list[dict[str, Any]]:
    """Return every key, without what would open the door."""
    cursor = connection.cursor(row_factory=dict_row)
    rows = cursor.execute(
        "SELECT id::text, name, prefix, scopes, created_at, expires_at, revoked_at, last_used_at"
        " FROM app.api_keys ORDER BY created_at"
    ).fetchall()
    return [
        {name: _iso(value) if name.endswith("_at") else value for name, value in row.items()}
        for row in rows
    ]


def revoke_key(connection: psycopg.Connection, name: str) -> None:
    """Revoke the live key of this name or id; processes forget it within five seconds.

    Raises:
        NotFound: There is none.
    """
    cursor = connection.execute(
        "UPDATE app.api_keys SET revoked_at = now()"
        " WHERE (name = %(name)s OR id::text = %(name)s) AND revoked_at IS NULL",
        {"name": name},
    )
    if cursor.rowcount == 0:
        raise NotFound(f"no live key is named {name!r}", cure="see agent-app keys list")


def _iso(value: datetime | None) -> str | None:
    return value.isoformat() if value else None

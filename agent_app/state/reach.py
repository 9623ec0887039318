"""Which rows are a thread's or a key's, worked out from the catalog so that no table is forgotten.

A table belongs if it has a column `thread_id`, `run_id` or `key_id`, or a foreign key to a table
that belongs. Rows of a new table are found without a line of code here.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from graphlib import CycleError, TopologicalSorter
from typing import Any
from uuid import UUID

import psycopg
from psycopg import sql
from psycopg.rows import dict_row

from agent_app.errors import ConfigError

SCHEMAS = ["app", "checkpoints", "analytics"]
HANDLED_APART = frozenset(
    {"app.audit_outbox", "app.audit_keys", "app.erasures", "app.usage", "app.api_keys"}
)
"""Sealed, shredded, kept as proof, summed up, and last: see `erasure.py`."""
BATCH_ROWS = 1_000

_COLUMNS = """
SELECT n.nspname || '.' || c.relname AS name, a.attname AS column_name,
    format_type(a.atttypid, NULL) AS type
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
WHERE n.nspname = ANY(%s) AND c.relkind IN ('r', 'p') AND NOT c.relispartition
"""
# ON DELETE SET NULL and SET DEFAULT (n, d) say that the row outlives what it points at.
_FOREIGN_KEYS = """
SELECT cn.nspname || '.' || c.relname AS child, pn.nspname || '.' || p.relname AS parent,
    ca.attname AS child_column, pa.attname AS parent_column
FROM pg_constraint k
JOIN pg_class c ON c.oid = k.conrelid JOIN pg_namespace cn ON cn.oid = c.relnamespace
JOIN pg_class p ON p.oid = k.confrelid JOIN pg_namespace pn ON pn.oid = p.relnamespace
JOIN pg_attribute ca ON ca.attrelid = c.oid AND ca.attnum = k.conkey[1]
JOIN pg_attribute pa ON pa.attrelid = p.oid AND pa.attnum = k.confkey[1]
WHERE k.contype = 'f' AND k.confdeltype NOT IN ('n', 'd') AND cardinality(k.conkey) = 1
    AND cn.nspname = ANY(%s) AND k.conrelid <> k.confrelid
"""
_SUSPECT = re.compile(r"(^|_)(thread|run|(?<!idempotency_)key|api_key)s?(_ids?)?$")


@dataclass(frozen=True, slots=True)
class ForeignKey:
    """A column that points at another table's."""

    child: str
    child_column: str
    parent: str
    parent_column: str


@dataclass(frozen=True, slots=True)
class Step:
    """Rows of one table: `where` takes what `Subject.values` gives."""

    table: str
    where: sql.Composable

    def name(self) -> sql.Identifier:
        """Return the table as SQL writes it."""
        return sql.Identifier(*self.table.split("."))


@dataclass(frozen=True, slots=True)
class Subject:
    """Whose rows: some threads', or a key's own."""

    threads: list[UUID] = field(default_factory=list)
    key: UUID | None = None

    def values(self) -> dict[str, Any]:
        """Return the values of the statements."""
        names = [str(thread) for thread in self.threads]
        return {"threads": self.threads, "thread_names": names, "key": self.key}


class Reach:
    """The tables of this database and how they hang together."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self._columns: dict[str, dict[str, str]] = {}
        with connection.cursor(row_factory=dict_row) as cursor:
            for row in cursor.execute(_COLUMNS, (SCHEMAS,)):
                self._columns.setdefault(row["name"], {})[row["column_name"]] = row["type"]
            cursor.execute(_FOREIGN_KEYS, (SCHEMAS,))
            self._links = [ForeignKey(**row) for row in cursor]

    def steps(self, *, of_key: bool, keep: frozenset[str] = frozenset()) -> list[Step]:
        """Return what to delete, children before their parents.

        Args:
            of_key: Of a key's own rows; else of threads.
            keep: Tables to leave, and with them what only hangs on these.

        Raises:
            ConfigError: Foreign keys go in a circle.
        """
        left_out = HANDLED_APART | keep
        found: dict[str, sql.Composable] = {}
        for table in self._columns:
            if table not in left_out and (where := self._where(table, of_key, left_out, ())):
                found[table] = where
        return [Step(table, found[table]) for table in self._order(found)]

    def columns(self, table: str) -> set[str]:
        """Return the names of a table's columns."""
        return set(self._columns[table])

    def suspects(self) -> list[str]:
        """Return columns that look like a thread, run or key but that no step follows."""
        followed = {(link.child, link.child_column) for link in self._links}
        return sorted(
            f"{table}.{column}"
            for table, columns in self._columns.items()
            for column, kind in columns.items()
            if _SUSPECT.search(column)
            and kind in ("uuid", "text", "character varying", "uuid[]", "text[]")
            and table not in HANDLED_APART
            and column not in ("thread_id", "run_id", "key_id")
            and (table, column) not in followed
        )

    def _where(
        self, table: str, of_key: bool, left_out: frozenset[str], path: tuple[str, ...]
    ) -> sql.Composable | None:
        parts = list(self._direct(table, of_key))
        for link in self._links:
            if link.child != table or link.parent in (*path, table):
                continue
            if link.parent in left_out and link.parent != "app.api_keys":
                continue
            parent = self._where(link.parent, of_key, left_out, (*path, table))
            if parent is not None:
                parts.append(
                    sql.SQL("{} IN (SELECT {} FROM {} WHERE {})").format(
                        sql.Identifier(link.child_column),
                        sql.Identifier(link.parent_column),
                        sql.Identifier(*link.parent.split(".")),
                        parent,
                    )
                )
        return sql.SQL("({})").format(sql.SQL(" OR ").join(parts)) if parts else None

    def _direct(self, table: str, of_key: bool) -> Iterable[sql.Composable]:
        columns = self._columns[table]
        if of_key:
            if table == "app.api_keys":
                yield sql.SQL("id = %(key)s")
            elif "key_id" in columns:
                yield sql.SQL("key_id = {}").format(_value("%(key)s", columns["key_id"]))
            return
        if table == "app.threads":
            yield sql.SQL("id = ANY(%(threads)s)")
        elif "thread_id" in columns:
            texts = columns["thread_id"] != "uuid"
            yield sql.SQL("thread_id = ANY({})").format(
                sql.SQL("%(thread_names)s" if texts else "%(threads)s")
            )
        if "run_id" in columns:
            runs = "id" if columns["run_id"] == "uuid" else "id::text"
            yield sql.SQL(
                f"run_id IN (SELECT {runs} FROM app.runs WHERE thread_id = ANY(%(threads)s))"  # noqa: S608 - a constant
            )

    def _order(self, tables: Iterable[str]) -> list[str]:
        wanted = set(tables)
        sorter: TopologicalSorter[str] = TopologicalSorter(dict.fromkeys(wanted, ()))
        for link in self._links:
            if link.child in wanted and link.parent in wanted:
                sorter.add(link.parent, link.child)
        for root in ("app.runs", "app.threads"):  # others find their rows through these
            if root in wanted:
                above = {"app.runs", "app.threads"} if root == "app.runs" else {"app.threads"}
                sorter.add(root, *(wanted - above))
        try:
            return list(sorter.static_order())
        except CycleError as error:
            raise ConfigError(
                f"foreign keys go in a circle: {' -> '.join(error.args[1])}",
                place="the database's schema app",
                cure="make one of them ON DELETE SET NULL",
            ) from error


def _value(name: str, kind: str) -> sql.Composable:
    return sql.SQL(name if kind == "uuid" else f"{name}::text")


def delete_rows(
    connection: psycopg.Connection[Any], step: Step, values: dict[str, Any], *, most: int = 0
) -> int:
    """Delete a step's rows, all or at most so many; return how many went."""
    where = step.where
    if most:
        where = sql.SQL("ctid = ANY(ARRAY(SELECT ctid FROM {} WHERE {} LIMIT {}))").format(
            step.name(), where, sql.Literal(most)
        )
    statement = sql.SQL("DELETE FROM {} WHERE {}").format(step.name(), where)
    return connection.execute(statement, values).rowcount


def count_rows(connection: psycopg.Connection[Any], step: Step, values: dict[str, Any]) -> int:
    """Return how many rows a step has."""
    statement = sql.SQL("SELECT count(*) FROM {} WHERE {}").format(step.name(), step.where)
    row = connection.execute(statement, values).fetchone()
    return int(row[0]) if row else 0


ORPHANS = {
    table: Step(
        f"checkpoints.{table}",
        sql.SQL("NOT EXISTS (SELECT FROM app.threads AS t WHERE t.id::text = {}.thread_id)").format(
            sql.Identifier(table)
        ),
    )
    for table in ("checkpoints", "checkpoint_blobs", "checkpoint_writes")
}
"""Checkpoints whose thread is gone: a run that lost its thread wrote them last."""

"""The tool `query_database`: one SELECT on the relations the operator named.

Three walls: the policy (what may be asked), a read-only transaction with limits, and a role that
may read those relations only.
"""

from typing import Any

import psycopg
import structlog
from psycopg import AsyncConnection
from psycopg.conninfo import make_conninfo
from psycopg.rows import DictRow, dict_row
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from agent_app.config import SqlTool
from agent_app.state.database import CONNECT_SECONDS, Pool
from agent_app.tools.sql_policy import Policy, Refused
from agent_app.tools.toolbox import CallContext, InvalidArguments, Output, Tool, ToolUnavailable

CONNECTIONS = 4
POOL_WAIT_SECONDS = 3.0
WORK_MEMORY = "8MB"
# Classes of SQLSTATE that tell of the statement: cardinality, data, syntax, size.
MODEL_FAULTS = ("21", "22", "42", "54")

log = structlog.get_logger(__name__)

_COLUMNS = """
SELECT n.nspname || '.' || c.relname AS relation, a.attname AS name,
       format_type(a.atttypid, a.atttypmod) AS type,
       col_description(c.oid, a.attnum) AS comment
FROM pg_catalog.pg_class c
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
WHERE n.nspname || '.' || c.relname = ANY(%s)
ORDER BY 1, a.attnum
"""
_LIMITED = """SELECT left(row_to_json(rackhand_answer)::text, {characters}) AS line FROM (
{statement}
) AS rackhand_answer LIMIT {rows}"""


def make_reading_pool(settings: SqlTool, password: str) -> Pool:
    """Return the pool of the reading role, still closed; it connects when first asked."""
    milliseconds = int(settings.seconds * 1000)
    options = {
        "default_transaction_read_only": "on",
        "search_path": "",
        "statement_timeout": milliseconds,
        "lock_timeout": milliseconds,
        "idle_in_transaction_session_timeout": 2 * milliseconds,
        "work_mem": WORK_MEMORY,
        "max_parallel_workers_per_gather": 0,
    }
    arguments = {"sslrootcert": settings.sslrootcert} if settings.sslrootcert else {}
    return AsyncConnectionPool(
        make_conninfo(
            host=settings.host,
            port=settings.port,
            dbname=settings.name,
            user=settings.user,
            password=password,
            sslmode=settings.sslmode,
            connect_timeout=CONNECT_SECONDS,
            application_name="agent_app_query",
            options=" ".join(f"-c {name}={value}" for name, value in options.items()),
            **arguments,
        ),
        min_size=0,
        max_size=CONNECTIONS,
        timeout=POOL_WAIT_SECONDS,
        open=False,
        check=AsyncConnectionPool.check_connection,
        kwargs={"row_factory": dict_row},
        connection_class=AsyncConnection[DictRow],
    )


class QueryDatabase(Tool):
    """Read-only SQL on named relations."""

    name = "query_database"
    repeatable = True

    def __init__(self, settings: SqlTool, pool: Pool) -> None:
        self._settings = settings
        self._pool = pool
        self._policy = Policy(settings.relations, settings.functions)
        self._described: dict[str, list[str]] = {}

    @property
    def schema(self) -> dict[str, Any]:
        """What the model is told, the columns of each relation included."""
        relations = "\n".join(
            f"{relation}({', '.join(self._described.get(relation, ['columns unknown yet']))})"
            for relation in self._settings.relations
        )
        return {
            "type": "function",
            "function": {
                "name": self.name,
                "description": "Run one read-only PostgreSQL SELECT. Name relations with their"
                f" schema. At most {self._settings.rows} rows come back, as JSON lines.\n"
                f"Relations:\n{relations}",
                "parameters": {
                    "type": "object",
                    "properties": {"sql": {"type": "string"}},
                    "required": ["sql"],
                },
            },
        }

    async def describe(self) -> None:
        """Read the relations' columns from the catalogue; where that fails, at the next call."""
        try:
            async with self._pool.connection() as connection:
                cursor = await connection.execute(_COLUMNS, (list(self._settings.relations),))
                rows = await cursor.fetchall()
        except (psycopg.Error, PoolTimeout) as error:
            log.warning("relations_not_described", why=type(error).__name__)
            return
        found: dict[str, list[str]] = {}
        for row in rows:
            comment = f" -- {row['comment']}" if row["comment"] else ""
            found.setdefault(row["relation"], []).append(f"{row['name']} {row['type']}{comment}")
        for absent in set(self._settings.relations) - found.keys():
            log.warning("relation_missing", relation=absent, cure="correct tools.sql.relations")
        self._described = found

    async def run(self, arguments: dict[str, Any], _context: CallContext) -> Output:
        """Check the statement, run it, and return its rows as JSON lines."""
        text = arguments.get("sql")
        if not isinstance(text, str) or not text.strip():
            raise InvalidArguments('give {"sql": "SELECT …"}')
        try:
            statement = self._policy.check(text)
        except Refused as error:
            log.info("statement_refused")  # why is in the tool's result; it quotes the statement
            raise InvalidArguments(str(error)) from error
        if not self._described:
            await self.describe()
        return Output(self._cut(await self.read(statement)))

    async def read(self, statement: str) -> list[str]:
        """Run a checked statement in a read-only transaction that is rolled back.

        Returns:
            One JSON text per row, one row more than allowed where there are more.
        """
        limited = _LIMITED.format(
            statement=statement, rows=self._settings.rows + 1, characters=self._settings.bytes + 1
        )
        try:
            async with (
                self._pool.connection() as connection,
                connection.transaction(force_rollback=True),
            ):
                await connection.execute("SET TRANSACTION READ ONLY")
                # Prepared: the extended protocol takes one statement, whatever the text holds.
                cursor = await connection.execute(limited.encode(), prepare=True)
                return [row["line"] for row in await cursor.fetchall()]
        except psycopg.errors.QueryCanceled as error:
            raise InvalidArguments(
                f"it took longer than {self._settings.seconds:g} s; ask for less"
            ) from error
        except psycopg.errors.InsufficientPrivilege as error:
            log.warning("reading_role_refused", why=str(error).strip())
            raise InvalidArguments("the database does not let this tool read that") from error
        except (psycopg.Error, PoolTimeout) as error:
            state = getattr(error, "sqlstate", None) or ""
            if isinstance(error, psycopg.Error) and state[:2] in MODEL_FAULTS:
                raise InvalidArguments(error.diag.message_primary or "not valid SQL") from error
            log.warning("query_failed", why=type(error).__name__, sqlstate=state)
            raise ToolUnavailable("the database cannot answer now; go on without it") from error

    def _cut(self, lines: list[str]) -> str:
        rows, left = self._settings.rows, self._settings.bytes
        kept: list[str] = []
        for line in lines[:rows]:
            size = len(line.encode()) + 1
            if size > left:
                cut = f"(cut at {self._settings.bytes} bytes: {len(kept)} whole rows; ask for less)"
                if not kept:
                    kept.append(line.encode()[:left].decode(errors="ignore"))
                return "\n".join([*kept, cut])
            left -= size
            kept.append(line)
        if len(lines) > rows:
            kept.append(f"(cut at {rows} rows; aggregate or narrow the query for the rest)")
        return "\n".join(kept) or "no rows"

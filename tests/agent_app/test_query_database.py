"""Hostile SQL against a role that may do far too much, and then the role alone."""

import json
from collections.abc import AsyncIterator
from uuid import uuid4

import pytest
import yaml
from data_servers import PASSWORD, Postgres
from scripted_engine import USAGE, chunk, say

from agent_app.config import SqlTool
from agent_app.state.database import Pool
from agent_app.tools.sql import QueryDatabase, make_reading_pool
from agent_app.tools.toolbox import CallContext, InvalidArguments, ToolUnavailable

SHOP = """
CREATE TABLE public.orders (id int PRIMARY KEY, customer text, total numeric);
COMMENT ON COLUMN public.orders.total IS 'in euros';
INSERT INTO public.orders SELECT n, 'c' || n, n * 10 FROM generate_series(1, 300) n;
CREATE TABLE public.secrets (word text);
INSERT INTO public.secrets VALUES ('hunter2');
CREATE FUNCTION public.leak() RETURNS text LANGUAGE sql AS 'SELECT word FROM public.secrets';
"""
HOSTILE = [
    "DELETE FROM public.orders",
    "UPDATE public.orders SET total = 0",
    "INSERT INTO public.orders VALUES (1000)",
    "TRUNCATE public.orders",
    "DROP TABLE public.orders",
    "CREATE TABLE public.x (a int)",
    "ALTER ROLE shop_admin SUPERUSER",
    "GRANT ALL ON public.secrets TO PUBLIC",
    "COPY public.orders TO PROGRAM 'id'",
    "COPY (SELECT 1) TO '/tmp/x'",
    "SET ROLE postgres",
    "SET statement_timeout = 0",
    "RESET ALL",
    "SELECT 1; DELETE FROM public.orders",
    "COMMIT; DELETE FROM public.orders",
    "SELECT 1; COMMIT; SET TRANSACTION READ WRITE",
    "BEGIN",
    "DO $$ BEGIN DELETE FROM public.orders; END $$",
    "CALL public.leak()",
    "EXPLAIN ANALYZE DELETE FROM public.orders",
    "EXPLAIN SELECT 1",
    "PREPARE p AS SELECT 1",
    "DECLARE c CURSOR FOR SELECT 1",
    "LISTEN x",
    "VACUUM",
    "LOCK TABLE public.orders",
    "WITH gone AS (DELETE FROM public.orders RETURNING *) SELECT * FROM gone",
    "WITH RECURSIVE r AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM r) SELECT * FROM r",
    "SELECT * INTO public.copied FROM public.orders",
    "SELECT * FROM public.orders FOR UPDATE",
    "SELECT * FROM public.orders FOR KEY SHARE",
    "SELECT * FROM public.secrets",
    "SELECT * FROM secrets",
    "SELECT * FROM orders",
    'SELECT * FROM "public"."secrets"',
    "TABLE public.secrets",
    "SELECT (SELECT word FROM public.secrets)",
    "SELECT 1 FROM public.orders WHERE EXISTS (SELECT FROM public.secrets)",
    "SELECT 1 UNION SELECT count(*) FROM public.secrets",
    "SELECT * FROM public.orders JOIN public.secrets ON true",
    "SELECT * FROM public.orders, LATERAL (SELECT * FROM public.secrets) s",
    "WITH s AS (SELECT * FROM public.secrets) SELECT * FROM s",
    "SELECT 1 WHERE 1 IN (WITH secrets AS (SELECT 1) SELECT 1 FROM public.secrets)",
    "SELECT * FROM pg_catalog.pg_roles",
    "SELECT * FROM pg_shadow",
    "WITH pg_roles AS (SELECT 1) SELECT (WITH x AS (SELECT 1) SELECT 1) FROM pg_roles",
    "SELECT * FROM information_schema.tables",
    "SELECT * FROM rackhand.public.orders",
    "SELECT pg_sleep(100)",
    "SELECT pg_catalog.pg_sleep(100)",
    "SELECT pg_read_file('/etc/passwd')",
    "SELECT pg_ls_dir('/')",
    "SELECT lo_import('/etc/passwd')",
    "SELECT lo_export(1, '/tmp/x')",
    "SELECT set_config('statement_timeout', '0', false)",
    "SELECT current_setting('data_directory')",
    "SELECT pg_terminate_backend(1)",
    "SELECT pg_advisory_lock(1)",
    "SELECT query_to_xml('SELECT * FROM public.secrets', true, true, '')",
    "SELECT ('SELECT 1'::text).query_to_xml",
    "SELECT public.leak()",
    "SELECT leak()",
    "SELECT * FROM public.leak()",
    "SELECT nextval('public.s')",
    "SELECT 'public.secrets'::regclass",
    "SELECT 1 OPERATOR(public.+) 1",
    "SELECT current_user",
    "SELECT repeat('x', 1000000000)",
    "SELECT * FROM generate_series(1, 1000000000)",
    "SELECT $1",
    "SELECT 1 /* ",
    "SELECT 1) AS a; DELETE FROM public.orders; SELECT * FROM (SELECT 1",
    "SELECT 1) AS a, (SELECT word FROM public.secrets",
    "SELECT " + "(" * 7000,
]


@pytest.fixture
def settings(postgres: Postgres, database: str, sql) -> SqlTool:
    sql.execute(SHOP)
    for role, rights in (("shop_admin", "SUPERUSER"), ("shop_reader", "")):
        sql.execute(f"DROP ROLE IF EXISTS {role}")
        sql.execute(f"CREATE ROLE {role} LOGIN {rights} PASSWORD '{PASSWORD}'")
    sql.execute("GRANT USAGE ON SCHEMA public TO shop_reader")
    sql.execute("GRANT SELECT ON public.orders TO shop_reader")
    return SqlTool(
        host="127.0.0.1", port=postgres.port, name=database, user="shop_reader",
        relations=("public.orders",), seconds=1,
    )  # fmt: skip


@pytest.fixture
async def pools(settings: SqlTool, sql) -> AsyncIterator[dict[str, Pool]]:
    made = {
        role: make_reading_pool(settings.model_copy(update={"user": role}), PASSWORD)
        for role in ("shop_admin", "shop_reader")
    }
    for pool in made.values():
        await pool.open(wait=False)
    yield made
    for pool in made.values():
        await pool.close()
    sql.execute("DROP OWNED BY shop_reader; DROP ROLE shop_reader; DROP ROLE shop_admin")


async def ask(tool: QueryDatabase, text: str) -> str:
    return (await tool.run({"sql": text}, CallContext(uuid4(), "call", None))).text


async def test_hostile_statements_are_refused_even_for_a_superuser(
    settings: SqlTool, pools: dict[str, Pool], sql, monkeypatch: pytest.MonkeyPatch
) -> None:
    tool = QueryDatabase(settings, pools["shop_admin"])
    reached: list[str] = []

    read = tool.read

    async def noted(statement: str) -> list[str]:
        reached.append(statement)
        return await read(statement)

    monkeypatch.setattr(tool, "read", noted)
    for statement in HOSTILE:
        try:
            await ask(tool, statement)
        except InvalidArguments:
            continue
        reached.append(statement)
    assert reached == []
    assert sql.execute("SELECT count(*) FROM public.orders").fetchone() == (300,)


@pytest.mark.parametrize(
    ("statement", "sqlstate"),
    [
        ("DELETE FROM public.orders", "42601"),  # no statement where a table is expected
        ("WITH gone AS (DELETE FROM public.orders RETURNING *) SELECT * FROM gone", "0A000"),
        ("SELECT word FROM public.secrets", "42501"),  # no privilege
        ("SELECT pg_read_file('/etc/passwd')", "42501"),
        ("SELECT public.leak()", "42501"),
        ("SELECT 1) AS a; DELETE FROM public.orders; SELECT (SELECT 1", "42601"),
        ("SELECT pg_sleep(30)", "57014"),  # cancelled by the timeout
    ],
)
async def test_without_the_parser_the_role_and_the_transaction_refuse(
    settings: SqlTool, pools: dict[str, Pool], sql, statement: str, sqlstate: str
) -> None:
    tool = QueryDatabase(settings, pools["shop_reader"])
    with pytest.raises((InvalidArguments, ToolUnavailable)) as refused:
        await tool.read(statement)
    assert getattr(refused.value.__cause__, "sqlstate", None) == sqlstate
    assert sql.execute("SELECT count(*) FROM public.orders").fetchone() == (300,)


@pytest.mark.parametrize(
    ("statement", "first"),
    [
        ("SELECT sum(total) AS s FROM public.orders;", {"s": 451500}),
        ("SELECT 1 AS a -- the end", {"a": 1}),
        ("SELECT 'a;b' AS a; -- the end", {"a": "a;b"}),
        (
            "WITH big AS (SELECT * FROM public.orders WHERE total > 2900)"
            " SELECT count(*) AS n, max(customer) AS c FROM big",
            {"n": 10, "c": "c300"},
        ),
        (
            "SELECT o.customer, rank() OVER (ORDER BY o.total DESC) AS r FROM public.orders o"
            " WHERE o.customer LIKE 'c%' AND extract(year FROM now()) > 2000 ORDER BY r",
            {"customer": "c300", "r": 1},
        ),
    ],
)
async def test_plain_questions_are_answered(
    settings: SqlTool, pools: dict[str, Pool], statement: str, first: dict[str, object]
) -> None:
    answer = await ask(QueryDatabase(settings, pools["shop_reader"]), statement)
    assert json.loads(answer.splitlines()[0]) == first


async def test_rows_and_bytes_are_cut_and_the_answer_says_so(
    settings: SqlTool, pools: dict[str, Pool]
) -> None:
    tool = QueryDatabase(settings, pools["shop_reader"])
    lines = (await ask(tool, "SELECT id FROM public.orders")).splitlines()
    assert len(lines) == 101
    assert lines[-1].startswith("(cut at 100 rows")
    small = QueryDatabase(settings.model_copy(update={"bytes": 300}), pools["shop_reader"])
    one = await ask(small, "SELECT id, customer FROM public.orders")
    assert "(cut at 300 bytes" in one
    assert len(one) < 400


async def test_mistakes_come_back_as_text_the_model_can_act_on(
    settings: SqlTool, pools: dict[str, Pool]
) -> None:
    tool = QueryDatabase(settings, pools["shop_reader"])
    with pytest.raises(InvalidArguments, match='column "nope" does not exist'):
        await ask(tool, "SELECT nope FROM public.orders")
    with pytest.raises(InvalidArguments, match=r"public\.orders"):
        await ask(tool, "SELECT * FROM public.secrets")


async def test_the_model_is_told_the_columns(settings: SqlTool, pools: dict[str, Pool]) -> None:
    tool = QueryDatabase(settings, pools["shop_reader"])
    await tool.describe()
    text = tool.schema["function"]["description"]
    assert "public.orders(id integer, customer text, total numeric -- in euros)" in text
    assert "secrets" not in text


async def test_a_turn_queries_the_database(
    settings: SqlTool, pools: dict[str, Pool], configuration, prepared, engine
) -> None:
    prepared.config.write_text(
        yaml.safe_dump({**configuration, "tools": {"sql": settings.model_dump(mode="json")}})
    )
    (prepared.folder / "credentials" / "tools_sql_password").write_text(PASSWORD)
    await prepared.start()
    arguments = json.dumps({"sql": "SELECT count(*) AS n FROM public.orders"})
    function = {"name": "query_database", "arguments": arguments}
    delta = {"tool_calls": [{"index": 0, "id": "call_0", "function": function}]}
    engine.queue = [[chunk(delta), chunk(reason="tool_calls"), USAGE], say("300.")]
    heard = await prepared.chat("How many orders?")
    assert heard.of("tool")[1]["result"] == '{"n":300}'
    offered = engine.requests[0]["tools"][1]["function"]["description"]
    assert "public.orders(id integer" in offered

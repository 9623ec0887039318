import contextlib
import json
import time
import uuid
from pathlib import Path
from typing import Any

import httpx2
import pytest
import yaml
from app_process import AppProcess, Heard
from scripted_engine import Hold, ScriptedEngine, call_tool, call_tools, say

PASSAGES_OF = """
SELECT path, count(chunk.id) FROM app.knowledge_documents AS document
LEFT JOIN app.knowledge_chunks AS chunk ON chunk.document_id = document.id
WHERE collection = %s GROUP BY path
"""


@pytest.fixture
def documents(tmp_path: Path) -> Path:
    folder = tmp_path / "documents"
    (folder / "sub").mkdir(parents=True)
    (folder / "a.md").write_text("# Alpha\n\n## Inside\n\nThe alpha rotor spins.\n")
    (folder / "sub/b.html").write_text("<h1>Beta</h1><p>The beta stator stands.</p>")
    (folder / "c.txt").write_text("The gamma bearing squeaks.")
    return folder


def ingest(app: AppProcess, folder: Path, *arguments: str) -> dict[str, Any]:
    done: dict[str, Any] = json.loads(
        app.run("knowledge", "ingest", str(folder), "--json", *arguments)
    )
    return {name: done[name] for name in ("new", "unchanged", "removed", "failed")}


def fails(app: AppProcess, *arguments: str) -> str:
    done = app.complete(*arguments)
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr


def paths(app: AppProcess, *arguments: str) -> list[str]:
    found = json.loads(app.run("knowledge", "list", "--json", *arguments))
    return [document["path"] for document in found]


def test_only_what_changed_is_read_again_and_what_went_is_removed_when_asked(
    prepared: AppProcess, documents: Path, sql: Any
) -> None:
    none = {"new": 0, "unchanged": 0, "removed": 0, "failed": {}}
    assert ingest(prepared, documents, "--collection", "t") == {**none, "new": 3}
    numbers = sql.execute("SELECT array_agg(id ORDER BY id) FROM app.knowledge_chunks").fetchone()
    assert ingest(prepared, documents, "--collection", "t") == {**none, "unchanged": 3}
    assert (
        numbers
        == sql.execute("SELECT array_agg(id ORDER BY id) FROM app.knowledge_chunks").fetchone()
    )
    (documents / "a.md").write_text("# Alpha\n\nThe alpha rotor stopped.\n")
    (documents / "c.txt").unlink()
    assert ingest(prepared, documents, "--collection", "t") == {
        **none,
        "new": 1,
        "unchanged": 2 - 1,
    }
    assert paths(prepared, "--collection", "t") == ["a.md", "c.txt", "sub/b.html"]
    pruned = ingest(prepared, documents, "--collection", "t", "--prune")
    assert pruned == {**none, "unchanged": 2, "removed": 1}
    assert paths(prepared, "--collection", "t") == ["a.md", "sub/b.html"]
    assert "ports.md" in paths(prepared)  # of the other collection


def test_passages_have_their_heading_and_address(prepared: AppProcess, documents: Path) -> None:
    ingest(prepared, documents, "--base-url", "https://docs.example.com/x/")
    (found,) = json.loads(prepared.run("knowledge", "search", "alpha rotor spins", "--json"))[:1]
    assert (found["title"], found["heading"], found["text"]) == (
        "Alpha", "Inside", "The alpha rotor spins.",
    )  # fmt: skip
    assert found["url"] == "https://docs.example.com/x/a.md"
    nothing = prepared.complete("knowledge", "search", "zebra crossing")
    assert (nothing.stdout, nothing.stderr) == ("", "")
    assert nothing.returncode == 1


def test_a_question_finds_what_has_some_of_its_words(prepared: AppProcess, documents: Path) -> None:
    ingest(prepared, documents)
    asked = "why on earth does that old gamma thing squeak so loudly"
    found = json.loads(prepared.run("knowledge", "search", asked, "--json"))
    assert found[0]["path"] == "c.txt"


def test_a_file_that_cannot_be_read_is_named_and_keeps_its_old_text(
    prepared: AppProcess, documents: Path
) -> None:
    ingest(prepared, documents)
    (documents / "c.txt").write_bytes(b"caf\xe9")
    (documents / "new.md").write_text("# New\n\nA brand new delta.\n")
    err = fails(prepared, "knowledge", "ingest", str(documents), "--prune")
    assert "c.txt: passed over: not UTF-8 at byte 3: convert it with iconv" in err
    assert "c.txt" in prepared.run("knowledge", "search", "gamma bearing")
    assert "new.md" in prepared.run("knowledge", "search", "brand new delta")


def test_a_killed_ingest_leaves_whole_documents_and_goes_on_where_it_was(
    prepared: AppProcess, tmp_path: Path, sql: Any
) -> None:
    folder = tmp_path / "many"
    folder.mkdir()
    text = "\n\n".join(f"## Part {n}\n\nSentence of part {n}." for n in range(40))
    for number in range(400):
        (folder / f"{number:03}.md").write_text(f"# Document {number}\n\n{text}\n")
    process = prepared.command("knowledge", "ingest", str(folder), "--collection", "many")
    deadline = time.monotonic() + 30
    while len(sql.execute(PASSAGES_OF, ("many",)).fetchall()) < 20:
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.kill()
    process.communicate()
    there = sql.execute(PASSAGES_OF, ("many",)).fetchall()
    assert 20 <= len(there) < 400
    assert {passages for _, passages in there} == {40}
    done = ingest(prepared, folder, "--collection", "many")
    assert done == {"new": 400 - len(there), "unchanged": len(there), "removed": 0, "failed": {}}


def test_mistakes_are_told_with_their_cure(
    prepared: AppProcess, documents: Path, tmp_path: Path, configuration: dict[str, Any], sql: Any
) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "name a folder with" in fails(prepared, "knowledge", "ingest", str(empty), "--prune")
    assert "ports.md" in paths(prepared)
    assert "Cure" in fails(prepared, "knowledge", "ingest", str(documents), "--collection", "a/b")
    assert "--all" in fails(prepared, "knowledge", "remove", "--yes")
    assert "knowledge list" in fails(prepared, "knowledge", "remove", "none.md", "--yes")
    lock = "SELECT pg_advisory_lock(hashtext('agent_app knowledge ingest default'))"
    sql.execute(lock)
    assert "under way" in fails(prepared, "knowledge", "ingest", str(documents))
    configuration["knowledge"] = {"language": "klingon"}
    prepared.config.write_text(yaml.safe_dump(configuration))
    assert "one of arabic" in fails(prepared, "knowledge", "ingest", str(documents))


def test_documents_are_removed_one_by_one_or_by_collection(
    prepared: AppProcess, documents: Path
) -> None:
    ingest(prepared, documents, "--collection", "t")
    asked = ("knowledge", "remove", "--collection", "t", "--json", "--yes")
    assert json.loads(prepared.run(*asked, "a.md")) == {"removed": 1}
    assert paths(prepared, "--collection", "t") == ["c.txt", "sub/b.html"]
    assert json.loads(prepared.run(*asked, "--all")) == {"removed": 2}
    assert paths(prepared, "--collection", "t") == []


def test_another_language_holds_once_documents_are_ingested_again(
    prepared: AppProcess, configuration: dict[str, Any], tmp_path: Path
) -> None:
    folder = tmp_path / "german"
    folder.mkdir()
    (folder / "haus.md").write_text("# Häuser\n\nDie Häuser stehen am Fluss.\n")
    ingest(prepared, folder)
    configuration["knowledge"] = {"language": "german"}
    prepared.config.write_text(yaml.safe_dump(configuration))
    assert "ingest them again" in prepared.run("knowledge", "status")
    assert ingest(prepared, folder)["new"] == 1
    assert "haus.md" in prepared.run("knowledge", "search", "Haus")


def test_without_pgvector_status_and_readiness_say_so_and_full_text_serves(
    prepared: AppProcess, configuration: dict[str, Any], documents: Path
) -> None:
    assert "no embedding model is configured" in prepared.run("knowledge", "status")
    configuration["embeddings"] = {
        "endpoint": "http://127.0.0.1:1", "model": "m", "dimensions": 8,
    }  # fmt: skip
    prepared.config.write_text(yaml.safe_dump(configuration))
    prepared.run("migrate")
    done = prepared.complete("knowledge", "ingest", str(documents))
    assert (done.returncode, done.stdout) == (0, "3 new or changed, 0 unchanged\n")
    said = "semantic search is off: PostgreSQL has no extension pgvector in this database"
    assert said in done.stderr
    assert said in prepared.run("knowledge", "status")
    assert "a.md" in prepared.run("knowledge", "search", "alpha rotor")


async def test_readiness_names_a_missing_pgvector_and_stays_ready(
    prepared: AppProcess, configuration: dict[str, Any]
) -> None:
    configuration["embeddings"] = {
        "endpoint": "http://127.0.0.1:1", "model": "m", "dimensions": 8,
    }  # fmt: skip
    prepared.config.write_text(yaml.safe_dump(configuration))
    await prepared.start()
    response = await prepared.client.get("/ready")
    assert response.status_code == 200, response.text
    said = response.json()["degraded"]["semantic_search"]
    assert said.startswith("semantic search is off: PostgreSQL has no extension pgvector")
    assert said.endswith("full text serves")


async def test_a_passage_keeps_its_number_through_a_run_and_each_has_its_own(
    app: AppProcess, engine: ScriptedEngine
) -> None:
    engine.queue = [
        call_tool("engine proxy port"),
        call_tool("blue green slots"),
        call_tool("engine proxy listens port 8000"),
        say("Port 8000 [1]; two slots [2]."),
    ]
    heard = await app.chat("Ports and slots?")
    ends = [event for event in heard.of("tool") if event["phase"] == "end"]
    numbers = [[(s["number"], s["path"]) for s in end["sources"]] for end in ends]
    assert numbers == [[(1, "ports.md")], [(2, "slots.md")], [(1, "ports.md")]]
    assert ends[1]["result"].startswith("[2] Slots: ")
    thread = (await app.client.get(f"/threads/{heard.thread_id}", headers=app.headers())).json()
    shown = [tool["sources"] for message in thread["messages"] for tool in message["tools"]]
    assert shown == [end["sources"] for end in ends]
    engine.queue = [call_tool("blue green slots"), say("Two [1].")]
    heard = await app.chat("And slots?", thread_id=heard.thread_id)
    assert [s["number"] for s in heard.of("tool")[1]["sources"]] == [1]  # a turn begins anew
    description = engine.requests[0]["tools"][0]["function"]["description"]
    assert "[1]" in description


async def test_numbers_go_on_in_a_step_of_two_calls_and_without_a_thread(
    app: AppProcess, engine: ScriptedEngine
) -> None:
    engine.queue = [
        call_tools(
            ("search_knowledge", {"query": "engine proxy port"}),
            ("search_knowledge", {"query": "blue green slots"}),
        ),
        call_tool("engine proxy listens port 8000"),
        say("Port 8000 [1]; two slots [2]."),
    ]
    body = {"model": "demo", "messages": [{"role": "user", "content": "Ports and slots?"}]}
    answer = await app.client.post("/v1/chat/completions", json=body, headers=app.headers())
    assert answer.status_code == 200, answer.text
    told = [m for m in engine.requests[-1]["messages"] if m["role"] == "tool"]
    assert [m["content"][:4] for m in told] == ["[1] ", "[2] ", "[1] "]
    assert all("sources" not in m and "id" not in m for m in told)


async def test_numbers_and_sources_survive_a_crash_and_are_told_again(
    app: AppProcess, engine: ScriptedEngine
) -> None:
    hold = Hold()
    engine.queue = [call_tool("engine proxy port"), [hold]]
    heard, thread = Heard(), str(uuid.uuid4())
    ask = {"message": "Ports and slots?", "thread_id": thread}
    with contextlib.suppress(httpx2.HTTPError):
        async with app.streaming(ask, after=heard) as (_, events):
            async for name in events:
                if name == "tool" and len(heard.of("tool")) == 2:
                    await hold.reached.wait()
                    await app.kill()
    await app.start()
    engine.queue = [call_tool("blue green slots"), say("Port 8000 [1]; two slots [2].")]
    again = Heard()
    first = heard.ids[0]  # the client lost all but one event
    again.ids.append(first)
    resume = {"resume": True, "thread_id": thread}
    async with app.streaming(resume, after=again) as (_, events):
        async for _ in events:
            pass
    ends = [event for event in again.of("tool") if event["phase"] == "end"]
    assert [[(s["number"], s["path"]) for s in end["sources"]] for end in ends] == [
        [(1, "ports.md")], [(2, "slots.md")],
    ]  # fmt: skip
    assert ends[0] == heard.of("tool")[1]


async def test_a_key_with_collections_in_its_scopes_searches_these_only(
    app: AppProcess, engine: ScriptedEngine, documents: Path
) -> None:
    app.run("knowledge", "ingest", str(documents), "--collection", "team")
    made = ("keys", "create", "--name", "limited", "--scope", "chat", "--scope", "knowledge:team")
    app.key = app.run(*made)
    for query, want in (("engine proxy port", "nothing"), ("alpha rotor", "[1] Alpha › Inside")):  # noqa: RUF001
        engine.queue = [call_tool(query), say("Well.")]
        heard = await app.chat(query)
        assert heard.of("tool")[1]["result"].startswith(want)
    assert "knowledge:COLLECTION" in fails(app, "keys", "create", "--name", "x", "--scope", "root")

"""The same question in other words, with a stand-in for the embeddings and a scripted judge."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx2
import pytest
import redis.asyncio as redis
from app_process import AppProcess
from data_servers import PASSWORD, RedisServer
from scripted_engine import USAGE, ScriptedEngine, Status, chunk, say
from stand_in_embeddings import DIMENSIONS, StandInEmbeddings

ASKED = "How do I enable the audit log for a fleet?"
PARAPHRASE = "How can I enable the audit log for the fleet?"


@pytest.fixture
async def embeddings() -> AsyncIterator[StandInEmbeddings]:
    async with StandInEmbeddings().serving() as embeddings:
        yield embeddings


class Judge:
    """Plays the model: answers questions by number, and the check by a rule of the test's."""

    def __init__(self, engine: ScriptedEngine) -> None:
        self.engine = engine
        self.rule: Callable[[str, str], bool] = lambda _one, _other: True
        self.checked: list[tuple[str, str]] = []
        engine.default = self.answer

    def answer(self, body: dict[str, Any]) -> list[Any]:
        if not body["messages"][0]["content"].startswith("Two questions"):
            return say("answer ", str(self.asked))
        assert (body["max_tokens"], body["temperature"]) == (1, 0.0)
        one, other = (json.loads(t) for t in body["messages"][1]["content"].splitlines())
        self.checked.append((one, other))
        word = "Yes" if self.rule(one, other) else "No"
        return [chunk({"content": word}), chunk(reason="length"), USAGE]

    @property
    def asked(self) -> int:
        return sum(body["max_tokens"] > 1 for body in self.engine.requests)


@pytest.fixture
def judge(engine: ScriptedEngine) -> Judge:
    return Judge(engine)


@pytest.fixture
def configuration(configuration: dict[str, Any], embeddings: StandInEmbeddings) -> dict[str, Any]:
    configuration["models"]["demo"]["revision"] = "r1"
    configuration["cache"] = {"exact": True, "semantic": {"threshold": 0.6}}
    configuration["embeddings"] = {
        "endpoint": embeddings.url, "model": "stand-in", "dimensions": DIMENSIONS, "seconds": 1,
    }  # fmt: skip
    return configuration


async def ask(app: AppProcess, text: str, *, key: str = "", **body: Any) -> httpx2.Response:
    response = await app.client.post(
        "/v1/chat/completions",
        json={"messages": [{"role": "user", "content": text}], **body},
        headers={"Authorization": f"Bearer {key or app.key}"},
    )
    assert response.status_code == 200, response.text
    return response


def word_and_answer(response: httpx2.Response) -> tuple[str, str]:
    return response.headers["x-cache"], response.json()["choices"][0]["message"]["content"]


async def remembered(server: RedisServer, questions: int) -> None:
    """Wait until so many questions are kept: their client did not."""
    client = redis.Redis(port=server.port, db=0, password=PASSWORD)
    async with asyncio.timeout(5):
        while True:
            names = [name async for name in client.scan_iter("cache:*:questions:*")]
            if sum([await client.llen(name) for name in names]) >= questions:
                break
            await asyncio.sleep(0.02)
    await client.aclose()


@pytest.fixture(autouse=True)
async def empty(redis_server: RedisServer) -> None:
    client = redis.Redis(port=redis_server.port, db=0, password=PASSWORD)
    await client.flushdb()
    await client.aclose()


async def metrics(app: AppProcess) -> str:
    async with httpx2.AsyncClient(trust_env=False) as client:
        return (await client.get(f"http://127.0.0.1:{app.metrics_port}/metrics")).text


async def test_a_paraphrase_is_served_after_the_model_said_yes_and_the_check_is_counted(
    app: AppProcess, judge: Judge, redis_server: RedisServer
) -> None:
    assert word_and_answer(await ask(app, ASKED)) == ("miss", "answer 1")
    await remembered(redis_server, 1)
    response = await ask(app, PARAPHRASE)
    assert word_and_answer(response) == ("hit", "answer 1")
    assert judge.checked == [(ASKED, PARAPHRASE)]
    assert response.json()["usage"] == {
        "cached": True, "prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15,
    }  # fmt: skip
    assert 'kind="semantic",outcome="hit",reason=""' in await metrics(app)


async def test_a_no_of_the_model_is_obeyed_and_its_cost_is_counted(
    app: AppProcess, judge: Judge, redis_server: RedisServer
) -> None:
    judge.rule = lambda _one, _other: False
    await ask(app, ASKED)
    await remembered(redis_server, 1)
    response = await ask(app, PARAPHRASE)
    assert word_and_answer(response) == ("miss", "answer 2")
    assert response.json()["usage"]["total_tokens"] == 30
    assert 'outcome="miss",reason="check_said_no"' in await metrics(app)


HOSTILE = {
    "opposite": [
        ("How do I enable 2FA for my account?", "How do I disable 2FA for my account?"),
        ("How do I mount the data volume?", "How do I unmount the data volume?"),
        ("Is it safe to delete the old slot?", "Is it unsafe to delete the old slot?"),
        (
            "How can I grant access to the reader role?",
            "How can I revoke access to the reader role?",
        ),
        ("What happens before the upgrade starts?", "What happens after the upgrade starts?"),
        ("Which port is open to the world?", "Which port is closed to the world?"),
    ],
    "negation": [
        ("Which hosts are in the fleet?", "Which hosts are not in the fleet?"),
        ("Should I restart the engine now?", "Shouldn't I restart the engine now?"),
        ("Can it run with a proxy?", "Can it never run with a proxy?"),
    ],
    "number": [
        ("What is 17 + 4?", "What is 17 + 5?"),
        ("What changed in version 1.2.3 of it?", "What changed in version 1.3.2 of it?"),
        ("Convert two miles to metres please", "Convert three miles to metres please"),
    ],
    "name": [
        ("What is the weather in Berlin today?", "What is the weather in Paris today?"),
        ("How do I restart vllm@green now?", "How do I restart vllm@blue now?"),
        ("What does Ann earn a month?", "What does Bob earn a month?"),
        ("Can I read /etc/passwd with it?", "Can I read /etc/shadow with it?"),
    ],
}


@pytest.mark.parametrize("kind", HOSTILE)
async def test_near_duplicates_are_not_served_even_where_the_model_is_fooled(
    app: AppProcess, judge: Judge, redis_server: RedisServer, kind: str
) -> None:
    for number, (asked, hostile) in enumerate(HOSTILE[kind]):
        first = word_and_answer(await ask(app, asked, seed=number))
        await remembered(redis_server, 2 * number + 1)
        second = word_and_answer(await ask(app, hostile, seed=number))
        assert (first[0], second[0]) == ("miss", "miss"), hostile
        assert first[1] != second[1]
        await remembered(redis_server, 2 * number + 2)
    assert judge.checked == []  # the guards had them; the model, which says yes to all, was spared
    page = await metrics(app)
    assert 'reason="none_near"' not in page, "the pairs must be alike, or nothing is shown"
    assert 'outcome="hit"' not in page


async def test_what_the_guards_cannot_see_is_left_to_the_model(
    app: AppProcess, judge: Judge, redis_server: RedisServer
) -> None:
    judge.rule = lambda one, other: one.split()[-1] == other.split()[-1]
    await ask(app, "what is the capital of france")
    await remembered(redis_server, 1)
    assert word_and_answer(await ask(app, "what is the capital of spain"))[0] == "miss"
    assert len(judge.checked) == 1


async def test_everything_else_must_be_the_same(
    app: AppProcess, judge: Judge, redis_server: RedisServer
) -> None:
    other = app.run("keys", "create", "--name", "other")
    await ask(app, ASKED)
    await remembered(redis_server, 1)
    history = [
        {"role": "user", "content": "I run Debian."},
        {"role": "assistant", "content": "Good."},
        {"role": "user", "content": PARAPHRASE},
    ]
    assert word_and_answer(await ask(app, PARAPHRASE, key=other))[0] == "miss"
    assert word_and_answer(await ask(app, PARAPHRASE, max_tokens=9))[0] == "miss"
    assert word_and_answer(await ask(app, "", messages=history))[0] == "miss"
    assert judge.checked == []
    assert word_and_answer(await ask(app, PARAPHRASE))[0] == "hit"


async def test_texts_of_resident_keys_do_not_go_to_an_endpoint_elsewhere(
    app: AppProcess, judge: Judge, embeddings: StandInEmbeddings
) -> None:
    ward = app.run("keys", "create", "--name", "ward", "--resident")
    await ask(app, ASKED, key=ward)
    await ask(app, PARAPHRASE, key=ward)
    await asyncio.sleep(0.2)
    assert embeddings.texts == []
    assert 'kind="semantic",outcome="bypass",reason="resident"' in await metrics(app)
    assert word_and_answer(await ask(app, ASKED, key=ward))[0] == "hit"  # the exact cache is ours


async def test_without_embeddings_or_a_check_requests_work(
    app: AppProcess, judge: Judge, embeddings: StandInEmbeddings, redis_server: RedisServer
) -> None:
    await ask(app, ASKED)
    await remembered(redis_server, 1)
    embeddings.status = 500
    assert word_and_answer(await ask(app, PARAPHRASE)) == ("miss", "answer 2")
    embeddings.status = 200
    judge.engine.queue = [[Status(500)]]  # the check's
    assert word_and_answer(await ask(app, f"{PARAPHRASE} Please."))[0] == "miss"
    page = await metrics(app)
    assert 'outcome="bypass",reason="embeddings"' in page
    assert 'outcome="bypass",reason="check_failed"' in page


async def test_an_answer_that_redis_let_go_is_a_miss(
    app: AppProcess, judge: Judge, redis_server: RedisServer
) -> None:
    await ask(app, ASKED)
    await remembered(redis_server, 1)
    client = redis.Redis(port=redis_server.port, db=0, password=PASSWORD)
    for name in [name async for name in client.scan_iter("cache:*:answer:*")]:
        await client.delete(name)
    await client.aclose()
    assert word_and_answer(await ask(app, PARAPHRASE)) == ("miss", "answer 2")


def test_the_semantic_cache_wants_embeddings(prepared: AppProcess, configuration) -> None:
    del configuration["embeddings"]
    done = AppProcess(prepared.folder, configuration).complete("check")
    assert done.returncode == 2
    assert "cache.semantic needs embeddings" in done.stderr

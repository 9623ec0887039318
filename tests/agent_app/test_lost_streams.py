"""A client whose stream breaks comes back with Last-Event-ID: nothing is lost, nothing doubled."""

import asyncio
import contextlib
import random
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest
from app_process import AppProcess, Heard
from scripted_engine import ABORT, Hold, Pause, ScriptedEngine, call_tool, chunk, say

FIRST = ["Let ", "me ", "look ", "it ", "up. "]
LAST = [f"word{n} " for n in range(40)]
CUTS = 6  # in one turn, at most


def script(body: dict[str, Any]) -> list[Any]:
    """Text and a call, then only a call, then a long text; the same whenever it is asked again."""
    results = sum(message["role"] == "tool" for message in body["messages"])
    if results == 0:
        return [*(chunk({"content": word}) for word in FIRST), *call_tool("engine proxy port")]
    if results == 1:
        return call_tool("slots")
    return [step for word in say(*LAST) for step in (word, Pause(0.003))]


def cut_sizes(seed: int) -> list[int]:
    """After how many events each stream of a turn breaks; the last goes on to its end."""
    dice = random.Random(seed)
    return [dice.choice((1, 2, 3, 5, 8, 13, 21)) for _ in range(dice.randint(1, CUTS))]


async def hear(events: AsyncIterator[str], most: int | None = None) -> None:
    """Hear so many events, or all."""
    count = 0
    async for _ in events:
        count += 1
        if count == most:
            return


async def hear_in_pieces(apps: list[AppProcess], sizes: list[int], between: Any = None) -> Heard:
    """Ask, and break the stream after so many events each time, going from app to app."""
    heard, thread = Heard(), str(uuid.uuid4())
    body: dict[str, Any] = {"message": "Which port?", "thread_id": thread}
    for number, most in enumerate([*sizes, None]):
        app = apps[number % len(apps)]
        async with app.streaming(body, after=heard) as (_, events):
            await hear(events, most)
        if {"done", "error"} & set(heard.names()):
            break
        if between is not None:
            await between(app)
        body = {"resume": True, "thread_id": thread}
    return heard


def assert_right(heard: Heard, *, told_again: bool = False) -> None:
    """The client shows what the agent said and did: all of it, once."""
    assert heard.names()[-1] == "done", heard.events[-3:]
    assert Counter(heard.names())["done"] == 1
    assert heard.text() == "".join(FIRST + LAST)
    places = [tuple(map(int, id.split(".")[1:])) for id in heard.ids]
    assert places == sorted(set(places)), heard.ids
    phases = [(tool["id"], tool["phase"]) for tool in heard.of("tool")]
    assert len(set(phases)) == 4
    if told_again:  # a call that was cut short is told from its start again, under its id
        assert phases[-1][1] == "end"
    else:
        assert [phase for _, phase in phases] == ["start", "end"] * 2, phases
    if not told_again:
        assert "retract" not in heard.names()
        assert [tuple_[1] for tuple_ in places] == list(range(1, len(places) + 1))


@contextlib.asynccontextmanager
async def waiting(prepared: AppProcess, configuration, seconds: float) -> AsyncIterator[AppProcess]:
    """Serve with so long a grace for clients that left."""
    configuration["limits"]["reconnect_seconds"] = seconds
    app = AppProcess(prepared.folder, configuration)
    app.key = prepared.key
    await app.start()
    yield app
    await app.kill()
    await app.client.aclose()


@pytest.fixture
async def patient(prepared: AppProcess, configuration) -> AsyncIterator[AppProcess]:
    """An app that waits for lost clients longer than a busy machine takes to bring them back."""
    async with waiting(prepared, configuration, 10) as app:
        yield app


@pytest.fixture
async def prompt(prepared: AppProcess, configuration) -> AsyncIterator[AppProcess]:
    """An app that stops a run as soon as its client has left."""
    async with waiting(prepared, configuration, 0) as app:
        yield app


async def test_streams_cut_anywhere_go_on_where_they_broke(
    patient: AppProcess, engine: ScriptedEngine, sql
) -> None:
    engine.default = script
    for seed in range(25):
        heard = await hear_in_pieces([patient], cut_sizes(seed))
        assert_right(heard)
    assert len(engine.requests) == 25 * 3  # no step was asked for twice
    assert sql.execute("SELECT DISTINCT status, attempt FROM app.runs").fetchall() == [("done", 1)]


async def test_streams_cut_anywhere_go_on_from_the_checkpoint_when_the_run_was_stopped(
    prompt: AppProcess, engine: ScriptedEngine, sql
) -> None:
    engine.default = script
    for seed in range(100, 120):
        assert_right(await hear_in_pieces([prompt], cut_sizes(seed)), told_again=True)
    assert sql.execute("SELECT count(*) FROM app.tool_effects").fetchone() == (2 * 20,)


async def test_streams_cut_anywhere_survive_a_sigkill_each_time(
    prompt: AppProcess, engine: ScriptedEngine, sql
) -> None:
    engine.default = script

    async def die(app: AppProcess) -> None:
        await app.kill()
        await app.start()

    for seed in range(200, 205):
        heard = await hear_in_pieces([prompt], cut_sizes(seed)[:3], die)
        starts = Counter(tool["id"] for tool in heard.of("tool") if tool["phase"] == "start")
        assert heard.text() == "".join(FIRST + LAST)
        assert heard.names()[-1] == "done"
        assert len(starts) == 2  # one that was under way may be told from its start again
        assert heard.ids == list(dict.fromkeys(heard.ids))
    assert sql.execute("SELECT count(*) FROM app.tool_effects").fetchone() == (2 * 5,)


@pytest.fixture
async def pair(patient: AppProcess, configuration, tmp_path) -> AsyncIterator[list[AppProcess]]:
    # A lease that no busy machine outlasts: a run is to change hands when it was given up.
    configuration["limits"] |= {"reconnect_seconds": 0.2, "lease_seconds": 20}
    apps = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        app = AppProcess(tmp_path / name, configuration)
        app.key = patient.key
        await app.start()
        apps.append(app)
    yield apps
    for app in apps:
        await app.kill()
        await app.client.aclose()


async def test_streams_cut_anywhere_go_on_in_another_process(
    pair: list[AppProcess], engine: ScriptedEngine, sql
) -> None:
    engine.default = script
    for seed in range(300, 310):
        assert_right(await hear_in_pieces(pair, cut_sizes(seed)), told_again=True)
    assert sql.execute("SELECT count(*) FROM app.tool_effects").fetchone() == (2 * 10,)


async def test_a_line_that_broke_unseen_gives_way_to_the_new_one(
    patient: AppProcess, engine: ScriptedEngine
) -> None:
    hold = Hold()
    engine.queue = [[chunk({"content": "a"}), hold, *say("b")]]
    async with patient.streaming({"message": "Go."}) as (first, events):
        await anext(events)
        again = Heard([*first.events], [*first.ids], first.thread_id)
        path = f"/chat/{first.thread_id}/resume"
        async with patient.streaming({}, path, after=again) as (_, more):
            assert [name async for name in events] == []  # closed, and the run lives on
            hold.release.set()
            await hear(more)
    assert again.names() == ["token", "token", "usage", "done"]
    assert again.text() == "ab"
    assert len(engine.requests) == 1


async def test_a_line_that_broke_unseen_in_another_process_gives_way_within_its_lease(
    pair: list[AppProcess], engine: ScriptedEngine
) -> None:
    hold = Hold()
    engine.queue = [[chunk({"content": "a"}), hold], say("a", "b")]
    here, there = pair
    async with there.streaming({"message": "Go."}) as (first, events):
        await anext(events)
        again = Heard([*first.events], [*first.ids], first.thread_id)
        path = f"/chat/{first.thread_id}/resume"
        async with here.streaming({}, path, after=again) as (_, more):
            await hear(more)
        assert [name async for name in events] == ["error"]
        assert first.of("error")[0]["code"] == "interrupted"
    assert again.names() == ["token", "retract", "token", "token", "usage", "done"]
    assert again.text() == "ab"


async def test_a_client_that_left_keeps_the_engine_busy_for_the_grace_and_no_longer(
    prepared: AppProcess, configuration, engine: ScriptedEngine
) -> None:
    hold = Hold()
    engine.queue = [[chunk({"content": "a"}), hold]]
    async with waiting(prepared, configuration, 1) as app:
        async with app.streaming({"message": "Go."}) as (_, events):
            await anext(events)
        left = time.monotonic()
        await engine.idle(seconds=3)
        assert 0.9 < time.monotonic() - left < 2


async def test_stop_does_not_wait_for_a_client_that_left(
    patient: AppProcess, engine: ScriptedEngine
) -> None:
    hold = Hold()
    engine.queue = [[chunk({"content": "a"}), hold]]
    async with patient.streaming({"message": "Go."}) as (heard, events):
        await anext(events)
    path = f"/threads/{heard.thread_id}/stop"
    response = await patient.client.post(path, headers=patient.headers())
    assert response.json() == {"stopping": True}
    await engine.idle(seconds=1)


async def test_the_same_message_while_the_run_waits_for_its_client_is_told_anew_at_once(
    patient: AppProcess, engine: ScriptedEngine
) -> None:
    hold = Hold()
    engine.queue = [[chunk({"content": "a"}), hold], say("anew")]
    async with patient.streaming({"message": "Go."}) as (heard, events):
        await anext(events)
    began = time.monotonic()
    again = await patient.chat("Go.", thread_id=heard.thread_id)
    assert time.monotonic() - began < 2
    assert again.text() == "anew"


@pytest.mark.parametrize("remembered", [True, False])
async def test_an_end_that_was_lost_is_told(
    patient: AppProcess, engine: ScriptedEngine, remembered: bool
) -> None:
    for lost in range(1, 4):
        engine.queue = [say("One ", "two.")]
        heard = await patient.chat("Count.")
        assert heard.names() == ["token", "token", "usage", "done"]
        if not remembered:
            await patient.kill()
            await patient.start()
        del heard.events[-lost:], heard.ids[-lost:]
        path = f"/chat/{heard.thread_id}/resume"
        async with patient.streaming({}, path, after=heard) as (_, events):
            await hear(events)
        assert heard.text() == "One two."
        assert Counter(heard.names())["usage"] == Counter(heard.names())["done"] == 1
        assert heard.ids == list(dict.fromkeys(heard.ids))
    assert len(engine.requests) == 3


async def test_a_withdrawal_by_the_engine_is_in_the_replay(
    patient: AppProcess, engine: ScriptedEngine
) -> None:
    hold = Hold()
    engine.queue = [[chunk({"content": "wrong"}), hold, ABORT], say("right")]
    async with patient.streaming({"message": "Go."}) as (heard, events):
        await anext(events)
    hold.release.set()
    await asyncio.sleep(0.3)
    path = f"/chat/{heard.thread_id}/resume"
    async with patient.streaming({}, path, after=heard) as (_, events):
        await hear(events)
    assert heard.names() == ["token", "retract", "token", "usage", "done"]
    assert heard.text() == "right"


@pytest.mark.parametrize(
    ("id", "status"),
    [
        ("x", 400),
        ("6c0f2e0e-2f57-4ab4-a1c6-1f0a3b1f9d2e.1.-1", 400),
        ("6c0f2e0e-2f57-4ab4-a1c6-1f0a3b1f9d2e.1", 400),
        ("6c0f2e0e-2f57-4ab4-a1c6-1f0a3b1f9d2e.1.1", 409),
    ],
)
async def test_an_id_that_is_not_of_the_threads_last_run_is_refused(
    patient: AppProcess, id: str, status: int
) -> None:
    thread = (await patient.chat("Hello.")).thread_id
    response = await patient.client.post(
        f"/chat/{thread}/resume", headers={**patient.headers(), "Last-Event-ID": id}
    )
    assert response.status_code == status, response.text
    body = {"message": "More.", "thread_id": thread}
    response = await patient.client.post(
        "/chat", json=body, headers={**patient.headers(), "Last-Event-ID": id}
    )
    assert response.status_code == 400


async def test_another_keys_run_cannot_be_followed(
    patient: AppProcess, engine: ScriptedEngine
) -> None:
    hold = Hold()
    engine.queue = [[chunk({"content": "mine"}), hold, *say("too")]]
    async with patient.streaming({"message": "Go."}) as (heard, events):
        await anext(events)
        other = patient.run("keys", "create", "--name", "other")
        headers = {"Authorization": f"Bearer {other}", "Last-Event-ID": heard.ids[-1]}
        path = f"/chat/{heard.thread_id}/resume"
        with contextlib.suppress(httpx2.HTTPError):
            response = await patient.client.post(path, headers=headers)
        assert response.status_code == 404
        hold.release.set()
        assert [name async for name in events][-1] == "done"

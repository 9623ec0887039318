import asyncio
from uuid import uuid4

from agent_app.agent.events import Done, Token
from agent_app.agent.run import KEPT_EVENTS, UNREAD_EVENTS, Place, Run

WORDS = 3 * KEPT_EVENTS
DONE = Done("m", "", "stop")


async def talk(run: Run) -> None:
    for n in range(1, WORDS + 1):
        await run.tell(Token(f"{n}", "m"))
    await run.tell_last(DONE)


def begun() -> Run:
    run = Run(uuid4(), uuid4())
    run.start(talk)
    return run


async def test_a_run_is_never_far_ahead_of_its_client() -> None:
    run = begun()
    heard = 0
    async for news in run.follow(quiet_seconds=1):
        heard += len(news)
        if heard % 100 == 0:
            await asyncio.sleep(0)
        assert run._end - heard <= UNREAD_EVENTS
        assert len(run._log) <= 2 * KEPT_EVENTS
    assert heard == WORDS + 1


async def test_an_answer_is_kept_whole_for_a_client_that_reads_slowly() -> None:
    run = Run(uuid4(), uuid4())
    for n in range(WORDS):
        run.tell_at_once(Token(f"{n}", "m"))
    run.tell_at_once(DONE)
    heard = [n async for news in run.follow(quiet_seconds=1) for n in news]
    assert [n.place for n in heard] == [Place(1, n) for n in range(1, WORDS + 2)]


async def test_only_what_is_kept_can_be_heard_again_and_that_whole() -> None:
    run = begun()
    async for _ in run.follow(quiet_seconds=1):
        pass
    assert not run.has_more_than(Place(1, 10))
    assert not run.has_more_than(Place(2, 1))
    for last in (WORDS - KEPT_EVENTS + 1, WORDS - 1, WORDS, WORDS + 1):
        assert run.has_more_than(Place(1, last))
        again = [
            n async for news in run.follow(quiet_seconds=1, heard=Place(1, last)) for n in news
        ]
        assert [n.place for n in again[:-1]] == [Place(1, n) for n in range(last + 1, WORDS + 1)]
        assert again[-1].event == DONE


async def test_a_second_line_ends_the_first_and_misses_nothing() -> None:
    run = begun()
    first, second = [], []
    async for news in run.follow(quiet_seconds=1):
        first.extend(news)
        if len(first) >= 1000:
            break
    old = run.follow(quiet_seconds=1, heard=first[-1].place)
    assert await anext(old)
    async for news in run.follow(quiet_seconds=1, heard=first[-1].place):
        second.extend(news)
    assert [n async for n in old] == []
    assert [n.place for n in [*first, *second]] == [Place(1, n) for n in range(1, WORDS + 2)]


async def test_a_run_whose_client_left_is_stopped_after_the_grace_but_not_if_it_came_back() -> None:
    run, line, other = begun(), object(), object()
    run.connect(line)
    run.leave(line, 0.05)
    run.connect(other)
    run.leave(line, 0)  # the old line's end, noticed late
    await asyncio.sleep(0.1)
    assert run.why_stopped is None
    run.leave(other, 0.05)
    assert run.left
    await asyncio.sleep(0.1)
    assert run.why_stopped is not None

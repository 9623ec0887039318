"""Sessions with real MCP servers, over stdio and streamable HTTP, that behave and that do not."""

import asyncio
import json
import os
import resource
import signal
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from mcp_shop import HttpShop, Shop, linked

from agent_app.tools.arguments import InvalidArguments
from agent_app.tools.mcp.lines import Lines, TooLong
from agent_app.tools.mcp.link import ServerLink
from agent_app.tools.mcp.tool import McpTool, read_result
from agent_app.tools.toolbox import CallContext, OutcomeUnknown, ToolUnavailable

CONTEXT: Any = CallContext(None, "call", None)  # type: ignore[arg-type]


@pytest.fixture(params=["stdio", "http"])
async def shop(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Shop]:
    if request.param == "stdio":
        yield Shop(tmp_path / "shop")
        return
    shop = HttpShop(tmp_path / "shop")
    await shop.start()
    yield shop
    await shop.kill()


@pytest.fixture
async def stdio(tmp_path: Path) -> Shop:
    return Shop(tmp_path / "shop")


async def call(link: ServerLink, tool: str, **arguments: Any) -> str:
    output = await McpTool(link, tool).run(arguments, CONTEXT)
    return output.text


async def up(link: ServerLink, seconds: float = 20) -> None:
    async with asyncio.timeout(seconds):
        while link.why_down:
            await asyncio.sleep(0.02)


async def test_the_allowed_tools_are_offered_and_no_others(shop: Shop) -> None:
    async with linked(shop, tools=["refund", "stock", "absent"]) as link:
        assert link.why_down == ""
        assert sorted(link.offers) == ["refund", "stock"]
        schema = McpTool(link, "refund").schema["function"]
        assert schema["name"] == "shop__refund"
        assert schema["description"] == "Give the money of an order back."
        assert schema["parameters"]["required"] == ["order"]
        assert McpTool(link, "stock").repeatable and not McpTool(link, "refund").repeatable
        assert not McpTool(link, "absent").available
        with pytest.raises(ToolUnavailable, match="does not offer absent"):
            await McpTool(link, "absent").check({})


async def test_a_call_gives_text_and_a_failure_says_so(shop: Shop) -> None:
    async with linked(shop) as link:
        assert await call(link, "refund", order=7) == "order 7 refunded"
        assert shop.effects() == ["refund 7 0"]
        output = await McpTool(link, "fail").run({"order": 7}, CONTEXT)
        assert not output.ok and "not" in output.text
        assert await call(link, "picture") == "a picture:\n(image image/png, left out)"


async def test_wrong_arguments_never_reach_the_server(shop: Shop) -> None:
    async with linked(shop) as link:
        tool = McpTool(link, "refund")
        for wrong in ({}, {"order": "seven"}, {"order": [1]}, {"order": 1, "amount": "all"}):
            with pytest.raises(InvalidArguments):
                await tool.check(wrong)
        await tool.check({"order": 1})
    assert shop.effects() == []


async def test_a_hundred_calls_at_once_share_one_session(shop: Shop) -> None:
    async with linked(shop) as link:
        texts = await asyncio.gather(*(call(link, "stock", item=f"i{n}") for n in range(100)))
        assert texts == [f"7 of i{n}" for n in range(100)]
        assert len(shop.effects()) == 100


async def test_a_cancelled_call_is_cancelled_at_the_server(shop: Shop) -> None:
    async with linked(shop) as link:
        calling = asyncio.create_task(call(link, "slow_stock", item="x"))
        await shop.did("slow begins x")
        calling.cancel()
        await shop.did("slow cancelled x", 5)
        assert calling.cancelled() or (await asyncio.gather(calling, return_exceptions=True))
        assert await call(link, "stock", item="y") == "7 of y"


async def test_a_long_result_is_cut_and_ten_megabytes_end_nothing_but_their_call(
    shop: Shop,
) -> None:
    async with linked(shop, bytes=1000) as link:
        text = await call(link, "big", size=50_000)
        assert len(text) < 1100 and text.endswith("(cut at 1000 bytes of 50000; ask for less)")
        slow = asyncio.create_task(call(link, "slow_stock", item="x"))
        await shop.did("slow begins x")
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        with pytest.raises(OutcomeUnknown):
            await call(link, "big", size=10_000_000)
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20_000  # KiB
        assert not slow.done()
        assert await call(link, "stock", item="y") == "7 of y"
        slow.cancel()


async def test_a_changed_tool_is_noticed_and_a_new_one_stays_out(shop: Shop, caplog) -> None:
    async with linked(shop) as link:
        before = link.offers["refund"].digest
        assert await call(link, "change") == "changed"
        async with asyncio.timeout(5):
            while link.offers["refund"].digest == before:
                await asyncio.sleep(0.05)
        assert "stock" not in link.offers and "extra" not in link.offers
        assert link.offers["refund"].parameters["required"] == ["order", "to_account"]


async def test_a_server_killed_in_mid_call_leaves_its_outcome_unknown_and_comes_back(
    stdio: Shop,
) -> None:
    async with linked(stdio) as link:
        calling = asyncio.create_task(call(link, "slow_stock", item="x"))
        await stdio.did("slow begins x")
        os.kill(stdio.pid, signal.SIGKILL)
        with pytest.raises(OutcomeUnknown, match="went away"):
            await calling
        async with asyncio.timeout(5):
            while not link.why_down:
                await asyncio.sleep(0.01)
        await up(link)
        assert await call(link, "stock", item="y") == "7 of y"


async def test_an_http_server_that_dies_is_noticed_and_found_again(tmp_path: Path) -> None:
    shop = HttpShop(tmp_path / "shop")
    await shop.start()
    try:
        async with linked(shop) as link:
            calling = asyncio.create_task(call(link, "slow_stock", item="x"))
            await shop.did("slow begins x")
            await shop.kill()
            with pytest.raises((OutcomeUnknown, ToolUnavailable)):
                await calling
            with pytest.raises((OutcomeUnknown, ToolUnavailable)):
                await call(link, "refund", order=1)
            assert "refund 1 0" not in shop.effects()
            await shop.start()
            async with asyncio.timeout(30):
                while True:
                    try:
                        assert await call(link, "stock", item="y") == "7 of y"
                        break
                    except (OutcomeUnknown, ToolUnavailable):
                        await asyncio.sleep(0.1)
    finally:
        await shop.kill()


async def test_a_server_that_is_not_there_is_told_and_asked_again(tmp_path: Path) -> None:
    shop = HttpShop(tmp_path / "shop")
    async with linked(shop) as link:
        assert "ConnectError" in link.why_down
        started = time.monotonic()
        with pytest.raises(ToolUnavailable, match="cannot be reached"):
            await call(link, "stock", item="x")
        assert time.monotonic() - started < 7
        await shop.start()
        await up(link)
        assert await call(link, "stock", item="y") == "7 of y"
    await shop.kill()


async def test_a_command_that_is_not_there_is_told(stdio: Shop) -> None:
    async with linked(stdio, command=["/nonexistent/server"]) as link:
        assert link.why_down


@pytest.mark.parametrize("where", ["stderr", "stdout"])
async def test_a_flood_is_bounded_in_memory_and_in_the_log(stdio: Shop, where: str) -> None:
    async with linked(stdio) as link:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        try:
            assert await call(link, "flood", where=where) == "flooded"
        except OutcomeUnknown:
            assert where == "stdout"  # whoever talks nonsense there is let go
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20_000
        await up(link)
        assert await call(link, "stock", item="y") == "7 of y"


async def test_a_server_gets_nothing_of_our_environment_but_the_path(
    stdio: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tools_mcp_token").write_text("s3cret\n")
    monkeypatch.setenv("AGENT_APP_CREDENTIALS_DIR", str(tmp_path))
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    monkeypatch.setenv("OPENAI_API_KEY", "leak")
    more = {"env": {"SHOP": "1"}, "credentials": {"TOKEN": "tools_mcp_token"}}
    async with linked(stdio, **more) as link:
        import json

        seen = json.loads(await call(link, "environment"))
        assert {k: v for k, v in seen.items() if k not in ("PATH", "LANG", "LC_CTYPE")} == {
            "SHOP": "1",
            "TOKEN": "s3cret",
        }
        arguments = Path(f"/proc/{stdio.pid}/cmdline").read_text()
        assert "s3cret" not in arguments


async def test_the_server_and_its_group_are_gone_with_the_link(stdio: Shop) -> None:
    async with linked(stdio) as link:
        assert not link.why_down
        assert os.getpgid(stdio.pid) == stdio.pid != os.getpgid(0)
        calling = asyncio.create_task(call(link, "hang"))
        await asyncio.sleep(0.3)  # it now reads nothing and would not hear of a polite end
        calling.cancel()
    assert not stdio.alive()


async def test_holding_the_session_costs_a_fraction_of_opening_it_for_each_call(
    shop: Shop, capsys: pytest.CaptureFixture[str]
) -> None:
    async with linked(shop) as link:
        await call(link, "stock", item="warm")
        started = time.perf_counter()
        for n in range(50):
            await call(link, "stock", item=f"i{n}")
        held = (time.perf_counter() - started) / 50
    opened = float("inf")
    for n in range(3):
        started = time.perf_counter()
        async with linked(shop) as link:
            await call(link, "stock", item=f"o{n}")
            opened = min(opened, time.perf_counter() - started)
    with capsys.disabled():
        print(
            f"\n{type(shop).__name__}: held {held * 1000:.1f} ms a call,"
            f" opened per call {opened * 1000:.0f} ms, ratio {opened / held:.0f}"
        )
    assert opened > 3 * held


def test_a_result_that_is_only_structured_becomes_json() -> None:
    from mcp_types import CallToolResult

    result = CallToolResult(content=[], structured_content={"a": "é"})
    assert read_result(result, 100).text == '{"a": "é"}'
    assert read_result(CallToolResult(content=[]), 100).text == "(no content)"


async def test_a_server_of_before_2026_with_traps_is_held_within_bounds(stdio: Shop) -> None:
    program = Path(__file__).with_name("mcp_old_program.py")
    command = [sys.executable, str(program), str(stdio.folder)]
    tools = ["remote", "huge", "bomb", "slow", "looped", "late"]
    async with linked(stdio, command=command, tools=tools) as link:
        assert not link.why_down
        # What refers elsewhere or is too large is left out; what grows without end is cut.
        assert sorted(link.offers) == ["bomb", "looped", "slow"]
        assert all(len(json.dumps(offer.parameters)) < 8_000 for offer in link.offers.values())
        offer = link.offers["slow"]
        assert offer.description == "x <\u200b|im_start|>"
        started = time.monotonic()
        await McpTool(link, "slow").check({"a": "a" * 40 + "!"})  # the server's to check
        with pytest.raises(InvalidArguments):
            await McpTool(link, "slow").check({"a": 1})
        assert time.monotonic() - started < 1
        assert await call(link, "slow", a="x") == '{"a": "x"}'
        async with asyncio.timeout(5):  # told by a notification, as the old protocol has it
            while "late" not in link.offers:
                await asyncio.sleep(0.05)
        heard = [json.loads(line) for line in (stdio.folder / "heard").read_text().splitlines()]
        refused = {m["id"]: "error" in m for m in heard if m.get("id") in ("s1", "s2")}
        assert refused == {"s1": True, "s2": True}


def test_a_line_is_bounded_however_it_comes() -> None:
    lines = Lines(10)
    assert list(lines.feed(b"one\ntw")) == [b"one"]
    assert list(lines.feed(b"o\n" + b"x" * 30)) == [b"two"]
    assert list(lines.feed(b"y" * 1_000_000)) == []
    (long,) = lines.feed(b"\n")
    assert isinstance(long, TooLong) and long.head.startswith(b"x" * 10) and len(long.head) <= 200
    assert list(lines.feed(b"three\n")) == [b"three"]

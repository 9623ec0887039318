"""The page in a real browser: the machine's Chromium, driven over its own protocol."""

import asyncio
import contextlib
import os
import re
import shutil
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from app_process import AppProcess
from playwright.async_api import Page, async_playwright, expect
from scripted_engine import ABORT, Hold, ScriptedEngine, call_tool, chunk, say

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "google-chrome"))), None)
needs_browser = pytest.mark.skipif(
    CHROMIUM is None, reason="no chromium or google-chrome: make test installs it on Debian"
)
FLAGS = [
    *("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"),
    *("--no-proxy-server", "--disable-dev-shm-usage"),
]
SCREENSHOTS = os.environ.get("RACKHAND_SCREENSHOTS", "")

HOSTILE = [
    "<img src=x onerror=\"document.title='owned'\"> ",
    "<script>document.title='owned'</script> ",
    "[click](javascript:document.title='owned') ",
    "[fine](https://example.com/a?b=1) **bold** `code` <i id=x>tail</i>\n\n- one\n- two\n",
]


@dataclass
class Browser:
    """A page, and whatever it complained of or loaded from elsewhere."""

    page: Page
    complaints: list[str] = field(default_factory=list)
    requested: set[str] = field(default_factory=set)

    def note(self, text: str) -> None:
        self.complaints.append(text)

    async def picture(self, name: str) -> None:
        if SCREENSHOTS:
            await self.page.screenshot(path=Path(SCREENSHOTS) / f"{name}.png")

    async def say(self, message: str) -> None:
        await expect(self.page.get_by_role("button", name="Send")).to_be_visible()
        await self.page.get_by_label("Message", exact=True).fill(message)
        await self.page.keyboard.press("Enter")


@contextlib.asynccontextmanager
async def signed_in(app: AppProcess) -> AsyncIterator[Browser]:
    """The page, signed in; afterwards it must not have complained or called elsewhere."""
    async with async_playwright() as playwright:
        chromium = await playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = await chromium.new_page(viewport={"width": 1200, "height": 800})
        page.set_default_timeout(10_000)
        browser = Browser(page)
        page.on("console", lambda m: m.type in ("error", "warning") and browser.note(m.text))
        page.on("pageerror", lambda error: browser.complaints.append(str(error)))
        page.on("request", lambda request: browser.requested.add(request.url))
        await page.goto(app.url)
        await browser.picture("sign-in")
        await page.get_by_label("API key").fill(app.key)
        await page.keyboard.press("Enter")
        await expect(page.get_by_label("Message", exact=True)).to_be_focused()
        yield browser
        await chromium.close()
    assert browser.complaints == []
    assert {url for url in browser.requested if not url.startswith((app.url, "data:"))} == set()


@pytest.fixture
async def browser(app: AppProcess) -> AsyncIterator[Browser]:
    async with signed_in(app) as browser:
        yield browser


@needs_browser
async def test_ask_see_the_tool_and_find_the_thread_after_a_reload(
    browser: Browser, engine: ScriptedEngine
) -> None:
    page = browser.page
    hold = Hold()
    engine.queue = [
        call_tool("engine proxy port"),
        [chunk({"content": "The engine proxy listens on "}), hold, *say("**port 8000**.")],
    ]
    await browser.say("Which port has the engine proxy?")
    answer = page.locator(".message.assistant")
    await expect(answer).to_contain_text("listens on")  # before the engine's last word
    await expect(page.get_by_role("button", name="Stop")).to_be_visible()
    hold.release.set()
    await expect(answer.locator("strong")).to_have_text("port 8000")
    await expect(answer.locator(".usage")).to_have_text("20 prompt + 10 answer tokens")
    await expect(answer.locator(".sources")).to_contain_text("Ports")
    await expect(page.locator("#spoken")).to_contain_text("listens on port 8000.")
    tool = answer.locator("details.tool")
    await expect(tool.locator("dl")).to_be_hidden()
    await tool.locator("summary").click()
    await expect(tool).to_contain_text('"query": "engine proxy port"')
    await expect(tool).to_contain_text("[1] Ports: The engine proxy listens on port 8000.")
    await browser.picture("light")
    await page.emulate_media(color_scheme="dark")
    await browser.picture("dark")

    address = page.url
    assert re.search(r"#[0-9a-f-]{36}$", address)
    await page.reload()
    await expect(page.locator(".message.user")).to_have_text("Which port has the engine proxy?")
    await expect(page.locator(".message.assistant strong")).to_have_text("port 8000")
    await expect(page.locator("details.tool")).to_have_count(1)
    listed = page.get_by_role("link", name="Which port has the engine proxy?")
    await expect(listed).to_have_attribute("aria-current", "page")
    await page.get_by_role("button", name="New conversation").click()
    await expect(page.locator(".message")).to_have_count(0)
    await listed.click()
    await expect(page.locator(".message")).to_have_count(2)
    assert page.url == address


@needs_browser
async def test_citations_lead_to_their_sources_and_back_by_keyboard_and_mouse(
    browser: Browser, app: AppProcess, engine: ScriptedEngine, tmp_path: Path
) -> None:
    page = browser.page
    folder = tmp_path / "guide"
    folder.mkdir()
    (folder / "valves.md").write_text("# Valves\n\n## Closing\n\nTurn the valve clockwise.\n")
    (folder / "danger.md").write_text("---\nurl: javascript:alert(1)\n---\n# Valve care\n\nOil it.")
    base = ("--base-url", "https://docs.example.com")
    await asyncio.to_thread(app.run, "knowledge", "ingest", str(folder / "valves.md"), *base)
    await asyncio.to_thread(app.run, "knowledge", "ingest", str(folder / "danger.md"))
    said = "Turn it **clockwise [1]** and oil it [2, 1]. Not [7], nor `[1]`."
    engine.queue = [call_tool("valve clockwise"), call_tool("valve care oil"), say(said)]
    await browser.say("How do I close a valve?")
    answer = page.locator(".message.assistant")
    await expect(answer.locator(".usage")).to_be_visible()
    for _ in range(2):  # as it was streamed, and after a reload
        await expect(answer.locator(".text a.cite")).to_have_text(["[1]", "[2]", "[1]"])
        await expect(answer.locator(".text")).to_contain_text("Not [7], nor [1].")
        sources = answer.locator("[role=doc-endnotes]")  # which Playwright does not know by name
        items = sources.locator("li")
        await expect(items).to_have_count(2)
        await expect(items.first).to_contain_text("Valves › Closing valves.md")  # noqa: RUF001
        outward = items.first.get_by_role("link", name="Valves")
        await expect(outward).to_have_attribute("href", "https://docs.example.com/valves.md")
        await expect(items.nth(1).locator("a:not(.back)")).to_have_count(
            0
        )  # javascript: is no link
        address = page.url
        cite = answer.locator("[role=doc-noteref][aria-label^='Source 1: Valves']").first
        await cite.focus()
        await page.keyboard.press("Enter")
        await expect(items.first).to_be_focused()
        await page.keyboard.press("Tab")
        await expect(outward).to_be_focused()
        await page.keyboard.press("Tab")
        await page.keyboard.press("Enter")
        await expect(cite).to_be_focused()
        assert page.url == address
        await page.reload()
    await expect(answer.locator(".sources")).to_be_visible()
    await browser.picture("citations-light")
    await page.emulate_media(color_scheme="dark")
    await browser.picture("citations-dark")


@needs_browser
async def test_the_usage_of_the_key_is_shown_with_its_budget_and_by_feature(
    browser: Browser, app: AppProcess, sql
) -> None:
    page = browser.page
    button = page.get_by_role("button", name="Usage")
    dialog = page.get_by_role("dialog", name="Usage of this key")
    await button.click()
    await expect(dialog).to_contain_text("Nothing was used yet.")
    await expect(dialog).to_contain_text("This key has no budget.")
    await page.keyboard.press("Escape")
    await expect(dialog).to_be_hidden()
    await expect(button).to_be_focused()
    headers = {**app.headers(), "X-Feature": "reports"}
    for _ in range(2):
        body = {"message": "Hi.", "stream": False}
        assert (await app.client.post("/chat", json=body, headers=headers)).status_code == 200
    await browser.say("Hello.")
    await expect(page.locator(".message .usage")).to_be_visible()
    await asyncio.to_thread(app.run, "keys", "limit", "test", "budget_soft=40", "budget_hard=60")
    await asyncio.sleep(5.1)  # processes follow within that
    await button.press("Enter")
    await expect(dialog.locator("tbody tr")).to_have_count(2)
    await expect(dialog.get_by_role("row", name="reports")).to_contain_text("30")
    await expect(dialog.get_by_role("row", name="chat")).to_contain_text("15")
    meter = dialog.get_by_role("meter", name="Budget 45 of 60 tokens, 75 %")
    await expect(meter).to_be_visible()
    await expect(dialog).to_contain_text("Beyond the soft budget of 40 tokens.")
    await expect(page.get_by_role("button", name="Close")).to_be_focused()
    await browser.picture("usage-light")
    await page.emulate_media(color_scheme="dark")
    await browser.picture("usage-dark")
    await page.set_viewport_size({"width": 320, "height": 640})
    assert await page.evaluate("document.documentElement.scrollWidth") == 320
    await browser.picture("usage-narrow")
    await page.get_by_role("button", name="Close").click()
    await expect(dialog).to_be_hidden()


@pytest.mark.parametrize("how", ["button", "Escape"])
@needs_browser
async def test_stop_ends_the_answer_and_it_can_go_on(
    browser: Browser, engine: ScriptedEngine, sql, how: str
) -> None:
    page = browser.page
    engine.queue = [[chunk({"content": "Once upon"}), Hold()], say("Once upon a time.")]
    await browser.say("Tell a story.")
    await expect(page.locator(".message.assistant")).to_contain_text("Once upon")
    if how == "button":
        await page.get_by_role("button", name="Stop").click()
    else:
        await page.keyboard.press("Escape")
    await expect(page.locator("#notice")).to_contain_text("Stopped.")
    await engine.idle(3)
    async with asyncio.timeout(5):
        while sql.execute("SELECT status FROM app.runs").fetchone() != ("interrupted",):
            await asyncio.sleep(0.05)
    await expect(page.get_by_label("Message", exact=True)).to_be_focused()
    await page.get_by_role("button", name="Go on").click()
    await expect(page.locator(".message.assistant .text")).to_have_text("Once upon a time.")
    await expect(page.locator(".message")).to_have_count(2)


@needs_browser
async def test_an_answer_under_way_in_another_tab_is_shown_and_can_be_stopped(
    browser: Browser, app: AppProcess, engine: ScriptedEngine
) -> None:
    page = browser.page
    engine.queue = [[chunk({"content": "One"}), Hold()], say("One, two.")]
    async with app.streaming({"message": "Count."}) as (heard, events):
        await anext(events)
        await page.goto(f"{app.url}/#{heard.thread_id}")
        await expect(page.locator(".message.user")).to_have_text("Count.")
        await page.get_by_role("button", name="Stop it").click()
        assert [name async for name in events][-1] == "error"
    await page.get_by_role("button", name="Go on").click()
    await expect(page.locator(".message.assistant .text")).to_have_text("One, two.")


@needs_browser
async def test_hostile_output_of_the_model_stays_text(
    browser: Browser, engine: ScriptedEngine
) -> None:
    page = browser.page
    engine.queue = [say(*HOSTILE)]
    await browser.say("<b>Attack.</b>")
    answer = page.locator(".message.assistant")
    await expect(answer.locator("li")).to_have_text(["one", "two"])
    await expect(answer).to_contain_text(HOSTILE[0].strip())
    await expect(answer).to_contain_text(HOSTILE[1].strip())
    await expect(answer).to_contain_text("<i id=x>tail</i>")
    await expect(page.locator(".message.user")).to_have_text("<b>Attack.</b>")
    await expect(answer.locator("a")).to_have_count(1)
    link = answer.locator("a")
    await expect(link).to_have_attribute("href", "https://example.com/a?b=1")
    await expect(link).to_have_attribute("rel", re.compile("noopener"))
    await page.reload()
    await expect(answer).to_contain_text(HOSTILE[0].strip())
    assert await page.locator("#chat img, #chat script, #chat b:not(summary b)").count() == 0
    assert await page.title() == "Rackhand"


@needs_browser
async def test_text_that_the_engine_withdrew_goes_from_the_page(
    browser: Browser, engine: ScriptedEngine
) -> None:
    engine.queue = [[chunk({"content": "Wrong words"}), ABORT], say("Right words")]
    await browser.say("Go.")
    await expect(browser.page.locator(".message.assistant .text")).to_have_text("Right words")


@needs_browser
async def test_shift_enter_begins_a_line_and_a_narrow_page_does_not_scroll_sideways(
    browser: Browser, engine: ScriptedEngine
) -> None:
    page = browser.page
    box = page.get_by_label("Message", exact=True)
    await box.press_sequentially("one")
    await page.keyboard.press("Shift+Enter")
    await box.press_sequentially("two")
    engine.queue = [call_tool("slots"), say("`" + "x" * 200 + "`\n```\n" + "long " * 60 + "\n```")]
    await page.keyboard.press("Enter")
    await expect(page.locator(".message.user")).to_have_text("one\ntwo")
    await expect(page.locator(".usage")).to_be_visible()
    for width in (390, 320):
        await page.set_viewport_size({"width": width, "height": 780})
        assert await page.evaluate("document.documentElement.scrollWidth") == width
        await browser.picture(f"narrow-{width}")
    await page.get_by_role("button", name="Conversations").click()
    await expect(page.get_by_role("link", name="one two")).to_be_visible()
    await browser.picture("narrow-list")


@needs_browser
async def test_the_key_is_kept_for_the_tab_only_unless_ticked_and_can_be_forgotten(
    browser: Browser, app: AppProcess
) -> None:
    page = browser.page
    assert await page.evaluate("localStorage.length") == 0
    await page.get_by_role("button", name="Forget the key").click()
    assert await page.evaluate("sessionStorage.length") == 0
    await expect(page.get_by_label("API key")).to_be_focused()
    await page.get_by_label("API key").fill(app.key)
    await page.get_by_label("Remember").check()
    await page.get_by_role("button", name="Continue").click()
    await expect(page.get_by_label("Message", exact=True)).to_be_focused()
    await page.wait_for_function("localStorage.length === 1")


@needs_browser
async def test_a_conversation_is_deleted_when_the_person_says_so(browser: Browser, sql) -> None:
    page = browser.page
    await browser.say("Forget this.")
    await expect(page.locator(".usage")).to_be_visible()
    page.on("dialog", lambda dialog: asyncio.ensure_future(dialog.accept()))
    await page.get_by_role("button", name="Delete").click()
    await expect(page.locator("#thread-list li")).to_have_count(0)
    assert sql.execute("SELECT count(*) FROM app.threads").fetchone() == (0,)


@needs_browser
async def test_a_wrong_key_is_told_and_nothing_else_is_shown(app: AppProcess) -> None:
    async with async_playwright() as playwright:
        chromium = await playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = await chromium.new_page()
        await page.goto(app.url)
        await page.get_by_label("API key").fill("rh_wrong")
        await page.keyboard.press("Enter")
        await expect(page.get_by_role("alert")).to_contain_text("unknown")
        await expect(page.locator("#chat")).to_be_hidden()
        assert await page.evaluate("sessionStorage.length + localStorage.length") == 0
        await chromium.close()


async def test_the_page_is_served_strictly_and_cached_by_content(app: AppProcess) -> None:
    document = await app.client.get("/")
    policy = document.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'")
    assert "unsafe" not in policy
    assert document.headers["cache-control"] == "no-cache"
    assert not re.search(r"<style|\sstyle=|\son\w+=|<script(?![^>]*\ssrc=)", document.text)
    loaded = re.findall(r'(?:href|src)="(/[^"]+)"', document.text)
    assert [path.split("?")[0] for path in loaded] == ["/app.css", "/app.js"]
    script = (await app.client.get(loaded[1])).text
    imports = re.findall(r'from "\.(/page/[^"]+)"', script)
    assert imports
    assert all(path.endswith(loaded[1].split("?")[1]) for path in imports)
    for path in (*loaded, *imports):
        asset = await app.client.get(path)
        assert "immutable" in asset.headers["cache-control"]
        bare = await app.client.get(path.split("?")[0])
        assert bare.headers["cache-control"] == "no-cache"
        tag = {"If-None-Match": bare.headers["etag"]}
        assert (await app.client.get(path, headers=tag)).status_code == 304
        assert "innerHTML" not in asset.text
    assert (await app.client.get("/page/none.js")).status_code == 404


@needs_browser
async def test_a_message_that_waits_for_an_engine_says_its_position(
    prepared: AppProcess, configuration: dict[str, Any], engine: ScriptedEngine
) -> None:
    configuration["models"]["demo"]["concurrency"] = 1
    narrow = AppProcess(prepared.folder, configuration)
    narrow.key = prepared.key
    await narrow.start()
    hold = Hold()
    engine.queue = [[hold, *say("first")], say("second")]
    first = asyncio.create_task(narrow.chat("Me first."))
    await hold.reached.wait()
    async with signed_in(narrow) as browser:
        await browser.say("And me?")
        answer = browser.page.locator(".message.assistant")
        await expect(answer.locator(".waiting")).to_have_text("Waiting, position 1")
        await browser.picture("queued")
        hold.release.set()
        await expect(answer).to_contain_text("second")
        await expect(answer.locator(".waiting")).to_be_hidden()
    assert (await first).text() == "first"
    await narrow.end()
    await narrow.client.aclose()

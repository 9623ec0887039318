"""The page in a real browser: the machine's Chromium, driven over its own protocol."""

import asyncio
import os
import re
import shutil
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

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
        await self.page.get_by_label("Message", exact=True).fill(message)
        await self.page.keyboard.press("Enter")


@pytest.fixture
async def browser(app: AppProcess) -> AsyncIterator[Browser]:
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
    for path in loaded:
        asset = await app.client.get(path)
        assert "immutable" in asset.headers["cache-control"]
        bare = await app.client.get(path.split("?")[0])
        assert bare.headers["cache-control"] == "no-cache"
        tag = {"If-None-Match": bare.headers["etag"]}
        assert (await app.client.get(path, headers=tag)).status_code == 304
        assert "innerHTML" not in asset.text

"""The page in a real browser: a call waits for a person, who approves or denies it there."""

import asyncio
import re
from pathlib import Path
from typing import Any

import pytest
from mcp_shop import Shop
from playwright.async_api import expect
from scripted_engine import ScriptedEngine, call_tools, chunk, say
from test_page import Browser, browser, needs_browser

__all__ = ["browser"]

REFUND = ("shop__refund", {"order": 7, "amount": 20})
GROUP = "Your approval is needed to run shop__refund"


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return Shop(tmp_path / "shop")


@pytest.fixture
def configuration(configuration: dict[str, Any], shop: Shop) -> dict[str, Any]:
    configuration["tools"] = {"mcp": {"shop": shop.settings(approval=["refund"])}}
    return configuration


@needs_browser
async def test_a_person_approves_a_call_with_the_keyboard_alone(
    browser: Browser, engine: ScriptedEngine, shop: Shop
) -> None:
    page = browser.page
    engine.queue = [
        [chunk({"content": "I will give the money back."}), *call_tools(REFUND)],
        say("The money is on its way."),
    ]
    await browser.say("Refund order 7.")
    box = page.get_by_role("group", name=GROUP)
    await expect(box).to_be_focused()
    await expect(box.locator("pre")).to_have_text('{"order": 7, "amount": 20}')
    await expect(page.locator("#spoken")).to_contain_text(GROUP)
    await expect(page.locator("#notice")).to_contain_text("waits for your decision")
    assert shop.effects() == []
    await browser.picture("approval-light")
    await page.emulate_media(color_scheme="dark")
    await browser.picture("approval-dark")
    await page.set_viewport_size({"width": 320, "height": 780})
    assert await page.evaluate("document.documentElement.scrollWidth") == 320
    await browser.picture("approval-narrow")
    for _ in range(3):  # arguments, note, Approve
        await page.keyboard.press("Tab")
    await expect(box.get_by_role("button", name="Approve")).to_be_focused()
    await page.keyboard.press("Enter")
    answer = page.locator(".message.assistant")
    await expect(answer).to_contain_text("The money is on its way.")
    await expect(answer.locator("details.tool")).to_contain_text("done")
    await expect(page.locator(".approval")).to_have_count(0)
    await expect(answer).to_contain_text("I will give the money back.")
    assert shop.effects() == ["refund 7 20"]


@needs_browser
async def test_what_waits_is_there_after_a_reload_and_a_denial_is_told(
    browser: Browser, engine: ScriptedEngine, shop: Shop
) -> None:
    page = browser.page
    engine.queue = [call_tools(REFUND), say("Then not.")]
    await browser.say("Refund order 7.")
    await expect(page.get_by_role("group", name=GROUP)).to_be_visible()
    await page.reload()
    box = page.get_by_role("group", name=GROUP)
    await expect(box.locator("pre")).to_have_text('{"order": 7, "amount": 20}')
    await box.get_by_label("Note").fill("Not this one.")
    await box.get_by_role("button", name="Deny").click()
    await expect(page.locator(".message.assistant")).to_contain_text("Then not.")
    assert "Not this one." in engine.requests[-1]["messages"][-1]["content"]
    assert shop.effects() == []
    await browser.picture("approval-denied")


@needs_browser
async def test_two_calls_are_decided_one_by_one_and_then_the_answer_goes_on(
    browser: Browser, engine: ScriptedEngine, shop: Shop
) -> None:
    page = browser.page
    engine.queue = [call_tools(REFUND, ("shop__refund", {"order": 8})), say("Half of it.")]
    await browser.say("Refund 7 and 8.")
    boxes = page.locator(".approval")
    await expect(boxes).to_have_count(2)
    await boxes.nth(0).get_by_role("button", name="Deny").click()
    await expect(boxes.nth(0)).to_contain_text("You denied this call.")
    assert shop.effects() == []
    await boxes.nth(1).get_by_role("button", name="Approve").click()
    await expect(page.locator(".message.assistant")).to_contain_text("Half of it.")
    assert shop.effects() == ["refund 8 0"]


@needs_browser
async def test_a_new_message_instead_of_a_decision_leaves_the_call_undone(
    browser: Browser, engine: ScriptedEngine, shop: Shop
) -> None:
    page = browser.page
    engine.queue = [call_tools(REFUND), say("As you like.")]
    await browser.say("Refund order 7.")
    await expect(page.locator(".approval")).to_be_visible()
    await browser.say("Never mind.")
    await expect(page.locator(".message.assistant").nth(1)).to_have_text(re.compile("As you like"))
    await expect(page.locator(".approval")).to_contain_text("you went on with something else")
    await expect(page.get_by_role("button", name="Approve")).to_be_hidden()
    assert shop.effects() == []


@needs_browser
async def test_hostile_arguments_are_shown_as_text_with_nothing_hidden(
    browser: Browser, engine: ScriptedEngine, shop: Shop
) -> None:
    page = browser.page
    hostile = {"order": 12345678901234567890, "amount": 1, "x": "<img src=x>\u202eevil\u200b"}
    engine.queue = [call_tools(("shop__refund", hostile))]
    await browser.say("Refund.")
    shown = page.get_by_role("group", name=GROUP).locator("pre")
    await expect(shown).to_contain_text("12345678901234567890")
    await expect(shown).to_contain_text("<img src=x>\\u202eevil\\u200b")
    assert await page.locator("#chat img").count() == 0


@needs_browser
async def test_an_image_the_model_writes_leaks_nothing_to_another_site(
    browser: Browser, engine: ScriptedEngine
) -> None:
    page, visits = browser.page, list[str]()
    elsewhere = await asyncio.start_server(lambda _r, _w: visits.append("!"), "127.0.0.1")
    site = f"http://127.0.0.1:{elsewhere.sockets[0].getsockname()[1]}"
    engine.queue = [say(f"![x]({site}/leak?q=secret) <img src='{site}/l'>")]
    await browser.say("Draw.")
    await expect(page.locator(".usage")).to_be_visible()
    assert await page.locator("#chat img").count() == 0
    # Even a page that was tricked into building the image would not fetch it.
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    await page.evaluate(f"() => {{ new Image().src = '{site}/leak?q=secret' }}")
    await page.wait_for_timeout(500)
    assert any("Content Security Policy" in text for text in said)
    assert visits == []
    browser.complaints.clear()  # that one was ours
    browser.requested = {url for url in browser.requested if not url.startswith(site)}
    elsewhere.close()

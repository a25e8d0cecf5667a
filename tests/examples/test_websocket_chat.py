"""The chat as a person has it: a real browser on a real server, with reloads, lost networks and killed gateways."""

from __future__ import annotations

import asyncio
import secrets
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
from chat_support import Killable, ask, browser, chat, counted, expect, frames_of, page_of, working
from examples.websocket_chat.settings import ChatSettings
from playwright.async_api import Browser, Page
from pytest_asyncio import fixture

from ropeway import QueueChange, connect
from ropeway.client.keyring import KeyRing
from ropeway.domain.clock import SystemClock
from ropeway.domain.ids import system_random
from servers import shared_server

pytestmark = pytest.mark.slow

SLOW = ChatSettings(word_s=0.03)


@fixture
async def chromium() -> AsyncIterator[Browser]:
    async with browser() as opened:
        yield opened


def answer(page: Page, n: int = 0) -> Any:
    """The text of the nth answer."""
    return page.locator(".answer .bubble").nth(n)


def note(page: Page, n: int = 0) -> Any:
    """What is said below the nth answer."""
    return page.locator(".answer .note").nth(n)


async def test_a_question_is_answered_as_it_is_written(chromium: Browser) -> None:
    """Word by word, then with how long it took; the page breaks none of its own rules."""
    async with chat() as served, page_of(chromium, served.url) as page:
        await expect(page.get_by_role("status").first).to_have_text("Connected")
        await expect(page.get_by_role("heading", name="Ask something")).to_be_visible()
        await ask(page, "count to 30")
        await expect(answer(page)).to_contain_text("1 2 3")
        await expect(page.get_by_role("button", name="Stop")).to_be_visible()
        await expect(answer(page)).to_have_text(counted(30))
        await expect(note(page)).to_contain_text("done in")
        await expect(page.get_by_role("button", name="Send")).to_be_visible()
        (job,) = await served.jobs()
        assert job.options.tags == ("chat",)


async def test_the_talk_goes_with_the_question(chromium: Browser) -> None:
    """What was said before is sent along, oldest first."""
    async with chat() as served, page_of(chromium, served.url) as page:
        await ask(page, "count to 1")
        await expect(answer(page)).to_have_text(counted(1))
        await expect(page.get_by_role("button", name="Send")).to_be_visible()
        await ask(page, "hello")
        await expect(answer(page, 1)).to_contain_text("You said: “hello”.")
        latest = (await served.jobs())[0]
        assert '"messages":[{"role":"user","content":"count to 1"},{"role":"assistant"' in latest.input


async def test_a_reload_in_mid_answer_goes_on_where_it_was(chromium: Browser) -> None:
    """Not from the beginning: the page asks for what comes after the last event that it kept. No gap, no repeat."""
    async with chat(SLOW) as served, page_of(chromium, served.url) as page:
        await ask(page, "count to 150")
        for seen in (20, 60, 100):
            await expect(answer(page)).to_contain_text(f" {seen} ")
            said = frames_of(page)
            await page.reload()
            await expect(answer(page)).to_contain_text(f" {seen + 30} ")
            (resumed,) = [frame for frame in said if frame["type"] == "subscribe"]
            assert resumed["after"], "it began anew"
            assert not [frame for frame in said if frame["type"] == "submit"]
        await expect(answer(page)).to_have_text(counted(150))
        await page.reload()
        await expect(answer(page)).to_have_text(counted(150))
        assert len(await served.jobs()) == 1


async def test_two_tabs_show_the_same_talk(chromium: Browser) -> None:
    """One opened in mid-answer, and a question asked in one that shows in the other."""
    async with chat(SLOW) as served:
        context = await chromium.new_context()
        async with page_of(context, served.url) as one:
            await ask(one, "count to 100")
            await expect(answer(one)).to_contain_text(" 20 ")
            async with page_of(context, one.url) as two:
                await expect(answer(two)).to_contain_text(" 40 ")
                for page in (one, two):
                    await expect(answer(page)).to_have_text(counted(100))
                await expect(two.get_by_role("button", name="Send")).to_be_visible()
                await ask(two, "count to 60")
                for page in (one, two):
                    await expect(answer(page, 1)).to_have_text(counted(60))
        await context.close()
        assert len(await served.jobs()) == 2


@pytest.mark.parametrize("store", ["sqlite", "valkey"])
async def test_a_killed_gateway_is_gone_on_from_at_another(chromium: Browser, store: str, home: Path) -> None:
    """`kill -9` in mid-stream: it goes on at the other gateway, then at the first, started again. Every word, once."""
    file_url = f"sqlite:///{home}/chat.db"
    url = file_url if store == "sqlite" else f"{shared_server().url}/0?prefix=chat-{secrets.token_hex(4)}"
    async with AsyncExitStack() as stack:
        engine = connect(url)
        await engine.open()
        stack.push_async_callback(engine.shut)
        one, two = Killable(url, home), Killable(url, home)
        one.peers, two.peers = (two.url,), (one.url,)
        for gateway in (one, two):
            stack.push_async_callback(gateway.end)
        await asyncio.gather(one.start(), two.start())
        await stack.enter_async_context(working(engine, ChatSettings(word_s=0.05)))
        page = await stack.enter_async_context(page_of(chromium, one.url, quiet=False))
        await ask(page, "count to 300")
        await expect(answer(page)).to_contain_text(" 20 ")
        await one.end(signal.SIGKILL)
        await expect(answer(page)).to_contain_text(" 60 ")
        await one.start()
        await two.end(signal.SIGKILL)
        await expect(answer(page)).to_have_text(counted(300))
        await expect(page.get_by_role("status").first).to_have_text("Connected")


async def test_a_gateway_that_drains_says_so(chromium: Browser, home: Path) -> None:
    """SIGTERM: its page turns to the other at once."""
    url = f"sqlite:///{home}/chat.db"
    async with AsyncExitStack() as stack:
        engine = connect(url)
        await engine.open()
        stack.push_async_callback(engine.shut)
        one, two = Killable(url, home), Killable(url, home)
        one.peers, two.peers = (two.url,), (one.url,)
        for gateway in (one, two):
            stack.push_async_callback(gateway.end)
        await asyncio.gather(one.start(), two.start())
        await stack.enter_async_context(working(engine, ChatSettings(word_s=0.03)))
        page = await stack.enter_async_context(page_of(chromium, one.url, quiet=False))
        await ask(page, "count to 100")
        await expect(answer(page)).to_contain_text(" 20 ")
        await one.end(signal.SIGTERM)
        await expect(answer(page)).to_have_text(counted(100))


async def test_an_answer_is_stopped(chromium: Browser) -> None:
    """By the button or by Escape: what was written stays, the job is cancelled, and it can be asked again."""
    async with chat(SLOW) as served, page_of(chromium, served.url) as page:
        await ask(page, "count to 2000")
        await expect(answer(page)).to_contain_text(" 10 ")
        await page.get_by_role("button", name="Stop").click()
        await expect(note(page)).to_contain_text("Stopped.")
        await expect(answer(page)).to_contain_text("1 2 3")
        (job,) = await served.jobs()
        assert (job.state.value, job.cancel_reason) == ("cancelled", "stopped by its reader")
        await page.get_by_role("button", name="Ask again").click()
        await expect(note(page)).not_to_contain_text("Stopped.")
        await expect(answer(page)).to_contain_text(" 10 ")
        await page.keyboard.press("Escape")
        await expect(note(page)).to_contain_text("Stopped.")
        assert [job.state.value for job in await served.jobs()] == ["cancelled", "cancelled"]


async def test_what_is_sent_without_a_network_goes_when_it_is_back(chromium: Browser) -> None:
    """It says that it is offline, keeps the question, and asks it once."""
    async with chat() as served, page_of(chromium, served.url, quiet=False) as page:
        await expect(page.get_by_role("status").first).to_have_text("Connected")
        await page.context.set_offline(True)
        await expect(page.get_by_role("status").first).to_have_text("You are offline")
        await ask(page, "count to 5")
        await expect(note(page)).to_have_text("Sending…")
        await page.context.set_offline(False)
        await expect(answer(page)).to_have_text(counted(5))
        assert len(await served.jobs()) == 1


async def test_a_failed_try_is_forgotten_by_the_next(chromium: Browser) -> None:
    """What the first attempt wrote goes when the second begins; the answer is the second's alone."""
    async with chat() as served, page_of(chromium, served.url) as page:
        await ask(page, "stumble once")
        await expect(answer(page)).to_have_text("That was a fall. This is try 2, and it begins anew.")
        await expect(note(page)).to_contain_text("done in")
        (job,) = await served.jobs()
        assert job.attempt == 2


async def test_a_failure_is_told_and_can_be_asked_again(chromium: Browser) -> None:
    """In words, with a button."""
    async with chat() as served, page_of(chromium, served.url) as page:
        await ask(page, "please fail")
        await expect(note(page)).to_contain_text("It broke off: it failed, as asked")
        await page.get_by_role("button", name="Ask again").click()
        await expect(note(page)).to_contain_text("It broke off")
        assert [job.state.value for job in await served.jobs()] == ["failed", "failed"]


async def test_a_full_line_is_told_and_waited_for(chromium: Browser) -> None:
    """With a countdown; when there is room it is asked again by itself, and answered once."""
    async with chat(ChatSettings(word_s=0.01, max_queued=1)) as served:
        await served.engine.set_queue([QueueChange("chat", paused=True)])
        async with page_of(chromium, served.url) as one, page_of(chromium, served.url) as two:
            await ask(one, "count to 3")
            await expect(note(one)).to_have_text("In line…")
            await ask(two, "count to 4")
            await expect(note(two)).to_contain_text(
                "Everybody is asking at once, and the line is full. Asking again in"
            )
            await served.engine.set_queue([QueueChange("chat", paused=False)])
            await expect(answer(one)).to_have_text(counted(3))
            await expect(answer(two)).to_have_text(counted(4))
        assert len(await served.jobs()) == 2


async def test_words_are_words(chromium: Browser) -> None:
    """Markup that is asked, or answered, is shown as it is written."""
    async with chat() as served, page_of(chromium, served.url) as page:
        await ask(page, '<img src=x onerror="document.title=1"><script>document.title=2</script>')
        await expect(answer(page)).to_contain_text('You said: “<img src=x onerror="document.title=1"><script>')
        await expect(note(page)).to_contain_text("done in")
        assert await page.locator(".turns img, .turns script").count() == 0
        assert await page.title() == "Chat · Ropeway"


async def test_a_server_with_keys_asks_for_one(chromium: Browser) -> None:
    """The page shows where to put it, keeps it for its tab, and goes on."""
    async with chat() as served:
        _, token = await KeyRing(served.engine, SystemClock(), system_random).create("person", tenant="default")
        async with page_of(chromium, served.url, quiet=False) as page:
            await expect(page.get_by_role("heading", name="This server asks for a key")).to_be_visible()
            await page.get_by_label("Key, as").fill("rw_wrong")
            await page.get_by_role("button", name="Go on").click()
            await expect(page.get_by_role("heading", name="This server asks for a key")).to_be_visible()
            await page.get_by_label("Key, as").fill(token)
            await page.get_by_role("button", name="Go on").click()
            await expect(page.get_by_role("status").first).to_have_text("Connected")
            await ask(page, "count to 3")
            await expect(answer(page)).to_have_text(counted(3))
            await page.reload()
            await expect(page.get_by_role("status").first).to_have_text("Connected")


async def test_chats_are_found_again(chromium: Browser) -> None:
    """By their first words, and by their address; and forgotten when asked."""
    async with chat() as served, page_of(chromium, served.url) as page:
        await ask(page, "count to 2")
        await expect(answer(page)).to_have_text(counted(2))
        first = page.url
        await page.get_by_role("button", name="New chat").click()
        await expect(page.get_by_role("heading", name="Ask something")).to_be_visible()
        await ask(page, "count to 3")
        await expect(answer(page)).to_have_text(counted(3))
        await page.get_by_text("Chats", exact=True).click()
        await page.get_by_role("link", name="count to 2").click()
        await expect(answer(page)).to_have_text(counted(2))
        assert page.url == first
        await page.get_by_text("Chats", exact=True).click()
        await page.get_by_role("button", name="Forget all on this device").click()
        await expect(page.get_by_role("heading", name="Ask something")).to_be_visible()
        await page.reload()
        assert await page.locator(".turns li").count() == 0


@pytest.mark.parametrize("width", [320, 390, 1280])
async def test_it_fits_its_screen(chromium: Browser, width: int) -> None:
    """Nothing is wider than the page, whatever is written; and every control has a name."""
    async with (
        chat() as served,
        page_of(chromium, served.url, viewport={"width": width, "height": 700}) as page,
    ):
        await ask(page, "x" * 300)
        await expect(note(page)).to_contain_text("done in")
        await page.get_by_text("Chats", exact=True).click()
        assert await page.evaluate("document.documentElement.scrollWidth") == width
        box = await page.locator(".sheet").bounding_box()
        assert box is not None
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= width
        for button in await page.get_by_role("button").all():
            assert (await button.inner_text()).strip()


async def test_the_page_is_served_under_a_strict_policy() -> None:
    """Its own scripts and styles and nothing else; sockets to itself and its peers; a host that is none is refused."""
    async with chat() as served, httpx.AsyncClient(base_url=served.url) as http:
        answered = await http.get("/")
        policy = answered.headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'")
        assert "unsafe" not in policy
        assert answered.headers["x-content-type-options"] == "nosniff"
        assert (await http.get("/", headers={"host": "a; script-src *"})).status_code in (400, 403)
        assert (await http.get("/app.js")).headers["content-type"].startswith("text/javascript")
        assert (await http.get("/v1/tasks")).json()["data"][0]["name"] == "chat"
        assert (await http.get("/../settings.py")).status_code == 404

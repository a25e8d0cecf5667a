"""The work: one task, `chat`, which goes on with a conversation. `ropeway worker examples.websocket_chat.tasks:app`."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from typing import Any

from examples.websocket_chat.settings import ECHO, QUEUE, TASK, ChatSettings, settings
from ropeway import App, ChatRequest, Context, Fail, ModelCard, Retry
from ropeway.models import LocalOptions, local, upstream

__all__ = ["app", "build"]

COUNT = re.compile(r"\bcount to (\d{1,4})\b")
RETRY = Retry(max_attempts=5, base_s=0.5, cap_s=8)
TIMEOUT_S = 600.0


def build(own: ChatSettings) -> App:
    """The application for these settings."""
    app = App()
    if own.upstream:
        upstream(app, own.upstream, key=own.key or None, models=[own.model])
    elif own.model != ECHO:
        local(app, chat=own.model, embedding=None, options=LocalOptions(max_tokens=400))
    else:
        _declare_echo(app, own.word_s)
    return app


def _declare_echo(app: App, word_s: float) -> None:
    @app.task(name=TASK, queue=QUEUE, timeout=TIMEOUT_S, retry=RETRY, models=[ModelCard(ECHO, "chat", "examples")])
    async def chat(request: ChatRequest, *, ctx: Context) -> AsyncIterator[str]:
        """Say back what was said, a word at a time: it stands for a model where there is none."""
        said = _last_words(request.messages)
        count = 0
        for word in _reply(said, ctx.attempt):
            yield word
            count += 1
            await asyncio.sleep(word_s)
        ctx.usage(input_tokens=len(said.split()), output_tokens=count)


def _last_words(messages: list[dict[str, Any]]) -> str:
    spoken = [message.get("content") for message in messages if message.get("role") == "user"]
    return str(spoken[-1]).strip() if spoken and isinstance(spoken[-1], str) else ""


def _reply(said: str, attempt: int) -> Iterator[str]:
    """The words of the answer, each with what parts it from the next. Raises what the words ask for."""
    wish = said.lower()
    counted = COUNT.search(wish)
    if counted:
        yield from (f"{n} " for n in range(1, int(counted[1]) + 1))
        yield "and that is all."
        return
    if "stumble" in wish and attempt == 1:
        yield from _words("This is the first try, and it breaks off in the mid")
        raise RuntimeError("stumbled, as asked")
    if "stumble" in wish:
        yield from _words(f"That was a fall. This is try {attempt}, and it begins anew.")
        return
    if "fail" in wish:
        yield from _words("I begin to answer, and then")
        raise Fail("it failed, as asked: trying again would not help")
    yield from _words(
        f"You said: “{said}”. I am an echo and no language model, so that is all I know. "
        "Start me with --model and a real one answers here."
    )


def _words(text: str) -> Iterator[str]:
    yield from re.findall(r"\S+\s*", text)


app = build(settings())

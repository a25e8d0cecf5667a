"""Tasks that serve models: declared with their cards, and refused at declaration when they are none."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

import msgspec
import pytest

from ropeway import App, ChatDelta, ChatRequest, Context, EmbeddingRequest, InputInvalid, ModelCard, given
from ropeway.domain.chat import text_of
from ropeway.domain.errors import InvalidRequest

CHAT = [ModelCard("words", "chat")]
EMBEDDING = [ModelCard("org/mini:l6", "embedding", takes=("dimensions",))]


def test_a_chat_task_announces_its_models() -> None:
    """The card carries them; a native submit checks its request like any other input."""
    app = App()

    @app.task(models=CHAT)
    async def chat(request: ChatRequest, *, ctx: Context) -> AsyncIterator[str | ChatDelta]:
        yield text_of(request.messages[-1])

    assert chat.card.models == (ModelCard("words", "chat"),)
    chat.check(b'{"request": {"model": "words", "messages": [{"role": "user", "content": "hi"}]}}')
    with pytest.raises(InputInvalid, match="temperatur"):
        chat.check(b'{"request": {"model": "words", "messages": [], "temperatur": 1}}')


def test_an_embedding_task_announces_its_models() -> None:
    """It is a function; where the return type is left out, it is taken at its word."""
    app = App()

    @app.task(models=EMBEDDING)
    def embed(request: EmbeddingRequest, *, ctx: Context) -> list[list[float]]:
        return [[1.0] for _ in request.input]

    @app.task(models=[ModelCard("untyped", "embedding")])
    async def other(request: EmbeddingRequest, scale: float = 1.0):  # type: ignore[no-untyped-def]
        return [[scale]]

    assert [card.models[0].id for card in app.cards] == ["org/mini:l6", "untyped"]


def test_blocking_and_mixed_generators_may_chat() -> None:
    """`def` with `yield`, and pieces of one kind only, are chats too; resources are not the caller's to give."""
    app = App()

    @app.resource
    def llm() -> str:
        return "the model"

    @app.task(models=CHAT)
    def blocking(request: ChatRequest, *, ctx: Context, llm: str = given) -> Iterator[ChatDelta]:
        yield ChatDelta(content=llm)

    assert blocking.card.models == tuple(CHAT)


async def no_request(question: str) -> AsyncIterator[str]:
    yield question


async def wrong_request(request: str) -> AsyncIterator[str]:
    yield request


async def wants_more(request: ChatRequest, style: str) -> AsyncIterator[str]:
    yield style


async def no_stream(request: ChatRequest) -> str:
    return ""


async def wrong_piece(request: ChatRequest) -> AsyncIterator[str | int]:
    yield 1


async def embeds_in_pieces(request: EmbeddingRequest) -> AsyncIterator[list[float]]:
    yield [1.0]


def wrong_vectors(request: EmbeddingRequest) -> list[str]:
    return [""]


@pytest.mark.parametrize(
    ("fn", "models", "said"),
    [
        (no_request, CHAT, "takes no `request`"),
        (wrong_request, CHAT, "its `request` is not a ChatRequest"),
        (wants_more, CHAT, "takes 'style', which nobody gives"),
        (no_stream, CHAT, "is no generator"),
        (wrong_piece, CHAT, "yields int"),
        (no_stream, EMBEDDING, "its `request` is not a EmbeddingRequest"),
        (embeds_in_pieces, EMBEDDING, "is a generator"),
        (wrong_vectors, EMBEDDING, r"returns list\[str\]"),
        (no_stream, [*CHAT, *EMBEDDING], "two kinds, chat and embedding"),
        (no_stream, ["words"], r"given as \[ModelCard"),
    ],
)
def test_what_cannot_serve_a_model_is_told_so(fn: Any, models: list[Any], said: str) -> None:
    """The message says what is wrong, and how the function should look."""
    with pytest.raises(TypeError, match=said):
        App().task(models=models)(fn)


def test_an_id_names_one_model() -> None:
    """Two tasks of an application cannot serve the same one, nor can one serve it twice."""
    app = App()

    async def chat(request: ChatRequest) -> AsyncIterator[str]:
        yield ""

    app.task(models=CHAT)(chat)
    with pytest.raises(ValueError, match="'words' is served by 'chat' already"):
        app.task(name="again", models=CHAT)(chat)
    with pytest.raises(ValueError, match="'twice' is served by"):
        app.task(name="twice", models=[ModelCard("twice", "chat"), ModelCard("twice", "chat")])(chat)


@pytest.mark.parametrize(
    ("card", "said"),
    [
        ({"id": "", "kind": "chat"}, "no model id"),
        ({"id": "two words", "kind": "chat"}, "no model id"),
        ({"id": "m", "kind": "image"}, "chat or embedding"),
        ({"id": "m", "kind": "chat", "takes": ("magic",)}, "takes 'magic', which is none of tools"),
    ],
)
def test_a_model_that_cannot_be_is_told_so(card: dict[str, Any], said: str) -> None:
    """A card is checked when it is made."""
    with pytest.raises(InvalidRequest, match=said):
        ModelCard(**card)


def test_what_was_not_said_is_not_written() -> None:
    """A request goes into the job, and to another server, without the fields that it leaves out."""
    request = ChatRequest(model="m", messages=[{"role": "user", "content": "hi"}], temperature=0.5)
    assert msgspec.to_builtins(request) == {
        "model": "m",
        "messages": [{"role": "user", "content": "hi"}],
        "temperature": 0.5,
    }


def test_the_words_of_a_message() -> None:
    """Text is text in either form; what is no text is left out."""
    parts = [{"type": "text", "text": "a"}, {"type": "image_url", "image_url": {}}, {"type": "text", "text": "b"}]
    assert text_of({"role": "user", "content": parts}) == "ab"
    assert text_of({"role": "assistant", "content": None}) == ""

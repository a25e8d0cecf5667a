"""The local models, for real: they need `python -m ropeway.models.fetch` once, which `make test` does."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from test_family import working

from ropeway import App, ChatRequest, Client, Context, JobFailed, ResourceFailed, Worker, connect, given
from ropeway.models import ChatModel, EmbeddingModel, LocalOptions, ModelUnavailable, local
from ropeway.models.llama import LlamaServer, spare_threads
from ropeway.models.minilm import MiniLm
from ropeway.models.store import MODELS, file_of


def _missing() -> str | None:
    try:
        for model, suffix in (("smollm2-135m", ".gguf"), ("minilm-l6", ".onnx")):
            file_of(model, suffix)
    except ModelUnavailable as error:
        return str(error)
    return None


MISSING = _missing()
real = pytest.mark.skipif(MISSING is not None and "CI" not in os.environ, reason=str(MISSING))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def client() -> AsyncIterator[Client]:
    """A worker with both models, opened once for all tests here."""
    app = App()
    local(app, options=LocalOptions(slots=2, context_tokens=512, threads=1))
    async with working(app) as client:
        yield client


pytestmark = pytest.mark.asyncio(loop_scope="module")


def hello(text: str = "Say hello.", **fields: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": text}]
    return {"model": "smollm2-135m", "messages": messages, "temperature": 0, "seed": 1, **fields}


@real
@pytest.mark.slow
async def test_the_chat_model_answers(client: Client) -> None:
    """In pieces, of which its tokens are counted."""
    job = await client.submit("chat", request=hello("What is the capital of France?", max_tokens=64))
    answer = await job.result(120)  # one text, or its pieces when it was cut
    assert len("".join(piece for piece in answer if isinstance(piece, str)).split()) > 2
    deltas = [event async for event in job.events() if event.type == "output.delta"]
    usage = (await job.get()).usage
    assert usage is not None and usage["input_tokens"] > 10
    assert usage["output_tokens"] >= len(deltas) - 1 > 1  # the last may be why it ended


@real
@pytest.mark.slow
async def test_it_keeps_to_a_json_schema(client: Client) -> None:
    """`response_format` is the runtime's own grammar: the answer is always such JSON, whatever it is worth."""
    schema = {"type": "object", "properties": {"mood": {"enum": ["good", "bad"]}}, "required": ["mood"]}
    wanted = {"type": "json_schema", "json_schema": {"name": "mood", "schema": schema}}
    request = hello("I loved this film. Mood?", response_format=wanted, max_tokens=100)
    answer = await (await client.submit("chat", request=request)).result(120)
    assert json.loads(answer)["mood"] in ("good", "bad")


@real
@pytest.mark.slow
async def test_it_tells_how_sure_it_was(client: Client) -> None:
    """Log probabilities go with their tokens."""
    job = await client.submit("chat", request=hello(max_tokens=2, logprobs=True, top_logprobs=2))
    first = (await job.result(120))[0]
    assert (len(first["logprobs"]), len(first["logprobs"][0]["top_logprobs"])) == (1, 2)


@real
@pytest.mark.slow
async def test_more_jobs_than_slots_take_turns(client: Client) -> None:
    """Two run at once, all of them finish; an answer that is cut says so."""
    jobs = [await client.submit("chat", request=hello(f"Count to {n}", max_tokens=4)) for n in range(5)]
    answers = [await job.result(120) for job in jobs]
    assert [answer[-1] for answer in answers] == [{"finish_reason": "length"}] * 5


@real
@pytest.mark.slow
async def test_a_cancel_frees_the_slot(client: Client) -> None:
    """Both slots are taken by long answers and cancelled; the next job runs at once."""
    for _ in range(2):
        job = await client.submit("chat", request=hello("Tell me a very long story.", max_tokens=450))
        async for event in job.events():
            if event.type == "output.delta":
                await job.cancel()
        assert (await job.get()).state == "cancelled"
    assert await (await client.submit("chat", request=hello(max_tokens=3))).result(120)


@real
@pytest.mark.slow
async def test_a_prompt_beyond_the_context_is_the_callers(client: Client) -> None:
    """It is told with the sizes, and not tried again."""
    job = await client.submit("chat", request=hello("x " * 2_000))
    with pytest.raises(JobFailed, match="exceeds the available context size") as failed:
        await job.result(120)
    assert failed.value.error.code == "input_invalid"


@real
@pytest.mark.slow
async def test_embeddings_put_like_beside_like(client: Client) -> None:
    """Vectors of length 1, of which those of one meaning are close; a long list comes in its order."""
    texts = ["a cat sat on a mat", "a kitten lies on a rug", "corporate tax law"]
    job = await client.submit("embed", request={"model": "minilm-l6", "input": texts})
    cat, kitten, tax = await job.result(120)
    assert len(cat) == 384
    assert _dot(cat, cat) == pytest.approx(1.0, abs=1e-3)
    assert _dot(cat, kitten) > 0.5 > 0.2 > _dot(cat, tax)
    many = await client.submit("embed", request={"model": "minilm-l6", "input": [*["filler " * 300] * 40, texts[2]]})
    vectors = await many.result(120)
    assert len(vectors) == 41
    assert _dot(vectors[-1], tax) > 0.97


@real
@pytest.mark.slow
async def test_embeddings_that_the_model_does_not_make_are_refused(client: Client) -> None:
    """Other lengths, and more texts than one request has."""
    for fields, why in (({"input": ["a"], "dimensions": 100}, "384"), ({"input": ["a"] * 2_049}, "2048")):
        job = await client.submit("embed", request={"model": "minilm-l6", **fields})
        with pytest.raises(JobFailed, match=why) as failed:
            await job.result(60)
        assert failed.value.error.code == "input_invalid"


# -- what is missing


async def test_a_missing_model_or_part_names_what_to_type(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The worker does not start, and says the command."""
    monkeypatch.setenv("ROPEWAY_MODELS", str(tmp_path))
    for chat, embedding in (("m", None), (None, "m")):
        app = App()
        local(app, chat=chat, embedding=embedding)
        engine = connect("memory:")
        await engine.open()
        with pytest.raises(ResourceFailed, match=r"python -m ropeway\.models\.fetch"):
            await Worker(app, engine).run()
        await engine.shut()


async def test_a_missing_runtime_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The extra that brings it."""
    for part in ("xllamacpp", "numpy"):
        monkeypatch.setitem(sys.modules, part, None)
    gguf = tmp_path / "model.gguf"
    gguf.write_bytes(b"GGUF")
    with pytest.raises(ModelUnavailable, match=r"pip install 'ropeway\[local\]'"):
        LlamaServer(gguf, slots=1, context_tokens=64)
    with pytest.raises(ModelUnavailable, match=r"pip install 'ropeway\[local\]'"):
        MiniLm(gguf, gguf, 1)


async def test_a_file_that_is_no_model_is_named(tmp_path: Path) -> None:
    """Missing, or something else."""
    with pytest.raises(ModelUnavailable, match="no model file"):
        LlamaServer(tmp_path / "none.gguf", slots=1, context_tokens=64)
    file = tmp_path / "odd.gguf"
    file.write_bytes(b"this is no model" * 100)
    with pytest.raises(ModelUnavailable, match="could not be loaded"):
        await asyncio.to_thread(LlamaServer, file, slots=1, context_tokens=64)


async def test_the_models_tasks_are_those_of_the_openai_routes() -> None:
    """Declared without anything installed or fetched; ids and options are the caller's."""
    app = App()
    family = local(app, chat="mine", embedding=None, name="here", options=LocalOptions(gguf=Path("/m.gguf")))
    assert family.embed is None
    assert family.chat is not None
    assert [(model.id, model.kind) for model in family.chat.card.models] == [("mine", "chat")]
    assert set(MODELS) == {"smollm2-135m", "minilm-l6"}
    assert spare_threads() >= 1
    with pytest.raises(ValueError, match="at least 1"):
        LocalOptions(slots=0)


def _dot(one: list[float], other: list[float]) -> float:
    return sum(a * b for a, b in zip(one, other, strict=True))


@real
@pytest.mark.slow
async def test_tasks_of_ones_own_take_the_same_models() -> None:
    """As resources, which are opened once: one that goes on with a conversation, and one that embeds many texts at
    once, each in its own place however long it is."""
    app = App()
    local(app, options=LocalOptions(slots=1, context_tokens=512, threads=1))

    @app.task
    async def shout(text: str, *, ctx: Context = given, chat_model: ChatModel = given) -> str:
        request = ChatRequest(model="smollm2-135m", messages=[{"role": "user", "content": text}], max_tokens=8)
        async with aclosing(chat_model.chat(request, ctx)) as pieces:
            return "".join([piece async for piece in pieces if isinstance(piece, str)]).upper()

    @app.task
    async def places(texts: list[str], *, embedding_model: EmbeddingModel = given) -> list[int]:
        """Where each text's own vector is among those of all."""
        vectors = await embedding_model.vectors(texts)
        alone = [(await embedding_model.vectors([text]))[0] for text in texts]
        return [max(range(len(texts)), key=lambda n: _product(vectors[n], vector)) for vector in alone]

    async with working(app) as client:
        said = await (await client.submit(shout, "Say hello.")).result(120)
        assert said
        assert said == said.upper()
        subjects = ("wind", "brakes", "tickets", "dogs", "lightning", "soup", "jazz")
        texts = [f"Of {subject}. " * times for times, subject in zip((1, 9, 3, 7, 1, 5, 2), subjects, strict=True)]
        texts += [f"Number {n}." for n in range(30)]  # more than are run at once
        assert (await (await client.submit(places, texts)).result(120))[:7] == list(range(7))


def _product(one: list[float], other: list[float]) -> float:
    return sum(a * b for a, b in zip(one, other, strict=True))

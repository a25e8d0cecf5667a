"""Resources: a model, a pool, a client. Opened once per worker, given to tasks by name."""

from __future__ import annotations

from collections.abc import AsyncIterator

from fundamentals_support import WAIT_S, running

from ropeway import App
from ropeway.runtime import given


class Model:
    """Slow to load, so it is loaded once."""

    loads = 0

    def __init__(self) -> None:
        Model.loads += 1
        self.closed = False

    def answer(self, text: str) -> str:
        return text[::-1]


app = App()
models: list[Model] = []


@app.resource
async def model() -> AsyncIterator[Model]:
    model = Model()
    models.append(model)
    yield model
    model.closed = True


@app.task
async def ask(text: str, *, model: Model = given) -> str:
    return model.answer(text)


async def test_a_resource_is_opened_once_and_closed_at_the_end() -> None:
    """Every job of the worker gets the same one."""
    async with running(app) as client:
        jobs = [await client.submit(ask, text) for text in ("abc", "def")]
        assert [await job.result(timeout=WAIT_S) for job in jobs] == ["cba", "fed"]
        assert not models[0].closed
    assert (Model.loads, models[0].closed) == (1, True)

"""Types: a task's annotations are its schema. What does not fit is refused before it is stored."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import pydantic
import pytest
from fundamentals_support import WAIT_S, running

from ropeway import App, InputInvalid


@dataclass
class Point:
    x: int
    y: int


class Message(pydantic.BaseModel):
    role: Literal["user", "assistant"]
    content: str = pydantic.Field(min_length=1)


app = App()


@app.task
async def area(corner: Point, opposite: Point) -> int:
    return abs(corner.x - opposite.x) * abs(corner.y - opposite.y)


@app.task
async def chat(messages: list[Message], model: str = "small") -> Message:
    return Message(role="assistant", content=f"{model}: {messages[-1].content}")


async def test_arguments_arrive_as_their_types() -> None:
    """Dataclasses, msgspec structs and pydantic models, also nested; results come back as theirs."""
    async with running(app) as client:
        assert await (await client.submit(area, Point(0, 0), Point(3, 4))).result(timeout=WAIT_S) == 12
        answer = await (await client.submit(chat, [Message(role="user", content="hi")])).result(timeout=WAIT_S)
        assert answer == Message(role="assistant", content="small: hi")


async def test_what_does_not_fit_is_refused_with_its_place() -> None:
    """Each fault is a JSON pointer and a reason; nothing was stored."""
    async with running(app) as client:
        with pytest.raises(InputInvalid) as caught:
            await client.submit("area", corner={"x": 1, "y": "one"}, opposite={"x": 1, "y": 2})
        assert caught.value.faults[0].pointer == "/corner/y"
        assert [job async for job in client.find()] == []

"""One job on its way through a child: what the child says of it goes where it would go from a thread."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Protocol

import msgspec

from ropeway.client.transport import Order
from ropeway.client.wire import JobRequest
from ropeway.domain.errors import RopewayError
from ropeway.domain.lease import Assignment, Lease
from ropeway.domain.limit import LimitSignal
from ropeway.domain.output import Made
from ropeway.runtime.artifacts import Artifacts
from ropeway.runtime.attempt import Attempt, Snooze
from ropeway.runtime.coding import encode
from ropeway.runtime.composing.others import Others
from ropeway.runtime.feed import Feed
from ropeway.runtime.mailbox import PostOffice
from ropeway.runtime.process.kin import Ends, Submitted
from ropeway.runtime.process.wire import Answer, Ask, Done, Earlier, Failed, Log, Out, Progress, Up, Used
from ropeway.runtime.progress import PROGRESS_GAP_S
from ropeway.runtime.snoozing import Snoozed
from ropeway.runtime.verdict import Told

__all__ = ["Back", "Call", "Counter", "Listener"]

_decode_request = msgspec.json.Decoder(JobRequest).decode

Back = Callable[[str | BaseException | None], None]
"""Told once, in the loop: the output as JSON, None for what was emitted, or why there is none."""


class Listener(Protocol):
    """A child, as its job sees it."""

    def stop(self, n: int, reason: str) -> None: ...

    def answer(self, answer: Answer) -> None: ...


class Counter:
    """What a worker does for the code in its children, as they ask for it."""

    def __init__(
        self,
        post: PostOffice,
        artifacts: Artifacts,
        earlier: Callable[[Attempt], Awaitable[Made]],
        others: Others,
    ) -> None:
        self._post = post
        self._others = others
        self._artifacts = artifacts
        self._earlier = earlier
        self._answering: set[asyncio.Task[None]] = set()
        self._does: dict[str, Callable[[Call, Any], Awaitable[str]]] = {
            "artifact": self._keep_file,
            "input": self._input,
            "input now": self._input_now,
            "submit": self._submit,
            "ended": self._ended,
            "earlier": self._made,
            "keep": self._keep,
            "limits": self._tell,
        }

    def ask(self, call: Call, ask: Ask) -> None:
        """Answer, sooner or later."""
        task = asyncio.get_running_loop().create_task(self._answer(call, ask))
        self._answering.add(task)
        task.add_done_callback(self._answering.discard)

    async def _answer(self, call: Call, ask: Ask) -> None:
        try:
            answer = Answer(ask.n, await self._does[ask.what](call, msgspec.json.decode(ask.facts)))
        except asyncio.CancelledError:
            answer = Answer(ask.n, None, "cancelled", call.attempt.reason)
        except TimeoutError:
            answer = Answer(ask.n, None, "timeout")
        except RopewayError as error:
            answer = Answer(ask.n, None, error.code, error.detail)
        except Exception as error:
            answer = Answer(ask.n, None, "task_error", f"{type(error).__name__}: {error}")
        if call.child is not None and ask.n:
            call.child.answer(answer)

    async def _keep_file(self, call: Call, facts: dict[str, Any]) -> str:
        assert call.feed is not None
        path, name, content_type = Path(facts["path"]), facts["name"], facts["content_type"]
        file = await self._artifacts.save(call.attempt, call.feed, name, path, content_type)
        return encode(file.record)

    async def _input(self, call: Call, facts: dict[str, Any]) -> str:
        return encode(await self._post.mailbox(call.attempt).take(facts["timeout_s"]))

    async def _input_now(self, call: Call, _facts: None) -> str:
        return encode(await self._post.mailbox(call.attempt).take_now())

    async def _submit(self, call: Call, facts: list[tuple[str, str | None]]) -> str:
        assert call.feed is not None
        orders = [Order(_decode_request(request), None, key) for request, key in facts]
        answers = await self._others.children(call.attempt, call.feed).submit(orders)
        return encode([Submitted.of(answer) for answer in answers])

    async def _ended(self, call: Call, facts: dict[str, Any]) -> str:
        assert call.feed is not None
        try:
            return encode(Ends(await self._others.ended(call.attempt, call.feed, facts["ids"], facts["needs_all"])))
        except Snoozed:
            return encode(Ends(snooze=call.attempt.snooze))

    async def _made(self, call: Call, _facts: None) -> str:
        return encode(Earlier.of(await self._earlier(call.attempt)))

    async def _keep(self, call: Call, facts: dict[str, Any]) -> str:
        assert call.feed is not None
        saved: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        call.feed.keep(facts["type"], facts["data"], lambda kept: None if saved.done() else saved.set_result(kept))
        return encode(await saved)

    async def _tell(self, call: Call, facts: list[Any]) -> str:
        self._post.tell(msgspec.convert(facts, list[LimitSignal]))
        return "null"


class Call:
    """`files` are local copies of those that the input names: id -> path, and the record as JSON.

    `begun` is told when a child takes it, `back` when it is over, each once.
    """

    __slots__ = ("attempt", "back", "begun", "child", "counter", "feed", "files", "n")

    def __init__(
        self,
        attempt: Attempt,
        feed: Feed | None,
        counter: Counter,
        begun: Callable[[], None],
        back: Back,
        files: dict[str, tuple[str, str]] | None = None,
    ) -> None:
        self.attempt = attempt
        self.feed = feed
        self.counter = counter
        self.begun = begun
        self.back = back
        self.files = files
        self.child: Listener | None = None
        self.n = 0

    @property
    def fenceless(self) -> Assignment:
        """What the child is told of the job. The lease's token stays here: only the worker writes."""
        assignment = self.attempt.assignment
        lease = Lease(assignment.lease.job_id, assignment.lease.epoch, "")
        return msgspec.structs.replace(assignment, lease=lease)

    @property
    def is_full(self) -> bool:
        return self.feed is not None and self.feed.full

    def stop(self, reason: str) -> None:
        """Tell its code that it is to stop."""
        if self.child is not None:
            self.child.stop(self.n, reason)

    def hear(self, frame: Up) -> None:
        """What its code tells while it runs."""
        feed = self.feed
        assert feed is not None
        match frame:
            case Out():
                feed.pass_on(frame.piece, frame.text)
            case Progress():
                feed.progress(msgspec.json.decode(frame.data))
                if self.child is not None:
                    asyncio.get_running_loop().call_later(PROGRESS_GAP_S / 2, self.child.answer, Answer(0))
            case Log():
                feed.log(frame.message, frame.level)
            case Used():
                feed.usage(msgspec.json.decode(frame.amounts))
            case Ask():
                self.counter.ask(self, frame)

    def came_back(self, frame: Done | Failed) -> None:
        """Its code has ended."""
        if frame.snooze is not None:
            self.attempt.snooze = Snooze(*frame.snooze)
        self.back(frame.output if isinstance(frame, Done) else Told(frame.verdict))

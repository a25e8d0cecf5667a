"""What a client may ask on a socket: each as the route that does the same, and with the same refusals."""

from __future__ import annotations

import msgspec

from ropeway.client.wire import JobBody
from ropeway.domain.caller import Scope as Right
from ropeway.domain.errors import JobNotFound, PayloadTooLarge, RopewayError
from ropeway.domain.event import START, Cursor
from ropeway.domain.job import Job
from ropeway.engines.inputs import Inputs
from ropeway.serving.admission import body_limit, check_cancel
from ropeway.serving.door import require
from ropeway.serving.problems import Draining
from ropeway.serving.questions import is_job_id
from ropeway.serving.requests import checked_key
from ropeway.serving.submit import Submit as Submits
from ropeway.serving.submit import ahead_of
from ropeway.serving.websocket.frames import (
    PATH,
    Ack,
    Asked,
    Cancel,
    Input,
    Ping,
    Pong,
    Submit,
    Subscribe,
    Types,
    Unsubscribe,
)
from ropeway.serving.websocket.session import Session
from ropeway.serving.websocket.subscription import Subscription

__all__ = ["Commands"]


class Commands:
    """The commands of one socket."""

    def __init__(self, session: Session, submits: Submits) -> None:
        self._session = session
        self._parts = session.parts
        self._caller = session.caller
        self._submits = submits
        self._inputs = Inputs(session.parts.engine)

    async def __call__(self, asked: Asked) -> None:
        """Do it, and say so. Raises what is wrong with it."""
        if isinstance(asked, Ping):
            await self._session.say(Pong(asked.ref))
            return
        if isinstance(asked, Unsubscribe):
            self._session.unfollow(asked.job_id)
            await self._session.say(Ack(asked.ref, job_id=asked.job_id, subscribed=False))
            return
        await self._parts.door.admission.take({"path": PATH}, self._caller)  # each counts as a request
        if isinstance(asked, Submit):
            await self._submit(asked)
        elif isinstance(asked, Subscribe):
            await self._subscribe(asked)
        elif isinstance(asked, Cancel):
            await self._cancel(asked)
        else:
            await self._input(asked)

    async def _submit(self, asked: Submit) -> None:
        self._require(Right.write)
        if self._parts.watches.draining:
            raise Draining
        if self._caller.job_id is not None:
            raise JobNotFound("a browser's token is for its job alone")
        body = bytes(asked.job)
        most = body_limit(self._caller, self._parts.options.max_body_bytes)
        if len(body) > most:
            raise PayloadTooLarge(f"the job is larger than {most} bytes, the most that is read here")
        key = None if asked.idempotency_key is None else checked_key(asked.idempotency_key, "idempotency_key")
        if not asked.subscribe:
            await self._store(asked, body, key)
            return
        self._require(Right.read)
        with self._session.reserve():
            await self._store(asked, body, key)

    async def _store(self, asked: Submit, body: bytes, key: str | None) -> None:
        receipt, cancels = await self._submits.take(self._caller, body, key)
        shown = self._parts.submitted(receipt.job, self._session.base, ahead_of(receipt), cached=receipt.cached)
        replayed = True if receipt.replayed else msgspec.UNSET
        if asked.subscribe:
            shares = (1 + self._session.shares(receipt.job.id) if receipt.cached else 1) if cancels else 0
            await self._follow(asked, receipt.job, shown, asked.types, START, shares=shares, replayed=replayed)
        else:
            await self._session.say(Ack(asked.ref, job=shown, subscribed=False, replayed=replayed))

    async def _subscribe(self, asked: Subscribe) -> None:
        self._require(Right.read)
        job = await self._job(asked.job_id)
        after = asked.cursor
        with self._session.reserve(asked.job_id):
            await self._follow(asked, job, await self._parts.shown(job, self._session.base), asked.types, after)

    async def _cancel(self, asked: Cancel) -> None:
        self._require(Right.cancel)
        job_id = self._own(asked.job_id)
        check_cancel(self._caller, asked.for_all)
        (answer,) = await self._parts.engine.cancel(self._caller.tenant, [job_id], asked.reason, None, asked.for_all)
        if isinstance(answer, RopewayError):
            raise _no_job(job_id)
        await self._session.say(Ack(asked.ref, job=await self._parts.shown(answer, self._session.base)))

    async def _input(self, asked: Input) -> None:
        self._require(Right.write)
        job_id = self._own(asked.job_id)
        await self._inputs.give(self._caller.tenant, job_id, bytes(asked.data).decode(), asked.key)
        await self._session.say(Ack(asked.ref, job_id=job_id))

    async def _follow(
        self,
        asked: Submit | Subscribe,
        job: Job,
        shown: JobBody,
        types: Types,
        after: Cursor,
        *,
        shares: int = 0,
        replayed: bool | msgspec.UnsetType = msgspec.UNSET,
    ) -> None:
        """Say what it was asked for, and then what becomes of it: the ack goes before the first event."""
        session = self._session
        subscription = Subscription(
            self._parts,
            job.tenant,
            job.id,
            ref=asked.ref,
            base=session.base,
            say=session.say_text,
            turns=session.turns,
            after=after,
            types=types,
            shares=shares,
        )
        session.unfollow(job.id)
        is_open = await subscription.open()
        try:
            await session.say(Ack(asked.ref, job=shown, subscribed=is_open, replayed=replayed))
        except BaseException:
            subscription.close()
            raise
        if is_open:
            session.follow(subscription)
        else:
            subscription.close()

    async def _job(self, job_id: str) -> Job:
        return await self._parts.job(self._caller.tenant, self._own(job_id))

    def _own(self, job_id: str) -> str:
        """Raises JobNotFound for what can be no job's id, and for any but the one that a browser's token is for."""
        if not is_job_id(job_id) or self._caller.job_id not in (None, job_id):
            raise _no_job(job_id)
        return job_id

    def _require(self, right: Right) -> None:
        require(self._caller, right)


def _no_job(job_id: str) -> JobNotFound:
    return JobNotFound(f"no job {job_id[:64]}")

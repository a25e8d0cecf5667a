"""A provider that asks to wait: nobody asks it meanwhile, and it costs no attempt."""

from __future__ import annotations

import pytest
from runtime_support import eventually, stage

from ropeway.domain.budget import Budget
from ropeway.domain.job import DEFAULT_TENANT
from ropeway.domain.lifecycle import State
from ropeway.domain.limit import Limit
from ropeway.runtime import App, Context, given

OPENAI = Budget("openai", requests_per_min=60)


@pytest.mark.parametrize("on_loop", [True, False], ids=["async", "blocking"])
async def test_a_throttled_job_waits_and_takes_others_with_it(on_loop: bool) -> None:
    """The job is away for as long as the provider said, with its attempt; the limit is paused for all."""
    app = App()
    calls: list[int] = []

    def call(ctx: Context) -> str:
        calls.append(ctx.attempt)
        if len(calls) == 1:
            ctx.throttled(30, reason="429 of the provider")
        return "answer"

    @app.task(limits=[OPENAI])
    async def ask(*, ctx: Context = given) -> str:
        return call(ctx)

    @app.task(limits=[OPENAI], name="ask_blocking")
    def ask_blocking(*, ctx: Context = given) -> str:
        return call(ctx)

    name = "ask" if on_loop else "ask_blocking"
    async with stage(app) as on:
        await on.work(upkeep=True)
        first = await on.submit(name)
        await on.when(first, lambda job: job.state is State.scheduled, "it is away")
        await eventually(lambda: _paused(on.engine) == ["openai:requests"], "the limit is paused")
        second = await on.submit(name)
        await on.when(second, lambda job: job.parked == "openai:requests", "the other waits")
        assert calls == [1]
        on.clock.advance(s=30)
        await on.engine.tell("upkeep")
        for job_id in (first, second):
            job = await on.ended(job_id)
            assert (job.state, job.attempt, job.output) == (State.succeeded, 1, '"answer"')


def _paused(engine: object) -> list[str]:
    limits = engine._store.limits  # type: ignore[attr-defined]
    return [state.key for state in limits.states() if state.paused_until_ms]


async def test_what_a_provider_says_is_left_is_told() -> None:
    """From its headers, say; the attempt goes on."""
    app = App()

    @app.task(limits=[OPENAI, Limit("gpu", max_running=3)])
    async def ask(*, ctx: Context = given) -> str:
        ctx.limit_told("openai", left=7)
        ctx.limit_told("nobody", left=1)
        with pytest.raises(ValueError, match="at least 0 seconds"):
            ctx.limit_told(pause_s=-1)
        return "answer"

    async with stage(app) as on:
        await on.work()
        assert await on.output("ask") == "answer"
        await eventually(lambda: _level(on.engine) == 7.0, "the bucket is lowered")


def _level(engine: object) -> float | None:
    level: float | None = engine._store.limits.state("openai:requests").level  # type: ignore[attr-defined]
    return level


async def test_jobs_carry_the_limits_of_their_task() -> None:
    """With their keys filled in, from the client's submit on."""
    app = App()

    @app.task(limits=[Limit("user:{input.user}", max_running=1)], cost="tokens")
    async def ask(user: str, max_tokens: int = 9) -> str:
        return user

    from ropeway import Client

    async with stage(app) as on:
        client = Client(on.engine)
        handle = await client.submit(app.tasks["ask"], user="ann")
        (job,) = await on.engine.get(DEFAULT_TENANT, [handle.id])
        assert job is not None
        assert job.options.limits == (Limit("user:ann", max_running=1),)
        assert job.options.cost > 256

"""One partition: its scripts called over its route, repeated while that cannot do harm, and its replies checked."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Callable
from typing import Any

from ropeway.domain.clock import Clock
from ropeway.domain.errors import EngineUnavailable, OutcomeUnknown
from ropeway.engines.redis.link import Arg, Link, LinkDown, Refused
from ropeway.engines.redis.memory import Memory
from ropeway.engines.redis.route import Route, Unsafe
from ropeway.engines.redis.scripts import SCRIPTS, Script

__all__ = ["Partition", "Reply"]

log = logging.getLogger("ropeway.engine")

PATIENCE_S = 2.0  # how long a call looks for a server before it says that there is none
AWAY_S = 0.6  # the same when there has been none for that long: until the next try to connect
RESOLVE_S = 5.0  # how much longer it looks when the reply to what it sent was lost
RESOLVE_LEASE_S = 300.0  # for a lease: while nobody knows what it gave, those jobs run nowhere, and a repeat tells
REACH_S = 5.0  # the same for who asks by hand
AGAIN_S = 0.02  # until the next try with a server that is not ready

_NOT_READY = ("LOADING", "CLUSTERDOWN", "MASTERDOWN", "TRYAGAIN", "BUSY")
_NOT_THE_ONE = ("READONLY", "MOVED", "ASK", "UNBLOCKED")


class Reply:
    """What a script returned: the time on the engine's clock, and its own elements.

    `repeated`: an earlier run's reply was lost, and it may have done what was asked.
    """

    __slots__ = ("now_ms", "repeated", "values")

    def __init__(self, now_ms: int, values: list[Any], repeated: bool = False) -> None:
        self.now_ms = now_ms
        self.values = values
        self.repeated = repeated


class Partition:
    """Calls scripts. `clock` None: the server's own time counts; tests give another.

    `set_back` is called when the server was found to have forgotten acknowledged writes. Its route proves each new link
    with `meet`.
    """

    def __init__(
        self,
        route: Route,
        root: str,
        clock: Clock | None,
        crash: Any = None,
        set_back: Callable[[], None] | None = None,
    ) -> None:
        self.root = root
        self.route = route
        self.memory = Memory()
        self._clock = clock
        self._crash = crash
        self._set_back = set_back
        self._nonces = itertools.count(1)

    async def call(self, name: str, *args: Arg, repeat: bool = True, wait: tuple[int, int] | None = None) -> Reply:
        """Run a script on this partition.

        Args:
            repeat: whether to run it again after a lost reply, since a second run answers as the first did.
            wait: replicas that must have the write before it counts, and how many ms that may take.

        A server that has been away for longer is waited for only until the next try to reach it.

        Raises EngineUnavailable: nothing happened; OutcomeUnknown: it may have.
        """
        loop = asyncio.get_running_loop()
        is_away = self.route.away_for_s > PATIENCE_S
        deadline_s = loop.time() + (min(PATIENCE_S, AWAY_S) if is_away else PATIENCE_S)
        sent = False
        while True:
            try:
                link = self.route.current
                if link is None or not link.is_open:
                    link = await self.route.link(deadline_s)
                reply = await self._run(link, SCRIPTS[name], args, wait)
                reply.repeated = sent
                return reply
            except LinkDown as error:
                if error.sent and not sent:
                    sent = True
                    deadline_s = loop.time() + (RESOLVE_LEASE_S if name == "lease" else RESOLVE_S)
                if sent and not repeat:
                    raise OutcomeUnknown(f"the reply to {name} was lost: {error}") from error
            except _NotNow as error:
                if loop.time() + AGAIN_S > deadline_s:
                    raise _failure(name, str(error), sent) from error
                await asyncio.sleep(AGAIN_S)
            except EngineUnavailable as error:
                if not sent:
                    raise
                raise _failure(name, error.detail, sent) from error

    async def ask(self, command: str, *args: Arg) -> Any:
        """A plain command's answer: for who looks at the store itself. Raises EngineUnavailable."""
        link = await self.route.link(asyncio.get_running_loop().time() + REACH_S)
        try:
            answer = await link.do(command, *args)
        except LinkDown as error:
            raise EngineUnavailable(f"the server was lost while it was looked at: {error}") from error
        if isinstance(answer, Refused):
            raise EngineUnavailable(f"the server refused {command}: {answer}")
        return answer

    async def _run(self, link: Link, script: Script, args: tuple[Arg, ...], wait: tuple[int, int] | None) -> Reply:
        if self._crash is not None:
            self._crash("pre_script", script.name)
        reply = await self._evaluate(link, script, args)
        if self._crash is not None:
            self._crash("post_script", script.name)
        if isinstance(reply, Refused):
            raise self._judge(link, script.name, reply)
        self.memory.heard(link, int(reply[1]))
        if wait is not None:
            await self._replicated(link, *wait)
        return Reply(int(reply[2]), reply[3:])

    async def meet(self, link: Link) -> None:
        """Look, over a new link, whether this is the store that we knew. For the route, before the link is used.

        Raises LinkDown for a server that is not ready, and Unsafe for one that refuses to be written to.
        """
        server: Any = await link.do("INFO", "server")
        run = next((line[7:].strip() for line in str(server).splitlines() if line.startswith("run_id:")), "")
        reply = await self._evaluate(link, SCRIPTS["meet"], self.memory.question(run))
        if isinstance(reply, Refused):
            if str(reply).startswith((*_NOT_READY, *_NOT_THE_ONE)):
                raise LinkDown(f"{link.node}: {reply}", sent=False)
            raise Unsafe(f"{link.node} cannot be written to: {reply}")
        epoch, counted = reply[3:]
        if self.memory.met(link, run, epoch, int(counted), int(reply[1])) and self._set_back is not None:
            self._set_back()

    async def _evaluate(self, link: Link, script: Script, args: tuple[Arg, ...]) -> Any:
        """The script's reply, which is known to be this call's, or the server's refusal."""
        nonce = str(next(self._nonces))
        tail = (1, self.root, nonce, 0 if self._clock is None else self._clock.now_ms(), *args)
        reply = await link.do("EVALSHA", script.sha, *tail)
        if isinstance(reply, Refused) and str(reply).startswith("NOSCRIPT"):
            reply = await link.do("EVAL", script.text, *tail)
        if not isinstance(reply, Refused) and not (isinstance(reply, list) and reply[0] == nonce):
            link.close("a reply came to another call")
            raise LinkDown("a reply came to another call", sent=True)
        return reply

    async def _replicated(self, link: Link, replicas: int, timeout_ms: int) -> None:
        reached = await link.do("WAIT", replicas, timeout_ms, patience_s=timeout_ms / 1000 + 5)
        if isinstance(reached, Refused) or reached < replicas:
            raise OutcomeUnknown(f"it is stored, but {reached} of {replicas} replicas have it so far")

    def _judge(self, link: Link, name: str, refusal: Refused) -> Exception:
        """What the server's own error means for the call."""
        text = str(refusal)
        if text.startswith(_NOT_THE_ONE):
            self.route.lost(link, text)
            return _NotNow(text)
        if text.startswith(_NOT_READY):
            return _NotNow(text)
        if "user_script" in text or "Lua" in text:
            log.error("script %s failed: %s", name, text)
            return OutcomeUnknown(f"script {name} failed: {text}")
        return EngineUnavailable(f"the server refused {name}: {text}")


class _NotNow(Exception):
    """The server did not do it, and may soon."""


def _failure(name: str, reason: str, sent: bool) -> EngineUnavailable:
    if sent:
        return OutcomeUnknown(f"the reply to {name} was lost: {reason}")
    return EngineUnavailable(reason)

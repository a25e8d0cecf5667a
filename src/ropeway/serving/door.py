"""The door: who is it that asks? Found out once for each request, from the key that it carries.

As long as no key was ever made, none is asked for: whoever reaches this gateway may do everything, so it listens to
this machine alone (cli/network.py) and to no stranger's page (guard.py). The first key ends that, for good and on all
gateways: each request needs one from then on, also when all of them have been revoked.

A key comes as `Authorization: Bearer rw_…`, as OpenAI's SDKs send theirs; from a page's WebSocket, which can set no
header, as `Sec-WebSocket-Protocol: ropeway.v1, bearer.<key>`. A pass (passes.py) comes in the same ways, and as
`?token=…`; a key never does: addresses are written into the logs of all that is on the way.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Collection, Mapping
from typing import NamedTuple
from urllib.parse import parse_qs

import msgspec

from ropeway.client.keyring import KeyRing, decode_key, decode_tenant, key_at, tenant_at
from ropeway.domain.caller import EVERYTHING, Caller, Limits
from ropeway.domain.caller import Scope as Right
from ropeway.domain.clock import Clock
from ropeway.domain.errors import Forbidden, RopewayError, Unauthenticated
from ropeway.domain.ids import RandomBytes
from ropeway.domain.keys import KeyRecord, is_secret_of, parse_key
from ropeway.domain.record import Record
from ropeway.engines.records import Records
from ropeway.serving.admission import Admission
from ropeway.serving.keys.passes import PREFIX, Passes
from ropeway.serving.recall import FRESH_S, ROOM, RecordCache
from ropeway.serving.replies import Scope
from ropeway.serving.stays import Stays

__all__ = ["NOBODY", "Door", "challenge", "require"]

_log = logging.getLogger("ropeway.serving")

USE_NOTED_MS = 60_000
_BEARER = b"bearer "
_PROTOCOL_BEARER = "bearer."

NOBODY = Caller(scopes=frozenset())
"""Who asks for what is open to all."""


class _Known(NamedTuple):
    """A key as it was read from its record and its tenant's."""

    record: Record
    tenant: Record | None
    key: KeyRecord
    caller: Caller


class Door:
    """Lets callers in.

    `ring`: the keys. `passes`: for their pages. `admission`: their rates. `stays`: their open connections, to be ended
    with their keys.

    Args:
        tenant: whose the jobs are as long as no key is asked for.
        requires_key: ask for a key even when there is none yet: for an address that others can reach.
    """

    def __init__(
        self, engine: Records, clock: Clock, random: RandomBytes, *, tenant: str, requires_key: bool = False
    ) -> None:
        self._clock = clock
        self._keyless = Caller(tenant, EVERYTHING)
        self.ring = KeyRing(engine, clock, random)
        self._records = RecordCache(engine, clock)
        self._asks = requires_key
        self._looked_at_s: float | None = None
        self._looking = asyncio.Lock()
        self._read: dict[str, _Known] = {}
        self._noting: dict[str, asyncio.Task[None]] = {}
        self.passes = Passes(engine, clock, random)
        self.admission = Admission(engine)
        self.stays = Stays(self._dead)

    def lock(self) -> None:
        """Ask for keys from now on: one was just made here."""
        self._asks = True

    async def admit(self, scope: Scope, headers: Mapping[bytes, bytes]) -> Caller:
        """Who makes this request, or asks for this socket, which is one more of its rate.

        Raises Unauthenticated, RateLimited, EngineUnavailable.
        """
        if not await self._asks_for_keys():
            return self._keyless
        shown = _presented(scope, headers)
        caller = await (self._of_pass(shown) if shown.startswith(PREFIX) else self._of_key(shown))
        await self.admission.take(scope, caller)
        return caller

    def close(self) -> None:
        """Look after nobody any more."""
        self.stays.close()
        for task in self._noting.values():
            task.cancel()

    # -- keys

    async def _asks_for_keys(self) -> bool:
        """Whether there is a key; looked up anew until there is, and never again."""
        if self._asks:
            return True
        if self._is_stale():
            async with self._looking:  # one looks for all who came meanwhile
                if self._is_stale():
                    now_s = self._clock.monotonic_s()
                    self._asks = await self.ring.is_locked() or self._asks
                    self._looked_at_s = now_s
        return self._asks

    def _is_stale(self) -> bool:
        at_s = self._looked_at_s
        return not self._asks and (at_s is None or self._clock.monotonic_s() - at_s >= FRESH_S)

    async def _of_key(self, token: str) -> Caller:
        shown = parse_key(token)
        if shown is None:
            raise Unauthenticated("that is no key of Ropeway: look for a missing or wrong character")
        known = await self._known(shown.id)
        if not is_secret_of(None if known is None else known.key, shown.secret) or known is None:
            raise Unauthenticated("there is no such key here")
        return self._admitted(known)

    async def _of_pass(self, token: str) -> Caller:
        """Who has a pass: what its key may do of what it says, of its one job."""
        claims = await self.passes.read(token)
        known = None if claims.key_id is None else await self._known(claims.key_id)
        if known is None:
            raise Unauthenticated("that token was made without a key, and a key is asked for now")
        caller, key = self._admitted(known), known.key
        over_at_ms = min(at_ms for at_ms in (claims.expires_at_ms, key.expires_at_ms) if at_ms is not None)
        return msgspec.structs.replace(
            caller, job_id=claims.job_id, scopes=key.scopes.intersection(claims.scopes), expires_at_ms=over_at_ms
        )

    async def _known(self, key_id: str) -> _Known | None:
        """The key of this id, read anew when its records are."""
        record = await self._records.get(key_at(key_id))
        if record is None:
            return None
        known = self._read.get(key_id)
        key = known.key if known is not None and known.record is record else decode_key(record)
        tenant = await self._records.get(tenant_at(key.tenant))
        if known is None or known.record is not record or known.tenant is not tenant:
            if len(self._read) >= ROOM:
                self._read.clear()
            known = self._read[key_id] = _Known(record, tenant, key, _caller(key, decode_tenant(tenant).limits))
        return known

    def _admitted(self, known: _Known) -> Caller:
        """Who has this key. Raises Unauthenticated when it is over."""
        key, now = known.key, self._clock.now_ms()
        if key.revoked_at_ms is not None:
            raise Unauthenticated(f"key {key.id} was revoked")
        if not key.is_live(now):
            raise Unauthenticated(f"key {key.id} has expired")
        if now - (key.last_used_at_ms or 0) >= USE_NOTED_MS:
            self._note_use(key.id, now)
        return known.caller

    async def _dead(self, callers: Collection[Caller]) -> list[Caller]:
        """Those of them who would not be let in now."""
        now = self._clock.now_ms()
        ids = sorted({caller.key_id for caller in callers if caller.key_id is not None})
        records = await self._records.look([key_at(key_id) for key_id in ids])
        live = {id_ for id_, record in zip(ids, records, strict=True) if record and decode_key(record).is_live(now)}
        return [
            caller
            for caller in callers
            if caller.key_id not in live or (caller.expires_at_ms is not None and caller.expires_at_ms <= now)
        ]

    def _note_use(self, key_id: str, at_ms: int) -> None:
        """Have it written that the key is in use; nobody waits for that."""
        if key_id not in self._noting:
            task = asyncio.get_running_loop().create_task(self._noted(key_id, at_ms))
            self._noting[key_id] = task
            task.add_done_callback(lambda _: self._noting.pop(key_id, None))

    async def _noted(self, key_id: str, at_ms: int) -> None:
        with contextlib.suppress(RopewayError):  # it is noted the next time
            await self.ring.used(key_id, at_ms)
            await self._records.look([key_at(key_id)])


def require(caller: Caller, right: Right | None) -> None:
    """Raises Forbidden when the caller's key has not this scope. None: there is nothing to ask for."""
    if right is not None and right not in caller.scopes:
        raise Forbidden(f"this needs a key with the scope {right}", scope=right)


def challenge(error: Unauthenticated | Forbidden) -> list[tuple[bytes, bytes]]:
    """What to ask for, as RFC 6750 has it."""
    if isinstance(error, Unauthenticated):
        return [(b"www-authenticate", b'Bearer realm="ropeway"')]
    if error.scope is None:
        return []
    wanted = f'Bearer realm="ropeway", error="insufficient_scope", scope="{error.scope}"'
    return [(b"www-authenticate", wanted.encode())]


def _caller(key: KeyRecord, tenant: Limits) -> Caller:
    return Caller(
        tenant=key.tenant,
        scopes=key.scopes,
        limits=key.limits.within(tenant),
        tenant_limits=tenant,
        key_id=key.id,
        expires_at_ms=key.expires_at_ms,
    )


def _presented(scope: Scope, headers: Mapping[bytes, bytes]) -> str:
    """What the caller shows. Raises Unauthenticated when that is nothing, or nothing that is read here."""
    told = headers.get(b"authorization")
    if told is not None:
        if told[: len(_BEARER)].lower() != _BEARER:
            raise Unauthenticated("the Authorization header is to be `Bearer rw_…`")
        return told[len(_BEARER) :].strip().decode("latin-1")
    for protocol in scope.get("subprotocols", ()):
        if protocol.startswith(_PROTOCOL_BEARER):
            return str(protocol).removeprefix(_PROTOCOL_BEARER)
    query: bytes = scope.get("query_string", b"")
    if b"token=" in query and (tokens := parse_qs(query.decode("latin-1")).get("token")):
        if not tokens[-1].startswith(PREFIX):
            raise Unauthenticated("an address is no place for a key: send it in the Authorization header")
        return tokens[-1]
    raise Unauthenticated("a key is asked for here: send it as `Authorization: Bearer rw_…`")

"""The keys of an engine: made, listed, revoked and rotated; and what tenants may take. For operators.

Keys are records of kind `key`, limits of tenants of kind `tenant`, both without a tenant of their own: who may change
them, may change all of them.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

import msgspec

from ropeway.domain.caller import Limits, Scope
from ropeway.domain.clock import Clock, SystemClock
from ropeway.domain.errors import InvalidRequest, KeyNotFound
from ropeway.domain.ids import RandomBytes, system_random
from ropeway.domain.job import DEFAULT_TENANT, check_name
from ropeway.domain.keys import KEY_ID, KeyRecord, TenantRecord, make_key
from ropeway.domain.record import Put, Record, RecordConflict, RecordKey
from ropeway.engines.records import Records

__all__ = ["ANY_SCOPES", "KeyRing", "decode_key", "decode_tenant", "key_at", "tenant_at"]

ANY_SCOPES = frozenset({Scope.write, Scope.read, Scope.cancel, Scope.files})
"""What a key may do unless it is told otherwise: all that its own jobs need."""

PAGE = 500
NAME_LIMIT = 100

_decode_key = msgspec.json.Decoder(KeyRecord).decode
_decode_tenant = msgspec.json.Decoder(TenantRecord).decode


def key_at(key_id: str) -> RecordKey:
    """Where a key's record is."""
    return RecordKey("key", "", key_id)


def tenant_at(tenant: str) -> RecordKey:
    """Where a tenant's record is."""
    return RecordKey("tenant", "", tenant)


def decode_key(record: Record) -> KeyRecord:
    return _decode_key(record.body)


def decode_tenant(record: Record | None) -> TenantRecord:
    """What holds for a tenant; one that nothing was said of has no limits."""
    return TenantRecord() if record is None else _decode_tenant(record.body)


class KeyRing:
    """The keys of one engine, which must be open."""

    def __init__(self, engine: Records, clock: Clock | None = None, random: RandomBytes = system_random) -> None:
        self._engine = engine
        self._clock = clock or SystemClock()
        self._random = random

    async def create(
        self,
        name: str,
        *,
        tenant: str = DEFAULT_TENANT,
        scopes: frozenset[Scope] = ANY_SCOPES,
        limits: Limits | None = None,
        ttl_s: float | None = None,
    ) -> tuple[KeyRecord, str]:
        """A new key's record, and the key itself, which is told only here.

        `ttl_s`: seconds until it expires; None: never. Raises InvalidRequest.
        """
        now = self._clock.now_ms()
        made = make_key(self._random)
        record = KeyRecord(
            id=made.id,
            tenant=check_name("tenant", tenant),
            name=_checked_name(name),
            digest=made.digest,
            scopes=_checked_scopes(scopes),
            created_at_ms=now,
            limits=limits or Limits(),
            expires_at_ms=None if ttl_s is None else now + round(_checked_s("ttl", ttl_s) * 1000),
        )
        is_new = await self._store(record, expected=0)
        assert is_new, "64 random bits gave an id that there was already"
        return record, made.token

    async def get(self, key_id: str) -> KeyRecord:
        """A key. Raises KeyNotFound."""
        return (await self._held(key_id))[0]

    async def all(self, tenant: str | None = None) -> AsyncIterator[KeyRecord]:
        """The keys of a tenant, or of all tenants; those that open nothing any more too."""
        after: str | None = ""
        while after is not None:
            keys, after = await self.page(after, PAGE)
            for key in keys:
                if tenant in (None, key.tenant):
                    yield key

    async def page(self, after: str, limit: int) -> tuple[list[KeyRecord], str | None]:
        """Keys in the order of their ids, after this one; and what to go on after, None at the end."""
        page = await self._engine.scan("key", "", after, limit)
        return [decode_key(record) for record in page], page[-1].key.id if len(page) == limit else None

    async def is_locked(self) -> bool:
        """Whether a key was ever made here: then each request needs one."""
        return bool(await self._engine.scan("key", "", "", 1))

    async def revoke(self, key_id: str) -> KeyRecord:
        """End a key for good. Harmless when repeated. Raises KeyNotFound."""
        now = self._clock.now_ms()
        return await self._change(
            key_id, lambda key: key if key.revoked_at_ms else msgspec.structs.replace(key, revoked_at_ms=now)
        )

    async def rotate(self, key_id: str, overlap_s: float = 0.0) -> tuple[KeyRecord, str]:
        """A new key like this one, which goes on for `overlap_s` seconds, so that its users can change over.

        Raises KeyNotFound, and InvalidRequest for a key that opens nothing any more.
        """
        now = self._clock.now_ms()
        old = await self.get(key_id)
        if not old.is_live(now):
            raise InvalidRequest(f"key {key_id} is no longer valid: make a new one", param="id")
        _checked_s("overlap", overlap_s, least_s=0)
        left_s = None if old.expires_at_ms is None else (old.expires_at_ms - now) / 1000
        made = await self.create(old.name, tenant=old.tenant, scopes=old.scopes, limits=old.limits, ttl_s=left_s)
        until_ms = now + round(overlap_s * 1000)
        await self._change(key_id, lambda key: msgspec.structs.replace(key, expires_at_ms=_sooner(key, until_ms)))
        return made

    async def used(self, key_id: str, at_ms: int) -> None:
        """Note that a key was used. It does not matter when somebody else changes the record just then."""
        key, version = await self._held(key_id)
        await self._store(msgspec.structs.replace(key, last_used_at_ms=at_ms), expected=version)

    # -- tenants

    async def limits(self, tenant: str) -> Limits:
        """What a tenant's keys may take together."""
        (record,) = await self._engine.fetch([tenant_at(check_name("tenant", tenant))])
        return decode_tenant(record).limits

    async def set_limits(self, tenant: str, limits: Limits) -> None:
        """Say what a tenant's keys may take together, in place of what was said before."""
        body = msgspec.json.encode(TenantRecord(limits)).decode()
        await self._engine.put([Put(tenant_at(check_name("tenant", tenant)), body)])

    async def tenants(self) -> AsyncIterator[tuple[str, Limits]]:
        """The tenants that have limits, with them."""
        after = ""
        while True:
            page = await self._engine.scan("tenant", "", after, PAGE)
            for record in page:
                yield record.key.id, decode_tenant(record).limits
            if len(page) < PAGE:
                return
            after = page[-1].key.id

    # -- records

    async def _held(self, key_id: str) -> tuple[KeyRecord, int]:
        record = None
        if KEY_ID.fullmatch(key_id):
            (record,) = await self._engine.fetch([key_at(key_id)])
        if record is None:
            raise KeyNotFound(f"no key {key_id[:40]}")
        return decode_key(record), record.version

    async def _change(self, key_id: str, changed: Callable[[KeyRecord], KeyRecord]) -> KeyRecord:
        """Write a key's change over whatever it is by then."""
        while True:
            key, version = await self._held(key_id)
            after = changed(key)
            if after == key or await self._store(after, expected=version):
                return after

    async def _store(self, key: KeyRecord, *, expected: int) -> bool:
        put = Put(key_at(key.id), msgspec.json.encode(key).decode(), expected)
        (answer,) = await self._engine.put([put])
        return not isinstance(answer, RecordConflict)


def _sooner(key: KeyRecord, until_ms: int) -> int:
    return until_ms if key.expires_at_ms is None else min(key.expires_at_ms, until_ms)


def _checked_name(name: str) -> str:
    if not (1 <= len(name) <= NAME_LIMIT and name.isprintable()):
        raise InvalidRequest(f"a key's name is 1 to {NAME_LIMIT} printable characters: who uses it", param="name")
    return name


def _checked_scopes(scopes: frozenset[Scope]) -> frozenset[Scope]:
    if not scopes:
        raise InvalidRequest("a key without a scope opens nothing: give it one", param="scopes")
    return scopes


def _checked_s(param: str, value_s: float, least_s: float = 1.0) -> float:
    most_s = 10 * 365 * 86_400
    if not least_s <= value_s <= most_s:  # so written, it refuses NaN too
        raise InvalidRequest(f"{param} is a number of seconds from {least_s:g} to {most_s}", param=param)
    return value_s

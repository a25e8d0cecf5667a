"""The secrets that webhooks' deliveries are signed with: one a tenant, and while it is being changed two.

They are kept as they are, since signing needs them so: whoever reads the store can sign.
"""

from __future__ import annotations

import base64

import msgspec

from ropeway.domain.clock import Clock
from ropeway.domain.errors import EngineUnavailable
from ropeway.domain.ids import RandomBytes
from ropeway.domain.record import Put, Record, RecordKey
from ropeway.engines.records import Records

__all__ = ["HOOK_KIND", "OVERLAP_S", "Secret", "Secrets"]

HOOK_KIND = "hook"
"""The records of webhooks: `secrets`, and `off-<hash>` for each endpoint that asked for no more."""

OVERLAP_S = 86_400.0
SECRET_BYTES = 32  # Standard Webhooks, "Signature scheme": 24 to 64
TRIES = 20

_ID = "secrets"


class Secret(msgspec.Struct, frozen=True):
    """A secret as receivers are given it: `whsec_` and base64. `expires_at_ms`: not signed with from then on."""

    secret: str
    created_at_ms: int
    expires_at_ms: int | None = None


class _Ring(msgspec.Struct, frozen=True):
    secrets: tuple[Secret, ...] = ()


_decode = msgspec.json.Decoder(_Ring).decode


class Secrets:
    """The secrets of all tenants."""

    def __init__(self, records: Records, clock: Clock, random: RandomBytes) -> None:
        self._records = records
        self._clock = clock
        self._random = random

    async def valid(self, tenant: str) -> tuple[Secret, ...]:
        """Those to sign with, the newest first. A tenant that has none is given one."""
        found = await self._found(tenant)
        return self._living(found) or await self._changed(tenant, 0.0, keep=True)

    async def rotate(self, tenant: str, overlap_s: float = OVERLAP_S) -> Secret:
        """A new secret; the ones before are signed with beside it for `overlap_s` seconds more."""
        return (await self._changed(tenant, overlap_s, keep=False))[0]

    async def _changed(self, tenant: str, overlap_s: float, *, keep: bool) -> tuple[Secret, ...]:
        """A new secret in front, unless another has made one meanwhile and that will do (`keep`)."""
        for _ in range(TRIES):
            found = await self._found(tenant)
            living = self._living(found)
            if keep and living:
                return living
            now_ms = self._clock.now_ms()
            ends_at_ms = now_ms + round(overlap_s * 1000)
            olds = tuple(_ending(old, ends_at_ms) for old in living) if overlap_s > 0 else ()
            ring = (Secret(self._made(), now_ms), *olds)
            body = msgspec.json.encode(_Ring(ring)).decode()
            (answer,) = await self._records.put([Put(_key(tenant), body, expected=found.version if found else 0)])
            if isinstance(answer, Record):
                return ring
        raise EngineUnavailable("the secrets of this tenant are being changed by too many at once")

    async def _found(self, tenant: str) -> Record | None:
        return (await self._records.fetch([_key(tenant)]))[0]

    def _living(self, record: Record | None) -> tuple[Secret, ...]:
        if record is None:
            return ()
        now_ms = self._clock.now_ms()
        return tuple(
            one for one in _decode(record.body).secrets if one.expires_at_ms is None or one.expires_at_ms > now_ms
        )

    def _made(self) -> str:
        return f"whsec_{base64.b64encode(self._random(SECRET_BYTES)).decode()}"


def _ending(secret: Secret, at_ms: int) -> Secret:
    known = secret.expires_at_ms
    return msgspec.structs.replace(secret, expires_at_ms=at_ms if known is None else min(known, at_ms))


def _key(tenant: str) -> RecordKey:
    return RecordKey(HOOK_KIND, tenant, _ID)

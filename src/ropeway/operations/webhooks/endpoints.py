"""Endpoints that asked for no more: one that answers 410 is not called again until somebody allows it."""

from __future__ import annotations

import hashlib

import msgspec

from ropeway.domain.clock import Clock
from ropeway.domain.record import Put, RecordKey
from ropeway.engines.records import Records
from ropeway.engines.secrets import HOOK_KIND

__all__ = ["Endpoints", "SilencedEndpoint"]

_PREFIX = "off-"
_PAGE = 100


class SilencedEndpoint(msgspec.Struct, frozen=True):
    """An endpoint that is not called, since when, and at which job's delivery it said so."""

    url: str
    at_ms: int
    job_id: str


_decode = msgspec.json.Decoder(SilencedEndpoint).decode


class Endpoints:
    """The silenced endpoints of all tenants. One tenant's are none of another's, though the URL be the same."""

    def __init__(self, records: Records, clock: Clock) -> None:
        self._records = records
        self._clock = clock

    async def is_silenced(self, tenant: str, url: str) -> bool:
        return (await self._records.fetch([_key(tenant, url)]))[0] is not None

    async def silence(self, tenant: str, url: str, job_id: str) -> None:
        """Call this endpoint no more."""
        body = msgspec.json.encode(SilencedEndpoint(url, self._clock.now_ms(), job_id)).decode()
        await self._records.put([Put(_key(tenant, url), body)])

    async def allow(self, tenant: str, url: str) -> bool:
        """Call it again; whether it was silenced."""
        return (await self._records.drop([_key(tenant, url)]))[0]

    async def silenced(self, tenant: str) -> list[SilencedEndpoint]:
        """All of a tenant's."""
        found: list[SilencedEndpoint] = []
        after = _PREFIX
        while True:
            page = await self._records.scan(HOOK_KIND, tenant, after, _PAGE)
            found += [_decode(record.body) for record in page if record.key.id.startswith(_PREFIX)]
            if len(page) < _PAGE:
                return sorted(found, key=lambda endpoint: endpoint.at_ms)
            after = page[-1].key.id


def _key(tenant: str, url: str) -> RecordKey:
    return RecordKey(HOOK_KIND, tenant, _PREFIX + hashlib.sha256(url.encode()).hexdigest())

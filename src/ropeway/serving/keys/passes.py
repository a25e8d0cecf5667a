"""Passes: signed tokens for a page, good for one job and an hour at the most.

A page must not hold a key, and an EventSource cannot send one: so the program that has the key asks for a pass and
gives that to its page, which may look at the one job (and cancel it, if that was asked for) as `?token=…`, as a bearer,
or as a WebSocket's protocol.

    rwt_<claims>.<signature>     both base64url; HMAC-SHA256

A pass is not stored. It is signed with the secret of its day, which is kept as a record that goes by itself a day
later; and it is good only as long as the key is that it was made with.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac

import msgspec

from ropeway.domain.caller import Scope
from ropeway.domain.clock import Clock
from ropeway.domain.errors import Unauthenticated
from ropeway.domain.ids import RandomBytes
from ropeway.domain.record import Put, Record, RecordConflict, RecordKey
from ropeway.engines.records import Records

__all__ = ["LONGEST_S", "PREFIX", "Claims", "Passes"]

PREFIX = "rwt_"
LONGEST_S = 3600

_DAY_MS = 86_400_000
_SECRET_TTL_MS = _DAY_MS + 2 * LONGEST_S * 1000  # what was signed late in the day is good for an hour of the next
_SECRET_BYTES = 32
_LONGEST_TOKEN = 2_000


class Claims(msgspec.Struct, frozen=True, array_like=True):
    """What a pass says: which job, by which key, what may be done, until when, and the day of its secret."""

    job_id: str
    key_id: str | None
    scopes: tuple[Scope, ...]
    expires_at_ms: int
    day: int


_decode = msgspec.json.Decoder(Claims).decode


class Passes:
    """Makes and reads passes."""

    def __init__(self, engine: Records, clock: Clock, random: RandomBytes) -> None:
        self._engine = engine
        self._clock = clock
        self._random = random
        self._secrets: dict[int, bytes] = {}

    async def make(self, job_id: str, key_id: str | None, scopes: tuple[Scope, ...], ttl_s: float) -> str:
        """A pass for a job, good for `ttl_s` seconds, at most `LONGEST_S`. Raises EngineUnavailable."""
        now = self._clock.now_ms()
        expires_at_ms = now + round(min(ttl_s, LONGEST_S) * 1000)
        claims = Claims(job_id, key_id, scopes, expires_at_ms, now // _DAY_MS)
        text = _encoded(msgspec.json.encode(claims))
        return f"{PREFIX}{text}.{_signature(await self._secret_of_today(), text)}"

    async def read(self, token: str) -> Claims:
        """What a pass says. Raises Unauthenticated for one that is not ours or is over, EngineUnavailable."""
        text, _, signature = token.removeprefix(PREFIX).partition(".")
        claims = _claims(text) if len(token) <= _LONGEST_TOKEN else None
        secret = None if claims is None else await self._secret(claims.day)
        if claims is None or secret is None or not hmac.compare_digest(_signature(secret, text), signature):
            raise Unauthenticated("that token is not one of this gateway's, or it is long over")
        if self._clock.now_ms() >= claims.expires_at_ms:
            raise Unauthenticated("that token is over: ask for a new one")
        return claims

    async def _secret(self, day: int) -> bytes | None:
        """The secret of a day, if something signed with it may still be good."""
        if self._clock.now_ms() // _DAY_MS - day not in (0, 1):
            return None
        if day not in self._secrets:
            (record,) = await self._engine.fetch([_at(day)])
            if record is None:
                return None
            self._remember(day, record)
        return self._secrets[day]

    async def _secret_of_today(self) -> bytes:
        """The secret to sign with: made by whoever needs it first."""
        today = self._clock.now_ms() // _DAY_MS
        known = await self._secret(today)
        if known is not None:
            return known
        made = msgspec.json.encode(self._random(_SECRET_BYTES)).decode()
        (answer,) = await self._engine.put([Put(_at(today), made, 0, _SECRET_TTL_MS)])
        if isinstance(answer, RecordConflict):  # another gateway was first
            assert answer.current is not None, "a record that conflicts is there"
            self._remember(today, answer.current)
        else:
            self._remember(today, answer)
        return self._secrets[today]

    def _remember(self, day: int, record: Record) -> None:
        self._secrets = {other: secret for other, secret in self._secrets.items() if day - other in (0, 1)}
        self._secrets[day] = msgspec.json.decode(record.body, type=bytes)


def _at(day: int) -> RecordKey:
    return RecordKey("signing", "", str(day))


def _signature(secret: bytes, text: str) -> str:
    return _encoded(hmac.digest(secret, f"ropeway pass 1 {text}".encode(), hashlib.sha256))


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _claims(text: str) -> Claims | None:
    """The claims of a pass, which nobody has vouched for yet."""
    try:
        return _decode(base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True))
    except (binascii.Error, ValueError, msgspec.MsgspecError):
        return None

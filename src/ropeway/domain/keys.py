"""API keys: what one looks like, what is kept of it, and whether one that is shown is the one that was given.

    rw_<id: 11>_<secret: 27><checksum: 6>     all base 62: 64, 160 and 32 bits

The id finds the record. Of the secret only its SHA-256 is kept: it is drawn at random from 2^160, so there is nothing
to guess and no need of a slow hash. The checksum (CRC-32 of what is before it, as in GitHub's tokens) tells a typo or a
cut copy from a key without asking the store.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import zlib
from typing import NamedTuple

import msgspec

from ropeway.domain.caller import Limits, Scope
from ropeway.domain.ids import RandomBytes

__all__ = ["KEY_ID", "MASK", "KeyRecord", "NewKey", "TenantRecord", "is_secret_of", "make_key", "masked", "parse_key"]

KEY_ID = re.compile(r"[0-9A-Za-z]{11}")
MASK = "…"

_ID_BYTES, _SECRET_BYTES = 8, 20
_ID_CHARS, _SECRET_CHARS, _SUM_CHARS = 11, 27, 6
_NOBODYS = "0" * 64  # a digest that no secret has
_DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_TOKEN = re.compile(rf"rw_([0-9A-Za-z]{{{_ID_CHARS}}})_([0-9A-Za-z]{{{_SECRET_CHARS}}})([0-9A-Za-z]{{{_SUM_CHARS}}})")
_FOUND = re.compile(r"(rw_[0-9A-Za-z]{1,11}_|rwt_)[0-9A-Za-z._-]+")


class KeyRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is kept of a key. `digest`: the SHA-256 of its secret, in hex. Instants are ms since the epoch.

    A key that was revoked stays, so that it is known who had it; `last_used_at_ms` is true to a minute.
    """

    id: str
    tenant: str
    name: str
    digest: str
    scopes: frozenset[Scope]
    created_at_ms: int
    limits: Limits = Limits()
    expires_at_ms: int | None = None
    revoked_at_ms: int | None = None
    last_used_at_ms: int | None = None

    def is_live(self, now_ms: int) -> bool:
        """Whether it opens anything at this time."""
        return self.revoked_at_ms is None and (self.expires_at_ms is None or now_ms < self.expires_at_ms)


class TenantRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is kept of a tenant: what all its keys together may take."""

    limits: Limits = Limits()


class NewKey(NamedTuple):
    """A key just made. `token` is the key itself: it is shown once, and kept nowhere."""

    id: str
    token: str
    digest: str

    def __repr__(self) -> str:
        return f"NewKey(id={self.id!r})"


class Presented(NamedTuple):
    """A key as a caller shows it, of good form."""

    id: str
    secret: str

    def __repr__(self) -> str:
        return f"Presented(id={self.id!r})"


def make_key(random: RandomBytes) -> NewKey:
    """A key that nobody has yet."""
    key_id = _base62(int.from_bytes(random(_ID_BYTES), "big"), _ID_CHARS)
    secret = _base62(int.from_bytes(random(_SECRET_BYTES), "big"), _SECRET_CHARS)
    start = f"rw_{key_id}_{secret}"
    return NewKey(key_id, start + _checksum(start), _digest(secret))


def parse_key(token: str) -> Presented | None:
    """The parts of a key; None for what is not one, a typo in one included."""
    found = _TOKEN.fullmatch(token)
    if found is None or not hmac.compare_digest(_checksum(token[:-_SUM_CHARS]), found[3]):
        return None
    return Presented(found[1], found[2])


def is_secret_of(record: KeyRecord | None, secret: str) -> bool:
    """Whether the secret is this key's. With no record it takes as long, and says no."""
    is_same = hmac.compare_digest(_digest(secret), _NOBODYS if record is None else record.digest)
    return is_same and record is not None


def masked(text: str) -> str:
    """The text without the secrets of keys and the whole of passes (serving/keys/passes.py); the ids of keys stay."""
    return _FOUND.sub(rf"\1{MASK}", text)


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def _checksum(text: str) -> str:
    return _base62(zlib.crc32(text.encode()), _SUM_CHARS)


def _base62(number: int, width: int) -> str:
    digits = []
    for _ in range(width):
        number, digit = divmod(number, 62)
        digits.append(_DIGITS[digit])
    return "".join(reversed(digits))

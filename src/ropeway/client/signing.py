"""The JSON shapes of the secrets that webhooks are signed with."""

from __future__ import annotations

from typing import Annotated

import msgspec

from ropeway.domain.errors import InvalidRequest
from ropeway.domain.instants import timestamp
from ropeway.domain.keys import MASK
from ropeway.engines.secrets import OVERLAP_S, Secret

__all__ = ["SecretBody", "SecretList", "SecretRotateRequest", "checked_overlap_s", "secret_body"]

LONGEST_OVERLAP_S = 31_536_000  # a year: longer, and it was no rotation


class SecretBody(msgspec.Struct, frozen=True):
    """A secret as webhooks' receivers are given it, `whsec_…`. `expires_at`: until then it signs beside a newer one."""

    secret: str
    created_at: str
    expires_at: str | None = None

    def __repr__(self) -> str:
        return f"SecretBody(secret='{MASK}', created_at={self.created_at!r}, expires_at={self.expires_at!r})"


class SecretList(msgspec.Struct, frozen=True):
    """Those that a tenant's webhooks are signed with now, the newest first."""

    data: list[SecretBody]


class SecretRotateRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """For how many seconds the old secret is to sign beside the new one; 0: it was found out."""

    overlap: Annotated[float, msgspec.Meta(ge=0, le=LONGEST_OVERLAP_S)] = OVERLAP_S


def checked_overlap_s(overlap_s: float) -> float:
    """What a gateway takes, for who needs none. Raises InvalidRequest."""
    if not 0 <= overlap_s <= LONGEST_OVERLAP_S:  # so written, it refuses NaN too
        raise InvalidRequest(f"overlap is a number of seconds from 0 to {LONGEST_OVERLAP_S}", param="overlap")
    return overlap_s


def secret_body(secret: Secret) -> SecretBody:
    """The public form of a secret, for who may sign."""
    ends_at_ms = secret.expires_at_ms
    return SecretBody(
        secret.secret, timestamp(secret.created_at_ms), None if ends_at_ms is None else timestamp(ends_at_ms)
    )

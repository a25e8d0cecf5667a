"""Who made a request: found out once, at the door, and left in its scope for every route."""

from __future__ import annotations

from starlette.requests import Request

from ropeway.domain.caller import Caller
from ropeway.serving.replies import Scope

__all__ = ["CALLER", "caller_of", "tenant_of", "who_asked"]

CALLER = "ropeway.caller"


def caller_of(scope: Scope) -> Caller:
    """The caller whom the door let in."""
    caller: Caller = scope[CALLER]
    return caller


def tenant_of(request: Request) -> str:
    """Whose jobs this request is about."""
    return caller_of(request.scope).tenant


def who_asked(request: Request) -> str:
    """The caller as the audit log names it."""
    key_id = caller_of(request.scope).key_id
    return "somebody without a key, since none was asked for" if key_id is None else f"key {key_id}"

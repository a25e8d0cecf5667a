"""Who made a request: found out once, at the door, and left in its scope for every route."""

from __future__ import annotations

from starlette.requests import Request

from ropeway.domain.caller import Caller
from ropeway.serving.replies import Scope

__all__ = ["CALLER", "caller_of", "tenant_of"]

CALLER = "ropeway.caller"


def caller_of(scope: Scope) -> Caller:
    """The caller whom the door let in."""
    caller: Caller = scope[CALLER]
    return caller


def tenant_of(request: Request) -> str:
    """Whose jobs this request is about."""
    return caller_of(request.scope).tenant

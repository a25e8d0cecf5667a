"""The routes of keys, of tenants' limits and secrets, and of pages' tokens."""

from __future__ import annotations

from ropeway.client.keys import (
    KeyBody,
    KeyLimits,
    KeyList,
    KeyRequest,
    NewKeyBody,
    PassBody,
    PassRequest,
    RotateRequest,
    TenantBody,
    TenantList,
)
from ropeway.client.signing import SecretBody, SecretList, SecretRotateRequest
from ropeway.domain.caller import Scope
from ropeway.serving.route import JSON, Answer, Param, Route

__all__ = ["KEYS_DEFAULT", "KEYS_LIMIT", "KEY_ROUTES"]

KEYS_DEFAULT, KEYS_LIMIT = 100, 500

_KEY_ID = {"type": "string", "pattern": "^[0-9A-Za-z]{11}$"}
_ID = Param("id", "path", _KEY_ID, "The key's id, which is the middle part of the key.")
_TENANT = Param("name", "path", {"type": "string", "pattern": "^[A-Za-z0-9_.-]{1,128}$"}, "The tenant's name.")
_JOB = Param("id", "path", {"type": "string", "pattern": "^[A-Za-z0-9_-]{1,64}$"}, "The job's id.")
_LIMIT = {"type": "integer", "minimum": 1, "maximum": KEYS_LIMIT, "default": KEYS_DEFAULT}

_READ = (400, 408, 413, 415, 503)  # of a body

KEY_ROUTES = (
    Route(
        "POST",
        "/v1/keys",
        "create_key",
        "keys",
        "Make a key. It is shown in this answer and never again. The first one ends the time in which none is asked "
        "for, so it must have the scope `admin`.",
        (Answer(201, "The key.", ((JSON, NewKeyBody),), ("Location",)),),
        (),
        ((JSON, KeyRequest),),
        needs_body=True,
        errors=_READ,
        scope=Scope.admin,
    ),
    Route(
        "GET",
        "/v1/keys",
        "list_keys",
        "keys",
        "List the keys of all tenants by their ids, those that open nothing any more too.",
        (Answer(200, "A page of keys.", ((JSON, KeyList),)),),
        (
            Param("limit", "query", _LIMIT, "Keys on a page."),
            Param("cursor", "query", _KEY_ID, "The `next_cursor` of the page before."),
        ),
        errors=(400, 503),
        scope=Scope.admin,
    ),
    Route(
        "GET",
        "/v1/keys/{id}",
        "get_key",
        "keys",
        "A key.",
        (Answer(200, "The key.", ((JSON, KeyBody),)),),
        (_ID,),
        errors=(404, 503),
        scope=Scope.admin,
    ),
    Route(
        "DELETE",
        "/v1/keys/{id}",
        "revoke_key",
        "keys",
        "End a key. Within a second it opens nothing on any gateway, and what is open with it is closed. It stays on "
        "the list.",
        (Answer(200, "It is revoked.", ((JSON, KeyBody),)),),
        (_ID,),
        errors=(404, 503),
        scope=Scope.admin,
    ),
    Route(
        "POST",
        "/v1/keys/{id}/rotate",
        "rotate_key",
        "keys",
        "Make a new key like this one, which goes on for `overlap` seconds, so that its users can change over.",
        (Answer(201, "The new key.", ((JSON, NewKeyBody),), ("Location",)),),
        (_ID,),
        ((JSON, RotateRequest),),
        errors=(*_READ, 404),
        scope=Scope.admin,
    ),
    Route(
        "GET",
        "/v1/tenants",
        "list_tenants",
        "keys",
        "List the tenants that have limits.",
        (Answer(200, "They and their limits.", ((JSON, TenantList),)),),
        errors=(503,),
        scope=Scope.admin,
    ),
    Route(
        "GET",
        "/v1/tenants/{name}",
        "get_tenant",
        "keys",
        "What all keys of a tenant may take together.",
        (Answer(200, "Its limits.", ((JSON, TenantBody),)),),
        (_TENANT,),
        errors=(400, 503),
        scope=Scope.admin,
    ),
    Route(
        "PUT",
        "/v1/tenants/{name}",
        "set_tenant",
        "keys",
        "Say what all keys of a tenant may take together; what was said before is forgotten.",
        (Answer(200, "Its limits.", ((JSON, TenantBody),)),),
        (_TENANT,),
        ((JSON, KeyLimits),),
        errors=_READ,
        scope=Scope.admin,
    ),
    Route(
        "GET",
        "/v1/tenants/{name}/webhook-secrets",
        "list_webhook_secrets",
        "keys",
        "The secrets that a tenant's webhooks are signed with now, the newest first; one is made if there is none.",
        (Answer(200, "The secrets.", ((JSON, SecretList),)),),
        (_TENANT,),
        errors=(400, 503),
        scope=Scope.admin,
    ),
    Route(
        "POST",
        "/v1/tenants/{name}/webhook-secrets/rotate",
        "rotate_webhook_secret",
        "keys",
        "Make a new secret. Webhooks are signed with the old one too for `overlap` seconds (a day), so that their "
        "receivers can change over.",
        (Answer(201, "The new secret.", ((JSON, SecretBody),)),),
        (_TENANT,),
        ((JSON, SecretRotateRequest),),
        errors=_READ,
        scope=Scope.admin,
    ),
    Route(
        "POST",
        "/v1/jobs/{id}/token",
        "create_token",
        "jobs",
        "A token for a page that is to follow this job: for an hour at the most, and for nothing else. An EventSource "
        "sends it as `?token=…`, a WebSocket as the protocol `bearer.…`.",
        (Answer(201, "The token.", ((JSON, PassBody),)),),
        (_JOB,),
        ((JSON, PassRequest),),
        errors=(*_READ, 404),
        scope=Scope.read,
    ),
)

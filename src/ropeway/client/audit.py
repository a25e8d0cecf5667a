"""Who changed what opens the door: a line in the log `ropeway.audit` for each change, whichever way it was made."""

from __future__ import annotations

import getpass
import logging
import socket

from ropeway.domain.keys import KeyRecord

__all__ = ["key_created", "key_revoked", "key_rotated", "limits_set", "operator", "secret_rotated", "secrets_shown"]

_log = logging.getLogger("ropeway.audit")


def operator() -> str:
    """Who works on an engine without a gateway: there is no key by which to name them."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        user = "somebody"
    return f"{user} at {socket.gethostname()}, on the engine itself"


def key_created(key: KeyRecord, by: str) -> None:
    scopes = ", ".join(sorted(key.scopes))
    _log.info("key %s created for %r of tenant %s with %s, by %s", key.id, key.name, key.tenant, scopes, by)


def key_rotated(key: KeyRecord, old: str, overlap_s: float, by: str) -> None:
    _log.info("key %s created in place of %s, which goes on for %g s, by %s", key.id, old, overlap_s, by)


def key_revoked(key: KeyRecord, by: str) -> None:
    _log.info("key %s revoked, by %s", key.id, by)


def limits_set(tenant: str, by: str) -> None:
    _log.info("limits of tenant %s set, by %s", tenant, by)


def secrets_shown(tenant: str, by: str) -> None:
    _log.info("webhook secrets of tenant %s shown, by %s", tenant, by)


def secret_rotated(tenant: str, overlap_s: float, by: str) -> None:
    _log.info("webhook secret of tenant %s changed, the old one signs for %g s more, by %s", tenant, overlap_s, by)

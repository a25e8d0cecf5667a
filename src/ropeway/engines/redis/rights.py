"""What a user of the server must be allowed, and no more: for the server's own access list."""

from __future__ import annotations

__all__ = ["acl_rules"]

_COMMANDS = (
    "+@hash +@set +@sortedset +@stream +exists +type +del +unlink +rename",  # on the keys of the prefix alone
    "+pexpire +pttl",  # for buckets, and for `ropeway fsck` to look at them
    "+eval +evalsha +time +spublish +ssubscribe +sunsubscribe",
    "+hello +auth +ping +select +info +wait +client|unblock",
    "+config|get",  # to know how often the append-only file is synced; without it class `window` is assumed
    "+cluster|slots",  # in a cluster
    "+scan",  # for `ropeway fsck`
)


def acl_rules(prefix: str = "ropeway") -> str:
    """The rules for `ACL SETUSER name on >password …`, of a user for engines with this prefix alone."""
    return " ".join((f"~{prefix}:*", f"&{prefix}:*", "-@all", *_COMMANDS))

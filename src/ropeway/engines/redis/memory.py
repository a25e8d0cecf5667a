"""What this process knows of a partition's store, by which it sees that the store has forgotten something.

Every reply tells how many writes the store counts, and each new connection asks for its epoch (see lua/meet.lua). A
store that counts less than it has acknowledged to us, or has another epoch, was set back to an older state, or
another took its place: from a backup, after a lost disk, by a failover to a replica that was behind.
"""

from __future__ import annotations

import logging
import secrets

from ropeway.engines.redis.link import Arg, Link

__all__ = ["Memory"]

log = logging.getLogger("ropeway.engine")


class Memory:
    """The newest that was heard of one store. `rollbacks` counts how often it was found to have forgotten writes."""

    def __init__(self) -> None:
        self.epoch = ""
        self.rollbacks = 0
        self._run = ""
        self._writes = 0

    def question(self, run: str) -> tuple[Arg, ...]:
        """What meet.lua is asked over a new connection to a server with this run id."""
        return run, self.epoch, self._run, self._writes, secrets.token_hex(8)

    def met(self, link: Link, run: str, epoch: str, counted: int, writes: int) -> bool:
        """What it answered; whether acknowledged writes are lost."""
        is_older = bool(self.epoch) and (epoch != self.epoch or counted < self._writes)
        if is_older:
            self.rollbacks += 1
            log.critical(
                "acked_data_may_be_lost: %s had acknowledged %d writes and came back with %d: it was set back to an "
                "older state, or another server took its place. The store's epoch is now %s; running jobs start again",
                link.node,
                self._writes,
                counted,
                epoch,
            )
        self.epoch, self._run, self._writes = epoch, run, writes
        return is_older

    def heard(self, link: Link, writes: int) -> None:
        """A reply tells of so many writes. Fewer than before: the link ends, for the next one meets the store anew."""
        if writes < self._writes:
            link.close(f"{link.node} has forgotten writes")
        else:
            self._writes = writes

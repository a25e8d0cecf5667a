"""How often a gateway's process must be told to stop."""

from __future__ import annotations

import asyncio
import os
import signal

from ropeway.cli.serving import _asked_to_stop


async def test_a_supervised_gateway_is_told_to_stop_once_however_often_it_is_told() -> None:
    """A service manager's SIGTERM comes directly and by the supervisor: the drain goes on."""
    with _asked_to_stop(lasting=True) as asked:
        for _ in range(3):
            os.kill(os.getpid(), signal.SIGTERM)
            await asyncio.wait_for(asked.wait(), 20)
            await asyncio.sleep(0)
        assert signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


async def test_one_started_by_hand_can_be_ended_by_a_second_signal() -> None:
    """After the first, the signal is the system's own again."""
    with _asked_to_stop() as asked:
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.wait_for(asked.wait(), 20)
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL

"""The WebSocket: many jobs on one socket.

handshake -> session (one socket) -> subscription (one job followed on it); commands are what a client may say, frames
what either side sends; wire and connection are the protocol below them, in the server's hands.
"""

from __future__ import annotations

__all__: list[str] = []

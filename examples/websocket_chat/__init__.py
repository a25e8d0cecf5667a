"""Chat over one WebSocket: language model tokens through the queue, resumable from any server."""

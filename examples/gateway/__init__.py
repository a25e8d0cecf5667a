"""Requirements A: a streaming AI endpoint, direct or queued by a setting."""

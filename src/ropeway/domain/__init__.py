"""The ground: pure data and rules. No I/O, no asyncio, and no clock but the one it is given."""

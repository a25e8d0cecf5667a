"""The engine in this process's memory: the shortest true statement of the protocol, and the oracle of the tests."""

from ropeway.engines.memory.engine import MemoryEngine

__all__ = ["MemoryEngine"]

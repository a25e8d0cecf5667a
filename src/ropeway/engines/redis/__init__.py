"""The engine on Redis and Valkey: one server, a Sentinel's, or a cluster."""

from ropeway.engines.redis.engine import RedisEngine

__all__ = ["RedisEngine"]

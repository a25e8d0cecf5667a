"""The gateway: an ASGI application over an engine, and a server for it."""

from ropeway.serving.app import Gateway
from ropeway.serving.options import LOOPBACK_HOSTS, MOUNTED, GatewayOptions, hosts_for

__all__ = ["LOOPBACK_HOSTS", "MOUNTED", "Gateway", "GatewayOptions", "hosts_for"]

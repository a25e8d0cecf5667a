"""The client: submit, follow, fetch; the same face on an engine and on a gateway, async and blocking."""

from ropeway.client.client import Client
from ropeway.client.handle import JobHandle
from ropeway.client.problems import GatewayRefused
from ropeway.client.submitter import Call, Submitter, call
from ropeway.client.sync import SyncClient, SyncJobHandle
from ropeway.client.wire import EventBody, JobBody

__all__ = [
    "Call",
    "Client",
    "EventBody",
    "GatewayRefused",
    "JobBody",
    "JobHandle",
    "Submitter",
    "SyncClient",
    "SyncJobHandle",
    "call",
]

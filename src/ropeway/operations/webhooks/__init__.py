"""Webhooks (Standard Webhooks): deliveries signed, sent where they may go, tried again for three days, logged."""

from ropeway.engines.secrets import Secret, Secrets
from ropeway.operations.webhooks.endpoints import Endpoints, SilencedEndpoint
from ropeway.operations.webhooks.sender import Attempted, Sender
from ropeway.operations.webhooks.task import with_deliveries, with_webhooks

__all__ = [
    "Attempted",
    "Endpoints",
    "Secret",
    "Secrets",
    "Sender",
    "SilencedEndpoint",
    "with_deliveries",
    "with_webhooks",
]

"""Keys at a gateway: made and ended, what tenants may take, the secrets of webhooks, and tokens for pages.

`desk` has a method for each route of `routes`; `passes` signs tokens, and the door (`serving.door`) reads them.
"""

from __future__ import annotations

__all__: list[str] = []

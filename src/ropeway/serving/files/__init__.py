"""Files at a gateway: uploads as they come, downloads in ranges.

`desk` has a method for each route of `routes`; `uploads` and `downloads` are what goes over the wire.
"""

from __future__ import annotations

__all__: list[str] = []

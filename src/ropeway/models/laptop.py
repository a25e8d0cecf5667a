"""A ready application: a small chat model and an embedding model, both here. `ropeway up ropeway.models.laptop:app`.

    pip install 'ropeway[local]' && python -m ropeway.models.fetch

135 million parameters answer at once and know little; the same tasks with `upstream(...)` ask a larger model.
"""

from __future__ import annotations

from ropeway.models.inhouse import local
from ropeway.runtime.registry import App

__all__ = ["app"]

app = App()
local(app)

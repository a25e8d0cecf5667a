"""Where files are kept, as commands say it: checked before anything starts, and told when it will surprise somebody."""

from __future__ import annotations

import contextlib
import logging
import tempfile
from collections.abc import Iterator

from ropeway.blobs.connect import connect_blobs, default_blobs
from ropeway.config import Settings

__all__ = ["scratch_store", "tell_store"]

log = logging.getLogger("ropeway.cli")


def tell_store(settings: Settings) -> None:
    """Say what follows from where files are kept. Raises InvalidRequest for a store that there is none of."""
    url = settings.blobs or default_blobs(settings.engine)
    if url is None:
        log.info("files are not kept: set `blobs` (file:PATH or s3://BUCKET) to take uploads and large outputs")
        return
    connect_blobs(url)
    if url.startswith("file:") and settings.engine.partition(":")[0] not in ("sqlite", "memory"):
        log.warning(
            "files are kept in %s of this machine: gateways and workers on other machines must see the same folder; "
            "or give them s3://BUCKET",
            url,
        )


@contextlib.contextmanager
def scratch_store(settings: Settings) -> Iterator[str]:
    """The store of an engine in memory: what the settings name, else a folder that goes when the process does."""
    if settings.blobs is not None:
        yield settings.blobs
        return
    with tempfile.TemporaryDirectory(prefix="ropeway-files-", ignore_cleanup_errors=True) as folder:
        yield f"file:///{folder.lstrip('/')}/files"

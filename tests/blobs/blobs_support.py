"""What the tests of blobs share: a real server of S3's protocol, stores of both kinds, and bytes in pieces."""

from __future__ import annotations

import atexit
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
import uuid
from collections.abc import AsyncIterator
from functools import cache
from pathlib import Path

from ropeway.blobs.base import BlobStore
from ropeway.blobs.connect import connect_blobs
from ropeway.domain.clock import Clock
from servers import HOST, free_port, until

__all__ = ["STORES", "a_store", "gathered", "pieces", "s3_url"]

STORES = ["folder", "s3"]


def a_store(kind: str, folder: Path, clock: Clock | None = None) -> BlobStore:
    """An empty store of this kind."""
    return connect_blobs(f"file:///{folder}/blobs" if kind == "folder" else s3_url(), clock=clock)


async def pieces(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


async def gathered(chunks: AsyncIterator[bytes]) -> bytes:
    return b"".join([chunk async for chunk in chunks])


def s3_url() -> str:
    """A prefix of its own in a bucket that is there."""
    return f"s3://ropeway-tests/{uuid.uuid4().hex}?endpoint={_server()}&region=us-east-1"


@cache
def _server() -> str:
    """The endpoint of a server with that bucket; one for all tests of the process."""
    os.environ.setdefault("AWS_ACCESS_KEY_ID", "tests")
    os.environ.setdefault("AWS_SECRET_ACCESS_KEY", "tests")
    port = free_port()
    command = [sys.executable, "-W", "ignore", "-m", "moto.server", "-H", HOST, "-p", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    atexit.register(process.send_signal, signal.SIGKILL)
    endpoint = f"http://{HOST}:{port}"
    until(lambda: _answers(endpoint), "the S3 server answers", within_s=60)
    urllib.request.urlopen(urllib.request.Request(f"{endpoint}/ropeway-tests", method="PUT")).close()
    return endpoint


def _answers(endpoint: str) -> bool:
    try:
        urllib.request.urlopen(f"{endpoint}/moto-api/", timeout=5).close()
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False
    return True

"""Bytes too large for a job's row: where they are kept, and the files that name them."""

from ropeway.blobs.base import Blob, BlobStat, BlobStore
from ropeway.blobs.files import About, FileLimits, Files

__all__ = ["About", "Blob", "BlobStat", "BlobStore", "FileLimits", "Files"]

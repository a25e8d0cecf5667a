"""Every route of the OpenAPI document is asked what it does not expect, as one tenant, beside another."""

from __future__ import annotations

import asyncio
import base64
import json
import re
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
from door_support import Door, opened

CASES = 3  # of each kind and operation, beside the hundreds that its parameters' limits give: 20 s in all
ENDLESS = ("/v1/events", "/v1/ws")  # a stream without an end, and what is no HTTP
# An administrator may: it found and ended the keys that are in use here, and had queues take no more jobs.
SPARED = ("revoke_key", "rotate_key", "set_tenant", "set_queue")
CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "negative_data_rejection",
    "missing_required_header",
    "unsupported_method",
    "allow_header_conformance",
    "use_after_free",
    "ensure_resource_availability",
    "ignored_auth",
    "object_level_authorization",
)


@pytest.mark.slow
async def test_no_request_breaks_it_or_shows_another_tenants(tmp_path: Path) -> None:
    """No 500, no answer that the document does not describe, none without a key, none after a delete.

    What the document forbids is refused. The other tenant's job is in no answer, and as it was.
    """
    async with opened(tmp_path, max_wait_s=0.2, call_wait_s=0.2) as door:
        own, theirs = await _jobs(door, "acme"), await _jobs(door, "rival")
        record = tmp_path / "answers.ndjson"
        told, code = await _fuzzed(door, tmp_path, record)
        assert code == 0, told[-6_000:]
        answers = _bodies(record)
        assert own[0]["id"] in answers, "else nothing would be proved"
        for word in ("the secret of rival", theirs[0]["id"]):
            assert word not in answers
        assert await _jobs(door, "rival") == theirs
        assert "Traceback" not in door.log.read_text()


async def _fuzzed(door: Door, folder: Path, record: Path) -> tuple[str, int]:
    document = folder / "openapi.json"
    document.write_text(json.dumps(await _document(door)))
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "schemathesis.cli", "run", str(document)),
        *("--url", door.url, "--header", f"Authorization: Bearer {door.keys['acme']}"),
        *("--checks", ",".join(CHECKS), "--max-examples", str(CASES), "--seed", "1", "--continue-on-failure"),
        *(word for path in ENDLESS for word in ("--exclude-path", path)),
        *(word for operation in SPARED for word in ("--exclude-operation-id", operation)),
        *("--report-ndjson-path", str(record), "--output-sanitize", "false", "--generation-database", "none"),
        *("--no-color", "--request-timeout", "30"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        cwd=folder,
    )
    told, _ = await process.communicate()
    return told.decode(), process.returncode or 0


async def _document(door: Door) -> dict[str, Any]:
    """The document as it is once there are keys, without the schemas of streams, whose entries it takes for answers."""
    async with httpx.AsyncClient(base_url=door.url) as http:
        document: dict[str, Any] = (await http.get("/openapi.json")).json()
    document["security"] = [{"key": []}]
    for operations in document["paths"].values():
        for operation in operations.values():
            for answer in operation["responses"].values():
                for media in ("text/event-stream", "application/x-ndjson"):
                    answer.get("content", {}).get(media, {}).pop("schema", None)
    return document


async def _jobs(door: Door, tenant: str) -> list[dict[str, Any]]:
    headers = {"authorization": f"Bearer {door.keys[tenant]}"}
    async with httpx.AsyncClient(base_url=door.url, headers=headers) as http:
        jobs: list[dict[str, Any]] = (await http.get("/v1/jobs")).json()["data"]
    return jobs


def _bodies(record: Path) -> str:
    """All that was answered, one after the other."""
    bodies = re.findall(r'"content":\{"\$base64":"([^"]*)"', record.read_text())
    return b"\n".join(base64.b64decode(body) for body in bodies).decode(errors="replace")

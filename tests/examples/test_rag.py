"""The RAG example without its models: its routes, what it embeds and what not, and whose documents are whose."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from examples.gateway.upstream import Rhythm, simulated
from examples.rag import ingesting
from examples.rag.settings import RagSettings, settings
from rag_support import Models, Rag, document, eventually, rag

from ropeway.client.keyring import KeyRing
from ropeway.domain.caller import Limits, Scope
from ropeway.domain.clock import SystemClock

ROPES = "# Ropes\n\nThe haul rope is made of steel. It weighs eight kilograms.\n\nRopes are tested each year."
TOWERS = "# Towers\n\nTower nine is the tallest of all."


@pytest.fixture(name="models")
async def make_models() -> Models:
    return Models()


@pytest.fixture(name="folder")
def make_folder(tmp_path: Path) -> Path:
    """With two documents, of three passages."""
    document(tmp_path, "ropes.md", ROPES)
    document(tmp_path, "lines/towers.txt", TOWERS)
    return tmp_path


async def test_a_question_is_answered_with_its_sources(folder: Path, models: Models) -> None:
    """A job's id at once; then its state, and when it is done the answer, and the passages that it came from."""
    async with rag(folder, models) as r:
        await r.ingested()
        status = await r.answered("What is the haul rope made of?")
        assert (status["status"], status["kind"], status["model"]) == ("succeeded", "answer", "smollm2-135m")
        best = status["sources"][0]
        assert (best["document"], best["title"], best["given"]) == ("ropes.md", "Ropes", True)
        assert best["text"] == "The haul rope is made of steel. It weighs eight kilograms."
        assert [source["given"] for source in status["sources"][1:]] == [False, False]
        assert status["answer"] == f"Passage: {best['quote']}"
        (request,) = models.asked
        assert request.messages[-1]["content"].endswith("\nQuestion: What is the haul rope made of?")
        assert (request.temperature, request.stop) == (0.0, ["\n"])


async def test_the_quote_is_what_says_most(folder: Path, models: Models) -> None:
    """Of a passage the two sentences nearest to the question, in their own order."""
    document(folder, "long.md", "Cats sleep. Steel ropes hold. Dogs bark. Ropes of steel rust. Birds sing.")
    async with rag(folder, models) as r:
        await r.ingested()
        status = await r.answered("steel ropes rust and hold")
        assert status["sources"][0]["quote"] == "Steel ropes hold. Ropes of steel rust."


async def test_an_answer_is_streamed_as_it_is_written(folder: Path, models: Models) -> None:
    """By Ropeway's own events: how far it is, its words, and the end with all of it."""
    async with rag(folder, models) as r:
        await r.ingested()
        job_id = await r.chat("Which tower is the tallest?")
        async with r.http.stream("GET", f"/v1/jobs/{job_id}/events") as stream:
            text = (await stream.aread()).decode()
        assert stream.headers["content-type"].startswith("text/event-stream")
        deltas = text.count("event: output.delta")
        assert deltas >= 1
        assert '"step":"answer"' in text
        assert "event: job.succeeded" in text
        assert "Tower nine is the tallest of all." in text.split("event: job.succeeded")[1]


async def test_what_the_documents_do_not_speak_of_is_not_answered(folder: Path, models: Models) -> None:
    """The model is not asked: it would make something up."""
    async with rag(folder, models) as r:
        await r.ingested()
        status = await r.answered("Zebras?")
        assert (status["status"], status["answer"]) == ("succeeded", "The documents say nothing about that.")
        assert "model" not in status
        assert models.asked == []


async def test_without_documents_a_question_fails_and_says_why(tmp_path: Path, models: Models) -> None:
    """At once, since trying again would not help."""
    async with rag(tmp_path, models) as r:
        status = await r.answered("What is the haul rope made of?")
        assert (status["status"], status["attempt"]) == ("failed", 1)
        assert status["error"] == {"code": "no_documents", "message": "no documents have been ingested yet"}


async def test_questions_that_wait_share_a_call_of_the_model(folder: Path, models: Models) -> None:
    """Twenty at once: the embedding model is asked once for all of them, though few are answered at once."""
    async with rag(folder, models, worker=False, slots=2) as r:
        async with r.working():
            await r.ingested()
        job_ids = [await r.chat(f"How tall is tower {n}?") for n in range(20)]
        async with r.working():
            for job_id in job_ids:
                assert (await r.ended(job_id))["status"] == "succeeded"
        calls = [call for call in models.embedded if call[0].startswith("How tall")]
        assert list(map(len, calls)) == [20]


# -- ingestion


async def test_ingestion_tells_what_it_did(folder: Path, models: Models) -> None:
    """How far it is, by steps; and what became of the folder."""
    (folder / "documents" / "picture.md").write_bytes(b"\xff\xfe\x00")
    (folder / "documents" / "zero.txt").write_bytes(b"a\0b")
    (folder / "documents" / "tool.py").write_text("no text of ours")
    document(folder, ".git/notes.md", "hidden")
    document(folder, "empty.md", "")
    async with rag(folder, models) as r:
        job_id = await r.ingest()
        ingested = (await r.ended(job_id))["ingested"]
        assert [ingested[name] for name in ("documents", "changed", "unchanged", "passages")] == [3, 3, 0, 3]
        assert ingested["refused"] == [
            {"document": "picture.md", "reason": "it is no text in UTF-8"},
            {"document": "zero.txt", "reason": "it is no text"},
        ]
        async with r.http.stream("GET", f"/v1/jobs/{job_id}/events") as stream:
            text = (await stream.aread()).decode()
        assert '"step":"read"' in text
        assert '"step":"embed","message":"0 of 3 passages"' in text
        assert (await r.status(job_id))["progress"] == {"fraction": 1.0, "step": "store"}


async def test_what_has_not_changed_is_not_embedded_again(folder: Path, models: Models) -> None:
    """Nor is, of a document that has, what stayed in it. One that is gone is forgotten."""
    async with rag(folder, models) as r:
        await r.ingested()
        before = len(models.texts)
        ingested = await r.ingested()
        assert (ingested["unchanged"], ingested["changed"], ingested["removed"]) == (2, 0, 0)
        assert len(models.texts) == before

        document(folder, "ropes.md", ROPES.replace("each year", "each month"))
        (folder / "documents" / "lines" / "towers.txt").unlink()
        ingested = await r.ingested()
        assert (ingested["unchanged"], ingested["changed"], ingested["removed"]) == (0, 1, 1)
        assert [text for text in models.texts[before:] if text.startswith("Ropes: ")] == [
            "Ropes: Ropes are tested each month."
        ] * 2  # the passage, and its only sentence
        status = await r.answered("How often are ropes tested?")
        assert {source["document"] for source in status["sources"]} == {"ropes.md"}
        assert "each year" not in str(status["sources"])


async def test_a_folder_in_it_is_ingested_by_itself(folder: Path, models: Models) -> None:
    """What is elsewhere is neither read nor forgotten."""
    async with rag(folder, models) as r:
        assert (await r.ingested("lines"))["documents"] == 1
        assert (await r.ingested("."))["changed"] == 1
        (folder / "documents" / "lines" / "towers.txt").unlink()
        document(folder, "lines/cabins.md", "Cabins carry ten.")
        ingested = await r.ingested("lines/")
        assert (ingested["documents"], ingested["removed"]) == (1, 1)
        status = await r.answered("What is the haul rope made of?")
        assert status["sources"][0]["document"] == "ropes.md"


@pytest.mark.parametrize("name", ["..", "/etc", "nothing", "ropes.md", "lines/../../x", "a\0b", "x" * 5000])
async def test_no_other_folder_is_read(folder: Path, models: Models, name: str) -> None:
    """Only what lies below the documents."""
    async with rag(folder, models) as r:
        status = await r.ended(await r.ingest(name))
        assert (status["status"], status["error"]["code"]) == ("failed", "folder_unknown")


async def test_links_that_lead_out_are_not_followed(folder: Path, models: Models, tmp_path: Path) -> None:
    """A document is what lies here."""
    (tmp_path / "secret.md").write_text("The password is rope.")
    (folder / "documents" / "link.md").symlink_to(tmp_path / "secret.md")
    async with rag(folder, models) as r:
        assert (await r.ingested())["documents"] == 2


async def test_ingestion_goes_on_where_it_was(tmp_path: Path, models: Models, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its worker goes in the midst of it: the next one embeds what is missing, and nothing twice."""
    monkeypatch.setattr(ingesting, "WAVE_PASSAGES", 4)
    for n in range(10):
        document(tmp_path, f"{n}.md", f"# Number {n}\n\nFirst of {n}.\n\nSecond of {n}.")
    async with rag(tmp_path, models, worker=False, batch=2) as r:
        job_id = await r.ingest()
        async with r.working():
            await eventually(lambda: len(models.embedded) >= 5)
        stored = len(models.embedded)
        async with r.working():
            status = await r.ended(job_id)
        assert status["status"] == "succeeded"
        assert (status["ingested"]["changed"], status["ingested"]["passages"]) == (10, 20)
        assert len(models.embedded) > stored
        again = [text for text in set(models.texts) if models.texts.count(text) > 2]  # a passage, and its sentence
        assert len(again) <= 2 * 2, "more was embedded again than the call that was under way"
        async with r.working():
            assert (await r.ingested())["unchanged"] == 10


# -- who asks


async def test_what_cannot_be_is_refused(folder: Path, models: Models) -> None:
    """As Ropeway refuses: a problem that says what is wrong."""
    async with rag(folder, models) as r:
        for body, status in ((b'{"query": "  "}', 422), (b"{}", 400), (b"x", 400), (b'{"query": "a", "b": 1}', 400)):
            answer = await r.http.post("/chat", content=body)
            assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
        assert (await r.http.post("/chat", json={"query": "x" * 2001})).status_code == 422
        assert (await r.http.post("/chat", content=b"x" * 70_000)).status_code == 413
        assert (await r.http.get("/chat")).status_code == 405
        assert (await r.http.get("/job-status")).status_code == 400
        unknown = await r.http.get("/job-status", params={"job_id": "job_nothing"})
        assert (unknown.status_code, unknown.json()["code"]) == (404, "job_not_found")
        foreign = await r.http.get("/v1/jobs", headers={"host": "evil.test"})
        assert foreign.status_code == (await r.http.get("/job-status", headers={"host": "evil.test"})).status_code


async def test_a_full_line_is_told(folder: Path, models: Models) -> None:
    """503, and when to come again; what was accepted waits."""
    async with rag(folder, models, worker=False, max_queued=2) as r:
        await r.chat("one")
        await r.chat("two")
        refused = await r.http.post("/chat", json={"query": "three"})
        assert (refused.status_code, refused.json()["code"]) == (503, "queue_full")
        assert int(refused.headers["retry-after"]) >= 1


async def test_a_question_that_is_sent_again_is_the_same(folder: Path, models: Models) -> None:
    """By its Idempotency-Key."""
    async with rag(folder, models, worker=False) as r:
        key = {"headers": {"idempotency-key": "q-1"}}
        assert await r.chat("one", **key) == await r.chat("one", **key)


async def test_tenants_are_kept_apart(folder: Path, models: Models) -> None:
    """Once there are keys, each tenant has documents, questions and answers of its own; without one all is closed."""
    async with rag(folder, models) as r:
        acme, bolt, reader = await keys(r)
        assert (await r.http.post("/chat", json={"query": "hello"})).status_code == 401
        assert (await r.http.post("/chat", json={"query": "hello"}, headers=reader)).status_code == 403
        await r.ingested(headers=acme)
        job_id = await r.chat("What is the haul rope made of?", headers=acme)
        assert (await r.ended(job_id, headers=acme))["status"] == "succeeded"
        assert (await r.http.get("/job-status", params={"job_id": job_id}, headers=bolt)).status_code == 404
        status = await r.answered("What is the haul rope made of?", headers=bolt)
        assert status["error"]["code"] == "no_documents"


async def keys(r: Rag) -> list[dict[str, str]]:
    """Headers of two tenants' keys, and of one that may only look."""
    ring = KeyRing(r.engine, SystemClock())
    made = []
    for tenant, scopes in (
        ("acme", {Scope.write, Scope.read}),
        ("bolt", {Scope.write, Scope.read}),
        ("acme", {Scope.read}),
    ):
        _, token = await ring.create(tenant, tenant=tenant, scopes=frozenset(scopes), limits=Limits(), ttl_s=None)
        made.append({"authorization": f"Bearer {token}"})
    return made


async def test_an_upstream_answers_in_the_place_of_the_local_model(folder: Path, models: Models) -> None:
    """Any that is OpenAI-compatible: it is given all passages that were found, numbered, and a rule."""
    async with simulated(Rhythm(words=3, first_s=0, word_s=0)) as (url, provider):
        async with rag(folder, models, upstream=url, model="large") as r:
            await r.ingested()
            status = await r.answered("What is the haul rope made of?")
        assert (status["status"], status["model"], provider.calls) == ("succeeded", "large", 1)
        assert len(status["answer"].split()) == 3
        assert [source["given"] for source in status["sources"]] == [True, True, True]


def test_settings_travel_in_the_environment() -> None:
    """What one process is told, the others read the same."""
    own = RagSettings(store="postgresql://db/rag", upstream="https://api.example.com/v1", found=5, min_score=0.5)
    assert settings(own.environment()) == own
    assert settings({}) == RagSettings()
    assert (own.given, RagSettings().given, RagSettings(told=2).given, RagSettings(told=9).given) == (5, 1, 2, 3)


def test_what_is_not_a_setting_is_told() -> None:
    """A slip of the pen is no setting that is silently ignored."""
    wrong: Any = {"RAG_MODLE": "x"}
    with pytest.raises(ValueError, match="modle"):
        settings(wrong)

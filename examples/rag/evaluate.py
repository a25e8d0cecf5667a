"""`python -m examples.rag.evaluate`: does the right passage come back, how often, and beside plain keyword search.

The questions in questions.jsonl are asked through the queue, as anybody's would be. Each names the one passage that
answers it by words of it. With `--answers` the chat model answers too, and it is counted how often the answer, and the
sentences that are quoted beside it, hold the fact: by its words, so a right answer in other words counts as wrong.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, NamedTuple

import msgspec
import typer

from examples.rag.asking import ask
from examples.rag.documents import Passage
from examples.rag.here import LIMIT_S, Here, Question, here, shipped_passages, shipped_questions
from examples.rag.keywords import Keywords, mixed
from examples.rag.settings import FIND, settings
from ropeway import call
from ropeway.cli.loops import run_loop

__all__ = ["Score", "evaluate", "ranks", "score_of", "table"]

DEPTH = 10  # as deep as is looked for MRR


class Score(NamedTuple):
    """How well the right passages were found: shares of all questions, and the mean of 1 / rank."""

    at_1: float
    at_3: float
    mrr: float


def ranks(rankings: Sequence[Sequence[int]], right: Sequence[int]) -> list[int | None]:
    """The rank of each question's right passage, from 0; None where it is not among those found."""
    return [
        list(ranking).index(place) if place in ranking else None for ranking, place in zip(rankings, right, strict=True)
    ]


def score_of(found: Sequence[int | None]) -> Score:
    """The ranks as figures."""
    count = max(len(found), 1)
    reciprocal = [0.0 if rank is None else 1 / (rank + 1) for rank in found]
    return Score(
        sum(value >= 1 for value in reciprocal) / count,
        sum(value >= 1 / 3 for value in reciprocal) / count,
        sum(reciprocal) / count,
    )


async def evaluate(running: Here, questions: Sequence[Question]) -> dict[str, Score]:
    """Each way to search, scored on the questions that have an answer."""
    passages = shipped_passages()
    places = {(one.document, one.text): n for n, one in enumerate(passages)}
    right = [_place(passages, question) for question in questions]
    vectors = [
        [places[source["document"], source["text"]] for source in found] for found in await _found(running, questions)
    ]
    index = Keywords(passages)
    words = [index.search(question.question, DEPTH) for question in questions]
    both = [mixed(pair)[:DEPTH] for pair in zip(vectors, words, strict=True)]
    rankings = {"vectors": vectors, "keywords (BM25)": words, "both, by reciprocal ranks": both}
    return {name: score_of(ranks(ranking, right)) for name, ranking in rankings.items()}


def table(scores: dict[str, Score]) -> str:
    """As Markdown has it."""
    lines = ["| search | recall@1 | recall@3 | MRR@10 |", "|---|---|---|---|"]
    lines += [f"| {name} | {at_1:.3f} | {at_3:.3f} | {mrr:.3f} |" for name, (at_1, at_3, mrr) in scores.items()]
    return "\n".join(lines)


def _place(passages: Sequence[Passage], question: Question) -> int:
    """Where the passage is that answers it. Raises ValueError unless there is exactly one."""
    found = [n for n, one in enumerate(passages) if one.document == question.document and question.passage in one.text]
    if len(found) != 1:
        raise ValueError(f"{len(found)} passages answer {question.question!r}")
    return found[0]


async def _found(running: Here, questions: Sequence[Question]) -> list[list[dict[str, Any]]]:
    calls = [call(FIND, query=one.question) for one in questions]
    return [await job.result(LIMIT_S) async for job in running.client.submit_many(calls)]


async def _answers(running: Here, questions: Sequence[Question]) -> str:
    """How often the chat model said what was asked for, and how often the sentences quoted beside it do."""
    jobs = [await ask(running.client, one.question) for one in questions]
    answers = [await job.result(LIMIT_S) for job in jobs]
    said = sum(_holds(one.answer, answer["answer"]) for one, answer in zip(questions, answers, strict=True))
    quoted = sum(_holds(one.answer, _quotes(answer)) for one, answer in zip(questions, answers, strict=True))
    count = len(questions)
    return f"the fact is in the answer: {said} of {count}; in the first source's quote: {quoted} of {count}"


def _quotes(answer: dict[str, Any]) -> str:
    return str(answer["sources"][0]["quote"]) if answer["sources"] else ""


def _holds(fact: str, text: str) -> bool:
    return fact.lower() in text.lower()


def _strangers(found: Sequence[Sequence[dict[str, Any]]], floor: float) -> int:
    """How many questions have no passage near enough to be answered from."""
    return sum(not sources or sources[0]["score"] < floor for sources in found)


async def _run(answers: int) -> None:
    own = msgspec.structs.replace(settings(), found=DEPTH, told=settings().given)
    everything = shipped_questions()
    questions = [one for one in everything if one.document is not None]
    strange = [one for one in everything if one.document is None]
    async with here(own, answers=answers > 0) as running:
        report = await running.ingested()
        typer.echo(f"{report['documents']} documents, {report['passages']} passages, {len(questions)} questions\n")
        typer.echo(table(await evaluate(running, questions)))
        refused = _strangers(await _found(running, strange), own.min_score)
        wrongly = _strangers(await _found(running, questions), own.min_score)
        typer.echo(f"\nquestions of other things, not answered: {refused} of {len(strange)}")
        typer.echo(f"questions of ours, not answered: {wrongly} of {len(questions)}")
        if answers:
            typer.echo(f"{own.model}: {await _answers(running, questions[:: max(1, len(questions) // answers)])}")


def main(
    answers: Annotated[int, typer.Option(min=0, help="Have so many of the questions answered by the model.")] = 0,
) -> None:
    """Ask our own questions, and print how often the right passage came back."""
    run_loop(_run(answers))


if __name__ == "__main__":
    typer.run(main)

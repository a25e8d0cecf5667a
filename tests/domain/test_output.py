"""What a job's log says that it has made: the fold that rows, readers and the next attempt have in common."""

from __future__ import annotations

import msgspec
import pytest

from ropeway.domain.event import OUTPUT_DELTA, OUTPUT_RESET, OUTPUT_RESUMED, STEP_COMPLETED, Cursor, Event
from ropeway.domain.output import ROW_LIMIT_CHARS, Made, output_json, shown_data


def event(n: int, type_: str, data: str) -> Event:
    return Event(Cursor(1, n), type_, "job_1", 1, 0, data)


def delta(value: object, index: int = 0, **more: object) -> tuple[str, str]:
    return OUTPUT_DELTA, msgspec.json.encode({"index": index, "delta": value, **more}).decode()


def made(*told: tuple[str, str]) -> Made:
    return Made(event(n, type_, data) for n, (type_, data) in enumerate(told))


@pytest.mark.parametrize(
    ("told", "output"),
    [
        ([], None),
        ([delta("ja "), delta('日本 \\ " \n')], '"ja 日本 \\\\ \\" \\n"'),
        ([delta("a"), delta("b"), delta({"n": 1}), delta("c")], '["ab",{"n":1},"c"]'),
        ([delta(1), delta(None)], "[1,null]"),
        ([delta("2026-01-02", item=True), delta("2026-01-03", item=True)], '["2026-01-02","2026-01-03"]'),
        ([delta("gone"), (OUTPUT_RESET, "{}"), delta("kept")], '"kept"'),
        ([delta(1), (OUTPUT_RESET, "{}"), delta("text again")], '"text again"'),
        ([delta("kept "), (OUTPUT_RESUMED, "{}"), delta("too")], '"kept too"'),
        ([delta("a"), ("log", '{"message":"x"}'), delta("b")], '"ab"'),
        ([(OUTPUT_DELTA, "17"), (OUTPUT_DELTA, '{"index":0}'), delta("a")], '"a"'),
    ],
)
def test_the_output_is_what_came_since_the_last_reset(told: list[tuple[str, str]], output: str | None) -> None:
    """Strings make a text, anything else a list; what no worker of ours wrote has no place in it."""
    assert made(*told).output == output


def test_the_next_index_is_above_all_others() -> None:
    """Also where one event stands for several items, whose number it does not tell."""
    assert made().next_index == 0
    assert made(delta("abc", 0), delta("def", 3), delta("g", 6)).next_index == 7
    assert made(delta("abc", 5), (OUTPUT_RESET, "{}")).next_index == 0


def test_steps_are_kept_by_name() -> None:
    """No reset takes a step back: it was done."""
    step = (STEP_COMPLETED, '{"name":"fetch — 日本","seconds":1.5,"result":{"a" : [1]}}')
    assert made(step, (OUTPUT_RESET, "{}"), delta("a")).steps == {"fetch — 日本": '{"a" : [1]}'}


def test_a_row_holds_no_more_than_it_should() -> None:
    """What is larger is in the log, and nowhere else."""
    half = "x" * (ROW_LIMIT_CHARS // 2)
    assert made(delta(half)).row_output == f'"{half}"'
    assert made(delta(half), delta(half)).row_output is None


def test_readers_are_shown_no_result_of_a_step() -> None:
    """Its name and how long it took; every other event as it is."""
    step = event(1, STEP_COMPLETED, '{"name":"fetch","seconds":1.5,"result":"secret"}')
    assert shown_data(step) == '{"name":"fetch","seconds":1.5}'
    assert shown_data(event(1, "log", "{ }")) == "{ }"


def test_nothing_comes_to_no_output() -> None:
    """An empty list and an empty text are the task's to tell apart."""
    assert output_json([], True) is None
    assert output_json(['""'], True) == '""'

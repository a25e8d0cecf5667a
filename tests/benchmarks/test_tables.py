"""What the benchmark makes of its measurements."""

from __future__ import annotations

from pathlib import Path

import pytest
from benchmarks.cases import CASES
from benchmarks.measure import quantile
from benchmarks.report import markdown
from benchmarks.rivals import RIVALS
from benchmarks.settings import Settings
from benchmarks.subjects import ENGINES
from benchmarks.table import Case, Column, Outcome, Ratio, Row, ratio_of
from benchmarks.venvs import versions

from benchmarks import peers

MORE = Ratio("rate", "x best peer")
LESS = Ratio("ms", "x best peer", better="less")


def rows(*named: tuple[str, str, list[dict[str, float] | None]]) -> list[Row]:
    return [Row(name, group, "", samples) for name, group, samples in named]


def test_a_ratio_is_taken_against_the_best_peer_of_the_same_run() -> None:
    """Noise that slows a whole run down must not move the ratio."""
    ours, *others = rows(
        ("ropeway", "own", [{"rate": 100.0}, {"rate": 10.0}]),
        ("slow peer", "peer", [{"rate": 5.0}, {"rate": 0.5}]),
        ("fast peer", "peer", [{"rate": 20.0}, {"rate": 2.0}]),
    )

    assert ratio_of(ours, [ours, *others], MORE) == 5.0


def test_above_one_is_better_also_where_less_is_better() -> None:
    """A latency of a half is a ratio of two."""
    every = rows(("ropeway", "own", [{"ms": 1.0}]), ("peer", "peer", [{"ms": 2.0}]), ("slower", "peer", [{"ms": 9.0}]))

    assert ratio_of(every[0], every, LESS) == 2.0


def test_a_run_in_which_either_failed_does_not_count() -> None:
    """The ratio comes from the runs that both finished."""
    every = rows(
        ("ropeway", "own", [{"rate": 10.0}, None, {"rate": 30.0}]),
        ("peer", "peer", [None, {"rate": 1.0}, {"rate": 10.0}]),
    )

    assert ratio_of(every[0], every, MORE) == 3.0


def test_there_is_no_ratio_without_anything_to_compare_with() -> None:
    """A run of Ropeway alone shows figures and no ratios."""
    every = rows(("ropeway", "own", [{"rate": 10.0}]))

    assert ratio_of(every[0], every, MORE) is None


def test_a_ratio_may_name_rows_instead_of_a_group() -> None:
    """`a|b` is the better of these two; a peer beside them that is better still does not matter."""
    every = rows(
        ("ropeway", "own", [{"rate": 40.0}]),
        ("arq", "peer", [{"rate": 10.0}]),
        ("saq", "peer", [{"rate": 20.0}]),
        ("huey", "peer", [{"rate": 80.0}]),
    )

    assert ratio_of(every[0], every, Ratio("rate", "", against="arq|saq")) == 2.0


def test_the_report_shows_median_least_and_most() -> None:
    """And what failed is told under the table instead of being left out."""
    case = _case()
    row = Row("ropeway sqlite", "own", "one slot", [{"rate": 1500.0}, {"rate": 900.0}, {"rate": 1000.0}])
    failed = Row("peer", "peer", "", [None, None, None], ["the log of it\nno such program"] * 3)

    text = markdown(
        [(case, Outcome("case", "python -m benchmarks", "today", 3, False, {"python": "3.11"}, [row, failed]))]
    )

    assert "| ropeway sqlite | 1,000 (900-1,500) | one slot |" in text
    assert "- peer: no such program" in text
    assert "`python -m benchmarks`, today, 3 runs. python: 3.11." in text


@pytest.mark.parametrize(("q", "expected"), [(0.0, 1.0), (0.5, 3.0), (0.99, 4.0), (1.0, 4.0)])
def test_a_quantile_is_a_value_that_was_measured(q: float, expected: float) -> None:
    """No interpolation: p99 of few samples is the worst of them."""
    assert quantile([4.0, 1.0, 3.0, 2.0], q) == expected


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_every_table_has_rows_of_ours_with_names_of_their_own(case: Case) -> None:
    """Rows are told apart by name, in the report and by ratios that name one."""
    settings = Settings(1, True, True, ENGINES, tuple(RIVALS), Path())
    subjects = case.subjects(settings)

    assert len({subject.name for subject in subjects}) == len(subjects)
    assert {"sqlite", "redis"} <= {subject.engine for subject in subjects if subject.group == "own"}
    assert {ratio.column for ratio in case.ratios} <= {column.key for column in case.columns}


def test_every_peer_has_a_driver_and_pinned_versions() -> None:
    """A peer that is listed can be run, and the report says in which version it was."""
    drivers = {path.stem for path in Path(peers.__file__).parent.glob("*.py")}

    assert set(RIVALS) <= drivers
    assert all(versions(name) for name in RIVALS)


def test_ropeway_on_redis_is_measured_on_the_server_that_peers_have() -> None:
    """The row without a word about syncs is the one to compare: nobody's server has a log there."""
    settings = Settings(1, True, True, ENGINES, tuple(RIVALS), Path())
    syncs = {subject.name: subject.sync for case in CASES for subject in case.subjects(settings) if subject.sync}

    assert {sync for name, sync in syncs.items() if not name.startswith("ropeway")} == {"memory"}
    assert syncs["ropeway redis"] == "memory"
    assert (syncs["ropeway redis, everysec"], syncs["ropeway redis, always"]) == ("window", "disk")


def test_no_two_tables_share_a_name() -> None:
    """`--only` and the files of figures go by it."""
    assert len({case.name for case in CASES}) == len(CASES)


async def _unused(_run: object) -> dict[str, float]:
    raise AssertionError


def _case() -> Case:
    return Case("case", "A case", "About it.", "fast", (Column("rate", "jobs/s"),), lambda _: [], _unused)

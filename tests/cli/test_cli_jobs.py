"""`ropeway jobs` and `ropeway queues`: what they write, and the codes that they end with."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from cli_support import lines_of, publish, redis_url, run, url_in, working

from ropeway.cli.exits import Exit
from servers import until


@pytest.fixture(name="url", params=["sqlite", "redis"])
def make_url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str:
    """A store with tasks and no worker, named by the environment."""
    url = url_in(tmp_path) if request.param == "sqlite" else redis_url()
    publish(url)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ROPEWAY_ENGINE", url)
    monkeypatch.delenv("ROPEWAY_URL", raising=False)
    return url


@pytest.fixture(name="worked")
def make_worked(url: str) -> Iterator[str]:
    """The same with a worker."""
    with working(url):
        yield url


def submitted(*arguments: str) -> str:
    """The id of a job that was submitted with these arguments."""
    (job,) = lines_of(run("jobs", "submit", *arguments))
    return str(job["id"])


# -- submit


@pytest.mark.usefixtures("url")
def test_a_submit_writes_the_job_as_a_line() -> None:
    """On a pipe, the job as JSON; its options are those of the flags."""
    arguments = ("--priority", "high", "--tag", "a", "--tag", "b", "--metadata", "user=7", "--delay", "60")
    result = run("jobs", "submit", "greet", "--input", '{"name": "Ada"}', *arguments)
    assert result.exit_code == Exit.ok
    (job,) = lines_of(result)
    assert (job["state"], job["priority"], job["tags"]) == ("scheduled", "high", ["a", "b"])
    assert (job["metadata"], job["input"]) == ({"user": "7"}, {"name": "Ada"})


@pytest.mark.usefixtures("url")
def test_for_a_person_a_submit_writes_the_id() -> None:
    """`--text` is what a terminal shows; with a key, the second submit says that it is the first."""
    first = run("jobs", "submit", "greet", "-i", '{"name": "Ada"}', "--key", "k1", "--text")
    again = run("jobs", "submit", "greet", "-i", '{"name": "Ada"}', "--key", "k1", "--text")
    assert first.stdout.startswith("job_")
    assert again.stdout.startswith(first.stdout.strip())
    assert "submitted before" in again.stdout


@pytest.mark.usefixtures("url")
def test_input_comes_from_a_file_or_a_pipe(tmp_path: Path) -> None:
    """`@FILE` and `-`."""
    (tmp_path / "input.json").write_text('{"name": "file"}')
    (of_file,) = lines_of(run("jobs", "submit", "greet", "-i", f"@{tmp_path / 'input.json'}"))
    (of_pipe,) = lines_of(run("jobs", "submit", "greet", "-i", "-", stdin='{"name": "pipe"}'))
    assert (of_file["input"], of_pipe["input"]) == ({"name": "file"}, {"name": "pipe"})


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["greet", "-i", "{name: Ada}"], Exit.usage, "double quotes"),
        (["greet", "-i", "@nowhere.json"], Exit.usage, "nowhere.json"),
        (["greet", "-i", "{}"], Exit.usage, "/name"),
        (["greet", "--priority", "urgent"], Exit.usage, "urgent"),
        (["greet", "--metadata", "user"], Exit.usage, "KEY=VALUE"),
        (["greet", "-i", '{"name": "Ada"}', "--after", "job_none"], Exit.usage, "no job 'job_none' to wait for"),
        (["greet", "-i", '{"name": {"$output": "job_none"}}'], Exit.usage, "no job 'job_none' to wait for"),
        (["greet", "-i", '{"name": "Ada"}', "--after-failure", "shrug"], Exit.usage, "after_failure"),
        (["nobody"], Exit.not_found, "greet"),
        (["greet", "--url", "http://127.0.0.1:9", "--engine", "sqlite:x.db"], Exit.usage, "one of them"),
    ],
)
@pytest.mark.usefixtures("url")
def test_what_is_wrong_with_a_submit_is_one_line_and_a_code(arguments: list[str], code: Exit, told: str) -> None:
    """The mistake, on stderr; nothing on stdout; no traceback."""
    result = run("jobs", "submit", *arguments)
    assert result.exit_code == code
    assert told in result.stderr
    assert result.stdout == ""
    assert "Traceback" not in result.stderr


@pytest.mark.usefixtures("url")
def test_a_job_may_wait_for_others() -> None:
    """`--after`, as often as wanted, and outputs in the input; what becomes of it when they fail; `show` tells it."""
    first, second = submitted("greet", "-i", '{"name": "a"}'), submitted("greet", "-i", '{"name": "b"}')
    by_option = submitted("greet", "-i", '{"name": "c"}', "--after", first, "--after", second, "--after-failure", "run")
    (job,) = lines_of(run("jobs", "show", by_option))
    assert (job["state"], job["run_at"], job["after"]) == ("scheduled", None, [first, second])
    text = " ".join(run("jobs", "show", by_option, "--text").stdout.split())
    assert f"after {first}, {second} after_failure run" in text
    by_input = submitted("greet", "-i", f'{{"name": {{"$output": "{first}"}}}}')
    (job,) = lines_of(run("jobs", "show", by_input))
    assert (job["after"], job["after_failure"]) == ([first], "fail")
    refused = run("jobs", "submit", "greet", "-i", '{"name": "d"}', "--after", first, "--delay", "5")
    assert (refused.exit_code, "no delay" in refused.stderr) == (Exit.usage, True)


# -- follow


@pytest.mark.usefixtures("worked")
def test_following_writes_the_output_alone_on_stdout() -> None:
    """For a person: what the task yields is on stdout just as it is, everything else on stderr."""
    result = run("jobs", "submit", "spell", "-i", '{"word": "rope"}', "--follow", "--text")
    assert (result.exit_code, result.stdout) == (Exit.ok, "rope\n")
    assert "50% clearing the throat" in result.stderr
    assert "succeeded" in result.stderr


@pytest.mark.usefixtures("worked")
def test_following_a_task_that_streams_nothing_writes_its_result() -> None:
    """A returned value is written once, at the end, as JSON."""
    result = run("jobs", "submit", "greet", "-i", '{"name": "Ada"}', "--follow", "--text")
    assert json.loads(result.stdout) == {"text": "Hello, Ada!"}


@pytest.mark.usefixtures("worked")
def test_following_on_a_pipe_writes_every_event_as_a_line() -> None:
    """A program reads the log itself, to its end."""
    result = run("jobs", "submit", "spell", "-i", '{"word": "rope"}', "--follow")
    events = lines_of(result)
    assert (events[0]["type"], events[-1]["type"]) == ("job.queued", "job.succeeded")
    assert "".join(event["data"]["delta"] for event in events if event["type"] == "output.delta") == "rope"
    assert events[-1]["data"]["output"] == "rope"


@pytest.mark.usefixtures("worked")
def test_a_job_that_fails_fails_the_command() -> None:
    """Exit code 1, with the reason on stderr, for `&&` in a script."""
    result = run("jobs", "submit", "fail", "-i", '{"message": "no voice"}', "--follow", "--text")
    assert (result.exit_code, result.stdout) == (Exit.job_failed, "")
    assert "failed: task_error: no voice" in result.stderr


@pytest.mark.usefixtures("worked")
def test_a_tail_goes_on_after_an_event() -> None:
    """From where one was: nothing twice."""
    events = lines_of(run("jobs", "submit", "greet", "-i", '{"name": "Ada"}', "--follow"))
    job_id = events[0]["job_id"]
    rest = lines_of(run("jobs", "tail", job_id, "--after", events[1]["id"]))
    assert rest == events[2:]
    past_the_end = run("jobs", "tail", job_id, "--after", events[-1]["id"])
    assert (past_the_end.exit_code, past_the_end.stdout) == (Exit.ok, "")


# -- look


@pytest.mark.usefixtures("url")
def test_jobs_are_listed_newest_first_and_narrowed() -> None:
    """As lines for programs, as a table for people."""
    first = submitted("greet", "-i", '{"name": "a"}', "--tag", "x")
    second = submitted("greet", "-i", '{"name": "b"}', "--delay", "60")
    assert [job["id"] for job in lines_of(run("jobs", "list"))] == [second, first]
    assert [job["id"] for job in lines_of(run("jobs", "list", "--state", "scheduled"))] == [second]
    assert [job["id"] for job in lines_of(run("jobs", "list", "--tag", "x"))] == [first]
    table = run("jobs", "list", "--text").stdout
    assert first in table
    assert "scheduled" in table
    assert run("jobs", "list", "--tag", "none", "--text").stdout.strip() == "no such jobs"


@pytest.mark.usefixtures("worked")
def test_a_job_is_shown_once_it_has_ended() -> None:
    """`--wait` waits; what is shown is the whole job."""
    job_id = submitted("greet", "-i", '{"name": "Ada"}')
    (job,) = lines_of(run("jobs", "show", job_id, "--wait", "30"))
    assert (job["state"], job["output"]) == ("succeeded", {"text": "Hello, Ada!"})
    text = run("jobs", "show", job_id, "--text").stdout
    assert "succeeded" in text
    assert '"Hello, Ada!"' in text


@pytest.mark.usefixtures("url")
def test_a_job_that_goes_on_after_the_wait_is_told_by_the_code() -> None:
    """Exit code 6; the job is shown all the same."""
    job_id = submitted("greet", "-i", '{"name": "Ada"}')
    result = run("jobs", "show", job_id, "--wait", "0")
    assert result.exit_code == Exit.timed_out
    assert lines_of(result)[0]["state"] == "queued"


@pytest.mark.usefixtures("url")
def test_an_unknown_job_is_told_by_the_code() -> None:
    """Exit code 4, by every command."""
    unknown = f"job_{0:032x}"
    for command in ("show", "tail", "cancel", "wake", "retry", "delete"):
        result = run("jobs", command, unknown)
        assert (result.exit_code, result.stdout) == (Exit.not_found, "")


# -- change


@pytest.mark.usefixtures("url")
def test_jobs_are_cancelled_retried_and_deleted() -> None:
    """One after another, each named; a live job is not deleted without force."""
    one, two = submitted("greet", "-i", '{"name": "a"}'), submitted("greet", "-i", '{"name": "b"}')
    assert run("jobs", "delete", one).exit_code == Exit.refused
    cancelled = lines_of(run("jobs", "cancel", one, two, "--reason", "enough"))
    assert [(job["id"], job["state"], job["cancel_reason"]) for job in cancelled] == [
        (one, "cancelled", "enough"),
        (two, "cancelled", "enough"),
    ]
    (again,) = lines_of(run("jobs", "retry", one))
    assert (again["retry_of"], again["state"]) == (one, "queued")
    assert run("jobs", "retry", again["id"]).exit_code == Exit.refused
    assert run("jobs", "delete", one, two).exit_code == Exit.ok
    assert run("jobs", "delete", again["id"], "--force").exit_code == Exit.ok
    assert lines_of(run("jobs", "list")) == []


@pytest.mark.usefixtures("url")
def test_waiting_jobs_are_woken() -> None:
    """Whatever they wait for; as lines and as text."""
    later = submitted("greet", "-i", '{"name": "a"}', "--delay", "3600")
    waiting = submitted("greet", "-i", '{"name": "b"}', "--after", later)
    woken = lines_of(run("jobs", "wake", later, waiting))
    assert [(job["id"], job["state"], job["run_at"]) for job in woken] == [
        (later, "queued", None),
        (waiting, "queued", None),
    ]
    assert run("jobs", "wake", later, "--text").stdout == f"{later} queued\n"


@pytest.mark.usefixtures("url")
def test_a_shared_job_is_cancelled_for_one_or_for_all() -> None:
    """`--cache` gives an equal submit the first one's job; a cancel leaves it to the other, `--for-all` to nobody."""
    arguments = ("greet", "-i", '{"name": "Ada"}', "--cache", "use")
    job_id = submitted(*arguments)
    assert run("jobs", "submit", *arguments, "--text").stdout == f"{job_id}  (the same was asked before)\n"
    assert submitted(*arguments[:3], "--cache", "off") != job_id
    assert run("jobs", "submit", *arguments[:3], "--cache", "perhaps").exit_code == Exit.usage
    told = run("jobs", "cancel", job_id, "--text").stdout
    assert told == f"{job_id} queued (goes on for others who share it)\n"
    submitted(*arguments)
    assert run("jobs", "cancel", job_id, "--for-all", "--text").stdout == f"{job_id} cancelled\n"


@pytest.mark.usefixtures("url")
def test_queues_are_listed_paused_and_resumed() -> None:
    """Counts and states, as lines and as a table."""
    submitted("greet", "-i", '{"name": "a"}')
    (paused,) = lines_of(run("queues", "pause", "default"))
    assert (paused["name"], paused["paused"], paused["queued"]) == ("default", True, 1)
    assert "paused" in run("queues", "list", "--text").stdout
    assert lines_of(run("queues", "resume", "default"))[0]["paused"] is False
    assert "open" in run("queues", "list", "--text").stdout


@pytest.mark.usefixtures("url")
def test_prune_deletes_what_is_past_its_retention() -> None:
    """And says how much."""
    assert lines_of(run("prune")) == [{"deleted": 0, "files": 0}]
    run("jobs", "cancel", submitted("greet", "-i", '{"name": "a"}'))
    assert lines_of(run("prune")) == [{"deleted": 0, "files": 0}]
    assert run("prune", "--text").stdout.strip() == "deleted 0"


# -- where the jobs are


def test_a_store_that_nobody_made_is_not_made_by_looking(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The wrong directory must not look like an empty queue."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ROPEWAY_ENGINE", raising=False)
    for command in (["jobs", "list"], ["queues", "list"], ["prune"]):
        result = run(*command)
        assert result.exit_code == Exit.usage
        assert "ropeway.db" in result.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("engine", "told"),
    [("memory:", "--url"), ("nonsense", "names no engine"), ("sqlite:", "no file")],
)
def test_an_engine_that_cannot_be_asked_is_explained(engine: str, told: str) -> None:
    """One line with the way out."""
    result = run("jobs", "list", "--engine", engine)
    assert result.exit_code == Exit.usage
    assert told in result.stderr


def test_a_gateway_out_of_reach_is_told_by_the_code() -> None:
    """Exit code 3, with the URL that was asked."""
    result = run("jobs", "list", "--url", "http://127.0.0.1:9")
    assert result.exit_code == Exit.unavailable
    assert "http://127.0.0.1:9" in result.stderr


def test_a_file_that_is_no_store_is_told_by_the_code(tmp_path: Path) -> None:
    """Exit code 3: it is left as it is."""
    (tmp_path / "other.db").write_bytes(b"something else entirely, and long enough to be read as a header" * 20)
    result = run("jobs", "list", "--engine", f"sqlite:{tmp_path / 'other.db'}")
    assert result.exit_code == Exit.unavailable
    assert "Traceback" not in result.stderr


@pytest.mark.usefixtures("worked")
def test_a_running_job_is_sent_what_it_waits_for() -> None:
    """As JSON, from a flag, a file or a pipe; a job that does not run, and text that is no JSON, are refused."""
    job = submitted("repeat")
    until(lambda: lines_of(run("jobs", "show", job))[0]["state"] == "running", "the job runs")
    assert run("jobs", "send", job, "--input", "yes").exit_code == Exit.usage
    (told,) = lines_of(run("jobs", "send", job, "--input", "-", "--key", "k1", stdin='{"go": "on"}'))
    assert told["id"] == job
    assert lines_of(run("jobs", "show", job, "--wait", "60"))[0]["output"] == "sent: {'go': 'on'}"
    late = run("jobs", "send", job, "-i", "1", "--text")
    assert (late.exit_code, "succeeded" in late.stderr) == (Exit.refused, True)
    assert run("jobs", "send", "job_" + "0" * 32, "-i", "1").exit_code == Exit.not_found

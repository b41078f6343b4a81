"""A crontab's entries: what they may be, and that a mistake is named before anything starts."""

from datetime import UTC, datetime
from typing import Any

import pytest

from oban_actors import ConfigError, Job, Oban, worker
from oban_actors.plugins import Cron
from oban_actors.plugins.cron_entry import Entry
from tests.plugins.crontabs import Warm, report
from tests.support.databases import Database

DUE = datetime(2026, 3, 2, 9, tzinfo=UTC)


def entry(*parts: Any, timezone: str = "Etc/UTC") -> Entry:
    """Check an entry of a crontab."""
    return Entry.parse("cron.crontab[0]", parts, timezone, "once")


@pytest.mark.parametrize("target", [report, "tests.cron.report", "Elixir.tests.cron.report"])
def test_a_worker_may_be_named_or_given(target: Any) -> None:
    """Its own options count where the entry has none."""
    job = entry("@daily", target, {"priority": 3}).build(DUE)

    assert (job.worker, job.queue, job.max_attempts) == ("tests.cron.report", "alpha", 3)
    assert (job.priority, job.tags, job.args) == (3, ["daily"], {})


def test_a_class_may_be_a_worker() -> None:
    """As for any job."""
    job = entry("@daily", Warm, {"queue": "beta", "args": {"deep": [1]}}).build(DUE)

    assert (job.worker, job.queue, job.args) == ("tests.cron.warm", "beta", {"deep": [1]})


def test_a_worker_of_another_program() -> None:
    """Known by its name only: Elixir's, or one that is imported later."""
    made = entry("@daily", "App.Mailer", {"queue": "mailers"})
    assert made.build(DUE).queue == "mailers"

    late = entry("@daily", "tests.cron.late")
    assert late.build(DUE).queue == "default"

    @worker(name="tests.cron.late", queue="gamma")
    def _late(job: Job) -> None:
        """Do nothing."""

    assert late.build(DUE).queue == "gamma"


def test_meta_tells_where_a_job_is_from() -> None:
    """Oban's keys, and the minute; what the entry has besides stays."""
    made = entry(
        "0 9 * * mon", report, {"meta": {"a": 1}, "name": "mondays"}, timezone="Asia/Tokyo"
    )

    assert made.build(DUE).meta == {
        "a": 1,
        "cron": True,
        "cron_expr": "0 9 * * mon",
        "cron_name": "mondays",
        "cron_tz": "Asia/Tokyo",
        "cron_at": "2026-03-02T09:00:00Z",
    }


def test_a_key_stays_the_same_where_only_options_change() -> None:
    """So that two versions of a program, while one replaces the other, share each run."""
    one = entry("0 9 * * mon", report, {"args": {"a": 1}})
    two = entry(" 0  9 * * MON", "tests.cron.report", {"args": {"a": 2}, "priority": 1})

    assert one.key == two.key == "tests.cron.report 0 9 * * MON Etc/UTC"
    assert entry("0 9 * * *", report, {"timezone": "Asia/Tokyo"}).key.endswith("Asia/Tokyo")
    assert entry("@Daily", report).key == "tests.cron.report @DAILY Etc/UTC"


def test_options_are_copied() -> None:
    """What the host does with them later changes no job."""
    args = {"list": [1]}
    made = entry("@daily", report, {"args": args})
    args["list"].append(2)

    first = made.build(DUE)
    first.args["list"].append(3)
    assert made.build(DUE).args == {"list": [1]}


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ("@daily", "'cron.crontab[1]': expected (expression, worker) or (expression, worker, opt"),
        (("@daily",), "'cron.crontab[1]': expected (expression, worker)"),
        (("@daily", report, {}, 1), "got: 4 parts"),
        (("@daily", report, [1]), "options being a mapping, got: [1]"),
        (("60 * * * *", report), "'cron.crontab[1]': expected a cron expression with a minute"),
        (("@daily", len), "'cron.crontab[1].worker': expected a function or class with @worker"),
        (("@daily", ""), "'cron.crontab[1].worker': expected a non-blank string"),
        (("@daily", object), "'cron.crontab[1].worker'"),
        (("@daily", report, {"prio": 1}), "unknown option 'prio' for cron.crontab[1]"),
        (("@daily", report, {"priority": 10}), "'cron.crontab[1].priority': expected an integer"),
        (("@daily", report, {"args": [1]}), "'cron.crontab[1].args': expected"),
        (("@daily", report, {"queue": ""}), "'cron.crontab[1].queue': expected"),
        (("@daily", report, {"queue": "*"}), "'cron.crontab[1].queue': expected another name than"),
        (("@daily", report, {"max_attempts": 0}), "'cron.crontab[1].max_attempts': expected"),
        (("@daily", report, {"tags": "a"}), "'cron.crontab[1].tags': expected a list"),
        (("@daily", report, {"meta": {"a": object()}}), "'cron.crontab[1].meta"),
        (("@daily", report, {"timezone": "Mars"}), "'cron.crontab[1].timezone': expected a known"),
        (("@daily", report, {"name": " "}), "'cron.crontab[1].name': expected a non-blank string"),
        (("@daily", report, {"missed": "two"}), "'cron.crontab[1].missed': expected one of 'skip'"),
        (("@DAILY", "tests.cron.report"), "entries, of which all but one need a name"),
    ],
)
def test_a_mistake_is_named(parts: Any, message: str) -> None:
    """With its place in the crontab, as soon as it is made."""
    with pytest.raises(ConfigError) as caught:
        Cron([("@daily", report), parts])

    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"crontab": "@daily"}, "invalid value for 'cron.crontab': expected a list of entries"),
        ({"crontab": None}, "expected a list of entries, got: None"),
        ({"timezone": "Mars"}, "invalid value for 'cron.timezone': expected a known time zone"),
        ({"missed": "never"}, "invalid value for 'cron.missed': expected one of 'skip', 'once'"),
        ({"interval": 5}, "unknown option 'interval' for Cron"),
    ],
)
def test_a_mistake_of_the_crontab_is_named(options: dict[str, Any], message: str) -> None:
    """Likewise."""
    with pytest.raises(ConfigError) as caught:
        Cron(**options)

    assert message in str(caught.value)


def test_two_that_are_alike_may_have_names() -> None:
    """Which tells their runs apart."""
    cron = Cron([("@daily", report), ("@daily", report, {"name": "again", "args": {"n": 2}})])

    assert [each.key for each in cron.entries] == ["tests.cron.report @DAILY Etc/UTC", "again"]


def test_defaults_of_the_crontab_and_options_of_entries() -> None:
    """An entry's own go first."""
    options = {"timezone": "Asia/Tokyo", "missed": "all"}
    cron = Cron(
        [("@daily", report), ("@daily", Warm, options)], timezone="Europe/Berlin", missed="skip"
    )

    first, second = cron.entries
    assert (first.schedule.timezone, first.missed) == ("Europe/Berlin", "skip")
    assert (second.schedule.timezone, second.missed) == ("Asia/Tokyo", "all")


def test_where_cron_and_oban_differ_a_line_says_so(
    sqlite: Database, caplog: pytest.LogCaptureFixture
) -> None:
    """Both day of month and weekday restricted: either is enough. It is said once."""
    cron = Cron([("0 9 13 * FRI", report), ("0 9 * * FRI", report)])
    for _ in range(2):
        Oban(sqlite.url, plugins=[cron])

    lines = [record for record in caplog.records if "day of month and weekday" in record.message]
    assert len(lines) == 1
    assert "0 9 13 * FRI" in lines[0].message
    assert lines[0].levelname == "WARNING"

"""The Pruner in its tree: what it deletes, when, and what it says."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from oban_actors import ConfigError, Oban
from oban_actors.engines.prune import EndedGroup
from oban_actors.plugins import PluginContext, PluginRun, PrunedJob, Pruner
from tests.engines.conftest import Store
from tests.plugins.pruning import ask, ended, ids
from tests.support.databases import Database
from tests.support.events import Event, Recorder
from tests.support.instances import Starter, starter
from tests.support.waiting import wait_until

DAY = 86_400.0


@pytest.fixture
def start_oban(store: Store, database: Database) -> Iterator[Starter]:
    """Start instances on the same database."""
    with starter(database) as one:
        yield one


def _pruned(event: Event) -> bool:
    return event.metadata.get("plugin") is Pruner and event.metadata.get("pruned_count", 0) > 0


def test_a_run_says_what_it_deleted(store: Store, start_oban: Starter, events: Recorder) -> None:
    """The answer and the event have the count, and each job's id, queue and state."""
    old = [ended(store, state, DAY) for state in ("completed", "cancelled", "discarded")]
    oban = start_oban.leading(plugins=[Pruner(interval=3600)])

    result = ask(oban)

    assert result.error is None
    assert result.leader
    assert result.extra["pruned_count"] == 3
    assert {(each.id, each.queue, each.state) for each in result.extra["pruned_jobs"]} == {
        (old[0], "default", "completed"),
        (old[1], "default", "cancelled"),
        (old[2], "default", "discarded"),
    }
    assert isinstance(result.extra["pruned_jobs"][0], PrunedJob)
    assert events.wait_for("oban.plugin.stop", _pruned).metadata["pruned_count"] == 3
    batches = events.all("oban.engine.prune_jobs.stop", lambda each: each.metadata["jobs"] != ())
    told = [job for batch in batches for job in batch.metadata["jobs"]]
    assert sorted(told, key=lambda job: job.id) == sorted(
        result.extra["pruned_jobs"], key=lambda job: job.id
    )
    assert ask(oban).extra == {"pruned_count": 0, "pruned_jobs": ()}
    assert ids(store) == []


def test_it_runs_every_interval(store: Store, start_oban: Starter, events: Recorder) -> None:
    """Unasked."""
    ended(store, "completed", DAY)
    start_oban.leading(plugins=[Pruner(interval=0.05)])

    events.wait_for("oban.plugin.stop", _pruned)
    assert ids(store) == []


@pytest.mark.parametrize(
    ("options", "seconds"),
    [
        ({}, 60.0),
        ({"max_age": 45}, 45.0),
        ({"max_age": 10}, 30.0),
        ({"max_age": DAY}, 60.0),
        ({"max_age": None}, 60.0),
        ({"max_age": DAY, "states": {"discarded": 40}}, 40.0),
        ({"max_age": DAY, "queues": {"a": 50}}, 50.0),
        ({"max_age": DAY, "queues": {"a": None, "b": {"cancelled": 55}}}, 55.0),
    ],
)
def test_where_nothing_has_ended_it_looks_when_something_may_be_old_enough(
    store: Store, start_oban: Starter, options: dict[str, Any], seconds: float
) -> None:
    """Two intervals later at most; each interval as soon as there is something, however young."""
    oban = start_oban.leading(plugins=[Pruner(interval=3600)])
    context = PluginContext(oban.config, oban.repo, oban._engine, oban._publisher, oban._inserter)
    pruner = Pruner(**options)
    pruner.validate()
    pruner = pruner.fresh()
    assert pruner.next_delay(context) == 30.0

    pruner.perform(PluginRun(context, "shared", leader=True))
    assert pruner.next_delay(context) == seconds

    ended(store, "completed", 1)
    pruner.perform(PluginRun(context, "shared", leader=True))
    kept_for_ever = pruner.max_age is None
    assert pruner.next_delay(context) == (seconds if kept_for_ever else 30.0)


def test_more_than_one_run_does_is_done_at_once(
    store: Store, start_oban: Starter, events: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run is bounded; while there is more, runs follow each other, and others get in between."""
    monkeypatch.setattr("oban_actors.plugins.pruner.RUN_BATCHES", 2)
    for _ in range(12):
        ended(store, "completed", DAY)
    oban = start_oban.leading(plugins=[Pruner(interval=3600, limit=2)])

    assert ask(oban).extra["pruned_count"] == 4
    wait_until(lambda: ids(store) == [], message="the rest")
    runs = events.wait_for_count(3, "oban.plugin.stop", _pruned)
    assert [run.metadata["pruned_count"] for run in runs] == [4, 4, 4]


def test_only_so_many_are_named(
    store: Store, start_oban: Starter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All are counted."""
    monkeypatch.setattr("oban_actors.plugins.pruner.MOST_NAMED", 3)
    made = [ended(store, "completed", DAY) for _ in range(5)]
    oban = start_oban.leading(plugins=[Pruner(interval=3600, limit=2)])

    extra = ask(oban).extra

    assert extra["pruned_count"] == 5
    assert sorted(each.id for each in extra["pruned_jobs"]) == made[:3]


def test_ages_by_state_and_queue(store: Store, start_oban: Starter) -> None:
    """A queue's age goes before a state's, which goes before the common one; None keeps."""
    kept = [
        ended(store, "discarded", DAY),
        ended(store, "completed", 365 * DAY, "ledger"),
        ended(store, "cancelled", 365 * DAY, "mailers"),
    ]
    ended(store, "completed", DAY)
    ended(store, "completed", DAY, "mailers")
    ended(store, "discarded", 365 * DAY, "mailers")
    pruner = Pruner(
        interval=3600,
        states={"discarded": 1e8},
        queues={"ledger": None, "mailers": {"discarded": 3600, "cancelled": None}},
    )
    oban = start_oban.leading(plugins=[pruner])

    assert ask(oban).extra["pruned_count"] == 3
    assert ids(store) == kept


def test_which_age_a_job_has() -> None:
    """As asked for, most particular first, in seconds."""
    pruner = Pruner(
        max_age=timedelta(minutes=2),
        states={"cancelled": None},
        queues={"a": 5, "b": {"completed": timedelta(hours=1)}, "d": "never"},
    )
    pruner.validate()

    ages = {
        (state, queue): pruner.age_of(EndedGroup(state, queue, 0))
        for state in ("completed", "cancelled")
        for queue in ("a", "b", "c", "d")
    }
    assert ages == {
        ("completed", "a"): 5.0,
        ("completed", "b"): 3600.0,
        ("completed", "c"): 120.0,
        ("completed", "d"): None,
        ("cancelled", "a"): 5.0,
        ("cancelled", "b"): None,
        ("cancelled", "c"): None,
        ("cancelled", "d"): None,
    }


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"interval": 0}, "'interval': expected a positive number of seconds, got: 0"),
        ({"limit": 0}, "'limit': expected a positive integer, got: 0"),
        (
            {"max_age": -1},
            "'max_age': expected a non-negative number of seconds, a timedelta, 'never' or None",
        ),
        ({"max_age": "1d"}, "'max_age': expected a non-negative number .*, got: '1d'"),
        ({"max_age": 1e12}, "'max_age': expected at most 100 years, or None"),
        ({"states": {"executing": 1}}, "'states': expected one of 'completed', 'cancelled', 'disc"),
        ({"states": 60}, "'states': expected a mapping from states to ages, got: 60"),
        ({"queues": {"a": {"completed": "x"}}}, "'queues.a.completed': expected a non-negative"),
        ({"queues": {"": 1}}, "'queues': expected a non-blank string"),
        ({"queues": [("a", 1)]}, "'queues': expected a mapping from queues to ages"),
    ],
)
def test_options_are_checked(options: dict[str, Any], message: str) -> None:
    """Before anything starts, naming the option, the value and what was expected."""
    with pytest.raises(ConfigError, match=message):
        Oban("sqlite:///jobs.db", plugins=[Pruner(**options)])


def test_an_unknown_option_is_named() -> None:
    """With the nearest one."""
    with pytest.raises(ConfigError, match="unknown option 'maxage' for Pruner, did you mean 'max_"):
        Pruner(maxage=60)  # type: ignore[call-arg]  # as a user may write it


def test_only_the_leader_deletes(store: Store, start_oban: Starter) -> None:
    """Another node leaves all as it is, and is not busy waiting for its turn."""
    job_id = ended(store, "completed", DAY)
    oban = start_oban(peer=False, plugins=[Pruner(interval=3600)])

    result = ask(oban)

    assert (result.leader, result.extra) == (False, {})
    assert ids(store) == [job_id]


FUNCTION = """
CREATE FUNCTION {schema}.refuse() RETURNS trigger LANGUAGE plpgsql AS
'BEGIN IF OLD.worker = ''keep'' THEN RAISE integrity_constraint_violation; END IF; RETURN OLD; END'
"""
TRIGGER = """
CREATE TRIGGER refuse BEFORE DELETE ON {schema}.oban_jobs
FOR EACH ROW EXECUTE FUNCTION {schema}.refuse()
"""
SQLITE_TRIGGER = """
CREATE TRIGGER refuse BEFORE DELETE ON oban_jobs WHEN OLD.worker = 'keep'
BEGIN SELECT RAISE(ABORT, 'kept'); END
"""
REFUSE = {"postgresql": [FUNCTION, TRIGGER], "sqlite": [SQLITE_TRIGGER]}


def test_a_row_that_is_refused_stops_no_others(
    store: Store, start_oban: Starter, caplog: pytest.LogCaptureFixture
) -> None:
    """A host's foreign key or trigger may forbid it: that job is logged and left, others go."""
    made = [ended(store, "completed", DAY + n) for n in range(40)]
    kept = [made[0], made[17], made[39]]
    for job_id in kept:
        store.run("UPDATE {jobs} SET worker = 'keep' WHERE id = :id", id=job_id)
    for statement in REFUSE[store.repo.dialect]:
        start_oban.tables.execute(statement.replace("{schema}", store.repo.config.prefix))
    oban = start_oban.leading(plugins=[Pruner(interval=3600)])

    result = ask(oban)

    assert result.error is None
    assert result.extra["pruned_count"] == 37
    assert sorted(result.extra["set_aside"]) == kept
    assert ids(store) == kept
    lines = [each.message for each in caplog.records if "can't be deleted" in each.message]
    assert sorted(int(line.split()[1]) for line in lines) == kept
    caplog.clear()
    assert ask(oban).extra["pruned_count"] == 0
    assert [each for each in caplog.records if "can't be deleted" in each.message] == []


def test_a_crash_takes_what_it_remembers(store: Store, start_oban: Starter) -> None:
    """Its successor begins anew and deletes what is left."""
    oban = start_oban.leading(plugins=[Pruner(interval=3600)])
    ended(store, "completed", DAY)
    assert ask(oban).extra["pruned_count"] == 1
    before = oban.whereis(("plugin", "pruner"))
    ended(store, "completed", DAY)
    before.stop()

    def renewed() -> bool:
        found = oban._runtime.registry.whereis(("plugin", "pruner"))
        return found is not None and found != before

    wait_until(renewed, message="another actor")
    assert ask(oban).extra["pruned_count"] == 1


def test_a_file_says_the_same(tmp_path: Path) -> None:
    """Ages by state and queue stand in TOML as they do in Python."""
    file = tmp_path / "oban.toml"
    file.write_text(
        'database_url = "sqlite:///jobs.db"\n[plugins.pruner]\nmax_age = 3600\n'
        'states = { discarded = "never" }\n[plugins.pruner.queues]\nmailers = { completed = 5 }\n'
    )

    oban = Oban.from_settings(config_file=str(file))

    [pruner] = oban.config.plugins
    assert pruner.age_of(EndedGroup("completed", "mailers", 0)) == 5.0
    assert pruner.age_of(EndedGroup("discarded", "mailers", 0)) is None
    assert pruner.age_of(EndedGroup("completed", "default", 0)) == 3600.0

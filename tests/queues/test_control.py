"""Calls that control jobs, through whole trees: they reach whoever runs the job, and its queue."""

from collections.abc import Callable
from typing import Any
from unittest.mock import Mock

import pytest
import sqlalchemy as sa

from oban_actors import Beat, ConfigError, Job, Notify, Oban
from oban_actors.pulse import Pulse
from tests.queues.work import Work, job, jobs, read, wait_state
from tests.support.events import Recorder
from tests.support.instances import Starter
from tests.support.waiting import wait_until

KINDS = pytest.mark.parametrize("kind", ["sync", "async"])
ALONE: dict[str, Any] = {"stager": None}

Cancel = Callable[[Job], bool]


@pytest.fixture
def _silent(monkeypatch: pytest.MonkeyPatch) -> None:
    # Beats would find work, and what was cancelled: here nothing but notifications tells of it.
    monkeypatch.setattr(Pulse, "_compare", lambda *_: None)


@pytest.fixture
def node(start_oban: Starter) -> Oban:
    """A node that runs jobs."""
    oban = start_oban(node="web.1", queues={"alpha": 3}, **ALONE)
    start_oban.hear(oban, "signal", "insert")
    return oban


def cancel_by(start: Starter, node: Oban, who: str) -> Cancel:
    """Give a way to cancel."""
    match who:
        case "its node":
            return node.cancel_job
        case "another node":
            return start(node="web.2", queues={"beta": 1}, **ALONE).cancel_job
        case "a program":
            return start.make(node="console").cancel_job
    return lambda one: in_a_hosts_transaction(start, node, one)


def in_a_hosts_transaction(start: Starter, node: Oban, one: Job) -> bool:
    """Cancel a job in a transaction that is rolled back, and in another one that is not."""
    with start.tables.engine.connect() as connection:
        assert node.cancel_job(one, connection=connection)
        connection.rollback()
        assert read(node, one).state == "executing"
        done = node.cancel_job(one, connection=connection)
        connection.commit()
    return done


@KINDS
@pytest.mark.usefixtures("_silent")
@pytest.mark.parametrize("who", ["its node", "another node", "a program", "a host"])
def test_a_cancel_reaches_the_run(
    start_oban: Starter, node: Oban, work: Work, told: Recorder, kind: str, who: str
) -> None:
    """Whoever cancels: the run is told, the row says so once, and no other job is."""
    cancel = cancel_by(start_oban, node, who)
    one, other = node.insert_all(jobs(kind, 2, "heed"))
    work.wait_inside(2)
    assert cancel(one)
    event = told.wait_for("oban.job.stop")

    assert (event.metadata["id"], event.metadata["state"]) == (one.id, "cancelled")
    assert work.told == {one.id: "cancelled"}
    after = read(node, one)
    assert (after.state, after.attempt, len(after.errors)) == ("cancelled", 1, 1)
    assert not node.cancel_job(one)
    assert read(node, other).state == "executing"
    work.open()
    wait_state(node, other, "completed")
    assert read(node, one) == after
    assert told.all("oban.job.stale") == []


@KINDS
@pytest.mark.usefixtures("_silent")
def test_a_cancel_of_many_reaches_each_node(start_oban: Starter, work: Work, kind: str) -> None:
    """Those of one call run on several nodes: each is told of its own, and the rest is not run."""
    nodes = [start_oban(node=f"web.{n}", queues={"alpha": 1}, **ALONE) for n in (1, 2)]
    for each in nodes:
        start_oban.hear(each, "signal", "insert")
    made = nodes[0].insert_all(jobs(kind, 5, "heed"))
    work.wait_inside(2)

    assert start_oban.make().cancel_all_jobs(queue="alpha") == 5

    wait_until(lambda: work.inside == 0)
    assert sorted(work.ran) == sorted(work.told)
    assert len(work.told) == 2
    for one in made:
        wait_state(nodes[0], one, "cancelled")


@KINDS
def test_a_cancel_whose_signal_was_lost(
    start_oban: Starter, node: Oban, work: Work, told: Recorder, kind: str
) -> None:
    """The next beat sees that the row is cancelled, and the run is told all the same."""
    one = node.insert(job(kind, "heed"))
    work.wait_inside(1)
    start_oban.tables.execute(
        "UPDATE {jobs} SET state = 'cancelled', cancelled_at = inserted_at WHERE id = :id",
        id=one.id,
    )
    node.ask("pulse", Beat(), timeout=30)
    told.wait_for("oban.job.stop")

    assert work.told == {one.id: "cancelled"}
    after = read(node, one)
    assert (after.state, after.cancelled_at) == ("cancelled", after.inserted_at)
    assert len(after.errors) == 1


@KINDS
@pytest.mark.usefixtures("_silent")
def test_a_cancel_that_comes_after_a_retry(
    start_oban: Starter, node: Oban, work: Work, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """It ends the run that was cancelled, and not the one that has begun meanwhile."""
    one = node.insert(job(kind, "heed"))
    work.wait_inside(1)
    late: list[dict[str, Any]] = []

    def keep(_connection: object, channel: str, payloads: list[dict[str, Any]]) -> None:
        assert channel == "signal"
        late.extend(payloads)

    console = start_oban.make(node="console")
    monkeypatch.setattr(console._controller, "publisher", Mock(publish=keep))
    assert console.cancel_job(one)
    assert console.retry_job(one)
    work.wait_inside(2)
    node.ask("notifier", Notify("signal", late), timeout=30)
    work.wait_inside(1)

    assert work.told == {one.id: "cancelled"}
    work.open()
    after = wait_state(node, one, "completed")
    assert (after.attempt, after.errors, len(work.ran)) == (2, [], 2)


@pytest.mark.usefixtures("_silent")
@pytest.mark.parametrize("how", ["one", "many", "host"])
def test_a_retry_wakes_its_queue(start_oban: Starter, node: Oban, work: Work, how: str) -> None:
    """A job that had ended runs again at once, though nothing but the retry tells of it."""
    one = node.insert(job("sync", "raise", max_attempts=1))
    spent = wait_state(node, one, "discarded")
    other = start_oban.make(node="console")
    match how:
        case "one":
            assert other.retry_job(one)
        case "many":
            assert other.retry_all_jobs(sa.select(other.jobs.c.id)) == 1
        case _:
            with start_oban.tables.engine.begin() as connection:
                assert other.retry_job(one, connection=connection)
    wait_until(lambda: len(read(node, one).errors) == 2)

    after = wait_state(node, one, "discarded")
    assert work.ran == [one.id, one.id]
    assert (after.attempt, after.max_attempts) == (2, 2)
    assert after.errors[0] == spent.errors[0]


def test_a_refusal_names_what_was_given(start_oban: Starter) -> None:
    """The option and its value, of two that exclude each other both."""
    oban = start_oban.make()
    here: tuple[dict[str, Any], ...] = ({"executor": "processes"}, {"dispatch_cooldown": 0.5})
    for given in here:
        ((option, value),) = given.items()
        said = f"'queues.gamma.{option}': expected none without local_only=True, .* got: {value!r}$"
        with pytest.raises(ConfigError, match=said):
            oban.start_queue("gamma", 3, **given)
    both = r"either local_only or a node, got both: local_only=True and node='web\.1'$"
    with pytest.raises(ConfigError, match=both):
        oban.stop_queue("alpha", local_only=True, node="web.1")

"""Figures as Prometheus and OpenTelemetry see them, of real instances on both databases."""

import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import sqlalchemy as sa
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from oban_actors import Job, Oban, ServerCrashed, Stage
from oban_actors.actors import TerminateChild
from oban_actors.metrics import ages, otel, prometheus
from oban_actors.metrics.ages import Ages, find_ages
from oban_actors.metrics.labels import MOST, OTHER, Labels
from tests.actors.lab import Gate, Run, lab
from tests.health.client import ANY, address, get
from tests.metrics import work
from tests.support.events import recording
from tests.support.instances import Starter, scheduled
from tests.support.waiting import wait_until


class Scraped:
    """A registry, asked as Prometheus asks."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()

    def value(self, sample: str, **labels: str) -> float | None:
        """The figure of one series, read from the text; None where there is none."""
        for name, found, value in self.samples():
            if name == sample and found == {"oban": "Oban", **labels}:
                return value
        return None

    def samples(self) -> list[tuple[str, dict[str, str], float]]:
        """All there is."""
        text = generate_latest(self.registry).decode()
        return [
            (sample.name, sample.labels, sample.value)
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        ]


@pytest.fixture
def scraped() -> Iterator[Scraped]:
    """Metrics are kept in a registry of this test's."""
    one = Scraped()
    attached = prometheus.attach(one.registry, name="Oban")
    yield one
    attached.detach()
    assert one.samples() == []


def place(worker: str = "say") -> dict[str, str]:
    """Labels of a worker of ours."""
    return {"queue": "alpha", "worker": f"tests.metrics.work.{worker}"}


def test_jobs(start_oban: Starter, scraped: Scraped) -> None:
    """Counted as they are inserted and as they end, with their times."""
    with recording("oban.job.stop", "oban.job.exception") as heard:
        oban = start_oban(queues={"alpha": 2})
        oban.insert_all([work.say.new(), work.say.new()])
        oban.insert(work.fail.new())
        heard.wait_for_count(2, "oban.job.stop")
        heard.wait_for("oban.job.exception")

    assert scraped.value("oban_jobs_inserted_total", **place()) == 2
    assert scraped.value("oban_jobs_total", **place(), state="success") == 2
    assert scraped.value("oban_jobs_total", **place("fail"), state="discard") == 1
    assert scraped.value("oban_job_duration_seconds_count", **place()) == 2
    assert scraped.value("oban_job_queue_time_seconds_count", **place()) == 2
    assert (scraped.value("oban_job_queue_time_seconds_sum", **place()) or -1) >= 0


def test_a_job_that_was_there_is_not_inserted(start_oban: Starter, scraped: Scraped) -> None:
    """A conflict counts for nothing."""
    oban = start_oban.make()
    for _ in range(3):
        oban.insert(work.say.new(unique=True))

    assert scraped.value("oban_jobs_inserted_total", **place()) == 1


def test_staging_and_leadership(start_oban: Starter, scraped: Scraped) -> None:
    """What the leader's passes did, and who leads."""
    oban = start_oban.leading()
    oban.insert(scheduled(-1))
    oban.ask("stager", Stage(), timeout=30)

    assert scraped.value("oban_jobs_staged_total") == 1
    assert (scraped.value("oban_staging_duration_seconds_count") or 0) >= 1
    assert scraped.value("oban_leader") == 1
    assert scraped.value("oban_leader_changes_total") == 1
    oban.stop()
    assert scraped.value("oban_leader") is None


def test_a_stager_that_the_database_fails(start_oban: Starter, scraped: Scraped) -> None:
    """Its failed passes are counted."""
    oban = start_oban.leading()
    gone = start_oban.tables.jobs.replace("oban_jobs", "gone")
    start_oban.tables.execute("ALTER TABLE {jobs} RENAME TO gone")
    try:
        oban.ask("stager", Stage(), timeout=30)
        assert (scraped.value("oban_plugin_failures_total", plugin="Stager") or 0) >= 1
    finally:
        start_oban.tables.execute(f"ALTER TABLE {gone} RENAME TO oban_jobs")


def test_actors(start_oban: Starter, scraped: Scraped) -> None:
    """Their inboxes, and how often they were restarted."""
    oban = start_oban(queues={"alpha": 1})
    wait_until(lambda: scraped.value("oban_actor_inbox", actor="stager") == 0)
    assert scraped.value("oban_actor_restarts_total", actor="producer alpha") == 0
    with pytest.raises(ServerCrashed):
        oban.ask("stager", object())

    wait_until(lambda: scraped.value("oban_actor_restarts_total", actor="stager") == 1)
    assert scraped.value("oban_actor_oldest_message_seconds", actor="stager") is not None


def test_an_actor_that_is_left_to_itself(start_oban: Starter, scraped: Scraped) -> None:
    """It stands in no tree any more, so metrics and health count it."""
    gate = Gate()
    hanging = SimpleNamespace(child_spec=lambda: lab("hanging", shutdown=0.001))
    oban = start_oban(plugins=[hanging], health=ANY)
    assert scraped.value("oban_actors_abandoned") == 0
    oban.tell("hanging", Run(gate))
    gate.wait()
    try:
        oban.ask("plugins", TerminateChild("hanging"), timeout=60)

        assert scraped.value("oban_actors_abandoned") == oban.abandoned == 1
        assert get(address(oban), "/live").body["abandoned"] == 1
    finally:
        gate.open()


def test_the_age_of_queues(
    start_oban: Starter, scraped: Scraped, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The oldest available job of each, whatever its priority; 0 where none waits."""
    monkeypatch.setattr(ages, "EVERY", 0.0)
    oban = start_oban(queues={"beta": {"limit": 1, "paused": True}})
    oban.insert_all(
        [
            Job.new(worker="w", queue="alpha", schedule_in=-30, state="available", priority=5),
            Job.new(worker="w", queue="alpha", schedule_in=-10, state="available", priority=0),
            Job.new(worker="w", queue="gamma", schedule_in=-20, state="available"),
            Job.new(worker="w", queue="later", schedule_in=100),
        ]
    )

    def age(queue: str) -> float:
        return scraped.value("oban_queue_age_seconds", queue=queue) or 0.0

    wait_until(lambda: age("gamma") > 0)
    assert 30 <= age("alpha") < 90
    assert 20 <= age("gamma") < 80
    assert scraped.value("oban_queue_age_seconds", queue="beta") == 0
    assert scraped.value("oban_queue_age_seconds", queue="later") is None


def test_scrapes_cost_the_database_little(start_oban: Starter, scraped: Scraped) -> None:
    """However many there are, it is asked every ten seconds, through the index."""
    oban = start_oban(queues={"alpha": 1})
    wait_until(lambda: scraped.value("oban_queue_age_seconds", queue="alpha") == 0)
    threads: list[str] = []

    def note(*_: object) -> None:
        threads.append(threading.current_thread().name)

    sa.event.listen(oban.repo.engine, "before_cursor_execute", note)
    for _ in range(50):
        scraped.samples()

    assert threads.count("oban-queue-ages") <= 20  # a look or two, never one for each scrape
    assert "MainThread" not in threads


def test_a_database_that_is_away_keeps_nobody_waiting(
    start_oban: Starter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who asks gets what was seen, until that is old; nothing is raised."""
    monkeypatch.setattr(ages, "PATIENCE", 30.0)
    oban = start_oban.make(queues={"alpha": 1})
    known = Ages()
    assert known.read(oban) == {"alpha": 0.0}
    monkeypatch.setattr(ages, "EVERY", 0.0)
    monkeypatch.setattr(ages, "PATIENCE", 0.01)
    hang = threading.Event()
    monkeypatch.setattr(ages, "find_ages", lambda *_: hang.wait(30) and {})
    try:
        assert known.read(oban)["alpha"] == 0.0
        monkeypatch.setattr(ages, "FORGET", 0.0)
        assert known.read(oban) == {}
    finally:
        hang.set()


def test_a_database_that_refuses_is_asked_no_more_often(
    start_oban: Starter, caplog: pytest.LogCaptureFixture
) -> None:
    """Its failure is a look as any other."""
    oban = start_oban.make(queues={"alpha": 1})
    gone = start_oban.tables.jobs.replace("oban_jobs", "gone")
    start_oban.tables.execute("ALTER TABLE {jobs} RENAME TO gone")
    known = Ages()
    with caplog.at_level("DEBUG", "oban_actors"):
        for _ in range(5):
            assert known.read(oban) == {}
    start_oban.tables.execute(f"ALTER TABLE {gone} RENAME TO oban_jobs")

    assert caplog.text.count("the ages of the queues are not known") == 1


def test_ages_are_read_through_the_index(start_oban: Starter) -> None:
    """From queue to queue: a backlog is not walked."""
    oban = start_oban.make()
    oban.insert_all([Job.new(worker="w", queue=f"q{number % 7}") for number in range(2_000)])
    statements: list[str] = []

    def note(_c: object, _cursor: object, statement: str, *_: object) -> None:
        statements.append(statement)

    sa.event.listen(oban.repo.engine, "before_cursor_execute", note)
    found = oban.repo.transaction(lambda c: find_ages(c, oban.repo), read_only=True)

    assert set(found) == {f"q{number}" for number in range(7)}
    assert len([each for each in statements if "scheduled_at" in each]) == 8


def test_its_own_queues_are_looked_at_whatever_others_there_are(
    start_oban: Starter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The walk ends somewhere, but never before those: none is taken for empty that is not."""
    monkeypatch.setattr(ages, "MOST_STEPS", 4)
    monkeypatch.setattr(ages, "PATIENCE", 30.0)
    oban = start_oban.make(queues={"b": 1, "q1": 1, "z": 1})
    oban.insert_all([Job.new(worker="w", queue=f"q{number}") for number in range(7)])
    oban.insert_all([Job.new(worker="w", queue="z", priority=n, schedule_in=-n) for n in (3, 1)])
    oban.insert(Job.new(worker="w", queue="z", priority=2, schedule_in=-60, state="available"))

    found = oban.repo.transaction(lambda c: find_ages(c, oban.repo))
    assert set(found) == {"q0", "q1", "q2", "q3", "z"}
    assert found["z"] >= 60
    assert Ages().read(oban)["b"] == 0.0


def test_a_thread_that_can_not_be_started_is_started_another_time(
    start_oban: Starter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The system may have none left for a while; what else is measured is told all the same."""
    monkeypatch.setattr(ages, "EVERY", 0.0)
    monkeypatch.setattr(ages, "PATIENCE", 30.0)
    oban = start_oban.make(queues={"alpha": 1})
    known = Ages()
    with monkeypatch.context() as patch:

        def refuse(_thread: threading.Thread) -> None:
            raise RuntimeError("can't start new thread")

        patch.setattr(threading.Thread, "start", refuse)
        for _ in range(2):
            assert known.read(oban) == {}
    assert known.read(oban) == {"alpha": 0.0}


def test_two_instances_of_one_name(start_oban: Starter, scraped: Scraped) -> None:
    """Each with a database or prefix of its own: they are shown as one, once."""
    first, second = start_oban(queues={"alpha": 1}), start_oban(queues={"alpha": 1})
    wait_until(lambda: scraped.value("oban_leader") == 1)
    names = [(name, *sorted(labels.items())) for name, labels, _ in scraped.samples()]
    assert len(names) == len(set(names))
    assert first.alive
    assert second.alive


def test_it_is_detached_once() -> None:
    """A second time does nothing."""
    attached = prometheus.attach(CollectorRegistry())
    attached.detach()
    attached.detach()


def test_each_step_is_one_search_of_the_index(start_oban: Starter) -> None:
    """No sort, no scan, whatever the planner knows of the table."""
    oban = start_oban.make()
    postgres = start_oban.database.kind == "postgresql"
    oban.insert_all([Job.new(worker="w", queue=f"q{number % 7}") for number in range(2_000)])
    plans: list[str] = []

    def explain(_c: object, cursor: Any, statement: str, values: Any, *_: object) -> None:
        if "oban_jobs" in statement:
            cursor.execute(f"EXPLAIN {'' if postgres else 'QUERY PLAN '}{statement}", values)
            plans.append(str(cursor.fetchall()))

    sa.event.listen(oban.repo.engine, "before_cursor_execute", explain)
    oban.repo.transaction(lambda c: find_ages(c, oban.repo))

    assert len(plans) == 8
    for plan in plans:
        assert "oban_jobs_state_queue_priority_scheduled_at_id_index" in plan
        assert not any(word in plan for word in ("Sort", "Seq Scan", "TEMP B-TREE"))


def test_labels_stay_few() -> None:
    """The first hundred queues, and workers that are registered."""
    labels = Labels()
    found = {labels.queue(f"tenant-{number}") for number in range(MOST + 50)}

    assert len(found) == MOST + 1
    assert OTHER in found
    assert labels.queue("tenant-7") == "tenant-7"
    assert labels.worker("tests.metrics.work.say") == "tests.metrics.work.say"
    assert labels.worker("whatever.anybody.inserts") == OTHER


def test_only_the_instance_that_was_named(start_oban: Starter) -> None:
    """Others of the program have metrics elsewhere."""
    one = Scraped()
    attached = prometheus.attach(one.registry, name="Other")
    try:
        oban = start_oban()
        oban.insert(work.say.new())
        assert [sample for sample in one.samples() if sample[1].get("oban") == "Oban"] == []
    finally:
        attached.detach()


def test_a_registry_takes_them_once() -> None:
    """A second time is refused, and leaves the first as it was."""
    one = Scraped()
    attached = prometheus.attach(one.registry)
    with pytest.raises(ValueError, match="Duplicated"):
        prometheus.attach(one.registry)
    attached.detach()
    prometheus.attach(one.registry).detach()


def test_the_same_for_opentelemetry(start_oban: Starter) -> None:
    """Counters, histograms and what is read, with the real SDK."""
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader])
    attached = otel.attach(meter_provider=provider)
    try:
        with recording("oban.job.stop") as heard:
            oban = start_oban.leading(queues={"alpha": 1})
            oban.insert(work.say.new())
            heard.wait_for("oban.job.stop")
        found = wait_until(lambda: _complete(_points(reader)))
    finally:
        attached.detach()
        provider.shutdown()

    [jobs] = found["oban.jobs"]
    assert jobs.value == 1
    assert dict(jobs.attributes) == {
        "oban.name": "Oban",
        "oban.queue": "alpha",
        "oban.worker": "tests.metrics.work.say",
        "oban.state": "success",
    }
    assert found["oban.job.duration"][0].count == 1
    assert found["oban.leader"][0].value == 1
    assert found["oban.queue.age"][0].attributes["oban.queue"] == "alpha"
    actors = {point.attributes["oban.actor"] for point in found["oban.actor.restarts"]}
    assert {"oban", "stager", "peer", "producer alpha"} <= actors


def _points(reader: InMemoryMetricReader) -> dict[str, list[Any]]:
    data = reader.get_metrics_data()
    if data is None:
        return {}
    return {
        metric.name: list(metric.data.data_points)
        for resource in data.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
    }


def _complete(found: dict[str, list[Any]]) -> dict[str, list[Any]]:
    return found if "oban.queue.age" in found and "oban.jobs" in found else {}


def test_an_instance_that_is_gone_is_not_kept(start_oban: Starter) -> None:
    """Metrics hold no instance alive."""
    import gc  # noqa: PLC0415 (this test's alone)
    import weakref  # noqa: PLC0415 (likewise)

    one = Scraped()
    attached = prometheus.attach(one.registry)
    try:
        oban = Oban(start_oban.database.url, prefix=start_oban.database.prefix)
        oban.migrate()
        with oban:
            one.samples()
        gone = weakref.ref(oban)
        del oban

        def collected() -> bool:
            gc.collect()
            return gone() is None

        wait_until(collected)
    finally:
        attached.detach()

"""What an insert on PostgreSQL is sent as: one message and its COMMIT, where that is possible."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from oban_actors import Job, Oban
from oban_actors.engines import PostgresEngine
from oban_actors.repo.key_indexes import Column, KeyIndex
from oban_actors.repo.message import Message
from tests.support.databases import Database
from tests.support.events import Event, Recorder, recording
from tests.support.instances import Starter


@pytest.fixture
def database(pg: Database) -> Database:
    """Messages are PostgreSQL's alone."""
    return pg


@pytest.fixture
def oban(start_oban: Starter) -> Oban:
    """One that does nothing by itself."""
    return start_oban(stager=None, peer=False)


def counted(oban: Oban, patch: pytest.MonkeyPatch, name: str) -> list[str]:
    """Note each call of a method of its repo that this thread makes."""
    calls: list[str] = []
    method: Callable[..., Any] = getattr(oban.repo, name)

    def call(*given: Any, **options: Any) -> Any:
        if name == "opened" or options.get("idempotent") is False:
            calls.append(name)
        return method(*given, **options)

    patch.setattr(oban.repo, name, call)
    return calls


def of(oban: Oban) -> Callable[[Event], bool]:
    """Tell which events are this instance's."""
    return lambda event: event.metadata["conf"] is oban.config


def notified(told: Recorder, oban: Oban) -> list[Any]:
    """Give what was sent on the channel `insert`."""
    events = told.all("oban.notifier.notify.stop", of(oban))
    return [each.metadata["payload"] for each in events if each.metadata["channel"] == "insert"]


def told_due(told: Recorder, oban: Oban) -> list[datetime]:
    """Give when the leader was told to look."""
    events = told.all("oban.notifier.notify.stop", of(oban))
    payloads = [payload for event in events for payload in event.metadata["payload"]]
    return [datetime.fromisoformat(each["due"]) for each in payloads if "due" in each]


def test_new_jobs_that_can_run_go_in_one_message(
    oban: Oban, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are as any others, each queue is told once, and the events are the same."""
    messages = counted(oban, monkeypatch, "opened")
    transactions = counted(oban, monkeypatch, "transaction")
    with recording("oban.engine.insert_all_jobs.stop", "oban.notifier.notify.stop") as told:
        jobs = [
            Job.new(worker="w", args={"n": n, "text": "it's %s"}, queue="ab"[n % 2])
            for n in range(4)
        ]
        made = oban.insert_all(jobs)

    assert messages == ["opened"]
    assert transactions == []
    assert [oban.get_job(job.id or 0) for job in made] == made
    assert [job.args["n"] for job in made] == [0, 1, 2, 3]

    assert told.all("oban.engine.insert_all_jobs.stop", of(oban))[0].metadata["jobs"] == made
    assert notified(told, oban) == [[{"queue": "a"}, {"queue": "b"}]]


def test_a_unique_job_goes_in_one_message(oban: Oban, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is looked for, inserted and told of at once."""
    messages = counted(oban, monkeypatch, "opened")
    transactions = counted(oban, monkeypatch, "transaction")
    with recording("oban.engine.insert_job.stop", "oban.notifier.notify.stop") as told:
        made = oban.insert(Job.new({"n": 1}, worker="w", queue="a", unique=True))

    assert (messages, transactions) == (["opened"], [])
    assert not made.conflict
    assert oban.get_job(made.id or 0) == made
    assert told.all("oban.engine.insert_job.stop", of(oban))[0].metadata["job"] == made
    assert notified(told, oban) == [[{"queue": "a"}]]


@pytest.mark.parametrize("state", ["available", "completed"])
def test_one_that_is_there_is_given_in_its_place(oban: Oban, state: str) -> None:
    """Nothing is written; its own queue is told if it can run."""
    there = oban.insert(Job.new({"n": 1}, worker="w", queue="there", state=state))
    unique = {"fields": ["worker", "args"], "period": None}
    with recording("oban.engine.insert_job.stop", "oban.notifier.notify.stop") as told:
        found = oban.insert(Job.new({"n": 1}, worker="w", queue="other", unique=unique))

    assert (found.id, found.conflict, found.state) == (there.id, True, state)
    assert told.all("oban.engine.insert_job.stop", of(oban))[0].metadata["job"] == found
    assert notified(told, oban) == ([[{"queue": "there"}]] if state == "available" else [])
    assert len(oban.all_jobs()) == 1


def test_one_that_is_there_is_replaced_in_the_same_transaction(
    oban: Oban, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While others are kept out."""
    there = oban.insert(Job.new({"n": 1}, worker="w", queue="there", priority=1))
    messages = counted(oban, monkeypatch, "opened")
    transactions = counted(oban, monkeypatch, "transaction")

    made = oban.insert(
        Job.new(
            {"n": 1},
            worker="w",
            queue="there",
            priority=3,
            unique=True,
            replace=["priority"],
        )
    )

    assert (messages, transactions) == (["opened"], [])
    assert (made.id, made.conflict, made.priority) == (there.id, True, 3)
    assert oban.get_job(there.id or 0).priority == 3


def test_one_that_goes_between_the_look_and_the_reading_leaves_room(
    oban: Oban, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The job is inserted after all, in the same transaction."""
    there = oban.insert(Job.new({"n": 1}, worker="w"))
    read = PostgresEngine.read_jobs

    def gone(engine: PostgresEngine, connection: Any, ids: Any, *, lock: bool) -> Any:
        with ThreadPoolExecutor(1) as threads:
            threads.submit(oban.delete_job, there).result()
        return read(engine, connection, ids, lock=lock)

    monkeypatch.setattr(PostgresEngine, "read_jobs", gone)
    made = oban.insert(Job.new({"n": 1}, worker="w", unique=True))

    assert not made.conflict
    assert [job.id for job in oban.all_jobs()] == [made.id]


@pytest.mark.parametrize(
    "unique",
    [
        True,
        {"period": 60},
        {"keys": ["n"], "period": 60},
        {"keys": ["it's \\ 100%", "%(key_1)s %(items)s :now\n"]},
        {"fields": ["worker", "meta"]},
        {"fields": ["worker", "meta"], "keys": ["n"], "period": 60},
        {"fields": ["queue"], "states": "all"},
        {"fields": ["args"], "timestamp": "scheduled_at", "period": 3600},
    ],
    ids=str,
)
def test_what_a_session_has_prepared_finds_the_same(start_oban: Starter, unique: Any) -> None:
    """From the third time on; and a job that differs is never taken for the same."""
    keys = unique.get("keys") if isinstance(unique, dict) else None
    oban = start_oban(
        stager=None, peer=False, unique_keys=keys or ["n"], unique_meta_keys=keys or ["n"]
    )
    for n in range(5):
        args = dict.fromkeys([*(keys or ["n"])], n)
        job = Job.new(args, worker="w", queue=f"q{n}", meta={"n": n}, unique=unique)

        made, found = oban.insert(job), oban.insert(job)

        assert (made.conflict, found.conflict) == (False, True)
        assert found.id == made.id
    assert len(oban.all_jobs()) == 5


@pytest.mark.parametrize("keys", [("it's %",), ("b", "it's %")], ids=len)
@pytest.mark.parametrize("column", ["args", "meta"])
def test_an_index_for_keys_serves_what_is_prepared(
    start_oban: Starter,
    monkeypatch: pytest.MonkeyPatch,
    pg_conninfo: str,
    column: Column,
    keys: tuple[str, ...],
) -> None:
    """A plan for any values uses it, as the keys themselves are none of them."""
    oban = start_oban(stager=None, peer=False, unique_keys=[keys], unique_meta_keys=[keys])
    unique = {"fields": ["worker", column], "keys": keys}
    document: dict[str, Any] = {column: dict.fromkeys(keys, 1)}
    job = Job.new(worker="w", unique=unique, **document)
    sent: list[tuple[Message, Any]] = []
    send = oban.repo._send

    def noted(connection: Any, message: Message, parameters: Any) -> list[Any]:
        sent.append((message, parameters))
        return send(connection, message, parameters)

    monkeypatch.setattr(oban.repo, "_send", noted)
    oban.insert(job)

    ((message, parameters),) = sent
    explained = "; ".join(
        f"EXPLAIN {each}" if "%(items)s" in each else each for each in message.short.split("; ")
    )
    with psycopg.connect(pg_conninfo, cursor_factory=psycopg.ClientCursor) as connection:
        connection.execute(message.preparing(sorted(message.names)))
        cursor = connection.cursor()
        cursor.execute(explained, parameters)
        shown = [str(each.fetchall()) for each in cursor.results() if each.description]
    assert KeyIndex(column, keys).name in shown[-1]


@pytest.mark.parametrize("unique", [None, True], ids=["new", "unique"])
@pytest.mark.parametrize(
    ("how", "due"),
    [
        ({"schedule_in": timedelta(hours=1)}, 0),
        ({"schedule_in": 1}, 1),
        ({"scheduled_at": datetime(2026, 1, 1, tzinfo=UTC)}, 1),
        ({"tags": ["rare"]}, 0),
        ({"state": "scheduled"}, 1),
        ({"state": "completed"}, 0),
    ],
    ids=str,
)
def test_any_job_goes_in_one_message(
    oban: Oban, monkeypatch: pytest.MonkeyPatch, how: dict[str, Any], due: int, unique: Any
) -> None:
    """Those due later too, of which the leader is told in the same transaction if they soon are."""
    messages = counted(oban, monkeypatch, "opened")
    transactions = counted(oban, monkeypatch, "transaction")
    with recording("oban.notifier.notify.stop") as told:
        made = oban.insert(Job.new(worker="w", unique=unique, **how))

    assert (messages, transactions) == (["opened"], [])
    assert oban.get_job(made.id or 0) == made
    ready = made.state == "available"
    assert notified(told, oban) == ([[{"queue": "default"}]] if ready else [])
    assert told_due(told, oban) == [made.scheduled_at] * due


def test_a_few_of_all_kinds_go_in_one_message(oban: Oban, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each queue is told of what can run at once, and the leader of what is due first."""
    messages = counted(oban, monkeypatch, "opened")
    jobs = [
        Job.new({"n": n}, worker="w", queue=f"q{n}", schedule_in=delay, tags=list("abcd"[:n]))
        for n, delay in enumerate([None, 30, 20, None, 3600])
    ]
    with recording("oban.notifier.notify.stop") as told:
        made = oban.insert_all(jobs)

    assert messages == ["opened"]
    assert [oban.get_job(job.id or 0) for job in made] == made
    assert [job.tags for job in made] == [list("abcd"[:n]) for n in range(5)]
    assert notified(told, oban) == [[{"queue": "q0"}, {"queue": "q3"}]]
    assert told_due(told, oban) == [made[2].scheduled_at]


def test_several_unique_ones_go_step_by_step(oban: Oban, monkeypatch: pytest.MonkeyPatch) -> None:
    """They may be the same as each other."""
    messages = counted(oban, monkeypatch, "opened")
    transactions = counted(oban, monkeypatch, "transaction")

    made = oban.insert_all([Job.new(worker="w", unique=True), Job.new(worker="w")])

    assert (messages, transactions) == ([], ["transaction"])
    assert len(made) == 2


def test_many_go_step_by_step(oban: Oban, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the ways to the server are no part of it, values are better sent apart."""
    messages = counted(oban, monkeypatch, "opened")

    assert len(oban.insert_all([Job.new(worker="w") for _ in range(101)])) == 101
    assert messages == []

"""What an insert on PostgreSQL is sent as: one message and its COMMIT, where that is possible."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from oban_actors import Job, Oban
from tests.support.databases import Database
from tests.support.events import Event, recording
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
        if "traced" in options or options.get("idempotent") is False:
            calls.append(name)
        return method(*given, **options)

    patch.setattr(oban.repo, name, call)
    return calls


def test_new_jobs_that_can_run_go_in_one_message(
    oban: Oban, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are as any others, each queue is told once, and the events are the same."""
    messages = counted(oban, monkeypatch, "message")
    transactions = counted(oban, monkeypatch, "transaction")
    with recording("oban.engine.insert_all_jobs.stop", "oban.notifier.notify.stop") as told:
        jobs = [
            Job.new(worker="w", args={"n": n, "text": "it's %s"}, queue="ab"[n % 2])
            for n in range(4)
        ]
        made = oban.insert_all(jobs)

    assert messages == ["message"]
    assert transactions == []
    assert [oban.get_job(job.id or 0) for job in made] == made
    assert [job.args["n"] for job in made] == [0, 1, 2, 3]

    def ours(event: Event) -> bool:
        return event.metadata["conf"] is oban.config

    def inserted(event: Event) -> bool:
        return ours(event) and event.metadata["channel"] == "insert"

    assert told.all("oban.engine.insert_all_jobs.stop", ours)[0].metadata["jobs"] == made
    (event,) = told.all("oban.notifier.notify.stop", inserted)
    assert event.metadata["payload"] == [{"queue": "a"}, {"queue": "b"}]


@pytest.mark.parametrize(
    "how",
    [
        {"schedule_in": timedelta(hours=1)},
        {"unique": True},
        {"tags": ["rare"]},
        {"state": "scheduled"},
    ],
    ids=str,
)
def test_others_go_step_by_step(
    oban: Oban, monkeypatch: pytest.MonkeyPatch, how: dict[str, Any]
) -> None:
    """Those that are looked for first, due later, or seldom."""
    messages = counted(oban, monkeypatch, "message")
    transactions = counted(oban, monkeypatch, "transaction")

    made = oban.insert(Job.new(worker="w", **how))

    assert messages == []
    assert transactions == ["transaction"]
    assert oban.get_job(made.id or 0) == made


def test_many_go_step_by_step(oban: Oban, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the ways to the server are no part of it, values are better sent apart."""
    messages = counted(oban, monkeypatch, "message")

    assert len(oban.insert_all([Job.new(worker="w") for _ in range(101)])) == 101
    assert messages == []

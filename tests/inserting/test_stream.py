"""Inserting from an iterator."""

from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import sqlalchemy as sa

from oban_actors import Job, Oban, inserting
from oban_actors.errors import InvalidJob, TransientError
from oban_actors.inserting import CHUNK
from tests.support.events import Recorder
from tests.support.instances import Starter


@pytest.fixture
def oban(start_oban: Starter) -> Oban:
    """An instance that is not started."""
    return start_oban.make()


def jobs(count: int) -> Iterator[Job]:
    """Make jobs one after the other."""
    for number in range(count):
        yield Job.new({"n": number}, worker="tests.Worker")


def test_in_chunks(oban: Oban, events: Recorder) -> None:
    """It is taken piece by piece, and all are returned in their order."""
    taken = 0
    seen: list[int] = []

    def watched() -> Iterator[Job]:
        nonlocal taken
        for taken, job in enumerate(jobs(2 * CHUNK + 3), start=1):  # noqa: B007 (it is told outside)
            seen.append(len(events.all("oban.engine.insert_all_jobs.stop")))
            yield job

    done = oban.insert_all(watched())

    assert [job.args["n"] for job in done] == list(range(2 * CHUNK + 3))
    assert taken == 2 * CHUNK + 3
    assert (seen[0], seen[CHUNK + 1], seen[-1]) == (0, 1, 2)


async def later() -> AsyncIterator[Job]:
    """Make a job in a way that nobody can wait for here."""
    yield Job.new(worker="tests.Worker")


def test_nothing(oban: Oban) -> None:
    """An empty one inserts nothing."""
    assert oban.insert_all(iter([])) == []


def test_tried_again(oban: Oban, start_oban: Starter, monkeypatch: pytest.MonkeyPatch) -> None:
    """What an iterator gave before its transaction failed is inserted by the next one, once."""
    monkeypatch.setattr(inserting, "CHUNK", 2)
    insert = oban._engine.insert_jobs
    calls: list[int] = []

    def failing(connection: sa.Connection, given: list[Job], now: Any) -> list[Job]:
        calls.append(len(given))
        if len(calls) == 3:
            raise TransientError("put in")
        return insert(connection, given, now)

    monkeypatch.setattr(oban._engine, "insert_jobs", failing)
    done = oban.insert_all(jobs(7))

    assert calls == [2, 2, 2, 2, 2, 2, 1]
    assert [job.args["n"] for job in done] == list(range(7))
    assert set(start_oban.tables.states()) == {job.id for job in done}


def test_unique_from_chunk_to_chunk(oban: Oban, monkeypatch: pytest.MonkeyPatch) -> None:
    """Jobs of one call are unique among each other, whichever chunk they come in."""
    monkeypatch.setattr(inserting, "CHUNK", 2)
    unique = (Job.new({"n": n % 3}, worker="tests.Worker", unique=True) for n in range(7))

    done = oban.insert_all(unique)

    assert [job.conflict for job in done] == [False] * 3 + [True] * 4
    assert [job.id for job in done] == [done[n % 3].id for n in range(7)]


def test_failing(oban: Oban, start_oban: Starter) -> None:
    """One that fails on its way leaves nothing behind, and its error comes through."""

    def failing() -> Iterator[Job]:
        yield from jobs(CHUNK + 1)
        raise LookupError("no more")

    with pytest.raises(LookupError, match="no more"):
        oban.insert_all(failing())

    assert start_oban.tables.states() == {}


def test_failing_by_a_conflict_of_its_own(
    oban: Oban, start_oban: Starter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its error may look like one to try again for; still what it gave before is not all."""
    monkeypatch.setattr(inserting, "CHUNK", 2)

    def failing() -> Iterator[Job]:
        yield from jobs(3)
        raise TransientError("met by whoever makes the jobs")

    with pytest.raises(TransientError, match="met by whoever"):
        oban.insert_all(failing())

    assert start_oban.tables.states() == {}


def test_invalid(oban: Oban, start_oban: Starter) -> None:
    """A job that can't be stored, or is none, leaves nothing behind either."""

    def invalid(last: object) -> Iterator[Job]:
        yield from jobs(CHUNK)
        yield last  # type: ignore[misc]  # as a careless host would

    with pytest.raises(InvalidJob, match="'worker'"):
        oban.insert_all(invalid(Job(worker="")))
    with pytest.raises(InvalidJob, match="expected a Job, got: str"):
        oban.insert_all(invalid("job"))
    with pytest.raises(InvalidJob, match="use insert"):
        oban.insert_all(Job(worker="w"))  # type: ignore[arg-type]  # as above
    for wrong in (None, 5, later()):
        with pytest.raises(InvalidJob, match=f"an iterable of jobs, got: {type(wrong).__name__}"):
            oban.insert_all(wrong)  # type: ignore[arg-type]  # as above

    assert start_oban.tables.states() == {}

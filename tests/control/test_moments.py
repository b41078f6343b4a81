"""What the times of jobs may be compared with, by us and by the host itself."""

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from oban_actors import ConfigError, Oban
from oban_actors.repo.job_table import Moment
from tests.control.conftest import job_in
from tests.support.instances import Tables

NAIVE = datetime(2026, 1, 2, 3)  # noqa: DTZ001 (a naive one is the point)
AWARE = NAIVE.replace(tzinfo=UTC)
GOT = "expected an aware datetime, got: one without a time zone, 2026-01-02T03:00:00"

Query = Callable[[sa.Table], Any]


@pytest.mark.parametrize(
    "query",
    [
        lambda jobs: jobs.c.inserted_at > NAIVE,
        lambda jobs: sa.literal(1) + jobs.c.id > sa.case((jobs.c.inserted_at > NAIVE, 1)),
        lambda jobs: jobs.c.inserted_at.between(AWARE, NAIVE),
        lambda jobs: jobs.c.inserted_at.in_([AWARE, NAIVE]),
        lambda jobs: sa.or_(jobs.c.id == 1, ~(jobs.c.inserted_at < NAIVE)),
        lambda jobs: sa.select(jobs).where(jobs.c.inserted_at > NAIVE),
        lambda jobs: jobs.c.id.in_(sa.select(jobs.c.id).where(jobs.c.inserted_at > NAIVE)),
        lambda jobs: sa.select(sa.func.max(jobs.c.id)).having(
            sa.func.max(jobs.c.inserted_at) > NAIVE
        ),
    ],
    ids=["greater", "case", "between", "among", "within", "select", "subquery", "having"],
)
def test_naive_ones_are_refused(oban: Oban, query: Query) -> None:
    """Nobody knows which moment they are; nothing is sent, whatever the call does."""
    oban.insert_all(job_in("available") for _ in range(2))
    sent: list[str] = []
    sa.event.listen(
        oban.repo.engine, "before_cursor_execute", lambda *given: sent.append(str(given[2]))
    )

    for call in (oban.all_jobs, oban.cancel_all_jobs, oban.retry_all_jobs, oban.delete_all_jobs):
        with pytest.raises(ConfigError, match=rf"^invalid value for 'inserted_at': {GOT}$"):
            call(query(oban.jobs))

    assert sent == []
    assert len(oban.all_jobs(state="available")) == 2


@pytest.mark.parametrize("value", ["2026-01-02", date(2026, 1, 2), timedelta(hours=1), 3])
def test_other_values_are_refused(oban: Oban, value: Any) -> None:
    """What is no moment at all, likewise."""
    with pytest.raises(ConfigError, match=r"'scheduled_at': expected an aware datetime, got: "):
        oban.all_jobs(oban.jobs.c.scheduled_at < value)


def test_aware_ones_of_any_zone(oban: Oban) -> None:
    """A moment is the same whoever writes it; NULL is none to be compared with."""
    job = oban.insert(job_in("available"))
    assert job.inserted_at is not None
    there = job.inserted_at.astimezone()
    inserted, completed = oban.jobs.c.inserted_at, oban.jobs.c.completed_at

    assert oban.all_jobs(inserted == there) == [job]
    assert oban.all_jobs(inserted.in_([there, AWARE]) & completed.is_(None)) == [job]
    assert oban.all_jobs(sa.or_(completed == sa.null(), completed == None)) == [job]  # noqa: E711 (as SQLAlchemy has it)
    assert oban.all_jobs(inserted < there) == []


@pytest.mark.parametrize(
    "statement",
    [
        lambda jobs: sa.select(jobs).where(jobs.c.inserted_at > NAIVE),
        lambda jobs: sa.delete(jobs).where(jobs.c.inserted_at.in_([NAIVE])),
        lambda jobs: sa.update(jobs).values(inserted_at=NAIVE),
    ],
    ids=["select", "delete", "update"],
)
def test_in_statements_of_the_host(oban: Oban, tables: Tables, statement: Query) -> None:
    """A session of its own says the same, in the same words, and can be used further."""
    oban.insert(job_in("available"))

    with Session(tables.engine) as session:
        with pytest.raises(ConfigError, match=rf"^invalid value for 'inserted_at': {GOT}$"):
            session.execute(statement(oban.jobs))
        kept = sa.select(oban.jobs.c.id).where(oban.jobs.c.inserted_at > AWARE)
        assert list(session.execute(kept).scalars()) == [1]


def test_of_values_that_come_later(oban: Oban) -> None:
    """What a condition asks for only as it is sent is refused then."""
    later = sa.bindparam("later", callable_=lambda: NAIVE, type_=Moment("inserted_at"))

    with pytest.raises(ConfigError, match=GOT):
        oban.all_jobs(oban.jobs.c.inserted_at > later)

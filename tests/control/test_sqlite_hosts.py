"""Control in a host's transaction on SQLite, which has not begun before something is written."""

import sqlite3
from datetime import UTC, datetime
from typing import Any

import pytest
import sqlalchemy as sa

from oban_actors import Job, Oban
from oban_actors.job_changes import JobChanges
from tests.inserting.hosts import bare_sqlite, sqlalchemy_session
from tests.support.databases import Database
from tests.support.instances import Starter

CLAIM = (
    "UPDATE oban_jobs SET state = 'executing', attempt = attempt + 1 "
    "WHERE id = ? AND state <> 'executing'"
)


@pytest.fixture
def oban(start_sqlite: Starter) -> Oban:
    """An instance that is not started."""
    return start_sqlite.make()


def claims(file: Database, job_id: int | None) -> bool:
    """Tell whether another connection can begin the job now."""
    path = sa.make_url(file.url).database or ""
    connection = sqlite3.connect(path, timeout=0, isolation_level=None)
    try:
        return connection.execute(CLAIM, (job_id,)).rowcount == 1
    except sqlite3.OperationalError as error:
        if "locked" not in str(error):
            raise
        return False
    finally:
        connection.close()


@pytest.mark.parametrize("make", [sqlalchemy_session, bare_sqlite])
def test_nobody_begins_a_job_that_is_updated(oban: Oban, start_sqlite: Starter, make: Any) -> None:
    """What a function makes of a job is written into the row that it was shown."""
    job = oban.insert(Job.new(worker="tests.Worker"))
    begun: list[bool] = []

    def later(shown: Job) -> JobChanges:
        begun.append(claims(start_sqlite.database, shown.id))
        return {"scheduled_at": datetime(2100, 1, 1, tzinfo=UTC)}

    with make(start_sqlite.database, "sqlite") as host:
        oban.update_job(job, later, session=host.handle)
        host.commit()

    assert begun == [False]
    assert start_sqlite.tables.states() == {job.id: "scheduled"}


@pytest.mark.parametrize(
    ("action", "before", "after"),
    [
        ("cancel", {}, "cancelled"),
        ("retry", {"schedule_in": 60}, "available"),
        ("delete", {}, None),
    ],
)
def test_nobody_begins_a_job_that_is_changed(
    oban: Oban, start_sqlite: Starter, action: str, before: dict[str, Any], after: str | None
) -> None:
    """A job that waited as it was looked at waits still as it is changed."""
    job = oban.insert(Job.new(worker="tests.Worker", **before))
    begun: list[bool] = []

    def meanwhile(_connection: Any, _cursor: Any, statement: str, *_: object) -> None:
        if statement.startswith("SELECT"):
            begun.append(claims(start_sqlite.database, job.id))

    with sqlalchemy_session(start_sqlite.database, "sqlite") as host:
        sa.event.listen(host.handle.connection(), "after_cursor_execute", meanwhile)
        assert getattr(oban, f"{action}_job")(job, session=host.handle)
        host.commit()

    assert begun
    assert not any(begun)
    assert start_sqlite.tables.states() == ({} if after is None else {job.id: after})

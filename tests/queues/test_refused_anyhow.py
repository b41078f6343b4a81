"""Rows that the database refuses to change, by whatever error, also at the COMMIT."""

import logging
from collections.abc import Iterator
from typing import Any

import pytest

from oban_actors import Oban
from tests.queues.work import Work, jobs
from tests.support.databases import Database
from tests.support.instances import Starter, starter
from tests.support.refusing import NO_TABLE, OF_THEIR_OWN, PLAIN, refuse
from tests.support.waiting import wait_until

ALPHA: dict[str, Any] = {"queues": {"alpha": 5}, "stager": None}
KINDS = pytest.mark.parametrize(
    ("body", "kind"),
    [(OF_THEIR_OWN, "row"), (NO_TABLE, "row"), (PLAIN, "deferred")],
    ids=["a class of their own", "no table", "at the commit"],
)


@pytest.fixture
def pg_start(pg: Database) -> Iterator[Starter]:
    """Instances on PostgreSQL."""
    with starter(pg) as start:
        yield start


@pytest.fixture
def sqlite_start(sqlite: Database) -> Iterator[Starter]:
    """Instances on SQLite."""
    with starter(sqlite) as start:
        yield start


def check_an_end(start: Starter, body: str, kind: str = "row") -> None:
    """One end is refused: all others are written, before and after it was found."""
    oban = start.make(**ALPHA)
    made = oban.insert_all(jobs("sync", 12))
    guilty = made[7].id or 0
    refuse(start, body, f"NEW.id = {guilty} AND cast(NEW.state AS text) = 'completed'", kind)
    oban.start()

    wait_until(lambda: start.tables.count("completed") == 11)
    oban.insert_all(jobs("sync", 3))
    wait_until(lambda: start.tables.count("completed") == 14)

    assert start.tables.states()[guilty] == "executing"


@KINDS
def test_an_end(pg_start: Starter, work: Work, body: str, kind: str) -> None:
    """What one row alone brings about holds up no other."""
    check_an_end(pg_start, body, kind)


def test_an_end_on_sqlite(sqlite_start: Starter, work: Work) -> None:
    """Likewise."""
    check_an_end(sqlite_start, "SELECT json_extract('{', '$.a')")


def test_a_trigger_that_undoes_the_transaction(
    sqlite_start: Starter, work: Work, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing is written outside of it: the turn failed, and is taken again until it does not."""
    oban = sqlite_start.make(**ALPHA)
    made = oban.insert_all(jobs("sync", 3))
    end = f"NEW.id = {made[1].id} AND NEW.state = 'completed'"
    refuse(sqlite_start, "SELECT RAISE(ROLLBACK, 'not this one')", end)
    with caplog.at_level(logging.WARNING, "oban_actors"):
        oban.start()
        wait_until(lambda: "can't reach the database" in caplog.text)
    sqlite_start.tables.execute("DROP TRIGGER refuse")

    wait_until(lambda: sqlite_start.tables.count("completed") == 3)
    assert sorted(work.ran) == [job.id for job in made]


@KINDS
def test_a_claim(
    pg_start: Starter, work: Work, caplog: pytest.LogCaptureFixture, body: str, kind: str
) -> None:
    """Those before it run, and it is told why no more do."""
    oban = pg_start.make(**ALPHA)
    made = oban.insert_all(jobs("sync", 4))
    refuse(pg_start, body, f"NEW.id = {made[2].id} AND cast(NEW.state AS text) = 'executing'", kind)
    with caplog.at_level(logging.ERROR, "oban_actors"):
        oban.start()
        wait_until(lambda: pg_start.tables.count("completed") == 2)
        wait_until(lambda: "can't be claimed" in caplog.text)


def test_what_fails_without_any_row_is_no_rows(
    pg_start: Starter, work: Work, caplog: pytest.LogCaptureFixture
) -> None:
    """No end is taken for refused: the database can't work, and all are written when it can."""
    oban: Oban = pg_start.make(**ALPHA)
    oban.insert_all(jobs("sync", 3))
    with caplog.at_level(logging.WARNING, "oban_actors"):
        refuse(pg_start, PLAIN, kind="statement")
        oban.start()
        wait_until(lambda: "can't reach the database" in caplog.text)
        assert "can't be claimed" not in caplog.text
    pg_start.tables.execute("DROP TRIGGER refuse ON {jobs}")

    wait_until(lambda: pg_start.tables.count("completed") == 3)
    assert "can't be written" not in caplog.text

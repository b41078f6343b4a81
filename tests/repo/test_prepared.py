"""Messages that sessions prepare: what is sent again is neither parsed nor planned again."""

from typing import Any

import pytest

from oban_actors.errors import UndefinedTable
from oban_actors.repo import Repo
from tests.repo.conftest import Notes
from tests.repo.opening import opened_on
from tests.support.databases import Database


def prepared(repo: Repo) -> list[str]:
    """Names of what the session of the pool has prepared; the pool has one connection."""
    return repo.transaction(
        lambda c: list(
            c.exec_driver_sql(
                "SELECT name FROM pg_prepared_statements WHERE name LIKE 'oban%%' ORDER BY name"
            ).scalars()
        )
    )


def test_what_is_sent_again_is_prepared(pg_repo: Repo) -> None:
    """From the second time on, and gives the same rows for other values."""
    statement = "SELECT cast(%(n)s AS int), '50%%', cast(%(n)s AS int) + %(m)s"

    def send(n: int) -> list[Any]:
        return pg_repo.message([statement], {"n": n, "m": 1, "unused": 0})

    assert send(1) == [[(1, "50%", 2)]]
    assert prepared(pg_repo) == []
    assert send(2) == [[(2, "50%", 3)]]
    assert len(prepared(pg_repo)) == 1
    assert send(3) == [[(3, "50%", 4)]]
    assert len(prepared(pg_repo)) == 1


def test_what_no_session_can_prepare_is_sent_as_it_is(pg_repo: Repo) -> None:
    """It fails as it would without, or gives what it would: here the type of a value is open."""
    for _ in range(3):
        with pytest.raises(UndefinedTable):
            pg_repo.message(["SELECT 1 FROM nowhere_yet"], {})
    for _ in range(3):
        assert pg_repo.message(["SELECT 1 WHERE %(a)s IS NULL"], {"a": None}) == [[(1,)]]
    assert prepared(pg_repo) == []


def test_a_session_that_has_lost_what_it_prepared(
    pg_repo: Repo, caplog: pytest.LogCaptureFixture
) -> None:
    """As behind a pooler: it is done all the same, once, and nothing is prepared any more."""
    notes = Notes(pg_repo)
    insert = f"INSERT INTO {notes.table} VALUES (cast(%(number)s AS int))"
    for number in (1, 2):
        pg_repo.message([insert], {"number": number})
    pg_repo.transaction(lambda c: c.exec_driver_sql("DEALLOCATE ALL"))

    with caplog.at_level("INFO"):
        for number in (3, 4, 5):
            pg_repo.message([insert], {"number": number})

    assert notes.all() == [1, 2, 3, 4, 5]
    assert prepared(pg_repo) == []
    assert len([r for r in caplog.records if "sessions are shared" in r.getMessage()]) == 1


def test_a_session_in_which_another_has_prepared_the_same(pg_repo: Repo) -> None:
    """It is done all the same, and nothing is prepared any more."""
    statement = "SELECT cast(%(n)s AS int)"
    for n in (1, 2):
        pg_repo.message([statement], {"n": n})
    (name,) = prepared(pg_repo)
    pg_repo.engine.dispose()
    pg_repo.transaction(lambda c: c.exec_driver_sql(f"PREPARE {name} AS SELECT 9"))

    assert [pg_repo.message([statement], {"n": n}) for n in (3, 4, 5)] == [
        [[(3,)]],
        [[(4,)]],
        [[(5,)]],
    ]
    assert prepared(pg_repo) == [name]


def test_a_table_that_was_altered_meanwhile(pg_repo: Repo) -> None:
    """What the statement gives is no longer what was prepared: it is prepared anew."""
    notes = Notes(pg_repo)
    statement = f"SELECT number FROM {notes.table}"
    insert = f"INSERT INTO {notes.table} VALUES (7) RETURNING number"
    for _ in range(3):
        pg_repo.message([insert, statement], {})
    pg_repo.transaction(
        lambda c: c.exec_driver_sql(f"ALTER TABLE {notes.table} ALTER number TYPE text")
    )

    for count in range(4, 8):
        found = pg_repo.message([insert.replace("(7)", "('7')"), statement], {})
        assert found == [[("7",)], [("7",)] * count]
    assert len(prepared(pg_repo)) == 2
    assert [str(number) for number in notes.all()] == ["7"] * 7


def test_a_way_that_may_be_shared_prepares_nothing(pg: Database) -> None:
    """Who needs another address to listen has a pooler on this one."""
    with opened_on(pg, notifier={"listen_url": pg.url}) as repo:
        for _ in range(3):
            assert repo.message(["SELECT 1"], {}) == [[(1,)]]
        assert prepared(repo) == []

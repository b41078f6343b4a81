"""Rows that the database refuses to change, by whatever error, also at the COMMIT."""

import logging
from typing import Any

import pytest

from oban_actors import Beat, Oban
from oban_actors.queues import producer
from tests.queues.test_given_back import claim_by_hand
from tests.queues.work import Work, jobs, read, view, wait_state
from tests.support.events import recording
from tests.support.instances import Starter
from tests.support.refusing import NO_TABLE, OF_THEIR_OWN, PLAIN, keep_history, refuse
from tests.support.waiting import wait_until

# What is refused for ever is waited for at the end of a test.
ALPHA: dict[str, Any] = {"queues": {"alpha": 5}, "stager": None, "shutdown_grace_period": 0.2}
KINDS = pytest.mark.parametrize(
    ("body", "kind"),
    [(OF_THEIR_OWN, "row"), (NO_TABLE, "row"), (PLAIN, "deferred")],
    ids=["a class of their own", "no table", "at the commit"],
)


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
def test_an_end(start_pg: Starter, work: Work, body: str, kind: str) -> None:
    """What one row alone brings about holds up no other."""
    check_an_end(start_pg, body, kind)


def test_an_end_on_sqlite(start_sqlite: Starter, work: Work) -> None:
    """Likewise."""
    check_an_end(start_sqlite, "SELECT json_extract('{', '$.a')")


UNDOES = "SELECT RAISE(ROLLBACK, 'not this one')"


def test_an_end_that_undoes_the_transaction(
    start_sqlite: Starter,
    work: Work,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Likewise: all others are written in transactions of their own, and once."""
    monkeypatch.setattr(producer, "REFUSED_DELAY", 0.05)
    with recording("oban.job.stop") as told:
        check_an_end(start_sqlite, UNDOES)
        assert [text for text in caplog.messages if "can't reach the database" in text] == []
        (said,) = [text for text in caplog.messages if "can't be written" in text]
        assert "not this one" in said
        start_sqlite.tables.execute("DROP TRIGGER refuse")

        wait_until(lambda: start_sqlite.tables.count("completed") == 15)
        told.wait_for_count(15, "oban.job.stop")
    assert len(work.ran) == len(set(work.ran)) == 15


def test_a_claim_that_undoes_the_transaction(
    start_sqlite: Starter, work: Work, caplog: pytest.LogCaptureFixture
) -> None:
    """Those before it run, and what has ended is written."""
    oban = start_sqlite.make(**ALPHA)
    made = oban.insert_all(jobs("sync", 4))
    refuse(start_sqlite, UNDOES, f"NEW.id = {made[2].id} AND NEW.state = 'executing'")
    oban.start()
    wait_until(lambda: start_sqlite.tables.count("completed") == 2)
    wait_until(lambda: "can't be claimed" in caplog.text)
    start_sqlite.tables.execute("DROP TRIGGER refuse")
    oban.insert_all(jobs("sync", 1))

    wait_until(lambda: start_sqlite.tables.count("completed") == 5)
    assert len(work.ran) == len(set(work.ran)) == 5


def test_a_claim_whose_return_undoes_the_transaction(
    start_sqlite: Starter, work: Work, caplog: pytest.LogCaptureFixture
) -> None:
    """All others are given back and run, and it is told once."""
    oban = start_sqlite(node="web.1", **ALPHA)
    lost = oban.insert_all(jobs("sync", 4, state="scheduled"))
    refuse(start_sqlite, UNDOES, f"NEW.id = {lost[1].id} AND NEW.state = 'available'")
    for one in lost:
        claim_by_hand(start_sqlite, one.id or 0, ["web.1", view(oban).uuid])
    for _ in range(2):
        oban.ask("pulse", Beat(), timeout=30)
        new = oban.insert(jobs("sync", 1)[0])
        for one in (new, lost[0], *lost[2:]):
            assert wait_state(oban, one, "completed").attempt == 1
    (told,) = [text for text in caplog.messages if "can't be given back" in text]
    assert f"job {lost[1].id}, " in told
    assert read(oban, lost[1]).state == "executing"
    start_sqlite.tables.execute("DROP TRIGGER refuse")
    oban.ask("pulse", Beat(), timeout=30)

    assert wait_state(oban, lost[1], "completed").attempt == 1


def test_ends_with_deferred_constraints(start_pg: Starter, work: Work) -> None:
    """What is looked at for some is deferred again for the others."""
    oban = start_pg.make(**ALPHA)
    made = oban.insert_all(jobs("sync", 12))
    refuse(start_pg, PLAIN, f"NEW.id = {made[0].id} AND cast(NEW.state AS text) = 'completed'")
    keep_history(start_pg)
    oban.start()

    wait_until(lambda: start_pg.tables.count("completed") == 11)


@KINDS
def test_a_claim(
    start_pg: Starter, work: Work, caplog: pytest.LogCaptureFixture, body: str, kind: str
) -> None:
    """Those before it run, and it is told why no more do."""
    oban = start_pg.make(**ALPHA)
    made = oban.insert_all(jobs("sync", 4))
    refuse(start_pg, body, f"NEW.id = {made[2].id} AND cast(NEW.state AS text) = 'executing'", kind)
    with caplog.at_level(logging.ERROR, "oban_actors"):
        oban.start()
        wait_until(lambda: start_pg.tables.count("completed") == 2)
        wait_until(lambda: "can't be claimed" in caplog.text)


def test_what_fails_without_any_row_is_no_rows(
    start_pg: Starter, work: Work, caplog: pytest.LogCaptureFixture
) -> None:
    """No end is taken for refused: the database can't work, and all are written when it can."""
    oban: Oban = start_pg.make(**ALPHA)
    oban.insert_all(jobs("sync", 3))
    with caplog.at_level(logging.WARNING, "oban_actors"):
        refuse(start_pg, PLAIN, kind="statement")
        oban.start()
        wait_until(lambda: "can't reach the database" in caplog.text)
        assert "can't be claimed" not in caplog.text
    start_pg.tables.execute("DROP TRIGGER refuse ON {jobs}")

    wait_until(lambda: start_pg.tables.count("completed") == 3)
    assert "can't be written" not in caplog.text

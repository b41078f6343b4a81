"""Jobs inserted in the host's own transaction, and what is told of them."""

import pytest
import sqlalchemy as sa
from sqlalchemy import orm

from oban_actors import JobState, TransientError
from tests.stager.passes import SLOW
from tests.support.databases import Database
from tests.support.instances import Starter, available


def test_insert_in_the_hosts_transaction(start_oban: Starter) -> None:
    """A job inserted with the host's connection is there after its commit, and not otherwise."""
    oban = start_oban.leading(stager=SLOW)
    heard = start_oban.hear(oban, "insert")
    with start_oban.tables.engine.connect() as connection:
        transaction = connection.begin()
        oban.insert(available("lost"), connection=connection)
        transaction.rollback()
        transaction = connection.begin()
        oban.insert(available("kept"), connection=connection)
        oban.insert(available("kept"), connection=connection)
        assert heard.payloads("insert") == []
        transaction.commit()

    assert heard.wait_for("insert") == [{"queue": "kept"}]
    assert start_oban.tables.count("available") == 2


def test_insert_with_a_session(start_oban: Starter) -> None:
    """An ORM session's transaction serves as well."""
    oban = start_oban.leading(stager=SLOW)
    with orm.Session(start_oban.tables.engine) as session:
        job = oban.insert(available(), session=session)
        session.commit()

    assert job.id is not None
    found = oban.get_job(job.id)
    assert found is not None
    assert found.state == JobState.AVAILABLE


@pytest.mark.db
def test_nothing_is_retried_in_the_hosts_transaction(pg: Database, start_oban: Starter) -> None:
    """What fails there is the host's to know at once; in one of our own it is tried again."""
    if start_oban.database.kind != "postgresql":
        pytest.skip("SQLite has no conflict that a statement can raise")
    oban = start_oban.make()
    one = start_oban.tables
    one.execute(f"CREATE SEQUENCE {pg.prefix}.tries")
    one.execute(f"""
        CREATE FUNCTION {pg.prefix}.conflict() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        PERFORM nextval('{pg.prefix}.tries');
        RAISE EXCEPTION 'in the way' USING ERRCODE = '40001'; END $$
    """)
    one.execute(
        "CREATE TRIGGER conflict BEFORE INSERT ON {jobs} "
        f"FOR EACH ROW EXECUTE FUNCTION {pg.prefix}.conflict()"
    )

    def tries() -> int:
        return int(one.execute(f"SELECT nextval('{pg.prefix}.tries')")[0][0]) - 1

    with one.engine.connect() as connection, pytest.raises(sa.exc.OperationalError):
        oban.insert(available(), connection=connection)
    assert tries() == 1
    with pytest.raises(TransientError):
        oban.insert(available())
    assert tries() > 10

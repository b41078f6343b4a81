"""What inserting unique jobs locks on PostgreSQL, and for how long others wait."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import sqlalchemy as sa

from oban_actors import Job, Oban, inserting
from oban_actors.actors.clock import SYSTEM_CLOCK
from oban_actors.engines.postgres_unique import BUCKETS
from oban_actors.errors import LockTimeout, TransientError
from tests.inserting.hosts import engine_of
from tests.support.instances import Starter
from tests.support.waiting import wait_until

HELD = sa.text(
    "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()"
)
STATEMENT_TIMEOUT = 100.0


def job(number: int) -> Job:
    """Make a job that is unique for ever."""
    return Job.new({"n": number}, worker="tests.Worker", unique={"period": None})


@pytest.fixture
def oban(start_pg: Starter) -> Oban:
    """An instance that waits for locks much shorter than for statements."""
    return start_pg.make(lock_timeout=0.2, statement_timeout=STATEMENT_TIMEOUT)


@pytest.fixture
def host(start_pg: Starter) -> Iterator[Any]:
    """A host's connection, which is in a transaction until the end."""
    with engine_of(sa.make_url(start_pg.database.url)) as engine, engine.connect() as connection:
        yield connection


def test_many_in_one_transaction(oban: Oban, host: Any) -> None:
    """However many a host's transaction inserts, the server keeps room for other locks."""
    for start in range(0, 3 * BUCKETS, 512):
        oban.insert_all([job(start + nth) for nth in range(512)], connection=host)
    assert BUCKETS / 2 < host.execute(HELD).scalar_one() <= BUCKETS


def test_others_beside_a_batch(oban: Oban, host: Any) -> None:
    """A batch that is not committed yet keeps few others waiting."""
    oban.insert_all([job(nth) for nth in range(150)], connection=host)
    alone = 0
    for nth in range(1_000, 1_020):
        try:
            oban.insert(job(nth))
        except TransientError:
            continue
        alone += 1
    assert alone > 10


def test_it_waits_as_long_as_for_any_lock(oban: Oban, host: Any) -> None:
    """Who inserts the same job waits `lock_timeout`, and keeps its connection no longer."""
    oban.insert(job(1), connection=host)
    began = SYSTEM_CLOCK.monotonic()
    with pytest.raises(LockTimeout, match="another transaction inserts the same unique job"):
        oban.insert(job(1))
    assert SYSTEM_CLOCK.monotonic() - began < STATEMENT_TIMEOUT / 2


def test_a_job_that_is_to_be_replaced_and_is_locked(
    oban: Oban, host: Any, start_pg: Starter
) -> None:
    """Who waits for that waits no longer, and keeps others from the same job no longer."""
    made = oban.insert(job(1))
    host.execute(sa.text(f"SELECT FROM {start_pg.tables.jobs} WHERE id = {made.id} FOR UPDATE"))
    changed = Job.new(
        {"n": 1}, worker="tests.Worker", unique={"period": None}, replace=["priority"], priority=3
    )
    began = SYSTEM_CLOCK.monotonic()
    with pytest.raises(LockTimeout, match="another transaction has locked a job"):
        oban.insert(changed)
    assert SYSTEM_CLOCK.monotonic() - began < STATEMENT_TIMEOUT / 2
    host.rollback()
    assert oban.insert(changed).priority == 3


def test_what_is_not_unique_waits_as_before(oban: Oban, host: Any, start_pg: Starter) -> None:
    """Whoever has the whole table keeps an insert waiting beyond `lock_timeout`."""
    host.execute(sa.text(f"LOCK TABLE {start_pg.tables.jobs}"))
    begun: set[object] = set()

    def tried_again() -> bool:
        waiting = (
            "SELECT xact_start FROM pg_stat_activity "
            "WHERE wait_event_type = 'Lock' AND datname = current_database()"
        )
        begun.update(row[0] for row in start_pg.tables.execute(waiting))
        return len(begun) > 1

    with ThreadPoolExecutor(1) as threads:
        inserting_it = threads.submit(oban.insert, Job.new(worker="tests.Worker", schedule_in=60))
        wait_until(tried_again)
        host.rollback()
        assert inserting_it.result(30).state == "scheduled"


def test_a_stream_of_which_more_is_to_come(
    oban: Oban, host: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two streams can't lock each other out, whose later keys nobody knew."""
    monkeypatch.setattr(inserting, "CHUNK", 2)
    oban.insert_all((job(nth) for nth in range(1)), connection=host)
    assert host.execute(HELD).scalar_one() == 1

    oban.insert_all((job(nth) for nth in range(3)), connection=host)
    assert host.execute(HELD).scalar_one() == BUCKETS

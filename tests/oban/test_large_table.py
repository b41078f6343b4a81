"""A node that starts beside far more rows than there is to do."""

import pytest

from oban_actors.plugins import Lifeline, Pruner
from tests.queues.work import jobs, wait_state
from tests.support.instances import Starter, Tables
from tests.support.waiting import wait_until

FILL = """
INSERT INTO {jobs} (state, queue, worker, attempt, attempted_at, attempted_by, completed_at)
SELECT 'completed', 'alpha', 'w', 1, now() AT TIME ZONE 'utc', ARRAY['web.1', 'gone'],
    now() AT TIME ZONE 'utc'
FROM generate_series(1, 20000)
"""
OPEN = """
SELECT count(*) FROM pg_stat_activity
WHERE datname = current_database() AND application_name LIKE 'oban_actors%'
"""
SCANS = "SELECT seq_scan FROM pg_stat_all_tables WHERE relid = cast(:jobs AS regclass)"


def scans(tables: Tables) -> int:
    """How often the whole table was read by sessions that have ended."""
    # A session may keep what it counted to itself until it ends.
    wait_until(lambda: tables.execute(OPEN) == [(0,)], message="no session is left")
    return int(tables.execute(SCANS, jobs=tables.jobs)[0][0])


@pytest.mark.db
def test_no_start_reads_the_whole_table(start_pg: Starter) -> None:
    """Neither a start, nor what a node does at first, nor its end is slower beside many rows."""
    tables = start_pg.tables
    first = start_pg.make()
    first.repo.close()
    tables.execute(FILL)
    tables.execute("ANALYZE {jobs}")
    before = scans(tables)

    oban = start_pg.leading(queues={"alpha": 2}, plugins=[Lifeline(), Pruner()])
    wait_state(oban, oban.insert(jobs("sync", 1)[0]), "completed")
    oban.stop()
    oban.repo.close()

    assert scans(tables) == before

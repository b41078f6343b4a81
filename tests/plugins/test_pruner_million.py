"""A million old jobs go, in batches that are bounded."""

import pytest
from sqlalchemy import Connection, event

from oban_actors.plugins import Pruner
from tests.plugins.pruning import ask
from tests.support.databases import Database
from tests.support.events import Event, Recorder
from tests.support.instances import Starter, starter
from tests.support.waiting import wait_until


def _pruned(event: Event) -> bool:
    return event.metadata.get("plugin") is Pruner and event.metadata.get("pruned_count", 0) > 0


MILLION = 1_000_000
FILL = {
    "postgresql": """
INSERT INTO {{jobs}} (state, queue, worker, attempt, scheduled_at, attempted_at, {column})
SELECT '{state}', 'q' || n % 7, 'w', 1, at, at, at FROM (
  SELECT n, timezone('UTC', now()) - make_interval(secs => {ago} + n * 0.001) AS at
  FROM generate_series(1, {count}) AS n
) AS each
""",
    "sqlite": """
INSERT INTO {{jobs}} (state, queue, worker, attempt, scheduled_at, attempted_at, {column})
SELECT '{state}', 'q' || n % 7, 'w', 1, at, at, at FROM (
  SELECT n, strftime(
    '%Y-%m-%dT%H:%M:%f000Z', 'now', printf('%+.3f seconds', -({ago} + n * 0.001))
  ) AS at
  FROM (
    WITH RECURSIVE number (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM number LIMIT {count})
    SELECT n FROM number
  )
)
""",
}
HOUR = 3600
DAY = 86_400
YOUNG = 10_000
ALIVE = ("available", "scheduled", "retryable", "executing", "suspended")


@pytest.mark.slow
def test_many_rows_go_in_bounded_batches(database: Database, events: Recorder) -> None:
    """No transaction takes long, and young jobs and those that have not ended stay."""
    count = MILLION if database.kind == "postgresql" else MILLION // 10
    with starter(database) as one:
        oban = one.leading(plugins=[Pruner(interval=3600)], stager=None)
        fill(one, count)
        clock = oban.config.clock
        lasted: list[float] = []

        def begin(connection: Connection) -> None:
            connection.info["began"] = clock.monotonic()

        def commit(connection: Connection) -> None:
            # One may be under way when this begins to listen.
            if (began := connection.info.pop("began", None)) is not None:
                lasted.append(clock.monotonic() - began)

        event.listen(oban.repo.engine, "begin", begin)
        event.listen(oban.repo.engine, "commit", commit)

        def pruned() -> int:
            runs = events.all("oban.plugin.stop", _pruned)
            return sum(run.metadata["pruned_count"] for run in runs)

        ask(oban)
        wait_until(lambda: pruned() >= count, 200, "the old ones are gone")

        counts = dict(one.tables.execute("SELECT state, count(*) FROM {jobs} GROUP BY state"))
        assert counts == {"completed": YOUNG} | dict.fromkeys(ALIVE, 1000)
        assert pruned() == count
        runs = events.all("oban.plugin.stop", _pruned)
        assert max(run.metadata["pruned_count"] for run in runs) <= 20 * 10_000
        assert all(len(run.metadata["pruned_jobs"]) <= 10_000 for run in runs)
        assert len(lasted) >= count / 10_000
        assert max(lasted) < 5


def fill(one: Starter, count: int) -> None:
    """Put in so many old jobs, some young ones, and some of each other state that look old."""
    statement = FILL[one.database.kind]

    def put(state: str, ago: int, number: int, column: str) -> None:
        one.tables.execute(statement.format(state=state, ago=ago, count=number, column=column))

    put("completed", HOUR, count * 9 // 10, "completed_at")
    put("discarded", HOUR, count // 10, "discarded_at")
    put("completed", -DAY, YOUNG, "completed_at")
    for state in ALIVE:
        put(state, DAY, 1000, "completed_at")

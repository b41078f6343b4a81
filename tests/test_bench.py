"""The bench of queues, with tiny numbers, so that it can't rot."""

import pytest

from tests.bench import bench_queues
from tests.bench.report import Report

pytestmark = [pytest.mark.db, pytest.mark.slow]

TINY = bench_queues.Size(
    jobs=60, slow_jobs=30, limits=(10,), rounds=1, inserts=3, backlogs=(20, 40), seconds=0.1
)


def test_queues_are_measured() -> None:
    """Each figure of queues is measured on both databases, and none is nothing."""
    report = Report("queues")

    bench_queues.run(report, TINY)

    figures = {figure.name: figure.value for figure in report.figures}
    for name in (
        "PostgreSQL, the bare loop, batch 10",
        "PostgreSQL, threads, limit 10",
        "PostgreSQL, async, limit 10, ratio",
        "PostgreSQL, limit 10, commits",
        "PostgreSQL, limit 10, WAL",
        "SQLite, threads, limit 10",
        "SQLite, async, limit 10",
        "insert to start, bare, p50",
        "insert to start, p50",
        "memory beside 40 queued",
    ):
        assert figures[name] > 0, name

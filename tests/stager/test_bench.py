"""The bench of staging, with tiny numbers, so that it can't rot."""

import pytest

from tests.bench import bench_staging
from tests.bench.report import Report


@pytest.mark.db
@pytest.mark.slow
def test_staging_is_measured() -> None:
    """Each figure is measured, and none is nothing."""
    report = Report("staging")

    bench_staging.run(report, bench_staging.Size(jobs=(30, 40), limits=(10,), rounds=1))

    figures = {figure.name: figure.value for figure in report.figures}
    for name in (
        "PostgreSQL, 30 due, limit 10, bare UPDATE",
        "PostgreSQL, 30 due, limit 10",
        "PostgreSQL, 40 due, limit 5,000, ratio",
        "PostgreSQL, a fresh job beside 30 due, limit 10, p99",
        "SQLite, 30 due",
    ):
        assert figures[name] > 0, name

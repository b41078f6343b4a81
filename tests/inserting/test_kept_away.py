"""Rows that a host's trigger keeps away without a word."""

from typing import Any

import pytest

from oban_actors import DatabaseError, Job
from tests.support.instances import Starter
from tests.support.refusing import refuse


@pytest.mark.parametrize(
    "jobs",
    [
        [{"queue": "bad"}],
        [{"queue": "bad", "tags": ["a"]}],
        [{"queue": "bad", "unique": True}],
        [{"queue": "bad", "unique": True, "schedule_in": 60}],
        [{"queue": "good"}, {"queue": "bad"}],
        [{"queue": "good", "tags": ["a"]}, {"queue": "bad"}],
        [{"queue": "good"}] * 150 + [{"queue": "bad"}],
        [{"queue": "bad"}] * 150,
    ],
    ids=lambda jobs: f"{len(jobs)} {'-'.join(jobs[0])}",
)
def test_are_missed(start_oban: Starter, jobs: list[dict[str, Any]]) -> None:
    """Whoever inserts is told, and none of the jobs is there."""
    oban = start_oban.make()
    body = "SELECT RAISE(IGNORE)" if start_oban.database.kind == "sqlite" else "RETURN NULL"
    refuse(start_oban, body, "NEW.queue = 'bad'", event="INSERT")

    with pytest.raises(DatabaseError, match=f"of {len(jobs)} jobs the table took .*a trigger"):
        oban.insert_all([Job.new(worker="w", **each) for each in jobs])

    assert oban.all_jobs() == []

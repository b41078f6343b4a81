"""A server that is away for two minutes, with all times as they are by default."""

import faulthandler
from collections import Counter
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from oban_actors import Job, Oban
from oban_actors.actors.clock import real_monotonic
from tests.support.databases import Database
from tests.support.instances import starter
from tests.support.nodes import Node, cluster
from tests.support.postgres import PostgresServer
from tests.support.waiting import wait_until

AWAY = 120.0
WATCH = 60.0

OPTIONS: dict[str, Any] = {
    "queues": {"alpha": 20},
    "lifeline": {},
    "crontab": ["* * * * *"],
    "module": "tests.cluster.rescue_node",
}


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_nobody_is_taken_for_dead_and_no_minute_is_lost_or_doubled(
    own_server: PostgresServer, own_database: Database, tmp_path: Path
) -> None:
    """Jobs that ran go on where they are, and cron's runs of the time are made up once each."""
    # It takes long by design: nobody has to be told where it stands.
    faulthandler.cancel_dump_traceback_later()
    hold = tmp_path / "hold"
    hold.touch()
    with starter(own_database) as one:
        oban = one.make()
        with cluster(own_database, 2, **OPTIONS) as nodes:
            args = {"hold": str(hold), "patience": 500}
            jobs = oban.insert_all([Job.new(args, worker="tests.cling", queue="alpha")] * 6)
            ids = [job.id for job in jobs]
            wait_until(lambda: len(ran(nodes)) == 6, 60)
            wait_until(lambda: minutes(oban), 120, "a run of cron")

            own_server.stop("fast")
            pass_time(AWAY)
            own_server.start()

            # Who saw no beat for a watch would be dead by then, and its jobs run again.
            pass_time(1.5 * WATCH)
            assert ran(nodes) == Counter(ids)
            hold.unlink()
            wait_until(lambda: states(oban, ids) == {"completed"}, 90)
            assert ran(nodes) == Counter(ids)
            assert not any(line.get("rescued") for node in nodes for line in list(node.said))
            due = minutes(oban)
    first, last = due[0], due[-1]
    assert last - first >= timedelta(seconds=AWAY)
    assert due == [first + timedelta(minutes=n) for n in range(len(due))]


def pass_time(seconds: float) -> None:
    """Let time pass: it is what is tested here."""
    until = real_monotonic() + seconds
    wait_until(lambda: real_monotonic() >= until, seconds + 30)


def ran(nodes: list[Node]) -> Counter[int]:
    """How often each job was begun, on all nodes together."""
    return Counter(line["ran"] for node in nodes for line in list(node.said) if "ran" in line)


def minutes(oban: Oban) -> list[datetime]:
    """The minutes for which cron has inserted a job, one of each."""
    found = oban.all_jobs(worker="tests.tick")
    return sorted(datetime.fromisoformat(job.meta["cron_at"]) for job in found)


def states(oban: Oban, ids: list[Any]) -> set[str]:
    """The states that these jobs are in."""
    return {str(job.state) for job in oban.all_jobs(id=ids)}

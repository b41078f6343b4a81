"""Jobs whose COMMIT got no answer: they are there once, whichever way they went."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest
from sqlalchemy import make_url

from oban_actors import Job, Oban
from tests.repo.gate import Gate
from tests.support.databases import Database
from tests.support.proxy import TcpProxy
from tests.support.waiting import wait_until

Admin = psycopg.Connection[Any]
WAYS = pytest.mark.parametrize(
    "how", [{}, {"schedule_in": 60}, {"unique": True}], ids=["message", "steps", "unique"]
)


@pytest.fixture
def oban(pg: Database, proxy: TcpProxy) -> Iterator[Oban]:
    """An instance behind a network that can go silent; not started."""
    url = make_url(pg.url).set(host=proxy.host, port=proxy.port)
    made = Oban(url, prefix=pg.prefix, statement_timeout=20.0, connect_timeout=2.0)
    made.migrate()
    yield made
    made.repo.close()


@WAYS
def test_lost_answer(oban: Oban, proxy: TcpProxy, admin: Admin, how: dict[str, Any]) -> None:
    """What was committed is found out, and not inserted again."""
    prefix = oban.config.prefix
    gate = Gate(prefix, f"{prefix}.oban_jobs", admin)
    with ThreadPoolExecutor(1) as threads:
        running = threads.submit(oban.insert, Job.new(worker="w", **how))
        wait_until(gate.waiting)
        proxy.freeze()
        gate.open()
        wait_until(lambda: admin.execute("SELECT 1 FROM oban_jobs").fetchone())
        proxy.drop()
        proxy.thaw()
        job = running.result(60)

    assert not job.conflict
    assert admin.execute("SELECT id FROM oban_jobs").fetchall() == [(job.id,)]


@WAYS
def test_commit_that_never_was(oban: Oban, admin: Admin, how: dict[str, Any]) -> None:
    """What was not committed is inserted again."""
    prefix = oban.config.prefix
    gate = Gate(prefix, f"{prefix}.oban_jobs", admin)
    with ThreadPoolExecutor(1) as threads:
        running = threads.submit(oban.insert, Job.new(worker="w", **how))
        first = wait_until(gate.waiting)
        admin.execute("SELECT pg_terminate_backend(%s)", [first])
        wait_until(lambda: gate.waiting() not in (None, first))
        gate.open()
        job = running.result(60)

    assert not job.conflict
    assert admin.execute("SELECT id FROM oban_jobs").fetchall() == [(job.id,)]

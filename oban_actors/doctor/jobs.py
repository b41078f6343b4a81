"""Jobs that wait for nobody: used up, or in a queue of the other language's."""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

from sqlalchemy import Connection

from oban_actors.doctor.cluster import SHOWN, producers
from oban_actors.doctor.exam import Exam, literal
from oban_actors.doctor.finding import Finding
from oban_actors.queues.roster import is_ours
from oban_actors.worker_registry import find_worker

MOST_QUEUES = 500
"""Queues with waiting jobs that are looked at."""

MOST_JOBS = 1_000
"""Jobs of each queue that are looked at, those first that are next."""

MOST_RUNS = 100
"""Former and present runs of a queue that are looked at for who runs it."""

_ELIXIR = re.compile(r"(?:Elixir\.)?[A-Z]\w*(?:\.[A-Z]\w*)+")
_PYTHON = re.compile(r"[a-z_]\w*(?:\.\w+)+")


def speaks_elixir(worker: str) -> bool:
    """Whether a worker's name is that of an Elixir module, and of no worker here."""
    return _ELIXIR.fullmatch(worker) is not None and find_worker(worker) is None


def speaks_python(worker: str) -> bool:
    """Whether a worker's name is that of something in a Python module, or of a worker here."""
    return _PYTHON.fullmatch(worker) is not None or find_worker(worker) is not None


def check(exam: Exam) -> Iterator[Finding]:
    """Look at the jobs of each queue that are next."""
    living = {one.queue for one in producers(exam) if one.age <= exam.limits.beat}
    for queue in exam.read(lambda connection: list(_queues(exam, connection))):
        waiting = exam.read(partial(_waiting, exam, queue))
        yield from _used_up(exam, queue, waiting)
        elixir = [row for row in waiting if speaks_elixir(row.worker)]
        if elixir and queue in living and not _elixir_runs(exam, queue):
            yield _foreign(exam, queue, elixir)
        python = [row for row in waiting if speaks_python(row.worker)]
        stuck = [row for row in python if row.age > exam.limits.waiting]
        if stuck and queue not in living:
            yield _unserved(queue, stuck)


def _queues(exam: Exam, connection: Connection) -> Iterator[str]:
    # From queue to queue through the index, and not through what waits in them.
    last = ""
    for _ in range(MOST_QUEUES):
        found = exam.rows(
            connection,
            "SELECT queue FROM {jobs} WHERE state = 'available' AND queue > :last "
            f"AND {exam.named} ORDER BY queue LIMIT 1",
            last=last,
        )
        # What could not be read as it stands is found again.
        if not found or found[0][0] == last:
            return
        last = found[0][0]
        yield last


def _waiting(exam: Exam, queue: str, connection: Connection) -> list[Any]:
    age = exam.seconds_since("scheduled_at")
    return exam.rows(
        connection,
        "SELECT id, cast(worker AS text) AS worker, attempt >= max_attempts AS used_up, "
        f"coalesce({age}, 0) AS age FROM {{jobs}} "
        "WHERE state = 'available' AND queue = :queue "
        "ORDER BY priority, scheduled_at, id LIMIT :most",
        queue=queue,
        most=MOST_JOBS,
        **exam.now(),
    )


def _used_up(exam: Exam, queue: str, waiting: Sequence[Any]) -> Iterator[Finding]:
    ids = [row.id for row in waiting if row.used_up]
    if not ids:
        return
    shown = ", ".join(map(str, ids[:SHOWN])) + (", ..." if len(ids) > SHOWN else "")
    what = f"{len(ids)} jobs of queue {queue!r} wait with no attempt left, for ever: {shown}"
    now = (
        "timezone('UTC', clock_timestamp())"
        if exam.postgres
        else "strftime('%Y-%m-%dT%H:%M:%f000Z', 'now')"
    )
    fix = (
        f"UPDATE {exam.jobs} SET state = 'discarded', discarded_at = {now} WHERE "
        f"state = 'available' AND queue = {literal(queue)} AND attempt >= max_attempts;"
    )
    yield Finding("error", "used_up", what, fix)


def _foreign(exam: Exam, queue: str, rows: Sequence[Any]) -> Finding:
    workers = sorted({row.worker for row in rows})
    what = (
        f"{len(rows)} jobs of Elixir workers ({_some(rows)}) wait in queue {queue!r}, which only "
        "Python nodes run: they fail there as unknown"
    )
    moved = literal(f"{queue[:120]}_elixir")
    named = ", ".join(map(literal, workers))
    fix = (
        "-- or to another queue, which Elixir nodes run\n"
        f"UPDATE {exam.jobs} SET queue = {moved} "
        f"WHERE state = 'available' AND queue = {literal(queue)} AND worker IN ({named});"
    )
    return Finding("error", "elixir_jobs", what, fix)


def _unserved(queue: str, rows: Sequence[Any]) -> Finding:
    oldest = max(row.age for row in rows)
    what = (
        f"{len(rows)} jobs of Python workers ({_some(rows)}) wait in queue {queue!r}, which no "
        f"Python node runs, the oldest for {oldest:.0f} s"
    )
    fix = f"Oban(..., queues={{{queue!r}: 10}}): run the queue on a node"
    return Finding("warning", "unserved_queue", what, fix)


def _elixir_runs(exam: Exam, queue: str) -> bool:
    def look(connection: Connection) -> bool:
        for state in ("executing", "completed"):
            rows = exam.rows(
                connection,
                f"SELECT {exam.claimant} FROM {{jobs}} WHERE state = '{state}' AND queue = :queue "
                "ORDER BY priority DESC, scheduled_at DESC, id DESC LIMIT :most",
                queue=queue,
                most=MOST_RUNS,
            )
            if any(uuid is not None and not is_ours(uuid) for (uuid,) in rows):
                return True
        return False

    return exam.read(look)


def _some(rows: Sequence[Any]) -> str:
    counted = Counter(row.worker for row in rows).most_common(3)
    return ", ".join(worker for worker, _ in counted)

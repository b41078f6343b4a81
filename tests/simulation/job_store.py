"""The model of the job store: inserts, staging, and the turns of producers.

Each method does what the statement of `PostgresEngine` with that name does. Rows are made jobs,
and acknowledgements judged, by the package's own functions.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

from oban_actors.claim import Ack, Claimant
from oban_actors.engines import StagedJob, StagedPass, Turn
from oban_actors.engines.inserts import RowTimes, inserted
from oban_actors.engines.turns import FAILED, Shown, delay_of, error_json, judge, turn_of
from oban_actors.job import Job
from oban_actors.repo.commits import Trace, leave
from tests.simulation.client import SimConnection
from tests.simulation.database import Row, Transaction
from tests.simulation.machine import EPOCH

JOBS = "oban_jobs"
STAGEABLE = ("scheduled", "retryable")


def is_claim_of(row: Row, ack: Ack, uuid: str) -> bool:
    """The fence: whether a row is still claimed as the acknowledgement says."""
    return bool(row["attempted_at"] == naive(ack.attempted_at) and row["uuid"] == uuid)


def takes(row: Row, ack: Ack) -> bool:
    """Whether a row's state takes the acknowledgement."""
    if row["state"] == "cancelled":
        last = row["errors"][-1] if row["errors"] else None
        return ack.killed and last != ack.error
    return bool(row["state"] == "executing")


def _stand(times: list[RowTimes], connection: SimConnection) -> bool:
    def look(made: Transaction) -> bool:
        rows = ((made.get(JOBS, job_id), at) for job_id, at, _ in times)
        return any(row is not None and aware(row["inserted_at"]) == at for row, at in rows)

    return bool(connection.run(look))


def naive(moment: datetime) -> datetime:
    """Give a time as rows hold it."""
    return moment.replace(tzinfo=None)


def aware(moment: datetime) -> datetime:
    """Give a row's time as Python has it."""
    return moment.replace(tzinfo=UTC)


def in_order(rows: Iterable[Row]) -> list[Row]:
    """Sort as jobs are claimed."""
    return sorted(rows, key=lambda row: (row["priority"], row["scheduled_at"], row["id"]))


class JobStore:
    """Inserts, staging and turns."""

    # What a message does at once goes step by step here, so that more can come in between.
    pass_sql = None

    def insert_message(self, *_given: object) -> None:
        """See `JobEngine`: step by step, as a pass."""

    def unique_insert(self, *_given: object) -> None:
        """See `JobEngine`: as `insert_message`."""

    def insert_jobs(
        self, connection: SimConnection, jobs: Sequence[Job], now: datetime | None
    ) -> list[Job]:
        """See `JobEngine`."""

        def insert(made: Transaction) -> list[RowTimes]:
            at, times = made.now(), []
            for job in jobs:
                made.server.job_ids += 1
                row = _row(job, made.server.job_ids, at)
                made.lock(JOBS, row["id"])
                made.put(JOBS, row["id"], row)
                made.notes.append(("insert", row["id"], job.meta.get("cron_at"), job.worker))
                times.append((row["id"], aware(at), aware(row["scheduled_at"])))
            return times

        times = connection.run(insert)
        assert connection.made is not None
        trace = Trace(connection.made.number, partial(_stand, times))
        leave(connection, trace)  # type: ignore[arg-type]  # what the transactions give
        return list(inserted(jobs, times))

    # Staging

    def stage_jobs(
        self, connection: SimConnection, limit: int, now: datetime | None, aside: Sequence[int]
    ) -> StagedPass:
        """See `JobEngine`."""
        return connection.run(lambda made: self._stage(made, limit, aside))  # type: ignore[no-any-return]  # what it gives

    def _stage(self, made: Transaction, limit: int, aside: Sequence[int]) -> StagedPass:
        at = made.now()
        staged: list[StagedJob] = []
        waiting = [row for row in made.rows(JOBS) if row["state"] in STAGEABLE]
        waiting = [row for row in waiting if row["id"] not in aside]
        waiting.sort(key=lambda row: (row["scheduled_at"], row["id"]))
        for row in waiting:
            if row["scheduled_at"] > at or len(staged) >= limit:
                break
            if made.try_lock(JOBS, row["id"]):
                made.put(JOBS, row["id"], row | {"state": "available"})
                staged.append(StagedJob(row["id"], row["queue"], row["state"]))
        made.notes.append(("stage", made.session.machine.name, len(staged)))
        ids = {each.id for each in staged}
        left = next((row["scheduled_at"] for row in waiting if row["id"] not in ids), None)
        next_due_in = None if left is None else (left - at).total_seconds()
        return StagedPass(staged, next_due_in, aware(at))

    def check_available(self, connection: SimConnection) -> list[str]:
        """See `JobEngine`."""
        return connection.run(_available)  # type: ignore[no-any-return]  # what it gives

    def database_now(self, connection: SimConnection, now: datetime | None) -> datetime:
        """See `JobEngine`."""
        return connection.run(lambda made: aware(made.now()))  # type: ignore[no-any-return]  # what it gives

    # Turns

    def turn_message(self, *_given: object) -> None:
        """See `JobEngine`: step by step, as a pass."""

    def take_turn(
        self,
        connection: SimConnection,
        claimant: Claimant,
        queue: str,
        acks: Sequence[Ack],
        limit: int,
        now: datetime | None,
        *,
        careful: bool = False,
    ) -> Turn:
        """See `JobEngine`."""
        if not acks and limit <= 0:
            return turn_of(acks, {}, Fetch([], claimant, EPOCH))

        def turn(made: Transaction) -> tuple[datetime, int, list[Row]]:
            at = made.now()
            written = sum(_ack(made, ack, claimant.uuid, at, careful=careful) for ack in acks)
            return at, written, _claim(made, claimant, queue, limit, at)

        at, written, rows = connection.run(turn)
        verdicts = {}
        if written < len(acks):
            shown = connection.run(lambda made: _shown(made, acks))
            verdicts = judge(acks, shown, claimant.uuid)
        return turn_of(acks, verdicts, Fetch(rows, claimant, aware(at)))

    def record_error(
        self,
        connection: SimConnection,
        claimant: Claimant,
        job_id: int,
        attempted_at: datetime,
        error: dict[str, Any],
    ) -> bool:
        """See `JobEngine`."""

        def record(made: Transaction) -> bool:
            row = made.get(JOBS, job_id)
            fence = (naive(attempted_at), claimant.uuid, "executing")
            if row is None or (row["attempted_at"], row["uuid"], row["state"]) != fence:
                return False
            made.lock(JOBS, job_id)
            made.put(JOBS, job_id, row | {"errors": [*row["errors"], error]})
            return True

        return bool(connection.run(record))


def _row(job: Job, job_id: int, at: datetime) -> Row:
    due = naive(job.scheduled_at) if job.scheduled_at else at
    return {
        "id": job_id,
        "state": str(job.state),
        "queue": job.queue,
        "worker": job.worker,
        "args": job.args,
        "meta": job.meta,
        "errors": [],
        "priority": job.priority,
        "attempt": 0,
        "max_attempts": job.max_attempts,
        "inserted_at": at,
        "scheduled_at": at + timedelta(seconds=job.schedule_in) if job.schedule_in else due,
        "attempted_at": None,
        "uuid": None,
        "available_at": at,
        "done_at": None,
    }


def _available(made: Transaction) -> list[str]:
    return sorted({row["queue"] for row in made.rows(JOBS) if row["state"] == "available"})


def _ack(made: Transaction, ack: Ack, uuid: str, at: datetime, *, careful: bool) -> bool:
    row = made.get(JOBS, ack.job_id)
    if row is None or not is_claim_of(row, ack, uuid) or not takes(row, ack):
        return False
    if careful:
        if not made.try_lock(JOBS, ack.job_id):
            return False
    else:
        made.lock(JOBS, ack.job_id)
    state = str(ack.state)
    if ack.state in FAILED:
        state = "retryable" if row["attempt"] < row["max_attempts"] else "discarded"
    changed = row | {"state": state, "done_at": at}
    if ack.error is not None:
        changed["errors"] = [*row["errors"], ack.error]
    if state == "scheduled":
        changed["attempt"] = max(row["attempt"] - 1, 0)
        changed["meta"] = row["meta"] | {"snoozed": row["meta"].get("snoozed", 0) + 1}
    if state in STAGEABLE:
        changed["scheduled_at"] = at + timedelta(seconds=delay_of(ack))
    made.put(JOBS, ack.job_id, changed)
    made.notes.append(("ack", ack.job_id, ack.attempted_at, uuid, state))
    return state == ack.state


def _claim(
    made: Transaction, claimant: Claimant, queue: str, limit: int, at: datetime
) -> list[Row]:
    rows: list[Row] = []
    for row in in_order(made.rows(JOBS)) if limit > 0 else ():
        if len(rows) >= limit:
            break
        ready = row["state"] == "available" and row["queue"] == queue
        if not ready or row["attempt"] >= row["max_attempts"] or not made.try_lock(JOBS, row["id"]):
            continue
        claimed = row | {
            "state": "executing",
            "attempt": row["attempt"] + 1,
            "attempted_at": at,
            "uuid": claimant.uuid,
        }
        made.put(JOBS, row["id"], claimed)
        made.notes.append(("claim", row["id"], aware(at), claimant.uuid))
        rows.append(claimed)
    return rows


def _shown(made: Transaction, acks: Sequence[Ack]) -> dict[int, Shown]:
    rows = [made.get(JOBS, ack.job_id) for ack in acks]
    return {
        row["id"]: Shown(
            row["state"],
            row["attempted_at"] and aware(row["attempted_at"]),
            row["uuid"],
            error_json(row["errors"][-1]) if row["errors"] else None,
        )
        for row in rows
        if row is not None
    }


@dataclass(frozen=True, slots=True)
class Fetch:
    """What a turn has claimed; see `Fetched`."""

    rows: list[Row]
    claimant: Claimant
    at: datetime

    def id_of(self, row: Row) -> int:
        """See `Fetched`."""
        job_id: int = row["id"]
        return job_id

    def worker_of(self, row: Row) -> str:
        """See `Fetched`."""
        worker: str = row["worker"]
        return worker

    def read(self, row: Row) -> Job:
        """See `Source`."""
        return _job(row, self.claimant, self.at)


def _job(row: Row, claimant: Claimant, at: datetime) -> Job:
    return Job(
        worker=row["worker"],
        args=json.loads(json.dumps(row["args"])),
        queue=row["queue"],
        state=row["state"],
        priority=row["priority"],
        max_attempts=row["max_attempts"],
        meta=row["meta"],
        attempt=row["attempt"],
        attempted_by=[claimant.node, claimant.uuid],
        errors=list(row["errors"]),
        id=row["id"],
        inserted_at=aware(row["inserted_at"]),
        scheduled_at=aware(row["scheduled_at"]),
        attempted_at=at,
    )

"""A producer's turns on SQLite, where there is one writer and no way to the server to save."""

import itertools
import json
import sqlite3
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, text
from sqlalchemy.exc import OperationalError

from oban_actors.claim import Ack, Claimant
from oban_actors.engines.claimed_rows import CLAIMED, ClaimedRows, Row
from oban_actors.engines.turn import Turn
from oban_actors.engines.turns import (
    FAILED,
    Shown,
    delay_of,
    error_json,
    judge,
    raw_rows,
    turn_of,
)
from oban_actors.job import JobState
from oban_actors.repo.times import NOW, parameter, to_moment, to_text

_CLOCK = f"SELECT {NOW['sqlite']}"

# Other writers may leave anything in a row, and what is no JSON must not fail a statement.
_UUID = "CASE WHEN json_valid(attempted_by) THEN json_extract(attempted_by, '$[1]') END"
_ERRORS = """CASE WHEN json_valid(errors) THEN
  CASE json_type(errors) WHEN 'array' THEN errors ELSE '[]' END ELSE '[]' END"""
_META = """CASE WHEN json_valid(meta) THEN
  CASE json_type(meta) WHEN 'object' THEN meta WHEN 'null' THEN '{}' END
  WHEN meta IS NULL THEN '{}' END"""

# The `+` keeps the condition away from the index on state.
_CLAIM_OF_ONE = f"id = :id AND +state = 'executing' AND attempted_at = :fence AND {_UUID} = :uuid"

_COMPLETE = f"UPDATE oban_jobs SET state = 'completed', completed_at = :now WHERE {_CLAIM_OF_ONE}"

# All of one fetch: no way back to Python between two rows. The text that a claim of ours has
# written is compared before the JSON that any other may be.
_COMPLETE_ALL = f"""
UPDATE oban_jobs SET state = 'completed', completed_at = :now
WHERE id IN (SELECT value FROM json_each(:ids)) AND +state = 'executing' AND attempted_at = :fence
  AND (attempted_by = :by OR {_UUID} = :uuid)
"""

_ADDED = f"""CASE WHEN json_extract({_ERRORS}, '$[#-1]') IS :error THEN errors
  ELSE json_insert({_ERRORS}, '$[#]', :error) END"""

_RECORD_ERROR = f"UPDATE oban_jobs SET errors = {_ADDED} WHERE {_CLAIM_OF_ONE}"

# Whether it has an attempt left is the row's to say: that may have been changed while it ran.
_FATE = """CASE WHEN :state NOT IN ('retryable', 'discarded') OR typeof(attempt) <> 'integer'
  OR typeof(max_attempts) <> 'integer' THEN :state
  WHEN attempt < max_attempts THEN 'retryable' ELSE 'discarded' END"""

_RECORD = f"""
UPDATE oban_jobs SET
  state = {_FATE},
  errors = CASE WHEN :error IS NULL THEN errors ELSE {_ADDED} END,
  attempt = CASE WHEN :state = 'scheduled' THEN max(attempt - 1, 0) ELSE attempt END,
  meta = CASE WHEN :state = 'scheduled' THEN coalesce(json_set({_META}, '$.snoozed', 1 +
    CASE json_type({_META}, '$.snoozed') WHEN 'integer' THEN json_extract({_META}, '$.snoozed')
    WHEN 'real' THEN json_extract({_META}, '$.snoozed') ELSE 0 END), meta) ELSE meta END,
  scheduled_at = CASE WHEN :due_at IS NULL OR {_FATE} = 'discarded' THEN scheduled_at
    ELSE :due_at END,
  completed_at = CASE WHEN :state = 'completed' THEN :now ELSE completed_at END,
  discarded_at = CASE WHEN {_FATE} = 'discarded' THEN :now ELSE discarded_at END,
  cancelled_at = CASE WHEN :state <> 'cancelled' THEN cancelled_at
    WHEN state = 'cancelled' THEN coalesce(cancelled_at, :now) ELSE :now END
WHERE id = :id AND attempted_at = :fence AND {_UUID} = :uuid
  AND CASE state WHEN 'executing' THEN 1 WHEN 'cancelled'
    THEN :killed AND (:error IS NULL OR json_extract({_ERRORS}, '$[#-1]') IS NOT :error)
    ELSE 0 END
"""

_COLUMNS = CLAIMED.replace("{", "").replace("}", "")

# Rows that have used up their attempts are passed over where they stand.
_PICK = """
SELECT json_group_array(id) FROM (
  SELECT id FROM oban_jobs WHERE state = 'available' AND queue = :queue AND attempt < max_attempts
  ORDER BY priority, scheduled_at, id LIMIT :limit)
"""

_CLAIM = """
UPDATE oban_jobs SET state = 'executing', attempt = attempt + 1, attempted_at = :now,
  attempted_by = :by
WHERE id IN (SELECT value FROM json_each(:ids))
"""

# As one value: for each row that is given to Python, whoever runs jobs has to let go of the
# interpreter's lock.
_READ = f"""
SELECT json_group_array(json_array({_COLUMNS})) FROM oban_jobs
WHERE id IN (SELECT value FROM json_each(:ids))
"""

_BYTES = ", ".join(
    f"CASE typeof({name}) WHEN 'text' THEN cast({name} AS BLOB) ELSE {name} END"
    for name in _COLUMNS.split(", ")
)
_READ_BYTES = f"SELECT {_BYTES} FROM oban_jobs WHERE id IN (SELECT value FROM json_each(:ids))"

_SHOWN = f"""
SELECT id, state, attempted_at, {_UUID}, json_extract({_ERRORS}, '$[#-1]')
FROM oban_jobs WHERE id IN (SELECT value FROM json_each(:ids))
"""

_turns = itertools.count()


class SqliteTurns:
    """Turns of producers, for `SqliteEngine`."""

    def take_turn(
        self,
        connection: Connection,
        claimant: Claimant,
        queue: str,
        acks: Sequence[Ack],
        limit: int,
        now: datetime | None,
        *,
        careful: bool = False,
    ) -> Turn:
        """See `JobEngine`."""
        at: str = raw_rows(connection, _CLOCK, {"now": parameter("sqlite", now)})[0][0]
        verdicts = self._write(connection, claimant, acks, at) if acks else {}
        fence = at if now is not None else _distinct(at)
        rows = _claim_rows(connection, claimant, queue, limit, fence) if limit > 0 else []
        fetched = ClaimedRows(rows, claimant, queue, to_moment(fence))
        return turn_of(acks, verdicts, fetched)

    def turn_message(self, *_given: object) -> None:
        """See `JobEngine`: there is no server to save a way to."""

    def complete_job(
        self,
        connection: Connection,
        claimant: Claimant,
        job_id: int,
        attempted_at: datetime,
        now: datetime | None,
    ) -> bool:
        """See `JobEngine`."""
        statement = _COMPLETE.replace(":now", NOW["sqlite"])
        claim = _claim(claimant, job_id, attempted_at) | {"now": parameter("sqlite", now)}
        return connection.execute(text(f"{statement} RETURNING id"), claim).first() is not None

    def record_error(
        self,
        connection: Connection,
        claimant: Claimant,
        job_id: int,
        attempted_at: datetime,
        error: dict[str, Any],
    ) -> bool:
        """See `JobEngine`."""
        claim = _claim(claimant, job_id, attempted_at) | {"error": error_json(error)}
        return connection.execute(text(_RECORD_ERROR), claim).rowcount == 1

    def _write(
        self, connection: Connection, claimant: Claimant, acks: Sequence[Ack], at: str
    ) -> dict[int, str]:
        ended: dict[datetime, list[int]] = {}
        others: list[Ack] = []
        for ack in acks:
            if ack.state == JobState.COMPLETED and ack.error is None:
                ended.setdefault(ack.attempted_at, []).append(ack.job_id)
            else:
                others.append(ack)
        written = 0
        for fence, ids in ended.items():
            values = _owner(claimant) | {"fence": to_text(fence), "now": at, "ids": json.dumps(ids)}
            written += connection.exec_driver_sql(_COMPLETE_ALL, values).rowcount
        if others:
            moment = to_moment(at)
            each = [_claim(claimant, a.job_id, a.attempted_at) | _more(a, moment) for a in others]
            written += connection.exec_driver_sql(_RECORD, each).rowcount
        if written < len(acks):
            return judge(acks, self._look(connection, acks), claimant.uuid)
        # Of those it is not known yet whether the row had an attempt left.
        failed = [ack for ack in others if ack.state in FAILED]
        found = judge(failed, self._look(connection, failed), claimant.uuid) if failed else {}
        return {job_id: each for job_id, each in found.items() if each == "recounted"}

    def _look(self, connection: Connection, acks: Sequence[Ack]) -> dict[int, Shown]:
        rows = raw_rows(connection, _SHOWN, {"ids": json.dumps([ack.job_id for ack in acks])})
        return {
            job_id: Shown(state, _moment(at), uuid, error)
            for job_id, state, at, uuid, error in rows
        }


def _distinct(at: str) -> str:
    # SQLite's clock has milliseconds, within which a job may be given back and claimed anew; what
    # the first claim comes to must not count for the second.
    return f"{at[:-4]}{next(_turns) % 1000:03}Z"


def _claim_rows(
    connection: Connection, claimant: Claimant, queue: str, limit: int, at: str
) -> list[Row]:
    ids: str = raw_rows(connection, _PICK, {"queue": queue, "limit": limit})[0][0]
    if ids == "[]":
        return []
    values = {"now": at, "by": _owner(claimant)["by"], "ids": ids}
    connection.exec_driver_sql(_CLAIM, values).close()
    try:
        ((rows,),) = raw_rows(connection, _READ, {"ids": ids})
        return [tuple(row) for row in json.loads(rows)]
    except (sqlite3.OperationalError, OperationalError, ValueError):
        # One has a value that JSON has no place for, or text that is not UTF-8.
        return [
            tuple(map(_decoded, row)) for row in raw_rows(connection, _READ_BYTES, {"ids": ids})
        ]


def _decoded(value: Any) -> Any:
    try:
        return value.decode() if isinstance(value, bytes) else value
    except UnicodeDecodeError:
        return value


def _owner(claimant: Claimant) -> dict[str, str]:
    by = json.dumps([claimant.node, claimant.uuid], ensure_ascii=False, separators=(",", ":"))
    return {"by": by, "uuid": claimant.uuid}


def _more(ack: Ack, at: datetime) -> dict[str, Any]:
    later = ack.state == JobState.SCHEDULED or ack.state in FAILED
    return {
        "now": to_text(at),
        "state": str(ack.state),
        "error": None if ack.error is None else error_json(ack.error),
        "due_at": to_text(at + timedelta(seconds=delay_of(ack))) if later else None,
        "killed": ack.killed,
    }


def _claim(claimant: Claimant, job_id: int, attempted_at: datetime) -> dict[str, Any]:
    return {"id": job_id, "fence": to_text(attempted_at), "uuid": claimant.uuid}


def _moment(value: object) -> datetime | None:
    try:
        return to_moment(value) if isinstance(value, str) else None
    except ValueError:
        return None

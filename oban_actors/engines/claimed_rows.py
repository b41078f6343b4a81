"""Rows that a turn has claimed, of either database, and the jobs that they hold."""

import json
from datetime import UTC, datetime
from typing import Any

from oban_actors.claim import Claimant
from oban_actors.engines.turn import Unreadable, UnreadableRow
from oban_actors.job import Job, JobState
from oban_actors.job_row import error_element

CLAIMED = (
    "priority, {scheduled_at}, id, {inserted_at}, worker, attempt, max_attempts, "
    "{args}, {meta}, {tags}, {errors}"
)
"""Columns of a claimed row that differ from row to row; the others are known.

They begin with what jobs are ordered by, so that rows sort as they are.
"""

_DUE_AT, _ID, _WORKER, _ATTEMPT, _MAX_ATTEMPTS = 1, 2, 4, 5, 6

# As text, and as others may leave them.
_NO_META = (None, "{}", "null")
_NO_LIST = (None, "[]", "null")

Row = tuple[Any, ...]


class ClaimedRows:
    """See `Fetched`.

    Args:
        rows: with the columns of `CLAIMED`, JSON as text; what comes after them is passed over.
        claimant: who claimed them.
        queue: their queue.
        at: when, aware and in UTC.

    """

    def __init__(self, rows: list[Row], claimant: Claimant, queue: str, at: datetime) -> None:
        try:
            rows.sort()
        except TypeError:
            # One of them can't be read; the others keep their order.
            rows.sort(key=lambda row: (_text(row[0]), _text(row[_DUE_AT]), row[_ID]))
        self.rows = rows
        self.at = at
        self._claimant = claimant
        self._queue = queue

    def id_of(self, row: Row) -> int:
        """See `Fetched`."""
        job_id: int = row[_ID]
        return job_id

    def worker_of(self, row: Row) -> str:
        """See `Fetched`."""
        return _text(row[_WORKER])

    def read(self, row: Row) -> Job:
        """See `Source`."""
        try:
            return _job(row, self._claimant, self._queue, self.at)
        except Exception as error:
            # Others may leave anything there, and what is wrong with it is this row's alone.
            reason = f"{type(error).__name__}: {error}"
            raise UnreadableRow(self._unreadable(row, reason)) from error

    def _unreadable(self, row: Row, reason: str) -> Unreadable:
        return Unreadable(
            job_id=row[_ID],
            attempted_at=self.at,
            attempt=_integer(row[_ATTEMPT]),
            max_attempts=_integer(row[_MAX_ATTEMPTS]),
            worker=_text(row[_WORKER]),
            queue=self._queue,
            reason=reason,
        )


NOTHING = ClaimedRows([], Claimant("", ""), "", datetime.min.replace(tzinfo=UTC))
"""What a turn brings that has claimed nothing."""


# Helpers


def _job(row: Row, claimant: Claimant, queue: str, at: datetime) -> Job:
    (
        priority,
        scheduled_at,
        job_id,
        inserted_at,
        worker,
        attempt,
        max_attempts,
        args,
        meta,
        tags,
        errors,
        *_,
    ) = row
    # SQLite's columns may hold any type.
    if not (type(worker) is str and type(priority) is type(attempt) is type(max_attempts) is int):
        raise TypeError("expected worker to be str, priority, attempt and max_attempts to be int")
    return Job(
        worker=worker,
        args={} if args == "{}" else _read("args", args, dict),
        queue=queue,
        state=JobState.EXECUTING,
        priority=priority,
        max_attempts=max_attempts,
        tags=[] if tags in _NO_LIST else _tags(tags),
        meta={} if meta in _NO_META else _read("meta", meta, dict),
        attempt=attempt,
        attempted_by=[claimant.node, claimant.uuid],
        errors=[] if errors in _NO_LIST else _errors(errors),
        id=job_id,
        inserted_at=_moment("inserted_at", inserted_at),
        scheduled_at=_moment("scheduled_at", scheduled_at),
        attempted_at=at,
    )


def _moment(name: str, value: datetime | str | None) -> datetime:
    if value is None:
        # PostgreSQL has times before and after, and without end.
        raise ValueError(f"expected {name} to be in the years 1 to 9999")
    moment = datetime.fromisoformat(value) if isinstance(value, str) else value
    if moment.tzinfo is UTC:
        return moment
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def _read(name: str, text: object, kind: type) -> Any:
    # SQLite's columns for JSON make numbers of what looks like one.
    value = _parsed(text) if isinstance(text, str) else text
    if type(value) is kind:
        return value
    raise TypeError(f"expected {name} to be {kind.__name__}, got: {type(value).__name__}")


_decoder = json.JSONDecoder()


def _parsed(text: str) -> Any:
    # For small documents what `loads` does besides is most of the time.
    try:
        value, end = _decoder.raw_decode(text)
    except ValueError:
        return json.loads(text)
    return value if end == len(text) else json.loads(text)


def _tags(text: str) -> list[str]:
    return [str(each) for each in _read("tags", text, list) if each is not None]


def _errors(text: str) -> list[dict[str, Any]]:
    return [error_element(each) for each in _read("errors", text, list)]


def _integer(value: object) -> int:
    return value if isinstance(value, int) else 0


def _text(value: object) -> str:
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    return "" if value is None else str(value)

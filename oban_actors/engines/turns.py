"""What the turns of both databases share: claimed rows as jobs, and what became of an ack."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from sqlalchemy import Connection

from oban_actors.claim import Ack, Claimant
from oban_actors.engines.engine import Turn, Unreadable
from oban_actors.job import MAX_AHEAD, Job, JobState
from oban_actors.job_row import error_element
from oban_actors.repo.times import to_naive

CLAIMED = (
    "priority, {scheduled_at}, id, {inserted_at}, worker, attempt, max_attempts, "
    "{args}, {meta}, {tags}, {errors}"
)
"""Columns of a claimed row that differ from row to row; the others are known.

They begin with what jobs are ordered by, so that rows sort as they are.
"""

_DUE_AT, _ID, _WORKER, _ATTEMPT, _MAX_ATTEMPTS = 1, 2, 4, 5, 6
_LATER = (JobState.RETRYABLE, JobState.SCHEDULED)

# As text, and as others may leave them.
_NO_META = (None, "{}", "null")
_NO_LIST = (None, "[]", "null")

Row = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Shown:
    """What the row of an acknowledged job shows.

    Attributes:
        state: its state.
        attempted_at: the fence of its latest claim; None if it is no time of ours.
        uuid: whose claim that is.
        last_error: the last of its errors as JSON, None for none.

    """

    state: str
    attempted_at: datetime | None
    uuid: str | None
    last_error: str | None


def turn_of(
    acks: Sequence[Ack],
    verdicts: Mapping[int, str],
    claims: tuple[list[Job], list[Unreadable]],
) -> Turn:
    """Put together what a turn did.

    Args:
        acks: what was acknowledged.
        verdicts: what became of each by its job's id; those not named are settled.
        claims: jobs and rows that can't be run.

    """
    if not verdicts:
        return Turn(frozenset([a.job_id for a in acks]), _NONE, _NONE, *claims)
    sorts: dict[str, set[int]] = {"settled": set(), "stale": set(), "blocked": set()}
    for ack in acks:
        sorts[verdicts.get(ack.job_id, "settled")].add(ack.job_id)
    settled, stale, blocked = map(frozenset, sorts.values())
    return Turn(settled, stale, blocked, *claims)


_NONE: frozenset[int] = frozenset()


def judge(acks: Iterable[Ack], shown: Mapping[int, Shown], uuid: str) -> dict[int, str]:
    """Tell what became of each acknowledgement, from what its row shows after the statement.

    Args:
        acks: all of a statement that did not update as many rows as it was asked to.
        shown: the rows that are there, by id.
        uuid: of the claimant.

    Returns:
        settled, stale or blocked, by the job's id.

    """
    return {ack.job_id: _verdict(ack, shown.get(ack.job_id), uuid) for ack in acks}


def _verdict(ack: Ack, row: Shown | None, uuid: str) -> str:
    if row is None or row.attempted_at != ack.attempted_at or row.uuid != uuid:
        return "stale"
    if row.state == JobState.EXECUTING:
        # It is ours and was left out: somebody has it locked.
        return "blocked"
    if row.state == ack.state:
        unsaid = ack.killed and ack.error is not None and not _says(row, ack)
        return "blocked" if unsaid else "settled"
    # Once due it was made available, its claim still to be seen. A row that was rescued looks the
    # same but for the error.
    staged = row.state == JobState.AVAILABLE and ack.state in _LATER
    return "settled" if staged and ack.error is not None and _says(row, ack) else "stale"


def _says(row: Shown, ack: Ack) -> bool:
    if row.last_error is None:
        return False
    try:
        return bool(json.loads(row.last_error) == json.loads(error_json(ack.error)))
    except (ValueError, RecursionError):
        return False


def error_json(error: object) -> str:
    """Write an element for a row's errors, whatever is in it: an ack has to be writable.

    What no database can hold is replaced: NUL and lone surrogates, infinite numbers, strange types.
    """
    try:
        written = json.dumps(error, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        return json.dumps({"error": storable(repr(error))})
    if "\\u0000" in written or "\\ud" in written:
        return json.dumps(_cleaned(error))
    return written


def _cleaned(value: Any) -> Any:
    if isinstance(value, str):
        return storable(value)
    if isinstance(value, Mapping):
        return {storable(str(key)): _cleaned(item) for key, item in value.items()}
    return [_cleaned(item) for item in value] if isinstance(value, list | tuple) else value


def storable(text: str) -> str:
    """Replace what neither PostgreSQL nor UTF-8 has a place for."""
    return text.replace("\0", "\ufffd").encode("utf-8", "replace").decode()


def delay_of(ack: Ack) -> float:
    """Give seconds that any clock can add to its time."""
    return min(ack.delay, MAX_AHEAD) if ack.delay > 0 else 0.0


def raw_rows(connection: Connection, statement: str, parameters: Mapping[str, Any]) -> list[Row]:
    """Execute SQL in the driver's own style, and give its rows as the driver does.

    What SQLAlchemy adds to each row costs more than all else that is done with it.
    """
    result = connection.exec_driver_sql(statement, parameters)
    rows = list(result.cursor.fetchall())
    result.close()
    return rows


# Claims


def read_claims(
    rows: list[Row], claimant: Claimant, queue: str, at: datetime
) -> tuple[list[Job], list[Unreadable]]:
    """Make jobs of rows that were just claimed, in the order in which they are to run.

    Args:
        rows: with the columns of `CLAIMED`, JSON as text.
        claimant: who claimed them.
        queue: their queue.
        at: when, aware and in UTC.

    Returns:
        the jobs, and what is no job.

    """
    try:
        rows.sort()
    except TypeError:
        # One of them can't be read; the others keep their order.
        rows.sort(key=lambda row: (_text(row[0]), _text(row[_DUE_AT]), row[_ID]))
    jobs: list[Job] = []
    unreadable: list[Unreadable] = []
    for row in rows:
        try:
            jobs.append(_job(row, claimant, queue, at))
        except (AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
            unreadable.append(_unreadable(row, at, f"{type(error).__name__}: {error}"))
    return jobs, unreadable


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
        inserted_at=_moment(inserted_at),
        scheduled_at=_moment(scheduled_at),
        attempted_at=at,
    )


def _moment(value: datetime | str) -> datetime:
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


def _unreadable(row: Row, at: datetime, reason: str) -> Unreadable:
    return Unreadable(
        job_id=row[_ID],
        attempted_at=at,
        attempt=_integer(row[_ATTEMPT]),
        max_attempts=_integer(row[_MAX_ATTEMPTS]),
        worker=_text(row[_WORKER]),
        reason=reason,
    )


def _integer(value: object) -> int:
    return value if isinstance(value, int) else 0


def _text(value: object) -> str:
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    return "" if value is None else str(value)


@lru_cache(maxsize=64)
def fence_text(moment: datetime) -> str:
    """Write a fence as PostgreSQL reads a timestamp, whatever the session's settings.

    All claims of one fetch have the same.
    """
    return to_naive(moment).isoformat()

"""What the turns of both databases share: what became of an acknowledgement."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any

from sqlalchemy import Connection

from oban_actors.claim import Ack
from oban_actors.engines.claimed_rows import Row
from oban_actors.engines.turn import Fetched, Turn
from oban_actors.job import MAX_AHEAD, JobState
from oban_actors.repo.times import to_naive

FAILED = (JobState.RETRYABLE, JobState.DISCARDED)
"""What a job becomes that failed; its row says which."""

_LATER = (*FAILED, JobState.SCHEDULED)


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
    fetched: Fetched,
) -> Turn:
    """Put together what a turn did.

    Args:
        acks: what was acknowledged.
        verdicts: what became of each by its job's id; those not named are settled.
        fetched: the rows that it claimed.

    """
    if not verdicts:
        return Turn(frozenset([a.job_id for a in acks]), _NONE, _NONE, fetched)
    sorts: dict[str, set[int]] = {
        verdict: set() for verdict in ("settled", "stale", "blocked", "completed", "recounted")
    }
    for ack in acks:
        sorts[verdicts.get(ack.job_id, "settled")].add(ack.job_id)
    settled, stale, blocked, completed, recounted = map(frozenset, sorts.values())
    settled |= completed | recounted
    return Turn(settled, stale, blocked, fetched, completed, recounted)


_NONE: frozenset[int] = frozenset()


def judge(acks: Iterable[Ack], shown: Mapping[int, Shown], uuid: str) -> dict[int, str]:
    """Tell what became of each acknowledgement, from what its row shows after the statement.

    Args:
        acks: all of a statement that did not update as many rows as it was asked to.
        shown: the rows that are there, by id.
        uuid: of the claimant.

    Returns:
        settled, stale, blocked, completed or recounted, by the job's id.

    """
    return {ack.job_id: _verdict(ack, shown.get(ack.job_id), uuid) for ack in acks}


def _verdict(ack: Ack, row: Shown | None, uuid: str) -> str:
    if row is None or row.attempted_at != ack.attempted_at or row.uuid != uuid:
        return "stale"
    if row.state == JobState.EXECUTING:
        # It is ours and was left out: somebody has it locked.
        return "blocked"
    if ack.completed and row.state == JobState.COMPLETED:
        return "completed"
    if row.state == ack.state:
        unsaid = ack.killed and ack.error is not None and not _says(row, ack)
        return "blocked" if unsaid else "settled"
    said = ack.error is not None and _says(row, ack)
    failed = row.state in FAILED and ack.state in FAILED and (said or ack.error is None)
    # Once due it was made available, its claim still to be seen. A row that was rescued looks the
    # same but for the error.
    staged = row.state == JobState.AVAILABLE and ack.state in _LATER and said
    if failed or (staged and ack.state == JobState.DISCARDED):
        return "recounted"
    return "settled" if staged else "stale"


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


@lru_cache(maxsize=64)
def fence_text(moment: datetime) -> str:
    """Write a fence as PostgreSQL reads a timestamp, whatever the session's settings.

    All claims of one fetch have the same.
    """
    return to_naive(moment).isoformat()

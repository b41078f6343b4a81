"""Changing jobs, named or chosen, in steps that show how far it has come."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import sqlalchemy as sa

from oban_actors.cli.exits import DONE, FAILED
from oban_actors.cli.session import Session
from oban_actors.cli.tables import confirm
from oban_actors.controlling import BATCH, BROAD, Action
from oban_actors.engines import make_engine
from oban_actors.engines.control import CANCELLABLE, DELETABLE, RETRYABLE
from oban_actors.errors import JobLocked
from oban_actors.filters import choose
from oban_actors.oban import Oban

_STATES = {"cancel": CANCELLABLE, "retry": RETRYABLE, "delete": DELETABLE}
_DONE = {"cancel": "cancelled", "retry": "made available", "delete": "deleted"}


def change_named(session: Session, oban: Oban, action: Action, ids: Sequence[int]) -> int:
    """Change jobs by their ids; the exit code says whether all were."""
    call: Callable[[int], bool] = {
        "cancel": oban.cancel_job,
        "retry": oban.retry_job,
        "delete": oban.delete_job,
    }[action]
    changed: list[int] = []
    locked: list[int] = []
    for job_id in dict.fromkeys(ids):
        try:
            if call(job_id):
                changed.append(job_id)
        except JobLocked:
            locked.append(job_id)
    unchanged = [each for each in dict.fromkeys(ids) if each not in changed]
    for each in unchanged:
        why = (
            "locked by another transaction"
            if each in locked
            else "not there, or not in a state for it"
        )
        session.out.note(f"job {each} was not {_DONE[action]}: {why}")
    return _tell(session, action, len(dict.fromkeys(ids)), len(changed), unchanged)


def change_chosen(
    session: Session,
    oban: Oban,
    action: Action,
    filters: dict[str, Any],
    limit: int | None,
    *,
    yes: bool,
) -> int:
    """Change the jobs that filters choose, those that are there when it begins."""
    ids = _chosen(oban, action, filters, limit)
    if ids:
        which = ", ".join(f"{name} {' '.join(map(str, value))}" for name, value in filters.items())
        noun = "job" if len(ids) == 1 else "jobs"
        question = f"{action.capitalize()} {len(ids):,} {noun}{f' ({which})' if which else ''}?"
        confirm(session, question, yes=yes)
    call: Callable[..., int] = {
        "cancel": oban.cancel_all_jobs,
        "retry": oban.retry_all_jobs,
        "delete": oban.delete_all_jobs,
    }[action]
    changed = 0
    locked: list[int] = []
    with session.out.progress(action, len(ids)) as advance:
        for batch in _batches(ids):
            try:
                changed += call(id=batch, **filters)
            except JobLocked as error:
                changed += error.changed
                locked += error.ids
            advance(len(batch))
    if locked:
        session.out.note(f"{len(locked)} were locked by other transactions and left as they were")
    return _tell(session, action, len(ids), changed, locked)


def _chosen(oban: Oban, action: Action, filters: dict[str, Any], limit: int | None) -> list[int]:
    engine = make_engine(oban.repo.dialect, oban.config.prefix)
    wanted = filters if limit is None else {**filters, "limit": limit}
    chosen = choose(engine.table, oban.repo.dialect, None, wanted)

    def look(connection: sa.Connection) -> list[int]:
        if oban.repo.dialect == "postgresql" and not chosen.by_queue:
            connection.exec_driver_sql(BROAD, execution_options={"no_parameters": True})
        return engine.find_jobs(connection, chosen, _STATES[action])

    return oban.repo.transaction(look, read_only=True)


def _batches(ids: Sequence[int]) -> Iterator[Sequence[int]]:
    for start in range(0, len(ids), BATCH):
        yield ids[start : start + BATCH]


def _tell(
    session: Session, action: Action, chosen: int, changed: int, unchanged: Sequence[int]
) -> int:
    data = {"action": action, "chosen": chosen, "changed": changed, "unchanged": list(unchanged)}
    words = f"{changed:,} of {chosen:,} jobs {_DONE[action]}"
    session.out.result(data, lambda console: console.print(words))
    return FAILED if unchanged else DONE

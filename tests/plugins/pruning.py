"""What the tests of the Pruner share: jobs that ended at some time, and a store of its own."""

from datetime import UTC, datetime, timedelta
from typing import Any

from oban_actors import Job, Oban, Prune
from oban_actors.plugins import PluginResult
from tests.engines.conftest import Store

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)


def ended(store: Store, state: str, seconds: float, queue: str = "default", **columns: Any) -> int:
    """Put in a job that ended so many seconds before noon; give its id."""
    at = NOON - timedelta(seconds=seconds)
    job = Job.new(worker="w", queue=queue, state=state, scheduled_at=columns.pop("due", at))
    [found] = store.insert(job, now=at)
    assert found.id is not None
    columns = {f"{state}_at": at, "attempted_at": at} | columns
    setting = ", ".join(f"{name} = :{name}" for name in columns)
    values = {name: written(store, value) for name, value in columns.items()}
    store.run(f"UPDATE {{jobs}} SET {setting} WHERE id = :id", id=found.id, **values)
    return found.id


def written(store: Store, value: Any) -> Any:
    """Give a moment as the table holds it."""
    if not isinstance(value, datetime):
        return value
    if store.repo.dialect == "sqlite":
        return value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    return value.astimezone(UTC).replace(tzinfo=None)


def ids(store: Store) -> list[int]:
    """Give the ids of all jobs."""
    return [row[0] for row in store.run("SELECT id FROM {jobs} ORDER BY id")]


def ask(oban: Oban) -> PluginResult:
    """Have the Pruner run."""
    result = oban.ask(("plugin", "pruner"), Prune(), timeout=60)
    assert isinstance(result, PluginResult)
    return result

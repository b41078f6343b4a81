"""Jobs as commands show them."""

import json
from collections.abc import Iterator, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from oban_actors.cli.output import cell, moment, safe, table
from oban_actors.job import Job
from oban_actors.job_secrets import shown_args

FIELDS = (
    "id",
    "state",
    "queue",
    "worker",
    "args",
    "meta",
    "tags",
    "errors",
    "attempt",
    "max_attempts",
    "priority",
    "attempted_by",
    "inserted_at",
    "scheduled_at",
    "attempted_at",
    "completed_at",
    "discarded_at",
    "cancelled_at",
)
"""Keys of a job in JSON, the columns of its row."""

_STYLES = {
    "available": "cyan",
    "scheduled": "blue",
    "executing": "yellow",
    "retryable": "magenta",
    "completed": "green",
    "discarded": "red",
    "cancelled": "bright_black",
    "suspended": "bright_black",
}
_MOMENTS = tuple(name for name in FIELDS if name.endswith("_at"))


def as_data(job: Job) -> dict[str, Any]:
    """Give a job as JSON has it."""
    told = {"state": str(job.state), "args": shown_args(job)}
    return {name: getattr(job, name) for name in FIELDS} | told


def state_cell(state: str) -> Text:
    """Show a state in its colour."""
    return cell(state, _STYLES.get(state, ""))


def job_table(jobs: Sequence[Job]) -> Table:
    """Show many jobs, a line for each."""
    columns = ("id", "state", "queue", "worker", "attempt", "scheduled", "tags")
    rows = [
        (
            job.id,
            state_cell(str(job.state)),
            job.queue,
            job.worker,
            f"{job.attempt}/{job.max_attempts}",
            moment(job.scheduled_at),
            " ".join(job.tags),
        )
        for job in jobs
    ]
    return table(columns, rows, right="id attempt")


def show_job(console: Console, job: Job) -> None:
    """Show all of one job."""
    console.print(table(("field", "value"), list(_lines(job)), head=False))
    for error in job.errors:
        at, attempt = safe(error.get("at")), safe(error.get("attempt"))
        console.print(Text(f"attempt {attempt} at {at}:", style="red"))
        for line in str(error.get("error")).splitlines():
            console.print(Text(f"  {safe(line)}"))


def _lines(job: Job) -> Iterator[tuple[object, object]]:
    for name in FIELDS:
        value: Any = shown_args(job) if name == "args" else getattr(job, name)
        if name == "errors" or value in (None, [], {}):
            continue
        if name in _MOMENTS:
            value = value.isoformat()
        elif name == "state":
            value = state_cell(str(value))
        elif name in ("args", "meta"):
            value = json.dumps(value, ensure_ascii=False)
        elif name in ("tags", "attempted_by"):
            value = " ".join(value)
        yield name, value

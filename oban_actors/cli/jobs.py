"""`jobs`: looking at jobs, and changing one or many."""

from collections.abc import Callable
from typing import Any, TypeVar

import click

from oban_actors.cli.job_changes import change_chosen, change_named
from oban_actors.cli.job_view import as_data, job_table, show_job
from oban_actors.cli.session import Session, common, examples, pass_session
from oban_actors.controlling import Action
from oban_actors.job import JobState

F = TypeVar("F", bound=Callable[..., Any])

_STATES = click.Choice([state.value for state in JobState])
_FILTERS = (
    click.option("--state", multiple=True, type=_STATES, help="In this state; may be repeated."),
    click.option("--queue", multiple=True, help="Of this queue; may be repeated."),
    click.option("--worker", multiple=True, help="Of this worker; may be repeated."),
    click.option("--tag", "tags", multiple=True, help="With this tag; repeated: with all."),
)


def filtered(command: F) -> F:
    """Add the options that say which jobs."""
    for option in reversed(_FILTERS):
        command = option(command)
    return command


@click.group()
@common
def jobs() -> None:
    """Look at jobs, and retry, cancel or delete them."""


@jobs.command(
    "list",
    epilog=examples(
        "oban-actors jobs list --state discarded --queue mailers",
        "oban-actors jobs list --tag urgent --limit 1000 --json",
    ),
)
@filtered
@click.option("--limit", type=click.IntRange(1), default=50, show_default=True, help="At most.")
@common
@pass_session
def list_jobs(session: Session, limit: int, **given: Any) -> None:
    """List jobs, the newest first."""
    with session.oban() as oban:
        found = oban.all_jobs(skip_unreadable=True, limit=limit, order="-id", **_given(given))
    if len(found) == limit and not session.out.json:
        session.out.note(f"these are the newest {limit}; there may be more: --limit")
    session.out.result(
        {"jobs": [as_data(job) for job in found]}, lambda console: console.print(job_table(found))
    )


@jobs.command(
    epilog=examples(
        "oban-actors jobs show 42",
    ),
)
@click.argument("job_id", metavar="ID", type=int)
@common
@pass_session
def show(session: Session, job_id: int) -> int | None:
    """Show all of one job, its errors too."""
    with session.oban() as oban:
        job = oban.get_job(job_id)
    if job is None:
        raise click.ClickException(f"there is no job {job_id}")
    session.out.result(as_data(job), lambda console: show_job(console, job))
    return None


def _change(action: Action, doc: str, epilog: str) -> None:
    @filtered
    @click.argument("ids", metavar="[ID]...", type=int, nargs=-1)
    @click.option("--limit", type=click.IntRange(1), help="The oldest so many at most.")
    @click.option("--all", "everything", is_flag=True, help="All jobs, where nothing says which.")
    @click.option("--yes", is_flag=True, help="Don't ask.")
    @common
    @pass_session
    def command(
        session: Session,
        ids: tuple[int, ...],
        limit: int | None,
        everything: bool,  # noqa: FBT001 (click's way)
        yes: bool,  # noqa: FBT001 (as above)
        **given: Any,
    ) -> int:
        filters = _given(given)
        if ids and (filters or limit or everything):
            raise click.UsageError("give either ids or filters")
        if not ids and not filters and not everything:
            raise click.UsageError("say which jobs: ids, filters, or --all")
        with session.oban() as oban:
            if ids:
                return change_named(session, oban, action, ids)
            return change_chosen(session, oban, action, filters, limit, yes=yes)

    command.__doc__ = doc
    jobs.command(action, epilog=epilog)(command)


def _given(filters: dict[str, Any]) -> dict[str, Any]:
    return {name: list(value) for name, value in filters.items() if value}


_change(
    "retry",
    """Make jobs available again, whatever became of them.

    Named by their ids at once; chosen by filters after a question, unless --yes.
    """,
    examples(
        "oban-actors jobs retry 42 43", "oban-actors jobs retry --state discarded --queue mailers"
    ),
)
_change(
    "cancel",
    """Cancel jobs that have not ended; those that run are told.

    Named by their ids at once; chosen by filters after a question, unless --yes.
    """,
    examples(
        "oban-actors jobs cancel 42",
        "oban-actors jobs cancel --worker shop.mail.welcome --state scheduled --yes",
    ),
)
_change(
    "delete",
    """Delete jobs that don't run.

    Named by their ids at once; chosen by filters after a question, unless --yes.
    """,
    examples(
        "oban-actors jobs delete 42",
        "oban-actors jobs delete --state completed --limit 100000 --yes",
    ),
)

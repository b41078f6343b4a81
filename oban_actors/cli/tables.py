"""`migrate` and `rollback`: the tables."""

import sys

import click

from oban_actors.cli.output import safe
from oban_actors.cli.session import Session, common, examples, pass_session
from oban_actors.oban import Oban
from oban_actors.repo.migrator import migrated_version


@click.command(
    epilog=examples(
        "oban-actors migrate --database-url sqlite:///jobs.db",
        "oban-actors migrate --prefix background --json",
    ),
)
@click.option("--version", type=int, help="Oban's version to stop at; the newest by default.")
@common
@pass_session
def migrate(session: Session, version: int | None) -> None:
    """Create the tables, or bring them to the newest version.

    Safe to repeat, and for several machines to do at once. Indexes are built while others write.
    """
    with session.oban() as oban:
        before = migrated_version(oban.repo)
        with session.out.progress("migrating", None):
            after = oban.migrate(version)
        _tell(session, before, after)


@click.command(
    epilog=examples(
        "oban-actors rollback --version 12",
        "oban-actors rollback --yes",
    ),
)
@click.option("--version", type=int, default=0, show_default=True, help="Version to go back to.")
@click.option("--yes", is_flag=True, help="Don't ask.")
@common
@pass_session
def rollback(session: Session, version: int, yes: bool) -> None:  # noqa: FBT001 (click's way)
    """Take the tables back to an older version. 0 drops them, with all jobs."""
    with session.oban() as oban:
        before = migrated_version(oban.repo)
        if version == 0 and before:
            confirm(session, f"Drop all tables at {_where(oban)}, with all jobs?", yes=yes)
        with session.out.progress("rolling back", None):
            after = oban.rollback(version)
        _tell(session, before, after)


def confirm(session: Session, question: str, *, yes: bool) -> None:
    """Ask before what can't be undone.

    Raises:
        click.UsageError: nobody is there to be asked.
        click.ClickException: the answer is no.

    """
    if yes:
        return
    if session.out.json or not _can_ask():
        raise click.UsageError("this needs --yes where nobody can be asked")
    if not click.confirm(safe(question), err=True):
        raise click.ClickException("nothing was done")


def _can_ask() -> bool:
    return sys.stdin.isatty()


def _where(oban: Oban) -> str:
    schema = f", schema {oban.config.prefix}" if oban.repo.dialect == "postgresql" else ""
    return f"{oban.repo.engine.url.render_as_string(hide_password=True)}{schema}"


def _tell(session: Session, before: int, after: int) -> None:
    external = after == sys.maxsize
    data = {"before": None if external else before, "version": None if external else after}
    words = f"the tables have version {after}"
    if external:
        words = "somebody else looks after the jobs tables; ours are there"
    elif after == 0:
        words = "the tables are gone" if before else "there are no tables"
    elif before != after:
        words += f", before {before or 'none'}"
    session.out.result(data, lambda console: console.print(words))

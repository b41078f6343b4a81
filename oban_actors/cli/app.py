"""The commands together, and how each of them ends."""

import logging
import os
import sys
from collections.abc import Sequence

import click

import oban_actors
from oban_actors.cli import exits
from oban_actors.cli.config import config
from oban_actors.cli.doctor import doctor
from oban_actors.cli.enqueue import enqueue
from oban_actors.cli.jobs import jobs
from oban_actors.cli.output import fail, log_to_stderr, show_import
from oban_actors.cli.queues import queue, queues
from oban_actors.cli.session import Session, add_working_directory, common, examples
from oban_actors.cli.start import start
from oban_actors.cli.tables import migrate, rollback
from oban_actors.cli.tree import tree
from oban_actors.error_text import message


@click.group(
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=examples(
        "export OBAN_DATABASE_URL=sqlite:///jobs.db",
        "oban-actors migrate",
        """oban-actors enqueue shop.mail.welcome '{"to": "ann@example.org"}' --queue mailers""",
        "oban-actors start --import shop.mail --queues mailers=10",
        "oban-actors jobs list",
        title="First steps:",
    )
    + "\n\nExit codes: 0 done, 1 failed or something found, 2 wrong usage or configuration, "
    "3 nobody answered, 4 tables missing or of another version.",
)
@click.version_option(oban_actors.__version__, prog_name="oban-actors")
@common
def app() -> None:
    """Durable background jobs on PostgreSQL and SQLite.

    Options may also come from OBAN_* variables, such as OBAN_DATABASE_URL, and from oban.toml or
    [tool.oban_actors] in pyproject.toml.
    """


for command in (
    migrate,
    rollback,
    start,
    jobs,
    queues,
    queue,
    tree,
    doctor,
    config,
    enqueue,
):
    app.add_command(command)


# Before 8.2 click shows the help of a group by itself.
_HELP = getattr(click.exceptions, "NoArgsIsHelpError", ())


def run(args: Sequence[str]) -> int:
    """Run a command and give its exit code."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    log_to_stderr(logging.WARNING, "%(levelname)s: %(message)s")
    add_working_directory()
    session = Session(args=tuple(args))
    try:
        code = app.main(list(args), "oban-actors", standalone_mode=False, obj=session)
        sys.stdout.flush()
    except BrokenPipeError:
        # Whoever reads has had enough. What is left goes nowhere, or Python complains at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return exits.FAILED
    except click.exceptions.Abort:
        fail("interrupted")
        return exits.INTERRUPTED
    except click.ClickException as error:
        if isinstance(error, _HELP):
            error.show(sys.stderr)
        else:
            fail(_usage(error))
        return error.exit_code
    except Exception as error:
        if session.debug:
            logging.getLogger("oban_actors").exception("the command failed")
        else:
            show_import(error)
        fail(f"{message(error) or type(error).__name__}{exits.advice(error)}")
        return exits.exit_code(error)
    return code if isinstance(code, int) else exits.DONE


def _usage(error: click.ClickException) -> str:
    if not isinstance(error, click.UsageError):
        return error.format_message()
    path = error.ctx.command_path if error.ctx is not None else "oban-actors"
    return f"{error.format_message().rstrip('.')}; see {path} --help"

"""`doctor`: what is wrong with the database, and what mends it."""

import click

from oban_actors.cli.exits import DONE, FAILED, UNREACHABLE
from oban_actors.cli.output import safe
from oban_actors.cli.session import Session, common, examples, pass_session
from oban_actors.doctor import examine, render

_FAULTS = ("error", "warning")


@click.command(epilog=examples("oban-actors doctor", "oban-actors doctor --json"))
@common
@pass_session
def doctor(session: Session) -> int:
    """Compare the live database with what should be there, changing nothing.

    For each fault it prints the statement or the step that mends it. Exit code 1: there are errors
    or warnings; notices alone are no failure.
    """
    with session.oban() as oban, session.out.progress("examining", None):
        findings = examine(oban)
    session.out.result(
        {"findings": [finding.to_dict() for finding in findings]},
        lambda console: console.print(
            "\n".join(safe(line) for line in render(findings).splitlines()),
            soft_wrap=True,
        ),
    )
    if any(finding.code == "unreachable" for finding in findings):
        return UNREACHABLE
    return FAILED if any(finding.severity in _FAULTS for finding in findings) else DONE

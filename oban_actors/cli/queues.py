"""`queues` and `queue`: how the queues stand, and steering them on all nodes."""

from typing import Any

import click
from rich.console import Console

from oban_actors.cli.output import cell, duration, table
from oban_actors.cli.queue_report import QueueReport, look
from oban_actors.cli.session import Session, common, examples, pass_session
from oban_actors.job import JobState

_STATES = tuple(state.value for state in JobState)


@click.command(
    epilog=examples(
        "oban-actors queues --json",
    ),
)
@common
@pass_session
def queues(session: Session) -> None:
    """Show the queues: jobs by state, the oldest that waits, who runs them.

    A producer is a queue on one node; it counts as living when it said so within a minute.
    """
    with session.oban() as oban:
        reports = look(oban)
    data = {"queues": [_data(name, report) for name, report in reports.items()]}
    session.out.result(data, lambda console: _show(console, reports))


@click.group()
@common
def queue() -> None:
    """Pause, resume or scale a queue on the nodes that run it.

    The nodes are told through the database, and follow until they start anew.
    """


_node = click.option("--node", help="Only on this node; on all by default.")


@queue.command(
    epilog=examples(
        "oban-actors queue pause mailers",
        "oban-actors queue pause '*' --node web1",
    ),
)
@click.argument("queue_name", metavar="QUEUE")
@_node
@common
@pass_session
def pause(session: Session, queue_name: str, node: str | None) -> None:
    """Fetch no more of a queue's jobs; those that run go on. '*' is all queues."""
    with session.oban() as oban:
        oban.pause_queue(queue_name, node=node)
        _sent(session, look(oban), "pause", queue_name, node)


@queue.command(
    epilog=examples(
        "oban-actors queue resume mailers",
    ),
)
@click.argument("queue_name", metavar="QUEUE")
@_node
@common
@pass_session
def resume(session: Session, queue_name: str, node: str | None) -> None:
    """Fetch a paused queue's jobs again. '*' is all queues."""
    with session.oban() as oban:
        oban.resume_queue(queue_name, node=node)
        _sent(session, look(oban), "resume", queue_name, node)


@queue.command(
    epilog=examples(
        "oban-actors queue scale media 8 --node web1",
    ),
)
@click.argument("queue_name", metavar="QUEUE")
@click.argument("limit", type=int)
@_node
@common
@pass_session
def scale(session: Session, queue_name: str, limit: int, node: str | None) -> None:
    """Run at most LIMIT of a queue's jobs at once, on each node."""
    with session.oban() as oban:
        oban.scale_queue(queue_name, limit, node=node)
        _sent(session, look(oban), "scale", queue_name, node, limit=limit)


# Helpers


def _sent(
    session: Session,
    reports: dict[str, QueueReport],
    action: str,
    name: str,
    node: str | None,
    **how: Any,
) -> None:
    heard = [
        each
        for queue_name, report in reports.items()
        for each in report.producers
        if name in ("*", queue_name) and each["living"] and node in (None, each["node"])
    ]
    nodes = sorted({str(each["node"]) for each in heard})
    data = {"action": action, "queue": name, "node": node, **how, "nodes": nodes}
    where = ", ".join(nodes) or "nobody: no living node is known to run it"
    session.out.result(data, lambda console: console.print(cell(f"{action} {name}: told {where}")))


def _data(name: str, report: QueueReport) -> dict[str, Any]:
    return {
        "queue": name,
        "states": report.states,
        "oldest_available_seconds": report.oldest,
        "producers": report.producers,
    }


def _show(console: Console, reports: dict[str, QueueReport]) -> None:
    used = [s for s in _STATES if any(report.states.get(s) for report in reports.values())]
    rows = []
    for name, report in reports.items():
        living = [each for each in report.producers if each["living"]]
        limit = sum(each["limit"] for each in living if not each["paused"])
        paused = sum(each["paused"] for each in living)
        producers = f"{len(living)}" + (f" ({paused} paused)" if paused else "")
        dead = len(report.producers) - len(living)
        rows.append(
            (
                name,
                *(f"{report.states.get(s, 0):,}" for s in used),
                duration(report.oldest),
                limit,
                cell(producers, "" if living else "red"),
                cell(dead or "", "red"),
            )
        )
    columns = ("queue", *used, "oldest", "limit", "living", "dead")
    console.print(table(columns, rows, right=" ".join(columns[1:])))
    if not reports:
        console.print("there are no jobs and no producers")

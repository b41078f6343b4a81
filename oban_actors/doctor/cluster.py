"""Who leads, who beats, and who is gone with jobs in hand."""

from collections.abc import Iterator
from typing import Any

from sqlalchemy import Connection

from oban_actors.doctor.exam import Exam, literal
from oban_actors.doctor.finding import Finding
from oban_actors.options import MAX_LEASE
from oban_actors.peers.statements import LeaseTable
from oban_actors.peers.terms import Row
from oban_actors.queues.roster import is_ours

GRACE = 5.0
"""Seconds after its end until a lease that nobody took is a fault."""

SETTLED = 30.0
"""Seconds that a node has for its first election."""

MOST_CLAIMS = 20_000
"""Executing jobs that are looked at."""

SHOWN = 5
"""Ids that are named."""


def check_lease(exam: Exam) -> Iterator[Finding]:
    """Look at the lease, and who holds it."""
    if not exam.facts.peers or exam.config.peer is None or exam.config.peer.kind == "isolated":
        return
    name = exam.config.name
    table = LeaseTable(exam.config, exam.repo.dialect)
    row = exam.read(lambda connection: table.look(connection, exam.repo.now()))
    if row is None:
        living = [one for one in producers(exam) if not _gone(exam, one) and one.name == name]
        # A tree that starts has yet to elect.
        nodes = sorted({one.node for one in living if one.lasting > SETTLED})
        if nodes:
            what = f"nobody leads {name}, though nodes run queues: {', '.join(nodes)}"
            fix = f"start a node of {name} that may lead: one without peer=False"
            yield Finding("error", "no_leader", what, fix)
    elif row.left < -GRACE:
        what = (
            f"the lease of {name} is held by {row.node} and ended {-row.left:.0f} s ago: "
            "nobody leads"
        )
        yield Finding("warning", "lease_expired", what, _free(exam, row))
    elif row.left > MAX_LEASE:
        what = (
            f"the lease of {name} is held by {row.node} for another {row.left:.0f} s, longer than "
            "any lasts: the database's clock was set back, and if that node is gone, nobody leads"
        )
        fix = f"-- once node {row.node!r} is surely down\n{_free(exam, row)}"
        yield Finding("warning", "lease_ahead", what, fix)


def check_producers(exam: Exam) -> Iterator[Finding]:
    """Look for producers that stopped beating and left nothing behind but their rows."""
    busy = {row.uuid for row in _claims(exam)}
    for one in producers(exam):
        if _gone(exam, one) and one.uuid not in busy:
            what = (
                f"the producer of queue {one.queue!r} on node {one.node} has not beaten for "
                f"{one.age:.0f} s, and has no jobs"
            )
            yield Finding("notice", "dead_producer", what, _forget(exam, one.uuid))


def check_claims(exam: Exam) -> Iterator[Finding]:
    """Look for jobs that are executing for producers of ours that are gone."""
    known = {one.uuid: one for one in producers(exam)}
    orphans: dict[str, list[Any]] = {}
    for row in _claims(exam):
        if row.uuid is None or not is_ours(row.uuid):
            continue  # Elixir's producers have no rows
        one = known.get(row.uuid)
        # A producer may claim before it beats for the first time.
        if row.age > exam.limits.beat if one is None else _gone(exam, one):
            orphans.setdefault(row.uuid, []).append(row)
    for uuid, rows in orphans.items():
        ids = [row.id for row in rows]
        shown = ", ".join(map(str, ids[:SHOWN])) + (", ..." if len(ids) > SHOWN else "")
        node = rows[0].node
        what = (
            f"{len(ids)} jobs are executing for a producer of node {node} that is gone: {shown}. "
            "Where the Lifeline runs, it rescues them"
        )
        fix = f"-- once node {node!r} is surely down\n{_rescue(exam, uuid)}\n{_forget(exam, uuid)}"
        yield Finding("error", "orphans", what, fix)


def producers(exam: Exam) -> list[Any]:
    """List the producers' rows; `age`: seconds since the last beat, `lasting`: since the start."""
    if not exam.facts.producers:
        return []
    age, lasting = exam.seconds_since("beat_at"), exam.seconds_since("started_at")
    sql = (
        f"SELECT uuid, name, node, queue, {age} AS age, {lasting} AS lasting "
        "FROM {schema}oban_actors_producers ORDER BY uuid"
    )
    return exam.read(lambda connection: exam.rows(connection, sql, **exam.now()))


def _claims(exam: Exam) -> list[Any]:
    age = exam.seconds_since("attempted_at")
    node = "attempted_by[1]" if exam.postgres else exam.claimant.replace("$[1]", "$[0]")

    def look(connection: Connection) -> list[Any]:
        return exam.rows(
            connection,
            f"SELECT id, {exam.claimant} AS uuid, {node} AS node, coalesce({age}, 0) AS age "
            f"FROM {{jobs}} WHERE state = 'executing' "
            "ORDER BY state, queue, priority, scheduled_at, id LIMIT :most",
            most=MOST_CLAIMS,
            **exam.now(),
        )

    return exam.read(look)


def _gone(exam: Exam, producer: Any) -> bool:
    return bool(producer.age > exam.limits.beat)


def _free(exam: Exam, row: Row) -> str:
    return (
        f"DELETE FROM {exam.schema}oban_peers WHERE name = {literal(exam.config.name)} "
        f"AND node = {literal(row.node)} AND expires_at = {literal(str(row.expires_at))};"
    )


def _rescue(exam: Exam, uuid: str) -> str:
    kind = f"::{exam.schema}oban_job_state" if exam.postgres else ""
    now = (
        "timezone('UTC', clock_timestamp())"
        if exam.postgres
        else "strftime('%Y-%m-%dT%H:%M:%f000Z', 'now')"
    )
    left = "CASE WHEN attempt < max_attempts THEN"
    return (
        f"UPDATE {exam.jobs} SET state = ({left} 'available' ELSE 'discarded' END){kind}, "
        f"discarded_at = {left} discarded_at ELSE {now} END "
        f"WHERE state = 'executing' AND {exam.claimant} = {literal(uuid)};"
    )


def _forget(exam: Exam, uuid: str) -> str:
    return f"DELETE FROM {exam.schema}oban_actors_producers WHERE uuid = {literal(uuid)};"

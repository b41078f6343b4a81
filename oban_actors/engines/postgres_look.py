"""The statement that looks for jobs that are the same as unique ones, on PostgreSQL.

Every way to the rows is chosen here and not by the planner, which would, on a table whose
statistics are old, begin with a state or a queue and read a million rows: whatever must not be its
start stands within `IS TRUE`, where no index serves it.
"""

import json
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

from sqlalchemy import TextClause, text

from oban_actors.engines.shapes import Shape
from oban_actors.job import Job
from oban_actors.repo.key_indexes import KeyIndex, hash_of
from oban_actors.repo.times import NOW

PROBED = 200
"""Rows of a worker that are looked at before the indexes on JSON are asked."""

# As the indexes have them, word for word. No version of the tables lacks one of these states.
_PARTS = {
    "job.state NOT IN ('executing', 'completed', 'discarded', 'cancelled')": (
        "available",
        "scheduled",
        "retryable",
        "suspended",
    ),
    "job.state NOT IN ('executing', 'available', 'scheduled', 'retryable')": (
        "completed",
        "discarded",
        "cancelled",
        "suspended",
    ),
}
_ITEM = (
    "json_to_recordset(cast(:items AS json)) "
    "AS item (place integer, worker text, queue text, args jsonb, meta jsonb)"
)
_HASH = "jsonb_hash_extended(job.args, 0) = jsonb_hash_extended(item.args, 0)"
# As the index has them, so that they are read one by one, and no more than are wanted.
_IN_ORDER = "ORDER BY job.worker, jsonb_hash_extended(job.args, 0), job.inserted_at"
_MATCHES = {
    "equal": "job.{0} = item.{0}",
    "alike": "job.{0} @> item.{0} AND job.{0} <@ item.{0}",
    "part": "job.{0} @> item.{0}",
}
_SINCE = f"""
moment AS MATERIALIZED (
  SELECT {NOW["postgresql"]} - make_interval(secs => cast(:period AS double precision)) AS since
)
"""


@lru_cache(maxsize=256)
def look(schema: str, shape: Shape) -> TextClause:
    """Build the statement for one shape.

    Its parameters are `items`, a JSON array of objects with place, worker, queue, args and meta,
    where the shape has a period, `period` and `now`, and where one index may serve its keys, those
    by their `key_names`. It gives rows of a place and the id of a job, NULL where there is none.

    Args:
        schema: of the tables, quoted.
        shape: what to look for.

    """
    return text(f"WITH {found_same(schema, shape)} SELECT place, id FROM found")


def found_same(schema: str, shape: Shape) -> str:
    """Write what `look` finds as subqueries of a larger statement, the last of them named `found`.

    That has a row for each item, with its place and the id of a job.
    """
    ways = [*_ways(schema, shape), *_executing(schema, shape)]
    same = ways[0] if len(ways) == 1 else f"coalesce({', '.join(ways)})"
    moment = "" if shape.unique.period is None else f"{_SINCE}, "
    return f"{moment}found AS MATERIALIZED (SELECT item.place, {same} AS id FROM {_ITEM})"


def _ways(schema: str, shape: Shape) -> list[str]:
    parts = [part for part, states in _PARTS.items() if set(states) & set(shape.unique.states)]
    if shape.args == "equal" or (shape.worker and not document_of(shape)):
        return [_by_worker(schema, shape, part) for part in parts]
    if not parts:
        return []
    column = document_of(shape)
    if column is None:
        return [_by_state(schema, shape)]
    if not shape.worker:
        return [_indexed(schema, shape, column, _by_state(schema, shape))]
    by_worker = [_by_worker(schema, shape, part) for part in parts]
    anyway = _indexed(schema, shape, column, f"coalesce({', '.join(by_worker)})")
    if shape.keyed:
        anyway = _by_keys(schema, shape, shape.keyed, anyway)
    return [_probed(schema, shape, parts, anyway)]


def parameters_of(shape: Shape, members: Iterable[tuple[int, Job]]) -> dict[str, Any]:
    """Give the parameters of a look for jobs of a shape, each with its place, but the time's."""
    items = [
        {
            "place": place,
            "worker": job.worker,
            "queue": job.queue,
            "args": shape.unique.wanted(job, "args"),
            "meta": shape.unique.wanted(job, "meta"),
        }
        for place, job in members
    ]
    found: dict[str, Any] = {"items": json.dumps(items, ensure_ascii=False)}
    return found if shape.unique.period is None else found | {"period": shape.unique.period}


def key_names(shape: Shape) -> dict[str, str]:
    """Give the keys for which an index may be there, by the names of their parameters."""
    keys = shape.keyed.keys if shape.keyed else ()
    return {f"key_{number}": key for number, key in enumerate(keys)}


def _executing(schema: str, shape: Shape) -> list[str]:
    if "executing" not in shape.unique.states:
        return []
    conditions = ["job.state = 'executing'", *_rest(shape), *_worker(shape)]
    return [_one(schema, conditions)]


def _by_worker(schema: str, shape: Shape, part: str) -> str:
    conditions = [part, *([_HASH] if shape.args == "equal" else []), *_rest(shape)]
    if shape.worker:
        return _one(schema, [*conditions, "job.worker = item.worker"], _IN_ORDER)
    one = _one(schema, [*conditions, "job.worker = workers.worker"], _IN_ORDER)
    first = f"SELECT job.worker FROM {schema}.oban_jobs AS job WHERE {part}"
    return f"""(
      WITH RECURSIVE workers (worker) AS (
        ({first} ORDER BY job.worker LIMIT 1)
        UNION ALL
        SELECT ({first} AND job.worker > workers.worker ORDER BY job.worker LIMIT 1)
        FROM workers WHERE workers.worker IS NOT NULL
      )
      SELECT max(found.id) FROM (SELECT {one} AS id FROM workers WHERE worker IS NOT NULL) AS found
    )"""


def _by_state(schema: str, shape: Shape) -> str:
    # By their names as text, since older tables lack some.
    names = ", ".join(f"'{state}'" for state in shape.unique.states if state != "executing")
    states = (
        f"job.state = ANY (ARRAY(SELECT each FROM unnest(enum_range(cast(NULL AS "
        f"{schema}.oban_job_state))) AS each WHERE cast(each AS text) IN ({names})))"
    )
    queue = ["job.queue = item.queue"] if shape.queue else []
    return _one(schema, [states, *queue, *_rest(shape)])


def document_of(shape: Shape) -> str | None:
    """Tell which column's index on JSON serves, if there is one."""
    if shape.args in ("alike", "part"):
        return "args"
    return "meta" if shape.meta in ("alike", "part") else None


def _indexed(schema: str, shape: Shape, column: str, otherwise: str) -> str:
    # Elixir's index, which costs every job so much that a table has it only where it was asked for.
    conditions = [f"job.{column} @> item.{column}", *_rest(shape), *_worker(shape)]
    # All of them, since for the first one alone the planner would take any way, in the hope to
    # meet it soon.
    found = f"(SELECT min(job.id + 0) FROM {schema}.oban_jobs AS job WHERE {_all(conditions)})"
    index = f"to_regclass('{schema}.oban_jobs_{column}_index')"
    return f"CASE WHEN {index} IS NOT NULL THEN {found} ELSE {otherwise} END"


def _by_keys(schema: str, shape: Shape, keyed: KeyIndex, otherwise: str) -> str:
    # An index of ours, for just these keys, where the table has it.
    keys = [f"cast(:{name} AS text)" for name in key_names(shape)]
    hashes = [hash_of(f"job.{keyed.column}", key) for key in keys]
    wanted = [hash_of(f"item.{keyed.column}", key) for key in keys]
    same = [f"{one} = {other}" for one, other in zip(hashes, wanted, strict=True)]
    conditions = ["job.worker = item.worker", *same, *_rest(shape)]
    found = _one(schema, conditions, f"ORDER BY job.worker, {', '.join(hashes)}, job.inserted_at")
    index = (
        "SELECT 1 FROM pg_catalog.pg_index WHERE indisvalid "
        f"AND indexrelid = to_regclass('{schema}.{keyed.name}')"
    )
    return f"CASE WHEN EXISTS ({index}) THEN {found} ELSE {otherwise} END"


def _probed(schema: str, shape: Shape, parts: list[str], anyway: str) -> str:
    # Of a worker with few jobs all are looked at: what the document asks for may stand in
    # a million others.
    fits = _all(_rest(shape))
    probes = {f"probe_{number}": part for number, part in enumerate(parts)}
    ctes = ", ".join(
        f"{name} AS MATERIALIZED (SELECT job.id, {fits} AS fits FROM {schema}.oban_jobs AS job "
        f"WHERE {part} AND job.worker = item.worker {_IN_ORDER} LIMIT {PROBED})"
        for name, part in probes.items()
    )
    first = ", ".join(f"(SELECT id FROM {name} WHERE fits LIMIT 1)" for name in probes)
    more = " OR ".join(f"(SELECT count(*) FROM {name}) = {PROBED}" for name in probes)
    return f"(WITH {ctes} SELECT coalesce({first}, CASE WHEN {more} THEN {anyway} END))"


def _rest(shape: Shape) -> list[str]:
    """Give the conditions that serve no index, and the time."""
    states = ", ".join(f"'{state}'" for state in shape.unique.states)
    conditions = [f"cast(job.state AS text) IN ({states})"]
    if shape.queue:
        conditions.append(_hidden("job.queue = item.queue"))
    for column, match in (("args", shape.args), ("meta", shape.meta)):
        if match != "any":
            conditions.append(_hidden(_MATCHES[match].format(column)))
    if shape.unique.period is not None:
        conditions.append(f"job.{shape.unique.timestamp} >= (SELECT since FROM moment)")
    return conditions


def _worker(shape: Shape) -> list[str]:
    return [_hidden("job.worker = item.worker")] if shape.worker else []


def _hidden(condition: str) -> str:
    return f"({condition}) IS TRUE"


def _one(schema: str, conditions: list[str], order: str = "") -> str:
    where = f"{_all(conditions)} {order}"
    return f"(SELECT job.id FROM {schema}.oban_jobs AS job WHERE {where} LIMIT 1)"


def _all(conditions: list[str]) -> str:
    return " AND ".join(conditions)

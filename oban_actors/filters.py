"""Filters: which jobs a call is about, as a host says it and as SQL says it."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, TypedDict

import sqlalchemy as sa
from sqlalchemy.sql.visitors import iterate

from oban_actors.errors import ConfigError
from oban_actors.job import Job, JobState
from oban_actors.json_value import json_object
from oban_actors.repo.containment import Clause, has_words, holds
from oban_actors.repo.job_table import Moment
from oban_actors.repo.times import Dialect
from oban_actors.validation import MAX_INTEGER, OPTIONS, shown
from oban_actors.worker_registry import registered

Query: TypeAlias = sa.Select[Any] | sa.ColumnElement[bool]
"""What a host may give in place of filters, or besides: a select of jobs, or a condition."""

_MAX_ID = 2**63 - 1
_MAY_BE_IDS = (sa.Integer, sa.types.NullType)
_STATES = tuple(state.value for state in JobState)


class JobFilters(TypedDict, total=False):
    """Which jobs; each filter given has to hold, and a list means any of its values.

    Attributes:
        id: the job's.
        state: where it is in its life.
        queue: its queue.
        worker: a worker, with its aliases, or a name.
        priority: its priority.
        attempt: how often it was tried.
        max_attempts: how often it may be tried.
        tags: a word or words, all of which it has to have.
        args: a JSON object that its args have to hold: each of these keys with this value,
            nested objects likewise; of a list, each element has to be in the job's.
        meta: likewise for its meta.
        limit: how many jobs at most; the first by `order`.
        order: names of columns, `-` before one to turn it round; default `id`.

    """

    id: "int | Iterable[int]"
    state: "JobState | str | Iterable[JobState | str]"
    queue: "str | Iterable[str]"
    worker: Any
    priority: "int | Iterable[int]"
    attempt: "int | Iterable[int]"
    max_attempts: "int | Iterable[int]"
    tags: "str | Iterable[str]"
    args: Mapping[str, Any]
    meta: Mapping[str, Any]
    limit: int
    order: "str | Sequence[str]"


FILTERS = tuple(JobFilters.__annotations__)

_ORDERS = (
    "id",
    "state",
    "queue",
    "worker",
    "priority",
    "attempt",
    "max_attempts",
    "inserted_at",
    "scheduled_at",
    "attempted_at",
    "completed_at",
    "cancelled_at",
    "discarded_at",
)


@dataclass(frozen=True, slots=True)
class Chosen:
    """Which jobs, in SQL.

    Attributes:
        given: what the host said, for telemetry.
        every: whether nothing narrows it down.
        select: gives ids, None where no select was given. It counts as it is when the jobs are
            looked for, not again when they are changed.
        holding: conditions that have to hold then and also when a job is changed.
        states: those that were asked for, None for any.
        queues: likewise.
        order: by what they are ordered; empty: in no order.
        limit: how many at most, None for all.

    """

    given: Mapping[str, Any]
    every: bool
    select: sa.Select[tuple[int]] | None
    holding: tuple[Clause, ...]
    states: tuple[str, ...] | None
    queues: tuple[str, ...] | None
    order: tuple[sa.ColumnElement[Any], ...]
    limit: int | None

    @property
    def by_queue(self) -> bool:
        """Whether the way to the jobs is through their queues."""
        ordered = self.order or self.limit is not None
        return self.queues is not None and "id" not in self.given and not ordered


def choose(
    table: sa.Table, dialect: Dialect, query: Query | None, filters: Mapping[str, Any]
) -> Chosen:
    """Read what a host asked for.

    Args:
        table: the jobs.
        dialect: the database's kind.
        query: a select that gives jobs or their ids, or a condition on `table`; None for neither.
        filters: by name, see `JobFilters`.

    Raises:
        ConfigError: a filter is unknown, or its value is none that it could have, or the query
            compares a time with what is no aware datetime.
        InvalidJob: args, meta or tags are none that a job could have.

    """
    OPTIONS.known(filters, FILTERS, "a choice of jobs")
    select = _select(query)
    given = {name: value for name, value in filters.items() if name not in ("limit", "order")}
    clauses = [_clause(table, dialect, name, value) for name, value in given.items()]
    if query is not None and select is None:
        clauses.append(_condition(query))
    if query is not None:
        _check_moments(query)
    limit = filters.get("limit")
    return Chosen(
        given=filters if query is None else {**filters, "query": query},
        every=query is None and not any(map(_narrows, given, given.values())),
        select=select,
        holding=tuple(clauses),
        states=tuple(_values("state", given["state"], _state)) if "state" in given else None,
        queues=tuple(_values("queue", given["queue"], _text)) if "queue" in given else None,
        order=_order(table, filters.get("order", ())),
        limit=None if limit is None else OPTIONS.integer("limit", limit, low=1),
    )


def _narrows(name: str, value: Any) -> bool:
    # To hold nothing in particular is what every job does.
    return name not in ("args", "meta", "tags") or bool(value)


# Selects and conditions


def _select(query: Any) -> sa.Select[tuple[int]] | None:
    if not isinstance(query, sa.Select):
        return None
    columns = query.subquery().c
    if "id" in columns:
        return sa.select(columns["id"])
    if len(columns) == 1 and isinstance(next(iter(columns)).type, _MAY_BE_IDS):
        return sa.select(next(iter(columns)))
    names = ", ".join(columns.keys())
    raise OPTIONS.veiled("query", "a select with a column id", f"one with {names or 'none'}")


def _condition(query: Any) -> Clause:
    if isinstance(query, sa.ColumnElement):
        return query
    raise OPTIONS.refusal("query", "a SQLAlchemy select of jobs or a condition on them", query)


def _check_moments(query: Query) -> None:
    """Refuse what a time of a job can't be compared with, before anything is sent."""
    for each in iterate(query):
        if isinstance(each, sa.BindParameter) and isinstance(each.type, Moment):
            for value in (each.value or ()) if each.expanding else (each.value,):
                each.type.checked(value)


# Filters


def _clause(table: sa.Table, dialect: Dialect, name: str, value: Any) -> Clause:
    column = table.c[name]
    match name:
        case "args" | "meta":
            return holds(dialect, column, json_object(name, value))
        case "tags":
            words = [value] if isinstance(value, str) else value
            return has_words(dialect, column, Job.new(worker="any", tags=words).tags)
        case "worker":
            return column.in_(_workers(value))
        case "queue":
            return column.in_(_values(name, value, _text))
        case "state":
            return column.in_(_values(name, value, _state))
        case _:
            return column.in_(_values(name, value, _integer))


def _values(name: str, value: Any, check: Callable[[str, Any], Any]) -> list[Any]:
    if isinstance(value, str | Mapping) or not isinstance(value, Iterable):
        return [check(name, value)]
    return list(dict.fromkeys(check(f"{name}.{place}", each) for place, each in enumerate(value)))


def _integer(path: str, value: Any) -> int:
    return OPTIONS.integer(path, value, high=_MAX_ID if path.startswith("id") else MAX_INTEGER)


def _state(path: str, value: Any) -> str:
    return OPTIONS.one_of(path, value, _STATES)


def _text(path: str, value: Any) -> str:
    if isinstance(value, str):
        return OPTIONS.storable(path, value)
    raise OPTIONS.refusal(path, "a string", value)


def _workers(value: Any) -> list[str]:
    many = isinstance(value, list | tuple | set | frozenset)
    each = [(f"worker.{place}", one) for place, one in enumerate(value)] if many else None
    names = [name for path, one in each or [("worker", value)] for name in _worker(path, one)]
    return list(dict.fromkeys(names))


def _worker(path: str, value: Any) -> Sequence[str]:
    if isinstance(value, str):
        return (_text(path, value).removeprefix("Elixir."),)
    for spec in registered().values():
        if value is spec.target or getattr(value, "spec", None) is spec:
            return (spec.name, *spec.aliases)
    raise OPTIONS.refusal(path, "a worker or the name of one", value)


# Order


def _order(table: sa.Table, order: Any) -> tuple[sa.ColumnElement[Any], ...]:
    words = [order] if isinstance(order, str) else order
    if not isinstance(words, Sequence):
        raise OPTIONS.refusal("order", "a column or a list of columns", order)
    return tuple(_ordered(table, word) for word in words)


def _ordered(table: sa.Table, word: Any) -> sa.ColumnElement[Any]:
    name = word.removeprefix("-") if isinstance(word, str) else word
    if name not in _ORDERS:
        known = ", ".join(_ORDERS)
        raise ConfigError(f"invalid value for 'order': expected {known}, got: {shown(word)}")
    column = table.c[name]
    return column.desc() if word.startswith("-") else column.asc()

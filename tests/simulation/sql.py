"""The statements that the model reads as SQL: those about the lease, NOTIFY, lost commits.

Of the lease's each condition and lock stands here with its meaning, and the statement's own text
says which of them count: a guard that is gone from the text is gone from the model.
"""

import json
import re
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from functools import lru_cache, partial
from types import SimpleNamespace
from typing import Any

from tests.simulation.database import Row, Statement, Transaction

PEERS = "oban_peers"

Condition = Callable[[Row, Mapping[str, Any], datetime], bool]


def _same(column: str, parameter: str) -> Condition:
    return lambda row, given, _: bool(row[column] == given[parameter])


CONDITIONS: dict[str, Condition] = {
    "name = :name": lambda row, *_: row is not None,
    "node in (:plain, :locked)": lambda row, given, _: (
        row["node"] in (given["plain"], given["locked"])
    ),
    "node = :holder": _same("node", "holder"),
    "started_at = :term": _same("started_at", "term"),
    "expires_at = :written": _same("expires_at", "written"),
    "expires_at > clock.now": lambda row, _, now: bool(row["expires_at"] > now),
}

_WHERE = re.compile(r" WHERE (.*?)(?: RETURNING | FOR KEY SHARE|$)", re.DOTALL)


class Result:
    """What a statement gave; only what is asked of it here."""

    def __init__(self, *rows: Any) -> None:
        self.rows = rows
        self.rowcount = len(rows)

    def one_or_none(self) -> Any:
        """Give the row, or None."""
        return self.rows[0] if self.rows else None

    first = one_or_none

    def scalar(self) -> Any:
        """Give the value."""
        return self.rows[0] if self.rows else None


def meaning(text: str, given: Mapping[str, Any]) -> Statement:
    """Give what a statement does."""
    kind = _kind(text)
    return lambda made: kind(made, given)


@lru_cache
def _kind(text: str) -> Callable[[Transaction, Mapping[str, Any]], Result]:
    text = " ".join(text.split())
    conditions = _conditions(text)
    for sign, meaning_of in _KINDS.items():
        if sign in text:
            return meaning_of(text, conditions)
    raise AssertionError(f"the model knows no such statement: {text}")


def _conditions(text: str) -> list[Condition]:
    found = _WHERE.search(text)
    if found is None or text.startswith(("INSERT", "SELECT count", "SELECT pg_")):
        return []
    parts = [part.strip().lower().replace("peers.", "") for part in found[1].split(" AND ")]
    return [CONDITIONS[part] for part in parts]


def _matching(
    made: Transaction, given: Mapping[str, Any], conditions: list[Condition]
) -> Row | None:
    row, now = made.get(PEERS, given["name"]), made.now()
    return row if row is not None and all(each(row, given, now) for each in conditions) else None


def _look(made: Transaction, given: Mapping[str, Any]) -> Result:
    row = made.get(PEERS, given["name"])
    if row is None:
        return Result()
    left = (row["expires_at"] - made.now()).total_seconds()
    return Result(SimpleNamespace(**row, left_for=left))


def _holds(
    made: Transaction, given: Mapping[str, Any], *, conditions: list[Condition], share: bool
) -> Result:
    if _matching(made, given, conditions) is None:
        return Result()
    if share:
        made.lock(PEERS, given["name"], "share")
        made.notes.append(("held", given["plain"]))
    return Result(1)


def _insert(made: Transaction, given: Mapping[str, Any]) -> Result:
    made.lock(PEERS, given["name"])
    if made.get(PEERS, given["name"]) is not None:
        return Result()
    now = made.now()
    row = {
        "node": given["node"],
        "started_at": now,
        "expires_at": now + timedelta(seconds=given["lease"]),
    }
    made.put(PEERS, given["name"], row)
    return Result(SimpleNamespace(**row))


def _renew(made: Transaction, given: Mapping[str, Any], *, conditions: list[Condition]) -> Result:
    if _matching(made, given, conditions) is None:
        return Result()
    made.lock(PEERS, given["name"], "renew")
    row = made.get(PEERS, given["name"])
    assert row is not None
    expires_at = made.now() + timedelta(seconds=given["lease"])
    made.put(PEERS, given["name"], row | {"node": given["node"], "expires_at": expires_at})
    return Result(SimpleNamespace(expires_at=expires_at))


def _delete(made: Transaction, given: Mapping[str, Any], *, conditions: list[Condition]) -> Result:
    if _matching(made, given, conditions) is None:
        return Result()
    made.lock(PEERS, given["name"])
    made.put(PEERS, given["name"], None)
    return Result()


def _notify(made: Transaction, given: Mapping[str, Any]) -> Result:
    made.notices += [(given["channel"], text) for text in json.loads(given["payloads"])]
    return Result(len(made.notices))


def _xact_status(made: Transaction, given: Mapping[str, Any]) -> Result:
    return Result(made.server.outcomes.get(given["id"], "aborted"))


Kind = Callable[[str, list[Condition]], Callable[[Transaction, Mapping[str, Any]], Result]]

_KINDS: dict[str, Kind] = {
    "pg_notify": lambda *_: _notify,
    "pg_xact_status": lambda *_: _xact_status,
    # There is no constraint that could fail.
    "SET CONSTRAINTS": lambda *_: lambda *_: Result(),
    "SELECT node": lambda *_: _look,
    "SELECT 1": lambda text, conditions: partial(
        _holds, conditions=conditions, share="FOR KEY SHARE" in text
    ),
    "INSERT": lambda *_: _insert,
    "UPDATE": lambda _, conditions: partial(_renew, conditions=conditions),
    "DELETE": lambda _, conditions: partial(_delete, conditions=conditions),
}

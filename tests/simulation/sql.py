"""The statements that the model reads as SQL: those about the lease, NOTIFY, lost commits.

Of the lease's each condition and lock stands here with its meaning, and the statement's own text
says which of them count: a guard that is gone from the text is gone from the model.
"""

import json
import re
from collections.abc import Callable, Mapping
from datetime import timedelta
from functools import lru_cache
from types import SimpleNamespace
from typing import Any

from tests.simulation.database import Row, Statement, Transaction

PEERS = "oban_peers"

Condition = Callable[[Row, Mapping[str, Any], Transaction], bool]

CONDITIONS: dict[str, Condition] = {
    "name = :name": lambda row, given, made: True,
    "node in (:plain, :locked)": lambda row, given, made: (
        row["node"] in (given["plain"], given["locked"])
    ),
    "node = :holder": lambda row, given, made: bool(row["node"] == given["holder"]),
    "started_at = :term": lambda row, given, made: bool(row["started_at"] == given["term"]),
    "expires_at = :written": lambda row, given, made: bool(row["expires_at"] == given["written"]),
    "expires_at > clock.now": lambda row, given, made: bool(row["expires_at"] > made.now()),
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
    if "pg_notify" in text:
        return _notify
    if "pg_xact_status" in text:
        return _xact_status
    conditions = _conditions(text)
    if text.startswith("SELECT node"):
        return _look
    if text.startswith("SELECT 1"):
        share = "FOR KEY SHARE" in text
        return lambda made, given: _holds(made, given, conditions, share=share)
    if text.startswith("INSERT"):
        return _insert
    if text.startswith("UPDATE"):
        return lambda made, given: _renew(made, given, conditions)
    if text.startswith("DELETE"):
        return lambda made, given: _delete(made, given, conditions)
    raise AssertionError(f"the model knows no such statement: {text}")


def _conditions(text: str) -> list[Condition]:
    found = _WHERE.search(text)
    if found is None or text.startswith("INSERT"):
        return []
    parts = [part.strip().lower().replace("peers.", "") for part in found[1].split(" AND ")]
    return [CONDITIONS[part] for part in parts]


def _matching(
    made: Transaction, given: Mapping[str, Any], conditions: list[Condition]
) -> Row | None:
    row = made.get(PEERS, given["name"])
    return row if row is not None and all(each(row, given, made) for each in conditions) else None


def _look(made: Transaction, given: Mapping[str, Any]) -> Result:
    row = made.get(PEERS, given["name"])
    if row is None:
        return Result()
    left = (row["expires_at"] - made.now()).total_seconds()
    return Result(SimpleNamespace(**row, left_for=left))


def _holds(
    made: Transaction, given: Mapping[str, Any], conditions: list[Condition], *, share: bool
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


def _renew(
    made: Transaction, given: Mapping[str, Any], conditions: list[Condition]
) -> Result:
    if _matching(made, given, conditions) is None:
        return Result()
    made.lock(PEERS, given["name"], "renew")
    row = made.get(PEERS, given["name"])
    assert row is not None
    expires_at = made.now() + timedelta(seconds=given["lease"])
    made.put(PEERS, given["name"], row | {"node": given["node"], "expires_at": expires_at})
    return Result(SimpleNamespace(expires_at=expires_at))


def _delete(
    made: Transaction, given: Mapping[str, Any], conditions: list[Condition]
) -> Result:
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

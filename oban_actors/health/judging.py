"""Is a node alive, is it ready: decided from what was looked at before, asking nobody."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from oban_actors.actors import Node
from oban_actors.config import Config
from oban_actors.messages import Status

Phase = Literal["starting", "running", "stopping"]

SLOW = "plugins"
"""Id of the supervisor whose children's runs may take long."""

LONGEST_RUN = 3_600.0
"""Seconds after which a plugin's run is taken for one that hangs."""

STALE_AFTER = 30.0
"""Seconds, beyond the interval, after which what was seen no longer counts."""

_CRASH = re.compile(r"(?:(\w+): )?(?:([A-Za-z_][\w.]*)\()?")


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that has to be so for a node to be ready.

    Attributes:
        ok: whether it is.
        about: what is known of it; plain values without secrets.

    """

    ok: bool
    about: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Vitals:
    """What the Checkup saw last.

    Attributes:
        at: when it began to look, by the monotonic clock.
        database: whether the database answered.
        schema: whether the tables are there with what is used of them.
        leader: whether it is known who leads.
        listen: whether notifications come back.

    """

    at: float
    database: Check
    schema: Check
    leader: Check
    listen: Check


@dataclass(frozen=True, slots=True)
class Report:
    """An answer: whether all is well, and what is said of it."""

    ok: bool
    body: dict[str, Any]


def phase(root: Node) -> Phase:
    """Say whether a tree starts, runs or ends."""
    if root.state == "starting":
        return "starting"
    return "stopping" if root.handling == "terminate" else "running"


def alive(root: Node, patience: float, abandoned: int = 0) -> Report:
    """Judge whether every actor answered lately.

    Args:
        root: the tree.
        patience: seconds that a message may take, or wait; for plugins at least `LONGEST_RUN`.
        abandoned: how many actors were left to themselves; told, and no fault of those that live.

    """
    late = [node for node, seconds in _judged(root, patience) if _late(node, seconds)]
    body = {
        "status": "failing" if late else "ok",
        "phase": phase(root),
        "actors": sum(1 for _ in root.walk()),
        "late": [_about(node) for node in late],
        "abandoned": abandoned,
    }
    return Report(not late, body)


def ready(root: Node, vitals: Vitals | None, now: float, interval: float) -> Report:
    """Judge whether work that is sent here will be done.

    Args:
        root: the tree.
        vitals: what was seen last; None before the first look.
        now: by the monotonic clock.
        interval: seconds between two looks.

    """
    stage = phase(root)
    checks = {"running": Check(stage == "running", {"phase": stage})}
    names = ("database", "schema", "leader", "listen")
    if vitals is None:
        checks |= {name: Check(ok=False, about={"error": "not looked at yet"}) for name in names}
    else:
        age = max(0.0, now - vitals.at)
        fresh = age <= interval + STALE_AFTER
        for name in names:
            seen: Check = getattr(vitals, name)
            stale = {} if fresh else {"error": "seen too long ago"}
            checks[name] = Check(seen.ok and fresh, {**seen.about, **stale, "age": round(age, 3)})
    well = all(check.ok for check in checks.values())
    told = {name: {"ok": check.ok, **check.about} for name, check in checks.items()}
    return Report(well, {"status": "ready" if well else "not ready", "checks": told})


def schema_check(error: str | None) -> Check:
    """Judge the tables; what is wrong with them names no data."""
    return Check(error is None, {} if error is None else {"error": error})


def leader_check(config: Config, leader: str | None) -> Check:
    """Judge whether it is known who leads; a node that asks nobody needs to know nothing."""
    if config.peer is None or (config.peer.kind == "isolated" and not config.peer.leader):
        return Check(ok=True, about={"leader": None, "note": "this node never leads"})
    return Check(leader is not None, {"leader": leader})


def listen_check(status: Status | None) -> Check:
    """Judge whether notifications come back."""
    return Check(status in ("solitary", "clustered"), {"status": status})


def shown_tree(root: Node) -> dict[str, Any]:
    """Give a tree as plain values, without what an error may say of a job's arguments."""
    told = root.to_dict()
    _veil(told)
    return told


def crash_kind(crash: str) -> str:
    """Reduce how an actor ended to the kind and the error's class.

    The rest is the error's own text, which may hold anything.
    """
    found = _CRASH.match(crash)
    parts = [] if found is None else [part for part in found.groups() if part]
    return ": ".join(parts) or "crashed"


# Helpers


def _judged(node: Node, patience: float) -> Iterator[tuple[Node, float]]:
    yield node, patience
    below = max(patience, LONGEST_RUN) if node.id == SLOW else patience
    for child in node.children:
        yield from _judged(child, below)


def _late(node: Node, patience: float) -> bool:
    supervises = node.recent_restarts is not None
    # Both last as long as the jobs below take to end, and have a bound of their own.
    if node.handling == "terminate" or (supervises and node.state == "waiting"):
        return False
    return (node.busy_for or 0.0) > patience or (node.oldest or 0.0) > patience


def _about(node: Node) -> dict[str, Any]:
    told = node.to_dict()
    names = ("id", "actor", "state", "handling", "busy_for", "inbox", "oldest")
    return {name: told[name] for name in names}


def _veil(told: dict[str, Any]) -> None:
    if told["last_crash"] is not None:
        told["last_crash"] = crash_kind(told["last_crash"])
    for child in told["children"]:
        _veil(child)

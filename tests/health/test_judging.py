"""What counts as alive and as ready, and what a tree shows."""

from typing import Any

import pytest

from oban_actors.actors import Node
from oban_actors.config import Config
from oban_actors.health.judging import (
    STALE_AFTER,
    Check,
    Vitals,
    alive,
    crash_kind,
    leader_check,
    listen_check,
    phase,
    ready,
    shown_tree,
)


def node(name: str, *children: Node, state: str = "idle", **facts: Any) -> Node:
    """Make an actor; one with children supervises."""
    recent = 0 if children else None
    return Node(name, name, state, children=children, recent_restarts=recent, **facts)


def busy(name: str, seconds: float, *children: Node, **facts: Any) -> Node:
    """Make one that has had a message in hand for so long."""
    return node(
        name, *children, **{"state": "busy", "handling": "Stage", "busy_for": seconds, **facts}
    )


WELL = Check(ok=True, about={})
SEEN = Vitals(100.0, WELL, WELL, WELL, WELL)


@pytest.mark.parametrize(
    ("tree", "late"),
    [
        (node("oban", node("stager")), []),
        (node("oban", busy("stager", 59.0)), []),
        (node("oban", busy("stager", 61.0)), ["stager"]),
        (node("oban", node("peer", inbox=3, oldest=61.0)), ["peer"]),
        (node("oban", node("peer", inbox=3, oldest=59.0)), []),
        (busy("oban", 61.0, node("stager")), ["oban"]),
        # Bounded elsewhere: by what running jobs have to end in.
        (busy("oban", 999.0, node("queues"), handling="terminate"), []),
        (node("oban", busy("queues", 999.0, node("mailers"), state="waiting")), []),
        (node("oban", busy("watchman", 999.0, handling="terminate")), []),
        # A run of a plugin may take an hour; its supervisor may not.
        (node("oban", node("plugins", busy("pruner", 999.0, inbox=1, oldest=999.0))), []),
        (node("oban", node("plugins", busy("pruner", 3_601.0))), ["pruner"]),
        (node("oban", busy("plugins", 999.0, node("pruner"))), ["plugins"]),
    ],
)
def test_who_is_late(tree: Node, late: list[str]) -> None:
    """A node fails when a message is in hand, or waits, for longer than its patience."""
    report = alive(tree, 60.0, 2)

    assert report.ok is (late == [])
    assert [each["id"] for each in report.body["late"]] == late
    assert report.body["actors"] == len(list(tree.walk()))
    assert report.body["abandoned"] == 2


def test_the_phase_of_a_tree() -> None:
    """It starts, runs, and ends."""
    assert phase(node("oban", state="starting")) == "starting"
    assert phase(node("oban")) == "running"
    assert phase(busy("oban", 1.0, handling="terminate")) == "stopping"


def test_ready_is_all_checks_at_once() -> None:
    """Each check is told, and one that fails is enough."""
    tree = node("oban")

    good = ready(tree, SEEN, 101.0, 5.0)
    assert good.ok
    assert good.body["status"] == "ready"
    assert good.body["checks"]["database"] == {"ok": True, "age": 1.0}
    for name in ("database", "schema", "leader", "listen"):
        broken = Check(ok=False, about={"error": "E"})
        facts = dict.fromkeys(("database", "schema", "leader", "listen"), WELL)
        report = ready(tree, Vitals(100.0, **(facts | {name: broken})), 101.0, 5.0)
        failing = [each for each, told in report.body["checks"].items() if not told["ok"]]
        assert (report.ok, failing) == (False, [name])
        assert report.body["checks"][name]["error"] == "E"


def test_what_was_seen_long_ago_does_not_count() -> None:
    """A Checkup that hangs makes a node unready in time."""
    tree = node("oban")

    assert ready(tree, SEEN, 100.0 + 5.0 + STALE_AFTER, 5.0).ok
    late = ready(tree, SEEN, 100.1 + 5.0 + STALE_AFTER, 5.0)
    assert not late.ok
    assert late.body["checks"]["leader"]["error"] == "seen too long ago"


def test_nothing_is_ready_before_the_first_look_or_at_the_end() -> None:
    """Nor is a tree that starts or stops, whatever was seen."""
    assert not ready(node("oban"), None, 100.0, 5.0).ok
    for tree in (node("oban", state="starting"), busy("oban", 0.1, handling="terminate")):
        report = ready(tree, SEEN, 101.0, 5.0)
        assert not report.ok
        assert report.body["checks"]["running"]["ok"] is False


def test_a_node_that_never_leads_needs_no_leader() -> None:
    """It has nobody to ask; a node that may lead has to know who does."""
    assert leader_check(Config.build(peer=False), None).ok
    assert leader_check(Config.build(peer={"kind": "isolated", "leader": False}), None).ok
    assert not leader_check(Config.build(), None).ok
    assert leader_check(Config.build(), "a").about == {"leader": "a"}


def test_listening_is_proven_by_what_comes_back() -> None:
    """Nothing heard, or nothing known, is no proof."""
    proven = {status: listen_check(status).ok for status in ("solitary", "clustered", "isolated")}

    assert proven == {"solitary": True, "clustered": True, "isolated": False}
    assert not listen_check("unknown").ok
    assert not listen_check(None).ok


@pytest.mark.parametrize(
    ("crash", "kind"),
    [
        ("crashed: ValueError('secret')", "crashed: ValueError"),
        ("crashed: psycopg.errors.Oops('secret')", "crashed: psycopg.errors.Oops"),
        ("killed", "crashed"),
        ("RuntimeError('secret')", "RuntimeError"),
        ("crashed: <secret>", "crashed"),
        ("secret", "crashed"),
        ("shutdown: 'secret'", "shutdown"),
    ],
)
def test_of_a_crash_only_the_kind_is_shown(crash: str, kind: str) -> None:
    """The text of an error may quote a job's arguments."""
    assert crash_kind(crash) == kind


def test_a_tree_shows_no_error_texts() -> None:
    """At no depth."""
    deep = node("oban", node("queues", node("mailers", last_crash="crashed: ValueError('secret')")))
    shown = shown_tree(deep)

    assert "secret" not in str(shown)
    mailers = shown["children"][0]["children"][0]
    assert (mailers["id"], mailers["last_crash"]) == ("mailers", "crashed: ValueError")

"""`@reboot`: once for each start of all, not for each start of one, nor for a crash."""

from datetime import timedelta
from typing import Any

from oban_actors import Beat, Election, Oban
from oban_actors.actors import VirtualClock
from tests.plugins.crontabs import Warm, clock_at, crash, evaluate, report, start
from tests.support.instances import Starter, Tables

REBOOT = ("@reboot", Warm)
QUEUE: dict[str, Any] = {"queues": {"alpha": 1}}


def boots(tables: Tables) -> int:
    """How often it was run."""
    found = tables.execute("SELECT count(*) FROM {jobs} WHERE worker = 'tests.cron.warm'")
    return int(found[0][0])


def live(clock: VirtualClock, *obans: Oban, seconds: int = 60) -> None:
    """Let nodes live for some time: each shows that it does, and looks."""
    for _ in range(seconds // 5):
        clock.advance(5)
        for oban in obans:
            oban.ask("pulse", Beat(), timeout=60)
        for oban in obans:
            evaluate(oban)


def boot(one: Starter, clock: VirtualClock, *, leader: bool = True) -> Oban:
    """Start a node whose queue shows that it lives."""
    oban = start(one, clock, REBOOT, leader=leader, **QUEUE)
    oban.ask("pulse", Beat(), timeout=60)
    return oban


def test_it_runs_at_the_first_start_at_once(start_oban: Starter) -> None:
    """Whether this node leads or not, and once."""
    clock = clock_at("2026-03-02 09:00:30")
    oban = boot(start_oban, clock, leader=False)

    assert boots(start_oban.tables) == 1
    (job,) = oban.all_jobs()
    assert job.meta["cron_expr"] == "@reboot"
    live(clock, oban)
    assert boots(start_oban.tables) == 1


def test_a_second_node_is_no_boot(start_oban: Starter) -> None:
    """Also when the first one ends, and the second is the only one left."""
    clock = clock_at("2026-03-02 09:00:30")
    first = boot(start_oban, clock)
    live(clock, first, seconds=120)
    second = boot(start_oban, clock, leader=False)
    live(clock, first, second)
    first.stop()
    live(clock, second)
    third = boot(start_oban, clock)
    second.stop()
    live(clock, third)

    assert boots(start_oban.tables) == 1


def test_a_crash_of_the_actor_is_no_boot(start_oban: Starter) -> None:
    """Neither where it ran, nor where it found that others live who are gone by now."""
    clock = clock_at("2026-03-02 09:00:30")
    first = boot(start_oban, clock)
    live(clock, first, seconds=120)
    second = boot(start_oban, clock, leader=False)
    live(clock, first, second)
    crash(first)
    first.stop()
    crash(second)
    live(clock, second)

    assert boots(start_oban.tables) == 1


def test_it_runs_again_when_all_have_ended(start_oban: Starter) -> None:
    """After more than a minute; what starts within one is one boot."""
    clock = clock_at("2026-03-02 09:00:30")
    boot(start_oban, clock).stop()
    clock.advance(30)
    boot(start_oban, clock).stop()
    assert boots(start_oban.tables) == 1

    clock.advance(120)
    boot(start_oban, clock).stop()
    assert boots(start_oban.tables) == 2


def test_a_tree_that_is_started_again_is_a_start(start_oban: Starter) -> None:
    """Also within the same process."""
    clock = clock_at("2026-03-02 09:00:30")
    oban = boot(start_oban, clock)
    oban.stop()
    clock.advance(120)
    oban.start()
    evaluate(oban)

    assert boots(start_oban.tables) == 2


def test_nodes_that_start_together_are_one_boot(start_oban: Starter) -> None:
    """Whichever looks first."""
    clock = clock_at("2026-03-02 09:00:30")
    nodes = []
    for number in range(3):
        nodes.append(boot(start_oban, clock, leader=number == 0))
        clock.advance(0.1)
    live(clock, *nodes)

    assert boots(start_oban.tables) == 1


def test_after_all_were_killed_it_waits_for_their_signs_to_grow_old(start_oban: Starter) -> None:
    """Their rows are still there; a node that shows nothing for 25 seconds is dead."""
    clock = clock_at("2026-03-02 09:00:30")
    boot(start_oban, clock).stop()
    _leave_a_row(start_oban.tables, "2026-03-02T09:01:00.000000")
    clock.advance(timedelta(minutes=2))
    oban = boot(start_oban, clock)

    live(clock, oban, seconds=20)
    assert boots(start_oban.tables) == 1
    live(clock, oban, seconds=10)
    assert boots(start_oban.tables) == 2


def _leave_a_row(tables: Tables, at: str) -> None:
    schema, zone = (f'"{tables.schema}".', "") if tables.schema else ("", "Z")
    tables.execute(
        f"INSERT INTO {schema}oban_actors_producers (uuid, identity, name, node, queue, "
        "queue_limit, started_at, beat_at) "
        f"VALUES ('u', 'killed', 'Oban', 'n', 'alpha', 1, '{at}{zone}', '{at}{zone}')"
    )


def test_a_new_entry_on_a_living_cluster_waits_for_a_boot(start_oban: Starter) -> None:
    """A version that brings it out node by node does not run it."""
    clock = clock_at("2026-03-02 09:00:30")
    old = start(start_oban, clock, ("0 9 * * *", report), **QUEUE)
    live(clock, old, seconds=30)
    new = boot(start_oban, clock, leader=False)
    live(clock, old, new)

    assert boots(start_oban.tables) == 0


def test_a_leader_without_queues_is_seen_by_its_lease(start_oban: Starter) -> None:
    """It has no producers to show."""
    clock = clock_at("2026-03-02 09:00:30")
    lease: dict[str, Any] = {"peer": {"advisory_lock": False}}
    first = start(start_oban, clock, REBOOT, **lease)
    _lead(clock, first, 120)
    second = start(start_oban, clock, REBOOT, **lease)
    for _ in range(12):
        _lead(clock, first, 5)
        evaluate(second)

    assert boots(start_oban.tables) == 1


def _lead(clock: VirtualClock, oban: Oban, seconds: int) -> None:
    for _ in range(seconds // 5):
        clock.advance(5)
        assert oban.ask("peer", Election(), timeout=60)

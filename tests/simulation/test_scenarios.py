"""What broke in production elsewhere, each as a story of its own: here it must not."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

from oban_actors.messages import Reconnect
from tests.simulation import node as settings
from tests.simulation.client import InjectedCrash
from tests.simulation.faults import Fault, Rates
from tests.simulation.machine import EPOCH
from tests.simulation.node import Node
from tests.simulation.world import World, world

TAKEOVER = settings.LEASE + 2.0
RESCUED = settings.WATCH + 2 * settings.LOOKS + 3.0


@pytest.fixture
def story(request: pytest.FixtureRequest) -> Iterator[World]:
    """A world whose seed is the scenario's name, so that no two are alike."""
    with world(sum(map(ord, request.node.name)), tracing=True) as made:
        yield made


def nodes(story: World, *names: str) -> list[Node]:
    """Start nodes, and wait until one leads."""
    made = [story.start(name) for name in names]
    story.hub.run(story.hub.now + 8.0)
    assert story.leader is not None
    return made


def pass_time(story: World, seconds: float) -> None:
    """Let time pass; what must not happen would raise."""
    story.hub.run(story.hub.now + seconds)


def leader(story: World) -> Node:
    """Give who leads."""
    found = story.leader
    assert found is not None
    return found


def insert(story: World, seconds: float = 0.1, **options: Any) -> int:
    """Insert a job and give its id."""
    story.insert({"seconds": seconds, "heeds": options.pop("heeds", True)}, **options)
    pass_time(story, 0.5)
    return story.server.job_ids


def row(story: World, job_id: int) -> dict[str, Any]:
    """Read a job's row, or what it was when it was pruned."""
    return story.server.tables["oban_jobs"].get(job_id) or story.checks.gone[job_id]


def runner(story: World, job_id: int) -> Node:
    """Give the node that runs a job."""
    machine = story.checks.runs[job_id][-1].machine
    return next(node for node in story.nodes if node.machine is machine)


# Leaders


def test_two_leaders_after_a_suspended_laptop(story: World) -> None:
    """Who slept through its lease knows it on waking, by the clock that counts sleep."""
    nodes(story, "laptop", "web")
    sleeper = leader(story)
    story.stop(sleeper, 20.0, suspend=True)
    pass_time(story, 15.0)
    other = leader(story)
    assert other is not sleeper

    pass_time(story, 20.0)

    assert leader(story) is other


def test_stale_leader_renews_by_node_name(story: World) -> None:
    """Two processes of one host are two: the deposed one never renews the other's lease."""
    nodes(story, "web", "web")
    first = leader(story)
    story.stop(first, 10.0)
    pass_time(story, 30.0)

    assert leader(story) is not first
    assert len([each for each in story.alive() if each.leads]) == 1


def test_failed_election_keeps_leadership(story: World) -> None:
    """oban#1488: an election that is rolled back leaves nobody believing that it leads."""
    nodes(story, "web", "web")
    story.weather.rates = Rates({Fault.CONFLICT: 0.3, Fault.LOST_AFTER: 0.3})
    pass_time(story, 60.0)
    story.weather.rates = Rates()
    pass_time(story, TAKEOVER)

    assert len([each for each in story.alive() if each.leads]) == 1


def test_killed_leader_is_followed_before_its_lease_ends(story: World) -> None:
    """River needs 15 s and Oban 30 for it: its lock went with it."""
    nodes(story, "web", "api")
    story.kill(leader(story))
    pass_time(story, 4.0)

    assert story.leader is not None


def test_leader_stopped_within_a_duty(story: World) -> None:
    """Who is stopped while it holds the lease keeps nobody from leading for long."""
    nodes(story, "web", "api")
    stopped = leader(story)
    while not story.server.doing(stopped.machine, "stage"):
        pass_time(story, 0.0002)
    story.stop(stopped, 60.0)
    pass_time(story, settings.LEASE + 6.0)

    assert leader(story) is not stopped


def test_unlogged_table_emptied_by_a_failover(story: World) -> None:
    """oban_peers is empty after a crash of the server: one leads soon, and nobody acts for free."""
    nodes(story, "web", "api", "web")
    for _ in range(3):
        story.fail_over(0.5, wipe=True)
        pass_time(story, 15.0)

    assert len([each for each in story.alive() if each.leads]) == 1


@pytest.mark.parametrize("jump", [-30.0, 30.0])
def test_failover_to_a_server_with_another_clock(story: World, jump: float) -> None:
    """A clock that jumps costs time, never a second leader's act."""
    nodes(story, "web", "api")
    story.fail_over(1.0, jump=jump)
    pass_time(story, abs(jump) + 2 * settings.LEASE)

    assert story.leader is not None


# Cron


def test_cron_doubled_for_days(story: World) -> None:
    """oban#1488, oban-py#32: whoever leads and whoever dies, each minute is inserted once."""
    nodes(story, "web", "web")
    for minute in range(6):
        if minute % 3 == 0:
            story.kill(leader(story))
            story.hub.after(5.0, story.start, "web")
        elif minute % 3 == 1:
            story.stop(leader(story), 20.0)
        pass_time(story, 60.0)

    assert len(story.checks.crons) == len(minutes(story))
    assert set(story.checks.crons) == set(minutes(story))


def test_cron_skips_minutes(story: World) -> None:
    """oban-py#17: what was due while the database was away is inserted when it is back."""
    nodes(story, "web", "web")
    pass_time(story, 60.0)
    story.fail_over(200.0)
    pass_time(story, 260.0)

    assert set(story.checks.crons) == set(minutes(story))


def minutes(story: World) -> list[str]:
    """List the minutes that have been due since the nodes began, a few seconds ago left out."""
    first = EPOCH.replace(second=0) + timedelta(minutes=1)
    until = EPOCH + timedelta(seconds=story.hub.now - 5.0)
    due = [first + timedelta(minutes=each) for each in range(1000)]
    return [each.isoformat().replace("+00:00", "Z") for each in due if each <= until]


# Notifications


def test_notifications_lost_for_good(story: World) -> None:
    """graphile#541, pg-boss#850: jobs start all the same, found by the next pass or beat."""
    nodes(story, "web", "web")
    story.weather.rates = Rates(deaf=1.0)
    for _ in range(5):
        pass_time(story, 30.0)
        job_id = insert(story)
        pass_time(story, 2 * settings.PULSE + 2.0)
        assert row(story, job_id)["state"] == "completed"


def test_listener_gone_after_the_database_restarts(story: World) -> None:
    """procrastinate#1425, pgqueuer#224: LISTEN is back, and so are wake-ups within a moment."""
    nodes(story, "web", "web")
    story.fail_over(15.0)
    pass_time(story, 15.0 + 12.0)

    job_id = insert(story, 0.0)

    assert row(story, job_id)["state"] == "completed"


def test_half_open_listener(story: World) -> None:
    """oban#493: a session that is gone without a word is found by the ping that stays away."""
    (node,) = nodes(story, "web")
    session = next(each for each in story.server.sessions if each.channels)
    session.ended = None
    story.server.disconnect(session)
    pass_time(story, 2 * settings.PULSE + 3.0)

    assert [
        each for each in story.server.sessions if each.channels and each.machine is node.machine
    ]


def test_deaf_after_the_notifier_crashed(story: World) -> None:
    """oban#1499: the supervisor starts it anew, and whoever listened is heard for."""
    (node,) = nodes(story, "web")
    notifier = node.actor("notifier")
    notifier.answer = crash
    notifier.actor_ref.tell(Reconnect())
    pass_time(story, 3.0)
    assert node.actor("notifier") is not notifier

    assert row(story, insert(story, 0.0))["state"] == "completed"


def crash(*_: object) -> None:
    """Stand for a bug."""
    raise InjectedCrash


# Jobs


def test_jobs_stuck_executing_after_a_lost_fetch_answer(story: World) -> None:
    """What was claimed for nobody is given back by the one in whose name it was."""
    (node,) = nodes(story, "web")
    ids = [insert(story, schedule_in=6.0) for _ in range(10)]
    story.weather.rates = Rates({Fault.LOST_AFTER: 0.4})
    pass_time(story, 8.0)
    story.weather.rates = Rates()
    pass_time(story, 15.0)

    assert {row(story, job_id)["state"] for job_id in ids} == {"completed"}
    assert not node.machine.dead


def test_late_acknowledgement_overwrites_the_newer_attempt(story: World) -> None:
    """river#1302, solid_queue#589: who comes back after its job was rescued records nothing."""
    nodes(story, "web", "api")
    job_id = insert(story, 10.0, heeds=False)
    first = runner(story, job_id)
    story.stop(first, settings.WATCH + 9.0)
    pass_time(story, RESCUED)
    assert runner(story, job_id) is not first

    pass_time(story, 20.0)

    assert row(story, job_id)["state"] == "completed"
    assert story.checks.counts["rescue"] == 1


def test_long_job_is_run_twice(story: World) -> None:
    """hexpm#1825, oban-py's 300 s: a job of many watches runs once, as its node beats."""
    nodes(story, "web", "api")
    job_id = insert(story, 10 * settings.WATCH)
    pass_time(story, 10 * settings.WATCH + 5.0)

    assert row(story, job_id)["state"] == "completed"
    assert row(story, job_id)["attempt"] == 1
    assert "rescue" not in story.checks.counts


def test_jobs_of_a_killed_worker_stay_executing(story: World) -> None:
    """procrastinate#1518, pgqueuer#630: they run again within a watch and a look or two."""
    nodes(story, "web", "api")
    job_id = insert(story, 5.0)
    story.kill(runner(story, job_id))
    pass_time(story, RESCUED + 6.0)

    assert row(story, job_id)["state"] == "completed"


def test_outage_makes_everybody_seem_dead(story: World) -> None:
    """While the database is away nobody can beat: nobody is rescued for that."""
    nodes(story, "web", "api", "web")
    job_id = insert(story, 60.0)
    story.fail_over(settings.WATCH + 10.0)
    pass_time(story, 100.0)

    assert "rescue" not in story.checks.counts
    assert row(story, job_id)["state"] in ("completed", "retryable", "executing")


def test_worker_hangs_for_good_when_the_database_restarts(story: World) -> None:
    """saq#162, pgqueuer#224, procrastinate#1116: after ten restarts it works as before."""
    nodes(story, "web", "web")
    for _ in range(10):
        story.fail_over(story.hub.rng.uniform(0.1, 8.0))
        pass_time(story, 10.0)
    pass_time(story, 12.0)

    job_id = insert(story, 0.0)

    assert row(story, job_id)["state"] == "completed"


def test_newest_first_starvation_above_the_limit(story: World) -> None:
    """Of more due jobs than a pass takes the oldest come first, and all come."""
    nodes(story, "web", "web")
    story.weather.rates = Rates()
    for _ in range(60):
        story.insert({"seconds": 0.01}, schedule_in=story.hub.rng.uniform(3.0, 3.4))
    pass_time(story, 6.0)

    rows = [each for each in story.server.tables["oban_jobs"].values() if each["id"] <= 60]
    assert {each["state"] for each in rows} == {"completed"}


def test_jobs_lost_by_a_deployment(story: World) -> None:
    """Nodes are stopped in order and others started, again and again: each job runs in the end."""
    nodes(story, "web", "web")
    ids = []
    for _ in range(6):
        ids += [insert(story, story.hub.rng.choice([0.1, 2.0])) for _ in range(4)]
        story.hub.rng.choice(story.alive()).stop()
        story.start("web")
        pass_time(story, 5.0)
    pass_time(story, RESCUED)

    assert {row(story, job_id)["state"] for job_id in ids} == {"completed"}


@pytest.mark.parametrize("skew", [-600.0, 600.0])
def test_clocks_ten_minutes_apart(story: World, skew: float) -> None:
    """quartznet#435, MailFathom#1989: due is what the database's clock says."""
    story.start("web", skew=skew)
    story.start("api")
    pass_time(story, 8.0)
    job_id = insert(story, 0.0, schedule_in=3.0)
    assert row(story, job_id)["state"] == "scheduled"
    pass_time(story, 4.0)

    assert row(story, job_id)["state"] == "completed"
    inserted = (row(story, job_id)["inserted_at"] - NAIVE).total_seconds()
    late = story.checks.started[job_id] - inserted
    assert 3.0 <= late < 4.5


NAIVE = EPOCH.replace(tzinfo=None)

"""Queues told what to do: here, on one node, or on all, and by whatever else comes on the wire."""

from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import pytest

from oban_actors import Beat, ConfigError, NoProcess, Notify, Oban
from tests.queues.work import OBEY, Work, claims, crashes, jobs, read, view, wait_state
from tests.support.events import Recorder
from tests.support.instances import Starter
from tests.support.waiting import wait_until

KINDS = pytest.mark.parametrize("kind", ["sync", "async"])
WEB: dict[str, Any] = {"queues": {"alpha": 3, "beta": 2}, "stager": None}


@pytest.fixture
def nodes(start_oban: Starter) -> list[Oban]:
    """Two nodes of one cluster, each with two queues, that hear signals."""
    made = [start_oban(node=f"web.{n}", **WEB) for n in (1, 2)]
    for oban in made:
        start_oban.hear(oban, "signal")
    return made


def signal(oban: Oban, **payload: Any) -> None:
    """Send a signal as it stands."""
    oban.tell("notifier", Notify("signal", [payload]))


def paused(nodes: list[Oban], queue: str = "alpha") -> list[bool]:
    """Whether a queue is paused, on each node."""
    return [view(oban, queue).paused for oban in nodes]


def limits(nodes: list[Oban]) -> list[int]:
    """The limit of a queue on each node."""
    return [view(oban).limit for oban in nodes]


def runs(nodes: list[Oban], queue: str) -> list[bool]:
    """Whether a queue runs, on each node."""
    return [oban.check_queue(queue) is not None for oban in nodes]


def settled(nodes: list[Oban]) -> None:
    """Wait until each node has done what was signalled before: a later signal took effect."""
    limit = view(nodes[0], "beta").limit + 1
    nodes[0].scale_queue("beta", limit)
    wait_until(lambda: all(view(oban, "beta").limit == limit for oban in nodes))


def test_pause_and_resume_everywhere(nodes: list[Oban], work: Work) -> None:
    """A paused queue fetches nothing on any node, the other queue goes on; resumed, it fetches."""
    first, second = nodes
    first.pause_queue("alpha")
    wait_until(lambda: paused(nodes) == [True, True])
    held, ran = first.insert_all(jobs("sync", 1) + jobs("sync", 1, queue="beta"))
    wait_state(first, ran, "completed")
    settled(nodes)
    assert read(first, held).state == "available"
    assert paused(nodes, "beta") == [False, False]
    second.resume_queue("alpha")

    wait_state(first, held, "completed")
    wait_until(lambda: paused(nodes) == [False, False])
    assert work.ran == [ran.id, held.id]


def test_pausing_lets_running_jobs_end(nodes: list[Oban], work: Work) -> None:
    """Pause stops the fetching only."""
    oban = nodes[0]
    one = oban.insert(jobs("sync", 1, "wait")[0])
    work.wait_inside(1)
    oban.pause_queue("alpha")
    wait_until(lambda: paused(nodes) == [True, True])
    work.open()

    wait_state(oban, one, "completed")


def test_pause_and_resume_all_queues(nodes: list[Oban]) -> None:
    """With `*` every queue of every node follows."""
    nodes[0].pause_all_queues()
    wait_until(lambda: paused(nodes) + paused(nodes, "beta") == [True] * 4)
    nodes[1].resume_all_queues()
    wait_until(lambda: paused(nodes) + paused(nodes, "beta") == [False] * 4)


def test_scale_everywhere(nodes: list[Oban], work: Work) -> None:
    """A higher limit counts at once, for jobs that waited for room; so does a lower one.

    What runs already goes on then, and of what is inserted later one runs at a time.
    """
    oban = nodes[0]
    nodes[1].pause_queue("alpha", local_only=True)
    wait_until(lambda: paused(nodes) == [False, True])
    oban.insert_all(jobs("sync", 8, "wait"))
    work.wait_inside(3)
    oban.scale_queue("alpha", 8)
    work.wait_inside(8)
    wait_until(lambda: limits(nodes) == [8, 8])
    before = view(oban).updated_at
    oban.scale_queue("alpha", 1)
    wait_until(lambda: limits(nodes) == [1, 1])
    assert view(oban).updated_at > before
    first, work.gate, work.most = work.gate, Future(), 0
    later = oban.insert_all(jobs("sync", 4, "wait"))
    settled(nodes)
    assert (work.inside, read_count(oban)) == (8, 8)
    first.set_result(None)
    wait_until(lambda: len(work.ran) > 8)
    settled(nodes)
    assert view(oban).running == (later[0].id,)
    work.open()

    for job in later:
        wait_state(oban, job, "completed")
    assert [job.state for job in oban.all_jobs()] == ["completed"] * 12
    assert work.most == 1
    assert (work.told, work.again) == ({}, {})


def read_count(oban: Oban) -> int:
    """How many jobs a node runs."""
    return len(view(oban).running)


@pytest.mark.parametrize("how", [{"local_only": True}, {"node": "web.1"}])
def test_one_node_only(nodes: list[Oban], how: dict[str, Any]) -> None:
    """Local, or for a named node: the other one does not follow."""
    first = nodes[0] if "local_only" in how else nodes[1]
    first.pause_queue("alpha", **how)
    wait_until(lambda: paused(nodes)[0])
    first.scale_queue("alpha", 9, **how)
    wait_until(lambda: limits(nodes)[0] == 9)
    first.start_queue("gamma", 4, **how)
    wait_until(lambda: runs(nodes, "gamma")[0])
    settled(nodes)

    assert paused(nodes) == [True, False]
    assert limits(nodes) == [9, 3]
    assert runs(nodes, "gamma") == [True, False]
    first.resume_queue("alpha", **how)
    wait_until(lambda: paused(nodes) == [False, False])
    first.stop_queue("beta", **how)
    wait_until(lambda: runs(nodes, "beta") == [False, True])


def test_start_and_stop_everywhere(nodes: list[Oban], work: Work) -> None:
    """A queue started by signal runs jobs on all nodes; stopped, on none; then again."""
    first, second = nodes
    first.start_queue("gamma", 2)
    wait_until(lambda: runs(nodes, "gamma") == [True, True])
    one = second.insert(jobs("sync", 1, queue="gamma")[0])
    wait_state(first, one, "completed")
    second.stop_queue("gamma")
    wait_until(lambda: runs(nodes, "gamma") == [False, False])
    held = first.insert(jobs("sync", 1, queue="gamma")[0])
    settled(nodes)
    assert read(first, held).state == "available"
    first.start_queue("gamma", 1, paused=True)
    wait_until(lambda: runs(nodes, "gamma") == [True, True])
    assert paused(nodes, "gamma") == [True, True]
    assert [view(oban, "gamma").limit for oban in nodes] == [1, 1]
    first.resume_queue("gamma")

    wait_state(first, held, "completed")
    assert work.ran == [one.id, held.id]


def test_a_node_that_has_just_started_hears_itself(start_oban: Starter) -> None:
    """It sends nothing before it listens, so that a script that starts and pauses does both."""
    for n in range(4):
        oban = start_oban(name=f"Fresh{n}", queues={"alpha": 1}, stager=None)
        oban.pause_queue("alpha")
        wait_until(lambda: view(oban).paused)  # noqa: B023 (asked at once)


def test_starting_what_runs_changes_nothing(nodes: list[Oban]) -> None:
    """As in Oban: start on a queue that runs is no scale."""
    nodes[0].start_queue("alpha", 9)
    nodes[0].start_queue("alpha", 9, local_only=True)
    settled(nodes)

    assert limits(nodes) == [3, 3]


def test_stopping_waits_for_running_jobs(nodes: list[Oban], work: Work) -> None:
    """Its jobs end first, fetching nothing more meanwhile; then it is gone."""
    oban = nodes[0]
    one = oban.insert(jobs("sync", 1, "wait")[0])
    work.wait_inside(1)
    oban.stop_queue("alpha")
    wait_until(lambda: sum(runs(nodes, "alpha")) == 1)
    left = next(each for each in nodes if each.check_queue("alpha"))
    wait_until(lambda: view(left).shutting_down)
    oban.resume_all_queues()
    oban.scale_queue("alpha", 9)
    other = oban.insert(jobs("sync", 1)[0])
    settled(nodes)
    assert read(oban, other).state == "available"
    work.open()

    wait_state(oban, one, "completed")
    wait_until(lambda: runs(nodes, "alpha") == [False, False])
    assert read(oban, other).state == "available"


def test_the_shapes_on_the_wire(start_oban: Starter) -> None:
    """Each signal is written as Elixir's Oban writes it, key for key."""
    oban = start_oban(name="Oban", node="web.1", **WEB)
    heard = start_oban.hear(oban, "signal")
    other = start_oban.hear(start_oban(name="Oban", node="web.2", stager=None), "signal")
    oban.pause_queue("alpha")
    oban.pause_all_queues()
    oban.resume_queue("alpha", local_only=True)
    oban.resume_all_queues(node="web.2")
    oban.scale_queue("alpha", 7)
    oban.start_queue("gamma", 2)
    oban.start_queue("delta", 2, paused=True, node="web.9")
    oban.stop_queue("gamma")

    assert heard.wait_for("signal", 6) == [
        {"action": "pause", "ident": "any", "queue": "alpha"},
        {"action": "pause", "ident": "any", "queue": "*"},
        {"action": "resume", "ident": "Oban.web.1", "queue": "alpha"},
        {"action": "scale", "ident": "any", "limit": 7, "queue": "alpha"},
        {"action": "start", "ident": "any", "limit": 2, "queue": "gamma"},
        {"action": "stop", "ident": "any", "queue": "gamma"},
    ]
    assert other.wait_for("signal", 6)[2:4] == [
        {"action": "resume", "ident": "Oban.web.2", "queue": "*"},
        {"action": "scale", "ident": "any", "limit": 7, "queue": "alpha"},
    ]


def test_the_view_of_a_queue(start_oban: Starter, work: Work) -> None:
    """It says what Oban's check does; a queue that does not run here has none."""
    oban = start_oban(node="web.1", **WEB)
    one = oban.insert(jobs("sync", 1, "wait")[0])
    work.wait_inside(1)
    seen = view(oban)

    assert (seen.queue, seen.name, seen.node) == ("alpha", "Oban", "web.1")
    assert (seen.limit, seen.paused, seen.shutting_down) == (3, False, False)
    assert seen.running == (one.id,)
    assert (seen.stuck, seen.unwritten) == ((), 0)
    assert seen.started_at == seen.updated_at
    assert read(oban, one).attempted_by == ["web.1", seen.uuid]
    assert [each.queue for each in oban.check_all_queues()] == ["alpha", "beta"]
    assert oban.check_queue("gamma") is None
    work.open()
    oban.stop()
    assert oban.check_queue("alpha") is None
    assert oban.check_all_queues() == []


@KINDS
@pytest.mark.parametrize("by", [0, 1])
def test_a_running_job_is_killed_wherever_it_runs(
    nodes: list[Oban], work: Work, told: Recorder, kind: str, by: int
) -> None:
    """`pkill` from either node reaches it: it is told to end, and ends cancelled with an error."""
    one, other = nodes[0].insert_all(jobs(kind, 2, "heed"))
    work.wait_inside(2)
    signal(nodes[by], action="pkill", job_id=one.id)
    event = told.wait_for("oban.job.stop")

    after = read(nodes[0], one)
    assert after.state == "cancelled"
    assert after.cancelled_at is not None
    assert len(after.errors) == 1
    assert event.metadata["id"] == one.id
    assert event.metadata["state"] == "cancelled"
    assert work.told == {one.id: "cancelled"}
    work.open()
    wait_state(nodes[0], other, "completed")


def test_a_task_is_killed_before_its_first_step(start_oban: Starter, work: Work) -> None:
    """An async job killed while the event loop is busy ends cancelled, and its slot is free."""
    oban = start_oban(queues={"alpha": 2}, stager=None)
    start_oban.hear(oban, "signal")
    busy = oban.insert(jobs("async", 1, "block")[0])
    work.wait_inside(1)
    one = oban.insert(jobs("async", 1, "forever")[0])
    wait_until(lambda: one.id in view(oban).running)
    signal(oban, action="pkill", job_id=one.id)
    wait_until(lambda: claims(oban)[one.id or 0].running.cancelled)
    # Whoever answers has asked the loop already.
    oban.whereis(("foreman", "alpha")).proxy().config.get()
    work.open()

    wait_state(oban, one, "cancelled")
    wait_state(oban, busy, "completed")
    wait_until(lambda: view(oban).running == ())


HOSTILE: list[Any] = [
    {},
    {"action": "pause"},
    {"action": "pause", "queue": ["alpha"]},
    {"action": "pause", "queue": {"alpha": 1}, "ident": "any"},
    {"action": "pause", "queue": "alpha", "ident": ["any"]},
    {"action": "pause", "queue": "alpha", "ident": 7},
    {"action": ["pause"], "queue": "alpha"},
    {"action": "explode", "queue": "alpha"},
    {"action": "scale", "queue": "alpha"},
    {"action": "scale", "queue": "alpha", "limit": "9"},
    {"action": "scale", "queue": "alpha", "limit": None},
    {"action": "scale", "queue": "alpha", "limit": True},
    {"action": "scale", "queue": "alpha", "limit": 0},
    {"action": "scale", "queue": "alpha", "limit": -1},
    {"action": "scale", "queue": "alpha", "limit": 2.5},
    {"action": "scale", "queue": "alpha", "limit": 2**31},
    {"action": "scale", "queue": "alpha", "limit": 10**30},
    {"action": "scale", "queue": "*", "limit": "9"},
    {"action": "start"},
    {"action": "start", "queue": "*", "limit": 1},
    {"action": "start", "queue": "", "limit": 1},
    {"action": "start", "queue": "q" * 500, "limit": 1},
    {"action": "start", "queue": "nul\0nul", "limit": 1},
    {"action": "start", "queue": "gamma"},
    {"action": "start", "queue": "gamma", "limit": "9"},
    {"action": "start", "queue": "gamma", "limit": 2**31},
    {"action": "start", "queue": "gamma", "limit": 3, "paused": "yes"},
    {"action": "start", "queue": ["gamma"], "limit": 3},
    {"action": "stop"},
    {"action": "stop", "queue": "nobody"},
    {"action": "stop", "queue": "*"},
    {"action": "stop", "queue": ["alpha"]},
    {"action": "pkill"},
    {"action": "pkill", "job_id": 10**30},
    {"action": "pkill", "job_id": "1"},
    {"action": "pkill", "job_id": True},
    {"action": "pkill", "job_id": [1]},
]


def test_nothing_on_the_wire_crashes_a_node(start_oban: Starter, work: Work) -> None:
    """Whatever a signal or an insert holds, no actor crashes, no queue changes, jobs run."""
    oban = start_oban(queues={"alpha": 3, "beta": 2}, stager=None)
    heard = start_oban.hear(oban, "signal")
    one = oban.insert(jobs("sync", 1, "heed")[0])
    work.wait_inside(1)
    assert one.id == 1
    for payload in HOSTILE:
        signal(oban, **payload)
    for payload in ({}, {"queue": None}, {"queue": ["alpha"]}, {"queue": 1}):
        oban.tell("notifier", Notify("insert", [payload]))
    heard.wait_for("signal", len(HOSTILE) - 2)  # but for those addressed to nobody
    settled([oban])
    oban.ask("pulse", Beat(), timeout=30)

    assert crashes(oban) == []
    assert [each.queue for each in oban.check_all_queues()] == ["alpha", "beta"]
    assert (view(oban).limit, view(oban).paused, view(oban).running) == (3, False, (one.id,))
    producers = start_oban.tables.jobs.replace("oban_jobs", "oban_actors_producers")
    shown = f"SELECT queue_limit FROM {producers} WHERE queue = 'alpha'"
    assert start_oban.tables.execute(shown) == [(3,)]
    work.open()
    wait_state(oban, one, "completed")
    assert work.told == {}


@pytest.mark.db
def test_text_that_is_no_json_crashes_nothing(start_oban: Starter, work: Work) -> None:
    """Nor does what is no JSON object at all, sent by anybody who may NOTIFY."""
    if start_oban.database.kind != "postgresql":
        pytest.skip("SQLite has no NOTIFY")
    oban = start_oban(queues={"alpha": 3}, stager=None)
    start_oban.hear(oban, "signal")
    for text in ("", "nonsense", "[]", "7", '"x"', "null", "Z:", "Z:xx", "H4sI", "{", "\\"):
        for channel in ("signal", "insert"):
            start_oban.tables.execute(
                "SELECT pg_notify(:c, :t)", c=oban.config.channel(channel), t=text
            )
    oban.pause_queue("alpha")
    wait_until(lambda: view(oban).paused)
    oban.resume_queue("alpha")

    wait_state(oban, oban.insert(OBEY["sync"].new()), "completed")
    assert crashes(oban) == []
    assert len(work.ran) == 1


def test_what_can_not_be_signalled_is_refused(start_oban: Starter) -> None:
    """A wrong name, limit or address is an error at the caller, and nothing is sent."""
    oban = start_oban(**WEB)
    calls: tuple[Callable[[], object], ...] = (
        lambda: oban.pause_queue(""),
        lambda: oban.pause_queue("alpha", local_only=True, node="web.1"),
        lambda: oban.pause_queue("alpha", node=""),
        lambda: oban.resume_queue("alpha", node="web 1"),
        lambda: oban.scale_queue("alpha", 0),
        lambda: oban.scale_queue("alpha", 2**31),
        lambda: oban.scale_queue("*", 3),
        lambda: oban.start_queue("*", 3),
        lambda: oban.start_queue("gamma", 3, limits=1),
        lambda: oban.start_queue("gamma", 3, executor="processes"),
        lambda: oban.stop_queue("*"),
        lambda: oban.check_queue("*"),
    )
    for call in calls:
        with pytest.raises(ConfigError):
            call()
    oban.stop()
    with pytest.raises(NoProcess):
        oban.start_queue("gamma", 3, local_only=True)

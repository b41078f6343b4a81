"""Actors that crash while jobs run, at each step: every job runs once and is recorded once."""

import contextlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from oban_actors import Beat, DatabaseUnavailable, Listen, Notify, Oban
from oban_actors.actors import NoProcess, Reason, Ref, VirtualClock
from oban_actors.actors.messages import Exit
from oban_actors.claim import Claim
from oban_actors.engines import Turn
from oban_actors.messages import CancelClaims, Check, Watch
from oban_actors.queues.crew import ThreadCrew
from oban_actors.queues.foreman import Foreman
from oban_actors.queues.producer import Producer
from oban_actors.queues.roster import Roster
from oban_actors.queues.turning import Turns
from oban_actors.queues.workforce import Post
from tests.queues.test_process_queue import pid_in
from tests.queues.work import Work, claims, crashes, jobs, read, view, wait_state, without_beats
from tests.support.events import Recorder
from tests.support.instances import Starter
from tests.support.waiting import wait_until
from tests.workers.jobs import plain

KINDS = pytest.mark.parametrize("kind", ["sync", "async"])
ALPHA: dict[str, Any] = {"queues": {"alpha": 5}, "stager": None}


class Fault(Exception):
    """What is put in."""


class Poison:
    """A message that nobody survives."""


def crash(patch: pytest.MonkeyPatch, ref: Ref) -> None:
    """Let an actor crash, and wait until it has."""
    handle = ref.actor_class.handle_info

    def failing(self: Any, message: Any) -> None:
        if isinstance(message, Poison):
            raise Fault("put in")
        handle(self, message)

    patch.setattr(ref.actor_class, "handle_info", failing)
    ref.tell(Poison())
    wait_until(lambda: not ref.is_alive())


def once(patch: pytest.MonkeyPatch, target: Any, name: str, *, after: bool) -> list[Any]:
    """Let a method fail once, before it did its work or after; gives what is still to come."""
    faults = [Fault("put in")]
    method: Callable[..., Any] = getattr(target, name)

    def failing(*args: Any, **kwargs: Any) -> Any:
        result = method(*args, **kwargs) if after or not faults else None
        if faults:
            raise faults.pop()
        return result

    patch.setattr(target, name, failing)
    return faults


def all_done(start: Starter, oban: Oban, work: Work, count: int, *, starts: int = 1) -> None:
    """Wait until all jobs are completed; each ran once, and was tried as often as it shows."""
    wait_until(lambda: start.tables.count("completed") == count, message="all completed")
    assert work.again == {}
    assert len(work.ran) == count
    tried = start.tables.execute("SELECT DISTINCT attempt FROM {jobs}")
    assert tried == [(starts,)]
    wait_until(lambda: not claims(oban))
    assert oban.alive


WHO: list[Any] = [
    ("producer", "alpha"),
    ("foreman", "alpha"),
    ("watchman", "alpha"),
    ("queue", "alpha"),
    "queues",
    "notifier",
    "pulse",
    "peer",
]


@KINDS
@pytest.mark.parametrize("who", WHO, ids=str)
def test_crashed_while_jobs_run(
    start_oban: Starter,
    work: Work,
    told: Recorder,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    who: Any,
) -> None:
    """The jobs go on, are recorded by the successors, and those that waited are run."""
    oban = start_oban(**ALPHA)
    oban.insert_all(jobs(kind, 8, "heed"))
    work.wait_inside(5)
    before = view(oban)
    crash(monkeypatch, oban.whereis(who))
    wait_until(lambda: oban.check_queue("alpha") is not None)
    assert work.inside == 5
    work.open()

    all_done(start_oban, oban, work, 8)
    assert work.told == {}
    wait_until(lambda: len(told.all("oban.job.stop")) == 8)
    after = wait_until(lambda: oban.check_queue("alpha"))
    assert (after.paused, after.limit, after.shutting_down) == (False, 5, False)
    assert after.uuid == before.uuid


@pytest.mark.slow
@pytest.mark.parametrize("who", [*WHO[:2], "queues", "notifier"], ids=str)
def test_crashed_while_a_job_runs_in_a_process(
    start_oban: Starter,
    told: Recorder,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    who: Any,
) -> None:
    """It goes on where it is, and its end is heard and recorded by the successors."""
    oban = start_oban(queues={"alpha": {"limit": 1, "executor": "processes"}}, stager=None)
    file, ready = tmp_path / "pid", tmp_path / "go"
    args = {"do": "wait", "file": str(file), "until": str(ready)}
    oban.insert(plain.new(args, queue="alpha"))
    pid = pid_in(file)
    crash(monkeypatch, oban.whereis(who))
    wait_until(lambda: oban.check_queue("alpha") is not None)
    ready.touch()

    assert told.wait_for("oban.job.stop").metadata["result"] == "not told"
    assert start_oban.tables.execute("SELECT state, attempt FROM {jobs}") == [("completed", 1)]
    # Nobody began it anew.
    assert pid_in(file) == pid
    assert told.all("oban.job.stale") == []


@pytest.mark.parametrize("who", WHO, ids=str)
def test_crashed_while_nothing_runs(
    start_oban: Starter, work: Work, monkeypatch: pytest.MonkeyPatch, who: Any
) -> None:
    """Its successor fetches what comes then."""
    oban = start_oban(**ALPHA)
    view(oban)
    crash(monkeypatch, oban.whereis(who))
    oban.insert_all(jobs("sync", 8))

    all_done(start_oban, oban, work, 8)


@pytest.mark.parametrize(
    "step",
    [
        "before",
        "in it",
        "not held",
        "not settled",
        "not handed out",
        "not woken",
        "not begun again",
    ],
)
def test_a_producer_that_crashes_in_a_turn(
    start_oban: Starter, work: Work, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """Before the fetch, within it, before its claims are held, before acks are settled."""
    oban = without_beats(start_oban(**ALPHA))
    oban.ask("notifier", Listen(("insert",), oban.whereis(("producer", "alpha"))), timeout=30)
    faults = {
        "before": lambda: once(monkeypatch, Turns, "take", after=False),
        "in it": lambda: once(monkeypatch, Turns, "take", after=True),
        "not held": lambda: once(monkeypatch, Roster, "hold", after=False),
        "not settled": lambda: once(monkeypatch, Roster, "settle", after=False),
        "not handed out": lambda: once(monkeypatch, Post, "add", after=False),
        "not woken": lambda: once(monkeypatch, ThreadCrew, "wake", after=False),
        "not begun again": lambda: once(monkeypatch, Producer, "_start", after=True),
    }[step]()
    oban.insert_all(jobs("sync", 20))

    all_done(start_oban, oban, work, 20)
    assert faults == []
    assert len(crashes(oban)) == 1


@KINDS
def test_a_producer_that_crashes_over_acknowledgements(
    start_oban: Starter, work: Work, told: Recorder, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """Between the end of jobs and their acknowledgement: the successor writes it."""
    oban = start_oban(**ALPHA)
    oban.insert_all(jobs(kind, 5, "wait"))
    work.wait_inside(5)
    faults = once(monkeypatch, Turns, "take", after=True)
    work.open()

    all_done(start_oban, oban, work, 5)
    assert faults == []
    assert len(told.wait_for_count(5, "oban.job.stop")) == 5
    assert told.all("oban.job.stale") == []


def lost_answers(oban: Oban, patch: pytest.MonkeyPatch, *, claims: bool) -> list[int]:
    """Let a producer's next turn be committed, and its answer be lost.

    Args:
        oban: whose.
        patch: puts it in.
        claims: whether it is to be one that claims jobs, or one that acknowledges some.

    """
    left = [1]

    def losing(method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*given: Any, **options: Any) -> Any:
            result = method(*given, **options)
            if left and brought(result)[0 if claims else 1]:
                left.pop()
                raise DatabaseUnavailable("the answer was lost")
            return result

        return call

    for name in ("transaction", "message"):
        patch.setattr(oban.repo, name, losing(getattr(oban.repo, name)))
    return left


def brought(result: Any) -> tuple[bool, bool]:
    """Tell whether what a turn gave has claims, and acknowledgements."""
    if isinstance(result, Turn):
        return bool(result.fetched.rows), bool(result.settled)
    match result:
        case [[[_, _, int(), *_, written, _], *_]]:
            return True, written > 0
        case [[[*_, int(written), _], *_]]:
            return False, written > 0
    return False, False


@KINDS
def test_the_answer_to_a_fetch_is_lost(
    start_oban: Starter, work: Work, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """What was claimed is given back with its attempt, and then run."""
    oban = without_beats(start_oban(**ALPHA))
    left = lost_answers(oban, monkeypatch, claims=True)
    oban.insert_all(jobs(kind, 12))

    all_done(start_oban, oban, work, 12)
    assert left == []
    assert crashes(oban) == []


@KINDS
def test_the_answer_to_an_acknowledgement_is_lost(
    start_oban: Starter, work: Work, told: Recorder, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """Written twice it is once: settled, not stale, and told once."""
    oban = start_oban(**ALPHA)
    oban.insert_all(jobs(kind, 5, "wait"))
    work.wait_inside(5)
    left = lost_answers(oban, monkeypatch, claims=False)
    work.open()

    all_done(start_oban, oban, work, 5)
    assert left == []
    told.wait_for_count(5, "oban.job.stop")
    assert told.all("oban.job.stale") == []


def test_queues_that_give_up_over_one_keep_the_others(start_oban: Starter, work: Work) -> None:
    """Too many crashes of one queue: the others stay as they were told to be, and go on."""
    oban = start_oban(queues={"alpha": 1, "beta": 1}, stager=None)
    oban.start_queue("gamma", limit=2, local_only=True)
    oban.pause_queue("beta")
    oban.scale_queue("beta", limit=7)
    wait_until(lambda: (b := oban.check_queue("beta")) and b.paused and b.limit == 7)
    wait_until(lambda: oban.check_queue("gamma"))
    queues = oban.whereis("queues")
    while queues.is_alive():
        # Between two lives nobody has the name.
        with contextlib.suppress(NoProcess):
            child = oban.whereis(("queue", "alpha"))
            child.tell(Exit(Reason("crashed")))
            wait_until(lambda c=child: not c.is_alive())  # type: ignore[misc]  # mypy infers no such lambda
    wait_until(lambda: all(map(oban.check_queue, ["alpha", "beta", "gamma"])))

    beta, gamma = oban.check_queue("beta"), oban.check_queue("gamma")
    assert beta is not None
    assert gamma is not None
    assert (beta.paused, beta.limit, gamma.limit) == (True, 7, 2)
    wait_state(oban, oban.insert(jobs("sync", 1)[0]), "completed")


@KINDS
def test_a_producer_that_crashes_as_it_is_told_to_end(
    start_oban: Starter, work: Work, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """Its successor sees the queue to its end: what runs is waited for, and written."""
    oban = start_oban(**ALPHA)
    one = oban.insert(jobs(kind, 1, "wait")[0])
    work.wait_inside(1)
    coming = once(monkeypatch, Producer, "_shut_down", after=False)
    with ThreadPoolExecutor(1) as pool:
        stopped = pool.submit(oban.stop)
        wait_until(lambda: not coming)
        work.open()
        stopped.result(60)

    assert read(oban, one).state == "completed"
    assert work.ran == [one.id]


@pytest.mark.parametrize("message", [Watch, CancelClaims, "record"])
def test_a_foreman_that_crashes_over_a_run(
    start_oban: Starter, work: Work, monkeypatch: pytest.MonkeyPatch, message: Any
) -> None:
    """A time-out is kept, a stuck run is recorded once, whenever its Foreman crashes."""
    oban = start_oban(**ALPHA)
    if message == "record":
        once(monkeypatch, Roster, "mark_stuck", after=False)
    else:
        once(monkeypatch, Foreman, "handle_info", after=False)
    (one,) = jobs("sync", 1, "wait")
    one.args["timeout"] = 0.05
    one = oban.insert(one)
    work.wait_inside(1)
    if message is CancelClaims:
        oban.tell("notifier", Notify("signal", [{"action": "pkill", "job_id": 0}]))
    wait_until(lambda: [claim.stuck for claim in claims(oban).values()] == [True])
    work.open()

    after = wait_state(oban, one, "retryable")
    assert len(after.errors) == 1
    assert work.ran == [one.id]


def test_a_time_out_whose_record_got_no_answer(
    start_oban: Starter, work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may stand in the row, and the job's end doesn't add it a second time."""
    oban = start_oban(**ALPHA)
    record = Foreman._record

    def unheard(foreman: Foreman, claim: Claim) -> bool:
        assert record(foreman, claim)
        return False

    monkeypatch.setattr(Foreman, "_record", unheard)
    (one,) = jobs("sync", 1, "wait")
    one.args["timeout"] = 0.05
    one = oban.insert(one)
    wait_until(lambda: [claim.stuck for claim in claims(oban).values()] == [True])
    (error,) = read(oban, one).errors
    work.open()

    assert wait_state(oban, one, "retryable").errors == [error]


@KINDS
def test_a_claim_that_was_taken_is_noticed(
    start_oban: Starter, work: Work, told: Recorder, kind: str
) -> None:
    """As Elixir rescues by age: its run is told to end at the next beat, and changes nothing."""
    oban = start_oban(**ALPHA)
    one, other = oban.insert_all(jobs(kind, 2, "heed"))
    work.wait_inside(2)
    oban.pause_queue("alpha")
    wait_until(lambda: view(oban).paused)
    start_oban.tables.execute("UPDATE {jobs} SET state = 'available' WHERE id = :id", id=one.id)
    row = read(oban, one)
    oban.ask("pulse", Beat(), timeout=30)
    event = told.wait_for("oban.job.stale")

    assert event.metadata["id"] == one.id
    assert read(oban, one) == row
    assert work.told == {one.id: "cancelled"}
    assert read(oban, other).state == "executing"
    work.open()
    wait_state(oban, other, "completed")
    oban.resume_queue("alpha")
    assert wait_state(oban, one, "completed").attempt == 2


@KINDS
def test_a_node_that_can_not_beat_tells_its_jobs_to_end(
    start_oban: Starter, work: Work, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """After 45 seconds without a beat others may take it for dead: not before, and only once."""
    clock = VirtualClock()
    oban = start_oban(clock=clock, **ALPHA)
    oban.insert(jobs(kind, 1, "heed")[0])
    oban.ask(("producer", "alpha"), Check())
    work.wait_inside(1)
    oban.ask("pulse", Beat(), timeout=30)

    def failing(*_: Any) -> Any:
        raise DatabaseUnavailable("put in")

    with monkeypatch.context() as patch:
        patch.setattr(oban._engine, "beat", failing)
        clock.advance(44)
        oban.ask("pulse", Beat(), timeout=30)
        assert not any(claim.running.cancelled for claim in claims(oban).values())
        clock.advance(2)
        oban.ask("pulse", Beat(), timeout=30)
        wait_until(lambda: work.inside == 0)
    assert list(work.told.values()) == ["shutdown"]
    assert crashes(oban) == []

"""Ends: in reverse order, in time or by force, and what becomes of those who won't."""

import threading
from typing import Any

import pytest

from oban_actors.actors import (
    NOREPLY,
    SHUTDOWN,
    Down,
    NoProcess,
    Parent,
    Reason,
    Root,
    Runtime,
    Sender,
    ServerCrashed,
    StartChild,
    StartFailed,
    Supervisor,
    TerminateChild,
    lifecycle,
)
from oban_actors.actors.process import process_of
from tests.actors.conftest import StartTree
from tests.actors.lab import (
    Boom,
    Gate,
    Hooks,
    Journal,
    Lab,
    Run,
    RunWith,
    crash,
    gone,
    ids,
    known,
    lab,
)
from tests.support.waiting import wait_until


@pytest.fixture
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed actors have little time: it is not what these tests wait for."""
    monkeypatch.setattr(lifecycle.kill, "__defaults__", (0.05,))


def test_reverse_order(tree: StartTree, journal: Journal) -> None:
    """Children end one at a time, the last first, each with reason shutdown, then the root."""
    inner = Supervisor.child_spec([lab("b", journal), lab("c", journal)], id="inner")
    root = tree([lab("a", journal), inner, lab("d", journal)])
    journal.clear()
    assert root.stop() == SHUTDOWN
    assert journal.lines == [("end", tag, "shutdown") for tag in "dcba"]


def test_inbox_is_done_first(tree: StartTree, journal: Journal) -> None:
    """A child that is asked to end first does what it was sent before."""
    root = tree([lab("a", journal)])
    gate = Gate()
    root.tell("a", Run(gate))
    for number in range(3):
        root.tell("a", number)
    gate.open()
    root.stop()
    assert journal.lines[1:] == [
        *(("info", "a", one) for one in range(3)),
        ("end", "a", "shutdown"),
    ]


def test_brutal_kill(tree: StartTree, journal: Journal) -> None:
    """A shutdown time of zero kills at once: no more messages, no `terminate`."""
    root = tree([lab("a", journal, shutdown=0)])
    ref = root.whereis("a")
    assert ref is not None
    root.ref.ask(TerminateChild("a"))
    assert gone(ref).exit_reason == Reason("killed")
    assert journal.lines == [("start", "a"), ("kill", "a")]
    assert root.runtime.abandoned == 0


def test_on_kill_frees_the_thread(
    tree: StartTree, journal: Journal, caplog: pytest.LogCaptureFixture
) -> None:
    """When its time is over, `on_kill` cancels what blocks; `terminate` does not run."""
    gate = Gate()
    threads: list[threading.Thread] = []

    def cancel(_: Lab) -> None:
        threads.append(threading.current_thread())
        gate.open()

    root = tree([lab("a", journal, hooks=Hooks(killed=cancel), shutdown=0.001)])
    ref = root.whereis("a")
    root.tell("a", Run(gate))
    gate.wait()
    root.tell("a", "behind")
    root.ref.ask(TerminateChild("a"), timeout=60)
    assert gone(ref).exit_reason == Reason("killed")
    assert threads == [process_of(root.ref).thread]
    assert journal.lines == [("start", "a"), ("kill", "a")]
    assert root.runtime.abandoned == 0
    assert "child a did not end within 0.001 seconds" in caplog.messages


def test_crash_of_a_killed_actor(tree: StartTree, journal: Journal) -> None:
    """What its cancelled call raises is not why it ended: it was killed."""
    gate = Gate()

    def cancelled(_: Lab) -> None:
        gate()
        raise Boom("query cancelled")

    root = tree([lab("a", journal, hooks=Hooks(killed=gate.open), shutdown=0.001)])
    ref = root.whereis("a")
    future = ref.ask(Run(cancelled), block=False)
    gate.wait()
    root.ref.ask(TerminateChild("a"), timeout=60)
    assert gone(ref).exit_reason == Reason("killed")
    assert journal.lines == [("start", "a"), ("kill", "a")]
    with pytest.raises(ServerCrashed, match="killed"):
        future.get()


@pytest.mark.parametrize("error", [Boom(), SystemExit()])
@pytest.mark.usefixtures("_short")
def test_failing_on_kill(
    tree: StartTree, error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    """An error in `on_kill` is logged and ends nobody else."""

    def fail(_: Lab) -> None:
        raise error

    root = tree([lab("a", hooks=Hooks(killed=fail), shutdown=0)])
    root.ref.ask(TerminateChild("a"))
    assert root.alive
    assert "a crashed in on_kill" in caplog.messages


def test_stuck_in_terminate(tree: StartTree, journal: Journal) -> None:
    """The shutdown time covers `terminate` too."""
    gate = Gate()
    hooks = Hooks(ends=gate, killed=gate.open)
    root = tree([lab("a", journal, hooks=hooks, shutdown=0.001)])
    ref = root.whereis("a")
    root.ref.ask(TerminateChild("a"), timeout=60)
    assert gone(ref).exit_reason == Reason("killed")
    assert journal.about("kill") == [("kill", "a")]


@pytest.fixture
def stuck(tree: StartTree, journal: Journal, _short: None) -> Any:
    """A tree whose child `a` blocks in a call that it won't leave, and the gate that holds it."""
    gate = Gate()
    root = tree([lab("a", journal, shutdown=0.001, restart="transient"), lab("b")])
    yield root, gate
    gate.open()


def _block(root: Root, gate: Gate, then: Any = lambda _: None) -> Any:
    """Let `a` block, and do something when it is free again; gives its pending answer."""
    ref = root.whereis("a")
    assert ref is not None
    future = ref.ask(Run(lambda me: (gate(), then(me))), block=False)
    gate.wait()
    return future


def test_abandoned(
    stuck: tuple[Root, Gate], journal: Journal, caplog: pytest.LogCaptureFixture
) -> None:
    """A child that can't be freed is left to itself: dead to all others, logged and counted."""
    root, gate = stuck
    ref = root.whereis("a")
    assert ref is not None
    root.runtime.registry.subscribe("news", ref)
    in_hand = _block(root, gate)
    queued = [ref.ask(number, block=False) for number in range(3)]
    root.ref.ask(TerminateChild("a"), timeout=60)
    with pytest.raises(ServerCrashed, match="killed"):
        in_hand.get(timeout=0)
    for future in queued:
        with pytest.raises(NoProcess):
            future.get(timeout=0)
    assert root.whereis("a") is None
    assert root.runtime.registry.channels() == set()
    assert root.runtime.abandoned == 1
    assert process_of(ref).state() == "abandoned"
    assert process_of(ref).exit_reason == Reason("killed")
    (line,) = [one for one in caplog.messages if "is abandoned" in one]
    assert "nobody opened the gate" in line
    assert journal.about("end") == []


def test_zombie_counts_no_more(stuck: tuple[Root, Gate], journal: Journal) -> None:
    """What an abandoned actor does when it comes free reaches nobody by the actor's own means."""
    root, gate = stuck
    old = root.whereis("a")
    seen: list[Any] = []

    def late(me: Lab) -> str:
        me.runtime.registry.subscribe("news", me.actor_ref)
        seen.append(me.tell("b", "from the grave"))
        try:
            seen.append(me.ask("b", "from the grave"))
        except NoProcess as error:
            seen.append((error.target, error.message))
        me.send_after("tick", 0)
        return "late answer"

    future = _block(root, gate, late)
    root.ref.ask(TerminateChild("a"), timeout=60)
    journal.clear()
    gate.open()
    gone(old)
    with pytest.raises(ServerCrashed):
        future.get(timeout=0)
    assert seen == [False, ("b", "from the grave")]
    assert journal.lines == []
    assert root.runtime.registry.channels() == set()
    assert ids(root) == ["b"]


def test_zombies_deferred_answers(stuck: tuple[Root, Gate]) -> None:
    """Questions it had put off are refused when it is abandoned, later answers don't count."""
    root, gate = stuck
    ref = root.whereis("a")
    assert ref is not None
    senders: list[Sender] = []
    answers: list[bool] = []

    def keep(_: Lab, sender: Sender) -> Any:
        senders.append(sender)
        return NOREPLY

    deferred = ref.ask(RunWith(keep), block=False)
    _block(root, gate, lambda me: answers.append(me.reply(senders[0], "late")))
    root.ref.ask(TerminateChild("a"), timeout=60)
    with pytest.raises(ServerCrashed):
        deferred.get(timeout=0)
    gate.open()
    gone(ref)
    assert answers == [False]


def test_successor_of_an_abandoned_child(stuck: tuple[Root, Gate], journal: Journal) -> None:
    """Its name is free: the next one serves under it while the zombie still hangs."""
    root, gate = stuck
    _block(root, gate)
    root.ref.ask(TerminateChild("a"), timeout=60)
    root.ref.ask(StartChild(lab("a2", journal, name="a")))
    assert root.ask("a", "hello") == "hello"


def test_watchers_hear_of_an_abandoned_actor(stuck: tuple[Root, Gate]) -> None:
    """Its monitors get their `Down`, with reason killed."""
    root, gate = stuck
    ref = root.whereis("a")
    assert ref is not None
    journal = root.ask("b", Run(lambda me: (me.monitor(ref), me.journal)[1]))
    _block(root, gate)
    root.ref.ask(TerminateChild("a"), timeout=60)
    root.ask("b", "sync")
    ((_, _, down),) = journal.about("info")
    assert isinstance(down, Down)
    assert down.reason.kind == "killed"


@pytest.mark.usefixtures("_short")
def test_root_ends_though_a_child_hangs(tree: StartTree) -> None:
    """A stuck child does not keep its tree, nor its host, from ending."""
    gate = Gate()
    root = tree([lab("a", shutdown=0.001), lab("b")])
    _block(root, gate)
    assert root.stop(60) == SHUTDOWN
    gate.open()


@pytest.mark.usefixtures("_short")
def test_killed_supervisor_takes_all_below_along(tree: StartTree, journal: Journal) -> None:
    """No child outlives a supervisor that is killed."""
    leaf = Supervisor.child_spec([lab("b", journal), lab("c", journal)], id="leaf")
    inner = Supervisor.child_spec([lab("a", journal), leaf], id="inner", shutdown=0)
    root = tree([inner])
    refs = [root.whereis(name) for name in "abc"]
    journal.clear()
    root.ref.ask(TerminateChild("inner"), timeout=60)
    assert [gone(ref).exit_reason for ref in refs] == [Reason("killed")] * 3
    assert journal.lines == [("kill", "c"), ("kill", "b"), ("kill", "a")]
    assert root.runtime.registry.names() == {}


@pytest.mark.usefixtures("_short")
def test_supervisor_that_does_not_start_in_time(tree: StartTree, journal: Journal) -> None:
    """A supervisor whose time to start is over leaves no child: none running, none starting."""
    gate = Gate()
    inner = Supervisor.child_spec(
        [
            lab("a", journal),
            lab("b", journal, hooks=Hooks(init=gate)),
            lab("c", journal),
        ],
        id="inner",
        start_timeout=0.05,
    )
    with pytest.raises(StartFailed, match="init took longer"):
        tree([inner])
    gate.open()
    wait_until(lambda: not [t for t in threading.enumerate() if t.name.startswith("oban-")])
    assert [line for line in journal.lines if line[0] == "start"] in (
        [],
        [("start", "a")],
        [("start", "a"), ("start", "b")],
    )


def test_nothing_starts_under_the_dead(journal: Journal) -> None:
    """Who is dead, or dies meanwhile, can't be a parent: no orphan is left running."""
    runtime = Runtime()
    dead, dying = Lab.start(), Lab.start()
    dead.stop()
    with pytest.raises(StartFailed):
        Lab.start_link(("a", journal), parent=Parent(dead, runtime), name="a")
    assert journal.lines == []

    def kill(_: Lab) -> None:
        process_of(dying).killed = True

    with pytest.raises(StartFailed):
        Lab.start_link(("b", journal, Hooks(init=kill)), parent=Parent(dying, runtime), name="b")
    assert journal.lines == [("start", "b"), ("kill", "b")]
    assert runtime.registry.names() == {}
    gone(dying)


def test_unlimited_shutdown(tree: StartTree, journal: Journal) -> None:
    """None and infinity give a child all the time it takes."""
    gates = Gate(), Gate()
    root = tree(
        [
            lab(tag, journal, hooks=Hooks(ends=gate), shutdown=time)
            for tag, gate, time in zip("ab", gates, (None, float("inf")), strict=True)
        ]
    )
    ended = root.ref.stop(block=False)
    gates[1].wait()
    gates[1].open()
    gates[0].wait()
    gates[0].open()
    assert ended.get(timeout=60) is True
    assert journal.about("kill") == []


def test_unexpected_reason_at_shutdown(tree: StartTree, caplog: pytest.LogCaptureFixture) -> None:
    """A child that crashes as it is ended is logged; the others end all the same."""

    def fail(*_: object) -> None:
        raise Boom("in terminate")

    root = tree([lab("a"), lab("b", hooks=Hooks(ends=fail))])
    root.stop()
    assert "child b ended: crashed: Boom('in terminate')" in caplog.messages
    assert root.reason == SHUTDOWN


def test_end_of_a_child_that_is_dead(tree: StartTree) -> None:
    """Ending a child that has just ended by itself is no error, and its old exit no surprise."""
    root = tree([lab("a"), lab("b")])
    gate, a = Gate(), root.whereis("a")
    root.tell("b", Run(gate))
    ended = [root.ref.ask(TerminateChild(id_), block=False) for id_ in "ba"]
    root.tell("a", crash())
    gone(a)
    gate.open()
    for end in ended:
        end.get(timeout=60)
    assert ids(root) == []
    assert known(root) == ["a", "b"]

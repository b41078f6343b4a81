"""What an end is to others: every death is heard, and all is done in the order they rely on."""

import threading
from collections.abc import Callable
from typing import Any

import pytest

from oban_actors.actors import (
    KILLED,
    NOPROC,
    NORMAL,
    SHUTDOWN,
    CallTimeout,
    ChildExit,
    Continue,
    Down,
    Exit,
    NoProcess,
    Reason,
    Registry,
    Runtime,
    ServerCrashed,
    StartChild,
    StartFailed,
    WhichChildren,
)
from oban_actors.actors.lifecycle import finish
from oban_actors.actors.process import process_of
from oban_actors.actors.reply import Reply
from oban_actors.actors.restarts import affected, keeps_spec, wants_restart
from oban_actors.actors.spec import RESTARTS, Restart, Strategy
from tests.actors.conftest import StartTree
from tests.actors.lab import (
    Boom,
    Gate,
    Hooks,
    Journal,
    Lab,
    Run,
    crash,
    gone,
    lab,
    settled,
    spy_on_inbox,
)
from tests.support.waiting import wait_until


def _asked(message: Any) -> Callable[[Any], None]:
    def die(ref: Any) -> None:
        with pytest.raises(ServerCrashed):
            ref.ask(message)

    return die


def _told(message: Any) -> Callable[[Any], None]:
    return lambda ref: ref.tell(message)


def _by_proxy(ref: Any) -> None:
    with pytest.raises(ServerCrashed):
        ref.proxy().handle_call(crash(), None).get()


def _killed(ref: Any) -> None:
    process = process_of(ref)
    process.killed = True
    ref.tell("wake")


DEATHS: dict[str, tuple[Callable[[Any], None], str | None]] = {
    "told": (_told(crash()), "crashed: Boom()"),
    "asked": (_asked(crash()), "crashed: Boom()"),
    "told, SystemExit": (_told(crash(SystemExit(1))), "crashed: SystemExit(1)"),
    "asked, SystemExit": (_asked(crash(SystemExit(1))), "crashed: SystemExit(1)"),
    "asked, KeyboardInterrupt": (
        _asked(crash(KeyboardInterrupt())),
        "crashed: KeyboardInterrupt()",
    ),
    "by proxy": (_by_proxy, "crashed: Boom()"),
    "in what it put off": (_told(Run(lambda _: Continue("bug"))), "crashed: Boom('bug')"),
    "stopped by hand": (lambda ref: ref.stop(), None),
    "stopped by itself": (_told(Run(lambda me: me.stop())), None),
    "asked to end": (_told(Exit(Reason("shutdown", "drained"))), None),
    "killed": (_killed, "killed"),
}


def _fail(_: Lab, arg: Any) -> None:
    raise Boom(arg)


@pytest.mark.parametrize("death", DEATHS)
def test_supervisor_hears_of_every_death(tree: StartTree, death: str) -> None:
    """Whatever way a child ends, its supervisor hears so, once, with the reason."""
    die, last_crash = DEATHS[death]
    root = tree([lab("a", hooks=Hooks(goes_on=_fail))])
    ref = root.whereis("a")
    die(ref)
    wait_until(lambda: root.whereis("a") not in (None, ref))
    assert settled(root)
    (child,) = root.tree().children
    assert (child.restarts, child.last_crash) == (1, last_crash)


def test_failing_terminate_is_heard(tree: StartTree) -> None:
    """A child that ends well but fails to clean up has crashed: a transient one is restarted."""
    root = tree([lab("a", hooks=Hooks(ends=_fail), restart="transient")])
    ref: Any = root.whereis("a")
    assert ref.stop() is True
    wait_until(lambda: root.whereis("a") not in (None, ref))
    assert settled(root)
    (child,) = root.tree().children
    assert child.last_crash is not None
    assert child.last_crash.startswith("crashed: Boom(")
    assert child.restarts == 1


def test_failing_start_is_heard_once(tree: StartTree, monkeypatch: pytest.MonkeyPatch) -> None:
    """A start that fails or is too late is known from the start: no exit of it comes after."""
    fails, gate = [False, True, False], Gate()

    def init(me: Lab) -> None:
        if fails.pop(0):
            _fail(me, "init")

    root = tree([lab("a", hooks=Hooks(init=init))])
    exits = spy_on_inbox(monkeypatch, root.ref, ChildExit)
    root.tell("a", crash())
    wait_until(lambda: not fails)
    assert settled(root)
    late = lab("b", hooks=Hooks(init=gate, killed=gate.open), start_timeout=0.001)
    with pytest.raises(StartFailed, match="init took longer"):
        root.ref.ask(StartChild(late), timeout=60)
    assert root.tree().children[0].restarts == 2
    assert len(exits) == 1


def test_asker_outlives_whom_it_asked(tree: StartTree) -> None:
    """An actor whose question makes another end with SystemExit gets an error, and lives on."""
    root = tree([lab("a"), lab("b")])

    def careful(me: Lab) -> str:
        with pytest.raises(ServerCrashed) as caught:
            me.ask("a", crash(SystemExit()), 60)
        return type(caught.value.__cause__).__name__

    assert root.ask("b", Run(careful), 60) == "SystemExit"
    assert settled(root)
    assert [child.restarts for child in root.tree().children] == [1, 0]


# In which order


def _spy_on_names(patch: pytest.MonkeyPatch, watched: Callable[[Any], bool], note: Any) -> None:
    """Note what others could know already when the names of an actor are freed."""
    forget = Registry.forget

    def spy(self: Registry, ref: Any) -> None:
        if watched(ref):
            process = process_of(ref)
            known = ref.is_alive(), process.exited.is_set(), process.mailbox.closed
            note("names", *known, process.started.is_set())
        forget(self, ref)

    patch.setattr(Registry, "forget", spy)


def test_order_of_an_end(
    tree: StartTree, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dead, names free, waiting askers refused, supervisor, watchers; who asked hears last."""
    root = tree([lab("a"), lab("b")])
    a, b, gate = root.whereis("a"), root.whereis("b"), Gate()
    assert a is not None
    assert b is not None
    b.ask(Run(lambda me: me.monitor(a)))

    def fatal(_: Lab) -> None:
        gate()
        raise Boom

    in_hand = a.ask(Run(fatal), block=False)
    gate.wait()
    behind = a.ask("behind", block=False)

    fail = Reply.fail

    def spy_on_answer(self: Reply, error: BaseException) -> bool:
        journal("refused" if isinstance(error, NoProcess) else "asker")
        return fail(self, error)

    _spy_on_names(monkeypatch, lambda ref: ref is a, journal)
    spy_on_inbox(monkeypatch, root.ref, ChildExit, lambda: journal("supervisor"))
    spy_on_inbox(monkeypatch, b, Down, lambda: journal("watcher"))
    monkeypatch.setattr(Reply, "fail", spy_on_answer)
    gate.open()
    with pytest.raises(ServerCrashed):
        in_hand.get(timeout=60)
    with pytest.raises(NoProcess):
        behind.get(timeout=60)
    assert journal.lines == [
        ("names", False, False, False, True),
        ("refused",),
        ("supervisor",),
        ("watcher",),
        ("asker",),
    ]


def test_name_is_free_before_a_failed_start_is_known(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or who starts it anew at once could be told that its name is taken."""
    runtime = Runtime()
    _spy_on_names(monkeypatch, lambda _: True, journal)
    hooks = Hooks(init=lambda me: _fail(me, "init"))
    with pytest.raises(StartFailed):
        Lab.start_link(("lab", None, hooks), name="one", runtime=runtime)
    assert journal.lines == [("names", False, False, False, False)]


def test_an_actor_ends_once() -> None:
    """Its own thread or its killer: who comes second changes nothing."""
    ref, gate = Lab.start(), Gate()
    ref.tell(Run(gate))
    gate.wait()
    process = process_of(ref)
    barrier, firsts = threading.Barrier(8), list[Reason]()

    def end(reason: Reason) -> None:
        barrier.wait(30)
        if finish(process, reason):
            firsts.append(reason)

    threads = [threading.Thread(target=end, args=(Reason("killed", one),)) for one in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert firsts == [process.exit_reason]
    process.killed = True
    gate.open()
    assert gone(ref).exit_reason == firsts[0]
    assert finish(process, NORMAL) is False


# By supervisors


def test_one_at_a_time(tree: StartTree, journal: Journal) -> None:
    """A child is asked to end when the next has; its supervisor answers nobody meanwhile."""
    gate = Gate()
    root = tree([lab("a", journal), lab("b", journal, hooks=Hooks(ends=gate), shutdown=None)])
    a = root.whereis("a")
    assert a is not None
    ended = root.ref.stop(block=False)
    gate.wait()
    assert a.ask("still there?") == "still there?"
    with pytest.raises(CallTimeout):
        root.ref.ask(WhichChildren(), timeout=0)
    gate.open()
    assert ended.get(timeout=60) is True
    assert journal.about("end") == [("end", "b", "shutdown"), ("end", "a", "shutdown")]


def test_reason_goes_down_the_tree(tree: StartTree) -> None:
    """What a tree is shut down for, its children hear too; an end for other reasons is shutdown."""
    heard: list[Reason] = []
    for reason in (Reason("shutdown", "deploy"), NORMAL):
        root = tree([lab("a", hooks=Hooks(ends=lambda _, why: heard.append(why)))])
        root.ref.tell(Exit(reason))
        root.wait(30)
    assert heard == [Reason("shutdown", "deploy"), SHUTDOWN]


# The decisions themselves


@pytest.mark.parametrize("restart", RESTARTS)
@pytest.mark.parametrize(
    "reason", [NORMAL, SHUTDOWN, Reason("shutdown", 1), KILLED, NOPROC, Reason("crashed", Boom())]
)
def test_pure_restart(restart: Restart, reason: Reason) -> None:
    """Permanent always, transient after what is neither normal nor shutdown, temporary never."""
    expected = {
        "permanent": True,
        "transient": reason.kind in {"killed", "noproc", "crashed"},
        "temporary": False,
    }
    assert wants_restart(restart, reason) is expected[restart]
    assert keeps_spec(restart) is (restart != "temporary")


@pytest.mark.parametrize(
    ("strategy", "ids"),
    [("one_for_one", "b"), ("rest_for_one", "bcd"), ("one_for_all", "abcd")],
)
def test_pure_strategy(strategy: Strategy, ids: str) -> None:
    """Itself; and those started after it; or all."""
    assert list(affected(strategy, "abcd", "b")) == list(ids)

"""Each actor, crashed over each message that it handles: the tree serves again."""

import contextlib
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from oban_actors import (
    ActorError,
    Beat,
    Election,
    GetLeader,
    GetLease,
    GetStatus,
    IsLeader,
    Job,
    Listen,
    NoProcess,
    Notification,
    Notify,
    Oban,
    Reconnect,
    Reconnected,
    Resign,
    Stage,
    Unlisten,
    worker,
)
from oban_actors.actors import (
    ChildExit,
    DeleteChild,
    Exit,
    Ref,
    RestartChild,
    ServerCrashed,
    StartChild,
    Supervisor,
    TerminateChild,
    WhichChildren,
    send,
)
from oban_actors.actors.process import process_of
from oban_actors.actors.reasons import SHUTDOWN, Reason
from oban_actors.actors.restarts import Intensity
from oban_actors.actors.supervisor import _TryAgain
from oban_actors.carrying import Carried, Carry
from oban_actors.health import Check as Seen
from oban_actors.health import Vitals
from oban_actors.messages import (
    CancelClaims,
    Check,
    Dispatch,
    GetAddress,
    LockLost,
    Look,
    Refresh,
    Shutdown,
    StartQueue,
    StopQueue,
    Switched,
    TryLock,
    Unlock,
    Watch,
)
from oban_actors.notifiers.postgres import _Connected
from oban_actors.notifiers.select_mailbox import Readable, Tick
from oban_actors.notifiers.sqlite import _Sweep
from oban_actors.peers.database import _Wake
from oban_actors.plugins import Cron, Lifeline, Pruner, Reindexer
from oban_actors.plugins.actor import PluginActor
from oban_actors.pulse import _Judge
from oban_actors.queues.foreman import _Lost, _Overdue
from oban_actors.queues.parts import Drained, LeftOver
from oban_actors.queues.producer import _Again, _Ended, _GraceOver, _Unblock
from oban_actors.queues.supervisor import _Begun, _Deadline, _Listens
from tests.oban.handled import handled
from tests.support.events import Recorder
from tests.support.instances import Heard, Starter, scheduled, wait_until_leader
from tests.support.waiting import wait_until

PATHS = [
    "oban",
    "oban/health",
    "oban/health/server",
    "oban/health/checkup",
    "oban/notifier",
    "oban/queues",
    "oban/queues/alpha",
    "oban/queues/alpha/foreman",
    "oban/queues/alpha/producer",
    "oban/queues/alpha/watchman",
    "oban/peer",
    "oban/pulse",
    "oban/stager",
    "oban/plugins",
    "oban/plugins/cron",
    "oban/plugins/lifeline",
    "oban/plugins/pruner",
    "oban/plugins/reindexer",
]

PAYLOADS: dict[str, dict[str, Any]] = {
    "actors": {"name": "Oban"},
    "insert": {"queue": "alpha"},
    "leader": {"down": "Oban"},
    "signal": {"action": "resume", "queue": "alpha"},
    "sonar": {"node": "web.1", "ping": True},
}
"""What comes on each channel."""

NOBODY: Any = "nobody"
OVER: Any = type("Over", (), {"ack": 1, "stuck": True, "running": SimpleNamespace(deadline=None)})()
"""As much of a claim whose run is over as is looked at."""
UNASKED: Any = SimpleNamespace(abandon=lambda: None)
"""An attempt to connect that the notifier knows nothing of."""
WELL = Seen(ok=True, about={})


def _carried(_: object, __: bool) -> None:  # noqa: FBT001 (as a beat calls it)
    """Read nothing."""


MADE: dict[str, Callable[[Ref], Any]] = {
    "Beat": lambda _: Beat(),
    "CancelClaims": lambda _: CancelClaims((), "cancelled"),
    "Carried": lambda _: Carried(_carried, 0.0, 0.0),
    "Carry": lambda ref: Carry(_carried, ref),
    "Check": lambda _: Check(),
    "ChildExit": lambda ref: ChildExit(ref, SHUTDOWN),
    "DeleteChild": lambda _: DeleteChild(NOBODY),
    "Dispatch": lambda _: Dispatch(),
    "Drained": lambda _: Drained(NOBODY),
    "Election": lambda _: Election(),
    "GetAddress": lambda _: GetAddress(),
    "GetLeader": lambda _: GetLeader(),
    "GetLease": lambda _: GetLease(),
    "GetStatus": lambda _: GetStatus(),
    "IsLeader": lambda _: IsLeader(),
    "LeftOver": lambda _: LeftOver(NOBODY),
    "Listen": lambda ref: Listen(["insert"], ref),
    "LockLost": lambda _: LockLost(7),
    "Look": lambda _: Look(),
    "Notify": lambda _: Notify("gossip", [{}]),
    "Readable": lambda _: Readable(),
    "Reconnect": lambda _: Reconnect(),
    "Reconnected": lambda _: Reconnected(),
    "Refresh": lambda _: Refresh(),
    "Resign": lambda _: Resign(0.05),
    "RestartChild": lambda _: RestartChild(NOBODY),
    "Shutdown": lambda _: Shutdown(),
    "Stage": lambda _: Stage(),
    "StartChild": lambda _: StartChild(NOBODY),
    "StartQueue": lambda _: StartQueue("alpha", NOBODY),
    "StopQueue": lambda _: StopQueue("alpha"),
    "Switched": lambda _: Switched("clustered"),
    "TerminateChild": lambda _: TerminateChild(NOBODY),
    "Tick": lambda _: Tick(),
    "TryLock": lambda _: TryLock(7),
    "Unlisten": lambda ref: Unlisten(["gossip"], ref),
    "Unlock": lambda _: Unlock(7),
    "Vitals": lambda _: Vitals(0.0, WELL, WELL, WELL, WELL),
    "Watch": lambda _: Watch(OVER),
    "WhichChildren": lambda _: WhichChildren(),
    "_Again": lambda _: _Again(),
    "_Connected": lambda _: _Connected(UNASKED),
    "_Deadline": lambda _: _Deadline("alpha"),
    "_Ended": lambda _: _Ended(),
    "_GraceOver": lambda _: _GraceOver(),
    "_Judge": lambda _: _Judge(),
    "_Listens": lambda _: _Listens("alpha", _Begun()),
    "_Lost": lambda _: _Lost([OVER]),
    "_Overdue": lambda _: _Overdue(OVER),
    "_Sweep": lambda _: _Sweep(),
    "_TryAgain": lambda _: _TryAgain(NOBODY),
    "_Unblock": lambda _: _Unblock(),
    "_Wake": lambda _: _Wake(),
}
"""How each message is made; one that an actor handles and that is not here fails its test."""


class Fault(Exception):
    """What is put in."""


class Unknown:
    """A message that no actor knows."""


@worker(name="tests.serving", queue="alpha")
def serving(_job: Job) -> None:
    """Show that the queue runs jobs."""


@pytest.fixture
def oban(start_oban: Starter) -> Iterator[Oban]:
    """A whole tree under a host's supervisor, which bears more crashes than any real one."""
    one = start_oban.make(
        queues={"alpha": 2},
        stager={"interval": 0.2},
        health={"port": 0},
        plugins=[
            Cron(crontab=[("@yearly", "tests.Worker")]),
            Lifeline(),
            Pruner(),
            *([Reindexer()] if start_oban.database.kind == "postgresql" else []),
        ],
    )
    with Supervisor.start([one.child_spec()], max_restarts=1_000):
        wait_until_leader(one)
        yield one


@pytest.fixture
def heard(start_oban: Starter, oban: Oban) -> Heard:
    """One who listens for work, as other nodes do."""
    return start_oban.hear(oban, "insert")


def tree(oban: Oban) -> dict[str, Ref]:
    """Give every living actor by its path of ids."""
    root = oban.whereis("oban")
    found = {"oban": root}
    _add_below("oban", root, found)
    return found


def _add_below(path: str, ref: Ref, found: dict[str, Ref]) -> None:
    actor: Any = process_of(ref).actor
    if isinstance(actor, Supervisor):
        for view in actor._views():
            if view.process is not None and view.process.ref is not None:
                below = f"{path}/{view.id[-1] if isinstance(view.id, tuple) else view.id}"
                found[below] = view.process.ref
                _add_below(below, view.process.ref, found)


def messages(oban: Oban, ref: Ref, other: Ref) -> list[tuple[str, Any]]:
    """Make every message that an actor handles, each with how it comes."""
    cls = ref.actor_class
    made: list[tuple[str, Any]] = [("told", Unknown())]
    for how, name in sorted(handled(cls)):
        if name == "Notification":
            registry = oban._runtime.registry
            mine = [c for c in sorted(registry.channels()) if ref in registry.subscribers(c)]
            made += [(how, Notification(c, PAYLOADS[c])) for c in mine]
        else:
            made.append((how, MADE[name](other)))
    if issubclass(cls, PluginActor):
        plugin: Any = process_of(ref).actor
        made += [("told", plugin.plugin.message()), ("asked", plugin.plugin.message())]
    return made


def crash(patch: pytest.MonkeyPatch, ref: Ref, how: str, message: Any, *, after: bool) -> None:
    """Let an actor crash over a message, before it handled it or right after."""
    faults = [Fault("put in")]

    def failing(handle: Any) -> Any:
        def handler(self: Any, got: Any, *rest: Any) -> Any:
            result = handle(self, got, *rest) if after or got is not message else None
            if got is message and faults:
                raise faults.pop()
            return result

        return handler

    for kind in ("handle_info", "handle_call"):
        patch.setattr(ref.actor_class, kind, failing(getattr(ref.actor_class, kind)))
    if how == "told":
        send(ref, message)
    else:
        with pytest.raises(ServerCrashed):
            ref.ask(message, timeout=30)
    wait_until(lambda: not ref.is_alive(), message=f"a crash over {message}")


def bear(oban: Oban) -> None:
    """Forget the crashes so far."""
    for ref in tree(oban).values():
        actor: Any = process_of(ref).actor
        if isinstance(actor, Supervisor):
            actor._intensity = Intensity(1_000, 5.0)


def serves(oban: Oban, start: Starter, heard: Heard, path: str) -> None:
    """Wait until the whole tree stands, leads, stages, tells and runs."""
    wait_until(lambda: started(oban), message="the queue is there")
    wait_until(lambda: path in standing(oban), message=f"{path} stands again")
    wait_until_leader(oban)
    told = len(heard.payloads("insert"))
    staged = oban.insert(scheduled(0.01, queue="delta"))
    ran = oban.insert(serving.new({}))
    wait_until(lambda: start.tables.states()[staged.id or 0] == "available", message="staged")
    wait_until(lambda: start.tables.states()[ran.id or 0] == "completed", message="run")
    wait_until(lambda: {"queue": "delta"} in heard.payloads("insert")[told:], message="told")


def standing(oban: Oban) -> dict[str, Ref]:
    """Give who lives of the tree; nothing while its root is away."""
    with contextlib.suppress(NoProcess):
        return {path: ref for path, ref in tree(oban).items() if ref.is_alive()}
    return {}


def started(oban: Oban) -> bool:
    """Start the queue anew where a message has ended it."""
    with contextlib.suppress(ActorError):
        oban.start_queue("alpha", limit=2)
        return oban.check_queue("alpha") is not None
    return False


def test_every_actor_has_its_place_here(oban: Oban, start_oban: Starter) -> None:
    """A tree with all that there can be has the actors that are crashed below."""
    postgres = start_oban.database.kind == "postgresql"

    assert list(tree(oban)) == [p for p in PATHS if postgres or "reindexer" not in p]


@pytest.mark.parametrize("path", PATHS)
def test_crashed_over_each_message(
    oban: Oban, start_oban: Starter, heard: Heard, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    """Before it handled the message or right after: its successor serves, jobs are staged."""
    if path not in tree(oban):
        pytest.skip("not on this database")
    for n, (_, shown) in enumerate(messages(oban, tree(oban)[path], heard.ref)):
        for after in (False, True):
            bear(oban)
            ref = standing(oban)[path]
            how, message = messages(oban, ref, heard.ref)[n]
            assert type(message) is type(shown)
            with monkeypatch.context() as patch:
                crash(patch, ref, how, message, after=after)
            serves(oban, start_oban, heard, path)


@pytest.mark.parametrize("name", ["notifier", "peer", "pulse", "stager"])
def test_ended_by_hand(start_oban: Starter, events: Recorder, name: str) -> None:
    """`ref.stop()` and a stray `Exit` end an actor in order; it is permanent, so it returns."""
    oban = start_oban.leading(stager={"interval": 0.2})
    for by_message in (False, True):
        ref = oban.whereis(name)
        if by_message:
            ref.tell(Exit(Reason("shutdown")))
        else:
            ref.stop()
        successor_of(oban, name, ref)
    wait_until_leader(oban)
    oban.insert(scheduled(0.05))
    wait_until(lambda: start_oban.tables.count("available") == 1)


def successor_of(oban: Oban, name: str, ref: Ref) -> None:
    """Wait until the name belongs to somebody else."""

    def replaced() -> bool:
        with contextlib.suppress(NoProcess):
            return oban.whereis(name) is not ref
        return False

    wait_until(replaced)

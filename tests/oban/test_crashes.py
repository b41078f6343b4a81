"""Each actor, crashed over each message that it handles: the tree serves again."""

import contextlib
from typing import Any

import pytest

from oban_actors import (
    Beat,
    Election,
    GetLeader,
    GetLease,
    GetStatus,
    IsLeader,
    Listen,
    NoProcess,
    Notification,
    Notify,
    Oban,
    Reconnect,
    Reconnected,
    Stage,
    Unlisten,
)
from oban_actors.actors import Exit, Ref, send
from oban_actors.actors.reasons import Reason
from oban_actors.messages import LockLost, Switched, TryLock, Unlock
from tests.support.events import Recorder
from tests.support.instances import Starter, scheduled, wait_until_leader
from tests.support.waiting import wait_until

HEARD = Notification("actors", {"name": "Oban"})

CASES: list[tuple[str, Any]] = [
    *(("stager", m) for m in (Stage(), HEARD, Reconnected(), Switched("clustered"))),
    *(
        ("peer", m)
        for m in (
            Election(),
            IsLeader(),
            GetLeader(),
            GetLease(),
            Notification("leader", {"down": "Oban"}),
            Notification("sonar", {"node": "web.1", "ping": True}),
            HEARD,
            Reconnected(),
            LockLost(7),
        )
    ),
    *(("pulse", m) for m in (Beat(), GetStatus(), HEARD, Reconnected())),
    *(
        ("notifier", m)
        for m in (
            Listen,
            Unlisten,
            Notify("insert", [{"queue": "alpha"}]),
            Notify("insert", [{"queue": "alpha"}], published=True),
            Reconnect(),
            TryLock(7),
            Unlock(7),
        )
    ),
]


class Fault(Exception):
    """What is put in."""


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize(
    ("name", "message"),
    CASES,
    ids=[
        f"{name}-{getattr(m, '__name__', type(m).__name__)}-{n}"
        for n, (name, m) in enumerate(CASES)
    ],
)
def test_crashed_over_a_message(
    start_oban: Starter,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    message: Any,
    after: bool,  # noqa: FBT001 (a parameter)
) -> None:
    """Before it handled the message or right after: its successor serves, jobs are staged."""
    oban = start_oban.leading(stager={"interval": 0.2})
    heard = start_oban.hear(oban, "insert")
    ref = oban.whereis(name)
    if isinstance(message, type):
        message = message(["insert"], oban.whereis("stager"))
    faults = [Fault("put in")]

    def failing(handle: Any) -> Any:
        def handler(self: Any, got: Any, *rest: Any) -> Any:
            result = handle(self, got, *rest) if after or got is not message else None
            if got is message and faults:
                raise faults.pop()
            return result

        return handler

    for kind in ("handle_info", "handle_call"):
        method = getattr(ref.actor_class, kind)
        monkeypatch.setattr(ref.actor_class, kind, failing(method))

    send(ref, message)

    wait_until(lambda: not ref.is_alive(), message=f"{name} crashes")
    wait_until_leader(oban)
    wait_until_leader(oban)
    oban.insert(scheduled(0.05))
    wait_until(lambda: start_oban.tables.count("available") == 1)
    heard.wait_for("insert")
    assert oban.alive


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

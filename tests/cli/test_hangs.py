"""Worker processes that hang: how they show that they live, and what a parent does with others."""

import os
import signal
import socket
import threading
from dataclasses import dataclass, field
from typing import Any, cast

import pytest

from oban_actors import Oban
from oban_actors.actors import Node
from oban_actors.cli import fleet as fleets
from oban_actors.cli import worker
from oban_actors.cli.fleet import (
    BEAT,
    SILENCE,
    START_TIME,
    STOP_TIME,
    Fleet,
    Hangs,
    Kill,
    Start,
    Tell,
)
from oban_actors.cli.link import WorkerLink
from oban_actors.cli.parent import Parent
from oban_actors.cli.worker import Pulse
from oban_actors.config import Config
from tests.cli.commands import WORKERS, command
from tests.cli.test_fleet import GRACE, running
from tests.support.databases import Database
from tests.support.waiting import wait_until


def pass_time(fleet: Fleet, since: float, until: float, *lively: int) -> list[Any]:
    """Let time pass in which only some show that they live; what is to be done meanwhile."""
    done: list[Any] = []
    now = since
    while now < until:
        assert fleet.wake_at is not None
        now = min(until, max(now, fleet.wake_at))
        for index in lively:
            fleet.lives(index, now)
        done += fleet.tick(now)
    return done


def test_one_that_shows_no_life_is_told_to_end_and_then_killed() -> None:
    """It may be its tree that hangs, so it gets the time to end that any worker has."""
    fleet = running(2)
    fleet.tick(0.0)

    assert pass_time(fleet, 0.0, SILENCE - 1, 0) == []
    assert pass_time(fleet, SILENCE - 1, SILENCE, 0) == [Hangs(1, SILENCE), Tell(1, "stop")]
    at = SILENCE + GRACE + STOP_TIME
    assert pass_time(fleet, SILENCE, at - 1, 0) == []
    assert pass_time(fleet, at - 1, at, 0) == [Kill(1)]
    assert fleet.ended(1, -9, "was killed", at) == [Start(1)]
    assert fleet.intensity.within(at) == 1


def test_those_that_live_are_left_alone() -> None:
    """For hours."""
    fleet = running(3)
    fleet.tick(0.0)

    assert pass_time(fleet, 0.0, 10_000.0, 0, 1, 2) == []


def test_all_may_hang() -> None:
    """Nobody wakes the parent then but itself."""
    fleet = running(2)
    fleet.tick(0.0)

    assert pass_time(fleet, 0.0, SILENCE + BEAT) == [
        *(Hangs(1, SILENCE), Tell(1, "stop"), Hangs(0, SILENCE), Tell(0, "stop"))
    ]


def test_a_parent_that_was_stopped_blames_nobody() -> None:
    """A container that was frozen for an hour: their time counts anew."""
    fleet = running(2)
    fleet.tick(0.0)

    assert fleet.tick(3_600.0) == []
    assert pass_time(fleet, 3_600.0, 3_600.0 + SILENCE - 1) == []


def test_one_that_starts_has_longer() -> None:
    """Modules that are slow to import show nothing meanwhile."""
    fleet = Fleet(1, GRACE)
    fleet.begin()
    fleet.tick(0.0)

    assert pass_time(fleet, 0.0, START_TIME - 1) == []
    assert pass_time(fleet, START_TIME - 1, START_TIME)[0] == Hangs(0, START_TIME)


def test_one_that_starts_again_begins_anew() -> None:
    """What its predecessor did not show is not held against it."""
    fleet = running(1)
    fleet.tick(0.0)
    pass_time(fleet, 0.0, SILENCE - 1)
    fleet.ended(0, 1, "died", SILENCE - 1)
    fleet.tick(SILENCE - 1)
    fleet.ready(0)

    assert pass_time(fleet, SILENCE - 1, 2 * SILENCE - 2) == []


def test_those_that_end_have_another_bound() -> None:
    """Who drains shows nothing, and is killed when its time to end is over."""
    fleet = running(1)
    fleet.tick(0.0)
    fleet.signal(1.0)

    assert pass_time(fleet, 1.0, GRACE + STOP_TIME) == []


def test_one_that_was_told_by_somebody_else_has_as_long() -> None:
    """Its drain is no hang; it is replaced when it has ended, or is killed if it does not."""
    fleet = running(2)
    fleet.tick(0.0)
    fleet.ends(1, 1.0)

    at = 1.0 + GRACE + STOP_TIME
    assert pass_time(fleet, 0.0, at - 0.1, 0) == []
    assert pass_time(fleet, at - 0.1, at, 0) == [Kill(1)]
    assert fleet.ended(1, 0, "ended", at) == [Start(1)]
    # Told again it has no longer.
    fleet.ends(0, at)
    fleet.ends(0, at + 5)
    assert fleet.wake_at is not None
    assert fleet.signal(at + 6)[-1] == Tell(1, "stop")


@dataclass
class Shown:
    """An instance as far as a Pulse looks at it."""

    node: Node
    config: Config = field(default_factory=Config.build)

    def tree(self) -> Node:
        """Give the tree."""
        return self.node


def busy(seconds: float) -> Node:
    """Make a tree whose Stager has had a message in hand for so long."""
    stager = Node("stager", "Stager", "busy", handling="Stage", busy_for=seconds)
    return Node("oban", "Instance", "idle", children=(stager,), recent_restarts=0)


def test_a_tree_that_hangs_shows_no_life(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The process does, but nobody is helped by it; the log says once who is late."""
    now = [1_000.0]
    monkeypatch.setattr(worker, "real_monotonic", lambda: now[0])
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    link = WorkerLink(theirs.detach(), lambda _: None)
    shown = Shown(busy(1.0))
    pulse = Pulse(cast("Oban", shown), link)

    def beats() -> int:
        for _ in range(10):
            pulse.beat()
            now[0] += BEAT
        try:
            return ours.recv(4096).count(b"alive\n")
        except BlockingIOError:
            return 0

    with ours:
        assert beats() == 10
        shown.node = busy(9_999.0)
        assert beats() == 0
        shown.node = busy(0.0)
        assert beats() == 10
    assert caplog.text.count("the tree hangs") == 1
    assert "'stager'" in caplog.text


def test_a_parent_that_reads_nothing_keeps_nobody_waiting() -> None:
    """A worker goes on when its parent is stopped for long, whatever it would have said."""
    ours, theirs = socket.socketpair()
    with ours:
        link = WorkerLink(theirs.detach(), lambda _: None)
        for _ in range(20_000):
            link.beat()
        assert ours.recv(6) == b"alive\n"


@pytest.mark.slow
def test_a_stopped_worker_is_replaced(
    sqlite: Database, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A process that runs no more, and does not end either, is killed and started again."""
    assert command("migrate", database=sqlite).code == 0
    monkeypatch.setattr(fleets, "SILENCE", 15.0)
    monkeypatch.setattr(fleets, "STOP_TIME", 0.5)
    monkeypatch.setenv("OBAN_DATABASE_URL", sqlite.url)
    parent = Parent(["start", "--import", WORKERS, "--queues", "alpha=1"], Fleet(1, 0.5))
    pids: list[int] = []

    def play() -> None:
        try:
            wait_until(lambda: "worker 0 runs" in caplog.text, timeout=120)
            pids.append(parent._workers[0].process.pid)
            os.kill(pids[0], signal.SIGSTOP)
            wait_until(lambda: caplog.text.count("worker 0 runs") == 2, timeout=120)
            pids.append(parent._workers[0].process.pid)
            monkeypatch.setattr(fleets, "STOP_TIME", 60.0)
        finally:
            os.kill(os.getpid(), signal.SIGTERM)

    caplog.set_level("INFO", "oban_actors")
    player = threading.Thread(target=play)
    player.start()
    code = parent.run()
    player.join(60)

    assert code == 0
    assert len(set(pids)) == 2
    assert "worker 0 shows no sign of life for 1" in caplog.text
    assert "worker 0 was killed by SIGKILL" in caplog.text

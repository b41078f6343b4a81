"""What a case is, how it is played, and what it came to."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.chaos.scene import ENOUGH, Scene
from tests.support.databases import Database, Kind, new_database
from tests.support.postgres import PostgresServer

Strike = Callable[[Scene], None]
Stage = Callable[[Scene], AbstractContextManager[None]]
Bound = Callable[[Scene], int]

FEW = 40
"""Warnings and errors, of all nodes, that one strike may cause."""


@contextmanager
def two_nodes(scene: Scene) -> Iterator[None]:
    """Have two nodes."""
    scene.start(2)
    yield


@contextmanager
def no_node(_: Scene) -> Iterator[None]:
    """Leave it to the strike to start nodes."""
    yield


CASES: "dict[str, Case]" = {}


@dataclass(frozen=True)
class Case:
    """One fault.

    Attributes:
        name: by which it is chosen.
        kind: the database that it strikes.
        fault: what it is, for the table.
        told: patterns of what the nodes log, each of which has to come.
        again: how many runs beyond the first there may be; None: none.
        strike: what happens while the load is on. By its end the fault is over.
        stage: what is there before: the nodes, and what they need.
        disk: gives the directory for an SQLite file in another one, default that one itself.
        missing: says why it can't be played here; default, and None: it can.
        options: of all nodes.
        crashes: whether the fault is such that what is printed or crashes is no failure.
        few: complaints that one strike may cause.

    """

    name: str
    kind: Kind
    fault: str
    strike: Strike
    told: tuple[str, ...] = ()
    again: Bound | None = None
    stage: Stage = two_nodes
    disk: Callable[[Path], AbstractContextManager[Path]] = nullcontext
    missing: Callable[[], str | None] = lambda: None
    options: dict[str, Any] = field(default_factory=dict)
    crashes: bool = False
    few: int = FEW


@dataclass(frozen=True)
class Row:
    """What a case came to.

    Attributes:
        case: which.
        told: what the nodes logged.
        jobs: how many there were.
        again: runs beyond the first of each job.
        bound: how many there might have been.
        standstill: the longest time after a strike until jobs ran as before, in seconds.
        before: jobs done in a second before the fault; None in the short form.
        after: the same after it.
        failures: what was not as it must be.

    """

    case: Case
    told: tuple[str, ...]
    jobs: int
    again: int
    bound: int
    standstill: float
    before: float | None
    after: float | None
    failures: tuple[str, ...]


def case(
    name: str, fault: str, kind: Kind = "postgresql", **spec: Any
) -> Callable[[Strike], Strike]:
    """Make a case of a function, and keep it in `CASES`."""

    def keep(strike: Strike) -> Strike:
        assert name not in CASES, name
        CASES[name] = Case(name, kind, fault, strike, **spec)
        return strike

    return keep


@contextmanager
def place(one: Case, server: PostgresServer | None, directory: Path) -> Iterator[Database]:
    """Give a new database for a case."""
    if one.kind == "sqlite":
        with one.disk(directory) as disk:
            yield Database("sqlite", f"sqlite:///{disk / 'jobs.db'}")
        return
    assert server is not None
    with new_database(server) as name:
        yield Database("postgresql", server.url(name))


def play(one: Case, scene: Scene) -> Row:
    """Put a case on, and see what it came to.

    Raises:
        AssertionError: what was waited for did not come.

    """
    scene.options = one.options
    try:
        return _play(one, scene)
    finally:
        scene.close()


def _play(one: Case, scene: Scene) -> Row:
    scene.load.start()
    before = after = None
    with one.stage(scene):
        if scene.nodes:
            scene.leader()
            scene.wait_for_runs(1)
            before = scene.rate() if scene.long else None
        one.strike(scene)
        told = tuple(scene.told(pattern) for pattern in one.told) + tuple(scene.quotes)
        if before is not None:
            after = scene.rate_again(before)
        scene.settle()
    bound = one.again(scene) if one.again else 0
    return Row(
        one,
        told,
        len(scene.begun),
        scene.again(),
        bound,
        scene.standstill,
        before,
        after,
        tuple(_failures(one, scene, bound, before, after)),
    )


def _failures(
    one: Case, scene: Scene, bound: int, before: float | None, after: float | None
) -> Iterator[str]:
    if lost := scene.lost():
        yield f"{len(lost)} jobs were lost: {sorted(lost)[:5]}"
    if unseen := scene.unseen():
        yield f"{len(unseen)} jobs ended that never ran: {sorted(unseen)[:5]}"
    if scene.again() > bound:
        yield f"{scene.again()} runs again, at most {bound} are promised"
    if not one.crashes and (crashes := scene.crashes()):
        yield f"crashed: {crashes[:3]}"
    if scene.complaints() > one.few * max(1, scene.strikes):
        yield f"{scene.complaints()} warnings"
    if before is not None and after is not None and after < ENOUGH * before:
        yield f"throughput is {after / before:.0%} of before"

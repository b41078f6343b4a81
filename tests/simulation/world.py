"""The world: nodes on machines, one database, work that comes, faults that strike."""

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from unittest import mock

from oban_actors.actors import Reason, gen_server
from oban_actors.backoff import CHANCE
from oban_actors.errors import ObanError
from oban_actors.job import Job
from tests.simulation.client import InjectedCrash, Place
from tests.simulation.database import Server, Session
from tests.simulation.faults import Weather
from tests.simulation.hosting import hosted
from tests.simulation.hub import Gone, Hub
from tests.simulation.invariants import Checks, Violation
from tests.simulation.machine import Machine
from tests.simulation.node import LEASE, Node

LOOK = 0.25
"""Seconds between two looks at what nodes believe."""

DETECTED = 8.0
"""Seconds after which the server knows that a client is cut off, at most."""


@dataclass(slots=True)
class World:
    """All of it; made by `world`.

    Attributes:
        hub: time and chance.
        server: the database.
        weather: what goes wrong at round trips and notifications.
        nodes: all that were started; `checks` what must hold of them.
        trace: the lines of what happened, kept while `tracing`.

    """

    hub: Hub
    tracing: bool = False
    server: Server = field(init=False)
    weather: Weather = field(init=False)
    checks: Checks = field(init=False)
    nodes: list[Node] = field(default_factory=list)
    trace: list[str] = field(default_factory=list)
    crashes: list[str] = field(default_factory=list)
    _births: int = 0

    def __post_init__(self) -> None:
        self.server = Server(self.hub)
        self.weather = Weather(self.hub)
        self.checks = Checks(self.server, self.nodes)
        self.server.notice = self._notice
        self.server.before_commit.append(self.checks.commit)
        self.hub.after(LOOK, self._look)
        self.hub.after_step = self.checks.believe

    # Nodes

    def start(self, name: str, *, skew: float = 0.0, limit: int = 4) -> Node:
        """Start a node on a new process of a machine of this name."""
        self._births += 1
        machine = Machine(self.hub, f"{name}#{self._births}", skew)
        kill: Callable[[], None] = lambda: self.kill(node)  # noqa: E731 (it needs the node)
        place = Place(machine, self.server, self.weather, kill, partial(self.say, machine.name))
        node = Node(machine, place, self.checks, self._ended, limit)
        self.nodes.append(node)
        self.say(machine.name, "starts")
        return node

    def kill(self, node: Node) -> None:
        """Kill a node as kill -9 does: the server sees its connections end."""
        if node.machine.dead:
            return
        self.weather.note("kill")
        self.say(node.machine.name, "is killed")
        node.machine.kill()
        for session in [each for each in self.server.sessions if each.machine is node.machine]:
            seconds = DETECTED * self.hub.rng.random() if node.machine.cut else self.hub.lag()
            self.hub.after(seconds, self.server.disconnect, session)

    def stop(self, node: Node, seconds: float, *, suspend: bool = False) -> None:
        """Let a node stand still for a while: stopped, or its machine suspended."""
        if node.machine.dead or node.machine.still:
            return
        self.weather.note("suspend" if suspend else "freeze")
        self.say(node.machine.name, f"stands still for {seconds:.1f} s")
        node.machine.stop(suspend=suspend)
        self.server.silent(node.machine)
        self.hub.after(seconds, self.thaw, node)

    def cut(self, node: Node, seconds: float) -> None:
        """Cut a node's network: nothing arrives, and nobody is told."""
        if node.machine.dead or node.machine.cut:
            return
        self.weather.note("cut")
        self.say(node.machine.name, f"is cut off for {seconds:.1f} s")
        node.machine.cut = True
        self.server.silent(node.machine)
        for session in [each for each in self.server.sessions if each.machine is node.machine]:
            self.hub.after(DETECTED * self.hub.rng.random(), self._detect, session)
        self.hub.after(seconds, self.heal, node)

    def alive(self) -> list[Node]:
        """List the nodes that run."""
        return [node for node in self.nodes if node.alive and not node.stopping]

    @property
    def leader(self) -> Node | None:
        """Who leads."""
        return next((node for node in self.alive() if node.leads), None)

    # The database

    def fail_over(self, seconds: float, *, wipe: bool = False, jump: float = 0.0) -> None:
        """Take the database away for a while; another machine with another clock may follow."""
        if not self.server.up:
            return
        self.weather.note("failover")
        self.say("server", f"is down for {seconds:.1f} s, wiped: {wipe}, its clock off {jump:.1f}")
        self.server.crash(wipe=wipe)
        if wipe or jump:
            self.checks.confused_until = self.hub.now + seconds + LEASE + abs(jump)
        self.hub.after(seconds, self._up, jump)

    # Work

    def insert(self, args: Mapping[str, Any] | None = None, **options: Any) -> None:
        """Have some living node's host insert a job; it may not come to it."""
        nodes = [node for node in self.alive() if node.inserter is not None]
        nodes = [node for node in nodes if not node.machine.still]
        if nodes:
            node = self.hub.rng.choice(nodes)
            options = {"worker": "sim.plain", "queue": "alpha"} | options
            self.hub.spawn(node.machine, self._insert, node, [Job.new(args, **options)])

    def cancel(self, job_id: int) -> None:
        """Cancel a job, as any host may, and tell whoever runs it."""
        row = self.server.tables["oban_jobs"].get(job_id)
        if row is None or row["state"] in ("completed", "discarded", "cancelled"):
            return
        session = self.server.connect(Machine(self.hub, "host"))
        made = self.server.begin(session)
        if made.try_lock("oban_jobs", job_id):
            made.put("oban_jobs", job_id, row | {"state": "cancelled", "done_at": made.now()})
            signal = f'{{"action":"pkill","job_id":{job_id}}}'
            made.notices.append(("public.oban_signal", signal))
            self.say("host", f"cancels job {job_id}")
            self.server.commit(made)
        self.server.disconnect(session)

    def say(self, who: str, what: str) -> None:
        """Note what happens."""
        if self.tracing:
            self.trace.append(f"{self.hub.now:10.4f} {who}: {what}")

    # Events

    def _insert(self, node: Node, jobs: list[Job]) -> None:
        assert node.inserter is not None
        try:
            done = node.inserter.insert(jobs, None, None)
        except (ObanError, InjectedCrash) as error:
            self.say(node.machine.name, f"could not insert: {type(error).__name__}")
        else:
            self.checks.confirmed |= {job.id or 0 for job in done}

    def _notice(self, session: Session, notices: list[tuple[str, str]], pid: int) -> None:
        rates, rng = self.weather.rates, self.hub.rng
        if session.deliver is None or rng.random() < rates.deaf:
            return
        late = 5.0 * rng.random() if rng.random() < rates.late else 0.0
        at = max(session.quiet_until, self.hub.now + 0.001 + late + self.hub.lag())
        # One stream: what is late holds up what comes behind it.
        session.quiet_until = at
        for _ in range(2 if rng.random() < rates.doubled else 1):
            self.hub.at(at, self._arrive, session, notices, pid)

    def _arrive(self, session: Session, notices: list[tuple[str, str]], pid: int) -> None:
        if not session.machine.cut and session.deliver is not None:
            session.machine.soon(0.0, self._hear, session, notices, pid)

    def _hear(self, session: Session, notices: list[tuple[str, str]], pid: int) -> None:
        for channel, text in notices:
            if session.deliver is not None:
                session.deliver(channel, text, pid)

    def thaw(self, node: Node) -> None:
        """Let a node that stands still go on."""
        if node.machine.still and not node.machine.dead:
            self.say(node.machine.name, "goes on")
            node.machine.thaw()

    def heal(self, node: Node) -> None:
        """Connect a node again that is cut off."""
        if node.machine.cut:
            node.machine.cut, node.machine.healed_at = False, self.hub.now
            self.say(node.machine.name, "is connected again")

    def _detect(self, session: Session) -> None:
        if session.machine.cut:
            self.server.disconnect(session)

    def _up(self, jump: float) -> None:
        self.server.skew += jump
        self.server.start()
        self.say("server", "is up again")

    def _look(self) -> None:
        self.checks.look()
        if self.crashes:
            raise Violation(f"an actor crashed: {self.crashes[0]}")
        self.hub.after(LOOK, self._look)

    def _ended(self, node: Node, reason: Reason) -> None:
        if not node.machine.dead and not node.stopping:
            self.crashes.append(f"the tree of {node.machine.name} gave up: {reason}")
        node.machine.kill()


class _Listening:
    """Stands for the actors' logger: hears of crashes."""

    def __init__(self, made: World) -> None:
        self._world = made

    def exception(self, message: str, *about: object) -> None:
        """Note a crash unless it was injected."""
        error = sys.exception()
        if isinstance(error, Gone):
            return
        said = f"{message % about}: {error!r}"
        self._world.say("crash", said)
        if not isinstance(error, InjectedCrash):
            self._world.crashes.append(said)

    def warning(self, message: str, *about: object) -> None:
        """Let warnings pass."""


@contextmanager
def world(seed: int, *, tracing: bool = False) -> Iterator[World]:
    """Make a world, in which nothing runs yet.

    Args:
        seed: decides everything.
        tracing: whether to keep what happens.

    """
    before = CHANCE.getstate()
    CHANCE.seed(seed)
    hub = Hub(seed)
    made = World(hub, tracing)
    try:
        with (
            hosted(hub),
            mock.patch.object(gen_server, "logger", _Listening(made)),
        ):
            try:
                yield made
            finally:
                hub.end()
    finally:
        CHANCE.setstate(before)

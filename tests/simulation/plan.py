"""A seed's story: nodes, work and faults, and at last a calm in which all is settled."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from tests.simulation import node as settings
from tests.simulation.faults import Fault, Rates
from tests.simulation.invariants import Violation
from tests.simulation.node import Node
from tests.simulation.world import World

RECOVERY = 12.0
"""Seconds until all is as if nothing had been: the longest delays between two tries are over."""

CALM = 60.0
"""Seconds, at most, in which all is settled once nothing strikes, beside what the jobs take."""

EACH_TRIP = {
    Fault.LOST_BEFORE: 0.012,
    Fault.LOST_AFTER: 0.012,
    Fault.SLOW: 0.012,
    Fault.SILENT: 0.004,
    Fault.SILENT_AFTER: 0.004,
    Fault.CONFLICT: 0.012,
    Fault.CRASH: 0.006,
    Fault.KILL_BEFORE: 0.002,
    Fault.KILL_AFTER: 0.003,
}
"""How often what strikes a round trip, in a storm."""


@dataclass(frozen=True, slots=True)
class Shape:
    """How a story goes.

    Attributes:
        nodes: how many there are.
        seconds: how long faults strike.
        jobs: how many are inserted.
        episodes: how many faults that last, at most; `kinds` which ones, None for any.
        storm: how probable it is that round trips are struck, and how often by what; None for
            anything.
        lengths: how long jobs take.
        proves: how probable it is that all is proved to work at the end as if nothing had been.
        minute: how probable it is that a minute begins within it, and cron has something to do.
        deaths: how probable it is that a node is killed that has long jobs, so that others have
            to rescue them.
        name: the option of `make simulate` that plays it.

    """

    nodes: int = 3
    seconds: float = 25.0
    jobs: int = 14
    episodes: int = 4
    kinds: "tuple[Episode, ...] | None" = None
    storm: float = 0.7
    trips: Mapping[Fault, float] | None = None
    lengths: tuple[float, ...] = (0.01, 0.3, 1.0, 3.0, 8.0)
    proves: float = 1.0
    minute: float = 0.0
    deaths: float = 0.0
    name: str = ""


SHORT = Shape(nodes=2, seconds=8.0, jobs=4, episodes=1, lengths=(0.01, 0.3, 1.0), name="short")
"""Few nodes, jobs and faults: starts and ends of nodes are a greater part of it."""

TINY = Shape(
    nodes=2,
    seconds=2.5,
    jobs=3,
    episodes=1,
    lengths=(0.01, 0.3),
    proves=0.02,
    minute=0.25,
    deaths=0.03,
    name="tiny",
)
"""Over once its three jobs are: thousands can be played where there is time for a few long ones."""

TO_THE_MINUTE = 28.0
"""Seconds from the beginning of time until a minute is about to begin."""

OUTLIVING = 8.0
"""Seconds of a job that outlives its node."""


@dataclass(slots=True)
class Story:
    """Plays a seed.

    Args:
        world: in which.
        shape: how.

    """

    world: World
    shape: Shape = field(default_factory=Shape)
    until: float = field(default=0.0, init=False)

    def play(self) -> None:
        """Let all of it happen.

        Raises:
            Violation: something did that must not.

        """
        proves = self._happens(self.shape.proves)
        if self._happens(self.shape.minute):
            self.world.hub.now = TO_THE_MINUTE
        if self._happens(self.shape.deaths):
            self.shape = replace(self.shape, kinds=(kill,), lengths=(OUTLIVING,))
        self.until = self.world.hub.now + self.shape.seconds
        self.begin()
        self.world.hub.run(self.until)
        self.calm()
        self.settle()
        if proves:
            self.prove()

    def begin(self) -> None:
        """Start the nodes, and plan what comes."""
        world, rng, shape = self.world, self.world.hub.rng, self.shape
        for index in range(rng.randint(2, shape.nodes)):
            world.hub.after(rng.random(), self._start, f"web.{index % 2}")
        for _ in range(shape.jobs):
            world.hub.after(rng.uniform(1.0, shape.seconds), self._work)
        for _ in range(rng.randint(1, shape.episodes)):
            world.hub.after(rng.uniform(0.5, shape.seconds), self._episode)
        if rng.random() < shape.storm:
            self._storm()

    def calm(self) -> None:
        """Let nothing strike any more, and have at least one node."""
        world = self.world
        world.weather.rates = Rates()
        world.say("weather", "is calm from here on")
        for node in world.nodes:
            world.heal(node)
            world.thaw(node)
        if not [node for node in world.nodes if not node.machine.dead and not node.stopping]:
            world.start("last")

    def settle(self) -> None:
        """Wait until all jobs are over, as they must be in time."""
        world = self.world
        until = world.hub.now + CALM + sum(map(_longest, world.checks.unfinished()))
        while world.hub.now < until:
            world.hub.run(world.hub.now + 1.0)
            if world.leader is not None and not self._open():
                return
        raise Violation(f"no end: leader {world.leader}, unfinished {self._open()}")

    def prove(self) -> None:
        """Prove that it works as if nothing had been: jobs start when they are due, cron runs."""
        world = self.world
        world.hub.run(max(world.hub.now + 2 * settings.PULSE, self.until + RECOVERY))
        now = world.hub.now
        before = world.server.job_ids
        world.insert({"seconds": 0.1})
        world.insert({"seconds": 0.1}, schedule_in=1.5)
        world.hub.run(now + 1.0)
        ids = range(before + 1, world.server.job_ids + 1)
        # What a host's insert itself needs is not the tree's affair.
        for job_id in ids:
            row = world.server.tables["oban_jobs"][job_id]
            if row["state"] == "available":
                raise Violation(f"job {job_id} is available and nobody starts it: {row}")
        world.hub.run(now + 1.5 + 2 * settings.STAGER)
        for job_id in ids:
            row = world.server.tables["oban_jobs"][job_id]
            if row["state"] not in ("executing", "completed"):
                raise Violation(f"job {job_id} is due and was not started: {row}")

    # What comes

    def _happens(self, share: float) -> bool:
        # What is certain takes no chance, so that a seed stays the story that it was.
        return share > 0.0 and (share >= 1.0 or self.world.hub.rng.random() < share)

    def _open(self) -> list[object]:
        open_ = self.world.checks.unfinished()
        return [(row["id"], row["state"], row["uuid"], row["args"]) for row in open_]

    def _start(self, name: str) -> None:
        rng = self.world.hub.rng
        skew = 0.0 if rng.random() < 0.5 else rng.uniform(-600.0, 600.0)
        self.world.start(name, skew=skew, limit=rng.choice([1, 2, 4]))

    def _work(self) -> None:
        rng, world = self.world.hub.rng, self.world
        args = {
            "seconds": rng.choice(self.shape.lengths),
            "heeds": rng.random() < 0.7,
            "fails": rng.choice([0, 0, 0, 1]),
            "snoozes": rng.choice([0, 0, 0, 1]),
        }
        options: dict[str, object] = {}
        if rng.random() < 0.5:
            options["schedule_in"] = rng.uniform(0.1, 8.0)
        kind = "sim.timed" if rng.random() < 0.2 else "sim.plain"
        if kind == "sim.timed":
            options["max_attempts"] = 2
            args["seconds"] = rng.choice([0.1, 1.9, 2.5])
        world.insert(args, worker=kind, **options)
        if rng.random() < 0.15 and world.server.job_ids and world.server.up:
            world.hub.after(rng.uniform(0, 3), self._cancel)

    def _cancel(self) -> None:
        if self.world.server.up and self.world.server.job_ids:
            self.world.cancel(self.world.hub.rng.randint(1, self.world.server.job_ids))

    def _storm(self) -> None:
        rng, rates = self.world.hub.rng, self.world.weather.rates
        scale = rng.choice([0.3, 1.0, 2.0])
        if self.shape.trips is not None:
            rates.trips = dict(self.shape.trips)
            return
        kinds = [fault for fault in Fault if rng.random() < 0.5]
        rates.trips = {fault: EACH_TRIP[fault] * scale for fault in kinds}
        if rng.random() < 0.4:
            rates.deaf = rng.choice([0.1, 0.5, 1.0])
        rates.late, rates.doubled = rng.choice([0.0, 0.2]), rng.choice([0.0, 0.2])

    def _episode(self) -> None:
        world, rng = self.world, self.world.hub.rng
        nodes = [node for node in world.nodes if not node.machine.dead]
        if not nodes:
            self._start("web.0")
            return
        # Leaders are where it hurts.
        leader = world.leader
        node = leader if leader is not None and rng.random() < 0.6 else rng.choice(nodes)
        rng.choice(self.shape.kinds or EPISODES)(self, node)


def _longest(row: Mapping[str, Any]) -> float:
    """Say how long a job may keep a queue that runs one at a time."""
    args = row["args"]
    runs = 1 + args.get("fails", 0) + args.get("snoozes", 0)
    return float(runs * args.get("seconds", 0.0))


Episode = Callable[[Story, Node], None]


def kill(story: Story, node: Node) -> None:
    """Kill it, and start another one later."""
    story.world.kill(node)
    name = node.machine.name.split("#")[0]
    story.world.hub.after(story.world.hub.rng.uniform(0.1, 15.0), story._start, name)


def freeze(story: Story, node: Node) -> None:
    """Stop it for a while."""
    story.world.stop(node, story.world.hub.rng.choice([1.0, 5.5, 8.0, 14.0, 20.0]))


def suspend(story: Story, node: Node) -> None:
    """Suspend its machine for a while."""
    story.world.stop(node, story.world.hub.rng.choice([3.0, 8.0, 20.0]), suspend=True)


def cut(story: Story, node: Node) -> None:
    """Cut its network for a while."""
    story.world.cut(node, story.world.hub.rng.choice([1.0, 4.0, 9.0, 18.0]))


def fail_over(story: Story, node: Node) -> None:
    """Let another server take over."""
    rng = story.world.hub.rng
    jump = rng.choice([0.0, 0.0, -4.0, 4.0])
    story.world.fail_over(rng.choice([0.1, 2.0, 10.0]), wipe=rng.random() < 0.5, jump=jump)


def freeze_long(story: Story, node: Node) -> None:
    """Let a node stand still for about as long as it takes to be taken for dead."""
    story.world.stop(node, story.world.hub.rng.uniform(settings.WATCH, settings.WATCH + 6.0))


def cut_long(story: Story, node: Node) -> None:
    """Cut a node off for longer than it takes to be taken for dead."""
    story.world.cut(node, story.world.hub.rng.uniform(settings.WATCH, 2 * settings.WATCH))


def outage(story: Story, node: Node) -> None:
    """Take the database away for longer than a watch lasts."""
    story.world.fail_over(story.world.hub.rng.uniform(settings.WATCH, settings.WATCH + 6.0))


def unlisten(story: Story, node: Node) -> None:
    """End the leader's session that listens, and that has the advisory lock."""
    server, node = story.world.server, story.world.leader or node
    for session in [each for each in server.sessions if each.machine is node.machine]:
        if session.channels:
            server.disconnect(session)


def freeze_in_duty(story: Story, node: Node) -> None:
    """Stop the leader within a duty, its lock free for others."""
    world, rng = story.world, story.world.hub.rng

    def strike() -> bool:
        leader = world.leader
        if leader is None or not world.server.doing(leader.machine, "stage"):
            return False
        unlisten(story, leader)
        world.stop(leader, rng.uniform(2.0, 4.5))
        return True

    _when(world, strike, world.hub.now + 3.0)


def freeze_unlocked(story: Story, node: Node) -> None:
    """Stop the leader for less than its lease lasts, its lock free for others."""
    leader = story.world.leader or node
    unlisten(story, leader)
    story.world.stop(leader, story.world.hub.rng.uniform(2.5, 4.5))


def thaw_in_rescue(story: Story, node: Node) -> None:
    """Stop a node, and let it go on right when it is rescued, by one that is stopped at that."""
    world = story.world
    world.stop(node, 3 * settings.WATCH)

    def strike() -> bool:
        for other in world.alive():
            if other is not node and world.server.doing(other.machine, "orphans"):
                world.stop(other, 1.0)
                world.thaw(node)
                return True
        return False

    soonest = settings.WATCH - 1.0
    world.hub.after(soonest, _when, world, strike, world.hub.now + soonest + 10.0)


def _when(world: World, strike: Callable[[], bool], until: float) -> None:
    """Try to strike after each statement, until it was done or is too late."""

    def watch() -> None:
        world.hub.after(0.0, attempt)

    def attempt() -> None:
        if watch in watchers and (world.hub.now >= until or strike()):
            watchers.remove(watch)

    watchers = world.server.after_statement
    watchers.append(watch)


def crash_in_insert(story: Story, node: Node) -> None:
    """Crash the server about when a host's insert is committed."""
    world, rng = story.world, story.world.hub.rng

    def strike() -> bool:
        if not world.server.doing(None, "insert"):
            return False
        world.hub.after(rng.uniform(0.0, 0.009), world.fail_over, 0.05)
        return True

    _when(world, strike, world.hub.now + 3.0)


def skew(story: Story, node: Node) -> None:
    """Set its clock."""
    node.machine.skew += story.world.hub.rng.uniform(-30.0, 30.0)


def deploy(story: Story, node: Node) -> None:
    """Stop it in order, and start another one."""
    story.world.say(node.machine.name, "is stopped in order")
    node.stop()
    name = node.machine.name.split("#")[0]
    story.world.hub.after(story.world.hub.rng.uniform(0.0, 3.0), story._start, name)


def wipe(story: Story, node: Node) -> None:
    """Crash the server, which loses its unlogged tables."""
    world = story.world
    world.say("server", "loses its unlogged tables")
    world.fail_over(0.05, wipe=True)


EPISODES: tuple[Episode, ...] = (
    kill,
    freeze,
    suspend,
    cut,
    fail_over,
    skew,
    deploy,
    wipe,
    freeze_in_duty,
    freeze_unlocked,
    crash_in_insert,
)

"""Nodes that are dead, and one that rescues: what the tests of the Lifeline work with."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from oban_actors import Beat, Job, Oban, PluginResult, Rescue
from oban_actors.actors import VirtualClock
from oban_actors.claim import Claimant
from oban_actors.engines import ProducerBeat
from oban_actors.plugins import Lifeline
from oban_actors.queues.roster import producer_uuid
from tests.support.events import Event, Recorder
from tests.support.instances import Starter, Tables
from tests.support.waiting import wait_until

PAGE = 100


@dataclass
class DeadNode:
    """A node that claims jobs and beats, as long as a test lets it.

    Attributes:
        oban: the instance through which it reaches the database.
        queue: what it serves.
        claimant: who it is.

    """

    oban: Oban
    queue: str
    claimant: Claimant

    def claim(self, limit: int = PAGE, now: datetime | None = None) -> list[Job]:
        """Claim jobs."""
        engine, at = self.oban._engine, now or self.oban.repo.now()
        return self.oban.repo.transaction(
            lambda c: engine.take_turn(c, self.claimant, self.queue, [], limit, at)
        ).jobs

    def beat(self) -> None:
        """Beat once."""
        beat = ProducerBeat(self.claimant, "i", "Oban", self.queue, 10, paused=False, running=0)
        engine = self.oban._engine
        self.oban.repo.transaction(lambda c: engine.beat(c, [beat], self.oban.repo.now()))


@dataclass
class Scene:
    """One instance with a Lifeline under a virtual clock, and the nodes beside it."""

    start: Starter
    clock: VirtualClock
    oban: Oban
    events: Recorder

    @property
    def tables(self) -> Tables:
        """The tables as another program sees them."""
        return self.start.tables

    def node(self, queue: str = "alpha", uuid: str | None = None) -> DeadNode:
        """Make a node; its uuid is one of ours by default."""
        return DeadNode(self.oban, queue, Claimant("web.9", uuid or producer_uuid()))

    def insert(self, count: int = 1, queue: str = "alpha", **options: Any) -> list[Job]:
        """Insert available jobs."""
        made = [Job.new(worker="tests.Worker", queue=queue, **options) for _ in range(count)]
        return self.oban.insert_all(made)

    def death(self) -> DeadNode:
        """Insert a job, and let a node beat, claim it and never be heard of again."""
        self.insert()
        dead = self.node()
        dead.beat()
        dead.claim()
        return dead

    def watch_beside(self, claimant: str) -> None:
        """Let two watches pass: a producer beats in each step, and only another one's job returns.

        Args:
            claimant: the uuid of the producer that lives.

        """
        self.insert(queue="beta")
        dead = self.node("beta")
        dead.beat()
        dead.claim()
        latest = "SELECT cast(beat_at AS text) FROM {producers} WHERE uuid = :uuid"
        beats, rescued = [], 0
        for _ in range(12):
            rescued += self.wait(10)[0]
            ((beat,),) = self.beats(latest, uuid=claimant)
            beats.append(beat)

        assert sorted(set(beats)) == beats
        assert rescued == 1

    def seconds_until_rescued(self, most: float) -> int:
        """Let time pass second by second, with all that falls due, until no job is claimed.

        Raises:
            AssertionError: one still is after that many seconds.

        """
        waited = 0
        while self.states() == ["executing"]:
            assert waited < most
            self.clock.advance(1)
            waited += 1
            self.settle()
        return waited

    def look(self) -> PluginResult:
        """Let the Lifeline look."""
        result = self.oban.ask(("plugin", "lifeline"), Rescue(), timeout=60)
        assert isinstance(result, PluginResult)
        return result

    def settle(self) -> None:
        """Wait until all that fell due is done: a beat, and the look that it carried."""
        for name in ("pulse", ("plugin", "lifeline")):
            # It has handled what its timer said before it answers anything else.
            ref = self.oban.whereis(name)
            assert ref is not None
            ref.proxy().actor_urn.get(timeout=30)

    def wait_for_ping(self) -> None:
        """Wait until the last ping is back, which a clock that jumps on would not give its time."""
        pulse = self.oban.whereis("pulse")
        assert pulse is not None
        proxy = pulse.proxy()
        wait_until(lambda: not proxy.proof.get(timeout=30).pending, message="the ping is back")

    def wait(self, seconds: float, step: float = 10.0, *nodes: DeadNode) -> tuple[int, int]:
        """Let time pass, with the beats and looks that fall due; those nodes beat too.

        Returns:
            how many jobs were rescued and discarded since this was asked last.

        """
        while seconds > 0:
            self.clock.advance(min(step, seconds))
            seconds -= step
            for node in nodes:
                node.beat()
            self.oban.ask("pulse", Beat(), timeout=30)
            self.look()
            self.wait_for_ping()
        return self.totals()

    def totals(self) -> tuple[int, int]:
        """How many jobs were rescued and discarded since this was asked last, by all looks."""

        def counts(event: Event) -> bool:
            return event.metadata["plugin"] is Lifeline and "rescued_count" in event.metadata

        told = [event.metadata for event in self.events.all("oban.plugin.stop", counts)]
        self.events.clear()
        return sum(m["rescued_count"] for m in told), sum(m["discarded_count"] for m in told)

    def states(self) -> list[str]:
        """The states of all jobs by id."""
        return [state for _, state in sorted(self.tables.states().items())]

    def producers(self) -> list[str]:
        """Name all that have a row."""
        table = self.tables.jobs.replace("oban_jobs", "oban_actors_producers")
        return [row[0] for row in self.tables.execute(f"SELECT uuid FROM {table}")]

    def beats(self, statement: str, **values: Any) -> list[Any]:
        """Run a statement on the table of producers, `{producers}`."""
        table = self.tables.jobs.replace("oban_jobs", "oban_actors_producers")
        return self.tables.execute(statement.replace("{producers}", table), **values)


def scene(start: Starter, events: Recorder, *, leader: str | None = None, **options: Any) -> Scene:
    """Start an instance that rescues and does nothing else.

    Args:
        start: makes it.
        events: hears what its Lifeline does.
        leader: who leads, and goes on to; default nobody.
        **options: the instance's and the Lifeline's.

    """
    names = ("interval", "rescue_after", "watch", "limit")
    given = {name: options.pop(name) for name in names if name in options}
    clock = VirtualClock()
    peer: Any = {"advisory_lock": False} if leader else False
    options = {"peer": peer, "stager": None} | options
    oban = start.make(clock=clock, plugins=[Lifeline(**given)], **options)
    if leader:
        kind = "timestamp" if start.tables.schema else "text"
        start.tables.execute(
            "INSERT INTO {peers} (name, node, started_at, expires_at) "
            f"VALUES ('Oban', :node, cast(:at AS {kind}), cast(:at AS {kind}))",
            node=leader,
            at="2999-01-01T00:00:00.000000",
        )
    oban.start()
    return Scene(start, clock, oban, events)

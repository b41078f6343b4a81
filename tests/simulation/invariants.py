"""What must hold after every step, whatever goes wrong."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from oban_actors.claim import Claim
from oban_actors.peers.identity import LOCKED, owner
from tests.simulation import node as settings
from tests.simulation.database import Row, Server, Transaction
from tests.simulation.machine import Machine
from tests.simulation.node import Node

FINAL = ("completed", "discarded", "cancelled")

TELLING = 2 * settings.PULSE + 6.0
"""Seconds in which a node that was stopped is told that its jobs are another's."""

MOST_MESSAGES = 1_000
MOST_TIMERS = 400


class Violation(AssertionError):
    """Something happened that must not."""


@dataclass(slots=True, eq=False)
class Run:
    """One run of a job."""

    machine: Machine
    claim: Claim
    began: float


@dataclass(slots=True)
class Checks:
    """Checks every commit and every run.

    Attributes:
        server: the database.
        nodes: all that were started.
        confused_until: until when two may believe that they lead, since the table was emptied or
            the server's clock jumped; what they do is checked all the same.
        inserted: ids of the jobs that were committed, and `confirmed` of those of which a host
            was told so; `gone` the rows that were deleted when they were old.

    """

    server: Server
    nodes: list[Node]
    confused_until: float = 0.0
    inserted: set[int] = field(default_factory=set)
    confirmed: set[int] = field(default_factory=set)
    gone: dict[int, Row] = field(default_factory=dict)
    runs: dict[int, list[Run]] = field(default_factory=dict)
    crons: dict[str, int] = field(default_factory=dict)
    started: dict[int, float] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    _terms: dict[datetime, str] = field(default_factory=dict)
    _finished: set[tuple[Any, ...]] = field(default_factory=set)
    _completed: set[int] = field(default_factory=set)
    _beats: dict[str, float] = field(default_factory=dict)
    _marked: dict[str, bool] = field(default_factory=dict)

    # Commits

    def commit(self, made: Transaction) -> None:
        """Check what a transaction does, right before it is true."""
        if ("oban_peers", "Oban") in made.writes:
            lease = made.writes["oban_peers", "Oban"]
            marked = lease is not None and lease["node"].endswith(LOCKED)
            self._marked[made.session.machine.name] = marked
        for kind, *what in made.notes:
            self.counts[kind] = self.counts.get(kind, 0) + 1
            check: Callable[..., None] | None = _CHECKS.get(kind)
            if check is not None:
                check(self, made, *what)

    def staged(self, made: Transaction, machine: str, count: int) -> None:
        """No two leaders act in one term, and nobody acts who does not lead."""
        self._led(made, machine)

    def _led(self, made: Transaction, machine: str) -> None:
        row = self.server.tables["oban_peers"].get("Oban")
        node = self._node(made.session.machine)
        if row is None or owner(row["node"]) != node.identity:
            holder = None if row is None else row["node"]
            raise Violation(f"{machine} acted as leader while {holder} held the lease")
        if self._terms.setdefault(row["started_at"], machine) != machine:
            raise Violation(f"two leaders acted in one term, the second was {machine}")

    def acknowledged(
        self, made: Transaction, job_id: int, fence: datetime, uuid: str, state: str
    ) -> None:
        """No job is recorded finished twice, nor by a stale claim."""
        row = self.server.tables["oban_jobs"].get(job_id)
        if row is None or (row["attempted_at"], row["uuid"]) != (fence.replace(tzinfo=None), uuid):
            raise Violation(f"a stale claim recorded job {job_id} as {state}")
        if (job_id, fence, uuid) in self._finished or job_id in self._completed:
            raise Violation(f"job {job_id} was recorded twice, now as {state}")
        self._finished.add((job_id, fence, uuid))
        if state == "completed":
            self._completed.add(job_id)

    def claimed(self, made: Transaction, job_id: int, fence: datetime, uuid: str) -> None:
        """What is claimed was available."""
        row = self.server.tables["oban_jobs"].get(job_id)
        if ("release", job_id, uuid) in made.notes:
            return  # given back a statement before
        if row is None or row["state"] != "available" or job_id in self._completed:
            raise Violation(f"job {job_id} was claimed while {row and row['state']}")

    def released(self, made: Transaction, job_id: int, uuid: str) -> None:
        """What runs is not given back."""
        for run in self._active(job_id):
            if run.claim.job.attempted_by[1] == uuid:
                raise Violation(f"job {job_id} was given back while it ran")

    def rescued(self, made: Transaction, job_id: int, uuid: str) -> None:
        """Nobody alive is rescued: who has shown that it lives, or had not the time of a watch."""
        since = max(self._beats.get(uuid, 0.0), self.server.up_since)
        if self.server.hub.now - since < settings.WATCH:
            ago = self.server.hub.now - since
            raise Violation(f"job {job_id} was rescued though its producer lived {ago:.3f} s ago")

    def beat(self, made: Transaction, uuid: str) -> None:
        """Note that a producer lives."""
        self._beats[uuid] = self.server.hub.now

    def inserted_one(self, made: Transaction, job_id: int, cron_at: str | None, _: str) -> None:
        """No cron run is inserted twice."""
        if cron_at is not None and cron_at in self.crons:
            raise Violation(f"the cron run of {cron_at} was inserted twice")
        if cron_at is not None:
            self.crons[cron_at] = job_id
            self.counts["cron"] = self.counts.get("cron", 0) + 1
        self.inserted.add(job_id)

    def pruned(self, made: Transaction, job_id: int, age: float) -> None:
        """Nothing goes but what has ended, and was kept for as long as it should be."""
        row = self.server.tables["oban_jobs"].get(job_id)
        if row is None or row["state"] not in FINAL:
            raise Violation(f"job {job_id} was deleted while {row and row['state']}")
        kept = (self.server.clock() - row["done_at"]).total_seconds()
        if kept < age or age != settings.KEPT:
            raise Violation(f"job {job_id} was kept for {kept:.3f} s only")
        self._led(made, made.session.machine.name)
        self.gone[job_id] = row

    # Runs

    def began(self, machine: Machine, claim: Claim) -> None:
        """No job runs twice at once, unless its first node could not know."""
        self.started.setdefault(claim.id, self.server.hub.now)
        for run in self._active(claim.id):
            if run.claim is not claim and not self._excused(run):
                raise Violation(f"job {claim.id} runs on {run.machine.name} and {machine.name}")
        self.runs.setdefault(claim.id, []).append(Run(machine, claim, self.server.hub.now))

    def ended(self, machine: Machine, claim: Claim) -> None:
        """Forget a run that is over."""
        self.runs[claim.id] = [run for run in self.runs[claim.id] if run.claim is not claim]

    def _active(self, job_id: int) -> Iterable[Run]:
        return (run for run in self.runs.get(job_id, ()) if not run.machine.dead)

    def _excused(self, run: Run) -> bool:
        # Who is only cut off knows before others do that it is lost.
        machine, now = run.machine, self.server.hub.now
        told = run.claim.running.cancelled or self._node(machine).stopping
        return told or machine.still or now - machine.thawed_at < TELLING

    # At any time

    def believe(self) -> None:
        """Check what the nodes believe: two never do that they lead."""
        leading = [node for node in self.nodes if node.leads]
        if len(leading) < 2:
            return
        leading = [node for node in leading if node in self._awake()]
        if len(leading) < 2 or self.server.hub.now <= self.confused_until:
            return
        # Whose lock went with its session may be followed at once: it hears of that later, and
        # can't act any more.
        leaders = [node.machine.name for node in leading if not self._apart(node)]
        if len(leaders) > 1:
            raise Violation(f"{' and '.join(leaders)} believe that they lead")

    def look(self) -> None:
        """Check what the nodes keep, and that no job is gone."""
        for node in self._awake():
            self._bounded(node)
        jobs = self.server.tables["oban_jobs"]
        if missing := (self.inserted | self.confirmed) - self.gone.keys() - jobs.keys():
            raise Violation(f"jobs were lost: {sorted(missing)}")

    def _awake(self) -> list[Node]:
        return [node for node in self.nodes if not node.machine.dead and not node.machine.still]

    def _apart(self, node: Node) -> bool:
        # As its row has it: that it was marked a node may not know, where the answer was lost.
        holders = [session.machine for session in self.server.advisory.values()]
        return self._marked.get(node.machine.name, False) and node.machine not in holders

    def _bounded(self, node: Node) -> None:
        if node.runtime is None:
            return
        for name, ref in node.runtime.registry.names().items():
            if len(ref.actor_inbox) > MOST_MESSAGES:  # type: ignore[arg-type]  # ours has a length
                raise Violation(f"the inbox of {name} on {node.machine.name} only grows")
        timers: Any = node.runtime.timers
        if timers.count > MOST_TIMERS:
            raise Violation(f"{timers.count} timers wait on {node.machine.name}")

    def unfinished(self) -> list[dict[str, Any]]:
        """List the jobs that are not over."""
        rows = self.server.tables["oban_jobs"].values()
        return [row for row in rows if row["state"] not in FINAL]

    def _node(self, machine: Machine) -> Node:
        return next(node for node in self.nodes if node.machine is machine)


_CHECKS: dict[str, Callable[..., None]] = {
    "stage": Checks.staged,
    "ack": Checks.acknowledged,
    "claim": Checks.claimed,
    "release": Checks.released,
    "rescue": Checks.rescued,
    "beat": Checks.beat,
    "insert": Checks.inserted_one,
    "prune": Checks.pruned,
}

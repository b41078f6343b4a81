"""Guards taken away, one at a time: the simulation has to see what they were for.

Each takes a guard from the package's own code, or from the model where the guard is SQL.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any
from unittest import mock

from oban_actors import passes, pulse, stager
from oban_actors.messages import Stage
from oban_actors.peers import database as peer
from oban_actors.peers import lease, statements
from oban_actors.plugins.watch import Watch
from oban_actors.queues.roster import Roster
from oban_actors.queues.turning import Turns
from oban_actors.repo import commits, transactions
from oban_actors.staging import Pace
from tests.simulation import job_store, node, plan
from tests.simulation.cron_store import CronStore
from tests.simulation.faults import Fault
from tests.simulation.plan import Shape
from tests.simulation.producer_store import ProducerStore

Patches = list[tuple[Any, str, Any]]


@dataclass(frozen=True, slots=True)
class Mutation:
    """A guard that is taken away.

    Attributes:
        name: which.
        make: makes what takes it away.
        seen: a part of what the simulation then says.
        shape: a story in which it is needed.

    """

    name: str
    make: Callable[[], Patches]
    seen: str
    shape: Shape = field(default_factory=Shape)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Take it away for a while."""
        with ExitStack() as stack:
            for owner, name, value in self.make():
                stack.enter_context(mock.patch.object(owner, name, value, create=name == "unsure"))
            yield


# What is taken away


def _always(value: Any) -> Callable[..., Any]:
    return lambda *_, **__: value


def _from_sql(*parts: str) -> Callable[[], Patches]:
    def make() -> Patches:
        run = statements.LeaseTable._run

        def changed(table: Any, connection: Any, sql: str, now: Any, **known: Any) -> Any:
            for part in parts:
                sql = sql.replace(part, "")
            return run(table, connection, sql, now, **known)

        return [(statements.LeaseTable, "_run", changed)]

    return make


def _names() -> Patches:
    def named(config: Any) -> str:
        return f"{config.node}/oban_actors:same"

    return [(module, "row_identity", named) for module in (peer, statements, stager, node)]


def _kept() -> Patches:
    def failed(held: lease.Lease, now: float, *, missing: bool = False) -> lease.Step:
        return lease.Step(replace(held, acted_at=now, wake_at=now + 0.5))

    return [(lease.Lease, "failed", failed), (lease.Lease, "leads", _believes)]


def _believes(held: lease.Lease, now: float) -> bool:
    return held.held is not None


def _sure() -> Patches:
    never = property(_always(False), _always(None))
    return [(Turns, "unsure", never)]


def _unlocked(store: Any, connection: Any, name: str, entries: Any, now: Any) -> Any:
    return store.read_crons(connection, name, entries, now)


def _forgetting() -> Patches:
    def restore(roster: Roster) -> None:
        roster._taken = []

    return [(Roster, "restore", restore)]


def _crashing() -> Patches:
    def note(actor: peer.DatabasePeer, error: Any) -> None:
        if error is not None:
            raise RuntimeError("a database that is away is taken for a bug") from error

    return [(peer.DatabasePeer, "_note", note)]


def _piling() -> Patches:
    def arm(actor: stager.Stager, seconds: float) -> None:
        actor._timer = actor.send_after(Stage(), seconds)

    return [(stager.Stager, "_arm", arm)]


def _believing() -> Patches:
    def fate(connection: Any, trace: commits.Trace) -> commits.Fate:
        return commits.fate(connection, replace(trace, stands=_always(True)))

    return [(transactions, "fate", fate)]


STILL = Shape(kinds=(plan.freeze, plan.suspend), storm=0.3, episodes=6)
SEIZED = Shape(kinds=(plan.freeze_unlocked, plan.wipe), storm=0.0, episodes=12)
ASLEEP = Shape(kinds=(plan.suspend,), storm=0.0, episodes=6)
LOSSES = Shape(storm=1.0, episodes=1, trips={Fault.LOST_AFTER: 0.1, Fault.LOST_BEFORE: 0.05})
OUTAGES = Shape(kinds=(plan.outage,), storm=0.0, episodes=3, seconds=40.0)
DEATHS = Shape(seconds=45.0, kinds=(plan.freeze_long,), storm=0.0, episodes=4, lengths=(3.0, 8.0))
APART = Shape(kinds=(plan.freeze, plan.suspend, plan.cut), episodes=6)
CRASHES = Shape(
    kinds=(plan.crash_in_insert,), jobs=60, lengths=(0.01,), storm=0.0, episodes=40, proves=0.0
)
MINUTES = Shape(seconds=35.0, jobs=4, storm=0.0, episodes=2)

MUTATIONS = (
    Mutation(
        "an acknowledgement has no fence",
        lambda: [(job_store, "is_claim_of", _always(True))],
        "stale claim",
        DEATHS,
    ),
    Mutation(
        "a lease is trusted without end",
        lambda: [(lease.Lease, "leads", _believes)],
        "believe that they lead",
        STILL,
    ),
    Mutation(
        "the lease's clock stands still while the machine sleeps",
        lambda: [(peer.DatabasePeer, "_now", lambda actor: actor.runtime.clock.monotonic())],
        "believe that they lead",
        ASLEEP,
    ),
    Mutation("an election that failed concedes nothing", _kept, "believe that they lead", APART),
    Mutation("a node is known by its host's name", _names, "lead", APART),
    Mutation(
        "a renewal looks at the instance's name only",
        _from_sql(
            "AND node IN (:plain, :locked) AND started_at = :term AND expires_at = :written "
            "AND expires_at > clock.now "
        ),
        "lead",
        SEIZED,
    ),
    Mutation(
        "a duty does not hold the lease",
        _from_sql("FOR KEY SHARE OF peers"),
        "acted as leader",
        Shape(kinds=(plan.freeze_in_duty,), storm=0.0),
    ),
    Mutation(
        "a duty does not read the lease",
        lambda: [(passes, "holds_lease", _always(True))],
        "acted as leader",
        SEIZED,
    ),
    Mutation(
        "the watch does not begin anew",
        lambda: [
            (Watch, "_unbroken", _always(True)),
            (Watch, "broken", lambda watch: watch),
        ],
        "was rescued though",
        OUTAGES,
    ),
    Mutation(
        "a rescue does not look at the beat again",
        lambda: [(ProducerStore, "hold_producer", _always(True))],
        "was rescued though",
        replace(DEATHS, kinds=(plan.thaw_in_rescue,), episodes=2, lengths=(8.0,)),
    ),
    Mutation(
        "a node that can't beat lets its jobs run",
        lambda: [(pulse, "LOST_AFTER", 1e9), (pulse, "LOST_BEATS", 1e9)],
        "runs on",
        Shape(kinds=(plan.cut_long,), storm=0.0, episodes=4, seconds=40.0, jobs=4, lengths=(20.0,)),
    ),
    Mutation(
        "cron's marks are not locked",
        lambda: [(CronStore, "lock_crons", _unlocked)],
        "inserted twice",
        MINUTES,
    ),
    Mutation(
        "cron's marks are not written",
        lambda: [(CronStore, "mark_crons", _always(None))],
        "inserted twice",
        MINUTES,
    ),
    Mutation("lost answers of fetches are not looked for", _sure, "no end", LOSSES),
    Mutation("lost acknowledgements are not written again", _forgetting, "no end", LOSSES),
    Mutation(
        "a producer forgets what it holds",
        lambda: [(Roster, "held", _always([]))],
        "while it ran",
        LOSSES,
    ),
    Mutation("a failing database crashes an actor", _crashing, "crashed", OUTAGES),
    Mutation("a COMMIT is believed for its id alone", _believing, "were lost", CRASHES),
    Mutation("timers pile up", _piling, "timers wait", LOSSES),
    Mutation(
        "the stager sleeps as long as it likes",
        lambda: [(Pace, "next_delay", _always(3600.0))],
        "no end",
        Shape(episodes=1, storm=0.0, jobs=8, lengths=(0.01,)),
    ),
)

"""A node: a whole real tree, started on a machine as `Oban` does it."""

from collections.abc import Callable
from functools import lru_cache
from typing import Any, cast

from oban_actors import instance
from oban_actors.actors import Exit, Reason, Runtime, StartFailed, send
from oban_actors.announcing import Announcer
from oban_actors.claim import Claim
from oban_actors.config import Config
from oban_actors.estate import Estate
from oban_actors.inserting import Inserter
from oban_actors.messages import Watch
from oban_actors.notifiers import make_publisher
from oban_actors.peers import row_identity
from oban_actors.peers.lease import Lease
from oban_actors.performing import Performer
from oban_actors.plugins import Cron, Lifeline, Pruner
from oban_actors.queues.parts import Parts
from tests.simulation.client import Place, SimRepo
from tests.simulation.crew import Observer, SimWorkforce
from tests.simulation.cron_store import CronStore
from tests.simulation.job_store import JobStore
from tests.simulation.machine import Machine
from tests.simulation.producer_store import ProducerStore
from tests.simulation.prune_store import PruneStore
from tests.simulation.seams import SimTimers

LEASE = 6.0
RENEW = 2.0
STAGER = 1.0
PULSE = 2.0
WATCH = 14.0
LOOKS = 3.0
KEPT = 8.0
"""Seconds for which a job that has ended is kept."""

GRACE = 3.0
STATEMENT = 2.0
"""Seconds; a beat that hangs has to be given up in time for the next ones to do so."""

START_AGAIN = 2.0
"""Seconds after which the host starts a tree anew that did not start."""


class SimEngine(JobStore, ProducerStore, CronStore, PruneStore):
    """The model of `PostgresEngine`, as far as the tree uses it."""


def _incomplete(*_: Any) -> bool:
    return False  # no worker here completes its job by itself


@lru_cache(maxsize=1)
def plugins() -> tuple[Any, ...]:
    """Make the plugins once: parsing cron expressions takes long."""
    crontab = [("* * * * *", "sim.cron", {"missed": "all", "queue": "alpha"})]
    pruner = Pruner(interval=LOOKS, max_age=KEPT)
    return Lifeline(interval=LOOKS, watch=WATCH), Cron(crontab=crontab), pruner


class Node:
    """A node.

    Args:
        machine: where it runs.
        place: its way to the database.
        observer: told of the runs of jobs.
        ended: called when the tree has ended by itself.
        limit: most jobs that run at once.

    """

    def __init__(
        self,
        machine: Machine,
        place: Place,
        observer: Observer,
        ended: Callable[["Node", Reason], None],
        limit: int,
    ) -> None:
        self.machine = machine
        self.place = place
        self.observer = observer
        self.ended = ended
        self.limit = limit
        self.stopping = False
        self.runtime: Runtime | None = None
        self.inserter: Inserter | None = None
        self.identity = ""
        self.workforce: SimWorkforce | None = None
        machine.hub.spawn(machine, self._boot)

    def stop(self) -> None:
        """Begin to end in order."""
        self.stopping = True
        root = None if self.runtime is None else self.runtime.registry.whereis("oban")
        if root is not None:
            send(root, Exit())

    def actor(self, name: Any) -> Any:
        """Give the actor that has a name now, None for nobody."""
        ref = None if self.runtime is None else self.runtime.registry.whereis(name)
        return None if ref is None else ref._actor_weakref()

    @property
    def lease(self) -> Lease | None:
        """What its Peer knows."""
        peer = self.actor("peer")
        return None if peer is None else cast("Lease", peer._lease)

    @property
    def leads(self) -> bool:
        """Whether it believes that it leads; asked after each step, so the quick way first."""
        ref = None if self.runtime is None else self.runtime.registry._names.get("peer")
        peer = None if ref is None else cast("Any", ref)._actor_weakref()
        if peer is None or peer._lease.held is None:
            return False
        return ref.is_alive() and bool(peer._lease.leads(peer._now()))

    @property
    def alive(self) -> bool:
        """Whether its tree runs."""
        return not self.machine.dead and self.actor("oban") is not None

    def _boot(self) -> None:
        while not self.stopping:
            try:
                self._start()
            except StartFailed:
                self.machine.hub.sleep(START_AGAIN)
            else:
                return

    def _start(self) -> None:
        config = Config.build(
            node=self.machine.name.split("#")[0],
            clock=self.machine,
            stager={"interval": STAGER, "limit": 20},
            peer={"lease": LEASE, "renew": RENEW},
            pulse={"interval": PULSE},
            queues={"alpha": self.limit},
            plugins=plugins(),
            shutdown_grace_period=GRACE,
            statement_timeout=STATEMENT,
            lock_timeout=1.5,
        )
        repo = SimRepo(config, self.place)
        runtime = self.runtime = Runtime(self.machine)
        runtime.timers = cast("Any", SimTimers(self.machine, runtime.registry))
        engine = cast("Any", SimEngine())
        publisher = make_publisher(config, runtime.registry, "postgresql")
        self.inserter = Inserter(config, repo, engine, publisher)
        self.identity = row_identity(config)
        performer = Performer(config, watch=self._watch)
        workforce = SimWorkforce(config, performer, self.machine, self.observer)
        self.workforce = workforce
        announcer = Announcer(config, publisher)
        parts = Parts(config, repo, engine, workforce, _incomplete, announcer)
        instance.Instance.start(
            cast("Any", instance.children(parts, publisher, self.inserter)),
            config,
            Estate(config, repo, runtime.timers, workforce),
            name="oban",
            runtime=runtime,
            on_exit=lambda reason: self.ended(self, reason),
        )

    def _watch(self, claim: Claim) -> None:
        assert self.runtime is not None
        foreman = self.runtime.registry.whereis(("foreman", claim.job.queue))
        if foreman is not None:
            send(foreman, Watch(claim))

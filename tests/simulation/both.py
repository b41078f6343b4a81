"""Both stores: the same call on a real PostgreSQL and on the model, and what each answers."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, cast

from oban_actors.claim import Claimant
from oban_actors.engines import JobEngine
from oban_actors.repo import Repo
from tests.engines.conftest import Store
from tests.simulation.client import Place, SimRepo
from tests.simulation.database import Server
from tests.simulation.faults import Weather
from tests.simulation.hosting import hosted
from tests.simulation.hub import Hub
from tests.simulation.machine import Machine
from tests.simulation.node import SimEngine

CLAIMANTS = [Claimant("web.1", f"00000000-0000-8000-8000-00000000000{each}") for each in (1, 2)]
ERROR = {"at": "2026-11-24T12:00:00.000000Z", "attempt": 1, "error": "boom"}

Work = Callable[[Repo, JobEngine, bool], Any]
"""What is done with one of them; it is told whether that is the model."""


@dataclass(slots=True)
class Both:
    """Makes the same call on the real store and on the model's.

    Attributes:
        real: the real one's repo and engine, and `model` the model's.
        hub: the model's time.
        ids: of the jobs in both, side by side.

    """

    real: tuple[Repo, JobEngine]
    model: tuple[Repo, JobEngine]
    hub: Hub
    ids: list[tuple[int, int]] = field(default_factory=list)

    def call(self, name: str, *arguments: Any) -> tuple[Any, Any]:
        """Call a method of both."""
        return self.each(lambda repo, engine, _: self.on(repo, engine, name, *arguments))

    def each(self, work: Work) -> tuple[Any, Any]:
        """Do something with both."""
        real = work(*self.real, False)
        found: list[Any] = []
        machine = Machine(self.hub, "web")
        self.hub.spawn(machine, lambda: found.append(work(*self.model, True)))
        until = self.hub.now + 10.0
        while not found and self.hub.now < until:
            self.hub.run(self.hub.now + 0.1)
        return real, found[0]

    def on(self, repo: Repo, engine: JobEngine, name: str, *arguments: Any) -> Any:
        """Call a method within a transaction."""
        return repo.transaction(lambda connection: getattr(engine, name)(connection, *arguments))

    def same(self, real: Sequence[int], model: Sequence[int]) -> bool:
        """Whether these are the same jobs."""
        names = dict(self.ids)
        return [names[each] for each in real] == list(model)


@contextmanager
def beside(store: Store, seed: int) -> Iterator[Both]:
    """Put a model beside a real store, as empty as that is."""
    hub = Hub(seed)
    with hosted(hub):
        place = Place(Machine(hub, "web"), Server(hub), Weather(hub), lambda: None, lambda _: None)
        model = SimRepo(store.repo.config, place)
        engine = cast("JobEngine", SimEngine())
        try:
            yield Both((store.repo, store.engine), (model, engine), hub)
        finally:
            hub.end()

"""Reader: what is read of running instances when somebody asks for metrics."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from oban_actors.errors import NoProcess
from oban_actors.metrics import catalogue
from oban_actors.metrics.ages import Ages
from oban_actors.metrics.catalogue import Metric
from oban_actors.metrics.recorder import Recorder
from oban_actors.oban import Oban, instances

MOST_ACTORS = 500
"""Actors of an instance that are told."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One figure.

    Attributes:
        metric: of what.
        value: how much.
        labels: their values, in the metric's order.

    """

    metric: Metric
    value: float
    labels: tuple[str, ...]


@dataclass(slots=True)
class _Actor:
    inbox: int = 0
    oldest: float = 0.0
    restarts: int = 0


@dataclass
class Reader:
    """Reads the trees that run in this program, and at most every ten seconds their queues' ages.

    Args:
        recorder: knows who leads, and gives the labels.
        name: of the only instance to be read; None: all.

    """

    recorder: Recorder
    name: str | None = None
    ages: Ages = field(default_factory=Ages)

    def read(self) -> Iterator[Sample]:
        """Give all there is; asks no actor.

        Several instances of one name, with a prefix each, are shown as one.
        """
        found: dict[tuple[str, tuple[str, ...]], Sample] = {}
        for one in self._all():
            key = one.metric.name, one.labels
            other = found.get(key)
            found[key] = one if other is None else _both(one, other)
        yield from found.values()

    def _all(self) -> Iterator[Sample]:
        for oban in instances():
            if oban.alive and self.name in (None, oban.config.name):
                yield from self._actors(oban)
                leads = self.recorder.leads.get(oban.config.identity, False)
                yield Sample(catalogue.LEADER, float(leads), (oban.config.name,))
                yield Sample(catalogue.ABANDONED, oban.abandoned, (oban.config.name,))
                yield from self._queues(oban)

    def _queues(self, oban: Oban) -> Iterator[Sample]:
        ages: dict[str, float] = {}
        for queue, age in self.ages.read(oban).items():
            label = self.recorder.labels.queue(queue)
            ages[label] = max(age, ages.get(label, 0.0))
        for label, age in ages.items():
            yield Sample(catalogue.AGE, age, (oban.config.name, label))

    def _actors(self, oban: Oban) -> Iterator[Sample]:
        try:
            tree = oban.tree()
        except NoProcess:
            return
        actors: dict[str, _Actor] = {}
        for node in tree.walk():
            if node.actor not in actors and len(actors) >= MOST_ACTORS:
                continue
            one = actors.setdefault(node.actor, _Actor())
            one.inbox += node.inbox
            one.oldest = max(one.oldest, node.oldest or 0.0)
            one.restarts += node.restarts
        for actor, one in actors.items():
            place = (oban.config.name, actor)
            yield Sample(catalogue.INBOX, one.inbox, place)
            yield Sample(catalogue.OLDEST, one.oldest, place)
            yield Sample(catalogue.RESTARTS, one.restarts, place)


def _both(one: Sample, other: Sample) -> Sample:
    added = one.metric in (catalogue.INBOX, catalogue.RESTARTS, catalogue.ABANDONED)
    values = one.value, other.value
    return replace(one, value=sum(values) if added else max(values))

"""Whose jobs are to be rescued: decided from a look and the watch, without the database."""

from collections.abc import Mapping
from dataclasses import dataclass

from oban_actors.engines.rescue import ProducerReport
from oban_actors.plugins.watch import Watch
from oban_actors.queues.roster import is_ours


@dataclass(frozen=True, slots=True)
class Orphans:
    """Jobs that one claimant has left.

    Attributes:
        uuid: the claimant's; None where rows name none.
        queues: where they are.
        beat: the last one that was seen, None for none; of producers that beat.
        age: seconds for which they have been claimed; None for those of producers that beat.

    """

    uuid: str | None
    queues: tuple[str, ...]
    beat: str | None = None
    age: float | None = None

    @property
    def producer(self) -> str | None:
        """The uuid of a producer that did beat, or should have; None for others' claims."""
        return self.uuid if self.age is None else None


def beats_of(report: ProducerReport) -> dict[str, str | None]:
    """Give the last beats of all producers of ours: None for those with claims but no row."""
    absent = {
        group.uuid
        for group in report.claims
        if isinstance(group.uuid, str) and group.uuid not in report.beats and is_ours(group.uuid)
    }
    return {**report.beats, **dict.fromkeys(absent)}


def orphans_of(
    report: ProducerReport,
    watch: Watch,
    tried: Mapping[Orphans, int],
    *,
    age: float,
    lag: float = 0.0,
) -> list[Orphans]:
    """Say whose jobs are to be rescued, and in which order.

    The longest dead come first, then claims that are given up by age; but whoever was tried before
    and could not be settled stands behind all others.

    Args:
        report: the last look.
        watch: after it.
        tried: when each was tried last, in any numbers that go up.
        age: seconds after which claims are given up whose claimants don't beat.
        lag: see `Watch.dead`.

    """
    queues: dict[str, list[str]] = {}
    aged = []
    for group in report.claims:
        if group.uuid is not None and group.uuid in watch.suspects:
            queues.setdefault(group.uuid, []).append(group.queue)
        elif group.aged:
            aged.append(Orphans(group.uuid, (group.queue,), age=age))
    dead = [
        Orphans(uuid, tuple(sorted(queues.get(uuid, ()))), watch.suspects[uuid].beat)
        for uuid in watch.dead(lag)
    ]
    return sorted([*dead, *aged], key=lambda each: tried.get(each, -1))

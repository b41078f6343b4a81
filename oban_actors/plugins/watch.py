"""The watch over producers: which are dead, decided from what looks at the database have shown.

A producer is dead if the watcher itself has seen its beat unchanged, or absent, for a whole watch
of unbroken contact with the database. So nobody is taken for dead because the database was away,
or because the watcher was: then the watch begins anew.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

GAPS = 3.0
"""How often the watcher has to look within a watch: contact that is thinner is broken."""


@dataclass(frozen=True, slots=True)
class Sighting:
    """What one look has shown.

    Attributes:
        began: seconds on the boot clock before the look.
        ended: likewise after it.
        server: which run of which server answered.
        beats: the last beat of each producer as it stands in the table, whatever it is, or None
            where the producer has claims but no row.

    """

    began: float
    ended: float
    server: str
    beats: Mapping[str, str | None]


@dataclass(frozen=True, slots=True)
class Suspect:
    """A producer, and since when its beat has been the same.

    Attributes:
        beat: as it was seen first.
        since: seconds on the boot clock, when the look that saw it first was over.

    """

    beat: str | None
    since: float


@dataclass(frozen=True, slots=True)
class Watch:
    """What a watcher knows of all producers; every living one is suspected until its next beat.

    Attributes:
        time: seconds for which a dead producer's beat was seen unchanged.
        suspects: by the producers' uuids.
        server: which one was looked at last.
        began: when the last look began, on the boot clock.
        ended: when it was over; None while there is no contact.

    """

    time: float
    suspects: Mapping[str, Suspect] = field(default_factory=dict)
    server: str = ""
    began: float = 0.0
    ended: float | None = None

    @property
    def gap(self) -> float:
        """Seconds between two looks at most, or contact was broken."""
        return self.time / GAPS

    def looked(self, sighting: Sighting) -> "Watch":
        """Take note of a look."""
        known = self.suspects if self._unbroken(sighting) else {}
        suspects = {}
        for uuid, beat in sighting.beats.items():
            suspect = known.get(uuid)
            if suspect is None or suspect.beat != beat:
                suspect = Suspect(beat, sighting.ended)
            suspects[uuid] = suspect
        return Watch(self.time, suspects, sighting.server, sighting.began, sighting.ended)

    def broken(self) -> "Watch":
        """Begin anew: a look failed, or what followed from it."""
        return replace(self, suspects={}, ended=None)

    def fresh(self, now: float) -> bool:
        """Whether what was decided by the last look may still be done."""
        return self.ended is not None and now - self.ended <= self.gap

    def dead(self, lag: float = 0.0) -> list[str]:
        """Name the dead, the longest dead first.

        Args:
            lag: seconds more that the watcher waits, to let another one go first.

        """
        since = {
            uuid: suspect.since
            for uuid, suspect in self.suspects.items()
            # From the end of the first look to the begin of the last one: what lies between.
            if self.began - suspect.since >= self.time + lag
        }
        return sorted(since, key=lambda uuid: since[uuid])

    def due_in(self, now: float, lag: float = 0.0) -> float | None:
        """Say in how many seconds a look could find another one dead; None: nobody is watched."""
        dead = set(self.dead(lag))
        dues = [
            suspect.since + self.time + lag - now
            for uuid, suspect in self.suspects.items()
            if uuid not in dead
        ]
        return max(0.0, min(dues)) if dues else None

    def _unbroken(self, sighting: Sighting) -> bool:
        if self.ended is None or sighting.server != self.server:
            return False
        return sighting.ended - self.ended <= self.gap

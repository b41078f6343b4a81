"""What can go wrong between a client and the server, drawn anew for each round trip."""

from dataclasses import dataclass, field
from enum import Enum, auto

from tests.simulation.hub import Hub
from tests.simulation.machine import Machine


class Fault(Enum):
    """What happens to one round trip."""

    LOST_BEFORE = auto()
    """The connection breaks before the server hears of it."""
    LOST_AFTER = auto()
    """The server does it, and the connection breaks before the answer."""
    SLOW = auto()
    """The server takes seconds."""
    SILENT = auto()
    """Nothing comes back; the server never heard of it, nor that the client is gone."""
    SILENT_AFTER = auto()
    """Nothing comes back, though the server did it."""
    CONFLICT = auto()
    """The server gives up a transaction because of others."""
    CRASH = auto()
    """The actor crashes, as over a bug, when the answer has come."""
    KILL_BEFORE = auto()
    """The process is killed before the server hears of it."""
    KILL_AFTER = auto()
    """The process is killed when the server has done it."""


DEADLY = (Fault.KILL_BEFORE, Fault.KILL_AFTER)


@dataclass(slots=True)
class Rates:
    """How often what happens, as parts of one.

    Attributes:
        trips: of round trips, by what happens.
        late: of notifications, that come seconds late; `doubled` and `deaf` likewise.

    """

    trips: dict[Fault, float] = field(default_factory=dict)
    late: float = 0.0
    doubled: float = 0.0
    deaf: float = 0.0


@dataclass(slots=True)
class Weather:
    """The faults of a time; calm in the beginning.

    Attributes:
        rates: what happens now.
        only: the machine that is struck, None for all.
        struck: when something happened last.
        crash_after: no actor crashes before, so that no supervisor has reason to give up.

    """

    hub: Hub
    rates: Rates = field(default_factory=Rates)
    only: Machine | None = None
    struck: float = -1e9
    crash_after: dict[str, float] = field(default_factory=dict)
    seen: dict[str, int] = field(default_factory=dict)

    def strike(self, machine: Machine, *, commit: bool = False) -> Fault | None:
        """Draw the fault of one round trip."""
        if not self.rates.trips or (self.only is not None and self.only is not machine):
            return None
        draw = self.hub.rng.random()
        for fault, rate in self.rates.trips.items():
            draw -= rate
            if draw < 0:
                return self._fitting(fault, machine, commit=commit)
        return None

    def note(self, what: str) -> None:
        """Remember that something happened."""
        self.struck = self.hub.now
        self.seen[what] = self.seen.get(what, 0) + 1

    def _fitting(self, fault: Fault, machine: Machine, *, commit: bool) -> Fault | None:
        if fault is Fault.CRASH:
            # What supervisors allow, with room to spare.
            if self.hub.now < self.crash_after.get(machine.name, 0.0):
                return None
            self.crash_after[machine.name] = self.hub.now + 15.0
        if fault is Fault.CONFLICT and commit:
            return None
        self.note(fault.name)
        return fault

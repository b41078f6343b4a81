"""Cron's decisions, apart from their effects: which runs are due or missed, and what a boot is."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Literal

from oban_actors.plugins.cron_entry import Entry, Missed
from oban_actors.plugins.schedule import Schedule

GRACE = timedelta(minutes=5)
"""How late a run may be without counting as missed: a deployment, a restart of the database."""

MOST_MISSED = 1_000
"""Missed runs of one entry that are caught up at once; of more, the latest ones."""

FRESHEN = timedelta(days=1)
"""Age at which a mark is moved although nothing was due, so that it shows that it is in use."""

AHEAD = timedelta(hours=1)
"""A mark further ahead of the database's clock than this was written by a clock gone wrong."""

EARLY = timedelta(minutes=1)
"""One further ahead than this is told of: until the clock gets there, nothing is due."""

HORIZON = 3600.0
"""Seconds until another look at most, since timers don't count while a machine sleeps."""

FOLLOWER_LAG = 2.0
"""Seconds for which those who don't lead leave a due run to the leader."""

SLACK = 0.001
"""Seconds a look comes after a due time, so that rounding does not make it come before."""

SAME_BOOT = timedelta(minutes=1)
"""Starts of nodes within this of the last run of `@reboot` are of the same boot."""

WATCH = 25.0
"""Seconds, at least, for which a node must show nothing before it counts as dead."""

GAP = 10.0
"""Seconds between two looks at other nodes, after which the watch begins anew."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is to be done about one entry.

    Attributes:
        runs: the due minutes to insert jobs for, oldest first.
        mark: what to write as the moment of its evaluation; None: leave it.
        dropped: whether more runs were missed than are caught up.
        ahead: whether its mark was written by a clock that is far ahead.
        early: whether it was written by one that is so far ahead that it should be told.

    """

    runs: tuple[datetime, ...] = ()
    mark: datetime | None = None
    dropped: bool = False
    ahead: bool = False
    early: bool = False


NOTHING = Verdict()


def judge(schedule: Schedule, missed: Missed, evaluated: datetime, now: datetime) -> Verdict:
    """Judge the time since an entry was evaluated last.

    Each due minute after `evaluated` and up to `now` is run, skipped or covered by another run,
    and behind the new mark it is never looked at again.

    Args:
        schedule: when it is due.
        missed: what becomes of runs that were due more than `GRACE` ago: none (`skip`), the
            latest one unless another has been due since (`once`), or all of them (`all`).
        evaluated: up to when it was evaluated.
        now: the database's time.

    """
    if evaluated > now + AHEAD:
        return Verdict(mark=now, ahead=True)
    if evaluated > now + EARLY:
        return Verdict(early=True)
    first = schedule.next_after(evaluated)
    if first is None or first > now:
        return Verdict(mark=now) if now - evaluated >= FRESHEN else NOTHING
    timely_from = max(evaluated, now - GRACE)
    timely = list(schedule.due_between(timely_from, now))
    late: list[datetime] = []
    if missed == "all":
        late = schedule.latest_between(evaluated, timely_from, MOST_MISSED + 1)
    elif missed == "once" and not timely:
        late = schedule.latest_between(evaluated, timely_from, 1)
    dropped = len(late) > MOST_MISSED
    return Verdict((*late[-MOST_MISSED:], *timely), now, dropped)


def next_look(entries: Iterable[Entry], now: datetime, *, leader: bool) -> float:
    """Say in how many seconds to look again.

    Args:
        entries: the crontab.
        now: the database's time.
        leader: whether this node leads; the others come a little later.

    """
    dues = (entry.schedule.next_after(now) for entry in entries)
    first = min((due for due in dues if due is not None), default=None)
    if first is None:
        return HORIZON
    lag = SLACK if leader else FOLLOWER_LAG
    return min((first - now).total_seconds() + lag, HORIZON)


@dataclass(frozen=True, slots=True)
class Seen:
    """What is seen of another node.

    Attributes:
        started_at: when it began, by the database's clock.
        shown: the time that it has written last, to show that it lives.

    """

    started_at: datetime
    shown: datetime


@dataclass(slots=True)
class Boot:
    """Whether the start of this node is the start of all: what `@reboot` waits for.

    It is if no node that began before this one lives. One that ended by itself has left nothing;
    one that was killed has left its last signs, and is watched until they prove to be old ones.
    A node keeps this for as long as its instance runs, whatever crashes meanwhile.

    Attributes:
        watch: seconds for which a node must show nothing before it counts as dead.
        started: when this node began, by the database's clock; None before the first look.
        over: whether it is settled: `@reboot` was run, or others live.

    """

    watch: float = WATCH
    started: datetime | None = None
    over: bool = False
    _watched: dict[str, datetime] = field(default_factory=dict)
    _since: datetime | None = None
    _looked: datetime | None = None

    def look(
        self, others: Mapping[str, Seen], own: datetime | None, now: datetime
    ) -> Literal["boot", "watch", "over"]:
        """Judge what is seen.

        Args:
            others: other nodes by their identities.
            own: when this node's first producer began, None where it has none.
            now: the database's time.

        """
        if self.over:
            return "over"
        if self._looked is None or self.started is None:
            self.started = now if own is None else min(own, now)
            older = {k: seen.shown for k, seen in others.items() if seen.started_at < self.started}
            self._watched, self._since = older, now
        elif any(self._moved(identity, others) for identity in self._watched):
            self.over = True
            return "over"
        elif now - self._looked > timedelta(seconds=GAP):
            # The database may have been away, for them too.
            self._since = now
        self._looked = now
        watched_for = (now - (self._since or now)).total_seconds()
        return "boot" if not self._watched or watched_for >= self.watch else "watch"

    def claims(self, evaluated: datetime | None) -> bool:
        """Whether a run is this node's to insert, as an entry's row stands once it is locked."""
        if self.over or self.started is None:
            return False
        return evaluated is None or evaluated < self.started - SAME_BOOT

    def _moved(self, identity: str, others: Mapping[str, Seen]) -> bool:
        # Whoever's signs are gone has ended by itself, so that it lived.
        return identity not in others or others[identity].shown != self._watched[identity]

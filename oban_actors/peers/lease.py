"""The lease, decided: what a Peer knows, what it heard, what it does next.

Pure steps. Each takes the state, an event and the time (seconds of a clock that counts
suspends), and gives the state after it and what is to be done. The Peer only does that.
"""

import math
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from oban_actors.peers.identity import LOCKED, is_locked, owner
from oban_actors.peers.resigning import Resignations
from oban_actors.peers.rivals import Rivals
from oban_actors.peers.silence import AGAIN, NEVER, at_beat, at_row
from oban_actors.peers.standing import Standing
from oban_actors.peers.terms import (
    Effect,
    Gained,
    Held,
    Lost,
    Plan,
    Rivalry,
    Row,
    Rules,
    Unlock,
    Withdraw,
)

OFFER = 3.0
"""Seconds that an Elixir node gets to take an offered leadership."""

EARLY = 0.04
"""By what part of its time a renewal may come sooner."""

FARTHEST = 30.0
"""Seconds that a follower sleeps at most, however far ahead the row says it expires."""

FIRST_RETRY = 0.25
"""Seconds until an election that failed is tried again; doubled each time."""

NUDGE = 0.05
"""Seconds over which those who heard the same call spread their elections."""

_PAST = -math.inf


class Step(NamedTuple):
    """The state after an event, and what is to be done, in order."""

    lease: "Lease"
    effects: tuple[Effect, ...] = ()


@dataclass(frozen=True, slots=True)
class Lease:
    """All that a Peer knows of the lease.

    Attributes:
        rules: what it was told.
        held: its own lease, None when it follows.
        seen: the row as read last.
        standing: for how long another's was seen to stand.
        locked: whether its session has the advisory lock.
        uncertain: whether a row of its own may stand though it does not lead.
        failures: how many elections failed in a row.
        wake_at: when the next election is due, up to `spread` later by chance.
        aside_until: until when it leaves a free lease to others.
        acted_at: when the last election ended.
        silent_at: when the holder counts as silent.
        rivals: the Elixir nodes around.
        warned: whether competing with them was told.
        resignations: how often it has resigned because it was asked to.

    """

    rules: Rules
    held: Held | None = None
    seen: Row | None = None
    standing: Standing = field(default_factory=Standing)
    locked: bool = False
    uncertain: bool = False
    failures: int = 0
    wake_at: float = _PAST
    spread: float = 0.0
    aside_until: float = _PAST
    acted_at: float = _PAST
    silent_at: float = NEVER
    rivals: Rivals = field(default_factory=Rivals)
    warned: bool = False
    resignations: Resignations = field(default_factory=Resignations)

    # What follows from it

    def leads(self, now: float) -> bool:
        """Whether the lease is surely this node's."""
        return self.held is not None and now < self.held.trusted_until

    def plan(self, now: float) -> Plan:
        """Decide what to do now."""
        if self.held is not None:
            return Plan.RENEW if now >= self.wake_at else Plan.WAIT
        silent = now >= self.silent_at
        if now < self.wake_at and not silent:
            return Plan.WAIT
        if now < self.aside_until or _must_offer(self):
            return Plan.LOOK
        if silent and not self.locked and self.seen is not None and is_locked(self.seen.node):
            return Plan.LOCK
        return Plan.CLAIM

    def next_at(self, chance: float) -> float:
        """Say when to make the next plan.

        Args:
            chance: from 0 to 1.

        """
        at = min(self.wake_at + self.spread * chance, self.silent_at)
        return at if self.held is None else min(at, self.held.trusted_until)

    @property
    def writes(self) -> str:
        """What it writes as the row's holder."""
        return self.rules.node + LOCKED if self.locked else self.rules.node

    @property
    def prey(self) -> str | None:
        """Whose unexpired row may be seized: whoever's lock this session got instead."""
        if not self.locked or self.seen is None or not is_locked(self.seen.node):
            return None
        return self.seen.node

    def dead(self, now: float) -> Row | None:
        """Give the unexpired row of another that nobody believes in any more; see `Standing`."""
        return self.standing.dead(now)

    @property
    def wants_lock(self) -> bool:
        """Whether to try the lock before renewing. A mark without a lock is removed first."""
        held = self.held
        return self.rules.fast and not self.locked and held is not None and not held.marked

    @property
    def holder(self) -> str | None:
        """Who held the lease when it was read last."""
        return None if self.seen is None else self.seen.node

    @property
    def may_own(self) -> bool:
        """Whether a row of its own may stand."""
        return self.held is not None or self.uncertain

    # What elections bring

    def checked(self, now: float) -> Step:
        """Stop believing in a lease that was not renewed in time, and forget silent rivals."""
        lease = replace(self, rivals=self.rivals.prune(now))
        if self.held is not None and not self.leads(now):
            return _conceded(lease, now, "it was not renewed in time")
        return Step(lease)

    def won(self, row: Row, started: float, now: float) -> Step:
        """The claim succeeded.

        Args:
            row: as it stands.
            started: when the attempt began; trust counts from there, however slow it was.
            now: when it ended.

        """
        trusted = started + self.rules.trust
        if now >= trusted:
            return self.failed(now)
        held = Held(row.started_at, row.expires_at, trusted, is_locked(row.node))
        lease = replace(
            _settled(self, now), held=held, seen=row, aside_until=_PAST, silent_at=NEVER
        )
        # The lock is tried once the row stands: who has no lock yet renews at once to say so.
        eager = self.rules.fast and not self.locked
        return Step(_sleep(lease, now, 0.0) if eager else _until_renewal(lease, now), (Gained(),))

    def refused(self, row: Row | None, now: float) -> Step:
        """The claim found somebody else's row."""
        lease, effects = _released(_settled(self, now))
        step = _following(lease, row, now)
        return Step(step.lease, effects + step.effects)

    def looked(self, row: Row | None, now: float) -> Step:
        """The row was read, to leave a free one to others first."""
        lease, effects = _released(replace(self, acted_at=now))
        free = row is None or row.left <= 0 or _is_mine(lease, row) or row.is_as(lease.dead(now))
        if free and now >= self.aside_until and _must_offer(self):
            step = replace(lease, seen=row).offered(now)
        else:
            step = _following(lease, row, now)
        return Step(step.lease, effects + step.effects)

    def offered(self, now: float) -> Step:
        """Leave the lease to Elixir nodes for a while."""
        until = now + OFFER
        lease = replace(self, aside_until=until, rivals=self.rivals.offer(), silent_at=NEVER)
        return Step(_sleep(lease, until, NUDGE), (Withdraw(),))

    def renewed(self, row: Row, started: float, now: float) -> Step:
        """The renewal succeeded; see `won`."""
        if self.held is None or not self.leads(now):
            return _conceded(self, now, "its renewal came too late")
        trusted = started + self.rules.trust
        held = Held(self.held.term, row.expires_at, trusted, is_locked(row.node))
        lease = replace(_settled(self, now), held=held, seen=row)
        return Step(_until_renewal(lease, now))

    def not_renewed(self, row: Row | None, now: float) -> Step:
        """The renewal found a row that is not what was written last."""
        held = self.held
        lease, effects = _conceded(self, now, _why(self, row))
        lease = _settled(lease, now)
        if held is None or row is None or not _is_mine(self, row):
            step = _following(lease, row, now)
            return Step(step.lease, effects + step.effects)
        if row.started_at == held.term and row.expires_at != held.written:
            # An Elixir node up to 2.23.0, once deposed, renews whoever's row and believes that
            # it leads. It learns better from an election, which it holds when told `down`.
            until = now + self.rules.lease / 3
            lost, *rest = effects
            lease = _sleep(replace(lease, aside_until=until), until, NUDGE)
            return Step(lease, (lost, Withdraw(), *rest))
        return Step(lease, effects)

    def failed(self, now: float, *, missing: bool = False) -> Step:
        """The election failed: whether the lease is still held is not known, so it is not.

        Args:
            now: when it failed.
            missing: there is no table; it is tried again slowly.

        """
        lease, effects = _conceded(self, now, "its election failed")
        failures = self.failures + 1
        retry = min(FIRST_RETRY * 2.0 ** min(failures - 1, 16), self.rules.renew)
        delay = self.rules.lease if missing else retry
        at = max(now + delay, self.aside_until)
        lease = replace(lease, uncertain=True, failures=failures, acted_at=now)
        if now >= lease.silent_at:
            lease = replace(lease, silent_at=at)
        return Step(_sleep(lease, at, delay / 4), effects)

    def tried(self, now: float, *, got: bool) -> Step:
        """The advisory lock was tried."""
        if got or self.held is not None:
            return Step(replace(self, locked=got))
        return Step(replace(self, silent_at=now + AGAIN))

    def not_withdrawn(self) -> "Lease":
        """The own row could not be removed, nor anybody told."""
        return replace(self, uncertain=True, rivals=self.rivals.take_back())

    # What is heard

    def hurried(self, now: float) -> "Lease":
        """Have the next election at once."""
        return self if self.wake_at <= now else _sleep(self, now, 0.0)

    def down(self, now: float) -> "Lease":
        """A leader resigned, or calls for an election."""
        if now < self.aside_until:
            return self
        return _sooner(self, now if self.held is None else max(now, self.acted_at + AGAIN))

    def beat(self, node: str, seconds: float, now: float, renewed: float | None = None) -> "Lease":
        """A leader beats, and says when it will again.

        Args:
            node: the leader.
            seconds: until it will.
            now: when that was heard.
            renewed: seconds that its lease lasts from the transaction on that told it, where that
                has renewed it: so the row is known without a look, for a while.

        """
        if node == self.rules.node:
            return self
        known = self.seen is not None and owner(self.seen.node) == node
        if self.held is not None or not known:
            # Somebody else leads than was thought.
            return _sooner(self, max(now, self.acted_at + AGAIN, self.aside_until))
        if not self.rules.fast:
            return self
        after = replace(self, silent_at=at_beat(self.rules, seconds, now))
        # Bounded first: a sum with an integer that is larger than any float is an error.
        until = min(now + min(max(renewed or 0.0, 0.0), FARTHEST), self.acted_at + FARTHEST)
        # A look that is due is not put off: it may have been called for.
        return _sleep(after, until, NUDGE) if now < self.wake_at < until else after

    def announced(self, pid: int | None, node: object) -> "Lease":
        """A Python node announces its next ping."""
        rivals = self.rivals.announce(pid, node)
        return self if rivals is self.rivals else replace(self, rivals=rivals)

    def pinged(self, pid: int | None, node: object, now: float) -> Step:
        """A node pings."""
        rivals = self.rivals.ping(pid, node, now)
        lease, effects = _warned(replace(self, rivals=rivals))
        if lease.held is None or not _must_offer(lease):
            return Step(lease, effects)
        lease, (lost, *rest) = _conceded(lease, now, "it is offered to an Elixir node")
        lease, offer = lease.offered(now)
        return Step(lease, (lost, *offer, *rest))

    def resigned(self, seconds: float, why: str, now: float) -> Step:
        """It was asked to leave leadership to others for a while."""
        if self.held is None or not self.resignations.may(now):
            return Step(self)
        lease, (lost, *rest) = _conceded(self, now, why)
        noted = self.resignations.noted(now)
        lease = replace(lease, aside_until=now + seconds, silent_at=NEVER, resignations=noted)
        # One look meanwhile, to know who leads.
        lease = _sleep(lease, now + min(seconds, AGAIN), NUDGE)
        return Step(lease, (lost, Withdraw(), *rest))

    def ended(self) -> "Lease":
        """The tree stops: nothing is to be done as leader while the row is being removed."""
        return replace(self, held=None, uncertain=self.may_own)

    def lock_lost(self, now: float) -> "Lease":
        """The lock went with its session: a row that claims it must not stand."""
        lease = replace(self, locked=False)
        marked = self.held is not None and self.held.marked
        return lease.hurried(now) if marked else lease

    def reconnected(self, now: float) -> Step:
        """Notifications may have been missed, and the lock with them."""
        effects = (Unlock(),) if self.locked else ()
        lease = self.lock_lost(now)
        return Step(_sooner(lease, max(now, self.aside_until)), effects)


# Helpers


def _must_offer(lease: Lease) -> bool:
    return lease.rules.yields and lease.rivals.waiting


def _is_mine(lease: Lease, row: Row) -> bool:
    return owner(row.node) == lease.rules.node


def _sleep(lease: Lease, until: float, spread: float) -> Lease:
    return replace(lease, wake_at=until, spread=spread)


def _sooner(lease: Lease, at: float) -> Lease:
    return lease if lease.wake_at <= at else _sleep(lease, at, NUDGE)


def _until_renewal(lease: Lease, now: float) -> Lease:
    early = lease.rules.renew * EARLY
    return _sleep(lease, now + lease.rules.renew - early, early)


def _settled(lease: Lease, now: float) -> Lease:
    return replace(lease, failures=0, uncertain=False, acted_at=now)


def _released(lease: Lease) -> Step:
    return Step(replace(lease, locked=False), (Unlock(),) if lease.locked else ())


def _conceded(lease: Lease, now: float, why: str) -> Step:
    after, effects = _released(lease)
    if lease.held is None:
        return Step(after, effects)
    after = replace(after, held=None, seen=None, uncertain=True)
    return Step(_sleep(after, now, NUDGE), (Lost(why), *effects))


def _following(lease: Lease, row: Row | None, now: float) -> Step:
    mine = row is not None and _is_mine(lease, row)
    if row is None or row.left <= 0 or mine:
        after = replace(lease, seen=row, silent_at=NEVER, uncertain=mine)
        return Step(_sleep(after, max(now, lease.aside_until), NUDGE))
    at = max(now + min(row.left, FARTHEST), lease.aside_until)
    silent_at = at_row(lease.rules, lease.seen, row, lease.silent_at, now)
    standing, told = lease.standing.seen(row, now)
    after = replace(lease, seen=row, silent_at=silent_at, standing=standing)
    if owner(row.node) is None:
        after = replace(after, rivals=lease.rivals.leading(row.node, now))
    after, effects = _warned(_sleep(after, at, NUDGE))
    return Step(after, (*effects, *told))


def _warned(lease: Lease) -> Step:
    if lease.rules.yields or lease.warned or not lease.rivals.heard:
        return Step(lease)
    return Step(replace(lease, warned=True), (Rivalry(next(iter(lease.rivals.heard))),))


def _why(lease: Lease, row: Row | None) -> str:
    if row is None:
        return "its row is gone"
    return "its row is not what it wrote last" if _is_mine(lease, row) else f"{row.node} holds it"

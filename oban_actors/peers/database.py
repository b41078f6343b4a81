"""DatabasePeer: holds or seeks the leadership lease."""

import logging
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from oban_actors import telemetry
from oban_actors.actors import ActorError, CallTimeout, Continue, GenServer, Reason, Sender, Timer
from oban_actors.backoff import CHANCE
from oban_actors.config import Config, PeerOptions
from oban_actors.errors import (
    DatabaseError,
    TransientError,
    UndefinedTable,
)
from oban_actors.messages import (
    Election,
    GetLeader,
    GetLease,
    IsLeader,
    LeaseView,
    Listen,
    LockLost,
    Notification,
    Reconnected,
    Resign,
    Stage,
    TryLock,
    Unlock,
)
from oban_actors.notifiers import Publisher, listen
from oban_actors.notifiers.wire import seconds_of
from oban_actors.peers import terms
from oban_actors.peers.elections import MOST_TIME, Elections
from oban_actors.peers.identity import lock_key, owner, row_identity
from oban_actors.peers.lease import Lease, Step
from oban_actors.peers.terms import (
    Effect,
    Gained,
    Lost,
    Plan,
    Rivalry,
    Rules,
    Stranded,
    Withdraw,
)
from oban_actors.repo import Repo
from oban_actors.repo.times import to_moment

logger = logging.getLogger("oban_actors")

CHANNELS = ("actors", "leader")
PINGS = ("sonar",)
"""Heard once the others surely are: a Python node's ping without the announcement that comes
before it would be taken for an Elixir node's.
"""

LISTEN_TIME = 2.0
"""Seconds that the first election waits for the notifier to listen."""

LOCK_TIME = 1.0
"""Seconds that the notifier has to try the advisory lock in."""

RESIGN_TIME = 2.0
"""Seconds that resigning may take when the tree stops."""


@dataclass(frozen=True, slots=True)
class _Wake:
    """Something is due."""


class DatabasePeer(GenServer):
    """One of the nodes among which one leads: whoever has the row in `oban_peers`.

    Mirrors `Oban.Peers.Database`. What it knows is a `Lease`, which decides; this actor runs
    the statements, tells the others and keeps the timer.

    Args:
        config: the instance's options.
        repo: the way to the database.
        publisher: how notifications are written in a transaction.
        options: lease, renewal and mode.

    """

    def __init__(
        self, config: Config, repo: Repo, publisher: Publisher, options: PeerOptions
    ) -> None:
        super().__init__()
        self.config = config
        self.repo = repo
        fast = (
            repo.dialect == "postgresql"
            and options.advisory_lock
            and config.notifier.kind in ("auto", "postgres")
        )
        node = row_identity(config)
        yields = options.mode == "yield"
        self._lease = Lease(Rules(node, options.lease, options.renew, yields=yields, fast=fast))
        self._rules = self._lease.rules
        self._elections = Elections(config, repo, publisher)
        self._key = lock_key(config)
        self._timer: Timer | None = None
        self._trouble: type[DatabaseError] | None = None
        self._thread = 0

    # Callbacks

    def init(self) -> Continue:
        """Listen before the first look, which is put off: no database delays the tree's start."""
        self._thread = threading.get_ident()
        if self._rules.fast:
            # One that crashed may have left the lock with the notifier.
            self.tell("notifier", Unlock(self._key))
        listen(self, CHANNELS)
        return Continue()

    def handle_continue(self, arg: Any) -> None:
        """Hold the first election."""
        try:
            self.ask("notifier", Listen(CHANNELS, self.actor_ref), timeout=LISTEN_TIME)
        except ActorError as error:
            logger.debug("the first election comes before the notifier listens: %s", error)
        listen(self, PINGS)
        self._act()

    def handle_call(self, message: Any, sender: Sender) -> Any:
        """Answer who leads, or hold an election first."""
        if isinstance(message, Election):
            self._lease = self._lease.hurried(self._now())
            self._act()
        elif isinstance(message, Resign):
            return self._resign(message)
        elif not isinstance(message, IsLeader | GetLeader | GetLease):
            return super().handle_call(message, sender)
        self._check()
        if isinstance(message, GetLeader):
            return self._lease.holder
        return self._view() if isinstance(message, GetLease) else self._lease.leads(self._now())

    def handle_info(self, message: Any) -> None:
        """Hold an election, or hear of what may call for one."""
        now, before = self._now(), self._lease
        match message:
            case _Wake():
                pass
            case Election():
                self._lease = self._lease.hurried(now)
            case Resign():
                self._resign(message)
            case Notification(channel, payload, pid):
                self._hear(channel, payload, pid, now)
            case Reconnected():
                self._change(self._lease.reconnected(now))
            case LockLost(key) if key == self._key:
                self._lease = self._lease.lock_lost(now)
            case _:
                super().handle_info(message)
        # Others' messages only arm the timer, so that a flood of them is one election. Most of
        # them are beats, of which a leader has nothing to learn.
        if isinstance(message, _Wake | Election | LockLost):
            self._act()
        elif self._lease is not before:
            self._arm()

    def terminate(self, reason: Reason) -> None:
        """Resign: remove the row and tell the others, who elect at once."""
        if self._timer is not None:
            self._timer.cancel()
        # First the state, as in `_take`: another one leads once the row is gone, answer or not.
        self._lease = self._lease.ended()
        if self._lease.may_own:
            self._withdraw(RESIGN_TIME)
        if self._lease.locked:
            self.tell("notifier", Unlock(self._key))

    def on_kill(self) -> None:
        """Cancel the statement that holds the thread."""
        self.repo.cancel(self._thread)

    # What is due

    def _act(self) -> None:
        self._check()
        plan = self._lease.plan(self._now())
        if plan is Plan.LOCK and self._try_lock():
            # Without a message in between: a follower has the lock only while it claims.
            plan = self._lease.plan(self._now())
        if plan not in (Plan.WAIT, Plan.LOCK):
            self._elect(plan)
        self._arm()

    def _check(self) -> None:
        step = self._lease.checked(self._now())
        self._change(step)
        if step.effects:
            self._arm()

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        delay = self._lease.next_at(CHANCE.random()) - self._now()
        if delay <= 0:
            self._timer = None
            self.tell(self.actor_ref, _Wake())
        else:
            self._timer = self.send_after(_Wake(), delay)

    def _now(self) -> float:
        return self.runtime.clock.boottime()

    # Elections

    def _elect(self, plan: Plan) -> None:
        if plan is Plan.RENEW and self._lease.wants_lock:
            self._try_lock()
        with self._span() as event:
            led = self._lease.held is not None
            self._take(self._outcome(plan))
            event.set(leader=self._lease.held is not None, was_leader=led)

    def _span(self) -> telemetry.span:
        known = {"conf": self.config, "peer": type(self), "was_leader": None}
        return telemetry.span(
            "oban.peer.election", known | {"leader": self._lease.held is not None}
        )

    def _outcome(self, plan: Plan) -> Step:
        started, lease = self._now(), self._lease
        try:
            won, row = self._elections.hold(plan, lease, started)
        except DatabaseError as error:
            self._note(error)
            return lease.failed(self._now(), missing=isinstance(error, UndefinedTable))
        self._note(None)
        now = self._now()
        if plan is Plan.LOOK:
            return lease.looked(row, now)
        if plan is Plan.CLAIM:
            return lease.won(row, started, now) if won and row else lease.refused(row, now)
        return lease.renewed(row, started, now) if won and row else lease.not_renewed(row, now)

    def _resign(self, message: Resign) -> bool:
        led = self._lease.held is not None
        self._change(self._lease.resigned(message.seconds, message.why, self._now()))
        self._arm()
        return led and self._lease.held is None

    def _try_lock(self) -> bool:
        try:
            got = self.ask("notifier", TryLock(self._key), timeout=LOCK_TIME) is True
        except CallTimeout:
            # It may be got still: not to be kept.
            self.tell("notifier", Unlock(self._key))
            got = False
        except (ActorError, DatabaseError) as error:
            logger.debug("the advisory lock could not be tried: %s", error)
            got = False
        self._lease = self._lease.tried(self._now(), got=got).lease
        return got

    def _withdraw(self, seconds: float = MOST_TIME) -> None:
        try:
            self._elections.withdraw(seconds)
        except DatabaseError as error:
            logger.warning("leadership was given up, but nobody could be told: %s", error)
            self._lease = self._lease.not_withdrawn()

    # What is heard

    def _hear(self, channel: str, payload: Mapping[str, Any], pid: int | None, now: float) -> None:
        if channel == "sonar":
            if payload.get("ping") is True:
                self._change(self._lease.pinged(pid, payload.get("node"), now))
        elif channel == "actors":
            self._lease = self._lease.announced(pid, payload.get("pulse"))
            node, seconds = payload.get("beat"), seconds_of(payload, "next")
            ours = payload.get("name") == self.config.name
            if ours and isinstance(node, str) and seconds is not None:
                renewed = seconds_of(payload, "renewed")
                self._lease = self._lease.beat(node, seconds, now, renewed)
        elif channel == "leader" and payload.get("down") == self.config.name:
            self._lease = self._lease.down(now)

    # What is done

    def _change(self, step: Step) -> None:
        """Take a step outside an election; where it ends leadership, that is one too."""
        if self._lease.held is None or step.lease.held is not None:
            self._take(step)
            return
        with self._span() as event:
            self._take(step)
            event.set(leader=False, was_leader=True)

    def _take(self, step: Step) -> None:
        # First the state: what follows may take time, and acting must end before.
        self._lease = step.lease
        for effect in step.effects:
            self._do(effect)

    def _do(self, effect: Effect) -> None:
        match effect:
            case Gained():
                logger.info("%s became leader of %s", self._rules.node, self.config.name)
                self.tell("stager", Stage())
            case Lost(why):
                logger.info("%s is no longer leader: %s", self._rules.node, why)
            case Withdraw():
                self._withdraw()
            case terms.Unlock():
                self.tell("notifier", Unlock(self._key))
            case Stranded(node, left):
                logger.warning(
                    "the lease of %s is held by %s for another %.0f s, longer than any lease of "
                    "ours lasts: was the database's clock set back? %s",
                    self.config.name,
                    node,
                    left,
                    "Nobody else leads until then"
                    if owner(node) is None
                    else "If it is not renewed, it is taken over in eleven minutes",
                )
            case Rivalry(node):
                logger.warning(
                    "this node competes for leadership with the Elixir node %s, whose cron and "
                    "plugins stop while it leads; peer mode 'yield' leaves leadership to it",
                    node,
                )

    def _note(self, error: DatabaseError | None) -> None:
        if isinstance(error, TransientError):
            logger.debug("an election has to wait: %s", error)
            return
        trouble = None if error is None else type(error)
        if trouble is self._trouble:
            return
        self._trouble = trouble
        if trouble is None:
            logger.info("elections work again")
        elif trouble is UndefinedTable:
            logger.warning("there is no table oban_peers: leadership is disabled until there is")
        else:
            logger.warning("an election failed, nobody leads from here until one works: %s", error)

    def _view(self) -> LeaseView:
        held, now = self._lease.held, self._now()
        return LeaseView(
            leader=self._lease.leads(now),
            holder=self._lease.holder,
            term=None if held is None else to_moment(held.term),
            trusted_for=0.0 if held is None else max(0.0, held.trusted_until - now),
            locked=held is not None and held.marked,
        )

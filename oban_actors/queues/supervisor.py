"""Queues: the queues that this node runs, each a small tree; started and stopped at any time."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from oban_actors.actors import SHUTDOWN, ChildSpec, Exit, Reason, Sender, Supervisor, Timer, send
from oban_actors.claim import Claim
from oban_actors.config import QueueOptions
from oban_actors.config_options import positive, queue_name
from oban_actors.config_options import queue as check_queue
from oban_actors.errors import ConfigError
from oban_actors.messages import (
    CancelClaims,
    Notification,
    Reconnected,
    Shutdown,
    StartQueue,
    StopQueue,
)
from oban_actors.notifiers import listen
from oban_actors.queues.foreman import MARGIN, Foreman
from oban_actors.queues.losses import Losses
from oban_actors.queues.parts import Drained, LeftOver, Parts
from oban_actors.queues.producer import Producer
from oban_actors.queues.watchman import CANCEL_TIME, SLACK, Watchman
from oban_actors.running import EndReason

logger = logging.getLogger("oban_actors")

RESTARTS = 5
SECONDS = 30.0
"""Restarts of whole queues that are allowed within so many seconds."""

PRODUCER_TIME = 12.0
"""Seconds that a Producer has for a turn under way and the last acknowledgements."""


@dataclass(frozen=True, slots=True)
class _Deadline:
    """A queue that was told to stop has had its time."""

    queue: str


@dataclass(frozen=True, slots=True)
class _Lost:
    """Runs of a queue whose claims are lost have had their margin."""

    queue: str


@dataclass(eq=False, slots=True)
class _Begun:
    """A queue that begins; whether its Producer was told a signal here since it was asked."""

    told: bool = False


@dataclass(frozen=True, slots=True)
class _Listens:
    """All that was told before a queue's Producer listened has been read."""

    queue: str
    begun: _Begun


class Queues(Supervisor):
    """Runs the queues, and starts and stops others when told so, here or by signal.

    Mirrors `Oban.Queues`.

    Args:
        parts: what all queues share.

    """

    def __init__(self, parts: Parts) -> None:
        children = [queue_spec(parts, name, how) for name, how in parts.config.queues.items()]
        super().__init__(children, max_restarts=RESTARTS, max_seconds=SECONDS)
        self.parts = parts
        self._deadlines: dict[str, Timer] = {}
        self._begun: dict[str, _Begun] = {}

    # Callbacks

    def init(self) -> None:
        """Listen for signals, and start the queues."""
        listen(self, ["signal"])
        workforce = self.parts.workforce
        later = workforce.next()
        for queue, options in self.parts.config.queues.items():
            # One that crashed has left its queues as they were; one that ended, at their end.
            if workforce.is_stopped(queue):
                # What is left of it is written as of any queue that has ended: see `_end_again`.
                self._children.pop(queue, None)
            elif workforce.is_ending(queue):
                begun = later.get(queue, options)
                workforce.renew(queue, begun)
                self._children[queue].spec = queue_spec(self.parts, queue, begun)
        super().init()
        for queue, options in workforce.running().items():
            if queue not in self._children:
                self._add(queue_spec(self.parts, queue, options))
        for queue, options in later.items():
            if queue not in self._children:
                self._start_queue(queue, options)
        for roster in workforce.rosters():
            # Of a queue that runs its Foreman does.
            if roster.queue not in self._children and self._lost(roster.queue):
                self.send_after(_Lost(roster.queue), MARGIN)

    def handle_call(self, message: Any, sender: Sender) -> Any:
        """Start or stop a queue; otherwise what a supervisor is asked."""
        match message:
            case StartQueue(queue, options):
                self._start_queue(queue, options)
                return None
            case StopQueue(queue):
                self._stop_queue(queue)
                return None
            case _:
                return super().handle_call(message, sender)

    def handle_info(self, message: Any) -> None:
        """Start and stop queues; otherwise what a supervisor is told."""
        match message:
            case Notification("signal", payload):
                self._signal(payload)
            case StartQueue(queue, options):
                self._start_queue(queue, options)
            case StopQueue(queue):
                self._stop_queue(queue)
            case Drained(queue) | _Deadline(queue):
                self._end_queue(queue)
            case LeftOver(queue):
                self._end_again(queue)
            case CancelClaims(claims, reason, lost=True):
                self._lose(claims, reason)
            case _Lost(queue):
                self._end_lost(queue)
            case _Listens(queue, begun):
                self._go_on_telling(queue, begun)
            case Reconnected() | Notification():
                pass
            case _:
                super().handle_info(message)

    def terminate(self, reason: Reason) -> None:
        """Let all queues drain at the same time, then end at the same time.

        Where this one crashed, or gave up over too many crashes of others, the queues don't end:
        its successor goes on with what they have.
        """
        ending = not reason.abnormal and not self._intensity.exceeded
        if ending:
            for queue in self._children:
                self._begin_end(str(queue))
            self._await_drained()
        # A silent database holds up each for as long as it may take: all at once, then.
        for queue in self._children:
            self.tell(("queue", queue), Exit(SHUTDOWN))
        super().terminate(reason)
        if ending:
            # While the Pulse still beats: without it others would run these jobs beside them.
            self.parts.workforce.abort_all()

    def _await_drained(self) -> None:
        # Before anybody is told to end, so that a Producer that crashes meanwhile has a successor.
        for roster in self.parts.workforce.rosters():
            if roster.shutdown_at is not None and self.whereis(("queue", roster.queue)):
                until = roster.shutdown_at + self.parts.config.shutdown_grace_period
                roster.wait_drained(until, patient=False)

    # Queues

    def _signal(self, payload: Mapping[str, Any]) -> None:
        queue, action = payload.get("queue"), payload.get("action")
        if not isinstance(queue, str):
            return
        match action:
            case "stop":
                self._stop_queue(queue)
            case "start":
                try:
                    given = {name: payload[name] for name in ("limit", "paused") if name in payload}
                    options = check_queue(queue_name("queue", queue), given)
                except ConfigError as error:
                    logger.warning("queue %r can't be started as a signal says: %s", queue, error)
                else:
                    self._start_queue(queue, options)
            case "pause" | "resume" | "scale":
                self._steer(queue, payload)

    def _steer(self, queue: str, payload: Mapping[str, Any]) -> None:
        # Otherwise the Producers hear of it themselves.
        for name, options in self.parts.workforce.next().items():
            if queue in (name, "*"):
                self.parts.workforce.begin_later(name, steered(name, options, payload))
        for name, begun in self._begun.items():
            if queue in (name, "*"):
                begun.told = True
                self.tell(("producer", name), Notification("signal", payload))

    def _go_on_telling(self, queue: str, begun: "_Begun") -> None:
        if self._begun.get(queue) is not begun:
            return
        if begun.told:
            # What its Producer heard by itself meanwhile may have come before what it was told
            # here, and after it in our mailbox: that is said once more, so that the last counts.
            begun.told = False
            send(self.actor_ref, _Listens(queue, begun))
        else:
            del self._begun[queue]

    def _start_queue(self, queue: str, options: QueueOptions) -> None:
        if queue in self._children:
            if self.parts.workforce.is_ending(queue):
                self.parts.workforce.begin_later(queue, options)
            return
        self.parts.workforce.renew(queue, options)
        self._add(queue_spec(self.parts, queue, options))
        # What was told before its Producer listened, perhaps while the one before ended, is in
        # our mailbox, before this.
        self._begun[queue] = begun = _Begun()
        send(self.actor_ref, _Listens(queue, begun))

    def _stop_queue(self, queue: str) -> None:
        if queue not in self._children:
            return
        # Kept where a successor of this one finds it: what was stopped stays so.
        self.parts.workforce.stop(queue)
        if queue in self._deadlines:
            return
        self._begin_end(queue)
        self._limit_end(queue)

    def _limit_end(self, queue: str) -> None:
        grace = self.parts.config.shutdown_grace_period
        self._deadlines[queue] = self.send_after(_Deadline(queue), grace)

    def _end_again(self, queue: str) -> None:
        # A job that outlived its queue has ended, or its Producer could not write or crashed.
        options = self.parts.workforce.left_over(queue)
        if options is None or queue in self._children:
            return
        self._add(queue_spec(self.parts, queue, options))
        self._limit_end(queue)

    # Runs that outlived their queue

    def _lose(self, claims: Sequence[Claim], reason: EndReason) -> None:
        for queue in dict.fromkeys(claim.job.queue for claim in claims):
            if (losses := self._losses(queue)) is not None:
                losses.tell([claim for claim in claims if claim.job.queue == queue], reason)
                self.send_after(_Lost(queue), MARGIN)

    def _end_lost(self, queue: str) -> None:
        if (losses := self._losses(queue)) is not None:
            losses.end(self._lost(queue))

    def _lost(self, queue: str) -> list[Claim]:
        post = self.parts.workforce.find(queue)
        return [] if post is None else [each for each in post.roster.running() if each.lost]

    def _losses(self, queue: str) -> Losses | None:
        post = self.parts.workforce.find(queue)
        return None if post is None else Losses(post, self.parts.repo, self.parts.engine)

    # Ends of queues

    def _begin_end(self, queue: str) -> None:
        # Noted first: a Producer that just crashed hears nothing, and its successor looks.
        self.parts.workforce.begin_end(queue)
        self.tell(("producer", queue), Shutdown())

    def _end_queue(self, queue: str) -> None:
        child = self._children.get(queue)
        ending = self.parts.workforce.is_ending(queue)
        if child is None or not ending:
            return
        if (deadline := self._deadlines.pop(queue, None)) is not None:
            deadline.cancel()
        self._end_child(child, SHUTDOWN)
        self._children.pop(queue, None)
        self.parts.workforce.dismiss(queue)
        if (options := self.parts.workforce.next().get(queue)) is not None:
            self._start_queue(queue, options)


def steered(queue: str, options: QueueOptions, payload: Mapping[str, Any]) -> QueueOptions:
    """Give the options of a queue that is to begin, as a signal wants them.

    Args:
        queue: its name.
        options: as they were.
        payload: a signal that pauses, resumes or scales it.

    """
    match payload.get("action"):
        case "pause":
            return replace(options, paused=True)
        case "resume":
            return replace(options, paused=False)
    try:
        return replace(options, limit=positive("limit", payload.get("limit")))
    except ConfigError as error:
        logger.warning("queue %s can't be scaled as a signal says: %s", queue, error)
        return options


def queue_spec(parts: Parts, queue: str, options: QueueOptions) -> ChildSpec:
    """Describe a queue: a Foreman, a Producer and a Watchman, `rest_for_one`.

    Args:
        parts: what all queues share.
        queue: its name.
        options: how it is run.

    """
    config = parts.config
    post = parts.workforce.post(queue, options)
    grace = config.shutdown_grace_period + CANCEL_TIME + SLACK
    children = [
        Foreman.child_spec(
            config, parts.repo, parts.engine, post, id="foreman", name=("foreman", queue)
        ),
        Producer.child_spec(
            parts,
            post,
            options.dispatch_cooldown,
            id="producer",
            name=("producer", queue),
            shutdown=PRODUCER_TIME,
        ),
        Watchman.child_spec(
            config, post.roster, id="watchman", name=("watchman", queue), shutdown=grace
        ),
    ]
    return Supervisor.child_spec(children, strategy="rest_for_one", id=queue, name=("queue", queue))

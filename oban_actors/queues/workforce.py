"""Workforce: what runs an instance's jobs, and outlives the actors that look after it."""

import logging
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor
from typing import Any

from oban_actors.claim import Claim
from oban_actors.config import Config, QueueOptions
from oban_actors.performing import Performer
from oban_actors.queues import remote, stacks
from oban_actors.queues.aides import aided
from oban_actors.queues.crew import Crew, ThreadCrew
from oban_actors.queues.foreign import ForeignCrew
from oban_actors.queues.loop import AsyncCrew, EventLoop
from oban_actors.queues.processes import ProcessCrew
from oban_actors.queues.roster import Roster

logger = logging.getLogger("oban_actors")

CLOSE_TIME = 1.0
"""Seconds that idle threads and processes have to end in."""


class Post:
    """One queue's roster, and the crews that run its jobs.

    Args:
        options: how the queue is run.
        roster: its claims.
        performer: runs one claim.
        sync: those who run what blocks.
        tasks: those who run what is async.

    """

    def __init__(
        self,
        options: QueueOptions,
        roster: Roster,
        performer: Performer,
        sync: Crew,
        tasks: Crew,
    ) -> None:
        self.options = options
        self.roster = roster
        self.performer = performer
        self.sync = sync
        self.tasks = tasks
        self._former: list[Crew] = []

    def replace_sync(self, crew: Crew) -> None:
        """Let others run what blocks from here on; what the ones before run goes on."""
        self._former.append(self.sync)
        self.sync = crew

    def add(self, claims: Iterable[Claim]) -> None:
        """Hand claims that the roster holds to those who run them."""
        sync: list[Claim] = []
        tasks: list[Claim] = []
        for claim in claims:
            (tasks if _is_async(claim) else sync).append(claim)
        for crew, given in ((self.sync, sync), (self.tasks, tasks)):
            # Noted first: once a crew has them they may run, whatever happens here.
            for claim in given:
                claim.handed = True
            if given:
                crew.add(given)

    def forget_unhanded(self) -> None:
        """Hold nothing any more that a producer fetched, but crashed before it handed it out."""
        held = self.roster.held()
        self.roster.drop([claim for claim in held if not claim.handed and claim.ack is None])

    def interrupt(self, claim: Claim) -> None:
        """Interrupt a run whose flag is set, as far as its kind can be."""
        for crew in self._crews(claim):
            crew.interrupt(claim)

    def abort(self, claim: Claim) -> bool:
        """End a run by force; False where its kind can't be."""
        return any(crew.abort(claim) for crew in self._crews(claim))

    def abort_all(self) -> list[int]:
        """End by force what still runs, where its kind can be; gives the ids of those jobs."""
        running = [claim for claim in self.roster.running() if not claim.aborted]
        for claim in running:
            # Of a tree that gave up nobody may have.
            if not claim.running.cancelled:
                claim.running.cancel("shutdown")
        return sorted(claim.id for claim in running if self.abort(claim))

    def place(self, claim: Claim) -> str:
        """Say where a run is that does not end, with its stack where it has one here."""
        for crew in self._crews(claim):
            if (stack := crew.waits_in(claim)) is not None:
                return f"its task waits in\n{stack}"
        if claim.thread is None:
            return "it runs where its queue's executor has it run"
        return f"its thread hangs in\n{stacks.of_thread(claim.thread) or '(no stack)'}"

    def wake(self) -> None:
        """See to it that all that waits will run."""
        self.sync.wake()
        self.tasks.wake()

    @property
    def starved(self) -> bool:
        """Whether something waits that nobody would come for, unless they are woken again."""
        return self.sync.starved or self.tasks.starved

    @property
    def refuses(self) -> bool:
        """Whether those who run what blocks run nothing that they are given."""
        return self.sync.refuses

    def give_up(self) -> bool:
        """Hold no longer what is refused; whether there was any."""
        back = self.sync.take_back() if self.sync.refuses else []
        self.roster.drop(back)
        return bool(back)

    def take_back(self) -> list[Claim]:
        """Give back what has not begun; it is held no longer."""
        back = [*self.sync.take_back(), *self.tasks.take_back()]
        self.roster.drop(back)
        return back

    def close(self, seconds: float = CLOSE_TIME) -> None:
        """End those who run jobs, waiting so long for them; who is at it ends afterwards."""
        for crew in (*self._former, self.sync, self.tasks):
            crew.close(seconds)

    def _crews(self, claim: Claim) -> list[Crew]:
        # Whose it is, of those who run what blocks, they know themselves.
        return [self.tasks] if _is_async(claim) else [*self._former, self.sync]


class Workforce:
    """The posts of an instance's queues, and the event loop that they share.

    Args:
        config: the instance's options.
        performer: runs claims.

    """

    def __init__(self, config: Config, performer: Performer) -> None:
        self.config = config
        self.performer = performer
        self._loop = EventLoop(config.name)
        self._lock = threading.Lock()
        self._posts: dict[str, Post] = {}
        self._stopped: set[str] = set()
        self._next: dict[str, QueueOptions] = {}

    def post(self, queue: str, options: QueueOptions) -> Post:
        """Give the post of a queue, made on first use and kept while the program runs."""
        with self._lock:
            found = self._posts.get(queue)
            if found is None:
                found = self._posts[queue] = self._make(queue, options)
            return found

    def find(self, queue: str) -> Post | None:
        """Give the post of a queue that was made, None if there is none."""
        with self._lock:
            return self._posts.get(queue)

    def renew(self, queue: str, options: QueueOptions) -> None:
        """Let a queue that was stopped begin anew, with other options; what still runs goes on."""
        with self._lock:
            self._stopped.discard(queue)
            self._next.pop(queue, None)
            old = self._posts.get(queue)
            if old is None or not (old.roster.held() or old.roster.unsure):
                self._posts[queue] = self._make(queue, options)
                return
            if options.executor != old.options.executor:
                old.replace_sync(self._sync(queue, options.executor, old.roster))
            old.options = options
            old.roster.limit, old.roster.paused = options.limit, options.paused
            old.roster.shutdown_at = old.roster.shutdown_started_at = None
            old.roster.unsure = old.roster.hurried = False

    def dismiss(self, queue: str) -> None:
        """End the idle threads and processes of a queue that has ended, without waiting."""
        with self._lock:
            post = self._posts.get(queue)
        if post is None:
            return
        if post.roster.active:
            # Its Producer crashed at the very end, so nobody knows what it has left.
            post.roster.active, post.roster.unsure = False, True
        post.close(0.0)

    def left_over(self, queue: str) -> QueueOptions | None:
        """Give the options of a queue that has ended and left something to be written, or None."""
        with self._lock:
            post = self._posts.get(queue)
        if post is None or post.roster.shutdown_at is None or not post.roster.left_over:
            return None
        return post.options

    def running(self) -> dict[str, QueueOptions]:
        """List the queues that run and were not told to end, with their options."""
        with self._lock:
            posts = dict(self._posts)
        return {
            queue: post.options
            for queue, post in posts.items()
            if post.roster.active and post.roster.shutdown_at is None
        }

    def begin_end(self, queue: str) -> None:
        """Note that a queue shall end, and not begin anew; unknown ones are ignored."""
        with self._lock:
            self._next.pop(queue, None)
            post = self._posts.get(queue)
        if post is not None:
            post.roster.begin_shutdown()

    def stop(self, queue: str) -> None:
        """Note that somebody wants a queue to end and stay so, until it is begun anew."""
        with self._lock:
            self._stopped.add(queue)
            self._next.pop(queue, None)

    def begin_later(self, queue: str, options: QueueOptions) -> None:
        """Note that somebody wants a queue that ends to begin anew, and how."""
        with self._lock:
            self._stopped.discard(queue)
            self._next[queue] = options

    def next(self) -> dict[str, QueueOptions]:
        """List the queues that begin anew once they have ended, and how."""
        with self._lock:
            return dict(self._next)

    def is_stopped(self, queue: str) -> bool:
        """Whether somebody wants a queue to have ended."""
        with self._lock:
            return queue in self._stopped

    def hurry(self) -> None:
        """Let no queue that ends wait any longer for its jobs to end by themselves."""
        with self._lock:
            posts = list(self._posts.values())
        for post in posts:
            post.roster.hurry()

    def is_ending(self, queue: str) -> bool:
        """Whether a queue was told to end."""
        with self._lock:
            post = self._posts.get(queue)
            return post is not None and post.roster.shutdown_at is not None

    def rosters(self) -> list[Roster]:
        """List the rosters of all queues that run, and of ended ones that have something left."""
        with self._lock:
            rosters = [post.roster for post in self._posts.values()]
        return [each for each in rosters if each.active or each.held() or each.unsure]

    def job_here(self) -> str | None:
        """Name a job that the calling thread runs, itself or on its event loop; None for none.

        Or one that runs on that loop, and has something done in the calling thread.
        """
        if remote.runs_for(self.config.identity):
            return "a job"
        here = threading.get_ident()
        claims = (claim for roster in self.rosters() for claim in roster.held())
        run = aided()
        held = (each for each in claims if each.thread == here or each.running is run)
        found = (each.id for each in held if each.ack is None)
        return next((f"job {id_}" for id_ in found), None)

    def abort_all(self) -> None:
        """End by force what still runs in processes: nobody will beat for it any more."""
        with self._lock:
            posts = list(self._posts.values())
        for post in posts:
            if killed := post.abort_all():
                said = "queue %s killed the processes of jobs that did not end: %s"
                logger.warning(said, post.roster.queue, killed)

    def closing(self) -> Iterator[Callable[[float], None]]:
        """Give the steps that end all processes, and threads and the event loop that run no job.

        Each takes the seconds that it may wait for them; of the loop only whether.
        """
        # Where Queues ended in order it has done so already.
        yield lambda _: self.abort_all()
        with self._lock:
            posts = list(self._posts.values())
        for post in posts:
            yield post.close
        yield lambda seconds: self._end_loop(wait=seconds > 0)

    def _end_loop(self, *, wait: bool) -> None:
        # What the loop's end interrupts has not failed, and runs again.
        for roster in self.rosters():
            for claim in roster.running():
                if _is_async(claim) and not claim.running.cancelled:
                    claim.running.cancel("shutdown")
        self._loop.close(wait=wait)

    def _make(self, queue: str, options: QueueOptions) -> Post:
        roster = Roster(self.config, queue, options.limit, paused=options.paused)
        tasks = AsyncCrew(self._loop, self.performer.aperform, roster.finish)
        sync = self._sync(queue, options.executor, roster)
        return Post(options, roster, self.performer, sync, tasks)

    def _sync(self, queue: str, executor: Any, roster: Roster) -> Crew:
        most = lambda: roster.threads  # noqa: E731 (read anew each time)
        if isinstance(executor, Executor):
            return ForeignCrew(queue, executor, self._submit, roster.finish)
        if executor == "processes":
            return ProcessCrew(queue, most, self.performer, roster.finish)
        return ThreadCrew(queue, most, self.performer.perform, roster.finish)

    def _submit(self, executor: Executor, claim: Claim, over: Any) -> Any:
        return remote.submit(executor, claim, self.performer, over)


def _is_async(claim: Claim) -> bool:
    return claim.worker is not None and claim.worker.kind == "async"

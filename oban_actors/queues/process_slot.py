"""ProcessSlot: a place where one job at a time runs in a process of its own."""

import atexit
import contextlib
import itertools
import multiprocessing
import os
import signal
import threading
import weakref
from collections.abc import Callable
from functools import partial
from multiprocessing.connection import wait
from multiprocessing.context import ForkServerContext, SpawnContext
from typing import Any, Literal, TypeVar, cast

from oban_actors import tracing
from oban_actors.actors.clock import real_monotonic
from oban_actors.actors.root import stop_all
from oban_actors.claim import Claim
from oban_actors.errors import ProcessDied
from oban_actors.performing import Performer
from oban_actors.queues.process_child import BEGUN, COMPLETED, LOADED, child_main
from oban_actors.queues.remote import Outcome, payload
from oban_actors.running import EndReason, Running
from oban_actors.worker_spec import WorkerSpec

T = TypeVar("T")

_LAST_BREATH = 1.0
"""Seconds that a process gets whose connection has ended, so that its own exit code is seen."""

START_TIME = 300.0
"""Seconds that a process may take to start and to import the module of a worker."""

StartMethod = Literal["spawn", "forkserver"]

_children: "weakref.WeakSet[_Child]" = weakref.WeakSet()


class ProcessSlot:
    """Runs claims in a child process, one at a time, for the thread that calls `perform`.

    The process is started with the first job and kept for the next ones; one that died is
    replaced. The worker's module is imported there, and the program's main module as
    `multiprocessing` does it, so a script needs its `if __name__ == "__main__"`.

    Args:
        performer: fills the claims.
        method: how processes are started, `spawn` (default) or `forkserver`.

    """

    def __init__(self, performer: Performer, method: StartMethod = "spawn") -> None:
        self._performer = performer
        self._context = cast(
            "SpawnContext | ForkServerContext", multiprocessing.get_context(method)
        )
        self._lock = threading.Lock()
        self._child: _Child | None = None
        self._claim: Claim | None = None

    @property
    def pid(self) -> int | None:
        """The child's process id, None while there is none."""
        child = self._child
        return None if child is None else child.process.pid

    def perform(self, claim: Claim) -> None:
        """Run a job to its end and fill its claim; raises nothing.

        A process that dies is a failure of this job alone, which says how it died.
        """
        spec = claim.worker
        if spec is None:
            self._performer.perform(claim)
            return
        try:
            self._performer.open(claim)
            if self._child is None or spec.name not in self._child.loaded:
                self._converse(claim, self._load)
            self._performer.start(claim)
            with tracing.performing(claim.job) as span:
                work = (spec.module, spec.name, payload(claim, span, self._performer))
                outcome = span.told(self._converse(claim, partial(self._run, work)))
        except ProcessDied as error:
            # Where it was noticed tells nobody anything.
            self._performer.raised(claim, error.with_traceback(None))
        except BaseException as error:  # noqa: BLE001 (all that goes wrong is this job's failure)
            self._performer.raised(claim, error)
        else:
            self._performer.record(claim, outcome)

    def kill(self, claim: Claim | None = None) -> bool:
        """Kill the process, from any thread.

        Args:
            claim: only while it runs there; None (default): whatever runs.

        Returns:
            whether there was one to kill.

        """
        with self._lock:
            if self._child is None or (claim is not None and claim is not self._claim):
                return False
            if claim is not None:
                claim.aborted = True
            self._child.process.kill()
            return True

    def close(self, timeout: float = 5.0) -> None:
        """End the process in order, or by force after so many seconds; it is gone afterwards."""
        with self._lock:
            child = self._child
        if child is None:
            return
        child.end(timeout)
        with self._lock:
            # While a job is there, the thread that waits for it does this.
            if self._claim is None and self._child is child:
                child.close()
                self._child = None

    # Helpers

    def _converse(self, claim: Claim, say: "Callable[[_Child, Claim], T]") -> T:
        # A process that died before it began, of whatever it did or met between two jobs, has run
        # nothing of this one: it may begin in another.
        try:
            return self._attempt(claim, say)
        except _NotBegun as error:
            if claim.running.cancelled:
                raise ProcessDied(str(error)) from None
        try:
            return self._attempt(claim, say)
        except _NotBegun as error:
            raise ProcessDied(str(error)) from None

    def _attempt(self, claim: Claim, say: "Callable[[_Child, Claim], T]") -> T:
        child = self._begin(claim)
        try:
            return say(child, claim)
        finally:
            claim.running.on_cancel = None
            self._end(child)

    def _load(self, child: "_Child", claim: Claim) -> None:
        # Neither its start nor an import is part of a run, however long they take.
        spec: WorkerSpec = claim.worker
        try:
            child.send(("load", spec.module, spec.name))
            if child.receive(START_TIME) == LOADED:
                child.loaded.add(spec.name)
        except (EOFError, OSError):
            how = f"the process of {claim.job.worker} {child.reap()}"
            raise (ProcessDied(how) if child.late else _NotBegun(how)) from None

    def _run(self, work: tuple[Any, ...], child: "_Child", claim: Claim) -> Outcome:
        running = claim.running
        number, begun = next(child.runs), False

        def tell(reason: EndReason) -> None:
            with contextlib.suppress(OSError):
                child.send(("cancel", number, reason))

        child.run = (number, running)
        try:
            child.send(("run", number, *work))
            running.on_cancel = tell
            if running.cancelled and running.reason is not None:
                tell(running.reason)
            begun = child.receive() == BEGUN
            outcome: Outcome = child.receive()
        except (EOFError, OSError):
            how = f"the process of {claim.job.worker} {child.reap()}"
            raise (ProcessDied(how) if begun else _NotBegun(how)) from None
        else:
            return outcome

    def _begin(self, claim: Claim) -> "_Child":
        with self._lock:
            if self._child is not None and self._child.gone():
                self._child.close()
                self._child = None
            if self._child is None:
                self._child = _Child(self._context)
            self._claim = claim
            return self._child

    def _end(self, child: "_Child") -> None:
        with self._lock:
            self._claim = None
            if child.gone():
                child.close()
                self._child = None


class _NotBegun(Exception):
    # The process is gone, and has not begun what it was sent.
    pass


class _Child:
    """A worker process and the ways to reach it."""

    def __init__(self, context: SpawnContext | ForkServerContext) -> None:
        self._connection, theirs = context.Pipe()
        self._sending = threading.Lock()
        self._pidfd: int | None = None
        self.late: float | None = None
        self.loaded: set[str] = set()
        self.runs = itertools.count(1)
        self.run: tuple[int, Running] | None = None
        self.process = context.Process(target=child_main, args=(theirs,), name="oban-worker")
        try:
            self.process.start()
        except BaseException:
            self._connection.close()
            raise
        finally:
            theirs.close()
        _children.add(self)
        # Processes that a worker forked may hold the connection open longer than it lives.
        with contextlib.suppress(AttributeError, OSError):
            self._pidfd = os.pidfd_open(self.process.pid or 0)

    def send(self, message: tuple[Any, ...]) -> None:
        """Send, from any thread."""
        with self._sending:
            self._connection.send(message)

    def receive(self, timeout: float | None = None) -> Any:
        """Wait for what it says next, killing it after so many seconds; None: for ever.

        That its job was completed is noted, and it says more then.

        Raises:
            EOFError: the process died before.

        """
        while isinstance(said := self._receive(timeout), tuple):
            # It may be about a run that is over, whose worker has left a thread behind.
            if self.run is not None and said == (COMPLETED, self.run[0]):
                self.run[1].completed = True
        return said

    def _receive(self, timeout: float | None) -> Any:
        ready = wait([self._connection, self._ending], timeout)
        if not ready:
            self.late = timeout
            self.process.kill()
        if self._connection not in ready and not self._connection.poll():
            raise EOFError
        return self._connection.recv()

    def gone(self) -> bool:
        """Whether it has ended, also where somebody else in this program has reaped it."""
        return bool(wait([self._ending], 0)) or not self.process.is_alive()

    @property
    def _ending(self) -> int:
        return self.process.sentinel if self._pidfd is None else self._pidfd

    def reap(self) -> str:
        """Wait until it is gone, and say how it went."""
        self.process.join(_LAST_BREATH)
        self.process.kill()
        # Another thread that reaps it may need a moment to note its code. A host that reaps all
        # its children itself has it, and says nothing.
        until = real_monotonic() + _LAST_BREATH
        while (code := self.process.exitcode) is None:
            if real_monotonic() > until:
                return "ended, and somebody else knows how"
            self.process.join(0.05)
        if self.late is not None:
            return f"was not ready within {self.late:g} s"
        if code >= 0:
            return f"ended with exit code {code}"
        try:
            return f"was killed by {signal.Signals(-code).name}"
        except ValueError:
            return f"was killed by signal {-code}"

    def end(self, timeout: float) -> None:
        """End the process, by force after the time-out."""
        with contextlib.suppress(OSError):
            self.send(("stop",))
        self.process.join(timeout)
        self.process.kill()
        self.reap()

    def close(self) -> None:
        """Give up what belongs to a process that is gone."""
        self.reap()
        self._connection.close()
        if self._pidfd is not None:
            os.close(self._pidfd)
            self._pidfd = None
        _children.discard(self)


@atexit.register
def _end_all() -> None:
    # Whose jobs run in them, a tree, has its own turn last: their grace period would be over.
    stop_all()
    # `multiprocessing` would wait for them, and its turn comes after this one.
    for child in list(_children):
        child.process.kill()

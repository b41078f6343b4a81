"""What a host holds of a tree: a handle on its root."""

import atexit
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from oban_actors.actors.errors import CallTimeout, NoProcess
from oban_actors.actors.lifecycle import call, send
from oban_actors.actors.messages import Exit, Name, Ref
from oban_actors.actors.process import Process, await_event, process_of
from oban_actors.actors.reasons import KILLED, Reason
from oban_actors.actors.runtime import Runtime
from oban_actors.actors.safe_logger import SafeLogger
from oban_actors.actors.tree import Node, look
from oban_actors.actors.waits import refuse_below

logger = SafeLogger("oban_actors.actors")

EXIT_TIMEOUT = 30.0
"""Seconds that trees left running have to end in when the interpreter exits, or what their actors
say that they need, if that is more."""


class Root:
    """A running tree: stop it, wait for its end, look at it.

    A root that gives up, having restarted its children too often, ends: `wait` returns the
    reason, `alive` turns false and `on_exit` is called. The program is never exited for it.

    Args:
        ref: the root supervisor.
        runtime: what the tree shares.
        on_exit: called once, with the reason, from the root's last thread.
        owns_runtime: whether the runtime ends with the tree.

    """

    def __init__(
        self,
        ref: Ref,
        runtime: Runtime,
        on_exit: Callable[[Reason], None] | None = None,
        *,
        owns_runtime: bool = True,
    ) -> None:
        self.ref = ref
        self.runtime = runtime
        self._process = process_of(ref)
        if owns_runtime:
            self._at_end(lambda _: runtime.close())
        if on_exit is not None:
            self._at_end(on_exit)
        _ROOTS.add(self)
        self._at_end(lambda _: _ROOTS.discard(self))

    @property
    def alive(self) -> bool:
        """Whether the root runs."""
        return self._process.alive

    @property
    def reason(self) -> Reason | None:
        """Why it ended; None while it runs."""
        return self._process.exit_reason

    def wait(self, timeout: float | None = None) -> Reason | None:
        """Wait until the tree has ended.

        Args:
            timeout: seconds; None is without limit.

        Returns:
            why it ended, or None when it still runs.

        Raises:
            Deadlock: an actor of the tree, or a job that it runs, would wait without limit.

        """
        if timeout is None and self.alive:
            refuse_below(self._process)
        await_event(self._process.exited, timeout)
        return self._process.exit_reason

    def stop(self, timeout: float | None = None) -> Reason:
        """End the tree in order: the children in reverse, then the root.

        Args:
            timeout: seconds; the children's own shutdown times bound it in any case.

        Returns:
            why it ended; that of before, if it had.

        Raises:
            CallTimeout: it still runs after `timeout` seconds; it goes on ending.
            Deadlock: an actor of the tree called it, or a job that it runs; they can `tell` the
                root `Exit()`.

        """
        if self.alive:
            refuse_below(self._process)
        request = Exit()
        send(self.ref, request)
        if not await_event(self._process.exited, timeout):
            raise CallTimeout(self._process.label, request, timeout or 0.0)
        thread = self._process.thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(1.0)
        return self._process.exit_reason or KILLED

    def tree(self) -> Node:
        """Look at all actors of the tree, sending them no message."""
        return look(self._process)

    def whereis(self, name: Name) -> Ref | None:
        """Find the living actor of a name."""
        return self.runtime.registry.whereis(name)

    def ask(self, name: Name, message: object, timeout: float | None = None) -> Any:
        """Ask whoever has a name now; errors as in `GenServer.ask`."""
        ref = self.whereis(name)
        if ref is None:
            raise NoProcess(name, message)
        return call(ref, message, timeout)

    def tell(self, name: Name, message: object) -> bool:
        """Send whoever has a name now a message; False when nobody has."""
        ref = self.whereis(name)
        return ref is not None and send(ref, message)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def _at_end(self, callback: Callable[[Reason], None]) -> None:
        process = self._process
        with process.lock:
            reason = process.exit_reason
            if reason is None:
                process.watchers.append(callback)
        if reason is not None:
            callback(reason)

    def _stop_at_exit(self) -> None:
        seconds = max(EXIT_TIMEOUT, exit_time(self._process))
        try:
            self.stop(seconds)
        except CallTimeout:
            logger.error(  # noqa: TRY400 (where it waited says nothing)
                "%s did not end within %g seconds and is given up, as the interpreter exits:\n%s",
                self._process.label,
                seconds,
                self.tree(),
            )


def exit_time(process: Process) -> float:
    """Give the seconds that an actor and all below it say that they may take to end in order."""
    below = process.children() if process.children else ()
    # One after the other, as a supervisor ends its children.
    return process.exit_time + sum(exit_time(one.process) for one in below if one.process)


_ROOTS: set[Root] = set()
"""Those that run, also where nobody has kept a handle."""


def stop_all() -> None:
    """Stop all that run, in order, as the interpreter exits."""
    for root in list(_ROOTS):
        root._stop_at_exit()  # noqa: SLF001 (its own module)


atexit.register(stop_all)

"""Calls that reach the actors of the tree, or look at them."""

from typing import Any

from oban_actors.actors import Name, Node, NoProcess, Ref, send
from oban_actors.actors.process import process_of
from oban_actors.actors.tree import look
from oban_actors.calls.base import Calls


class TreeCalls(Calls):
    """The tree of an instance; see `Oban`."""

    def whereis(self, name: Name) -> Ref:
        """Find the living actor of a name: `stager`, `peer`, `notifier`, `pulse`, `oban`.

        A queue's are `("producer", queue)`, `("foreman", queue)` and `("watchman", queue)`, a
        plugin's `("plugin", id)`. Mirrors `Oban.Registry.whereis/2`.

        Raises:
            NoProcess: nobody has the name now.
            ForkedError: this process is a fork of the one that has used this object.

        """
        self._refuse_fork()
        ref = self._runtime.registry.whereis(name)
        if ref is None:
            raise NoProcess(name)
        return ref

    def ask(self, name: Name, message: object, timeout: float | None = None) -> Any:
        """Ask whoever has a name now, and wait for the answer.

        Args:
            name: as in `whereis`.
            message: what to ask.
            timeout: seconds; 5 by default.

        Raises:
            NoProcess: nobody has the name now.
            ServerCrashed: it died over the question.
            CallTimeout: no answer came in time.
            Deadlock: it would wait for itself, directly or through others.
            ForkedError: this process is a fork of the one that has used this object.

        """
        return self.whereis(name).ask(message, timeout=timeout)

    def tell(self, name: Name, message: object) -> bool:
        """Send whoever has a name now a message; False when nobody has."""
        self._refuse_fork()
        ref = self._runtime.registry.whereis(name)
        return ref is not None and send(ref, message)

    @property
    def alive(self) -> bool:
        """Whether the tree runs, under whichever supervisor."""
        return self._runtime.registry.whereis("oban") is not None

    @property
    def abandoned(self) -> int:
        """How many actors of its trees would not end, and were left to themselves.

        The thread of each goes on, and holds what it held, until it ends by itself.
        """
        return self._runtime.abandoned

    def tree(self) -> Node:
        """Look at all actors of the tree, sending them no message.

        Raises:
            NoProcess: the tree does not run.

        """
        return look(process_of(self.whereis("oban")))

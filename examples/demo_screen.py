"""How the demo shows itself: plain lines, or a live display where rich and a terminal are there."""

import os
import shutil
import sys
from types import TracebackType
from typing import Protocol, Self

from examples.demo_watch import Watch
from oban_actors.actors import Root

PLAIN_EVERY = 0.5
"""Seconds between two plain lines."""

NARROWEST = 70
"""Columns that the display needs."""


class Screen(Protocol):
    """Shows the demo while it runs."""

    def __enter__(self) -> Self:
        """Begin."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Leave the terminal as it was."""

    def update(self) -> None:
        """Show how things are now."""


def choose(root: Root, watch: Watch, title: str, *, plain: bool) -> Screen:
    """Take the display if it can be had.

    Args:
        root: the tree to show.
        watch: what is known of the jobs.
        title: what the demo does.
        plain: whether lines are wanted anyway.

    """
    narrow = shutil.get_terminal_size().columns < NARROWEST
    if plain or narrow or not sys.stdout.isatty() or os.environ.get("TERM") == "dumb":
        return PlainScreen(root, watch, title)
    try:
        from examples.demo_rich import RichScreen  # noqa: PLC0415 (rich may not be installed)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != "rich":
            raise
        return PlainScreen(root, watch, title)
    return RichScreen(root, watch, title)


class PlainScreen:
    """Lines of text, for logs and pipes."""

    def __init__(self, root: Root, watch: Watch, title: str) -> None:
        self._root = root
        self._watch = watch
        self._title = title
        self._next = 0.0

    def __enter__(self) -> Self:
        """Say what is to come."""
        print(self._title)
        print(self._root.tree(), flush=True)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Show the tree once more."""
        if error is None:
            self._next = 0.0
            self.update()
            print(self._root.tree(), flush=True)

    def update(self) -> None:
        """Print the news, and now and then a line on the states."""
        for line in self._watch.news():
            print(line)
        elapsed = self._watch.elapsed()
        if elapsed < self._next:
            return
        self._next = elapsed + PLAIN_EVERY
        counts: dict[str, int] = {}
        for states in self._watch.states().values():
            for state, count in states.items():
                counts[state] = counts.get(state, 0) + count
        shown = "  ".join(f"{state} {counts[state]:>4}" for state in sorted(counts, reverse=True))
        print(f"{elapsed:5.2f} s  {shown}  late: {self._watch.lateness()}", flush=True)

"""The demo's live display: the tree, the queues, the states and how late jobs are."""

from collections import Counter
from types import TracebackType
from typing import Self

from rich.bar import Bar
from rich.console import Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from examples.demo_watch import Watch
from oban_actors.actors import Node, Root

STATE_STYLES = {
    "idle": "green",
    "busy": "yellow",
    "waiting": "cyan",
    "starting": "magenta",
    "restarting": "magenta",
}
DONE = ("completed", "cancelled", "discarded")
BUCKETS = (5, 10, 20, 30, 50, 100, 1000)
BLOCKS = " ▁▂▃▄▅▆▇█"
BAR = "cyan"
MOST_NEWS = 3


class RichScreen:
    """Redraws the whole picture at each update; the last one stays on the terminal."""

    def __init__(self, root: Root, watch: Watch, title: str) -> None:
        self._root = root
        self._watch = watch
        self._title = title
        self._news: list[str] = []
        self._live = Live(auto_refresh=False, vertical_overflow="crop")

    def __enter__(self) -> Self:
        """Take the terminal."""
        self._live.__enter__()
        self.update()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Draw the last picture and give the terminal back."""
        if error is None:
            self.update()
        self._live.__exit__(kind, error, trace)

    def update(self) -> None:
        """Draw how things are now."""
        self._news = [*self._news, *self._watch.news()][-MOST_NEWS:]
        self._live.update(self._picture(), refresh=True)

    def _picture(self) -> RenderableType:
        columns = Table.grid(expand=True)
        columns.add_column(ratio=4)
        columns.add_column(ratio=6)
        columns.add_row(
            Panel(_tree(self._root.tree()), title="tree", title_align="left", border_style="dim"),
            Panel(self._queues(), title="queues", title_align="left", border_style="dim"),
        )
        below = Panel(self._lateness(), title="late", title_align="left", border_style="dim")
        return Group(_line(self._title, "bold"), columns, below)

    def _queues(self) -> RenderableType:
        table = Table.grid(expand=True, padding=(0, 1))
        table.add_column(no_wrap=True)
        table.add_column(ratio=1)
        for _ in range(3):
            table.add_column(justify="right", no_wrap=True)
        table.add_row("", "", *(Text(name, "dim") for name in ("waiting", "running", "done")))
        found = self._watch.states()
        for queue, states in found.items():
            table.add_row(*_row(queue, states))
        if len(found) > 1:
            table.add_row(*_row("all", sum(found.values(), Counter())), style="bold")
        return table

    def _lateness(self) -> RenderableType:
        late = self._watch.lateness()
        lines = [_line(f"{self._watch.elapsed():5.2f} s  {late}", "bold")]
        if late.values:
            lines.append(_histogram(late.values))
        lines += [_line(line, "dim") for line in self._watch.recent_passes()]
        lines += [_line(line, "red") for line in self._news]
        return Group(*lines)


def _row(queue: str, states: Counter[str]) -> list[RenderableType]:
    done = sum(states[state] for state in DONE)
    running, total = states["executing"], max(1, states.total())
    bar = Bar(total, 0, done, color="green" if done == total else BAR)
    return [Text(queue), bar, str(total - done - running), str(running), str(done)]


def _line(text: str, style: str) -> Text:
    return Text(text, style=style, no_wrap=True, overflow="ellipsis")


def _tree(node: Node) -> Tree:
    label = _line(f"{node.id} ", "")
    label.append(node.state, STATE_STYLES.get(node.state, "red"))
    if node.handling and node.state != "idle":
        label.append(f" {node.handling}", "dim")
    if node.restarts:
        label.append(f" ↻ {node.restarts}", "bold red")
    tree = Tree(label, guide_style="dim")
    for child in node.children:
        tree.children.append(_tree(child))
    return tree


def _histogram(values: tuple[float, ...]) -> Text:
    """Draw how many jobs were how late, one block for each range of milliseconds."""
    line, low = _line("", ""), 0
    counts = []
    for high in BUCKETS:
        counts.append(sum(low <= value < high or (low == 0 and value < 0) for value in values))
        low = high
    counts.append(sum(value >= low for value in values))
    names = [f"<{high}" for high in BUCKETS] + [f">={low}"]
    for name, count in zip(names, counts, strict=True):
        height = 0 if count == 0 else max(1, round(count / max(counts) * (len(BLOCKS) - 1)))
        line.append(f"{name} ", "dim").append(BLOCKS[height] * 2, BAR).append("  ")
    return line.append("ms", "dim")

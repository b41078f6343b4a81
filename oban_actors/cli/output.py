"""What a command says: tables for people, JSON for programs, and nothing that data could forge."""

import itertools
import json
import logging
import os
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table
from rich.text import Text

from oban_actors.errors import ConfigError

PLAIN_WIDTH = 200
"""Columns of a table that goes to no terminal, so that nothing is cut off for a program's eye."""

Advance = Callable[[int], None]


def safe(value: object) -> str:
    """Show text on one line with every character that a terminal could obey written out."""
    text = value if isinstance(value, str) else str(value)
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def cell(value: object, style: str = "") -> Text:
    """Make text for a table, in which nothing is markup."""
    return Text("" if value is None else safe(value), style=style)


def moment(value: datetime | None) -> str | None:
    """Write a moment to the second, in UTC."""
    return None if value is None else value.strftime("%Y-%m-%d %H:%M:%SZ")


def duration(seconds: float | None) -> str | None:
    """Write a time in the two units that tell most of it."""
    if seconds is None:
        return None
    sign, left = ("-" if seconds < 0 else ""), int(abs(seconds))
    for size, unit, small, lesser in _UNITS:
        if left >= size:
            return f"{sign}{left // size}{unit} {left % size // small}{lesser}"
    return f"{seconds:.1f}s" if left < 10 else f"{sign}{left}s"  # noqa: PLR2004 (tenths of what is short)


_UNITS = ((86_400, "d", 3_600, "h"), (3_600, "h", 60, "m"), (60, "m", 1, "s"))


class Output:
    """Where a command's result goes, and in which form.

    Attributes:
        json: whether a program reads it.
        quiet: whether progress is left out.

    """

    def __init__(self) -> None:
        self.json = False

    def result(self, data: Any, show: Callable[[Console], None]) -> None:
        """Say a result.

        Args:
            data: for a program.
            show: says the same to a person.

        """
        if self.json:
            sys.stdout.write(json.dumps(data, default=_plain) + "\n")
        else:
            show(_console(sys.stdout))

    def note(self, text: str) -> None:
        """Say on stderr what a person may want to know besides."""
        sys.stderr.write(f"{safe(text)}\n")

    @contextmanager
    def progress(self, what: str, total: int | None) -> Iterator[Advance]:
        """Show how far long work has come, on stderr and only to a terminal.

        Args:
            what: is being done.
            total: how much there is to do, None where that can't be told.

        """
        console = _console(sys.stderr)
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
        )
        shown = columns if total is not None else columns[:2]
        with Progress(
            *shown, console=console, transient=True, disable=not console.is_terminal
        ) as bar:
            task = bar.add_task(safe(what), total=total)
            yield lambda count: bar.update(task, advance=count)


def table(
    columns: Sequence[str],
    rows: Iterable[Sequence[object]],
    *,
    right: str = "",
    head: bool = True,
) -> Table:
    """Make a table.

    Args:
        columns: their heads.
        rows: of whatever is shown as text; a `Text` stays as it is.
        right: heads of the columns that stand to the right, separated by blanks.
        head: whether the heads are shown, default True.

    """
    made = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, show_header=head)
    for name in columns:
        made.add_column(name, justify="right" if name in right.split() else "left", overflow="fold")
    for row in rows:
        made.add_row(*(each if isinstance(each, Text) else cell(each) for each in row))
    return made


def fail(text: str) -> None:
    """Say in one line on stderr what went wrong."""
    sys.stderr.write(f"error: {safe(' '.join(text.split()))}\n")


def show_import(error: BaseException) -> None:
    """Show on stderr the way through a module of the host's that can't be imported, if there is.

    None is there where the module itself was not found: the error says all.
    """
    cause = error.__cause__
    while cause is not None and isinstance(cause, ConfigError):
        cause = cause.__cause__
    if cause is None:
        return
    found = traceback.TracebackException.from_exception(cause)
    outside = list(itertools.takewhile(lambda frame: not _imports(frame), found.stack))
    within = found.stack[len(outside) :]
    if not (isinstance(cause, SyntaxError) and within) and all(map(_imports, within)):
        return
    found.stack[:] = [frame for frame in within if not _imports(frame)]
    for line in "".join(found.format()).splitlines():
        sys.stderr.write(f"{safe(line)}\n")


def _imports(frame: traceback.FrameSummary) -> bool:
    return frame.filename.startswith("<frozen importlib")


def log_to_stderr(level: int, form: str) -> None:
    """Let all loggers write to stderr, a line for a record but for tracebacks."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_SafeFormatter(form))
    logging.basicConfig(level=level, handlers=[handler], force=True)


class _SafeFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        # Set in, so that a line break in what a job says begins no record.
        return "\n  ".join(safe(line) for line in super().format(record).split("\n"))


def _console(file: Any) -> Console:
    columns = os.environ.get("COLUMNS", "")
    wide = int(columns) if columns.isdecimal() else 0
    width = None if file.isatty() else wide or PLAIN_WIDTH
    return Console(file=file, width=width, markup=False, highlight=False, emoji=False)


def _plain(value: object) -> object:
    return value.isoformat() if isinstance(value, datetime) else str(value)

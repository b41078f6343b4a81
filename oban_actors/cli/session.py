"""Session: what a command was told besides its own arguments, and the instance that it is about."""

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

import click

from oban_actors.cli.output import Output
from oban_actors.oban import Oban
from oban_actors.settings import Settings, load
from oban_actors.settings.names import DATABASE

F = TypeVar("F", bound=Callable[..., Any])

_NAMES = {
    DATABASE: "--database-url",
    "prefix": "--prefix",
    "name": "--name",
    "queues": "--queues",
    "imports": "--import",
    "health": "--health-port",
}


@dataclass(slots=True)
class Session:
    """One run of the command line.

    Attributes:
        args: all words of the command.
        given: the options that every command has, those that were given.
        out: where results go.
        debug: whether an error is shown with its traceback.

    """

    args: Sequence[str] = ()
    given: dict[str, Any] = field(default_factory=dict, repr=False)
    out: Output = field(default_factory=Output)
    debug: bool = False

    def settings(self, *, plugins: bool = False, **options: Any) -> Settings:
        """Load the settings, the command's options before all others.

        Args:
            plugins: whether plugins are made too, for which modules of the host's are imported.
            **options: keyword arguments of `Oban`.

        Raises:
            ConfigError: something is wrong; where it came from is named.

        """
        names = ("prefix", "name")
        given: dict[str, Any] = {n: self.given[n] for n in names if n in self.given}
        if not plugins:
            given["plugins"] = None
        return load(
            self.given.get("database_url"),
            config_file=self.given.get("config"),
            names=_NAMES,
            **given,
            **options,
        )

    @contextmanager
    def oban(self, **options: Any) -> Iterator[Oban]:
        """Give an instance whose tree does not run, and close its connections afterwards."""
        one = self.settings(**options).make(Oban)
        try:
            yield one
        finally:
            one.stop()


def common(command: F) -> F:
    """Add the options that every command has, before or after its name."""
    for option in reversed(_COMMON):
        command = option(command)
    return command


def pass_session(command: Callable[..., Any]) -> Callable[..., Any]:
    """Call a command with the session as its first argument."""
    return click.make_pass_decorator(Session)(command)


def examples(*lines: str, title: str = "Examples:") -> str:
    """Make the end of a command's help: lines that can be copied."""
    # Without the mark they would be wrapped as one paragraph.
    return "\n".join(["\b", title, *(f"  {line}" for line in lines)])


def add_working_directory() -> None:
    """Let modules of the directory be found in which the command is run, as `python -m` does."""
    here = os.getcwd()  # noqa: PTH109 (as sys.path has it)
    if here not in sys.path and "" not in sys.path:
        sys.path.insert(0, here)


# Helpers


def _keep(context: click.Context, parameter: click.Parameter, value: Any) -> None:
    if value is None or value is False:
        return
    session = context.ensure_object(Session)
    if parameter.name == "debug":
        session.debug = True
    elif parameter.name == "json":
        session.out.json = True
    else:
        session.given[str(parameter.name)] = value


def _option(*names: str, **terms: Any) -> Callable[[F], F]:
    return click.option(*names, expose_value=False, callback=_keep, **terms)


_COMMON: tuple[Callable[[Any], Any], ...] = (
    _option(
        "--config",
        metavar="FILE",
        help="TOML file with options; else OBAN_CONFIG, oban.toml or [tool.oban_actors].",
    ),
    _option("--database-url", metavar="URL", help="Where the jobs are; else OBAN_DATABASE_URL."),
    _option("--prefix", metavar="SCHEMA", help="PostgreSQL schema of the tables."),
    _option("--name", metavar="NAME", help="The instance's name, shared by its nodes."),
    _option("--json", is_flag=True, help="Write the result as JSON, for programs."),
    _option("--debug", is_flag=True, help="Show an error with its traceback."),
)

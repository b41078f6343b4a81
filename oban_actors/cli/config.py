"""`config check`: what the settings come to, without a database."""

import json
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from typing import Any

import click

from oban_actors.cli.output import table
from oban_actors.cli.session import Session, common, examples, pass_session
from oban_actors.config import Config
from oban_actors.oban import Oban
from oban_actors.settings import Settings
from oban_actors.worker_registry import import_workers, registered

_HIDDEN = ("identity", "clock")
_SECRET = ("notifier.listen_url",)


@click.group()
@common
def config() -> None:
    """Look at the configuration."""


@config.command(
    epilog=examples(
        "oban-actors config check",
        "OBAN_STAGER_LIMIT=100 oban-actors config check --config deploy/oban.toml --json",
    ),
)
@common
@pass_session
def check(session: Session) -> None:
    """Check the configuration and say where each option comes from. Needs no database.

    Modules with workers and plugins are imported. Exit code 2: something is wrong, and is named
    with the variable or file to be mended.
    """
    settings = session.settings(plugins=True)
    settings.make(Oban).stop()
    import_workers(settings.config.imports)
    options = list(_options(settings))
    workers = sorted(registered())
    data = {
        "file": settings.file,
        "database": settings.address(),
        "options": [
            {"option": name, "value": value, "source": source} for name, value, source in options
        ],
        "workers": workers,
    }
    session.out.result(
        data,
        lambda console: console.print(
            table(
                ("option", "value", "from"),
                [
                    ("database", settings.address(), _source(settings, "database_url")),
                    *((name, _text(value), source) for name, value, source in options),
                    ("workers", " ".join(workers), ""),
                ],
            )
        ),
    )


def _options(settings: Settings) -> Iterator[tuple[str, Any, str]]:
    for name, value in _leaves(settings.config):
        yield name, value, _source(settings, name)


def _source(settings: Settings, path: str) -> str:
    origin = settings.origins.get(path, settings.origins.get(path.partition(".")[0]))
    # A keyword argument has no name of its own; commands give few of them.
    return "default" if origin is None else origin or "command line"


def _leaves(config: Config) -> Iterator[tuple[str, Any]]:
    for each in fields(config):
        value = getattr(config, each.name)
        if each.name in _HIDDEN:
            continue
        if each.name == "queues":
            yield from ((f"queues.{name}", _queue(how)) for name, how in value.items())
        elif each.name == "plugins":
            yield from ((f"plugins[{at}]", type(one).__name__) for at, one in enumerate(value))
        elif is_dataclass(value):
            for leaf in fields(value):
                path = f"{each.name}.{leaf.name}"
                yield path, _shown(path, getattr(value, leaf.name))
        else:
            yield each.name, _shown(each.name, value)


def _shown(path: str, value: Any) -> Any:
    if path in _SECRET and value is not None:
        return "(given, not shown)"
    return list(value) if isinstance(value, tuple) else value


def _text(value: Any) -> str:
    if value is None:
        return "none"
    return value if isinstance(value, str) else json.dumps(value)


def _queue(how: Any) -> dict[str, Any]:
    return {each.name: _plain(getattr(how, each.name)) for each in fields(how)}


def _plain(value: Any) -> Any:
    return value if isinstance(value, int | float | str) else type(value).__name__

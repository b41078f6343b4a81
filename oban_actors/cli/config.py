"""`config check`: what the settings come to, without a database."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, fields, is_dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import click

from oban_actors.cli.exits import DONE, FAILED
from oban_actors.cli.output import table
from oban_actors.cli.session import Session, common, examples, pass_session
from oban_actors.config import Config
from oban_actors.oban import Oban
from oban_actors.plugins import Cron
from oban_actors.plugins.cron_entry import Entry
from oban_actors.settings import Settings
from oban_actors.validation import nearest
from oban_actors.worker_registry import find_worker, import_workers, registered

_HIDDEN = ("identity", "clock")
_SECRET = ("notifier.listen_url",)
_VEILED = "(given, not shown)"
_SOME_MINUTE = datetime(2000, 1, 1, tzinfo=UTC)


@click.group()
@common
def config() -> None:
    """Look at the configuration."""


@config.command(
    epilog=examples(
        "oban-actors config check",
        "OBAN_STAGER_LIMIT=100 oban-actors config check --config deploy/oban.toml --json",
        "oban-actors config check --strict",
    ),
)
@click.option("--strict", is_flag=True, help="Exit with 1 where there is something to be noted.")
@common
@pass_session
def check(session: Session, strict: bool) -> int:  # noqa: FBT001 (click's way)
    """Check the configuration and say where each option comes from. Needs no database.

    Modules with workers and plugins are imported. Exit code 2: something is wrong, and is named
    with the variable or file to be mended. What may be right, but only together with other nodes,
    is noted: an entry of the crontab whose worker no module here has, or whose queue does not run
    here.
    """
    settings = session.settings(plugins=True)
    settings.make(Oban).stop()
    import_workers(settings.config.imports)
    options = list(_options(settings))
    workers, notes = sorted(registered()), list(_notes(settings.config))
    data = {
        "file": settings.file,
        "database": settings.address(),
        "options": [
            {"option": name, "value": value, "source": source} for name, value, source in options
        ],
        "workers": workers,
        "notes": notes,
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
    if not session.out.json:
        for note in notes:
            session.out.note(f"note: {note}")
    return FAILED if strict and notes else DONE


def _options(settings: Settings) -> Iterator[tuple[str, Any, str]]:
    for name, value in _leaves(settings.config):
        yield name, value, _source(settings, name)
    given = _source(settings, "plugins")
    for at, plugin in enumerate(settings.config.plugins):
        yield f"plugins[{at}]", type(plugin).__name__, given
        for name, value, default in _plugin(plugin):
            yield f"plugins[{at}].{name}", value, "default" if default else given


def _source(settings: Settings, path: str) -> str:
    origin = settings.origins.get(path, settings.origins.get(path.partition(".")[0]))
    # A keyword argument has no name of its own; commands give few of them.
    return "default" if origin is None else origin or "command line"


def _leaves(config: Config) -> Iterator[tuple[str, Any]]:
    for each in fields(config):
        value = getattr(config, each.name)
        if each.name in _HIDDEN or each.name == "plugins":
            continue
        if each.name == "queues":
            yield from ((f"queues.{name}", _queue(how)) for name, how in value.items())
        elif is_dataclass(value):
            for leaf in fields(value):
                path = f"{each.name}.{leaf.name}"
                yield path, _shown(path, getattr(value, leaf.name))
        else:
            yield each.name, _shown(each.name, value)


def _plugin(plugin: Any) -> Iterator[tuple[str, Any, bool]]:
    """Give a plugin's options, and whether they have their defaults."""
    if not is_dataclass(plugin):
        return
    own = type(plugin).__module__.startswith("oban_actors.")
    for each in fields(plugin):
        if not each.init:
            continue
        value = getattr(plugin, each.name)
        if isinstance(plugin, Cron) and each.name == "crontab":
            for at, entry in enumerate(plugin.entries):
                yield f"crontab[{at}]", _entry(entry), False
            continue
        default = each.default if each.default_factory is MISSING else each.default_factory()
        # What a plugin of the host's has for its options may be a secret.
        plain = own or value is None or isinstance(value, int | float)
        yield each.name, _value(value) if plain else _VEILED, value == default


def _entry(entry: Entry) -> dict[str, Any]:
    schedule = entry.schedule
    about = {"expression": schedule.expression, "timezone": schedule.timezone}
    return {**about, "worker": entry.worker, "queue": entry.build(_SOME_MINUTE).queue}


def _value(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _value(each) for key, each in value.items()}
    if isinstance(value, timedelta):
        return value.total_seconds()
    return list(value) if isinstance(value, tuple) else value


def _notes(config: Config) -> Iterator[str]:
    """Say what is right only where other nodes have what this one has not."""
    for at, plugin in enumerate(config.plugins):
        for number, entry in enumerate(plugin.entries if isinstance(plugin, Cron) else ()):
            place = f"plugins[{at}].crontab[{number}]"
            spec = find_worker(entry.worker)
            if spec is None:
                near = nearest(entry.worker, registered())
                hint = f", did you mean {near!r}?" if near else ""
                yield f"{place}: no imported module has a worker {entry.worker!r}{hint}"
            queue = entry.build(_SOME_MINUTE).queue
            # Where the worker is unknown, so is the queue that it would have.
            if queue not in config.queues and (spec is not None or "queue" in entry.options):
                yield f"{place}: its queue {queue!r} does not run on this node"


def _shown(path: str, value: Any) -> Any:
    if path in _SECRET and value is not None:
        return _VEILED
    return list(value) if isinstance(value, tuple) else value


def _text(value: Any) -> str:
    if value is None:
        return "none"
    return value if isinstance(value, str) else json.dumps(value)


def _queue(how: Any) -> dict[str, Any]:
    return {each.name: _plain(getattr(how, each.name)) for each in fields(how)}


def _plain(value: Any) -> Any:
    return value if isinstance(value, int | float | str) else type(value).__name__

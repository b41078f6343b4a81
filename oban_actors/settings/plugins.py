"""Plugins by name, as a file or a variable gives them."""

import importlib
from collections.abc import Callable, Mapping
from typing import Any

from oban_actors.error_text import head
from oban_actors.errors import ConfigError
from oban_actors.validation import OPTIONS, shown

KNOWN = {
    "cron": "oban_actors.plugins.cron:Cron",
    "lifeline": "oban_actors.plugins.lifeline:Lifeline",
    "pruner": "oban_actors.plugins.pruner:Pruner",
    "reindexer": "oban_actors.plugins.reindexer:Reindexer",
}
"""Those that come with the library; any other is named by its place, `my.module:Class`."""


def build(given: Any) -> Any:
    """Make plugins of what was given; a list of ready ones is left as it is.

    Args:
        given: options by the plugin's name, `true` for the defaults, `false` for none of it; or
            a list of names.

    Raises:
        ConfigError: a name is unknown, a class can't be imported, or its options are wrong.

    """
    if isinstance(given, list | tuple) and any(isinstance(each, str) for each in given):
        if not all(isinstance(each, str) for each in given):
            raise OPTIONS.refusal(
                "plugins", "a list of names, or a table of options by name", given
            )
        given = dict.fromkeys(given, True)
    if not isinstance(given, Mapping):
        return given
    return [_build(name, options) for name, options in given.items() if options is not False]


def _build(name: str, options: Any) -> Any:
    path = f"plugins.{name}"
    made = _class(name)
    if options is True:
        options = {}
    if not isinstance(options, Mapping):
        raise OPTIONS.refusal(path, "a table of options, true or false", options)
    if name in _READ:
        options = _READ[name](options)
    try:
        return made(**options)
    except ConfigError as error:
        raise ConfigError(f"invalid value for {path!r}: {error}") from None
    except (TypeError, ValueError) as error:
        raise ConfigError(f"invalid value for {path!r}: {shown(str(error))}") from error


def _class(name: str) -> Any:
    place = KNOWN.get(name, name)
    if ":" not in place:
        OPTIONS.known([name], list(KNOWN), owner="plugins")
    module, _, attribute = place.partition(":")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (Exception, SystemExit) as error:
        # Whatever a module of the host's raises.
        why = shown(head(error).removeprefix("** "))
        raise ConfigError(
            f"invalid value for 'plugins': {place!r} can't be imported: {why}"
        ) from error
    if not callable(found):
        raise ConfigError(f"invalid value for 'plugins': expected {place!r} to be a class")
    return found


def _cron(options: Mapping[str, Any]) -> dict[str, Any]:
    """Read entries that are tables, `[[plugins.cron.crontab]]`, beside those that are lists."""
    crontab = options.get("crontab")
    if not isinstance(crontab, list):
        return dict(options)
    return {**options, "crontab": [_entry(at, each) for at, each in enumerate(crontab)]}


def _entry(at: int, given: Any) -> Any:
    if not isinstance(given, Mapping):
        return given
    rest = dict(given)
    try:
        return [rest.pop("expression"), rest.pop("worker"), rest]
    except KeyError as error:
        path = f"plugins.cron.crontab[{at}]"
        raise ConfigError(f"invalid value for {path!r}: missing required option {error}") from None


_READ: Mapping[str, Callable[[Mapping[str, Any]], dict[str, Any]]] = {"cron": _cron}

"""Options from variables of the environment: text, read as the option's kind asks for."""

import json
import logging
import re
from collections.abc import Callable, Iterator, Mapping
from types import NoneType
from typing import Any

from oban_actors.errors import ConfigError
from oban_actors.options import QueueOptions
from oban_actors.settings.layers import Given, spread
from oban_actors.settings.names import OPTIONS_BY_PATH, PARTS, PREFIX, Option
from oban_actors.validation import OPTIONS, nearest, shown

logger = logging.getLogger("oban_actors")

CONFIG = "OBAN_CONFIG"
"""The variable that names the file."""

_TRUE = ("true", "yes", "on", "1")
_FALSE = ("false", "no", "off", "0")
_NONE = ("none", "null")
_SERVICE = re.compile(
    r"_SERVICE_(HOST|PORT(_\w+)?)$|_PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?$"
)
_ADDRESS = re.compile(r"(tcp|udp|sctp)://[0-9a-fA-F.:\[\]]+:\d+")

VARIABLES = {option.variable: option for option in OPTIONS_BY_PATH.values()}
"""Options by the variable that gives them."""


def read(environ: Mapping[str, str]) -> Iterator[Given]:
    """Read the options that variables give; empty ones give none.

    What is given for a part as a whole comes first, whatever order they are in. Variables of
    services, which Kubernetes adds for what is called `oban-health`, say, are left alone.

    Raises:
        ConfigError: a variable is of a part that has no such option, or can't be read.

    """
    given: list[tuple[Option, str]] = []
    for variable, text in environ.items():
        option = VARIABLES.get(variable)
        if _SERVICE.search(variable) or _ADDRESS.fullmatch(text):
            continue
        if option is None:
            _check_unknown(variable)
        elif text.strip():
            given.append((option, text.strip()))
    for option, text in sorted(given, key=lambda each: len(each[0].path)):
        yield from _given(option, text)


def unknown(environ: Mapping[str, str]) -> dict[str, str]:
    """Find variables that look like misspelt ones of ours: by name, the nearest that there is."""
    names = [name for name in environ if name.startswith(PREFIX) and name not in VARIABLES]
    near = {name: nearest(name, VARIABLES) for name in names if name != CONFIG}
    return {name: found for name, found in near.items() if found is not None}


# Helpers


def _check_unknown(variable: str) -> None:
    for part, names in PARTS.items():
        start = f"{PREFIX}{part.upper()}_"
        if variable.startswith(start):
            known = [f"{start}{name.upper()}" for name in names]
            try:
                OPTIONS.known([variable], known, owner=part)
            except ConfigError as error:
                message = str(error).replace("unknown option", "unknown variable", 1)
                raise ConfigError(f"{variable}: {message}") from None


def _given(option: Option, text: str) -> list[Given]:
    value = _value(option, text)
    if len(option.path) > 1 or not isinstance(value, Mapping) or not value:
        return [Given(option.path, value, option.variable)]
    try:
        return list(spread({option.path[0]: value}, option.variable))
    except ConfigError as error:
        raise ConfigError(f"{option.variable}: {error}") from None


def _value(option: Option, text: str) -> Any:
    try:
        return _read(option, text)
    except ValueError as error:
        if isinstance(error, ConfigError):
            raise ConfigError(f"{option.variable}: {error}") from None
        raise


def _read(option: Option, text: str) -> Any:
    path = ".".join(option.path)
    if option.path in _SPECIAL:
        return _SPECIAL[option.path](path, text)
    if text.lower() in _NONE and (NoneType in option.kinds or option.path[0] in PARTS):
        return None
    for kind in option.kinds:
        if (value := _typed(kind, text)) is not None:
            return value
    if option.path[0] in PARTS and len(option.path) == 1:
        return _part(path, text)
    # What it is not, the option's own check says.
    return text


def _typed(kind: Any, text: str) -> Any:
    if kind is bool and text.lower() in (*_TRUE, *_FALSE):
        return text.lower() in _TRUE
    if kind == tuple[str, ...]:
        return _words(text)
    return _number(kind, text) if kind in (int, float) else None


def _number(kind: Callable[[str], float], text: str) -> float | None:
    try:
        return kind(text)
    except ValueError:
        return None


def _part(path: str, text: str) -> Any:
    if text.lower() in _FALSE:
        return False
    if text.startswith("{"):
        return _json(path, text, "a JSON object")
    return int(text) if text.isdecimal() else text


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def _plugins(path: str, text: str) -> Any:
    if text.lower() in (*_NONE, *_FALSE):
        return None
    return _json(path, text, "a JSON object of plugins by name, or none")


def queues(path: str, text: str) -> Any:
    """Read queues as `mailers=10,media=4`, as a JSON object, or `none`.

    Raises:
        ConfigError: it is none of these.

    """
    if text.lower() in (*_NONE, *_FALSE):
        return None
    expected = "queues as name=limit, separated by commas, a JSON object, or none"
    if text.startswith("{"):
        return _json(path, text, expected)
    found: dict[str, int | QueueOptions] = {}
    for word in _words(text):
        name, mark, limit = word.rpartition("=")
        number = _number(int, limit)
        if not mark or not name.strip() or number is None:
            raise OPTIONS.veiled(path, expected, shown(word))
        if name.strip() in found:
            raise ConfigError(f"invalid value for {path!r}: found duplicate queues: {shown(name)}")
        found[name.strip()] = int(number)
    return found


def _json(path: str, text: str, expected: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise OPTIONS.veiled(path, expected, "text that is no JSON") from None


def _unique_keys(path: str, text: str) -> Any:
    return _json(path, text, "a JSON array") if text.startswith("[") else _words(text)


_SPECIAL: Mapping[tuple[str, ...], Callable[[str, str], Any]] = {
    ("queues",): queues,
    ("plugins",): _plugins,
    ("unique_keys",): _unique_keys,
    ("unique_meta_keys",): _unique_keys,
}

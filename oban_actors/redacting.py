"""What a worker's jobs are asked to keep to themselves: `redact`, and texts without it."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final
from urllib.parse import quote, quote_plus

from oban_actors import error_text
from oban_actors.errors import RedactedError
from oban_actors.validation import OPTIONS

REDACTED: Final = "[redacted]"
"""What stands in place of a value."""

KEY: Final = "redact"
"""Key of a job's meta that says what of its args is not shown, to those without its worker."""

LEAST: Final = 4
"""Characters that a value must have to be looked for in texts: others stand there by chance."""

MOST: Final = 1_000
"""Values of one job that are looked for in a text; where there are more, none of it is shown."""

_MOST_PATHS = 1_000
_HIDDEN = "text left out, since the job has too many values to look for"
_EXPECTED = "True, or a list of keys of args such as 'card' or 'address.street'"

Path = tuple[str, ...]
Clean = Callable[[str], str]


@dataclass(frozen=True, slots=True)
class Redaction:
    """Which values of args are not shown.

    Attributes:
        keys: paths, with a dot between the keys of nested objects; a list in between means each
            of its elements. None: all values.

    """

    keys: tuple[str, ...] | None

    def shown(self, args: Mapping[str, Any]) -> dict[str, Any]:
        """Give args as they are shown: each value that is named is `[redacted]`."""
        if self.keys is None:
            return dict.fromkeys(args, REDACTED)
        paths = [_path(key) for key in self.keys]
        return {key: _shown(value, _below(paths, key)) for key, value in args.items()}

    def cleaner(self, args: Mapping[str, Any]) -> Clean:
        """Give a function that takes the values that are named in these args out of a text.

        Each value counts as it is written plainly, in Python, in JSON and in an address, and also
        with one of these within another.
        """
        found = list(islice(self._values(args), MOST + 1))
        if len(found) > MOST:
            return lambda text: _HIDDEN if text else text
        written = {each for value in found for each in _written(value)}
        looked_for = sorted(written, key=len, reverse=True)

        def clean(text: str) -> str:
            for each in looked_for:
                text = text.replace(each, REDACTED)
            return text

        return clean

    @property
    def told(self) -> Any:
        """What a job's meta says of it, JSON."""
        return True if self.keys is None else list(self.keys)

    def _values(self, args: Mapping[str, Any]) -> Iterator[Any]:
        if self.keys is None:
            return _leaves(args)
        paths = [_path(key) for key in self.keys]
        return (leaf for key in args for leaf in _named(args[key], _below(paths, key)))


def redact_option(path: str, value: object) -> Redaction | None:
    """Check the option `redact`.

    Args:
        path: of the value, for messages.
        value: True for all args, keys of some, or None, False or no key for none.

    Raises:
        ConfigError: it is none of these.

    """
    if value is None or value is False:
        return None
    if value is True:
        return Redaction(None)
    if isinstance(value, str | bytes | Mapping) or not isinstance(value, Iterable):
        raise OPTIONS.refusal(path, _EXPECTED, value)
    keys = []
    for place, key in enumerate(value):
        if not isinstance(key, str) or not all(_path(key)):
            raise OPTIONS.refusal(f"{path}.{place}", "a key, or keys with dots between", key)
        keys.append(OPTIONS.storable(f"{path}.{place}", key))
    return Redaction(tuple(dict.fromkeys(keys))) if keys else None


def redaction_in(meta: Mapping[str, Any]) -> Redaction | None:
    """Read what a row's meta says is not shown; what else somebody wrote there doesn't count."""
    told = meta.get(KEY)
    if told is True:
        return Redaction(None)
    if not isinstance(told, list) or len(told) > _MOST_PATHS:
        return None
    keys = tuple(key for key in told if isinstance(key, str))
    return Redaction(keys) if keys else None


def either(one: Redaction | None, other: Redaction | None) -> Redaction | None:
    """Give what hides all that one of two hides."""
    if one is None or other is None:
        return one or other
    if one.keys is None or other.keys is None:
        return Redaction(None)
    keys = tuple(dict.fromkeys(one.keys + other.keys))
    return Redaction(keys if len(keys) <= _MOST_PATHS else None)


def redacted_error(error: BaseException, clean: Clean, skip: frozenset[str]) -> RedactedError:
    """Make the error that goes about in place of a worker's own.

    Args:
        error: the worker's.
        clean: takes out of a text what is not shown.
        skip: files whose frames are left out.

    """
    text = error_text.describe(error, skip, clean)
    return RedactedError(text, kind=type(error).__qualname__, original=lambda: error)


def original(error: BaseException) -> BaseException:
    """Give a worker's own error, for who called the worker in this thread and knows its args."""
    return error.original() if isinstance(error, RedactedError) else error


# Helpers


def _path(key: str) -> Path:
    return tuple(key.split("."))


def _below(paths: Iterable[Path], key: str) -> list[Path]:
    return [path[1:] for path in paths if path[0] == key]


def _shown(value: Any, paths: list[Path]) -> Any:
    if not paths:
        return value
    if () in paths:
        return REDACTED
    if isinstance(value, Mapping):
        return {key: _shown(item, _below(paths, key)) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_shown(item, paths) for item in value]
    return value


def _named(value: Any, paths: list[Path]) -> Iterator[Any]:
    if not paths:
        return
    if () in paths:
        yield from _leaves(value)
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _named(item, _below(paths, key))
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _named(item, paths)


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, Mapping):
        for item in value.values():
            yield from _leaves(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _leaves(item)
    elif value is not None and not isinstance(value, bool):
        yield value


def _written(value: Any) -> Iterator[str]:
    text = value if isinstance(value, str) else repr(value)
    if len(text) < LEAST:
        return iter(())
    # Twice, for a text in Python or JSON within another one.
    return (form for once in {text, *_forms(text)} for form in (once, *_forms(once)))


def _forms(text: str) -> Iterator[str]:
    yield repr(text)[1:-1]
    yield json.dumps(text)[1:-1]
    yield json.dumps(text, ensure_ascii=False)[1:-1]
    if _encodable(text):
        yield quote(text, safe="")
        yield quote(text)
        yield quote_plus(text)


def _encodable(text: str) -> bool:
    return all(not "\ud800" <= each <= "\udfff" for each in text)

"""What was given, by whom, and what comes of it: the later layer counts, option by option."""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from oban_actors.errors import ConfigError
from oban_actors.settings.names import NAMES, PARTS, Path
from oban_actors.validation import OPTIONS

_QUOTED = re.compile(r"""'([^']*)'|"([^"]*)\"""")
# What a part given as a text or a number is.
_SHORT: Mapping[type, str] = {str: "kind", int: "port"}
_OWNER = re.compile(r" for ([\w.\[\]-]+)")


@dataclass(frozen=True, slots=True)
class Given:
    """A value that somebody gave for an option.

    Attributes:
        path: the option's.
        value: what was given.
        origin: who gave it, for messages: a variable, a file; empty for a keyword argument.

    """

    path: Path
    value: Any = field(repr=False)
    origin: str


def spread(values: Mapping[str, Any], origin: str) -> Iterator[Given]:
    """Take a mapping of options apart, those of parts one by one.

    Raises:
        ConfigError: an option is unknown.

    """
    for name, value in values.items():
        if name not in PARTS or not isinstance(value, Mapping):
            yield Given((name,), value, origin)
            continue
        OPTIONS.known(value, PARTS[name], owner=name)
        yield from (Given((name, key), each, origin) for key, each in value.items())


def known(values: Iterable[str]) -> None:
    """Refuse options that no instance has.

    Raises:
        ConfigError: one is unknown; the nearest is named.

    """
    OPTIONS.known(values, NAMES)


@dataclass(slots=True)
class Merged:
    """Options of several layers, and where each came from.

    Attributes:
        values: what counts, by name; options of parts as mappings.
        origins: who gave it, by the option's path, joined by dots.

    """

    values: dict[str, Any] = field(default_factory=dict, repr=False)
    origins: dict[str, str] = field(default_factory=dict)

    def add(self, layer: Iterable[Given]) -> None:
        """Lay a layer over those before."""
        for given in layer:
            self._add(given)

    def origin(self, path: str) -> str | None:
        """Say who gave an option; None where it has its default."""
        return self.origins.get(path, self.origins.get(path.partition(".")[0]))

    def blame(self, error: ConfigError) -> ConfigError:
        """Give the error with the names of those whose options it speaks of in front."""
        message = str(error)
        head = message.partition(", got:")[0]
        quoted = [single or double for single, double in _QUOTED.findall(head)]
        words = [*quoted, *_OWNER.findall(head)]
        found = [origin for word in words for origin in self._concerned(word.partition("[")[0])]
        named = list(dict.fromkeys(origin for origin in found if origin))
        return ConfigError(f"{' and '.join(named)}: {message}") if named else error

    def _add(self, given: Given) -> None:
        name, *rest = given.path
        old = self.values.get(name)
        short = _SHORT.get(type(given.value))
        if not rest and short in PARTS.get(name, ()):
            # One option is given for the part, which leaves its others as they are.
            rest = [str(short)]
        if not rest:
            self._forget(name)
            self.values[name] = given.value
            self.origins[name] = given.origin
            return
        if not isinstance(old, Mapping):
            # It was switched off, or given as an object: options for it begin anew.
            self._forget(name)
            old = {}
        self.values[name] = {**old, rest[0]: given.value}
        self.origins[f"{name}.{rest[0]}"] = given.origin

    def _forget(self, name: str) -> None:
        for path in [path for path in self.origins if path.partition(".")[0] == name]:
            del self.origins[path]

    def _concerned(self, word: str) -> Iterator[str]:
        for path, origin in self.origins.items():
            if path == word or word.startswith(f"{path}.") or path.startswith(f"{word}."):
                yield origin

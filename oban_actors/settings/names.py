"""Which options text can give: their paths and kinds, as `Config` and its parts declare them."""

from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass
from types import NoneType
from typing import Any, get_args, get_type_hints

from oban_actors.config import Config

PREFIX = "OBAN_"
DATABASE = "database_url"
"""What the database's address is called in a file; in code it is the argument `database`."""

_NOT_AS_TEXT = ("identity", "clock")

Path = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Option:
    """One option that text can give.

    Attributes:
        path: of the option, two names for one of a part's.
        kinds: the types that its value may have.

    """

    path: Path
    kinds: tuple[Any, ...]

    @property
    def variable(self) -> str:
        """The environment's name for it, such as `OBAN_STAGER_LIMIT`."""
        return PREFIX + "_".join(self.path).upper()


def _options() -> Iterator[Option]:
    yield Option((DATABASE,), (str,))
    hints = get_type_hints(Config)
    for each in fields(Config):
        if each.name in _NOT_AS_TEXT:
            continue
        kinds = _kinds(hints[each.name])
        yield Option((each.name,), kinds)
        for part in filter(is_dataclass, kinds):
            for name, hint in get_type_hints(part).items():
                yield Option((each.name, name), _kinds(hint))


def _kinds(hint: Any) -> tuple[Any, ...]:
    members = get_args(hint)
    return members if NoneType in members else (hint,)


OPTIONS_BY_PATH = {option.path: option for option in _options()}

NAMES = tuple(path[0] for path in OPTIONS_BY_PATH if len(path) == 1)
"""Options of the instance itself."""

PARTS = {
    name: tuple(path[1] for path in OPTIONS_BY_PATH if path[0] == name and len(path) > 1)
    for name in NAMES
    if any(path[0] == name and len(path) > 1 for path in OPTIONS_BY_PATH)
}
"""Options of each part, by its name."""

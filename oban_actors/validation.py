"""Checks of options and fields: a value as it should be, or an error that says what is wrong.

Every message has one form: the path of the value, what was expected, what came.
"""

import math
import re
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from difflib import get_close_matches
from reprlib import Repr
from typing import Any

from oban_actors.errors import ConfigError, InvalidJob

MAX_INTEGER = 2**31 - 1
"""The largest integer of the tables' integer columns."""

MAX_SECONDS = 2_147_483.0
"""The longest time that PostgreSQL's time-outs, 32 bits of milliseconds, can hold."""

MIN_SECONDS = 0.001
"""The shortest time that is not none at all when counted in milliseconds."""

_PATH = 80
_MAX_NAME = 127
_KINDS = {0: "non-negative", 1: "positive"}
# PostgreSQL has no place for the first, UTF-8 for the others.
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Checks:
    """Checks that raise one kind of error.

    Each method takes the path of the value, for the message, and the value, and returns the
    value in the type wanted.

    Args:
        error: what to raise, called with the message.

    """

    error: Callable[[str], Exception]

    def refusal(self, path: str, expected: str, value: object) -> Exception:
        """Make the error for a value, which is shown in brief and without what may be secret."""
        return self.veiled(path, expected, shown(value))

    def veiled(self, path: str, expected: str, got: str) -> Exception:
        """Make the error, with these words for the value."""
        if len(path) > _PATH:
            path = f"{path[:_PATH]}..."
        return self.error(f"invalid value for {path!r}: expected {expected}, got: {got}")

    def integer(self, path: str, value: object, *, low: int = 0, high: int = MAX_INTEGER) -> int:
        """An integer from low to high; a bool is none."""
        number = isinstance(value, int) and not isinstance(value, bool)
        if isinstance(value, int) and number and low <= value <= high:
            return int(value)
        expected = f"an integer from {low} to {high}"
        if high == MAX_INTEGER and low in _KINDS:
            expected = f"a {_KINDS[low]} integer"
            if isinstance(value, int) and number and value > high:
                expected = f"an integer of at most {high}"
        raise self.refusal(path, expected, value)

    def boolean(self, path: str, value: object) -> bool:
        """True or False themselves."""
        if isinstance(value, bool):
            return value
        raise self.refusal(path, "a boolean", value)

    def seconds(self, path: str, value: object, *, zero: bool = False, other: str = "") -> float:
        """A time that a timer or a time-out can take.

        Args:
            path: of the value.
            value: a number of seconds or a timedelta.
            zero: whether it may be 0.
            other: what else could have been given, for the message, such as " or None".

        """
        expected = f"a {_KINDS[0 if zero else 1]} number of seconds{other}"
        seconds = self.number(path, value, expected)
        if seconds < 0 or (seconds == 0 and not zero):
            raise self.refusal(path, expected, value)
        if 0 < seconds < MIN_SECONDS:
            raise self.refusal(path, f"at least {MIN_SECONDS:g} seconds", value)
        if seconds > MAX_SECONDS:
            raise self.refusal(path, f"at most {MAX_SECONDS:.0f} seconds", value)
        return seconds

    def number(self, path: str, value: object, expected: str) -> float:
        """A finite number, or a timedelta as seconds; a bool is none."""
        if isinstance(value, timedelta):
            return value.total_seconds()
        if isinstance(value, int | float) and not isinstance(value, bool):
            try:
                number = float(value)
            except OverflowError:
                number = math.inf
            if math.isfinite(number):
                return number
        raise self.refusal(path, expected, value)

    def moment(self, path: str, value: object) -> datetime:
        """An aware datetime, given in UTC."""
        if not isinstance(value, datetime):
            raise self.refusal(path, "an aware datetime", value)
        if value.utcoffset() is None:
            got = f"one without a time zone, {value.isoformat()}"
            raise self.veiled(path, "an aware datetime", got)
        try:
            return value.astimezone(UTC)
        except OverflowError:
            expected = "a datetime of the years 1 to 9999 in UTC"
            raise self.veiled(path, expected, value.isoformat()) from None

    def one_of(self, path: str, value: object, known: Collection[str]) -> str:
        """One of the known words."""
        if isinstance(value, str) and value in known:
            return str(value)
        raise self.refusal(path, f"one of {', '.join(map(repr, known))}", value)

    def text(self, path: str, value: object, *, high: int) -> str:
        """Text of 1 to `high` characters, not blank, that both databases can store."""
        if isinstance(value, str) and value.strip() and len(value) <= high:
            return self.storable(path, value)
        raise self.refusal(path, f"a non-blank string of at most {high} characters", value)

    def queue(self, path: str, value: object) -> str:
        """The name of one queue."""
        found = self.text(path, value, high=_MAX_NAME)
        if found == "*":
            raise self.refusal(path, "another name than '*', which means all queues", found)
        return found

    def storable(self, path: str, value: str, *, hidden: bool = False) -> str:
        r"""Text without what PostgreSQL can't store: `\x00` and lone surrogates.

        Args:
            path: of the value.
            value: the text.
            hidden: whether the message leaves out what came.

        """
        if _UNSTORABLE.search(value) is None:
            return str.__str__(value)
        expected = "text without NUL characters and lone surrogates"
        raise self.veiled(path, expected, "text with some" if hidden else shown(value))

    def known(self, given: Iterable[object], known: Collection[str], owner: str = "") -> None:
        """Refuse unknown names of options, naming the nearest known one.

        Args:
            given: the names that came.
            known: the names there are.
            owner: whose options they are, a path; the default is the instance itself.

        """
        for name in given:
            if name in known:
                continue
            near = nearest(name, known)
            place = f" for {owner}" if owner else ""
            hint = f", did you mean {near!r}?" if near else ""
            raise self.error(f"unknown option {shown(name)}{place}{hint}")

    def unique(self, path: str, values: Iterable[Hashable], what: str) -> None:
        """Refuse what comes twice."""
        if twice := duplicates(values):
            raise self.error(f"invalid value for {path!r}: found duplicate {what}: {shown(twice)}")


def storable(value: str) -> bool:
    r"""Whether both databases can store a text: it has no `\x00` and no lone surrogates."""
    return _UNSTORABLE.search(value) is None


def nearest(name: object, known: Iterable[str]) -> str | None:
    """Find the known name that was probably meant."""
    near = get_close_matches(str(name), list(known), n=1) if isinstance(name, str) else []
    return near[0] if near else None


def duplicates(values: Iterable[Hashable]) -> list[Any]:
    """List what comes more than once, each once, in order."""
    seen: set[Hashable] = set()
    return list(dict.fromkeys(v for v in values if v in seen or seen.add(v)))  # type: ignore[func-returns-value]  # the set's add is here for its effect


def shown(value: object) -> str:
    """Represent a value in a message: short, on one line, and without passwords."""
    return " ".join(_REPR.repr(value).splitlines())


class _Brief(Repr):
    """Reprlib's short forms, but mute where addresses and passwords may stand."""

    def __init__(self) -> None:
        super().__init__()
        self.maxstring = self.maxother = 80

    def repr_str(self, value: str, level: int) -> str:
        scheme, mark, _ = value.partition("://")
        if mark:
            return f"'{scheme[:20]}://...'"
        if "password" in value.lower():
            return "'...'"
        return super().repr_str(value, level)

    def repr_bytes(self, _value: bytes, _level: int) -> str:
        return "b'...'"

    def repr_int(self, value: int, level: int) -> str:
        # Python refuses to write out a longer one.
        if value.bit_length() > 1000:  # noqa: PLR2004 (any bound far below the limit does)
            return f"an integer of {value.bit_length()} bits"
        return super().repr_int(value, level)

    def repr_dict(self, value: Mapping[Any, Any], level: int) -> str:
        return f"a mapping with the keys {self.repr1(list(value), level - 1)}"

    def repr_instance(self, value: object, level: int) -> str:
        if isinstance(value, Mapping):
            return self.repr_dict(value, level)
        return super().repr_instance(value, level)


_REPR = _Brief()

OPTIONS = Checks(ConfigError)
FIELDS = Checks(InvalidJob)

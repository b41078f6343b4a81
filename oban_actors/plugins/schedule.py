"""Schedule: a cron expression in its time zone, and the minutes at which it is due."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Self
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from oban_actors.errors import ConfigError
from oban_actors.validation import OPTIONS, shown

REBOOT = "@reboot"
NICKNAMES = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
"""Oban's, which are cron's."""

DEFAULT_ZONE = "Etc/UTC"

_MAX_EXPRESSION = 255
_MINUTE = timedelta(minutes=1)
_PROBE = timedelta(days=1)
_FIELDS = 5
_PARTS = {
    "minute": "a minute of 0..59",
    "hour": "an hour of 0..23",
    "day-of-month": "a day of the month of 1..31, L or LW that its months have",
    "month": "a month of 1..12 or JAN..DEC",
    "day-of-week": "a weekday of 0..7 or SUN..SAT",
}
# A leap year's start: all that is ever due is due within cronsim's 50 years from here.
_EPOCH = datetime(2024, 1, 1)  # noqa: DTZ001 (a time on the wall, in no zone)


@dataclass(frozen=True, slots=True)
class Schedule:
    """When something is due, to the minute. Mirrors `Oban.Cron.Expression`.

    A job of a fixed time (neither minute nor hour begin with `*`) whose time is skipped by a
    change to summer time is due right after the change, and one whose time comes twice is due
    the first time only. Others follow the wall's clock: what is skipped is not due, what comes
    twice is due twice. These are Debian cron's rules.

    Attributes:
        expression: as it was written.
        timezone: the name of the zone in which it is read.
        reboot: whether it is `@reboot`, which is due at no minute.
        either: whether day of month and weekday are both restricted, so that either is enough.

    """

    expression: str
    timezone: str
    reboot: bool
    either: bool
    _fields: str
    _fixed: bool
    _zone: tzinfo

    @classmethod
    def parse(cls, path: str, expression: object, timezone: object = DEFAULT_ZONE) -> Self:
        """Read an expression: five fields, or a nickname such as `@daily`.

        Args:
            path: of the option, for messages.
            expression: `minute hour day-of-month month day-of-week`, in any case.
            timezone: a name of the IANA's, default `Etc/UTC`.

        Raises:
            ConfigError: it can't be read, is never due, or the zone is unknown.

        """
        zone = time_zone(f"{path}.timezone", timezone)
        written = OPTIONS.text(path, expression, high=_MAX_EXPRESSION).strip()
        if written.lower() == REBOOT:
            return cls(
                written,
                str(timezone),
                reboot=True,
                either=False,
                _fields="",
                _fixed=False,
                _zone=zone,
            )
        fields = _nickname(path, written) if written.startswith("@") else written
        parts = fields.split()
        if len(parts) != _FIELDS:
            got = f"{len(parts)} fields in {shown(written)}"
            expected = f"a cron expression of {_FIELDS} fields (minute, hour, day, month, weekday)"
            raise OPTIONS.veiled(path, expected, got)
        _check(path, written, fields)
        minute, hour, day, _, weekday = parts
        return cls(
            written,
            str(timezone),
            reboot=False,
            either=not day.startswith("*") and not weekday.startswith("*"),
            _fields=fields,
            _fixed=not minute.startswith("*") and not hour.startswith("*"),
            _zone=zone,
        )

    def next_after(self, moment: datetime) -> datetime | None:
        """Give the first minute after a moment at which it is due.

        Args:
            moment: aware.

        Returns:
            aware and in UTC; None where there is none, as for `@reboot`.

        """
        if self.reboot:
            return None
        moment = moment.astimezone(UTC)
        return self._next_fixed(moment) if self._fixed else self._next_on_the_wall(moment)

    def due_between(self, after: datetime, until: datetime) -> Iterator[datetime]:
        """Give all minutes at which it is due, after one moment and up to another one."""
        due = self.next_after(after)
        while due is not None and due <= until:
            yield due
            due = self.next_after(due)

    def latest_between(self, after: datetime, until: datetime, count: int) -> list[datetime]:
        """Give the last so many of `due_between`, oldest first.

        However long the time between, the cost only grows with `count`.
        """
        width = _MINUTE * count
        while True:
            start = max(after, until - width)
            found = list(self.due_between(start, until))
            if len(found) >= count or start == after:
                return found[-count:]
            width *= 4

    def _next_fixed(self, moment: datetime) -> datetime | None:
        for wall in self._walls(_on_the_wall(moment, self._zone)):
            due = _after_the_gap(wall, self._zone)
            # Twice on the wall, or moved behind the same gap: it is due once.
            if due > moment:
                return due
        return None

    def _next_on_the_wall(self, moment: datetime) -> datetime | None:
        # As long as the zone's offset stays, wall and UTC differ by just that.
        start = moment
        while True:
            # The wall's time just before a change's own minute belongs to what comes after it.
            offset = _offset(start, self._zone)
            behind = start if start is moment else start - timedelta(seconds=1)
            wall = next(self._walls((behind + offset).replace(tzinfo=None)), None)
            if wall is None:
                return None
            due = wall.replace(tzinfo=UTC) - offset
            change = _change_between(start, due, self._zone)
            if change is None:
                return due
            start = change

    def _walls(self, after: datetime) -> Iterator[datetime]:
        return iter(CronSim(self._fields, after))


def time_zone(path: str, name: object) -> tzinfo:
    """Find a time zone by its name.

    Raises:
        ConfigError: it is unknown, here or anywhere.

    """
    # Known also where a machine has no data of zones.
    if name in (DEFAULT_ZONE, "UTC"):
        return UTC
    expected = "a known time zone, such as 'Europe/Berlin'"
    if not isinstance(name, str) or not name:
        raise OPTIONS.refusal(path, expected, name)
    try:
        return ZoneInfo(name)
    except (LookupError, ValueError, OSError):
        hint = f"{shown(name)}; if this machine has no data of time zones, install tzdata"
        raise OPTIONS.veiled(path, expected, hint) from None


# Helpers


def _nickname(path: str, written: str) -> str:
    try:
        return NICKNAMES[written.lower()]
    except KeyError:
        expected = f"one of {', '.join([*NICKNAMES, REBOOT])}"
        raise OPTIONS.refusal(path, expected, written) from None


def _check(path: str, written: str, fields: str) -> None:
    try:
        first = next(CronSim(fields, _EPOCH), None)
    except CronSimError as error:
        raise _refusal(path, written, str(error)) from None
    if first is None:
        raise OPTIONS.refusal(path, "a cron expression that is due some day", written)


def _refusal(path: str, written: str, reason: str) -> ConfigError:
    part = _PARTS.get(reason.removeprefix("Bad "), "five fields")
    if "-" in written:
        part += ", ranges from low to high"
    error = OPTIONS.refusal(path, f"a cron expression with {part}", written)
    assert isinstance(error, ConfigError)  # noqa: S101 (what OPTIONS makes)
    return error


def _offset(moment: datetime, zone: tzinfo) -> timedelta:
    return moment.astimezone(zone).utcoffset() or timedelta()


def _on_the_wall(moment: datetime, zone: tzinfo) -> datetime:
    return moment.astimezone(zone).replace(tzinfo=None)


def _after_the_gap(wall: datetime, zone: tzinfo) -> datetime:
    """Give the moment of a time on the wall: the first of two, the next one where there is none."""
    while True:
        moment = wall.replace(tzinfo=zone).astimezone(UTC)
        if _on_the_wall(moment, zone) == wall:
            return moment
        wall += _MINUTE


def _change_between(after: datetime, until: datetime, zone: tzinfo) -> datetime | None:
    """Find the first moment after one and up to another at which the zone's offset changes."""
    if zone is UTC:
        return None
    offset = _offset(after, zone)
    low = after
    while _offset(high := min(low + _PROBE, until), zone) == offset:
        if high == until:
            return None
        low = high
    while high - low > timedelta(seconds=1):
        middle = low + (high - low) / 2
        low, high = (middle, high) if _offset(middle, zone) == offset else (low, middle)
    return high.replace(microsecond=0)

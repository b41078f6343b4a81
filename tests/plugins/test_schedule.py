"""Cron expressions: what is read, what is refused, and when something is due."""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oban_actors import ConfigError
from oban_actors.plugins.schedule import NICKNAMES, Schedule

BERLIN = "Europe/Berlin"
MINUTE = timedelta(minutes=1)


def parse(expression: object, timezone: object = "Etc/UTC") -> Schedule:
    """Read an expression as an option would."""
    return Schedule.parse("cron.crontab[2]", expression, timezone)


def walls(expression: str, timezone: str, start: str, end: str) -> list[str]:
    """List when it is due after one moment in UTC and up to another, on the zone's wall."""
    schedule = parse(expression, timezone)
    due = schedule.due_between(_utc(start), _utc(end))
    return [moment.astimezone(ZoneInfo(timezone)).strftime("%d %H:%M%z") for moment in due]


def _utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def _next(expression: str, after: str = "2026-03-01 00:00") -> str:
    due = parse(expression).next_after(_utc(after))
    assert due is not None
    assert due.tzinfo is UTC
    return due.strftime("%Y-%m-%d %H:%M")


@pytest.mark.parametrize(
    ("expression", "due"),
    [
        ("* * * * *", "2026-03-01 00:01"),
        ("*/20 * * * *", "2026-03-01 00:20"),
        ("7/20 * * * *", "2026-03-01 00:07"),
        ("10-30/10,5 3 * * *", "2026-03-01 03:05"),
        ("0 9 * * mon", "2026-03-02 09:00"),
        ("0 9 * jun-Aug *", "2026-06-01 09:00"),
        ("0 0 * * 0", "2026-03-08 00:00"),
        ("0 0 * * 7", "2026-03-08 00:00"),
        ("  0   12 * *   SUN ", "2026-03-01 12:00"),
        ("0 0 29 2 *", "2028-02-29 00:00"),
        ("0 0 13 * FRI", "2026-03-06 00:00"),
        ("0 0 30 2 MON", "2027-02-01 00:00"),
        ("0 0 L * *", "2026-03-31 00:00"),
        ("0 0 LW 5 *", "2026-05-29 00:00"),
        ("0 0 * * FRI#2", "2026-03-13 00:00"),
        ("0 0 * * 5L", "2026-03-27 00:00"),
        ("@hourly", "2026-03-01 01:00"),
        ("@DAILY", "2026-03-02 00:00"),
        ("@midnight", "2026-03-02 00:00"),
        ("@weekly", "2026-03-08 00:00"),
        ("@monthly", "2026-04-01 00:00"),
        ("@yearly", "2027-01-01 00:00"),
        ("@annually", "2027-01-01 00:00"),
    ],
)
def test_what_is_read(expression: str, due: str) -> None:
    """Cron's own syntax, names in any case, nicknames, and cronsim's last and nth days."""
    assert _next(expression) == due


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("60 * * * *", "expected a cron expression with a minute of 0..59, got: '60 * * * *'"),
        ("* 24 * * *", "an hour of 0..23"),
        ("* * 0 * *", "a day of the month of 1..31"),
        ("0 0 30 2 *", "a day of the month of 1..31, L or LW that its months have"),
        ("0 0 31 4,6 *", "that its months have"),
        ("* * * 13 *", "a month of 1..12 or JAN..DEC"),
        ("* * * * 8", "a weekday of 0..7 or SUN..SAT"),
        ("* * * * FRI-MON", "a weekday of 0..7 or SUN..SAT, ranges from low to high, got"),
        ("0 22-2 * * *", "an hour of 0..23, ranges from low to high, got"),
        ("*/0 * * * *", "a minute"),
        ("5,, * * * *", "a minute"),
        ("1-5-7 * * * *", "a minute"),
        ("0 0 */31 2 MON#5", "a cron expression that is due some day"),
        ("* * * *", "expected a cron expression of 5 fields (minute, hour, day, month, weekday)"),
        ("* * * *", "got: 4 fields in '* * * *'"),
        ("0 0 9 * * MON", "got: 6 fields in '0 0 9 * * MON'"),
        ("@fortnightly", "expected one of @yearly, @annually, @monthly"),
        ("", "expected a non-blank string"),
        (f"{'9' * 300} * * * *", "a non-blank string of at most 255 characters"),
        (None, "expected a non-blank string"),
        (5, "expected a non-blank string"),
    ],
)
def test_what_is_refused(expression: object, message: str) -> None:
    """The option, what was expected, and what came."""
    with pytest.raises(ConfigError) as caught:
        parse(expression)

    assert str(caught.value).startswith("invalid value for 'cron.crontab[2]': ")
    assert message in str(caught.value)


@pytest.mark.parametrize("zone", ["Europe/Berln", "", None, 5, "../etc/passwd", "/etc", "Europe"])
def test_an_unknown_zone_is_refused(zone: object) -> None:
    """With a hint where the machine may be at fault."""
    with pytest.raises(ConfigError, match=r"crontab\[2\].timezone.*a known time zone") as caught:
        parse("@daily", zone)

    assert ("install tzdata" in str(caught.value)) == (isinstance(zone, str) and bool(zone))


def test_either_day_is_enough_only_where_both_are_restricted() -> None:
    """As cron has it: a field that begins with a star restricts nothing on its own."""
    assert parse("0 0 13 * FRI").either
    assert not parse("0 0 */2 * FRI").either
    assert not parse("0 0 13 * *").either
    assert not any(parse(each).either for each in [*NICKNAMES, "@reboot"])


def test_reboot_is_due_at_no_minute() -> None:
    """It is not a time."""
    schedule = parse("@Reboot", BERLIN)

    assert schedule.reboot
    assert schedule.next_after(_utc("2026-03-01 00:00")) is None
    assert list(schedule.due_between(_utc("2026-03-01 00:00"), _utc("2027-03-01 00:00"))) == []


def test_the_minute_that_has_begun_is_over() -> None:
    """After a moment means after it, up to means with it."""
    schedule = parse("0 * * * *")
    nine, ten = _utc("2026-03-01 09:00"), _utc("2026-03-01 10:00")
    second = timedelta(microseconds=1)

    assert schedule.next_after(nine) == ten
    assert schedule.next_after(nine - second) == nine
    assert schedule.next_after(nine + second) == ten
    assert list(schedule.due_between(nine - second, ten)) == [nine, ten]
    assert list(schedule.due_between(nine, ten - second)) == []


@pytest.mark.parametrize(
    ("expression", "due"),
    [
        ("30 2 * * *", ["29 03:00+0200"]),
        ("0,15,45 2 * * *", ["29 03:00+0200"]),
        ("0 3 * * *", ["29 03:00+0200"]),
        ("30 1-3 * * *", ["29 01:30+0100", "29 03:00+0200", "29 03:30+0200"]),
        ("30 * * * *", ["29 01:30+0100", "29 03:30+0200", "29 04:30+0200"]),
        ("*/30 2 * * *", []),
        ("*/30 3 * * *", ["29 03:00+0200", "29 03:30+0200"]),
    ],
)
def test_the_change_to_summer_time(expression: str, due: list[str]) -> None:
    """What has a fixed time in the skipped hour is due once, right after it.

    On 29 March 2026 2:00 is 3:00.
    """
    assert walls(expression, BERLIN, "2026-03-29 00:00", "2026-03-29 03:00") == due


@pytest.mark.parametrize(
    ("expression", "due"),
    [
        ("30 2 * * *", ["25 02:30+0200"]),
        ("0 3 * * *", ["25 03:00+0100"]),
        ("30 1-3 * * *", ["25 01:30+0200", "25 02:30+0200", "25 03:30+0100"]),
        ("30 * * * *", ["25 01:30+0200", "25 02:30+0200", "25 02:30+0100", "25 03:30+0100"]),
        ("*/30 2 * * *", ["25 02:00+0200", "25 02:30+0200", "25 02:00+0100", "25 02:30+0100"]),
    ],
)
def test_the_change_to_winter_time(expression: str, due: list[str]) -> None:
    """What has a fixed time in the repeated hour is due once, the first time.

    On 25 October 2026 3:00 is 2:00.
    """
    assert walls(expression, BERLIN, "2026-10-24 23:00", "2026-10-25 03:00") == due


def test_half_an_hour_skipped_and_repeated() -> None:
    """On Lord Howe Island clocks change by half an hour."""
    zone = "Australia/Lord_Howe"
    # On 4 October 2026 2:00 is 2:30, on 5 April 2026 2:00 is 1:30.
    spring = ("2026-10-03 14:30", "2026-10-03 16:00")
    autumn = ("2026-04-04 14:00", "2026-04-04 16:00")

    assert walls("15 2 * * *", zone, *spring) == ["04 02:30+1100"]
    assert walls("15,45 * * * *", zone, *spring) == [
        "04 01:15+1030",
        "04 01:45+1030",
        "04 02:45+1100",
    ]
    assert walls("45 1 * * *", zone, *autumn) == ["05 01:45+1100"]
    assert walls("*/15 1 * * *", zone, *autumn) == [
        "05 01:15+1100",
        "05 01:30+1100",
        "05 01:45+1100",
        "05 01:30+1030",
        "05 01:45+1030",
    ]
    assert walls("*/15 2 * * *", zone, *autumn) == [
        "05 02:00+1030",
        "05 02:15+1030",
        "05 02:30+1030",
    ]


def test_a_midnight_and_a_day_that_never_were() -> None:
    """In São Paulo midnight was skipped, in Samoa a whole Friday."""
    brazil = ("2018-11-03 12:00", "2018-11-04 12:00")
    samoa = ("2011-12-29 12:00", "2011-12-31 12:00")

    assert walls("0 0 * * *", "America/Sao_Paulo", *brazil) == ["04 01:00-0200"]
    assert walls("*/30 0 * * *", "America/Sao_Paulo", *brazil) == []
    assert walls("0 12 30 12 *", "Pacific/Apia", *samoa) == ["31 00:00+1400"]
    assert walls("0 12 * * *", "Pacific/Apia", *samoa) == [
        "29 12:00-1000",
        "31 00:00+1400",
        "31 12:00+1400",
    ]


# Against the plain rules, minute by minute

_ZONES = [BERLIN, "America/Sao_Paulo", "Australia/Lord_Howe", "America/New_York", "Asia/Kolkata"]
_minutes = st.sets(st.integers(0, 59), min_size=1, max_size=4)
_hours = st.sets(st.integers(0, 23), min_size=1, max_size=6)


@st.composite
def _near_a_change(draw: st.DrawFn) -> datetime:
    year = draw(st.integers(2005, 2030))
    days = draw(st.sampled_from([(3, 8), (3, 25), (4, 1), (10, 1), (10, 14), (10, 25), (11, 1)]))
    start = datetime(year, *days, tzinfo=UTC)
    return start + draw(st.timedeltas(timedelta(), timedelta(days=9)))


@given(
    start=_near_a_change(),
    name=st.sampled_from(_ZONES),
    minutes=_minutes,
    hours=st.none() | _hours,
    starred=st.booleans(),
)
def test_it_is_due_when_the_rules_say_so(
    *, start: datetime, name: str, minutes: set[int], hours: set[int] | None, starred: bool
) -> None:
    """Compared with a look at each minute of two days."""
    zone = ZoneInfo(name)
    listed = ",".join(map(str, sorted(minutes)))
    on_the_wall = hours is None or starred
    if starred:
        minutes, listed = {0, 30}, "*/30"
    expression = f"{listed} {_listed(hours)} * * *"
    end = start + timedelta(days=2)

    found = list(parse(expression, name).due_between(start, end))

    wanted = set(range(24)) if hours is None else hours
    times = {(hour, minute) for hour in wanted for minute in minutes}
    # From a day earlier, so that it is known which times on the wall came before.
    expected = _by_the_rules(start - timedelta(days=1), end, zone, times, on_the_wall=on_the_wall)
    assert found == [moment for moment in expected if moment > start]


def _by_the_rules(
    start: datetime,
    end: datetime,
    zone: ZoneInfo,
    times: set[tuple[int, int]],
    *,
    on_the_wall: bool,
) -> list[datetime]:
    due = []
    latest = start.astimezone(zone).replace(tzinfo=None)
    moment = start.replace(second=0, microsecond=0)
    while moment <= end:
        wall = moment.astimezone(zone).replace(tzinfo=None)
        if on_the_wall:
            hit = (wall.hour, wall.minute) in times
        else:
            # All times on the wall that have passed since the latest one, skipped ones too.
            passed = _minutes_between(latest, wall)
            hit = any((each.hour, each.minute) in times for each in passed)
            latest = max(latest, wall)
        if hit:
            due.append(moment)
        moment += MINUTE
    return due


def _minutes_between(after: datetime, until: datetime) -> Iterable[datetime]:
    each = after.replace(second=0, microsecond=0) + MINUTE
    while each <= until:
        yield each
        each += MINUTE


def _listed(values: set[int] | None) -> str:
    return "*" if values is None else ",".join(map(str, sorted(values)))


@given(
    st.sampled_from(["* * * * *", "*/7 * * * *", "0 9 * * MON", "30 2 * * *", "0 0 29 2 *"]),
    st.datetimes(datetime(2020, 1, 1), datetime(2027, 1, 1)),  # noqa: DTZ001 (hypothesis wants it so)
    st.timedeltas(timedelta(), timedelta(days=40)),
    st.integers(1, 5),
)
def test_the_latest_are_the_end_of_all(
    expression: str, start: datetime, length: timedelta, count: int
) -> None:
    """Found without listing all."""
    schedule = parse(expression, BERLIN)
    after = start.replace(tzinfo=UTC)
    until = after + min(length, timedelta(days=3)) if expression.startswith("*") else after + length

    every = list(schedule.due_between(after, until))

    assert schedule.latest_between(after, until, count) == every[-count:]


def test_the_latest_of_a_century_are_found_at_once() -> None:
    """A node that was away for long does not count all minutes."""
    start, end = _utc("1926-01-01 00:00"), _utc("2026-01-01 00:00")

    assert parse("* * * * *").latest_between(start, end, 2) == [end - MINUTE, end]
    assert parse("0 0 29 2 *").latest_between(start, end, 1) == [_utc("2024-02-29 00:00")]

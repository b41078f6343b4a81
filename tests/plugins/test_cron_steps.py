"""Cron's decisions without a database: no due minute is run twice, none is lost."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oban_actors.plugins.cron_entry import MISSED, Entry, Missed
from oban_actors.plugins.cron_steps import (
    FOLLOWER_LAG,
    FRESHEN,
    GRACE,
    HORIZON,
    MOST_MISSED,
    NOTHING,
    SLACK,
    WATCH,
    Boot,
    Seen,
    Verdict,
    judge,
    next_look,
)
from oban_actors.plugins.schedule import Schedule

START = datetime(2026, 3, 2, 8, 0, tzinfo=UTC)
EXPRESSIONS = ["* * * * *", "*/7 * * * *", "0 * * * *", "30 2 * * *", "0 9 * * MON"]


def schedule(expression: str, timezone: str = "Europe/Berlin") -> Schedule:
    """Read an expression."""
    return Schedule.parse("test", expression, timezone)


def at(**after: float) -> datetime:
    """A time after the start."""
    return START + timedelta(**after)


steps = st.lists(
    st.one_of(
        st.timedeltas(timedelta(), timedelta(minutes=3)),
        st.timedeltas(timedelta(), timedelta(hours=30)),
    ),
    min_size=1,
    max_size=4,
)


@given(st.sampled_from(EXPRESSIONS), st.sampled_from(MISSED), steps)
def test_each_due_minute_is_judged_once(
    expression: str, missed: Missed, pauses: list[timedelta]
) -> None:
    """However long the pauses between two looks: none twice, none that is late is left out."""
    when = schedule(expression)
    mark = now = START
    found: list[datetime] = []
    left: list[datetime] = []
    for pause in pauses:
        now += pause
        verdict = judge(when, missed, mark, now)
        due = list(when.due_between(mark, now))
        assert set(verdict.runs) <= set(due)
        assert list(verdict.runs) == sorted(set(verdict.runs))
        skipped = set(due) - set(verdict.runs)
        assert all(minute <= now - GRACE for minute in skipped)
        if missed == "all" and len(due) <= MOST_MISSED:
            assert not skipped
        if missed == "once" and due:
            assert verdict.runs[-1] == due[-1]
            assert not any(minute <= now - GRACE for minute in verdict.runs[:-1])
        if due:
            assert verdict.mark == now
        found += verdict.runs
        left += skipped
        mark = verdict.mark or mark
    every = set(when.due_between(START, now))
    assert len(found) == len(set(found))
    assert set(found) | set(left) == every
    assert not set(found) & set(left)


@given(
    st.sampled_from(EXPRESSIONS),
    st.lists(st.tuples(st.integers(0, 400), st.booleans()), min_size=1, max_size=60),
)
def test_claims_that_fail_lose_and_double_nothing(
    expression: str, claims: list[tuple[int, bool]]
) -> None:
    """Whoever makes them: the mark is all that nodes share, and it moves only with the jobs."""
    when = schedule(expression)
    mark = now = last = START
    found: list[datetime] = []
    for seconds, commits in claims:
        # Within the grace there is always a claim that commits, as there is where a node lives.
        latest = last + GRACE - timedelta(seconds=1)
        now = min(now + timedelta(seconds=seconds), latest)
        verdict = judge(when, "skip", mark, now)
        if commits or now == latest:
            found += verdict.runs
            mark, last = verdict.mark or mark, now
    assert found == list(when.due_between(START, last))


def test_a_look_at_nothing_writes_nothing_but_once_a_day() -> None:
    """So that a mark shows that its entry is in use, and an idle node writes nearly nothing."""
    weekly = schedule("0 9 * * SUN", "Etc/UTC")

    assert judge(weekly, "once", START, at(hours=23)) is NOTHING
    assert judge(weekly, "once", START, START + FRESHEN) == Verdict(mark=START + FRESHEN)


def test_a_mark_in_the_future_waits_unless_it_is_far() -> None:
    """A clock set back repeats nothing; one that was wrong by years does not end all runs."""
    each = schedule("* * * * *")

    assert judge(each, "all", at(minutes=1), START) is NOTHING
    assert judge(each, "all", at(minutes=59), START) == Verdict(early=True)
    assert judge(each, "all", at(minutes=61), START) == Verdict(mark=START, ahead=True)


def test_missed_runs_that_are_too_many_are_dropped() -> None:
    """The latest are kept, and it is said that some were not."""
    each = schedule("* * * * *")
    verdict = judge(each, "all", START, at(days=30))

    assert verdict.dropped
    assert len(verdict.runs) == MOST_MISSED + 5
    assert verdict.runs[-1] == at(days=30)
    assert not judge(each, "all", START, at(minutes=MOST_MISSED + 5)).dropped


def _entry(expression: str) -> Entry:
    return Entry.parse("test", (expression, "tests.cron.report"), "Etc/UTC", "once")


def test_when_to_look_next() -> None:
    """At the next due minute, the others a little later; within an hour in any case."""
    entries = [_entry("0 9 * * *"), _entry("30 8 * * *"), _entry("@reboot")]

    assert next_look(entries, at(minutes=20), leader=True) == 600 + SLACK
    assert next_look(entries, at(minutes=20), leader=False) == 600 + FOLLOWER_LAG
    assert next_look(entries, at(hours=1), leader=True) == HORIZON
    assert next_look([_entry("@reboot")], START, leader=True) == HORIZON
    assert next_look([], START, leader=True) == HORIZON


# Boots


def seen(started: float, shown: float) -> Seen:
    """Another node, by seconds after the start."""
    return Seen(at(seconds=started), at(seconds=shown))


def test_a_node_that_finds_nobody_boots() -> None:
    """At its first look."""
    boot = Boot()

    assert boot.look({}, None, START) == "boot"
    assert boot.claims(None)
    assert boot.claims(at(seconds=-61))
    assert not boot.claims(at(seconds=-59)), "the same boot, by another node"
    boot.over = True
    assert boot.look({}, None, at(seconds=5)) == "over"
    assert not boot.claims(None)


def test_an_older_node_that_lives_is_found_out() -> None:
    """By its next sign, or by its orderly end."""
    for later in ({"a": seen(-600, 6)}, {}):
        boot = Boot()
        assert boot.look({"a": seen(-600, -4)}, None, START) == "watch"
        assert boot.look({"a": seen(-600, -4)}, None, at(seconds=5)) == "watch"
        assert boot.look(later, None, at(seconds=10)) == "over"
        assert boot.over


def test_an_older_node_that_shows_nothing_is_dead() -> None:
    """It was killed together with all others."""
    boot = Boot()
    dead = {"a": seen(-600, -4), "b": seen(-500, -3)}

    for seconds in range(0, int(WATCH), 5):
        assert boot.look(dead, None, at(seconds=seconds)) == "watch"
    assert boot.look(dead, None, at(seconds=WATCH)) == "boot"


def test_a_watch_with_a_gap_begins_anew() -> None:
    """While the database was away nobody could show anything."""
    boot = Boot()
    dead = {"a": seen(-600, -4)}

    assert boot.look(dead, None, START) == "watch"
    assert boot.look(dead, None, at(seconds=120)) == "watch"
    for seconds in range(125, 145, 5):
        assert boot.look(dead, None, at(seconds=seconds)) == "watch"
    assert boot.look(dead, None, at(seconds=145)) == "boot"


def test_of_nodes_that_start_together_the_first_boots() -> None:
    """A younger one is no sign of an earlier life."""
    older, younger = Boot(), Boot()

    assert older.look({"b": seen(0.2, 0.3)}, at(seconds=0.1), at(seconds=1)) == "boot"
    assert younger.look({"a": seen(0.1, 0.4)}, at(seconds=0.2), at(seconds=1)) == "watch"
    assert older.claims(None)
    assert not younger.claims(at(seconds=1.1)), "the older one ran it"


@pytest.mark.parametrize("own", [None, START])
def test_the_start_is_that_of_the_first_look(own: datetime | None) -> None:
    """A later one, as of the actor after a crash, changes nothing."""
    boot = Boot()
    boot.look({"a": seen(-1, 0)}, own, START)
    boot.look({"a": seen(-1, 0)}, None, at(seconds=5))

    assert boot.started == START

"""The Stager's decisions: when the next pass comes, and which rows are left out."""

import sqlite3
from datetime import UTC, datetime, timedelta

import psycopg
import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st

from oban_actors.messages import Status
from oban_actors.staging import (
    ASIDE_FOR,
    ASIDE_MOST,
    BURST,
    FAILED_DELAY,
    FAILED_MOST,
    LOCKED_DELAY,
    RATE,
    READINGS,
    RETURNING,
    DatabaseClock,
    Outcome,
    Pace,
    SetAside,
    is_of_a_row,
    may_be_of_a_row,
    staging_mode,
)


def test_waits_an_interval_when_nothing_is_due() -> None:
    """Without a due row the next pass is an interval away, led or not."""
    assert Pace(2.0).next_delay(Outcome(led=True), 0.0) == 2.0
    assert Pace(2.0).next_delay(Outcome(led=False, next_due_in=0.5), 0.0) == 2.0
    assert Pace(2.0).next_delay(Outcome(led=True, next_due_in=99.0), 0.0) == 2.0


def test_comes_when_the_next_job_is_due() -> None:
    """A row due within the interval is what the timer is armed to."""
    delay = Pace(2.0).next_delay(Outcome(led=True, next_due_in=0.7), 0.0)

    assert delay == pytest.approx(0.7, abs=0.01)
    assert delay >= 0.7


def test_the_least_delayed_reading_of_the_clock_counts() -> None:
    """When it was heard is no sooner than when it was read, and the soonest comes closest."""
    clock, noon = DatabaseClock(), datetime(2026, 11, 27, 12, tzinfo=UTC)
    for second, delay in enumerate([0.004, 0.001, 0.5]):
        clock.read(noon + timedelta(seconds=second), 100.0 + second + delay)

    assert clock.latest == noon + timedelta(seconds=2)
    assert clock.shows_at(noon + timedelta(seconds=7)) == pytest.approx(107.001, abs=1e-5)


@pytest.mark.parametrize("step", [-30.0, 30.0])
def test_a_clock_that_was_set_is_followed(step: float) -> None:
    """Forwards at once, and backwards as soon as no reading is left from before."""
    clock, noon = DatabaseClock(), datetime(2026, 11, 27, 12, tzinfo=UTC)
    for second in range(READINGS):
        clock.read(noon + timedelta(seconds=second), 100.0 + second)
    for second in range(READINGS, READINGS + (1 if step > 0 else READINGS)):
        clock.read(noon + timedelta(seconds=second + step), 100.0 + second)

    at = noon + timedelta(seconds=60 + step)
    assert clock.shows_at(at) == pytest.approx(160.0, abs=1e-5)


def test_follows_a_full_pass_at_once() -> None:
    """What is above the limit does not wait for the next tick."""
    assert Pace(2.0).next_delay(Outcome(led=True, full=True, next_due_in=-3.0), 0.0) == 0.0


def test_backs_off_from_rows_that_are_due_but_locked() -> None:
    """One look at once, then from 50 ms doubled up to the interval; anew when the rows are gone."""
    pace = Pace(1.0)
    locked = Outcome(led=True, next_due_in=-1.0)

    delays = [pace.next_delay(locked, at) for at in range(7)]

    assert delays[:2] == [0.0, LOCKED_DELAY]
    assert delays == sorted(delays)
    assert delays[-1] == 1.0
    pace.next_delay(Outcome(led=True), 8.0)
    assert pace.next_delay(locked, 9.0) == 0.0
    assert pace.next_delay(locked, 10.0) == LOCKED_DELAY


def test_a_job_that_became_due_during_the_pass_is_not_put_off() -> None:
    """Alone it costs another pass at once, within what the rate allows."""
    pace = Pace(1.0)
    now = 0.0
    for _ in range(3 * BURST):
        assert pace.next_delay(Outcome(led=True, next_due_in=-0.001), now) <= 1 / RATE
        pace.next_delay(Outcome(led=True), now)


def test_a_steady_stream_is_not_taken_for_locked_rows() -> None:
    """Each pass brings some, and meanwhile another one has become due: nothing is put off."""
    pace = Pace(1.0)
    now = 0.0
    for _ in range(200):
        delay = pace.next_delay(Outcome(led=True, staged=True, next_due_in=-0.001), now)
        assert delay <= 1 / RATE + 1e-9
        now += delay

    still = Outcome(led=True, next_due_in=-0.001)
    assert pace.next_delay(still, now) == LOCKED_DELAY


def test_backs_off_from_a_failing_database() -> None:
    """The delays double up to a bound, and a success ends them."""
    pace = Pace(30.0)
    failed = Outcome(led=True, failed=True)

    delays = [pace.next_delay(failed, at) for at in range(12)]

    assert delays[0] == FAILED_DELAY
    assert delays[-1] == FAILED_MOST
    assert pace.next_delay(Outcome(led=True), 20.0) == 30.0
    assert pace.next_delay(failed, 21.0) == FAILED_DELAY


def test_a_thousand_due_times_within_a_second_cost_tens_of_passes() -> None:
    """Passes follow due times exactly until their tokens are used up, then at a bounded rate."""
    pace = Pace(1.0)
    now, passes = 0.0, 0
    while now < 1.0:
        now += pace.next_delay(Outcome(led=True, next_due_in=0.001), now)
        passes += 1

    assert BURST < passes <= BURST + RATE + 2


def test_ten_due_times_a_second_are_each_met() -> None:
    """A load that the rate allows is never put off."""
    pace = Pace(1.0)
    now = 0.0
    for _ in range(100):
        delay = pace.next_delay(Outcome(led=True, next_due_in=0.1), now)
        assert delay == pytest.approx(0.1, abs=0.001)
        now += delay


def test_who_is_told_of_due_jobs_keeps_the_pace() -> None:
    """A burst may come at once; then each pass waits for its turn, and a pause lets it burst."""
    pace = Pace(60.0)
    now = 0.0
    waits = []
    for _ in range(BURST + 40):
        wait = pace.soonest(now)
        assert pace.soonest(now) == wait
        waits.append(wait)
        now += wait
        pace.next_delay(Outcome(led=True), now)

    assert waits[:BURST] == [0.0] * BURST
    assert sum(waits) == pytest.approx(40 / RATE)
    assert pace.soonest(now + 1) == 0.0


@given(
    interval=st.floats(0.001, 3600),
    steps=st.lists(
        st.tuples(
            st.booleans(),
            st.booleans(),
            st.booleans(),
            st.none() | st.floats(-1e6, 1e6),
            st.floats(0, 100),
        )
    ),
)
def test_a_delay_is_never_negative_and_never_beyond_the_interval(
    interval: float, steps: list[tuple[bool, bool, bool, float | None, float]]
) -> None:
    """Whatever passes came to, the next is at most an interval, or a retry's delay, away."""
    pace = Pace(interval)
    now = 0.0
    for led, full, failed, due, elapsed in steps:
        now += elapsed
        outcome = Outcome(led=led, full=full, failed=failed, next_due_in=due)
        assert 0 <= pace.next_delay(outcome, now) <= max(interval, FAILED_DELAY)


def test_a_row_set_aside_comes_back() -> None:
    """It is left out for a while, then gets another try."""
    aside = SetAside()
    aside.add(7, 0.0)

    assert aside.ids(ASIDE_FOR - 1) == [7]
    assert aside.ids(ASIDE_FOR + 1) == []


def test_rows_set_aside_are_bounded() -> None:
    """The oldest give way to the newest."""
    aside = SetAside()
    for job_id in range(ASIDE_MOST + 5):
        aside.add(job_id, 0.0)

    ids = aside.ids(1.0)

    assert len(ids) == ASIDE_MOST
    assert ids[0] == 5
    assert aside.full


def test_rows_set_aside_come_back_a_few_at_once() -> None:
    """Those longest left out first; as long as none is refused again, ever more of them."""
    aside = SetAside()
    for job_id in range(1000):
        aside.add(job_id, job_id / 1000)
    now = ASIDE_FOR + 1

    assert aside.ids(now) == list(range(RETURNING, 1000))
    assert len(aside.ids(now)) == 1000 - 3 * RETURNING
    aside.add(7, now)
    assert len(aside.ids(now)) == 1001 - 4 * RETURNING
    assert len(aside.ids(now)) == 1001 - 6 * RETURNING
    while len(aside.ids(now)) > 1:
        assert not aside.full
    assert aside.ids(now) == [7]
    assert aside.ids(now + ASIDE_FOR) == []


def failed(code: str | None) -> sa.exc.DBAPIError:
    """Make an error of PostgreSQL's, as SQLAlchemy gives it."""
    kind: type[psycopg.Error] = psycopg.OperationalError
    if code is not None:
        kind = type("Raised", (psycopg.DatabaseError,), {"sqlstate": code})
    return sa.exc.DBAPIError.instance("UPDATE", {}, kind("no"), psycopg.Error)  # type: ignore[return-value]  # of a driver's error it makes none else


@pytest.mark.parametrize(
    ("code", "certain", "possible"),
    [
        ("23505", True, True),
        ("P0001", True, True),
        ("AU001", True, True),
        ("42P01", False, True),
        ("42501", False, True),
        ("0A000", False, True),
        ("54001", False, True),
        ("XX001", False, True),
        ("40001", False, False),
        ("55P03", False, False),
        ("57014", False, False),
        ("25006", False, False),
        ("53100", False, False),
        ("58030", False, False),
        ("08006", False, False),
        (None, False, False),
    ],
)
def test_what_may_be_of_a_row(code: str | None, *, certain: bool, possible: bool) -> None:
    """A trigger may run into anything but what passes by itself, or stops the server."""
    for error in (failed(code), failed(code).orig):
        assert is_of_a_row(error) is certain
        assert may_be_of_a_row(error) is possible
    assert not may_be_of_a_row(None)


@pytest.mark.parametrize(
    ("code", "possible"),
    [
        (sqlite3.SQLITE_CONSTRAINT_TRIGGER, True),
        (sqlite3.SQLITE_ERROR, True),
        (sqlite3.SQLITE_TOOBIG, True),
        (sqlite3.SQLITE_BUSY_SNAPSHOT, False),
        (sqlite3.SQLITE_INTERRUPT, False),
        (sqlite3.SQLITE_FULL, False),
        (sqlite3.SQLITE_IOERR_WRITE, False),
        (sqlite3.SQLITE_READONLY, False),
    ],
)
def test_what_may_be_of_a_row_of_sqlite(code: int, *, possible: bool) -> None:
    """Likewise, by the driver's code."""
    error = sqlite3.OperationalError("no")
    error.sqlite_errorcode = code

    assert may_be_of_a_row(sa.exc.OperationalError("UPDATE", {}, error)) is possible


@pytest.mark.parametrize(
    ("status", "mode", "leads", "expected"),
    [
        ("unknown", "global", False, "global"),
        ("unknown", "local", False, "local"),
        ("isolated", "global", True, "local"),
        ("solitary", "global", False, "local"),
        ("solitary", "local", True, "global"),
        ("clustered", "local", False, "global"),
    ],
)
def test_the_mode_follows_the_status(
    status: Status, mode: str, leads: object, expected: str
) -> None:
    """Local without a working notifier, or alone under somebody else's lead."""
    assert staging_mode(status, mode, leads=bool(leads)) == expected

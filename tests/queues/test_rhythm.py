"""When a Producer takes a turn, decided without a database."""

import pytest

from oban_actors.queues.rhythm import (
    FAILED_DELAY,
    FAILED_MOST,
    MOST_FETCHED,
    Idle,
    Rhythm,
    Turn,
    Wait,
    share,
)


def test_it_looks_at_the_start() -> None:
    """A new producer looks for jobs before anybody told it of any."""
    assert Rhythm(0.005).next(0.0, unwritten=0, demand=10) == Turn(10)


def test_it_is_idle_after_a_look_that_came_up_short() -> None:
    """Fewer jobs than asked for means that there are no more."""
    rhythm = Rhythm(0.005)
    rhythm.worked(1.0, asked=10, got=9)

    assert rhythm.next(2.0, unwritten=0, demand=1) == Idle()


def test_it_looks_again_at_once_after_a_full_one() -> None:
    """As many as asked for means that there may be more; the cooldown does not count."""
    rhythm = Rhythm(5.0)
    rhythm.worked(1.0, asked=10, got=10)

    assert rhythm.next(1.0, unwritten=0, demand=3) == Turn(3)


def test_a_burst_of_notifications_is_one_look() -> None:
    """Whatever comes within the cooldown waits for its end, and then is one look."""
    rhythm = Rhythm(0.5)
    rhythm.worked(1.0, asked=10, got=0)
    for _ in range(100):
        rhythm.feed()

    assert rhythm.next(1.25, unwritten=0, demand=10) == Wait(0.25)
    assert rhythm.next(1.5, unwritten=0, demand=10) == Turn(10)


def test_what_has_ended_is_written_at_once() -> None:
    """Acknowledgements wait for no cooldown, and whoever writes looks for jobs too."""
    rhythm = Rhythm(5.0)
    rhythm.worked(1.0, asked=10, got=0)

    assert rhythm.next(1.0, unwritten=1, demand=7) == Turn(7)
    assert rhythm.next(1.0, unwritten=1, demand=0) == Turn(0)


def test_it_never_looks_without_room() -> None:
    """Paused or full, it looks for nothing; it does as soon as there is room."""
    rhythm = Rhythm(0.0)
    rhythm.feed()

    assert rhythm.next(1.0, unwritten=0, demand=0) == Idle()
    assert rhythm.next(1.0, unwritten=0, demand=1) == Turn(1)


def test_what_may_have_to_be_given_back_needs_no_room() -> None:
    """Paused or full, it takes a turn for that; one after the other as looks are."""
    rhythm = Rhythm(0.5)
    rhythm.worked(1.0, asked=10, got=0)

    assert rhythm.next(1.25, unwritten=0, demand=0, unsure=True) == Wait(0.25)
    assert rhythm.next(1.5, unwritten=0, demand=0, unsure=True) == Turn(0)
    assert rhythm.next(1.5, unwritten=0, demand=3, unsure=True) == Turn(3)


def test_a_turn_is_bounded() -> None:
    """However much room there is, one transaction claims no more than so many."""
    rhythm = Rhythm(0.0)

    assert rhythm.next(1.0, unwritten=0, demand=10**6) == Turn(MOST_FETCHED)


def test_failures_are_tried_again_ever_later() -> None:
    """The database being away costs ten tries a second at first, and one in five seconds then."""
    rhythm = Rhythm(0.0)
    delays = []
    for _ in range(12):
        rhythm.failed(10.0)
        step = rhythm.next(10.0, unwritten=3, demand=1)
        assert isinstance(step, Wait)
        delays.append(step.seconds)

    assert abs(delays[0] - FAILED_DELAY) < 1e-6
    assert delays == sorted(delays)
    assert abs(delays[-1] - FAILED_MOST) < 1e-6
    assert rhythm.next(10.0 + FAILED_MOST, unwritten=3, demand=1) == Turn(1)


def test_a_turn_that_works_ends_the_failures() -> None:
    """After one success the next turn waits for nothing."""
    rhythm = Rhythm(0.0)
    rhythm.failed(10.0)
    rhythm.worked(10.0, asked=1, got=1)

    assert rhythm.next(10.0, unwritten=1, demand=0) == Turn(0)


@pytest.mark.parametrize(("limit", "most"), [(1, 250), (200, 250), (1_000, 500), (5_000, 2_500)])
def test_a_turn_claims_half_of_what_may_run(limit: int, most: int) -> None:
    """So that the other half is run meanwhile; few jobs are not worth two turns."""
    assert share(limit) == most


def test_short_jobs_are_waited_for_where_there_is_nothing_else_to_do() -> None:
    """Not while there is more to claim, nor when enough of them have ended already."""
    rhythm = Rhythm(0.0)
    rhythm.worked(0.0, asked=100, got=100)

    assert rhythm.hungry
    assert not rhythm.waits(0, demand=100, got=100)
    assert rhythm.waits(49, demand=0, got=100)
    assert not rhythm.waits(50, demand=0, got=100)

    rhythm.worked(0.0, asked=100, got=4)
    assert rhythm.waits(1, demand=96, got=4)

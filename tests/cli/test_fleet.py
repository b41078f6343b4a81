"""Which processes a parent starts, stops and kills, and when: the decisions alone."""

import signal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oban_actors.cli.fleet import (
    HURRY_TIME,
    MOST_DELAY,
    RESTARTS,
    SECONDS,
    STOP_TIME,
    Action,
    Fleet,
    Kill,
    Start,
    Tell,
)

GRACE = 15.0


def running(count: int = 3) -> Fleet:
    """A fleet whose processes are all up."""
    fleet = Fleet(count, GRACE)
    fleet.begin()
    for index in range(count):
        fleet.ready(index)
    return fleet


def test_the_others_follow_the_first() -> None:
    """What keeps the first from coming up would keep them all."""
    fleet = Fleet(3, GRACE)

    assert fleet.begin() == [Start(0)]
    assert fleet.ready(0) == [Start(1), Start(2)]
    assert fleet.ready(1) == fleet.ready(2) == []
    assert fleet.wake_at is None


def test_one_that_dies_is_started_again() -> None:
    """Whatever it ended with: it is meant to run."""
    for code in (-9, 1, 0):
        assert running().ended(1, code, "died", 10.0) == [Start(1)]


def test_too_many_deaths_end_all() -> None:
    """The last first; the parent's exit code tells it."""
    fleet = running()
    for at in range(RESTARTS):
        assert fleet.ended(0, 1, "died", float(at)) == [Start(0)]
    last = fleet.ended(0, 1, "died", float(RESTARTS))

    assert last == [Tell(2, "drain"), Tell(1, "drain"), Tell(2, "stop")]
    assert fleet.ended(2, 0, "ended", 7.0) == [Tell(1, "stop")]
    assert not fleet.over
    assert fleet.ended(1, 0, "ended", 8.0) == []
    assert fleet.over
    assert fleet.code == 1
    assert fleet.why == "worker 0 died: the 6th within 300 seconds"


def test_deaths_that_are_far_apart_are_borne() -> None:
    """Only those within the window count."""
    fleet = running()
    for number in range(50):
        at = number * SECONDS / (RESTARTS - 1)
        assert fleet.ended(number % 3, -9, "died", at) == [Start(number % 3)]


@pytest.mark.parametrize("code", [2, 4])
def test_what_starting_again_will_not_mend_ends_all(code: int) -> None:
    """A wrong configuration, or no tables."""
    fleet = Fleet(2, GRACE)
    fleet.begin()

    assert fleet.ended(0, code, "ended", 1.0) == []
    assert fleet.over
    assert fleet.code == code


@pytest.mark.parametrize("code", [2, 4, 5])
def test_what_keeps_one_from_coming_back_ends_no_other(code: int) -> None:
    """A port that is taken, say, or code that is being replaced: it is tried again later."""
    fleet = running(2)
    assert fleet.ended(1, -9, "was killed by SIGKILL", 10.0) == [Start(1)]
    for now in (100.0, 200.0, 300.0):
        assert fleet.ended(1, code, "ended", now) == []
        assert fleet.tick(now) == []
        assert fleet.tick(now + MOST_DELAY) == [Start(1)]
    assert not fleet.over
    assert fleet.ready(1) == []
    # Once it is up, whatever it ends with is a crash.
    for at in range(RESTARTS):
        assert fleet.ended(1, code, "ended", 1000.0 + at) == [Start(1)]
        fleet.ready(1)
    assert fleet.ended(1, code, "ended", 1010.0)[0] == Tell(0, "drain")


def test_a_port_that_the_node_before_still_has() -> None:
    """The first one waits for it as well: a rollout may start it before the other has ended."""
    fleet = Fleet(2, GRACE)
    fleet.begin()
    for now in (10.0, 100.0, 200.0):
        assert fleet.ended(0, 5, "ended", now) == []
        assert fleet.tick(now + MOST_DELAY) == [Start(0)]
    assert fleet.ready(0) == [Start(1)]


def test_one_that_is_stopped_before_it_came_up() -> None:
    """That it has not reached the database is no failure of the stop."""
    fleet = Fleet(1, GRACE)
    fleet.begin()
    fleet.signal(0.0)
    fleet.ended(0, 3, "ended", 1.0)
    assert (fleet.over, fleet.code) == (True, 0)

    fleet = running(1)
    fleet.signal(0.0)
    fleet.ended(0, 3, "ended", 1.0)
    assert (fleet.over, fleet.code) == (True, 1)


def test_a_database_that_never_was_there_ends_all() -> None:
    """Before any process came up it is a wrong address."""
    fleet = Fleet(2, GRACE)
    fleet.begin()
    fleet.ended(0, 3, "ended", 1.0)

    assert fleet.over
    assert fleet.code == 3


def test_a_database_that_is_away_is_waited_for() -> None:
    """Longer each time, and it is no crash, however often it is tried."""
    fleet = running(1)
    now, delays = 0.0, []
    for _ in range(20):
        assert fleet.ended(0, 3, "ended", now) == []
        assert fleet.wake_at is not None
        delays.append(fleet.wake_at - now)
        assert fleet.tick(now) == []
        now = fleet.wake_at
        assert fleet.tick(now) == [Start(0)]

    assert delays[:5] == [1, 2, 4, 8, 16]
    assert max(delays) == MOST_DELAY
    fleet.ready(0)
    fleet.ended(0, 3, "ended", now)
    assert fleet.wake_at == now + 1


def test_a_system_that_starts_no_process_is_waited_for() -> None:
    """One of a fleet that runs is tried again later, each time after a longer while."""
    fleet = Fleet(3, GRACE)
    fleet.begin()
    fleet.ready(0)
    assert fleet.unstarted(1, "could not be started", 10.0) == []
    assert fleet.unstarted(2, "could not be started", 10.0) == []
    due = fleet.wake_at
    assert due is not None
    assert due > 10.0
    assert fleet.tick(due) == [Start(1), Start(2)]
    fleet.unstarted(1, "could not be started", due)
    later = fleet.wake_at
    assert later is not None
    assert later - due > due - 10.0
    fleet.signal(due)
    assert fleet.unstarted(2, "could not be started", due) == [Tell(0, "stop")]
    assert fleet.ended(0, 0, "ended", due) == []
    assert fleet.over


def test_a_system_that_starts_not_even_the_first() -> None:
    """Then it never was able to."""
    fleet = Fleet(3, GRACE)
    fleet.begin()

    assert fleet.unstarted(0, "could not be started: no memory", 1.0) == []
    assert (fleet.over, fleet.code) == (True, 1)
    assert fleet.why == "worker 0 could not be started: no memory"


def test_one_that_can_not_be_killed_is_not_killed_all_the_time() -> None:
    """The parent sleeps between two tries."""
    fleet = running(1)
    fleet.signal(0.0)
    at = fleet.wake_at
    assert at is not None
    assert fleet.tick(at) == [Kill(0)]
    again = fleet.wake_at
    assert again is not None
    assert again > at
    assert fleet.tick(at) == []
    assert fleet.tick(again) == [Kill(0)]
    fleet.ended(0, -9, "killed", again)
    assert fleet.code == 1


def test_a_signal_stops_them_in_reverse_order() -> None:
    """All drain at once, each ends when the one behind it has."""
    fleet = running()

    assert fleet.signal(0.0) == [
        *(Tell(2, "drain"), Tell(1, "drain"), Tell(0, "drain")),
        Tell(2, "stop"),
    ]
    assert fleet.wake_at == GRACE + STOP_TIME
    assert fleet.ended(1, -9, "died", 1.0) == []
    assert fleet.ended(2, 0, "ended", 2.0) == [Tell(0, "stop")]
    assert fleet.ended(0, 0, "ended", 3.0) == []
    assert fleet.over
    assert fleet.code == 1
    assert fleet.why is None


def test_one_that_does_not_end_is_killed() -> None:
    """When its grace period and the time to end are over; the parent says that it failed."""
    fleet = running(2)
    fleet.signal(0.0)
    at = GRACE + STOP_TIME

    assert fleet.tick(at - 0.1) == []
    assert fleet.tick(at) == [Kill(1)]
    assert fleet.ended(1, -9, "died", at + 0.1) == [Tell(0, "stop")]
    assert fleet.ended(0, 0, "ended", at + 1) == []
    assert fleet.code == 1


def test_a_second_signal_hurries_and_a_third_kills() -> None:
    """All at once: order is for who has time."""
    fleet = running(2)
    fleet.signal(0.0)

    assert fleet.signal(1.0) == [
        *(Tell(1, "hurry"), Tell(1, "stop"), Tell(0, "hurry"), Tell(0, "stop"))
    ]
    assert fleet.wake_at == 1.0 + HURRY_TIME
    assert fleet.signal(2.0) == [Kill(1), Kill(0)]


def test_what_does_not_hurry_stops_only_once() -> None:
    """A terminal that closes may say so several times; only impatience counts as a second one."""
    fleet = running(2)

    assert fleet.signal(0.0, hurry=False)[-1] == Tell(1, "stop")
    assert fleet.signal(1.0, hurry=False) == []
    assert fleet.wake_at == GRACE + STOP_TIME
    # A service manager sends another with it, which is no impatience either.
    assert fleet.signal(2.0) == []
    assert fleet.signal(3.0)[0] == Tell(1, "hurry")
    assert fleet.signal(4.0)[0] == Kill(1)


def test_a_worker_that_was_told_before_it_could_hear() -> None:
    """A service manager signals it besides its parent: that is an end in order."""
    fleet = running(2)
    fleet.signal(0.0)
    fleet.ended(1, -signal.SIGTERM, "was killed by SIGTERM", 0.1)
    fleet.ended(0, 0, "ended", 0.2)

    assert fleet.over
    assert fleet.code == 0


def test_a_signal_while_one_waits_to_be_started() -> None:
    """It is not started any more."""
    fleet = running(2)
    fleet.ended(1, 3, "ended", 0.0)
    fleet.signal(0.5)

    assert fleet.tick(1000.0) == [Kill(0)]
    assert fleet.ended(0, -9, "died", 1000.0) == []
    assert fleet.over


EVENTS = st.lists(
    st.tuples(
        st.sampled_from(["ready", "ended", "signal", "tick"]),
        st.integers(0, 3),
        st.sampled_from([0, 1, 2, 3, 4, -9]),
        st.floats(0, 40),
    ),
    max_size=60,
)


class Model:
    """A fleet beside the processes that there are if its actions are done."""

    def __init__(self) -> None:
        self.fleet = Fleet(4, GRACE)
        self.now = 0.0
        self.up: set[int] = set()
        self.do(self.fleet.begin())

    def do(self, actions: list[Action]) -> None:
        """Do actions: nothing is started twice, or told when it is not there."""
        for action in actions:
            assert (action.index in self.up) != isinstance(action, Start)
            if isinstance(action, Start):
                self.up.add(action.index)

    def event(self, what: str, index: int, code: int) -> None:
        """Something happens, where it can."""
        if what == "signal":
            self.do(self.fleet.signal(self.now))
        elif what == "tick":
            self.do(self.fleet.tick(self.now))
        elif index in self.up and what == "ready":
            self.do(self.fleet.ready(index))
        elif index in self.up:
            self.end(index, code)

    def end(self, index: int, code: int) -> None:
        """A process ends."""
        self.up.discard(index)
        self.do(self.fleet.ended(index, code, "ended", self.now))

    def stop(self) -> None:
        """Tell it to stop, and let no process end by itself."""
        if not self.fleet.over:
            self.do(self.fleet.signal(self.now))
        while not self.fleet.over:
            assert self.fleet.wake_at is not None
            self.now = max(self.now, self.fleet.wake_at)
            for action in self.fleet.tick(self.now):
                assert isinstance(action, Kill)
                self.end(action.index, -9)


@given(EVENTS)
def test_whatever_happens_no_process_is_lost(
    events: list[tuple[str, int, int, float]],
) -> None:
    """As long as it is not over there is one, or one is due; told to stop, all end."""
    model = Model()
    for what, index, code, passed in events:
        model.now += passed
        if not model.fleet.over:
            model.event(what, index, code)
        assert model.fleet.over or model.up or model.fleet.wake_at is not None
    model.stop()

    assert not model.up

"""Claims compared with the table at each beat: which runs are told to end, and which are not."""

from collections.abc import Iterator
from typing import Any

import pytest

from oban_actors import Beat
from oban_actors.engines import BeatReport
from oban_actors.messages import Dispatch
from tests.queues.work import Work, claims, jobs, renew, view, wait_state
from tests.support.events import recording
from tests.support.instances import Starter
from tests.support.waiting import wait_until

ALPHA: dict[str, Any] = {"queues": {"alpha": 5}, "stager": None}


@pytest.fixture
def work() -> Iterator[Work]:
    """This test's work; what still waits at its end is let go."""
    one = renew()
    yield one
    one.open()


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_a_claim_that_was_taken_and_came_back(start_oban: Starter, work: Work, kind: str) -> None:
    """Of two runs of one job on this node the earlier is told to end; the later counts."""
    oban = start_oban(**ALPHA)
    one = oban.insert(jobs(kind, 1, "heed")[0])
    work.wait_inside(1)
    # The next one of its own is ten seconds away.
    oban.ask("pulse", Beat(), timeout=30)
    start_oban.tables.execute("UPDATE {jobs} SET state = 'available'")
    oban.tell(("producer", "alpha"), Dispatch())
    work.wait_inside(2)
    with recording("oban.job.stale", "oban.job.stop") as told:
        oban.ask("pulse", Beat(), timeout=30)
        assert told.wait_for("oban.job.stale").metadata["id"] == one.id
        assert work.inside == 1
        assert [claim.running.cancelled for claim in claims(oban).values()] == [False]
        work.open()

        assert wait_state(oban, one, "completed").attempt == 2
        assert len(told.wait_for_count(1, "oban.job.stop")) == 1
    assert view(oban).running == ()


def test_a_job_that_goes_on_though_it_was_cancelled(
    start_oban: Starter, work: Work, caplog: pytest.LogCaptureFixture
) -> None:
    """Its row shows another state from there on, which nobody takes for a theft."""
    oban = start_oban(**ALPHA)
    one = oban.insert(jobs("sync", 1, "wait")[0])
    work.wait_inside(1)
    # None of its own comes between the row's change and what this node hears of it.
    oban.ask("pulse", Beat(), timeout=30)
    oban.cancel_job(one)
    wait_until(lambda: [claim.running.cancelled for claim in claims(oban).values()] == [True])
    for _ in range(2):
        oban.ask("pulse", Beat(), timeout=30)

    assert "taken from this node" not in caplog.text


def test_a_beat_that_comes_before_the_word_of_a_cancel(
    start_oban: Starter, work: Work, caplog: pytest.LogCaptureFixture
) -> None:
    """The row is cancelled, and the node was not told yet: nothing has gone wrong."""
    oban = start_oban(**ALPHA)
    one = oban.insert(jobs("sync", 1, "heed")[0])
    work.wait_inside(1)
    start_oban.tables.execute("UPDATE {jobs} SET state = 'cancelled'")
    oban.ask("pulse", Beat(), timeout=30)

    wait_until(lambda: work.told == {one.id: "cancelled"})
    said = f"jobs were cancelled, or taken from this node, and are told to end: [{one.id}]"
    assert [r.message for r in caplog.records if "told to end" in r.message] == [said]


def test_what_is_fetched_behind_a_beats_back(start_oban: Starter, work: Work) -> None:
    """A job that is claimed once the table was read is not among those that were taken."""
    oban = start_oban.make(**ALPHA)
    transaction, armed = oban.repo.transaction, [True]

    def late(*given: Any, **how: Any) -> Any:
        result = transaction(*given, **how)
        if isinstance(result, BeatReport) and oban.check_queue("alpha") and armed:
            armed.pop()
            oban.insert(jobs("sync", 1, "heed")[0])
            work.wait_inside(1)
        return result

    oban.repo.transaction = late  # type: ignore[method-assign]  # between two steps of the Pulse
    oban.start()
    oban.ask("pulse", Beat(), timeout=30)
    oban.ask("pulse", Beat(), timeout=30)
    wait_until(lambda: not armed)

    assert [claim.running.cancelled for claim in claims(oban).values()] == [False]
    assert work.inside == 1

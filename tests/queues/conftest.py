"""Fixtures of the queues' tests: work to be done, and events of jobs."""

from collections.abc import Iterator

import pytest

from oban_actors.queues import supervisor, watchman
from tests.queues.work import Work, renew
from tests.support.events import Recorder, recording

JOB_EVENTS = ("start", "stop", "exception", "stale")


@pytest.fixture
def work() -> Iterator[Work]:
    """This test's work; what still waits at its end is let go."""
    one = renew()
    yield one
    one.open()


@pytest.fixture
def _patient_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give runs that are told to end more than the second that they have for it."""
    for module in (watchman, supervisor):
        monkeypatch.setattr(module, "CANCEL_TIME", 30.0)


@pytest.fixture
def told() -> Iterator[Recorder]:
    """The events of jobs and of queues that end."""
    names = [f"oban.job.{event}" for event in JOB_EVENTS]
    with recording(*names, "oban.queue.shutdown", "oban.producer.exception") as recorder:
        yield recorder

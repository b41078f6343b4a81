"""The seam for tracers: what it costs, carries, and survives."""

from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from oban_actors import Job, tracing
from oban_actors.tracing import Carrier, How
from tests.support.instances import Starter

CARRIER = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}


class Tracer:
    """Keeps what it is told, and may fail at each step."""

    resume = "tests.metrics.test_tracing.nothing"

    def __init__(self, fails: str = "") -> None:
        self.fails = fails
        self.told: list[Any] = []

    def _may_fail(self, step: str) -> None:
        if step == self.fails:
            raise RuntimeError(f"{step} failed")

    def inject(self) -> Carrier:
        """See `tracing.Tracer`."""
        self._may_fail("inject")
        return CARRIER

    def start(self, job: Job, *, current: bool) -> Any:
        """See `tracing.Tracer`."""
        self._may_fail("start")
        self.told.append(("start", current))
        return job

    def carrier(self, span: Any) -> Carrier:
        """See `tracing.Tracer`."""
        self._may_fail("carrier")
        return CARRIER

    def finish(self, span: Any, how: How, error: BaseException | str | None) -> None:
        """See `tracing.Tracer`."""
        self._may_fail("finish")
        self.told.append((how, error))


@pytest.fixture
def tracer() -> Iterator[Tracer]:
    """One that is attached."""
    one = Tracer()
    tracing.attach(one)
    yield one
    tracing.detach(one)


def job(**options: Any) -> Job:
    """Make a job."""
    return Job.new(worker="tests.Worker", **options)


def test_without_a_tracer_nothing_is_touched() -> None:
    """Not even copied; the span of a run is the same nothing for all."""
    jobs = [job(), job()]

    assert tracing.carry(jobs) is jobs
    with tracing.performing(jobs[0]) as span:
        assert span.returned(3) == 3
        assert span.passed_on() is None
    assert tracing.performing(jobs[1]) is span


def test_jobs_carry_the_context_as_copies(tracer: Tracer) -> None:
    """What the host holds is its own; what a job carries already stays."""
    ours = "00-11111111111111111111111111111111-2222222222222222-01"
    plain, own = job(meta={"a": 1}), job(meta={"traceparent": ours})

    carried = tracing.carry([plain, own])
    assert [each.meta for each in carried] == [{"a": 1, **CARRIER}, {"traceparent": ours}]
    assert plain.meta == {"a": 1}


@pytest.mark.parametrize(
    ("unique", "carries"),
    [
        (True, True),
        ({"fields": ["worker", "meta"]}, False),
        ({"fields": ["worker", "meta"], "keys": ["a"]}, True),
    ],
)
def test_a_job_that_is_unique_by_its_meta(tracer: Tracer, unique: Any, *, carries: bool) -> None:
    """With a context of its own it would be like no other."""
    [carried] = tracing.carry([job(meta={"a": 1}, unique=unique)])

    assert ("traceparent" in carried.meta) is carries


@pytest.mark.usefixtures("tracer")
@pytest.mark.parametrize("fields", [["worker", "meta"], ["worker", "args"]])
def test_unique_jobs_stay_unique(start_oban: Starter, fields: list[str]) -> None:
    """In the database too, on both."""
    oban = start_oban.make()
    unique = {"fields": fields, "period": 60}
    first = oban.insert(job(meta={"a": 1}, unique=unique))
    second = oban.insert(job(meta={"a": 1}, unique=unique))

    assert (first.conflict, second.conflict) == (False, True)
    assert first.id == second.id


def test_one_tracer_for_the_program(tracer: Tracer) -> None:
    """Another one is refused, and doesn't detach the first."""
    with pytest.raises(ValueError, match="attached already"):
        tracing.attach(Tracer())
    assert tracing.detach(Tracer()) is False
    assert tracing.detach(tracer) is True


@pytest.mark.parametrize("step", ["inject", "start", "carrier", "finish"])
def test_a_tracer_that_fails_breaks_nothing(step: str, caplog: pytest.LogCaptureFixture) -> None:
    """It is detached and logged; jobs are inserted and run."""
    tracer = Tracer(step)
    tracing.attach(tracer)
    try:
        [carried] = tracing.carry([job()])
        with tracing.performing(carried) as span:
            assert span.returned("well") == "well"
            span.passed_on()

        assert f"{step} failed" in caplog.text
        assert tracing.detach(tracer) is False
    finally:
        tracing.detach(tracer)


def test_how_a_run_elsewhere_ended(tracer: Tracer) -> None:
    """Its outcome says so."""
    outcomes: list[Mapping[str, Any]] = [
        {"kind": "returned", "result": 1},
        {"kind": "cancel", "reason": "no"},
        {"kind": "failure", "error": "boom"},
    ]
    for outcome in outcomes:
        span = tracing.performing(job()).begin()
        assert span.told(outcome) is outcome
        span.end()
        span.end()  # twice is once

    ended = [told for told in tracer.told if told[0] != "start"]
    assert ended == [("returned", None), ("cancel", "no"), ("failure", "boom")]


@pytest.mark.usefixtures("tracer")
def test_what_can_not_be_resumed_is_no_failure(caplog: pytest.LogCaptureFixture) -> None:
    """A process without the tracer's library runs the job all the same."""
    with tracing.resumed(None):
        pass
    with tracing.resumed(("no_such_module.resume", CARRIER)):
        pass
    assert "can't be resumed" in caplog.text

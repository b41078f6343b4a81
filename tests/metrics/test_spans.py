"""Spans of OpenTelemetry, with the real SDK: one trace from the insert to the run."""

import asyncio
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

from oban_actors import Job, tracing
from oban_actors.metrics import otel
from tests.metrics import work
from tests.support.databases import Database
from tests.support.events import Event, Recorder, recording
from tests.support.instances import Starter
from tests.support.waiting import wait_until

ROOT = Path(__file__).resolve().parents[2]
ENDS = ("oban.job.stop", "oban.job.exception")


class Traced:
    """Spans that have ended."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        self.provider = TracerProvider()
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))

    def named(self, name: str, count: int = 1) -> Sequence[ReadableSpan]:
        """Wait for spans of a name."""

        def found() -> Any:
            spans = [one for one in self.exporter.get_finished_spans() if one.name == name]
            return spans if len(spans) >= count else None

        return wait_until(found, message=f"{count} of {name}") or []


@pytest.fixture
def traced() -> Iterator[Traced]:
    """Traces are kept."""
    one = Traced()
    attached = otel.attach(tracer_provider=one.provider)
    yield one
    attached.detach()
    one.provider.shutdown()


@pytest.fixture
def ends() -> Iterator[Recorder]:
    """How jobs ended."""
    with recording(*ENDS) as recorder:
        yield recorder


def ended(ends: Recorder, job: Job) -> Event:
    """Wait for the end of a job's run."""

    def same(event: Event) -> bool:
        return bool(event.metadata["id"] == job.id)

    return wait_until(lambda: [event for name in ENDS for event in ends.all(name, same)])[0]


def ids(span: ReadableSpan) -> str:
    """A span's trace and its own id, as the workers say them."""
    context = span.get_span_context()
    assert context is not None
    return f"{context.trace_id:032x}-{context.span_id:016x}"


EXECUTORS = ["threads", "processes", "async", "executor"]


@pytest.mark.parametrize("executor", EXECUTORS)
def test_a_trace_goes_from_the_insert_to_the_run(
    start_oban: Starter, traced: Traced, ends: Recorder, executor: str
) -> None:
    """Insert and run are parent and child, and the worker is within the latter."""
    pool = None
    given: Any = "threads" if executor == "async" else executor
    if executor == "executor":
        given = pool = ProcessPoolExecutor(1, get_context("spawn"))
    try:
        oban = start_oban(queues={"alpha": {"limit": 1, "executor": given}})
        named = work.asay if executor == "async" else work.say
        with traced.provider.get_tracer("host").start_as_current_span("request"):
            job = oban.insert(named.new())
        event = ended(ends, job)
        request, insert = traced.named("request")[0], traced.named("send alpha")[0]
        run = traced.named("process alpha")[0]
    finally:
        if pool is not None:
            pool.shutdown()

    assert insert.parent is not None
    assert insert.parent.span_id == request.get_span_context().span_id
    assert run.parent is not None
    assert run.parent.span_id == insert.get_span_context().span_id
    assert run.parent.is_remote
    assert event.metadata["result"] == ids(run)
    assert (insert.kind, run.kind) == (SpanKind.PRODUCER, SpanKind.CONSUMER)
    told = dict(run.attributes or {})
    assert told["messaging.message.id"] == str(job.id)
    assert (insert.attributes or {})["messaging.message.id"] == str(job.id)
    assert told["oban.job.worker"] == job.worker
    assert (told["oban.job.attempt"], told["oban.job.outcome"]) == (1, "returned")


INSERT = """
import sys
from opentelemetry.sdk.trace import TracerProvider
from oban_actors import Oban
from oban_actors.metrics import otel
from tests.metrics import work

provider = TracerProvider()
otel.attach(tracer_provider=provider)
oban = Oban(sys.argv[1], prefix=sys.argv[2])
with provider.get_tracer("host").start_as_current_span("request"):
    print(work.here().split("-")[0], oban.insert(work.say.new()).id)
oban.repo.close()
"""


def test_a_trace_goes_from_one_program_to_another(
    start_oban: Starter, traced: Traced, ends: Recorder
) -> None:
    """What another program inserted is run here, in its trace."""
    oban = start_oban(queues={"alpha": 1})
    database = start_oban.database
    told = subprocess.run(
        [sys.executable, "-c", INSERT, database.url, database.prefix],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
        cwd=ROOT,
    ).stdout
    trace_id, job_id = told.split()
    run = traced.named("process alpha")[0]

    assert ids(run).split("-")[0] == trace_id
    assert (run.attributes or {})["messaging.message.id"] == job_id
    job = oban.get_job(int(job_id))
    assert job is not None
    assert trace_id in job.meta["traceparent"]


def test_how_runs_ended(start_oban: Starter, traced: Traced, ends: Recorder) -> None:
    """A failure is an error with its exception; a cancelled or snoozed one is not."""
    oban = start_oban(queues={"alpha": 1})
    workers = (work.fail, work.cancel, work.cancel_by_class, work.snooze)
    for job in [oban.insert(each.new()) for each in workers]:
        ended(ends, job)
    spans = traced.named("process alpha", len(workers))
    found = {str((span.attributes or {})["oban.job.outcome"]): span for span in spans}

    assert set(found) == {"failure", "cancel", "snooze"}
    assert found["failure"].status.status_code == StatusCode.ERROR
    assert [event.name for event in found["failure"].events] == ["exception"]
    assert (found["failure"].events[0].attributes or {})["exception.message"] == "boom"
    for how in ("cancel", "snooze"):
        assert found[how].status.status_code == StatusCode.UNSET


def test_what_can_not_be_written(start_oban: Starter, traced: Traced, ends: Recorder) -> None:
    """It is traced as far as that goes, ends as without a tracer, and is nobody else's span."""
    oban = start_oban(queues={"alpha": 1})
    failed = oban.insert(work.fail_oddly.new())
    cancelled = oban.insert(work.cancel_oddly.new())
    said = oban.insert(work.say.new())
    for job in (failed, cancelled, said):
        ended(ends, job)
    spans = traced.named("process alpha", 3)
    found = {str((span.attributes or {})["messaging.message.id"]): span for span in spans}

    assert found[str(failed.id)].status.status_code == StatusCode.ERROR
    assert [event.name for event in found[str(failed.id)].events] == ["exception"]
    for job in (cancelled, said):
        assert found[str(job.id)].parent != found[str(failed.id)].context
    states = [(one := oban.get_job(job.id or 0)) and one.state for job in (failed, cancelled, said)]
    assert states == ["discarded", "cancelled", "completed"]


def test_a_failure_in_another_process(start_oban: Starter, traced: Traced, ends: Recorder) -> None:
    """What came back of it stands in the span."""
    oban = start_oban(queues={"alpha": {"limit": 1, "executor": "processes"}})
    ended(ends, oban.insert(work.fail.new()))
    run = traced.named("process alpha")[0]

    assert run.status.status_code == StatusCode.ERROR
    assert "boom" in str((run.events[0].attributes or {})["exception.message"])


def test_nothing_is_kept_of_what_has_ended(start_oban: Starter) -> None:
    """Neither of inserts that went well, nor of those that did not."""
    one = Traced()
    attached = otel.attach(tracer_provider=one.provider)
    oban = start_oban.make()
    try:
        oban.insert_all([work.say.new(), work.say.new()])
        oban.insert(work.say.new())
        assert len(one.exporter.get_finished_spans()) == 2
        assert attached._spans._inserts == {}
    finally:
        attached.detach()
        one.provider.shutdown()


def test_many_at_once(start_oban: Starter, traced: Traced) -> None:
    """One span for the insert of all, whose context they share."""
    oban = start_oban.make()
    jobs = oban.insert_all([work.say.new(), work.say.new(queue="beta")])
    insert = traced.named("send")[0]

    assert (insert.attributes or {})["messaging.batch.message_count"] == 2
    carried = {job.meta["traceparent"] for job in jobs}
    assert len(carried) == 1
    assert ids(insert) in carried.pop()
    assert {job.meta["traceparent"] for job in (oban.get_job(j.id or 0) for j in jobs) if job}


def test_a_job_without_a_context_begins_a_trace(
    start_oban: Starter, traced: Traced, ends: Recorder
) -> None:
    """As one of Elixir's does, or one whose context nobody can read."""
    oban = start_oban(queues={"alpha": 1})
    for meta in ({"traceparent": "nonsense"}, {"traceparent": 7}):
        ended(ends, oban.insert(work.say.new(meta=meta)))
    for run in traced.named("process alpha", 2):
        assert run.parent is None


def test_an_insert_that_fails(start_oban: Starter, traced: Traced) -> None:
    """Its span ends as an error, and what follows is not within it."""
    oban = start_oban.make()
    start_oban.tables.execute("ALTER TABLE {jobs} RENAME TO gone")
    with pytest.raises(Exception, match=r"oban_jobs"):
        oban.insert(work.say.new())
    start_oban.tables.execute(
        "ALTER TABLE {jobs} RENAME TO oban_jobs".replace(
            "{jobs}", start_oban.tables.jobs.replace("oban_jobs", "gone")
        )
    )

    assert traced.named("send alpha")[0].status.status_code == StatusCode.ERROR
    assert work.here() == f"{0:032x}-{0:016x}"


def test_within_the_hosts_own_async_transaction(
    sqlite: Database, traced: Traced, caplog: pytest.LogCaptureFixture
) -> None:
    """The span opens and closes in one context there too."""
    from tests.support.instances import starter  # noqa: PLC0415 (for one database only)

    async def insert(oban: Any) -> Job:
        url = sa.make_url(sqlite.url).set(drivername="sqlite+aiosqlite")
        engine = create_async_engine(url)
        try:
            async with AsyncSession(engine) as session:
                job: Job = await oban.ainsert(work.say.new(), session=session)
                await session.commit()
                return job
        finally:
            await engine.dispose()

    with starter(sqlite) as start:
        job = asyncio.run(insert(start.make()))

    assert ids(traced.named("send alpha")[0]) in job.meta["traceparent"]
    assert "detach" not in caplog.text


def test_inline_the_run_is_within_what_inserts(start_oban: Starter, traced: Traced) -> None:
    """There is no row to carry a context, and no need to."""
    oban = start_oban.make(testing="inline")
    with traced.provider.get_tracer("host").start_as_current_span("request"):
        oban.insert(work.say.new())
    run, request = traced.named("process alpha")[0], traced.named("request")[0]

    assert run.parent is not None
    assert run.parent.span_id == request.get_span_context().span_id


def test_what_is_detached_traces_nothing(start_oban: Starter) -> None:
    """Nor does it write anything beside a job; attached twice it is refused."""
    one = Traced()
    attached = otel.attach(tracer_provider=one.provider)
    with pytest.raises(ValueError, match="attached already"):
        otel.attach(tracer_provider=one.provider)
    attached.detach()
    oban = start_oban.make()

    assert oban.insert(work.say.new()).meta == {}
    assert one.exporter.get_finished_spans() == ()
    assert tracing.carry([]) == []


def test_without_an_sdk_nothing_is_written(start_oban: Starter) -> None:
    """The API alone makes no spans, so there is no context to carry."""
    attached = otel.attach()
    try:
        assert start_oban.make().insert(work.say.new()).meta == {}
    finally:
        attached.detach()


@pytest.mark.parametrize(
    ("module", "missing", "hint"),
    [
        ("otel", "opentelemetry", "pip install 'oban_actors[otel]'"),
        ("prometheus", "prometheus_client", "pip install 'oban_actors[prometheus]'"),
    ],
)
def test_an_extra_that_is_not_installed(module: str, missing: str, hint: str) -> None:
    """The error says what to install; the package itself needs none."""
    code = (
        f"import sys; sys.modules[{missing!r}] = None\n"
        "import oban_actors, oban_actors.tracing\n"
        f"import oban_actors.metrics.{module}"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60
    )

    assert done.returncode == 1
    assert f"ImportError: oban_actors.metrics.{module} needs" in done.stderr
    assert hint in done.stderr.splitlines()[-1]

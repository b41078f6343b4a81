"""Spans of inserts and runs, joined across processes through the jobs' meta."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import Token
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import Span, SpanKind, StatusCode, Tracer
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from oban_actors import error_text, telemetry
from oban_actors.error_text import storable
from oban_actors.job import Job
from oban_actors.tracing import Carrier, How

W3C = TraceContextTextMapPropagator()
INSERTS = ("oban.engine.insert_job", "oban.engine.insert_all_jobs")


@dataclass(slots=True)
class _Open:
    """A span that has begun; `token` is what made it current, None where nothing did."""

    span: Span
    token: "Token[Context] | None"


class Spans:
    """Makes the spans: a tracer for `oban_actors.tracing`, and a telemetry handler for inserts.

    Args:
        tracer: OpenTelemetry's.

    """

    # The child imports it, and should not import the whole package for it.
    resume = "oban_actors.metrics.otel_spans.resume"

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer
        self._inserts: dict[int, _Open] = {}
        self._id = f"oban_actors.metrics.otel-{uuid4()}"

    def attach(self) -> None:
        """Trace inserts from now on."""
        events = [f"{name}.{end}" for name in INSERTS for end in ("start", "stop", "exception")]
        telemetry.attach_many(self._id, events, self.handle)

    def detach(self) -> None:
        """Trace inserts no more."""
        telemetry.detach(self._id)

    # Inserts

    def handle(
        self, event: str, _measurements: Mapping[str, Any], metadata: Mapping[str, Any]
    ) -> None:
        """Begin or end the span of an insert; telemetry's handler, in the inserting thread."""
        key: int = metadata["telemetry_span_context"]
        if event.endswith(".start"):
            jobs = [metadata["job"]] if "job" in metadata else metadata["changesets"]
            span = self._tracer.start_span(
                _insert_name(jobs), kind=SpanKind.PRODUCER, attributes=_insert_attributes(jobs)
            )
            self._inserts[key] = self._opened(span, current=True)
            return
        # One that began before this was attached is nobody's.
        one = self._inserts.pop(key, None)
        if one is None:
            return
        if event.endswith(".exception"):
            _fail(one.span, metadata["reason"])
        elif "jobs" not in metadata:
            one.span.set_attribute("messaging.message.id", str(metadata["job"].id))
            one.span.set_attribute("oban.job.conflict", metadata["job"].conflict)
        self._close(one)

    def inject(self) -> Carrier:
        """See `Tracer`."""
        carrier: dict[str, str] = {}
        W3C.inject(carrier)
        return carrier

    # Runs

    def start(self, job: Job, *, current: bool) -> _Open:
        """See `Tracer`."""
        span = self._tracer.start_span(
            f"process {job.queue}",
            context=_extracted(job.meta),
            kind=SpanKind.CONSUMER,
            attributes=_run_attributes(job),
        )
        return self._opened(span, current=current)

    def carrier(self, span: _Open) -> Carrier:
        """See `Tracer`."""
        carrier: dict[str, str] = {}
        W3C.inject(carrier, trace.set_span_in_context(span.span))
        return carrier

    def finish(self, span: _Open, how: How, error: BaseException | str | None) -> None:
        """See `Tracer`."""
        try:
            span.span.set_attribute("oban.job.outcome", how)
            if how == "failure":
                _fail(span.span, error)
        finally:
            # Whatever went wrong: it must not stay current for what comes next.
            self._close(span)

    # Helpers

    def _opened(self, span: Span, *, current: bool) -> _Open:
        token = otel_context.attach(trace.set_span_in_context(span)) if current else None
        return _Open(span, token)

    def _close(self, one: _Open) -> None:
        if one.token is not None:
            otel_context.detach(one.token)
        one.span.end()


@contextmanager
def resume(carrier: Carrier) -> Iterator[None]:
    """Make a span of another process the parent of what is traced in this block."""
    token = otel_context.attach(_extracted(carrier))
    try:
        yield
    finally:
        otel_context.detach(token)


def _extracted(meta: Mapping[str, Any]) -> Context:
    # Whoever wrote it: what is no context is passed over.
    carrier = {key: meta[key] for key in W3C.fields if isinstance(meta.get(key), str)}
    return W3C.extract(carrier, otel_context.get_current())


def _insert_name(jobs: Any) -> str:
    queues = {job.queue for job in jobs}
    return f"send {queues.pop()}" if len(queues) == 1 else "send"


def _insert_attributes(jobs: Any) -> dict[str, Any]:
    found: dict[str, Any] = {
        "messaging.system": "oban",
        "messaging.operation.type": "send",
        "messaging.batch.message_count": len(jobs),
    }
    queues, workers = {job.queue for job in jobs}, {job.worker for job in jobs}
    if len(queues) == 1:
        found["messaging.destination.name"] = queues.pop()
    if len(workers) == 1:
        found["oban.job.worker"] = workers.pop()
    return found


def _run_attributes(job: Job) -> dict[str, Any]:
    return {
        "messaging.system": "oban",
        "messaging.operation.type": "process",
        "messaging.destination.name": job.queue,
        "messaging.message.id": str(job.id),
        "oban.job.worker": job.worker,
        "oban.job.attempt": job.attempt,
        "oban.job.max_attempts": job.max_attempts,
    }


def _fail(span: Span, error: BaseException | str | None) -> None:
    if isinstance(error, BaseException):
        try:
            span.record_exception(error)
        except Exception:  # noqa: BLE001 (it asks the error for its text, which may raise anything)
            about = {"exception.type": type(error).__name__}
            span.add_event("exception", about | {"exception.message": error_text.describe(error)})
        span.set_status(StatusCode.ERROR, type(error).__name__)
    else:
        text = storable(error or "")
        span.add_event("exception", {"exception.message": text})
        span.set_status(StatusCode.ERROR, text.splitlines()[0] if text else None)

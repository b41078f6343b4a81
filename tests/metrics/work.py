"""Workers that say in which trace they run."""

from opentelemetry import trace

from oban_actors import Cancel, Job, Snooze, worker


def here() -> str:
    """The trace and the span that are current."""
    context = trace.get_current_span().get_span_context()
    return f"{context.trace_id:032x}-{context.span_id:016x}"


@worker(queue="alpha")
def say(job: Job) -> str:
    """Say it."""
    return here()


@worker(queue="alpha")
async def asay(job: Job) -> str:
    """Likewise, in a task."""
    return here()


@worker(queue="alpha", max_attempts=1)
def fail(job: Job) -> None:
    """Fail."""
    raise RuntimeError("boom")


@worker(queue="alpha")
def cancel(job: Job) -> Cancel:
    """Cancel itself."""
    return Cancel("no more")


@worker(queue="alpha")
def snooze(job: Job) -> None:
    """Come back later."""
    raise Snooze(3600)

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


class Unspeakable(Exception):
    """An error, and a reason, that can't be written."""

    def __str__(self) -> str:
        """Raise."""
        raise LookupError("no words")

    __repr__ = __str__


@worker(queue="alpha", max_attempts=1)
def fail_oddly(job: Job) -> None:
    """Fail."""
    raise Unspeakable


@worker(queue="alpha")
def cancel_oddly(job: Job) -> Cancel:
    """Cancel itself."""
    return Cancel(Unspeakable())


@worker(queue="alpha")
def cancel(job: Job) -> Cancel:
    """Cancel itself."""
    return Cancel("no more")


@worker(queue="alpha")
def cancel_by_class(job: Job) -> type[Cancel]:
    """Cancel itself, with no more than its class."""
    return Cancel


@worker(queue="alpha")
def snooze(job: Job) -> None:
    """Come back later."""
    raise Snooze(3600)

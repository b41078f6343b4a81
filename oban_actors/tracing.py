"""The seam for tracers: what is written beside a new job, and what goes on around its run.

Telemetry handlers only observe. A tracer has to do more: put its context into a job's meta, and
make it current where the worker runs. There is one or none for the program; without one all this
costs a look at a variable. `oban_actors.metrics.otel` attaches one.
"""

import asyncio
import importlib
import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from types import MappingProxyType, TracebackType
from typing import Any, Literal, Protocol, Self, TypeVar

from oban_actors import error_text
from oban_actors.job import Job
from oban_actors.results import Cancel, Snooze

T = TypeVar("T")
Carrier = Mapping[str, str]
"""A context as text, such as `{"traceparent": ...}`."""

How = Literal["returned", "cancel", "snooze", "failure", "interrupted"]
"""How a run ended."""

logger = logging.getLogger("oban_actors")


class Tracer(Protocol):
    """What a tracer does. It is detached and logged if anything of it raises.

    Attributes:
        resume: dotted name of a function that, in another process, takes a carrier and gives a
            context manager in which that context is current.

    """

    resume: str

    def inject(self) -> Carrier:
        """Give what is written into the meta of jobs that are inserted here and now."""

    def start(self, job: Job, *, current: bool) -> Any:
        """Begin the span of a run; the context that the job carries is its parent.

        Args:
            job: as it was claimed.
            current: whether what this thread or task does meanwhile belongs to the span.

        """

    def carrier(self, span: Any) -> Carrier:
        """Give a span's context, for a process that runs the job."""

    def finish(self, span: Any, how: How, error: BaseException | str | None) -> None:
        """End a span, in the thread or task that began it if it was current."""


_tracer: Tracer | None = None
_NOTHING: Carrier = MappingProxyType({})


def attach(tracer: Tracer) -> None:
    """Use a tracer from now on.

    Raises:
        ValueError: there is another one.

    """
    global _tracer  # noqa: PLW0603 (one for the program, as telemetry's handlers)
    if _tracer is not None:
        raise ValueError("a tracer is attached already")
    _tracer = tracer


def detach(tracer: Tracer) -> bool:
    """Use it no more; spans that have begun are ended by it all the same.

    Returns:
        Whether it was there.

    """
    global _tracer  # noqa: PLW0603 (as above)
    there = _tracer is tracer
    if there:
        _tracer = None
    return there


def carry(jobs: Sequence[Job]) -> Sequence[Job]:
    """Give jobs with the present context in their meta, as copies; as they are without a tracer.

    A job that has one of its own keeps it. One that is unique by all of its meta gets none: it
    would be like no other.
    """
    tracer = _tracer
    if tracer is None:
        return jobs
    carrier = _safely(tracer, tracer.inject, _NOTHING)
    return [_carrying(job, carrier) for job in jobs] if carrier else jobs


class Span:
    """One run, as a tracer sees it; a context manager where it runs in this thread or task."""

    __slots__ = ("_error", "_how", "_span", "_tracer", "job")

    def __init__(self, tracer: Tracer, job: Job) -> None:
        self.job = job
        self._tracer = tracer
        self._span: Any = None
        self._how: How = "returned"
        self._error: BaseException | str | None = None

    def begin(self, *, current: bool = False) -> Self:
        """Begin it; not `current` where another thread will end it."""
        tracer, job = self._tracer, self.job
        self._span = _safely(tracer, lambda: tracer.start(job, current=current), None)
        return self

    def returned(self, result: T) -> T:
        """Note what the worker returned, and return it."""
        if isinstance(result, Cancel):
            reason = result.reason
            said = reason if isinstance(reason, str) else error_text.shown(reason)
            self._how, self._error = "cancel", said
        elif isinstance(result, Snooze):
            self._how = "snooze"
        return result

    def told(self, outcome: Any) -> Any:
        """Note the outcome of a run in another process, and return it."""
        if isinstance(outcome, Mapping):
            self._how = outcome.get("kind", "failure")
            self._error = outcome.get("error", outcome.get("reason"))
        return outcome

    def passed_on(self) -> tuple[str, dict[str, str]] | None:
        """Give what another process needs to go on with it: who resumes it, and its context."""
        tracer, span = self._tracer, self._span
        if span is None:
            return None
        carrier = _safely(tracer, lambda: tracer.carrier(span), _NOTHING)
        return (tracer.resume, dict(carrier)) if carrier else None

    def end(self, error: BaseException | None = None) -> None:
        """End it, with what was raised, if anything."""
        tracer, span, self._span = self._tracer, self._span, None
        if span is None:
            return
        how, found = self._how, self._error
        if error is not None:
            how, found = _kind(error), error
        _safely(tracer, lambda: tracer.finish(span, how, found), None)

    def __enter__(self) -> Self:
        return self.begin(current=True)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.end(error)


class _NoSpan(Span):
    """Nobody looks."""

    __slots__ = ()

    def __init__(self) -> None:
        """There is nothing to keep."""

    def begin(self, *, current: bool = False) -> Self:
        return self

    def returned(self, result: T) -> T:
        return result

    def told(self, outcome: Any) -> Any:
        return outcome

    def passed_on(self) -> None:
        return None

    def end(self, error: BaseException | None = None) -> None:
        """There is nothing to end."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """As above."""


_NO_SPAN = _NoSpan()


def performing(job: Job) -> Span:
    """Give the span of a job's run, which does nothing without a tracer."""
    tracer = _tracer
    return _NO_SPAN if tracer is None else Span(tracer, job)


def resumed(passed: tuple[str, Carrier] | None) -> AbstractContextManager[object]:
    """Go on with what `Span.passed_on` gave, in the process that runs the job."""
    if passed is None:
        return nullcontext()
    name, carrier = passed
    module, _, function = name.rpartition(".")
    try:
        found: AbstractContextManager[object] = getattr(importlib.import_module(module), function)(
            carrier
        )
    except Exception:
        logger.exception("a trace ends here, since it can't be resumed")
        return nullcontext()
    return found


# Helpers


def _carrying(job: Job, carrier: Carrier) -> Job:
    unique = job.unique
    whole = unique is not None and "meta" in unique.fields and not unique.keys
    if whole or any(key in job.meta for key in carrier):
        return job
    copy = job.copy()
    copy.meta = {**job.meta, **carrier}
    return copy


def _kind(error: BaseException) -> How:
    if isinstance(error, Cancel):
        return "cancel"
    if isinstance(error, Snooze):
        return "snooze"
    return "interrupted" if isinstance(error, asyncio.CancelledError) else "failure"


def _safely(tracer: Tracer, call: Callable[[], T], otherwise: T) -> T:
    try:
        return call()
    except Exception:
        # It must not break what it looks at.
        if detach(tracer):
            logger.exception("the tracer %r raised and was detached", tracer)
        return otherwise

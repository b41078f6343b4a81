"""WorkerSpec: all that is known of a worker."""

import inspect
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from math import isfinite
from typing import Any, Literal

from oban_actors.args_codec import ArgsCodec
from oban_actors.guarded_call import opened
from oban_actors.job import MAX_AHEAD, Job
from oban_actors.redacting import Redaction, redacted_error
from oban_actors.validation import MAX_SECONDS, shown

Kind = Literal["sync", "async"]
TimeoutFor = Callable[[Job], float | timedelta | None]
BackoffFor = Callable[[Job], float | timedelta]

_logger = logging.getLogger("oban_actors.worker")


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSpec:
    """A registered worker.

    Attributes:
        name: what stands in a job's `worker`.
        aliases: other names that it had, under which jobs may still come.
        kind: `sync` runs in a thread, `async` on an event loop.
        target: the function or class that was decorated.
        call: runs it with a job; for `async` it gives an awaitable.
        module: where it is defined, as another process imports it.
        qualname: its qualified name there.
        queue: where its jobs run.
        max_attempts: how often its jobs may be tried.
        defaults: what `new` gives to `Job.new` besides.
        timeout: seconds that a run may take, or a function of the job; None for no limit.
        backoff: seconds until the next try, or a function of the job; None for Oban's.
        codec: changes its jobs' args on their way to the table and back; None for none.
        redaction: which values of their args are not shown; None for nothing.

    """

    name: str
    aliases: tuple[str, ...]
    kind: Kind
    target: Any
    call: Callable[[Job], Any]
    module: str
    qualname: str
    queue: str
    max_attempts: int
    defaults: Mapping[str, Any]
    timeout: float | TimeoutFor | None = None
    backoff: float | BackoffFor | None = None
    codec: ArgsCodec | None = None
    redaction: Redaction | None = None

    @property
    def place(self) -> str:
        """Where it is defined, for messages."""
        return f"{self.module}.{self.qualname}"

    def timeout_for(self, job: Job) -> float | None:
        """Tell how many seconds this job may run, None for as long as it likes.

        A function that raises or returns no positive time counts as None, and is logged.
        """
        if self.timeout is None or isinstance(self.timeout, int | float):
            return self.timeout
        return _asked("timeout", self, self.timeout, job, _timeout)

    def backoff_for(self, job: Job) -> float | None:
        """Tell how many seconds a failed job waits for its next try, None for Oban's default.

        A function that raises or returns no such time counts as None, and is logged.
        """
        if self.backoff is None or isinstance(self.backoff, int | float):
            return self.backoff
        return _asked("backoff", self, self.backoff, job, _backoff)


def _asked(
    what: str,
    spec: WorkerSpec,
    function: Callable[[Job], Any],
    job: Job,
    check: Callable[[object], float | None],
) -> float | None:
    """Ask a user's function, which must not break what asks it."""
    own = job
    try:
        own = job if spec.codec is None else opened(job, spec.codec)
        value = function(own)
        if inspect.iscoroutine(value):
            value.close()
        return check(value)
    except BaseException as error:  # a worker's sys.exit() too is only its own failure
        if spec.redaction is None:
            _logger.exception("%s of worker %s failed, so its default counts", what, job.worker)
        else:
            text = redacted_error(error, spec.redaction.cleaner(own.args), frozenset((__file__,)))
            failed = "%s of worker %s failed, so its default counts: %s"
            _logger.error(failed, what, job.worker, text)  # noqa: TRY400 (it shows what is redacted)
        return None


def _timeout(value: object) -> float | None:
    if value is None:
        return None
    seconds = _seconds(value)
    if seconds is None or not 0 < seconds <= MAX_SECONDS:
        raise ValueError(f"expected a positive number of seconds or None, got: {shown(value)}")
    return seconds


def _backoff(value: object) -> float:
    seconds = _seconds(value)
    if seconds is None or not 0 <= seconds <= MAX_AHEAD:
        raise ValueError(f"expected a non-negative number of seconds, got: {shown(value)}")
    return seconds


def _seconds(value: object) -> float | None:
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value):
        return float(value)
    return None

"""A worker's call where it declares a codec or what is redacted: plain args in, no secrets out."""

import asyncio
import concurrent.futures
from collections.abc import Callable
from typing import Any, TypeVar

from oban_actors import error_text
from oban_actors.args_codec import ArgsCodec, decoded
from oban_actors.job import Job
from oban_actors.redacting import Clean, Redaction, redacted_error
from oban_actors.results import Cancel, Snooze

T = TypeVar("T")
Call = Callable[[Job], Any]

# They say how to go on, not what went wrong.
_SIGNALS = (
    asyncio.CancelledError,
    concurrent.futures.CancelledError,
    GeneratorExit,
    KeyboardInterrupt,
    Snooze,
)


def guarded(
    call: Call,
    *,
    is_async: bool,
    codec: ArgsCodec | None,
    redaction: Redaction | None,
    ours: frozenset[str],
) -> Call:
    """Wrap a worker's call.

    The worker gets a copy of the job, with its args decoded, while all others keep the job as
    its row is. What the worker raises goes about as a `RedactedError`, and the reason of a
    `Cancel` without what is redacted.

    Args:
        call: runs the worker with a job.
        is_async: whether what it gives has to be awaited.
        codec: the worker's, None for none.
        redaction: what is not shown, None for nothing.
        ours: files whose frames are no part of an error's text.

    """
    skip = ours | {__file__}

    def run(job: Job) -> Any:
        own, clean, failure = opened(job, codec), None, None
        try:
            clean = _cleaner(redaction, own)
            return _returned(call(own), clean)
        except BaseException as error:
            if clean is None or isinstance(error, _SIGNALS):
                raise
            failure = _failed(error, clean, skip)
        finally:
            own.running = None
        try:
            raise failure
        finally:
            # The traceback goes about with the error, and holds what is here.
            del own, clean, failure

    async def arun(job: Job) -> Any:
        own, clean, failure = opened(job, codec), None, None
        try:
            clean = _cleaner(redaction, own)
            return _returned(await call(own), clean)
        except BaseException as error:
            if clean is None or isinstance(error, _SIGNALS):
                raise
            failure = _failed(error, clean, skip)
        finally:
            own.running = None
        try:
            raise failure
        finally:
            # The traceback goes about with the error, and holds what is here.
            del own, clean, failure

    return arun if is_async else run


def opened(job: Job, codec: ArgsCodec | None) -> Job:
    """Copy a job, with its args decoded.

    Raises:
        CodecError: they can't be.

    """
    own = job.copy()
    own.args = decoded(job.worker, codec, job.args)
    return own


# Helpers


def _cleaner(redaction: Redaction | None, job: Job) -> Clean | None:
    return None if redaction is None else redaction.cleaner(job.args)


def _returned(result: T, clean: Clean | None) -> "T | Cancel":
    return result if clean is None or not isinstance(result, Cancel) else _cancel(result, clean)


def _failed(error: BaseException, clean: Clean, skip: frozenset[str]) -> BaseException:
    if isinstance(error, Cancel):
        return _cancel(error, clean)
    return redacted_error(error.with_traceback(_outside(error)), clean, skip)


def _outside(error: BaseException) -> Any:
    # Our own frame holds the plain args.
    return None if error.__traceback__ is None else error.__traceback__.tb_next


def _cancel(given: Cancel, clean: Clean) -> Cancel:
    reason = given.reason
    if isinstance(reason, str):
        return Cancel(clean(reason))
    shown = error_text.shown(reason)
    return given if clean(shown) == shown else Cancel(clean(shown))

"""`worker` makes a function or a class run jobs, and gives it `new` to build them."""

import functools
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timedelta
from typing import (
    Any,
    Generic,
    ParamSpec,
    Protocol,
    TypedDict,
    TypeVar,
    Unpack,
    overload,
)

from oban_actors.args_codec import ArgsCodec
from oban_actors.errors import ConfigError
from oban_actors.job import Job, JobState
from oban_actors.validation import FIELDS, OPTIONS
from oban_actors.worker_definition import WORKER_OPTIONS, define
from oban_actors.worker_registry import find_worker, register, registered
from oban_actors.worker_spec import BackoffFor, TimeoutFor, WorkerSpec

__all__ = [
    "FunctionWorker",
    "Worker",
    "WorkerSpec",
    "find_worker",
    "registered",
    "worker",
]

P = ParamSpec("P")
R = TypeVar("R")
C = TypeVar("C")


class WorkerOptions(TypedDict, total=False):
    """What `worker` may be told."""

    queue: str
    max_attempts: int
    priority: int
    tags: Iterable[str | float]
    meta: Mapping[str, Any]
    unique: Any
    replace: Any
    timeout: float | timedelta | TimeoutFor | None
    backoff: float | timedelta | BackoffFor | None
    name: str | None
    aliases: Iterable[str]
    codec: ArgsCodec | None
    redact: Iterable[str] | bool | None


class JobOptions(TypedDict, total=False):
    """What `new` may be told; each replaces the worker's own default. See `Job.new`."""

    queue: str
    schedule_in: float | timedelta | None
    scheduled_at: datetime | None
    max_attempts: int
    priority: int
    tags: Iterable[str | float]
    meta: Mapping[str, Any]
    state: JobState | str | None
    unique: Any
    replace: Any


_JOB_OPTIONS = tuple(JobOptions.__annotations__)
_SPEC = "__oban_worker__"


class FunctionWorker(Generic[P, R]):
    """A function that runs jobs. It is called as before; `worker` makes it."""

    def __init__(self, function: Callable[P, R], spec: WorkerSpec) -> None:
        functools.update_wrapper(self, function)
        self._function = function
        self.spec = spec

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the function itself."""
        return self._function(*args, **kwargs)

    def new(self, args: Mapping[str, Any] | None = None, **options: Unpack[JobOptions]) -> Job:
        """Build a job for it to insert.

        Args:
            args: the work, a JSON object; default: an empty one.
            **options: those of `Job.new`; they go before what `worker` was told.

        Raises:
            InvalidJob: an option is unknown, or a field can't be stored; it is named.

        """
        return _new(self.spec, args, options)

    def __reduce__(self) -> str:
        return str(self.__qualname__)  # type: ignore[attr-defined]  # by update_wrapper

    def __repr__(self) -> str:
        return f"<worker {self.spec.name}>"


class Worker:
    """A base for worker classes, so that type checkers know their `new`; `worker` registers them.

    Any class with a `perform` may be a worker; at run time `worker` gives it a `new` too.
    """

    @classmethod
    def new(cls, args: Mapping[str, Any] | None = None, **options: Unpack[JobOptions]) -> Job:
        """Build a job for it to insert; see `FunctionWorker.new`.

        Raises:
            InvalidJob: an option is unknown, or a field can't be stored; it is named.
            ConfigError: the class is not registered.

        """
        spec = vars(cls).get(_SPEC)
        if spec is None:
            raise ConfigError(f"{cls.__qualname__} is no worker: decorate it with @worker")
        return _new(spec, args, options)


class WorkerDecorator(Protocol):
    """What `worker(...)` gives, to be called with the function or class."""

    @overload
    def __call__(self, target: type[C], /) -> type[C]: ...  # type: ignore[overload-overlap]  # a class is callable, but meant first

    @overload
    def __call__(self, target: Callable[P, R], /) -> FunctionWorker[P, R]: ...


@overload
def worker(target: type[C], /) -> type[C]: ...  # type: ignore[overload-overlap]  # as above
@overload
def worker(target: Callable[P, R], /) -> FunctionWorker[P, R]: ...
@overload
def worker(**options: Unpack[WorkerOptions]) -> WorkerDecorator: ...
def worker(target: Any = None, /, **options: Any) -> Any:
    """Register a function or a class that runs jobs. Mirrors `use Oban.Worker`.

    A function takes the job. A class is made anew for each job, without arguments, and has
    `perform(job)`, and if need be `backoff(job)` and `timeout(job)` in place of the options.
    Both a function and `perform` may be `async`.

    Args:
        target: the function or class; with options it is what the result is called with.
        **options: `queue`, `max_attempts`, `priority`, `tags`, `meta`, `unique` and `replace`
            are defaults for its jobs, see `Job.new`;
            `timeout`: seconds that a run may take, or a function of the job, default None;
            `backoff`: seconds until the next try, or a function of the job, default Oban's;
            `name`: what its jobs call it, default its module and qualified name;
            `aliases`: names that it had, for jobs that are still there;
            `codec`: an `ArgsCodec`, in whose form its jobs' args stand in the table, default None;
            `redact`: keys of its jobs' args whose values are not shown, with dots between those
            of nested objects, or True for all; default none, with a codec all.

    Raises:
        ConfigError: an option is unknown or can't be used, the target can't run jobs, or its
            name is taken.

    """
    OPTIONS.known(options, WORKER_OPTIONS, "worker")
    if target is None:
        return functools.partial(_decorate, options=options)
    return _decorate(target, options=options)


# Helpers


def _decorate(target: Any, *, options: Mapping[str, Any]) -> Any:
    if isinstance(target, FunctionWorker):
        raise ConfigError(f"{target.spec.name} is a worker already")
    if not callable(target) or isinstance(target, staticmethod | classmethod):
        raise OPTIONS.refusal("worker", "a function or a class with perform", target)
    spec = define(target, options)
    register(spec)
    if not isinstance(target, type):
        return FunctionWorker(target, spec)
    setattr(target, _SPEC, spec)
    if not hasattr(target, "new"):
        target.new = classmethod(Worker.new.__func__)  # type: ignore[attr-defined]  # a class method has it
    return target


def _new(spec: WorkerSpec, args: Mapping[str, Any] | None, options: Mapping[str, Any]) -> Job:
    FIELDS.known(options, _JOB_OPTIONS, "new")
    told = {**spec.defaults, **options}
    own, given = spec.defaults.get("unique"), options.get("unique")
    if isinstance(own, Mapping) and isinstance(given, Mapping):
        told["unique"] = {**own, **given}
    return Job.new(args, worker=spec.name, **told)

"""Defining a worker: a function or class and its options, checked when the program is loaded."""

import inspect
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from oban_actors.args_codec import codec_option, unfit
from oban_actors.errors import ConfigError, InvalidJob
from oban_actors.guarded_call import guarded
from oban_actors.job import MAX_AHEAD, Job
from oban_actors.redacting import redact_option
from oban_actors.validation import OPTIONS, shown
from oban_actors.worker_spec import Kind, WorkerSpec

_DEFAULTS = ("queue", "max_attempts", "priority", "tags", "meta", "unique", "replace")
_HOOKS = ("timeout", "backoff")
WORKER_OPTIONS = (*_DEFAULTS, *_HOOKS, "name", "aliases", "codec", "redact")
"""What `worker` may be told."""

_MAINS = ("__main__", "__mp_main__")
_MAX_NAME = 127


def define(target: Any, options: Mapping[str, Any]) -> WorkerSpec:
    """Check a function or class and what `worker` was told, whose names are known ones.

    Raises:
        ConfigError: an option's value can't be used, or the target can't run jobs.

    """
    qualname = getattr(target, "__qualname__", type(target).__qualname__)
    module = _module(target)
    name = _name(module, qualname, options.get("name"))
    defaults = {key: _kept(options[key]) for key in _DEFAULTS if key in options}
    probe = _probe(name, defaults)
    kind, call = _kind(name, target), _call(target)
    _refuse_attributes(name, target, options)
    with _naming(name):
        codec = codec_option("codec", options.get("codec"))
        # Who hides args in the table will not want to find them in the errors beside.
        redaction = redact_option("redact", options.get("redact", codec is not None))
        aliases = _aliases(options.get("aliases", ()))
        timeout, backoff = (_hook(target, what, options) for what in _HOOKS)
    if codec is not None and (error := unfit(name, codec, probe.unique)):
        raise error
    if codec is not None or redaction is not None:
        terms: dict[str, Any] = {"codec": codec, "redaction": redaction}
        call = guarded(call, is_async=kind == "async", ours=frozenset({__file__}), **terms)
    return WorkerSpec(
        name=probe.worker,
        aliases=aliases,
        kind=kind,
        target=target,
        call=call,
        module=module,
        qualname=qualname,
        queue=probe.queue,
        max_attempts=probe.max_attempts,
        defaults=defaults,
        timeout=timeout,
        backoff=backoff,
        codec=codec,
        redaction=redaction,
    )


# Helpers


@contextmanager
def _naming(name: str) -> Iterator[None]:
    """Say in an error which worker it is about."""
    try:
        yield
    except ConfigError as error:
        raise ConfigError(f"worker {name!r}: {error}") from None


def _refuse_attributes(name: str, target: Any, options: Mapping[str, Any]) -> None:
    """Refuse an option that a class states as its attribute, where nobody would look for it.

    It may be its own affair: so it is where the option is given as well, and where it is no plain
    value but a method, a property or a class.
    """
    if not isinstance(target, type):
        return
    for option in WORKER_OPTIONS:
        value = inspect.getattr_static(target, option, None)
        plain = not (value is None or callable(value) or hasattr(value, "__get__"))
        if plain and option not in options:
            said = shown(value) if isinstance(value, str | int | float) else "..."
            raise ConfigError(
                f"worker {name!r}: its attribute {option!r} is no option: say "
                f"@worker({option}={said}), or give the attribute another name"
            )


def _kept(value: Any) -> Any:
    """Keep what an iterator gives, and those within a mapping: each job is to have it."""
    if isinstance(value, Mapping):
        return {key: _kept(each) for key, each in value.items()}
    return tuple(value) if isinstance(value, Iterator) else value


def _module(target: Any) -> str:
    module = str(getattr(target, "__module__", None) or type(target).__module__)
    if module not in _MAINS:
        return module
    spec = getattr(sys.modules.get(module), "__spec__", None)
    return module if spec is None else str(spec.name)


def _name(module: str, qualname: str, given: object) -> str:
    if given is not None:
        return OPTIONS.text("name", given, high=_MAX_NAME).removeprefix("Elixir.")
    if module in _MAINS:
        raise ConfigError(
            f"worker {qualname} is defined in a script that runs as __main__, which no other "
            "process can import: give it a name by name="
        )
    if "<" in qualname:
        raise ConfigError(
            f"worker {qualname} of {module} is defined within a function, so others can't tell "
            "it by its place: give it a name by name="
        )
    return OPTIONS.text("name", f"{module}.{qualname}", high=_MAX_NAME)


def _aliases(given: object) -> tuple[str, ...]:
    if isinstance(given, str | bytes | Mapping) or not isinstance(given, Iterable):
        raise OPTIONS.refusal("aliases", "a list of names", given)
    checked = (OPTIONS.text(f"aliases.{i}", each, high=_MAX_NAME) for i, each in enumerate(given))
    return tuple(each.removeprefix("Elixir.") for each in checked)


def _probe(name: str, defaults: Mapping[str, Any]) -> Job:
    """Let `Job.new` check the defaults now, not when the first job is built."""
    try:
        return Job.new(worker=name, **defaults)
    except InvalidJob as error:
        raise ConfigError(f"worker {name!r}: {error}") from None


def _kind(name: str, target: Any) -> Kind:
    function = target.perform if isinstance(target, type) and hasattr(target, "perform") else target
    if isinstance(target, type):
        if not callable(getattr(target, "perform", None)):
            raise ConfigError(f"worker {name!r}: expected a method perform(self, job)")
        _fits(name, "__init__", target, ())
    _fits(name, "perform", function, (None,) * (2 if isinstance(target, type) else 1))
    wrapped = inspect.unwrap(function)
    if inspect.isgeneratorfunction(wrapped) or inspect.isasyncgenfunction(wrapped):
        raise ConfigError(f"worker {name!r}: expected a function, got a generator, which runs not")
    return "async" if _is_async(function) else "sync"


def _is_async(function: Any) -> bool:
    # A wrapper says by itself that it is async, or gives what the wrapped one gives.
    ways = (function, inspect.unwrap(function))
    called = (getattr(each, "__call__", None) for each in ways)  # noqa: B004 (its code is looked at)
    return any(map(inspect.iscoroutinefunction, (*ways, *called)))


def _refuse_async(what: str, function: Any) -> None:
    """Refuse what nobody would await: it is asked by those who look after runs."""
    if function is not None and _is_async(function):
        raise ConfigError(f"expected {what} to be a plain function, got one that is async")


def _fits(name: str, what: str, function: Any, arguments: tuple[None, ...]) -> None:
    try:
        # A wrapper may give what it wraps more than it takes itself.
        signature = inspect.signature(function, follow_wrapped=False)
    except (TypeError, ValueError):
        return  # of C code; its first run will tell
    try:
        signature.bind(*arguments)
    except TypeError as error:
        taken = "no argument" if what == "__init__" else "the job as its only argument"
        raise ConfigError(
            f"worker {name!r}: expected {what} to take {taken}, got {signature}: {error}"
        ) from None


def _call(target: Any) -> Callable[[Job], Any]:
    if not isinstance(target, type):
        function: Callable[[Job], Any] = target
        return function
    made: Any = target
    return lambda job: made().perform(job)


def _hook(target: Any, what: str, options: Mapping[str, Any]) -> Any:
    """A number of seconds or a function of the job, from the options or a class's method."""
    given = options.get(what)
    method = getattr(target, what, None) if isinstance(target, type) else None
    if method is not None:
        if given is not None:
            raise ConfigError(f"option {what!r} and method {what}() exclude each other")
        if not callable(method):
            raise OPTIONS.refusal(what, "a method of the job", method)
        _refuse_async(what, method)
        made: Any = target

        def ask(job: Job) -> Any:
            return getattr(made(), what)(job)

        return ask
    if given is None or (callable(given) and not isinstance(given, type)):
        _refuse_async(what, given)
        return given
    expected = "a number of seconds or a function of the job"
    if what == "timeout":
        return OPTIONS.seconds(what, given, other=f", or {expected.partition(' or ')[2]}, or None")
    seconds = OPTIONS.number(what, given, expected)
    if not 0 <= seconds <= MAX_AHEAD:
        raise OPTIONS.veiled(what, f"{expected}, non-negative", shown(given))
    return seconds

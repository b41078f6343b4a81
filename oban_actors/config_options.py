"""Checks of the options of each part of an instance.

Each takes the option's path, for messages, and what was given, and returns what is kept.
"""

import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import fields
from types import MappingProxyType
from typing import Any, TypeVar, get_args

from oban_actors.actors.clock import Clock
from oban_actors.errors import ConfigError
from oban_actors.options import (
    MAX_LEASE,
    EngineKind,
    ExecutorKind,
    HealthOptions,
    NotifierKind,
    NotifierOptions,
    PeerKind,
    PeerMode,
    PeerOptions,
    PulseOptions,
    QueueOptions,
    StagerOptions,
    TestingMode,
)
from oban_actors.validation import OPTIONS, duplicates, shown

T = TypeVar("T")
Check = Callable[[str, object], Any]

CHANNELS = ("insert", "leader", "signal", "gossip", "sonar", "stager", "actors")
"""The channels that nodes may hear of each other on."""

_MAX_LABEL = 255
_MAX_PORT = 65_535
_MAX_KEY = 200
_MAX_KEYS = 8
_MAX_BEAT = 10.0  # seconds: any node's Lifeline goes by six of them
_MAX_IDENTIFIER = 63  # bytes that PostgreSQL keeps of a name
_MAX_PREFIX = _MAX_IDENTIFIER - len(".oban_") - max(map(len, CHANNELS))
_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_LISTEN_URL = re.compile(r"postgres(ql)?(\+psycopg)?://.+", re.DOTALL)
_CLOCK = ("monotonic", "boottime", "now", "monotonic_ns", "system_time_ns")


def stager(path: str, given: object) -> StagerOptions | None:
    """Check the stager's options; None and False mean none, as an interval of None does."""
    if given is None or given is False:
        return None
    given = _mapping(path, given, StagerOptions, other=", None or False")
    options = _built(path, given, StagerOptions, {"interval": _interval, "limit": positive})
    return None if given.get("interval", 1.0) is None else options


def peer(path: str, given: object) -> PeerOptions | None:
    """Check the peer's options; None and False mean a node that never leads."""
    if given is None or given is False:
        return None
    kinds = get_args(PeerKind)
    given = _mapping(path, given, PeerOptions, kinds=kinds, other=", None or False")
    checks: dict[str, Check] = {
        "kind": lambda path, value: OPTIONS.one_of(path, value, kinds),
        "mode": lambda path, value: OPTIONS.one_of(path, value, get_args(PeerMode)),
        "leader": OPTIONS.boolean,
        "lease": _lease,
        "renew": OPTIONS.seconds,
        "advisory_lock": OPTIONS.boolean,
    }
    options = _built(path, given, PeerOptions, checks)
    if options.renew * 2 > options.lease:
        most = f"at most half of '{path}.lease', {options.lease / 2:g} seconds"
        raise OPTIONS.refusal(f"{path}.renew", most, options.renew)
    if not options.leader and options.kind != "isolated":
        message = f"option '{path}.leader' needs the kind 'isolated'; peer=False never leads"
        raise ConfigError(message)
    return options


def notifier(path: str, given: object) -> NotifierOptions:
    """Check the notifier's options."""
    kinds = get_args(NotifierKind)
    given = _mapping(path, given, NotifierOptions, kinds=kinds)
    checks: dict[str, Check] = {
        "kind": lambda path, value: OPTIONS.one_of(path, value, kinds),
        "listen_url": _listen_url,
    }
    options = _built(path, given, NotifierOptions, checks)
    if options.listen_url is not None and options.kind not in ("auto", "postgres"):
        message = f"option '{path}.listen_url' needs the kind 'postgres', got: {options.kind!r}"
        raise ConfigError(message)
    return options


def pulse(path: str, given: object) -> PulseOptions:
    """Check the pulse's options."""
    given = _mapping(path, given, PulseOptions)
    options = _built(path, given, PulseOptions, {"interval": OPTIONS.seconds})
    if options.interval > _MAX_BEAT:
        most = f"at most {_MAX_BEAT:g} seconds, since others take a silent node for dead"
        raise OPTIONS.refusal(f"{path}.interval", most, options.interval)
    return options


def health(path: str, given: object) -> HealthOptions | None:
    """Check the options of the HTTP endpoint, or its port; None and False mean none."""
    if given is None or given is False:
        return None
    if isinstance(given, int):
        return HealthOptions(port=_port(f"{path}.port", given))
    options = _mapping(path, given, HealthOptions, other=", a port, None or False")
    if "port" not in options:
        raise ConfigError(f"invalid value for '{path}': missing required option 'port'")
    checks: dict[str, Check] = {
        "port": _port,
        "host": lambda path, value: OPTIONS.text(path, value, high=_MAX_LABEL),
        "hosts": _hosts,
        "patience": OPTIONS.seconds,
        "interval": OPTIONS.seconds,
    }
    return _built(path, options, HealthOptions, checks)


def queues(path: str, given: object) -> Mapping[str, QueueOptions]:
    """Check the queues, each a limit or options; None and False mean none."""
    if given is None or given is False:
        return MappingProxyType({})
    if not isinstance(given, Mapping):
        raise OPTIONS.refusal(path, "a mapping of names to limits or options", given)
    checked = {}
    for each, options in given.items():
        name = queue_name(path, each)
        checked[name] = queue(f"{path}.{name}", options)
    return MappingProxyType(checked)


def queue_name(path: str, given: object) -> str:
    """Check the name of a queue."""
    return OPTIONS.queue(path, given)


def queue(path: str, given: object) -> QueueOptions:
    """Check how a queue is to be run: a limit, or options."""
    if isinstance(given, int):
        return QueueOptions(limit=positive(path, given))
    if not isinstance(given, Mapping | QueueOptions):
        raise OPTIONS.refusal(path, "a limit or a mapping of options", given)
    options = _mapping(path, given, QueueOptions)
    if "limit" not in options:
        raise ConfigError(f"invalid value for '{path}': missing required option 'limit'")
    checks: dict[str, Check] = {
        "limit": positive,
        "paused": OPTIONS.boolean,
        "executor": _executor,
        "dispatch_cooldown": grace,
    }
    return _built(path, options, QueueOptions, checks)


def imports(path: str, given: object) -> tuple[str, ...]:
    """Check the names of modules that have workers."""
    if isinstance(given, str) or not isinstance(given, Sequence):
        raise OPTIONS.refusal(path, "a list of names of modules", given)
    for index, each in enumerate(given):
        if not isinstance(each, str) or not all(part.isidentifier() for part in each.split(".")):
            raise OPTIONS.refusal(f"{path}[{index}]", "the name of a module", each)
    return tuple(given)


def unique_keys(path: str, given: object) -> tuple[tuple[str, ...], ...]:
    """Check the keys that have an index: each one key, or several that go together."""
    expected = "a list of keys, or of lists of keys that go together"
    if isinstance(given, str) or not isinstance(given, Sequence):
        raise OPTIONS.refusal(path, expected, given)
    return tuple(dict.fromkeys(_keys(f"{path}[{index}]", each) for index, each in enumerate(given)))


def _keys(path: str, given: object) -> tuple[str, ...]:
    if isinstance(given, str):
        return (OPTIONS.text(path, given, high=_MAX_KEY),)
    if not isinstance(given, Sequence) or not 1 <= len(given) <= _MAX_KEYS:
        raise OPTIONS.refusal(path, f"a key, or a list of 1 to {_MAX_KEYS} of them", given)
    keys = (OPTIONS.text(f"{path}[{n}]", key, high=_MAX_KEY) for n, key in enumerate(given))
    return tuple(sorted(set(keys)))


def plugins(path: str, given: object) -> tuple[Any, ...]:
    """Check the plugins, as far as each can say itself; None and False mean none."""
    if given is None or given is False:
        return ()
    if not isinstance(given, list | tuple):
        raise OPTIONS.refusal(path, "a list of plugins", given)
    for index, each in enumerate(given):
        _check_plugin(f"{path}[{index}]", each)
    if twice := duplicates(map(id, given)):
        names = {id(each): getattr(each, "__name__", type(each).__name__) for each in given}
        found = [names[each] for each in twice]
        raise ConfigError(f"invalid value for '{path}': found duplicate plugins: {found}")
    ids = [each.id for each in given if isinstance(getattr(each, "id", None), str)]
    OPTIONS.unique(path, ids, "plugins")
    return tuple(given)


def fit(path: str, given: Sequence[Any], config: Any) -> None:
    """Check the plugins beside all other options, as far as each can say itself."""
    for index, each in enumerate(given):
        validate = getattr(each, "validate_in", None)
        if not isinstance(each, type) and callable(validate):
            _checked_by(f"{path}[{index}]", each, validate, config)


def engine(path: str, given: object) -> EngineKind:
    """Check which database is meant."""
    kind: EngineKind = OPTIONS.one_of(path, given, get_args(EngineKind))  # type: ignore[assignment]  # one of them
    return kind


def testing(path: str, given: object) -> TestingMode:
    """Check how the instance is tested."""
    mode: TestingMode = OPTIONS.one_of(path, given, get_args(TestingMode))  # type: ignore[assignment]  # one of them
    return mode


def prefix(path: str, given: object) -> str:
    """Check the name of a schema: safe in SQL, and short enough for the channels' names."""
    if not isinstance(given, str) or not _IDENTIFIER.fullmatch(given):
        expected = "a name of letters, digits and underscores that begins with no digit"
        raise OPTIONS.refusal(path, expected, given)
    if len(given) > _MAX_PREFIX:
        most = f"at most {_MAX_PREFIX} characters, so that the names of channels fit"
        raise OPTIONS.refusal(path, most, given)
    if given.startswith("pg_"):
        raise OPTIONS.refusal(path, "a name that does not begin with 'pg_'", given)
    return given


def name(path: str, given: object) -> str:
    """Check the name of an instance."""
    if not isinstance(given, str) or not _printable(given):
        raise OPTIONS.refusal(path, f"a printable string of 1 to {_MAX_LABEL} characters", given)
    return given


def node(path: str, given: object) -> str:
    """Check the name of a node, which has no spaces."""
    if not isinstance(given, str) or not _printable(given) or " " in given:
        expected = f"a printable string of 1 to {_MAX_LABEL} characters without spaces"
        raise OPTIONS.refusal(path, expected, given)
    return given


def positive(path: str, given: object) -> int:
    """Check a count of at least one."""
    return OPTIONS.integer(path, given, low=1)


def grace(path: str, given: object) -> float:
    """Check a time that may be none."""
    return OPTIONS.seconds(path, given, zero=True)


def clock(path: str, given: Any) -> Clock:
    """Check that it can tell the time."""
    methods = all(callable(getattr(given, method, None)) for method in _CLOCK)
    if not methods or not isinstance(getattr(given, "virtual", None), bool):
        raise OPTIONS.refusal(path, "a clock, as oban_actors.actors has them", given)
    checked: Clock = given
    return checked


# Helpers


def _mapping(
    path: str, given: object, kind: type, *, kinds: tuple[str, ...] = (), other: str = ""
) -> dict[str, Any]:
    """Bring what was given into the form of a mapping with known names."""
    names = [each.name for each in fields(kind)]
    if isinstance(given, kind):
        return {name: getattr(given, name) for name in names}
    if isinstance(given, Mapping):
        OPTIONS.known(given, names, owner=path)
        return dict(given)
    if kinds and isinstance(given, str):
        return {"kind": OPTIONS.one_of(path, given, kinds)}
    what = "a kind or a mapping of options" if kinds else "a mapping of options"
    raise OPTIONS.refusal(path, f"{what}{other}", given)


def _built(
    path: str, given: Mapping[str, Any], kind: Callable[..., T], checks: Mapping[str, Check]
) -> T:
    return kind(**{name: checks[name](f"{path}.{name}", value) for name, value in given.items()})


def _executor(path: str, given: object) -> ExecutorKind | Executor:
    if isinstance(given, Executor):
        return given
    for kind in get_args(ExecutorKind):
        if given == kind:
            known: ExecutorKind = kind
            return known
    raise OPTIONS.refusal(path, "'threads', 'processes' or a concurrent.futures.Executor", given)


def _lease(path: str, given: object) -> float:
    seconds = OPTIONS.seconds(path, given)
    if seconds > MAX_LEASE:
        raise OPTIONS.refusal(path, f"at most {MAX_LEASE:g} seconds", given)
    return seconds


def _interval(path: str, given: object) -> float | None:
    return None if given is None else OPTIONS.seconds(path, given, other=" or None")


def _port(path: str, given: object) -> int:
    return OPTIONS.integer(path, given, high=_MAX_PORT)


def _hosts(path: str, given: object) -> tuple[str, ...]:
    if isinstance(given, str) or not isinstance(given, Sequence):
        raise OPTIONS.refusal(path, "a list of names of hosts", given)
    named = (OPTIONS.text(f"{path}[{at}]", each, high=_MAX_LABEL) for at, each in enumerate(given))
    return tuple(each.lower() for each in named)


def _listen_url(path: str, given: object) -> str | None:
    if given is None or (isinstance(given, str) and _LISTEN_URL.fullmatch(given)):
        return given
    expected = "a URL that begins with 'postgresql://' or None"
    raise OPTIONS.veiled(path, expected, "something else, not shown")


def _printable(text: str) -> bool:
    return 0 < len(text) <= _MAX_LABEL and text.isprintable() and not text.isspace()


def _check_plugin(path: str, plugin: object) -> None:
    own = inspect.getattr_static(plugin, "child_spec", None)
    if isinstance(plugin, type) and inspect.isfunction(own):
        raise OPTIONS.veiled(path, "a plugin", f"the class {plugin.__name__} (call it)")
    if not callable(getattr(plugin, "child_spec", None)):
        raise OPTIONS.refusal(path, "a plugin, an object with child_spec()", plugin)
    validate = getattr(plugin, "validate", None)
    # A class has its instances' methods, but no options to check.
    if not isinstance(plugin, type) and callable(validate):
        _checked_by(path, plugin, validate)


def _checked_by(path: str, plugin: object, validate: Callable[..., object], *given: object) -> None:
    try:
        validate(*given)
    except ValueError as error:
        # Of a table of plugins only the name tells which one it is.
        where = f"'{path}' ({type(plugin).__name__})"
        why = str(error) if isinstance(error, ConfigError) else shown(str(error))
        raise ConfigError(f"invalid value for {where}: {why}") from error

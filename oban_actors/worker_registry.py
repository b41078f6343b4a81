"""The workers of this process, by name: no others run, whatever a row says."""

import importlib
import threading
from collections.abc import Iterable

from oban_actors.error_text import head
from oban_actors.errors import ConfigError
from oban_actors.worker_spec import WorkerSpec

# One for the program, as its modules are. Replaced whole, so that readers need no lock.
_specs: dict[str, WorkerSpec] = {}
_guarding: tuple[str, ...] = ()
_lock = threading.RLock()


def register(spec: WorkerSpec) -> None:
    """Make a worker known; one of the same name, module and qualified name is replaced.

    Raises:
        ConfigError: another worker has its name or one of its aliases.

    """
    with _lock:
        old = _specs.get(spec.name)
        for name in (spec.name, *spec.aliases):
            other = _specs.get(name)
            if other is not None and (other.name, other.place) != (spec.name, spec.place):
                raise ConfigError(
                    f"worker name {name!r} of {spec.place} is taken by {other.place}: "
                    "give another by name="
                )
        kept = {name: each for name, each in _specs.items() if each is not old}
        _replace(kept | dict.fromkeys((spec.name, *spec.aliases), spec))


def import_workers(modules: Iterable[str]) -> None:
    """Import the modules with workers that the option `imports` names.

    Raises:
        ConfigError: one can't be imported; what it raised is the `__cause__`.

    """
    for name in modules:
        try:
            importlib.import_module(name)
        except (Exception, SystemExit) as error:
            # A script that was meant to be run may also end with the program.
            why = head(error).removeprefix("** ")
            raise ConfigError(f"imports: module {name!r} can't be imported: {why}") from error


def find_worker(name: str) -> WorkerSpec | None:
    """Find the worker of a name or alias, None if there is none; nothing is imported."""
    return _specs.get(name) or _specs.get(name.removeprefix("Elixir."))


def registered() -> dict[str, WorkerSpec]:
    """Give all workers by their names; aliases are left out."""
    return {name: spec for name, spec in _specs.items() if name == spec.name}


def guards() -> bool:
    """Whether any worker has a codec or values that are not shown."""
    return bool(_guarding)


def forget(name: str) -> None:
    """Remove a worker and its aliases, for tests; an unknown name is no error."""
    with _lock:
        old = _specs.get(name)
        _replace({name: each for name, each in _specs.items() if each is not old})


def _replace(specs: dict[str, WorkerSpec]) -> None:
    global _specs, _guarding  # noqa: PLW0603 (replaced whole)
    _specs = specs
    _guarding = tuple(name for name, spec in specs.items() if spec.codec or spec.redaction)

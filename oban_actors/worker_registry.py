"""The workers of this process, by name: no others run, whatever a row says."""

import threading

from oban_actors.errors import ConfigError
from oban_actors.worker_spec import WorkerSpec

# One for the program, as its modules are. Replaced whole, so that readers need no lock.
_specs: dict[str, WorkerSpec] = {}
_lock = threading.RLock()


def register(spec: WorkerSpec) -> None:
    """Make a worker known; one of the same name, module and qualified name is replaced.

    Raises:
        ConfigError: another worker has its name or one of its aliases.

    """
    global _specs  # noqa: PLW0603 (replaced whole)
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
        _specs = kept | dict.fromkeys((spec.name, *spec.aliases), spec)


def find_worker(name: str) -> WorkerSpec | None:
    """Find the worker of a name or alias, None if there is none; nothing is imported."""
    return _specs.get(name) or _specs.get(name.removeprefix("Elixir."))


def registered() -> dict[str, WorkerSpec]:
    """Give all workers by their names; aliases are left out."""
    return {name: spec for name, spec in _specs.items() if name == spec.name}


def forget(name: str) -> None:
    """Remove a worker and its aliases, for tests; an unknown name is no error."""
    global _specs  # noqa: PLW0603 (replaced whole)
    with _lock:
        old = _specs.get(name)
        _specs = {name: each for name, each in _specs.items() if each is not old}

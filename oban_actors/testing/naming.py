"""The names of a worker, however it is given."""

from typing import Any

from oban_actors.validation import OPTIONS
from oban_actors.worker import find_worker
from oban_actors.worker_spec import WorkerSpec


def spec_of(worker: Any) -> WorkerSpec | None:
    """Find what is known of a worker: a decorated function or class, or a name.

    Returns:
        None for a name that no worker has.

    Raises:
        ConfigError: it is none of these.

    """
    if isinstance(worker, str):
        return find_worker(worker)
    if isinstance(worker, type):
        found = vars(worker).get("__oban_worker__")
    else:
        found = getattr(worker, "spec", None)
    if isinstance(found, WorkerSpec):
        return found
    raise OPTIONS.refusal("worker", "a function or class with @worker, or a worker's name", worker)


def names_of(worker: Any) -> frozenset[str]:
    """Give all names that a worker's jobs may have; see `spec_of`."""
    spec = spec_of(worker)
    return frozenset(
        [worker.removeprefix("Elixir.")] if spec is None else [spec.name, *spec.aliases]
    )

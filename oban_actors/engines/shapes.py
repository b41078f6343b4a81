"""How the jobs that are the same as a unique one are looked for: one statement for each shape."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from oban_actors.job import Job
from oban_actors.repo.key_indexes import Column, KeyIndex
from oban_actors.unique import Unique, has_arrays

Match = Literal["any", "equal", "alike", "part"]
"""How a JSON column has to match.

`equal` is for objects without arrays, whose equality an index can tell; `alike` for those with
some, whose order and repetitions don't count; `part` for one that holds the wanted keys.
"""


@dataclass(frozen=True, slots=True)
class Shape:
    """What one statement can look for.

    Attributes:
        unique: what the jobs that are looked for have in common.
        args: how args have to match.
        meta: how meta has to match.
        keyed: the index for keys that can find it, should the table have that.

    """

    unique: Unique
    args: Match
    meta: Match
    keyed: KeyIndex | None = None

    @property
    def worker(self) -> bool:
        """Whether it has to be the same worker."""
        return "worker" in self.unique.fields

    @property
    def queue(self) -> bool:
        """Whether it has to be the same queue."""
        return "queue" in self.unique.fields

    @property
    def timeless(self) -> "Shape":
        """It with one period for all that there are: how to look does not depend on which."""
        if self.unique.period is None:
            return self
        return replace(self, unique=replace(self.unique, period=0.0))


def shape_of(job: Job) -> Shape:
    """Tell how to look for the jobs that are the same as a unique one."""
    unique = job.unique or Unique()
    matches = _match(unique, job, "args"), _match(unique, job, "meta")
    return Shape(unique, *matches, _keyed(unique, job))


def by_shape(jobs: Iterable[Job]) -> Iterator[tuple[Shape, list[tuple[int, Job]]]]:
    """Group unique jobs, each with its place, by how to look for them."""
    groups: dict[Shape, list[tuple[int, Job]]] = {}
    for place, job in enumerate(jobs):
        groups.setdefault(shape_of(job), []).append((place, job))
    yield from groups.items()


def _keyed(unique: Unique, job: Job) -> KeyIndex | None:
    if not unique.keys or "worker" not in unique.fields:
        return None
    documents: dict[Column, dict[str, Any]] = {"args": job.args, "meta": job.meta}
    for column, document in documents.items():
        # Of an object or an array another may hold more, and be the same all the same.
        plain = (key in document and not _holds_others(document[key]) for key in unique.keys)
        if column in unique.fields and all(plain):
            return KeyIndex(column, unique.keys)
    return None


def _holds_others(value: object) -> bool:
    return isinstance(value, Mapping | list | tuple)


def _match(unique: Unique, job: Job, field: str) -> Match:
    if field not in unique.fields:
        return "any"
    value = unique.wanted(job, field)
    if not value:
        return "equal"
    if unique.keys:
        return "part"
    # There is no index that tells whether a meta is equal, but one that tells what it holds.
    return "alike" if field == "meta" or has_arrays(value) else "equal"

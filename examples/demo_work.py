"""The demo's work: real files, and one job for each of them."""

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from oban_actors import Job

EARLIEST = 1.0
LATEST = 5.0
"""Seconds from now between which the jobs are due."""

MOST_QUEUES = 8
LONGEST_TYPE = 10

_SKIPPED = {"__pycache__", "node_modules", "build", "dist"}
_GOLDEN = 0.618033988749895


@dataclass(frozen=True, slots=True)
class File:
    """One file that was found.

    Attributes:
        path: below the folder, as text that JSON can hold.
        size: bytes.
        kind: its ending, `none` without one, `other` for what is no plain word.

    """

    path: str
    size: int
    kind: str


def walk(folder: Path, most: int) -> list[File]:
    """Find the files below a folder, leaving out what is hidden, made by tools, or a link.

    Args:
        folder: where to begin.
        most: files to find at most.

    """
    return list(islice(_files(folder), most))


def queues_of(files: Sequence[File]) -> dict[str, str]:
    """Give each kind of file a queue: the most frequent ones their own, the rest `other`."""
    kinds = Counter(file.kind for file in files)
    known = [kind for kind, _ in kinds.most_common() if kind != "other"]
    own = known if len(kinds) <= MOST_QUEUES else known[: MOST_QUEUES - 1]
    return {kind: kind if kind in own else "other" for kind in kinds}


def jobs_for(files: Sequence[File]) -> list[Job]:
    """Schedule one job for each file, evenly spread and in no order."""
    queues = queues_of(files)
    return [
        Job.new(
            worker="demo.Checksum",
            args={"path": file.path, "size": file.size},
            queue=queues[file.kind],
            schedule_in=EARLIEST + (LATEST - EARLIEST) * (number * _GOLDEN % 1),
        )
        for number, file in enumerate(files)
    ]


def _files(folder: Path) -> Iterator[File]:
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if name[0] != "." and name not in _SKIPPED)
        for name in sorted(names):
            path = Path(place, name)
            if path.is_symlink() or not path.is_file():
                continue
            shown = os.fsencode(path.relative_to(folder)).decode("utf-8", "replace")
            yield File(shown, path.stat().st_size, _kind(path))


def _kind(path: Path) -> str:
    ending = path.suffix.removeprefix(".").lower()
    if not ending:
        return "none"
    plain = ending.isascii() and ending.isalnum() and len(ending) <= LONGEST_TYPE
    return ending if plain else "other"

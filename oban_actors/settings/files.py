"""Options from a TOML file: `oban.toml`, or a table of `pyproject.toml`."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from oban_actors.errors import ConfigError
from oban_actors.settings.environment import CONFIG

OWN_FILE = "oban.toml"
PROJECT_FILE = "pyproject.toml"
TABLE = "tool.oban_actors"


@dataclass(frozen=True, slots=True)
class TomlFile:
    """A file's options.

    Attributes:
        origin: the file's name, for messages.
        values: the options as they stand there.

    """

    origin: str
    values: Mapping[str, Any] = field(repr=False)


def find(given: str | Path | None, environ: Mapping[str, str], directory: Path) -> TomlFile | None:
    """Read the file that is named, else the one that is there.

    Args:
        given: its path, None where `OBAN_CONFIG` or the directory decides.
        environ: the variables.
        directory: where to look for `oban.toml`, else for a `[tool.oban_actors]` in
            `pyproject.toml`; also what relative paths begin at.

    Raises:
        ConfigError: the file that is named is not there, or one can't be read.

    """
    if given is not None:
        return _named(directory, str(given), "")
    if named := environ.get(CONFIG):
        return _named(directory, named, f"{CONFIG}: ")
    own = directory / OWN_FILE
    if own.is_file():
        return TomlFile(OWN_FILE, _load(own, OWN_FILE))
    project = directory / PROJECT_FILE
    if not project.is_file():
        return None
    table = _table(_load(project, PROJECT_FILE), PROJECT_FILE)
    return None if table is None else TomlFile(PROJECT_FILE, table)


def _named(directory: Path, name: str, who: str) -> TomlFile:
    path = directory / name
    if not path.is_file():
        raise ConfigError(f"{who}there is no file {name!r}")
    values = _load(path, name)
    if path.name != PROJECT_FILE:
        return TomlFile(name, values)
    table = _table(values, name)
    if table is None:
        raise ConfigError(f"{who}there is no table [{TABLE}] in {name!r}")
    return TomlFile(name, table)


def _load(path: Path, origin: str) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise ConfigError(f"{origin}: it can't be read: {error.strerror}") from error
    except ValueError as error:
        # Its text may hold a password: only the place is named.
        place = str(error).rpartition("(")[2].rstrip(")") if "(at " in str(error) else "UTF-8"
        raise ConfigError(f"{origin}: it is no valid TOML: {place}") from None


def _table(values: Mapping[str, Any], origin: str) -> dict[str, Any] | None:
    found: Any = values
    for name in TABLE.split("."):
        if not isinstance(found, Mapping):
            break
        found = found.get(name)
    if found is not None and not isinstance(found, dict):
        raise ConfigError(f"{origin}: expected {TABLE} to be a table")
    return found

"""Settings: the database and the options of an instance, from all that was given."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import URL, Engine, make_url
from sqlalchemy.exc import ArgumentError

from oban_actors.config import Config
from oban_actors.errors import ConfigError
from oban_actors.settings import environment, files, layers, plugins
from oban_actors.settings.names import DATABASE, PREFIX

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Settings:
    """What an instance is told, checked, and where each option came from.

    Attributes:
        database: its address, or what the host gave; never shown.
        options: keyword arguments of `Oban`.
        config: the same, checked.
        origins: who gave an option, by its path; those with their default are left out.
        file: the TOML file that was read, None where there is none.

    """

    database: Any = field(repr=False)
    options: Mapping[str, Any] = field(repr=False)
    config: Config
    origins: Mapping[str, str]
    file: str | None

    def make(self, kind: Callable[..., T]) -> T:
        """Make an instance of `Oban`, or of a subclass.

        Raises:
            ConfigError: there is no database, or its address can't be used.

        """
        if self.database is None:
            raise ConfigError(
                f"there is no database: give an address, set {PREFIX}DATABASE_URL, or "
                f"write {DATABASE} in {files.OWN_FILE}"
            )
        try:
            return kind(self.database, **self.options)
        except ConfigError as error:
            origins = dict(self.origins)
            origins["database"] = origins.pop(DATABASE, "")
            raise layers.Merged(origins=origins).blame(error) from error

    def address(self) -> str | None:
        """Give the database's address without what may be secret, None where there is none."""
        source = getattr(self.database, "sync_engine", self.database)
        if source is None:
            return None
        try:
            url = source.url if isinstance(source, Engine) else make_url(source)
        except ArgumentError:
            return "an address that can't be read"
        parts = (url.drivername, url.username, None, url.host, url.port, url.database)
        return URL.create(*parts).render_as_string()


def load(
    database: Any = None,
    *,
    config_file: str | Path | None = None,
    environ: Mapping[str, str] | None = None,
    directory: str | Path | None = None,
    names: Mapping[str, str] | None = None,
    **options: Any,
) -> Settings:
    """Put keyword arguments over `OBAN_*` variables over a TOML file, and check the whole.

    Each option counts for itself, those of parts too, so that `OBAN_STAGER_LIMIT` leaves the
    file's `stager.interval` as it is; `queues` and `plugins` are taken whole.

    Args:
        database: as for `Oban`; default `OBAN_DATABASE_URL`, else the file's `database_url`.
        config_file: a TOML file; default `OBAN_CONFIG`, else `oban.toml`, else the table
            `[tool.oban_actors]` of `pyproject.toml`, in the working directory.
        environ: the variables, default this process's.
        directory: the working directory, default this process's.
        names: what messages call a keyword argument, by its name; a command's option, say.
        **options: see `Config.build`; None leaves no option out, it is a value.

    Raises:
        ConfigError: an option is unknown or wrong, or a file can't be read; the message begins
            with the variable or file that it came from.

    """
    variables = os.environ if environ is None else environ
    place = Path.cwd() if directory is None else Path(directory)
    found = files.find(config_file, variables, place)
    merged = layers.Merged()
    if found is not None:
        merged.add(_from_file(found))
    merged.add(environment.read(variables))
    for wrong, near in environment.unknown(variables).items():
        environment.logger.warning("%s is no variable of ours; did you mean %s?", wrong, near)
    merged.add(_from_keywords(database, options, names or {}))
    values = dict(merged.values)
    address = values.pop(DATABASE, None)
    try:
        _check_address(address)
        if "plugins" in values:
            values["plugins"] = plugins.build(values["plugins"])
        config = Config.build(**values)
    except ConfigError as error:
        raise merged.blame(error) from error
    return Settings(address, values, config, merged.origins, found.origin if found else None)


def _from_file(found: files.TomlFile) -> list[layers.Given]:
    try:
        layers.known(found.values)
        return list(layers.spread(found.values, found.origin))
    except ConfigError as error:
        raise ConfigError(f"{found.origin}: {error}") from None


def _from_keywords(
    database: Any, options: Mapping[str, Any], names: Mapping[str, str]
) -> list[layers.Given]:
    given = (
        [] if database is None else [layers.Given((DATABASE,), database, names.get(DATABASE, ""))]
    )
    for name, value in options.items():
        given += layers.spread({name: value}, names.get(name, ""))
    return given


def _check_address(address: Any) -> None:
    if isinstance(address, int | float | Mapping | list):
        raise ConfigError(f"invalid value for {DATABASE!r}: expected a URL, got: something else")

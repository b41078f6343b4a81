"""An examination: every check in turn, each for itself, so that one that fails hides no other."""

from collections.abc import Callable, Iterable
from typing import Protocol, cast

from sqlalchemy import Connection, text

from oban_actors.doctor import (
    cluster,
    jobs,
    listening,
    postgres_server,
    postgres_shape,
    sqlite_file,
    versions,
)
from oban_actors.doctor.exam import Exam, read
from oban_actors.doctor.finding import SEVERITIES, Finding, Limits
from oban_actors.errors import DatabaseError, DatabaseUnavailable
from oban_actors.repo import Repo, schema

Check = Callable[[Exam], Iterable[Finding]]

_REFUSED = "42501"  # insufficient_privilege

_POSTGRES: tuple[tuple[str, Check], ...] = (
    ("the tables", postgres_shape.check),
    ("the server", postgres_server.check),
    ("LISTEN", listening.check),
)
_SQLITE: tuple[tuple[str, Check], ...] = (
    ("the file", sqlite_file.check_file),
    ("the tables", sqlite_file.check_shape),
)
_BOTH: tuple[tuple[str, Check], ...] = (
    ("the lease", cluster.check_lease),
    ("the producers", cluster.check_producers),
    ("the claims", cluster.check_claims),
    ("waiting jobs", jobs.check),
)


class HasRepo(Protocol):
    """Something with a way to the database: an `Oban`."""

    @property
    def repo(self) -> Repo:
        """The way to the database."""


def examine(source: Repo | HasRepo, limits: Limits | None = None) -> list[Finding]:
    """Compare a database with what should be there, changing nothing.

    It needs no running tree, and no rights but to read: what it may not look at, it says. One
    notification is sent and waited for.

    Args:
        source: an `Oban`, running or not, or its `repo`.
        limits: what is taken as healthy.

    Returns:
        the faults, the worst first; none for a healthy database.

    """
    repo = cast("Repo", getattr(source, "repo", source))
    try:
        exam = _begin(repo, limits or Limits())
        if (follower := postgres_server.standby(exam)) is not None:
            return [follower]
    except DatabaseUnavailable as error:
        what = f"the database can't be reached: {error}"
        return [Finding("error", "unreachable", what, "start the server, or correct the URL")]
    except DatabaseError as error:
        return [_failed("the tables", error)]
    findings = list(versions.check(exam))
    found = exam.facts.version != 0
    own = _POSTGRES if exam.postgres else _SQLITE
    for name, check in [*own, *(_BOTH if found else ())]:
        try:
            findings += check(exam)
        except DatabaseError as error:
            findings.append(_failed(name, error))
    return sorted(findings, key=lambda one: SEVERITIES.index(one.severity))


def _begin(repo: Repo, limits: Limits) -> Exam:
    prefix = repo.config.prefix

    def look(connection: Connection) -> Exam:
        name = ""
        if repo.dialect == "postgresql":
            quoted = text("SELECT pg_catalog.quote_ident(:prefix)")
            name = f"{connection.execute(quoted, {'prefix': prefix}).scalar()}."
        return Exam(repo, limits, schema.inspect(connection, prefix), name)

    return read(repo, look)


def _failed(name: str, error: DatabaseError) -> Finding:
    if error.sqlstate == _REFUSED:
        what = f"{name} may not be looked at by this role: {error}"
        return Finding("notice", "not_allowed", what, "examine again with a role that may read it")
    what = f"{name} could not be looked at: {error}"
    return Finding("error", "not_examined", what, "mend what the message says, and examine again")

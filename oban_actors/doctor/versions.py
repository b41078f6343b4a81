"""Which versions of the tables there are, against those that are known."""

from collections.abc import Iterator

from oban_actors.doctor.exam import Exam
from oban_actors.doctor.finding import Finding
from oban_actors.repo.migrator import NEWEST, OWN_VERSION
from oban_actors.repo.schema import EXTERNAL

OLDEST = 11
"""The oldest version of Oban's tables on PostgreSQL that is run with."""

MIGRATE = "oban.migrate(), or from a shell: oban-actors migrate"


def check(exam: Exam) -> Iterator[Finding]:
    """Compare the versions."""
    facts, newest = exam.facts, NEWEST[exam.repo.dialect]
    where = f" in schema {exam.config.prefix!r}" if exam.postgres else ""
    if facts.version == 0:
        yield Finding("error", "no_tables", f"there is no table oban_jobs{where}", MIGRATE)
        return
    if exam.postgres and facts.version < OLDEST:
        what = f"the tables have version {facts.version} of Oban's, older than {OLDEST}"
        yield Finding("error", "old_version", what, MIGRATE)
    if newest < facts.version != EXTERNAL:
        what = f"the tables have version {facts.version} of Oban's; {newest} is the newest known"
        yield Finding("warning", "new_version", what, "upgrade oban_actors")
    if facts.own_version < OWN_VERSION:
        what = (
            f"the library's own tables have version {facts.own_version} instead of {OWN_VERSION}: "
            "what they are for does not work"
        )
        yield Finding("error", "own_version", what, MIGRATE)
    if facts.own_version > OWN_VERSION:
        what = f"a newer version of the library made its own tables: {facts.own_version}"
        yield Finding("warning", "new_own_version", what, "upgrade oban_actors")

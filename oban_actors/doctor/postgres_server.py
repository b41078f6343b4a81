"""What the PostgreSQL server does with the tables: vacuum, bloat, old transactions, clocks."""

from collections.abc import Iterator
from datetime import datetime
from typing import Any

from sqlalchemy import Connection

from oban_actors.doctor.exam import Exam, literal
from oban_actors.doctor.finding import Finding

PAGE = 8192
"""Bytes of a page."""

ROW = 28
"""Bytes that a row takes beside its values."""

ENTRY = 100
"""Bytes that an index has for an entry at most, as a rule."""

SPARE = 4
"""How many times larger than need be a table or an index may be."""

_AUTOVACUUM = """
SELECT current_setting('autovacuum')::boolean AND current_setting('track_counts')::boolean
"""
_TABLES = """
SELECT c.relname, s.n_dead_tup, s.n_live_tup, coalesce(s.last_autovacuum, s.last_vacuum),
  EXISTS (
    SELECT 1 FROM unnest(c.reloptions) AS option
    WHERE option IN ('autovacuum_enabled=false', 'autovacuum_enabled=off', 'autovacuum_enabled=0')
  ),
  c.relpages, c.reltuples, (
    SELECT sum(p.avg_width) FROM pg_catalog.pg_stats AS p
    WHERE p.schemaname = :prefix AND p.tablename = c.relname
  )
FROM pg_catalog.pg_class AS c
JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
JOIN pg_catalog.pg_stat_all_tables AS s ON s.relid = c.oid
WHERE n.nspname = :prefix AND c.relkind = 'r'
  AND (c.relname IN ('oban_jobs', 'oban_peers') OR c.relname LIKE 'oban\\_actors\\_%')
ORDER BY c.relname
"""
_INDEXES = """
SELECT c.relname, c.relpages, t.reltuples
FROM pg_catalog.pg_index AS i
JOIN pg_catalog.pg_class AS c ON c.oid = i.indexrelid
JOIN pg_catalog.pg_class AS t ON t.oid = i.indrelid
JOIN pg_catalog.pg_namespace AS n ON n.oid = t.relnamespace
JOIN pg_catalog.pg_am AS a ON a.oid = c.relam
WHERE n.nspname = :prefix AND t.relname = 'oban_jobs' AND a.amname = 'btree' AND i.indisvalid
ORDER BY c.relname
"""
_SESSIONS = """
SELECT pid, coalesce(usename, '?'), coalesce(application_name, ''), coalesce(state, '?'),
  extract(epoch FROM clock_timestamp() - xact_start)::double precision
FROM pg_catalog.pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid() AND xact_start IS NOT NULL
  AND backend_type = 'client backend'
  AND xact_start < clock_timestamp() - make_interval(secs => :seconds)
ORDER BY xact_start LIMIT 5
"""
_PREPARED = """
SELECT gid, extract(epoch FROM clock_timestamp() - prepared)::double precision
FROM pg_catalog.pg_prepared_xacts
WHERE database = current_database()
  AND prepared < clock_timestamp() - make_interval(secs => :seconds)
ORDER BY prepared LIMIT 5
"""
_SLOTS = """
SELECT slot_name FROM pg_catalog.pg_replication_slots
WHERE NOT active AND (xmin IS NOT NULL OR catalog_xmin IS NOT NULL) ORDER BY slot_name
"""
_MAY_SEE = """
SELECT quote_ident(current_user), pg_has_role(current_user, 'pg_read_all_stats', 'MEMBER')
"""


def standby(exam: Exam) -> Finding | None:
    """Tell whether the server only follows another one: nothing else is worth a look there."""
    if not exam.postgres:
        return None
    follows = exam.read(lambda connection: exam.rows(connection, "SELECT pg_is_in_recovery()"))
    if not follows[0][0]:
        return None
    what = "this server is a standby: nothing can be written here"
    return Finding("error", "standby", what, "give the URL of the primary server")


def check(exam: Exam) -> Iterator[Finding]:
    """Look at all of it."""
    yield from exam.read(lambda connection: list(_look(exam, connection)))
    yield from _clocks(exam)


def _look(exam: Exam, connection: Connection) -> Iterator[Finding]:
    if not exam.rows(connection, _AUTOVACUUM)[0][0]:
        fix = (
            "ALTER SYSTEM SET autovacuum = on;\nALTER SYSTEM SET track_counts = on;\n"
            "SELECT pg_reload_conf();"
        )
        yield Finding("error", "autovacuum_off", "autovacuum is off for the whole server", fix)
    for row in exam.rows(connection, _TABLES, prefix=exam.config.prefix):
        yield from _table(exam, row)
    for name, pages, entries in exam.rows(connection, _INDEXES, prefix=exam.config.prefix):
        size = pages * PAGE
        if size > exam.limits.bloat and entries >= 0 and size > SPARE * (entries + 1) * ENTRY:
            what = f"the index {name} has {_mib(size)} for about {entries:.0f} jobs"
            fix = f"REINDEX INDEX CONCURRENTLY {exam.schema}{name};"
            yield Finding("warning", "index_bloat", what, fix)
    yield from _transactions(exam, connection)


def _table(exam: Exam, row: Any) -> Iterator[Finding]:
    name, dead, living, vacuumed, off, pages, rows, width = row
    table = f"{exam.schema}{name}"
    if off:
        what = f"autovacuum is off for {name}"
        fix = f"ALTER TABLE {table} RESET (autovacuum_enabled);"
        yield Finding("error", "autovacuum_off", what, fix)
    if dead > exam.limits.dead_rows and dead > living:
        last = "never" if vacuumed is None else f"last at {vacuumed.isoformat(' ', 'seconds')}"
        what = f"{name} has {dead} dead rows beside {living} living, and was vacuumed {last}"
        yield Finding("warning", "dead_rows", what, f"VACUUM (ANALYZE) {table};")
    size = pages * PAGE
    if width is None or rows < 0 or size <= exam.limits.bloat:
        return
    if size > SPARE * (rows + 1) * (width + ROW):
        what = f"{name} has {_mib(size)} for about {rows:.0f} rows of {width} bytes"
        # The only statement for it; there are tools that don't lock the table meanwhile.
        yield Finding("warning", "bloat", what, f"VACUUM (FULL, ANALYZE) {table};")


def _transactions(exam: Exam, connection: Connection) -> Iterator[Finding]:
    seconds = {"seconds": exam.limits.transaction}
    for pid, user, program, state, age in exam.rows(connection, _SESSIONS, **seconds):
        who = f"{user} ({program})" if program else user
        what = (
            f"session {pid} of {who} is {state} in a transaction of {age:.0f} s: "
            "no row that has died since is removed"
        )
        yield Finding("warning", "old_transaction", what, f"SELECT pg_terminate_backend({pid});")
    for gid, age in exam.rows(connection, _PREPARED, **seconds):
        what = f"the prepared transaction {gid} is {age:.0f} s old: no row is removed meanwhile"
        fix = f"ROLLBACK PREPARED {literal(gid)};"
        yield Finding("warning", "prepared_transaction", what, fix)
    for (slot,) in exam.rows(connection, _SLOTS):
        what = f"nobody uses the replication slot {slot}, which keeps dead rows and WAL"
        fix = f"SELECT pg_drop_replication_slot({literal(slot)});"
        yield Finding("warning", "replication_slot", what, fix)
    role, may = exam.rows(connection, _MAY_SEE)[0]
    if not may:
        what = f"the role {role} can't see whether others' sessions have old transactions"
        yield Finding("notice", "not_allowed", what, f"GRANT pg_read_all_stats TO {role};")


def _clocks(exam: Exam) -> Iterator[Finding]:
    clock = exam.config.clock
    if clock.virtual:
        return

    def ask(connection: Connection) -> tuple[datetime, Any, datetime]:
        before = clock.now()
        there = exam.rows(connection, "SELECT clock_timestamp()")[0][0]
        return before, there, clock.now()

    before, there, after = exam.read(ask)
    # The answer was given at some moment between the two.
    ahead, behind = (before - there).total_seconds(), (there - after).total_seconds()
    apart = max(ahead, behind)
    if apart > exam.limits.clock:
        way = "ahead of" if ahead > behind else "behind"
        what = f"this machine's clock is {apart:.1f} s {way} the database's"
        fix = "let both machines take the time from NTP (chronyc makestep, timedatectl set-ntp on)"
        yield Finding("warning", "clock", what, fix)


def _mib(size: int) -> str:
    return f"{size / 1024 / 1024:.0f} MiB"

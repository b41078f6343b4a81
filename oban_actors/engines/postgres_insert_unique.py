"""Inserting one unique job into PostgreSQL's table, or finding the same one, by one message."""

from collections.abc import Mapping
from datetime import datetime
from functools import lru_cache
from typing import Any

from sqlalchemy import Connection, Table

from oban_actors.engines.inserts import UniqueInsert, inserted
from oban_actors.engines.postgres_insert import is_plain, plain_insert, plain_parameters, times_of
from oban_actors.engines.postgres_look import document_of, found_same, key_names, parameters_of
from oban_actors.engines.postgres_traces import trace_of_insert
from oban_actors.engines.postgres_unique import LOCK_SOME, OTHERS, lock_parameters, waiting
from oban_actors.engines.shapes import Shape, shape_of
from oban_actors.job import Job
from oban_actors.repo.commits import leave
from oban_actors.repo.key_indexes import literal
from oban_actors.repo.message import Send, pyformat

_LOCK = pyformat(LOCK_SOME)
# An index on JSON is read no other way.
_BITMAPS_ON = "SET LOCAL enable_bitmapscan = on"

_UNLESS_SAME = "NOT EXISTS (SELECT 1 FROM found WHERE id IS NOT NULL)"
_EITHER = """
WITH {same}, new AS ({new})
SELECT string_agg(cast(new.id AS text), ','), max(new.inserted_at),
  CASE WHEN count(*) > 0 THEN cast(pg_current_xact_id() AS text) END,
  (SELECT id FROM found),
  (SELECT count(pg_notify(:channel, payload))
   FROM json_array_elements_text(cast(:payloads AS json)) AS payload
   WHERE EXISTS (SELECT 1 FROM new))
FROM new
"""


class PostgresUniqueInserts:
    """Inserts single unique jobs, for `PostgresEngine`, which has the table."""

    table: Table

    def prepare_unique_inserts(self, schema: str) -> None:
        """Learn where the tables are.

        Args:
            schema: of the tables, quoted.

        """
        self._unique_inserts_schema = schema

    def unique_insert(self, job: Job) -> UniqueInsert | None:
        """See `JobEngine`."""
        return self._insert_unless_same if is_plain(job) else None

    def _insert_unless_same(
        self,
        connection: Connection,
        send: Send,
        job: Job,
        now: datetime | None,
        notification: Mapping[str, Any],
    ) -> Job | int:
        schema, shape = self._unique_inserts_schema, shape_of(job)
        parameters = {
            **lock_parameters(schema, [shape.unique.wish(job)]),
            **parameters_of(shape, [(0, job)]),
            **plain_parameters([job], now),
            **notification,
        }
        with waiting(OTHERS):
            # What others have committed is seen by a statement that begins with the lock taken.
            _, (row,) = send(_statements(schema, shape.timeless), parameters)
        if row[0] is None:
            return int(row[3])
        leave(connection, trace_of_insert(self.table, row[2], lambda: times_of(row)))
        (done,) = inserted([job], times_of(row))
        return done


@lru_cache(maxsize=256)
def _statements(schema: str, shape: Shape) -> tuple[str, ...]:
    same, new = found_same(schema, shape), plain_insert(schema, _UNLESS_SAME)
    either = pyformat(_EITHER.format(same=same, new=new))
    # As it stands, since a plan for any key could use the index for none.
    for name, key in key_names(shape).items():
        either = either.replace(f"%({name})s", literal(key).replace("%", "%%"))
    return (_LOCK, *((_BITMAPS_ON,) if document_of(shape) else ()), either)

"""Inserting one unique job into PostgreSQL's table, or finding the same one, by one message."""

import re
from collections.abc import Mapping
from datetime import datetime
from functools import lru_cache
from typing import Any

from sqlalchemy import Connection

from oban_actors.engines.inserts import UniqueInsert, inserted
from oban_actors.engines.postgres_insert import insert_of, insert_parameters, is_plain, row_times
from oban_actors.engines.postgres_look import document_of, found_same, key_names, parameters_of
from oban_actors.engines.postgres_traces import trace_of_insert
from oban_actors.engines.postgres_unique import (
    LOCK_SOME,
    OTHERS,
    PostgresUniques,
    lock_parameters,
    waiting,
)
from oban_actors.engines.shapes import Shape, shape_of
from oban_actors.job import Job
from oban_actors.repo.commits import leave
from oban_actors.repo.key_indexes import literal
from oban_actors.repo.message import Send, pyformat

_LOCK = pyformat(LOCK_SOME)
# An index on JSON is read no other way.
_BITMAPS_ON = "SET LOCAL enable_bitmapscan = on"

_KEY = re.compile(r"%\((key_\d+)\)s")
_UNLESS_SAME = "NOT EXISTS (SELECT 1 FROM found WHERE id IS NOT NULL)"
_EITHER = """
WITH {same}, new AS ({new})
SELECT max(new.id), max(new.inserted_at), max(new.scheduled_at),
  CASE WHEN count(*) > 0 THEN cast(pg_current_xact_id() AS text) END,
  (SELECT id FROM found),
  (SELECT count(pg_notify(:channel, payload))
   FROM json_array_elements_text(cast(:payloads AS json)) AS payload
   WHERE EXISTS (SELECT 1 FROM new))
FROM new
"""


class PostgresUniqueInserts(PostgresUniques):
    """Inserts single unique jobs as well, for `PostgresEngine`."""

    def unique_insert(self, *_given: object) -> UniqueInsert:
        """See `JobEngine`."""
        return self._insert_unless_same

    def _insert_unless_same(
        self,
        connection: Connection,
        send: Send,
        job: Job,
        now: datetime | None,
        notification: Mapping[str, Any],
    ) -> Job | int:
        schema, shape = self._unique_schema, shape_of(job)
        parameters = {
            **lock_parameters(schema, [shape.unique.wish(job)]),
            **parameters_of(shape, [(0, job)]),
            **insert_parameters([job], now),
            **notification,
        }
        with waiting(OTHERS):
            # What others have committed is seen by a statement that begins with the lock taken.
            statements = _statements(schema, shape.timeless, plain=is_plain(job))
            _, ((job_id, inserted_at, scheduled_at, transaction, same, _),) = send(
                statements, parameters
            )
        if same is not None:
            return int(same)
        rows = [] if job_id is None else [row_times(job_id, inserted_at, scheduled_at)]
        (done,) = inserted([job], rows)
        leave(connection, trace_of_insert(self.table, transaction, lambda: rows))
        return done


@lru_cache(maxsize=256)
def _statements(schema: str, shape: Shape, *, plain: bool) -> tuple[str, ...]:
    new = insert_of(schema, plain=plain, condition=_UNLESS_SAME)
    either = pyformat(_EITHER.format(same=found_same(schema, shape), new=new))
    keys = key_names(shape)

    def written(name: re.Match[str]) -> str:
        # As it stands, since a plan for any key could use the index for none.
        return literal(keys[name[1]]).replace("%", "%%")

    either = _KEY.sub(written, either)
    return (_LOCK, *((_BITMAPS_ON,) if document_of(shape) else ()), either)

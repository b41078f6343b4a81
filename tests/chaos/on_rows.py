"""Hostile rows: every column at its extremes, text that is none, NULL where we never write one."""

import sqlalchemy as sa

from tests.chaos.cases import case
from tests.chaos.scene import LIMIT, Scene
from tests.support.waiting import wait_until

UNREADABLE = r"job \d+ can't be read, so it can't run: TypeError: expected args to be dict"
UNWRITABLE = r"how job \d+ ended can't be written, and waits: argument must be .*"

LONG = "repeat('x', {size})"
POSTGRES = (
    ("args", "'[]'"),
    ("args", "'null'"),
    ("args", "'1e400'"),
    ("args", f"jsonb_build_object('n', {LONG})"),
    ("args", "cast('{\"n\": ' || repeat('9', 20000) || '}' AS jsonb)"),
    ("args", "cast(repeat('[', 3000) || repeat(']', 3000) AS jsonb)"),
    ("args", '\'{"n": "\\ud83d\\ude00"}\''),
    ("meta", "NULL"),
    ("meta", "'[]'"),
    ("meta", '\'{"snoozed": "often"}\''),
    ("tags", "NULL"),
    ("tags", "ARRAY[NULL, '', 'a']"),
    ("tags", "array_fill('t'::text, ARRAY[2, 3])"),
    ("tags", "array_fill(repeat('t', 100), ARRAY[10000])"),
    ("errors", "NULL"),
    ("errors", "ARRAY[NULL, 'null', '[]', '7']::jsonb[]"),
    ("errors", "array_fill('{}'::jsonb, ARRAY[2, 2])"),
    ("attempted_by", "ARRAY[NULL]::text[]"),
    ("attempted_by", "ARRAY[]::text[]"),
    ("attempted_at", "'infinity'"),
    ("attempted_at", "'-infinity'"),
    ("scheduled_at", "'-infinity'"),
    ("scheduled_at", "'4713-01-01 BC'"),
    ("inserted_at", "'infinity'"),
    ("inserted_at", "'294276-12-31'"),
    ("completed_at", "'infinity'"),
    ("max_attempts", "2147483647"),
    ("priority", "0"),
    ("priority", "9"),
    ("priority", "2147483647"),
    ("priority", "-2147483648"),
    ("worker", "repeat('w', 127)"),
    ("worker", "E'\\x01\\u2028'"),
    ("id", "9223372036854775807"),
    ("id", "-9223372036854775808"),
    ("id", "0"),
    ("state, attempted_at, attempted_by", "'executing', NULL, NULL"),
    ("state, attempted_at, attempted_by", "'executing', 'infinity', ARRAY['a']"),
    ("state, scheduled_at", "'scheduled', '-infinity'"),
    ("state, scheduled_at", "'retryable', '-infinity'"),
    ("state, scheduled_at", "'scheduled', 'infinity'"),
    ("state", "'dreaming'"),
)
"""What one column of a row holds, or some; all else is as it should be."""


@case("rows", "rows that no writer of ours makes", told=(UNREADABLE, UNWRITABLE), few=4 * LIMIT)
def rows(scene: Scene) -> None:
    """What can be read runs, what can't is discarded with the reason, and both hide no other."""
    scene.tables.execute("ALTER TYPE oban_job_state ADD VALUE 'dreaming'")
    size = 100 * 2**20 if scene.long else 5 * 2**20
    taken = []
    with scene.strike():
        for columns, values in POSTGRES:
            named = "" if "worker" in columns else ", worker"
            unnamed = "" if "worker" in columns else ", 'chaos.hostile'"
            statement = (
                f"INSERT INTO {{jobs}} ({columns}, queue, max_attempts{named}) "
                f"VALUES ({values.replace('{size}', str(size))}, 'alpha', 1{unnamed}) RETURNING id"
            )
            if "max_attempts" in columns:
                statement = statement.replace(", max_attempts", "").replace(", 1,", ",")
            try:
                taken += [row[0] for row in scene.tables.execute(statement.replace(":", "\\:"))]
            except sa.exc.IntegrityError:
                # The table's own checks refuse it.
                continue
        assert len(taken) > len(POSTGRES) / 2
    # Those of lower priority come when the load is over.
    left = (
        "SELECT id FROM {jobs} WHERE id = ANY (:ids) AND priority <= 0 AND (state = 'available' "
        "OR (state IN ('scheduled', 'retryable') AND scheduled_at = '-infinity'))"
    )
    wait_until(lambda: not scene.tables.execute(left, ids=taken), 60, "all were looked at")

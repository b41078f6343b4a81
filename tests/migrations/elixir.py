"""Databases as Elixir Oban's migrations leave them, written from their description."""

import sqlite3
from typing import Any

import psycopg

VERSIONS = (11, 12, 13, 14)

# Whatever the version, every installation of the last years has all states from the first step.
_COMMON = """
CREATE SCHEMA IF NOT EXISTS {0};
CREATE TYPE {0}.oban_job_state AS ENUM ({states});
CREATE TABLE {0}.oban_jobs (
  id bigserial,
  state {0}.oban_job_state DEFAULT 'available' NOT NULL,
  queue text DEFAULT 'default' NOT NULL,
  worker text NOT NULL,
  args jsonb DEFAULT '{{}}' NOT NULL,
  errors jsonb[] DEFAULT ARRAY[]::jsonb[] NOT NULL,
  attempt integer DEFAULT 0 NOT NULL,
  max_attempts integer DEFAULT 20 NOT NULL,
  inserted_at timestamp DEFAULT timezone('UTC', now()) NOT NULL,
  scheduled_at timestamp DEFAULT timezone('UTC', now()) NOT NULL,
  attempted_at timestamp,
  completed_at timestamp,
  attempted_by text[],
  discarded_at timestamp,
  priority integer DEFAULT 0 NOT NULL,
  tags text[] DEFAULT ARRAY[]::text[],
  meta jsonb DEFAULT '{{}}',
  cancelled_at timestamp,
  CONSTRAINT oban_jobs_pkey PRIMARY KEY (id),
  CONSTRAINT worker_length CHECK (char_length(worker) > 0 AND char_length(worker) < 128),
  CONSTRAINT queue_length CHECK (char_length(queue) > 0 AND char_length(queue) < 128),
  CONSTRAINT positive_max_attempts CHECK (max_attempts > 0),
  CONSTRAINT attempt_range CHECK (attempt BETWEEN 0 AND max_attempts)
);
CREATE INDEX oban_jobs_state_queue_priority_scheduled_at_id_index
  ON {0}.oban_jobs (state, queue, priority, scheduled_at, id);
CREATE INDEX oban_jobs_args_index ON {0}.oban_jobs USING gin (args);
CREATE INDEX oban_jobs_meta_index ON {0}.oban_jobs USING gin (meta);
CREATE UNLOGGED TABLE {0}.oban_peers (
  name text NOT NULL PRIMARY KEY,
  node text NOT NULL,
  started_at timestamp NOT NULL,
  expires_at timestamp NOT NULL
);
COMMENT ON TABLE {0}.oban_jobs IS '{version}';
"""

_UNTIL_11 = """
ALTER TABLE {0}.oban_jobs
  ADD CONSTRAINT priority_range CHECK (priority BETWEEN 0 AND 3);
CREATE FUNCTION {0}.oban_jobs_notify() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF NEW.state = 'available' THEN
    PERFORM pg_notify('{prefix}.oban_insert', json_build_object('queue', NEW.queue)::text);
  END IF;
  RETURN NULL;
END $$;
CREATE TRIGGER oban_notify AFTER INSERT ON {0}.oban_jobs
  FOR EACH ROW EXECUTE PROCEDURE {0}.oban_jobs_notify();
"""

_SINCE_12 = """
ALTER TABLE {0}.oban_jobs
  ADD CONSTRAINT non_negative_priority CHECK (priority >= 0) NOT VALID;
"""

_SINCE_13 = """
CREATE INDEX oban_jobs_state_cancelled_at_index ON {0}.oban_jobs (state, cancelled_at);
CREATE INDEX oban_jobs_state_discarded_at_index ON {0}.oban_jobs (state, discarded_at);
"""

_LITE = """
CREATE TABLE oban_jobs (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  state TEXT DEFAULT 'available' NOT NULL,
  queue TEXT DEFAULT 'default' NOT NULL,
  worker TEXT NOT NULL,
  args JSON DEFAULT ('{}') NOT NULL,
  meta JSON DEFAULT ('{}') NOT NULL,
  tags JSON DEFAULT ('[]') NOT NULL,
  errors JSON DEFAULT ('[]') NOT NULL,
  attempt INTEGER DEFAULT 0 NOT NULL,
  max_attempts INTEGER DEFAULT 20 NOT NULL,
  priority INTEGER DEFAULT 0 NOT NULL,
  inserted_at TEXT DEFAULT (strftime('%Y-%m-%dT%H:%M:%SZ', 'now')) NOT NULL,
  scheduled_at TEXT DEFAULT (strftime('%Y-%m-%dT%H:%M:%SZ', 'now')) NOT NULL,
  attempted_at TEXT,
  attempted_by JSON DEFAULT ('[]') NOT NULL,
  cancelled_at TEXT,
  completed_at TEXT,
  discarded_at TEXT
);
CREATE INDEX oban_jobs_state_queue_priority_scheduled_at_id_index
  ON oban_jobs (state, queue, priority, scheduled_at, id);
"""

# As the Lite engine writes them: whole seconds by default, else six digits.
LITE_ROWS = """
INSERT INTO oban_jobs (state, worker, args) VALUES ('available', 'MyApp.Plain', '{"id":1}');
INSERT INTO oban_jobs (state, worker, args, meta, tags, errors, attempt, attempted_by,
  inserted_at, scheduled_at, attempted_at) VALUES (
  'retryable', 'MyApp.Failed', '{"id":2}', '{"snoozed":1}', '["a","b"]',
  '["{\\"at\\":\\"2026-11-23T20:12:08.427120Z\\",\\"attempt\\":1,\\"error\\":\\"boom\\"}"]',
  1, '["web.1"]', '2026-11-23T20:12:01Z', '2026-11-23T20:12:24.5Z', '2026-11-23T20:12:08.427120Z');
"""


def install(
    connection: "psycopg.Connection[Any]", prefix: str, version: int, *, enum_of: int = 14
) -> None:
    """Make the tables that Elixir's migrations up to a version leave.

    Args:
        connection: in autocommit mode.
        prefix: the schema, made if need be.
        version: 11 to 14.
        enum_of: version of the library that once made the enum; before 14 it knew 7 states.

    """
    states = ["available", "scheduled", "executing", "retryable"]
    states += ["completed", "discarded", "cancelled"]
    if enum_of >= 14 or version >= 14:
        states.insert(1, "suspended")
    script = _COMMON
    script += _UNTIL_11 if version < 12 else _SINCE_12
    script += _SINCE_13 if version >= 13 else ""
    quoted = '"' + prefix + '"'
    listed = ", ".join(f"'{state}'" for state in states)
    connection.execute(
        script.format(quoted, states=listed, version=version, prefix=prefix).encode()
    )


def install_lite(path: str) -> None:
    """Make an SQLite file as Elixir's Lite migration leaves it, with two jobs."""
    connection = sqlite3.connect(path)
    connection.executescript(_LITE + LITE_ROWS)
    connection.close()

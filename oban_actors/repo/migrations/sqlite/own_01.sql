-- up
CREATE TABLE IF NOT EXISTS oban_actors_meta (
  key TEXT PRIMARY KEY,
  value TEXT NOT NULL
) WITHOUT ROWID

CREATE TABLE IF NOT EXISTS oban_peers (
  name TEXT PRIMARY KEY,
  node TEXT NOT NULL,
  started_at TEXT NOT NULL,
  expires_at TEXT NOT NULL
)

CREATE TABLE IF NOT EXISTS oban_actors_producers (
  uuid TEXT PRIMARY KEY,
  identity TEXT NOT NULL,
  name TEXT NOT NULL,
  node TEXT NOT NULL,
  queue TEXT NOT NULL,
  queue_limit INTEGER NOT NULL,
  paused INTEGER NOT NULL DEFAULT 0,
  running INTEGER NOT NULL DEFAULT 0,
  started_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%f000Z', 'now')),
  beat_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%f000Z', 'now'))
)

CREATE TABLE IF NOT EXISTS oban_actors_notifications (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  channel TEXT NOT NULL,
  payload TEXT NOT NULL,
  inserted_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%f000Z', 'now'))
)

CREATE INDEX IF NOT EXISTS oban_actors_staging_index
ON oban_jobs (rtrim(replace(scheduled_at, ' ', 'T'), 'Z'), id)
WHERE state IN ('scheduled', 'retryable')

-- down
DROP INDEX IF EXISTS oban_actors_staging_index

DROP TABLE IF EXISTS oban_actors_notifications

DROP TABLE IF EXISTS oban_actors_producers

DROP TABLE IF EXISTS oban_peers

DROP TABLE IF EXISTS oban_actors_meta

-- up
CREATE TABLE IF NOT EXISTS oban_jobs (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  state TEXT NOT NULL DEFAULT 'available',
  queue TEXT NOT NULL DEFAULT 'default',
  worker TEXT NOT NULL,
  args JSON NOT NULL DEFAULT '{}',
  meta JSON NOT NULL DEFAULT '{}',
  tags JSON NOT NULL DEFAULT '[]',
  errors JSON NOT NULL DEFAULT '[]',
  attempt INTEGER NOT NULL DEFAULT 0,
  max_attempts INTEGER NOT NULL DEFAULT 20,
  priority INTEGER NOT NULL DEFAULT 0,
  inserted_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%SZ', 'now')),
  scheduled_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%SZ', 'now')),
  attempted_at TEXT,
  attempted_by JSON NOT NULL DEFAULT '[]',
  cancelled_at TEXT,
  completed_at TEXT,
  discarded_at TEXT
)

CREATE INDEX IF NOT EXISTS oban_jobs_state_queue_priority_scheduled_at_id_index
ON oban_jobs (state, queue, priority, scheduled_at, id)

-- down
DROP TABLE IF EXISTS oban_jobs

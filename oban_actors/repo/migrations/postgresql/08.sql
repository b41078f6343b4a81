-- up
ALTER TABLE {schema}.oban_jobs
  ADD COLUMN IF NOT EXISTS discarded_at timestamp,
  ADD COLUMN IF NOT EXISTS priority integer,
  ADD COLUMN IF NOT EXISTS tags text[]

ALTER TABLE {schema}.oban_jobs
  ALTER COLUMN priority SET DEFAULT 0,
  ALTER COLUMN tags SET DEFAULT ARRAY[]::text[]

DROP INDEX IF EXISTS {schema}.oban_jobs_queue_state_scheduled_at_id_index

CREATE INDEX IF NOT EXISTS oban_jobs_state_queue_priority_scheduled_at_id_index
ON {schema}.oban_jobs (state, queue, priority, scheduled_at, id)

{trigger_of_8}

-- down
DROP INDEX IF EXISTS {schema}.oban_jobs_state_queue_priority_scheduled_at_id_index

CREATE INDEX IF NOT EXISTS oban_jobs_queue_state_scheduled_at_id_index
ON {schema}.oban_jobs (queue, state, scheduled_at, id)

ALTER TABLE {schema}.oban_jobs
  DROP COLUMN IF EXISTS discarded_at,
  DROP COLUMN IF EXISTS priority,
  DROP COLUMN IF EXISTS tags

{trigger_of_1}

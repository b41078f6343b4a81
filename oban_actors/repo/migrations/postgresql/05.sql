-- up
DROP INDEX IF EXISTS
  {schema}.oban_jobs_scheduled_at_index,
  {schema}.oban_jobs_queue_index,
  {schema}.oban_jobs_state_index

CREATE INDEX IF NOT EXISTS oban_jobs_queue_state_scheduled_at_id_index
ON {schema}.oban_jobs (queue, state, scheduled_at, id)

-- down
DROP INDEX IF EXISTS {schema}.oban_jobs_queue_state_scheduled_at_id_index

CREATE INDEX IF NOT EXISTS oban_jobs_queue_index ON {schema}.oban_jobs (queue)

CREATE INDEX IF NOT EXISTS oban_jobs_state_index ON {schema}.oban_jobs (state)

CREATE INDEX IF NOT EXISTS oban_jobs_scheduled_at_index ON {schema}.oban_jobs (scheduled_at)
WHERE state IN ('available', 'scheduled')

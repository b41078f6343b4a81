-- up
DROP INDEX IF EXISTS {schema}.oban_jobs_scheduled_at_index

CREATE INDEX oban_jobs_scheduled_at_index ON {schema}.oban_jobs (scheduled_at)
WHERE state IN ('available', 'scheduled')

ALTER TABLE {schema}.oban_jobs
  DROP CONSTRAINT IF EXISTS worker_length,
  DROP CONSTRAINT IF EXISTS queue_length,
  ADD CONSTRAINT worker_length CHECK (char_length(worker) > 0 AND char_length(worker) < 128),
  ADD CONSTRAINT queue_length CHECK (char_length(queue) > 0 AND char_length(queue) < 128)

{wrap_id}

-- down
ALTER TABLE {schema}.oban_jobs
  DROP CONSTRAINT IF EXISTS queue_length,
  DROP CONSTRAINT IF EXISTS worker_length

DROP INDEX IF EXISTS {schema}.oban_jobs_scheduled_at_index

CREATE INDEX oban_jobs_scheduled_at_index ON {schema}.oban_jobs (scheduled_at)

DROP FUNCTION IF EXISTS {schema}.oban_wrap_id(bigint)

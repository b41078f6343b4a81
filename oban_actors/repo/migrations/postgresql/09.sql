-- up
ALTER TABLE {schema}.oban_jobs
  ADD COLUMN IF NOT EXISTS meta jsonb DEFAULT '{}',
  ADD COLUMN IF NOT EXISTS cancelled_at timestamp

ALTER TYPE {schema}.oban_job_state ADD VALUE IF NOT EXISTS 'cancelled'

-- down
ALTER TABLE {schema}.oban_jobs
  DROP COLUMN IF EXISTS meta,
  DROP COLUMN IF EXISTS cancelled_at

UPDATE {schema}.oban_jobs SET state = 'discarded' WHERE state = 'cancelled'

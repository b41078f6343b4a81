-- up
-- Rows from before version 8 have none.
UPDATE {schema}.oban_jobs SET priority = 0 WHERE priority IS NULL

ALTER TABLE {schema}.oban_jobs
  ALTER COLUMN args SET DEFAULT '{}',
  ALTER COLUMN priority SET NOT NULL

ALTER TABLE {schema}.oban_jobs
  DROP CONSTRAINT IF EXISTS priority_range,
  DROP CONSTRAINT IF EXISTS positive_max_attempts,
  DROP CONSTRAINT IF EXISTS attempt_range,
  ADD CONSTRAINT priority_range CHECK (priority BETWEEN 0 AND 3),
  ADD CONSTRAINT positive_max_attempts CHECK (max_attempts > 0),
  ADD CONSTRAINT attempt_range CHECK (attempt BETWEEN 0 AND max_attempts)

DROP INDEX IF EXISTS
  {schema}.oban_jobs_args_vector,
  {schema}.oban_jobs_worker_gist,
  {schema}.oban_jobs_attempted_at_id_index

-- down
ALTER TABLE {schema}.oban_jobs
  ALTER COLUMN args DROP DEFAULT,
  ALTER COLUMN priority DROP NOT NULL,
  DROP CONSTRAINT IF EXISTS attempt_range,
  DROP CONSTRAINT IF EXISTS positive_max_attempts,
  DROP CONSTRAINT IF EXISTS priority_range

-- up
ALTER TABLE {schema}.oban_jobs
  DROP CONSTRAINT IF EXISTS priority_range,
  DROP CONSTRAINT IF EXISTS non_negative_priority,
  ADD CONSTRAINT non_negative_priority CHECK (priority >= 0) NOT VALID

DROP TRIGGER IF EXISTS oban_notify ON {schema}.oban_jobs

DROP FUNCTION IF EXISTS {schema}.oban_jobs_notify()

-- down
ALTER TABLE {schema}.oban_jobs
  DROP CONSTRAINT IF EXISTS non_negative_priority,
  ADD CONSTRAINT priority_range CHECK (priority BETWEEN 0 AND 3) NOT VALID

{trigger_of_8}

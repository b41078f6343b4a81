-- up
CREATE INDEX IF NOT EXISTS oban_jobs_attempted_at_id_index
ON {schema}.oban_jobs (attempted_at DESC, id) WHERE state IN ('completed', 'discarded')

-- down
DROP INDEX IF EXISTS {schema}.oban_jobs_attempted_at_id_index

-- up
CREATE INDEX IF NOT EXISTS oban_actors_staging_index ON {schema}.oban_jobs (scheduled_at, id)
WHERE state IN ('scheduled', 'retryable')

-- up
CREATE INDEX IF NOT EXISTS oban_jobs_args_index ON {schema}.oban_jobs USING gin (args)

CREATE INDEX IF NOT EXISTS oban_jobs_meta_index ON {schema}.oban_jobs USING gin (meta)

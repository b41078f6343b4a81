-- up
ALTER TABLE {schema}.oban_jobs ADD COLUMN IF NOT EXISTS attempted_by text[]

-- down
ALTER TABLE {schema}.oban_jobs DROP COLUMN IF EXISTS attempted_by

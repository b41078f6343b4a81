-- up
CREATE INDEX IF NOT EXISTS oban_actors_unique_index
ON oban_jobs (worker, state, substr(args, 1, 200), rtrim(replace(inserted_at, ' ', 'T'), 'Z'))

-- down
DROP INDEX IF EXISTS oban_actors_unique_index

-- up
-- The indexes on the jobs table are built apart from this, while others go on writing.

-- down
DROP INDEX IF EXISTS {schema}.oban_actors_unfinished_index

DROP INDEX IF EXISTS {schema}.oban_actors_finished_index

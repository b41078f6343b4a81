-- up
CREATE TABLE IF NOT EXISTS {schema}.oban_actors_producers (
  uuid text PRIMARY KEY,
  identity text NOT NULL,
  name text NOT NULL,
  node text NOT NULL,
  queue text NOT NULL,
  queue_limit integer NOT NULL,
  paused boolean NOT NULL DEFAULT false,
  running integer NOT NULL DEFAULT 0,
  started_at timestamp NOT NULL DEFAULT timezone('UTC', clock_timestamp()),
  beat_at timestamp NOT NULL DEFAULT timezone('UTC', clock_timestamp())
)

-- down
DROP TABLE IF EXISTS {schema}.oban_actors_producers

-- up
CREATE TABLE IF NOT EXISTS {schema}.oban_actors_crons (
  name text NOT NULL,
  entry text NOT NULL,
  evaluated_at timestamp NOT NULL,
  PRIMARY KEY (name, entry)
)

-- down
DROP TABLE IF EXISTS {schema}.oban_actors_crons

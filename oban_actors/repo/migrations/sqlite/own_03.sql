-- up
CREATE TABLE IF NOT EXISTS oban_actors_crons (
  name TEXT NOT NULL,
  entry TEXT NOT NULL,
  evaluated_at TEXT NOT NULL,
  PRIMARY KEY (name, entry)
) WITHOUT ROWID

-- down
DROP TABLE IF EXISTS oban_actors_crons

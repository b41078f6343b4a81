-- up
CREATE TABLE IF NOT EXISTS {schema}.oban_peers (
  name text PRIMARY KEY,
  node text NOT NULL,
  started_at timestamp NOT NULL,
  expires_at timestamp NOT NULL
)

ALTER TABLE {schema}.oban_peers SET UNLOGGED

-- down
DROP TABLE IF EXISTS {schema}.oban_peers

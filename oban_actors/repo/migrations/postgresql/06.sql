-- up
-- It changed a table that Oban gave up since.

-- down
-- Likewise.

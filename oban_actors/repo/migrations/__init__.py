"""The SQL of each schema version; `migrator` reads it."""

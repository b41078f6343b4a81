"""Programs that the bench runs in processes of their own; each says what it saw as JSON lines."""

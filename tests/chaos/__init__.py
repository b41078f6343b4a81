"""Real faults: nodes that are processes, under load, on a server of their own (`make chaos`)."""

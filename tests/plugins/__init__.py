"""What a tree does by itself, beside its jobs."""

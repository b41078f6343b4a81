"""A long run at half load with a fault every few seconds: memory and latency have to stay flat."""

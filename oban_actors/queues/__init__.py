"""How jobs run: queues, each with those who fetch, hold, run and acknowledge its jobs."""

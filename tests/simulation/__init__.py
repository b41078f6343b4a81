"""A deterministic simulation: whole nodes, the real actors in real trees, in one thread.

What stands between the actors and the machine is replaced, and nothing else: threads are
greenlets, clocks and timers are virtual, the database is a model of PostgreSQL with transactions,
row locks and NOTIFY. A seed decides every interleaving and every fault.
"""

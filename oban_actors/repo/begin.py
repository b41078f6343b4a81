"""What begins a transaction, and bounds it."""

import math

from oban_actors.repo.times import Dialect


def begin_of(
    dialect: Dialect,
    statement_timeout: float,
    lock_timeout: float,
    idle_timeout: float,
    *,
    read_only: bool,
    durable: bool,
) -> tuple[str, ...]:
    """Give the statements that begin a transaction; times are in seconds, 0 for any.

    Args:
        dialect: the database's kind.
        statement_timeout: for each statement, on PostgreSQL.
        lock_timeout: for each wait for a lock.
        idle_timeout: for this process to go on, on PostgreSQL.
        read_only: whether it only reads.
        durable: whether its commit waits for the disk.

    """
    if dialect == "sqlite":
        # It can't wait without end for a lock, but for 24 days.
        waiting = math.ceil(lock_timeout * 1000) or 2**31 - 1
        return (
            f"PRAGMA busy_timeout = {waiting}",
            # NORMAL commits to the WAL as FULL does, and leaves waiting to the next that is.
            f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}",
            "BEGIN" if read_only else "BEGIN IMMEDIATE",
        )
    idle = math.ceil(idle_timeout * 1000)
    # One round trip for all of it, and nothing that outlives the transaction.
    begin = (
        f"BEGIN ISOLATION LEVEL READ COMMITTED{', READ ONLY' if read_only else ''};"
        f"SET LOCAL statement_timeout = {math.ceil(statement_timeout * 1000)};"
        f"SET LOCAL lock_timeout = {math.ceil(lock_timeout * 1000)};"
        f"SET LOCAL idle_in_transaction_session_timeout = {idle};"
        # A client that stopped reading is not idle to it: there only the kernel's word helps.
        f"SET LOCAL tcp_user_timeout = {idle};"
        "SET LOCAL timezone = 'UTC';"
        # Every statement here has its index, and reads it in its order to stop early. Left to
        # itself, a planner that knows of no rows of a state takes any, and sorts a million.
        "SET LOCAL enable_seqscan = off; SET LOCAL enable_bitmapscan = off;"
        "SET LOCAL enable_sort = off; SET LOCAL jit = off"
        f"{'' if durable else '; SET LOCAL synchronous_commit = off'}"
    )
    return (begin,)

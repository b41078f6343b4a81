"""Claims of the rows that a turn has fetched."""

from oban_actors.claim import Claim
from oban_actors.engines import Fetched
from oban_actors.running import Completer, Running
from oban_actors.worker_registry import find_worker


def claims_of(fetched: Fetched, completer: Completer) -> list[Claim]:
    """Make a claim of each row, to be read when its job is run.

    Args:
        fetched: the rows, in the order in which their jobs are to run.
        completer: finishes a job in its worker's own transaction.

    """
    id_of, worker_of, at = fetched.id_of, fetched.worker_of, fetched.at
    return [
        Claim(
            id_of(row),
            at,
            find_worker(worker_of(row)),
            Running(completer=completer),
            fetched,
            row,
        )
        for row in fetched.rows
    ]

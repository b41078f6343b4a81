"""A node that runs jobs, as a program: `python -m tests.cluster.job_node URL PREFIX OPTIONS`.

Each run is a line of its own that is out before the job ends, so that whoever kills the process
knows all that it began.
"""

import os
from threading import Event

from oban_actors import Job, worker
from tests.cluster.node import main

PAUSE = Event()


@worker(name="tests.tell", queue="alpha")
def tell(job: Job) -> None:
    """Say that it runs, in one write; one that is to hang does."""
    os.write(1, b'{"ran": %d}\n' % (job.id or 0))
    if job.args.get("hang"):
        PAUSE.wait()


if __name__ == "__main__":
    main()

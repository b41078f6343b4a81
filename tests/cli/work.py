"""Workers for nodes that the command line starts: each run says so in one write."""

import gc
import os
from pathlib import Path

from oban_actors import Job, worker
from tests.support.waiting import wait_until

PATIENCE = 120.0


@worker(name="tests.cli.tell", queue="alpha", max_attempts=5, tags=["told"])
def tell(job: Job) -> None:
    """Say which job runs in which process; with `gate`, wait for that file or to be told to end."""
    said = b'{"ran": %d, "pid": %d, "frozen": %d}\n'
    os.write(1, said % (job.id or 0, os.getpid(), gc.get_freeze_count()))
    if gate := job.args.get("gate"):
        wait_until(lambda: Path(gate).exists() or job.cancelled, PATIENCE)
    if job.args.get("fail"):
        raise ValueError("no \x1b[31msuch\x07 [bold]address[/bold]")

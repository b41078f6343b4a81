"""A node that runs jobs, as a program: `python -m tests.cluster.job_node URL PREFIX OPTIONS`.

Each run is a line of its own that is out before the job ends, so that whoever kills the process
knows all that it began. With the option `die` it kills itself at that step of its first turn that
comes to it: `claiming` and `writing` before the commit, `claimed` and `written` after it, `ended`
between a run's end and its acknowledgement.
"""

import json
import os
import signal
import sys
from collections.abc import Mapping
from threading import Event
from typing import Any

from oban_actors import Job, telemetry, worker
from oban_actors.engines import PostgresEngine, SqliteEngine
from tests.cluster.node import main

PAUSE = Event()


@worker(name="tests.tell", queue="alpha")
def tell(job: Job) -> None:
    """Say that it runs, in one write; one that is to hang does."""
    os.write(1, b'{"ran": %d}\n' % (job.id or 0))
    if job.args.get("hang"):
        PAUSE.wait()


def die() -> None:
    """Kill this process, as nothing can prevent."""
    os.kill(os.getpid(), signal.SIGKILL)
    PAUSE.wait()


def die_in(kind: Any, step: str) -> None:
    """Die in the transaction of a turn, taken step by step: a message can't be half sent."""
    take_turn = kind.take_turn

    def dying(*given: Any, **how: Any) -> Any:
        acks = given[4]
        if step == "ended" and acks:
            die()
        turn = take_turn(*given, **how)
        if (step == "claiming" and turn.jobs) or (step == "writing" and acks):
            die()
        return turn

    kind.take_turn = dying
    kind.turn_message = lambda *_given: None


def die_after(step: str) -> None:
    """Die once the transaction of a turn is committed, and before anything else is done."""
    fact = {"claimed": "dispatched_count", "written": "settled_count"}[step]

    def on_turn(_: str, measured: Mapping[str, Any], metadata: Mapping[str, Any]) -> None:
        if metadata.get(fact) or measured.get(fact):
            die()

    telemetry.attach("node-die", "oban.producer.stop", on_turn)


if __name__ == "__main__":
    options = json.loads(sys.argv[3])
    step = options.pop("die", None)
    sys.argv[3] = json.dumps(options)
    if step in ("claimed", "written"):
        die_after(step)
    elif step is not None:
        for engine in (PostgresEngine, SqliteEngine):
            die_in(engine, step)
    main()

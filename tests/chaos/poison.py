"""Workers that no node deserves."""

import math
import os
import signal
import sys

from oban_actors import Job, worker
from tests.chaos.node import PAUSE, ran

BLOCK = 256 * 2**20
MEGABYTE = 2**20


def patience(job: Job) -> float:
    """Give a job that hangs a second, and others what a slow machine may need."""
    return 1.0 if job.args["how"] == "hangs" else 60.0


@worker(name="chaos.poison", queue="poison", timeout=patience, max_attempts=1)
def poison(job: Job) -> object:
    """Do what its args say, to whichever process runs it."""
    ran(job)
    match job.args["how"]:
        case "dies":
            os.kill(os.getpid(), signal.SIGKILL)
        case "eats":
            eaten = []
            while True:
                # Untouched, so that it costs the machine nothing.
                eaten.append(bytes(BLOCK))
        case "hangs":
            PAUSE.wait()
        case "prints":
            for _ in range(job.args["megabytes"]):
                sys.stdout.write("x" * MEGABYTE)
        case "returns":
            circle: list[object] = [math.nan, b"\xff", object(), "\ud800", lambda: None]
            circle.append(circle)
            return circle
    return None


@worker(name="chaos.deadly", queue="alpha", max_attempts=2)
def deadly(job: Job) -> None:
    """Kill the node itself."""
    ran(job)
    os.kill(os.getpid(), signal.SIGKILL)
    PAUSE.wait()

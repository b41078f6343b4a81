"""Poison: jobs that kill their process, eat memory, never return, print and return too much."""

from typing import Any

from oban_actors import Job
from tests.chaos.cases import case
from tests.chaos.scene import BOUND, LIMIT, Scene
from tests.support.waiting import wait_until

HOWS = {
    "dies": "was killed by SIGKILL",
    "eats": "MemoryError",
    "hangs": "timed out after 1 s",
    "prints": None,
    "returns": None,
}
"""What a poison does, and the error that its row then has."""

QUEUES = {"alpha": LIMIT, "poison": {"limit": 2, "executor": "processes"}}
NODES = 2
ADDRESS_SPACE = 4 * 2**30
POISON: dict[str, Any] = {"imports": ["tests.chaos.poison"]}


@case(
    "poison-process",
    "jobs in processes that kill theirs, eat memory, never return, print a gigabyte, return what "
    "JSON can't hold",
    options=POISON | {"queues": QUEUES, "address_space": ADDRESS_SPACE},
)
def poison_process(scene: Scene) -> None:
    """Each is its own job's failure, and no other job's."""
    for _ in scene.rounds(5):
        with scene.strike():
            ids = {how: insert(scene, _poison(how, scene)) for how in HOWS}
            for how, error in HOWS.items():
                ended(scene, ids[how], "discarded" if error else "completed")
                found = scene.oban.get_job(ids[how])
                if error:
                    assert error in found.errors[-1]["error"], found.errors
    scene.quotes.extend(f"{error}, in the job's errors" for error in HOWS.values() if error)


def _poison(how: str, scene: Scene) -> Job:
    args = {"how": how, "megabytes": 1_000 if scene.long else 50}
    return Job.new(args, worker="chaos.poison", queue="poison", max_attempts=1)


def insert(scene: Scene, job: Job) -> int:
    """Insert a job, and give its id."""
    made = scene.oban.insert(job).id
    assert made is not None
    return made


def ended(scene: Scene, job_id: int, state: str) -> None:
    """Wait until a job has ended in that state."""
    wait_until(lambda: scene.oban.get_job(job_id).state == state, 90, f"job {job_id} is {state}")


@case(
    "poison-thread",
    "a job in a thread that never returns",
    told=(r"job \d+ \(chaos.poison\) is out of time and goes on; its thread hangs in",),
    options=POISON,
)
def poison_thread(scene: Scene) -> None:
    """It is stuck and has its error; the slot is given again."""
    with scene.strike():
        for _ in range(3):
            job = Job.new({"how": "hangs"}, worker="chaos.poison", queue="alpha", max_attempts=1)
            made = insert(scene, job)
            wait_until(lambda made=made: scene.oban.get_job(made).errors, 60)  # type: ignore[misc]  # bound now


@case(
    "poison-node",
    "a job that kills every node that runs it",
    told=(r"is gone: \d+ of its jobs are available again", r"is gone: \d+ .* 1 are discarded"),
    again=lambda scene: 2 * BOUND * scene.strikes,
    options=POISON,
)
def poison_node(scene: Scene) -> None:
    """It does so as often as it has attempts, and is discarded then."""
    for _ in scene.rounds(3):
        with scene.strike():
            job = Job.new({}, worker="chaos.deadly", queue="alpha", max_attempts=2)

            def discarded(made: int = insert(scene, job)) -> bool:
                if len(scene.living) < NODES:
                    scene.start()
                return scene.oban.get_job(made).state == "discarded"

            wait_until(discarded, 90, "it is discarded")

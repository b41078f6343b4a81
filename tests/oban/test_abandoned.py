"""A tree that was killed and whose thread comes free late: it takes nothing from its successor."""

import asyncio
import threading
from typing import Any

import pytest

from oban_actors import Job, Oban, worker
from oban_actors.actors import RestartChild, Root, Supervisor, TerminateChild
from oban_actors.actors.process import Process, process_of
from oban_actors.instance import Instance
from oban_actors.repo import Repo
from tests.actors.lab import Gate
from tests.support.instances import Starter, scheduled, wait_until_leader
from tests.support.leaks import no_leaked_threads
from tests.support.waiting import wait_until

SHORT = 0.05
"""Seconds that a tree has to end in which no thread can keep."""


@worker(name="tests.abandoned.Quick")
async def quick(_job: Job) -> None:
    """Have the event loop begin."""
    await asyncio.sleep(0)


def test_jobs_that_do_not_end_cost_the_successor_nothing(start_oban: Starter) -> None:
    """Each of several queues keeps the old root from its end; a job that is due later is staged."""
    over = threading.Event()
    began = threading.Semaphore(0)

    @worker(name="tests.abandoned.Endless")
    def endless(_job: Job) -> None:
        began.release()
        over.wait(60)

    queues = ("beta", "gamma", "delta", "epsilon")
    oban = start_oban.make(queues=dict.fromkeys(queues, 1))
    try:
        with Supervisor.start([oban.child_spec(shutdown=SHORT)]) as root:
            for queue in queues:
                oban.insert(endless.new({}, queue=queue))
            for _ in queues:
                assert began.acquire(timeout=30)
            old = root_of(oban)

            restart(root)
            ended(old)

            serves(start_oban, oban)
            over.set()
            wait_until(lambda: start_oban.tables.count("completed") == len(queues))
    finally:
        over.set()


@pytest.mark.parametrize("shutdown", [0, SHORT])
def test_an_async_job_that_a_killed_tree_ends_has_not_failed(
    start_oban: Starter, shutdown: float
) -> None:
    """The event loop ends with its tree, and the successor runs the job again."""
    runs = threading.Semaphore(0)
    again = threading.Event()

    @worker(name="tests.abandoned.Waits")
    async def waits(_job: Job) -> None:
        runs.release()
        if not again.is_set():
            await asyncio.Event().wait()

    oban = start_oban.make(queues={"beta": 1}, pulse={"interval": 1.0})
    with Supervisor.start([oban.child_spec(shutdown=shutdown)]) as root:
        job = oban.insert(waits.new({}, queue="beta"))
        assert runs.acquire(timeout=30)
        again.set()

        restart(root)

        wait_until(lambda: start_oban.tables.states()[job.id or 0] == "completed")
        found = oban.get_job(job.id or 0)
        assert found is not None
        assert not found.errors


@pytest.mark.parametrize("moment", ["before", "during", "after"])
def test_a_root_that_comes_free(
    start_oban: Starter, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """Be it before its successor starts, meanwhile, or later: all that is shared stays open."""
    oban = start_oban.make()
    with Supervisor.start([oban.child_spec(shutdown=SHORT)]) as root:
        wait_until_leader(oban)
        old, gate = hung(oban, monkeypatch)
        root.ref.ask(TerminateChild("Oban"), timeout=60)
        assert old.abandoned

        def let_go() -> None:
            gate.open()
            ended(old)

        if moment == "before":
            let_go()
        if moment == "during":
            verify = Repo.verify

            def meanwhile(self: Repo) -> Any:
                if self is oban.repo:
                    let_go()
                return verify(self)

            monkeypatch.setattr(Repo, "verify", meanwhile)
        root.ref.ask(RestartChild("Oban"), timeout=60)
        let_go()

        serves(start_oban, oban)


@pytest.mark.parametrize("comes_free", [True, False])
def test_a_root_without_a_successor_leaves_nothing(
    start_oban: Starter, monkeypatch: pytest.MonkeyPatch, *, comes_free: bool
) -> None:
    """Whoever kills it closes for it: no thread, no event loop and no connection stays."""
    oban = start_oban.make(queues={"beta": 1})
    with no_leaked_threads():
        with Supervisor.start([oban.child_spec(shutdown=SHORT)]) as root:
            wait_until_leader(oban)
            oban.insert(quick.new({}, queue="beta"))
            wait_until(lambda: start_oban.tables.count("completed") == 1)
            old, gate = hung(oban, monkeypatch)
            if comes_free:
                kill = Instance.on_kill

                def free(self: Instance) -> None:
                    gate.open()
                    kill(self)

                monkeypatch.setattr(Instance, "on_kill", free)
            root.ref.ask(TerminateChild("Oban"), timeout=60)

            pool: Any = oban.repo.engine.pool
            wait_until(lambda: oban._runtime.timers._closed and not pool.checkedin())
            wait_until(lambda: not loops(oban))
        gate.open()
        ended(old)


def test_a_root_that_is_killed_over_a_message_leaves_nothing(
    start_oban: Starter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its own end never comes to closing."""
    oban, gate = start_oban.make(queues={"beta": 1}), Gate()
    with no_leaked_threads():
        with Supervisor.start([oban.child_spec(shutdown=0)]) as root:
            oban.insert(quick.new({}, queue="beta"))
            wait_until(lambda: start_oban.tables.count("completed") == 1)
            old = root_of(oban)
            monkeypatch.setattr(Instance, "handle_info", gate)
            oban.tell("oban", "anything")
            gate.wait()

            root.ref.ask(TerminateChild("Oban"), timeout=60)

            assert old.abandoned
            assert oban._runtime.timers._closed
            wait_until(lambda: not loops(oban))
        gate.open()
        ended(old)


def hung(oban: Oban, monkeypatch: pytest.MonkeyPatch) -> tuple[Process, Gate]:
    """Let the root that runs now hang as it begins to end, until the gate is opened."""
    old, gate = root_of(oban), Gate()
    drain = Instance._beat_until_drained

    def hang(self: Instance) -> None:
        if self.actor_ref is old.ref:
            gate()
        drain(self)

    monkeypatch.setattr(Instance, "_beat_until_drained", hang)
    return old, gate


def root_of(oban: Oban) -> Process:
    """Give the root that runs now."""
    return process_of(oban.whereis("oban"))


def restart(root: Root) -> None:
    """End the tree by force, and start it again."""
    root.ref.ask(TerminateChild("Oban"), timeout=60)
    root.ref.ask(RestartChild("Oban"), timeout=60)


def ended(old: Process) -> None:
    """Wait until a root's thread has done all that it does."""
    assert old.thread is not None
    old.thread.join(60)
    assert not old.thread.is_alive()


def loops(oban: Oban) -> list[threading.Thread]:
    """List the threads of the instance's event loop."""
    name = f"oban-{oban.config.name}-loop"
    return [each for each in threading.enumerate() if each.name == name and each.is_alive()]


def serves(start_oban: Starter, oban: Oban) -> None:
    """Check that a job is staged that is due only later, by a timer."""
    wait_until_leader(oban)
    job = oban.insert(scheduled(0.5))
    wait_until(lambda: start_oban.tables.states()[job.id or 0] == "available")
    assert oban.alive

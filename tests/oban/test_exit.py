"""The exit of an interpreter whose host stops nothing: the tree ends in order, in its own time."""

import textwrap

from oban_actors import Oban
from oban_actors.actors import Supervisor
from oban_actors.actors.process import process_of
from oban_actors.actors.root import exit_time
from oban_actors.instance import STOP_TIME
from tests.oban.test_host import PROLOGUE, run_program
from tests.support.databases import Database
from tests.support.instances import Tables


def test_jobs_have_their_grace_period(sqlite: Database) -> None:
    """Those that run may end in it, however little trees of others get."""
    done = run_program(
        PROLOGUE
        + textwrap.dedent("""
        from oban_actors import worker
        from oban_actors.actors import root
        root.EXIT_TIMEOUT = 0.0
        begun, over = threading.Event(), threading.Event()
        @worker(name="outlasting", queue="alpha")
        def outlasting(job):
            begun.set()
            while not oban.check_queue("alpha").shutting_down: over.wait(0.01)
        oban.start()
        oban.start_queue("alpha", limit=1, local_only=True)
        oban.insert(outlasting.new())
        assert begun.wait(30)
        """),
        sqlite.url,
    )

    assert (done.returncode, done.stderr) == (0, "")
    assert Tables(sqlite).states() == {1: "completed"}


def test_jobs_in_processes_have_it_too(sqlite: Database) -> None:
    """Their processes end after the tree, which tells them to end and has what they come to."""
    done = run_program(
        """
        import sys, threading
        from pathlib import Path
        from oban_actors import Oban
        from oban_actors.queues import watchman
        from tests.workers import jobs
        watchman.CANCEL_TIME = 30.0
        queues = {"alpha": {"limit": 1, "executor": "processes"}}
        oban = Oban(sys.argv[1], queues=queues, shutdown_grace_period=0.2)
        oban.migrate()
        oban.start()
        file = Path(sys.argv[1].removeprefix("sqlite:///") + ".begun")
        oban.insert(jobs.plain.new({"do": "wait", "file": str(file)}, queue="alpha"))
        while not file.exists(): threading.Event().wait(0.01)
        """,
        sqlite.url,
    )

    assert (done.returncode, done.stderr) == (0, "")
    assert Tables(sqlite).states() == {1: "completed"}


def test_all_instances_of_a_hosts_tree(sqlite: Database) -> None:
    """They end one after the other, so their times are added."""
    obans = [Oban(sqlite.url, name=name, shutdown_grace_period=120) for name in "ab"]
    obans[0].migrate()
    with Supervisor.start([oban.child_spec() for oban in obans]) as root:
        assert exit_time(process_of(root.ref)) == 2 * (120 + STOP_TIME)

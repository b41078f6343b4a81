"""What the harness starts leaves nothing behind: no process, no file and no shared memory."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.keeper import processes_in
from tests.support.postgres import PostgresServer
from tests.support.scratch import ROOT, Scratch, reachable, unprivileged
from tests.support.waiting import wait_until

TEST_RUN = """
import os
from pathlib import Path
from threading import Event

from oban_actors import Oban
from tests.support.nodes import Node
from tests.support.waiting import wait_until

def test_waits(own_server, sqlite, tmp_path):
    Oban(sqlite.url).migrate()
    node = Node(sqlite, {})
    wait_until(node.began, 60)
    assert node.process.poll() is None
    told = f"{node.process.pid}\\n{own_server.directory}\\n{tmp_path}"
    Path(os.environ["TOLD"]).write_text(told)
    Event().wait()
"""
SERVER_RUN = """
import os
from tests.support.postgres import PostgresServer

with PostgresServer() as server:
    print(os.geteuid(), server.running, server.directory)
"""


def test_closing_leaves_nothing() -> None:
    """No process, file or shared memory is left, even of a killed server; twice is fine."""
    server = PostgresServer()
    server.start()
    segment = _segment(server)
    server.kill()
    assert segment in _segments()

    server.close()
    server.close()

    _assert_gone(server.directory)
    assert segment not in _segments()


def test_server_runs_for_an_unprivileged_user() -> None:
    """Who is not root can run one too."""
    user, group = unprivileged()
    python = _interpreter_for_all()

    run = subprocess.run(
        [python, "-c", SERVER_RUN],
        check=True,
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path[1:]])},
        user=user if os.geteuid() == 0 else None,
        group=group if os.geteuid() == 0 else None,
        extra_groups=[] if os.geteuid() == 0 else None,
    )

    identity, running, directory = run.stdout.split()
    assert (identity, running) == (str(user), "True")
    _assert_gone(Path(directory))


@pytest.mark.slow
@pytest.mark.parametrize(
    "number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=lambda number: number.name
)
def test_interrupted_run_leaves_nothing(number: signal.Signals, tmp_path: Path) -> None:
    """A test run that is interrupted, ended or killed takes all of its programs and files along."""
    program, told = tmp_path / "test_waits.py", tmp_path / "told"
    program.write_text(TEST_RUN)
    command = [sys.executable, "-m", "pytest", "-p", "tests.conftest", "-p", "no:cacheprovider"]
    run = subprocess.Popen(
        [*command, "-c", ROOT / "pyproject.toml", program],
        cwd=ROOT,
        env=os.environ | {"TOLD": str(told)},
        stdout=subprocess.DEVNULL,
    )
    try:
        # It makes a server's data first, and may share the machine with many.
        wait_until(
            lambda: told.exists() and told.read_text().count("\n") == 2,
            100,
            message="the run has its server",
        )
        node, *lines = told.read_text().splitlines()
        directories = [Path(line) for line in lines]

        run.send_signal(number)

        assert run.wait(timeout=60) != 0
    finally:
        # It would wait for ever, and its server with it.
        run.kill()
        run.wait()
    for directory in directories:
        _assert_gone(directory)
    wait_until(lambda: not _runs(node), 30, message="the node is gone")


def _runs(pid: str) -> bool:
    try:
        stat = Path("/proc", pid, "stat").read_text()
    except FileNotFoundError:
        return False
    # Whoever is to know of its end may take its time.
    return stat.rpartition(")")[2].split()[0] != "Z"


def test_scratch_is_removed_with_all_in_it() -> None:
    """A program that works in it, and ignores being asked to end, is ended."""
    with Scratch() as scratch:
        ignore = (
            "import signal as s; s.signal(s.SIGTERM, s.SIG_IGN); print(1, flush=True); s.pause()"
        )
        worker = subprocess.Popen(
            [sys.executable, "-c", ignore], cwd=scratch.path, stdout=subprocess.PIPE
        )
        with worker:
            assert worker.stdout is not None
            worker.stdout.readline()
            assert scratch.signal(signal.SIGTERM) == 1

            scratch.close()

            assert worker.wait(timeout=30) == -signal.SIGKILL
    _assert_gone(scratch.path)


def _segment(server: PostgresServer) -> str:
    return (server.directory / "data" / "postmaster.pid").read_text().splitlines()[6].split()[1]


def _segments() -> set[str]:
    rows = Path("/proc/sysvipc/shm").read_text().splitlines()[1:]
    return {row.split()[1] for row in rows}


def _assert_gone(directory: Path) -> None:
    wait_until(lambda: not directory.exists(), message=f"{directory} is gone")
    account = unprivileged()
    wait_until(lambda: not processes_in(directory, account), message=f"none is in {directory}")


def _interpreter_for_all() -> str:
    if os.geteuid() != 0:
        return sys.executable
    for python in (sys.executable, "/usr/bin/python3"):
        if all(map(reachable, (Path(python).resolve(), Path(sys.prefix), ROOT))):
            return python
    pytest.skip("no interpreter here that other users than root may run")

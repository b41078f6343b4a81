"""The examples, run as a user runs them."""

import os
import pty
import re
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from oban_actors.actors import SYSTEM_CLOCK
from tests.support.databases import new_database
from tests.support.postgres import Server

ROOT = Path(__file__).resolve().parent.parent
TIMEOUT = 120.0


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A few files of several types, a hidden one and a link among them."""
    place = tmp_path / "files"
    (place / "deep").mkdir(parents=True)
    (place / ".hidden").mkdir()
    for name in ("a.py", "b.py", "deep/c.md", "README", ".hidden/d.py"):
        (place / name).write_text(name)
    (place / "link.py").symlink_to(place / "a.py")
    return place


@pytest.fixture
def temporary(tmp_path: Path) -> Path:
    """Where the examples put their database; must be empty afterwards."""
    place = tmp_path / "tmp"
    place.mkdir()
    return place


@pytest.fixture
def pg_own_url(postgres_server: Server) -> Iterator[str]:
    """Address of an empty database."""
    with new_database(postgres_server) as name:
        yield postgres_server.url(name)


def _command(module: str, *arguments: object) -> list[str]:
    return [sys.executable, "-m", f"examples.{module}", *map(str, arguments)]


def _environment(temporary: Path) -> dict[str, str]:
    return os.environ | {"TMPDIR": str(temporary), "TERM": "xterm-256color", "COLUMNS": "100"}


def _run(
    module: str, *arguments: object, temporary: Path, cwd: Path = ROOT
) -> subprocess.CompletedProcess[str]:
    return _finished(_command(module, *arguments), temporary, cwd)


def _finished(
    command: list[str], temporary: Path, cwd: Path = ROOT
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        cwd=cwd,
        env=_environment(temporary),
        capture_output=True,
        text=True,
        check=False,
        timeout=TIMEOUT,
    )


def test_the_demo_runs_a_job_for_each_file(folder: Path, temporary: Path) -> None:
    """Without a terminal: every end is met, one of each special kind, lines, and 0 at the end."""
    done = _run("demo", folder, temporary=temporary)

    assert done.returncode == 0, done.stdout + done.stderr
    assert "4 files" in done.stdout
    assert "├─ stager" in done.stdout or "└─ stager" in done.stdout
    ends = "1 cancelled, 1 failure, 1 snoozed, 3 success"
    assert f"OK: 4 jobs met the end they should ({ends}" in done.stdout
    assert "passes), and 3 checksums are right" in done.stdout
    for late in ("available", "begin"):
        said = rf"^late to (be )?{late}: p50 \d+\.\d ms  p99 \d+\.\d ms  max \d+\.\d ms$"
        assert re.search(said, done.stdout, re.MULTILINE)
    assert done.stderr == ""
    assert list(temporary.iterdir()) == []


def test_the_demo_survives_a_crash(folder: Path, temporary: Path) -> None:
    """The Stager that was crashed is restarted, and every job meets its end."""
    done = _run("demo", folder, "--crash", temporary=temporary)

    assert done.returncode == 0, done.stdout + done.stderr
    assert "restarted 1x" in done.stdout


def test_the_demo_fails_when_a_job_has_not_ended_in_time(folder: Path, temporary: Path) -> None:
    """Given up before the last job is due, it says how many are missing and does not end with 0."""
    done = _run("demo", folder, "--grace=-2.5", temporary=temporary)

    assert done.returncode == 1, done.stdout + done.stderr
    assert "FAILED: " in done.stdout
    assert list(temporary.iterdir()) == []


GONE = """
import sys
from examples import demo

jobs_for = demo.jobs_for


def losing(folder, files):
    jobs = jobs_for(folder, files)
    (folder / files[-1].path).unlink()
    return jobs


demo.jobs_for = losing
sys.exit(demo.main(sys.argv[1:]))
"""


def test_the_demo_fails_when_a_job_meets_another_end(folder: Path, temporary: Path) -> None:
    """A file that is gone before its job runs: all have ended in time, but that one discarded."""
    done = _finished([sys.executable, "-c", GONE, str(folder), "--plain"], temporary)

    assert done.returncode == 1, done.stdout + done.stderr
    assert "failed for good" in done.stdout
    assert "FAILED: 1 of 4 jobs did not meet the end they should in time, 0 ended" in done.stdout


BLIND = """
import sys
from examples import demo, demo_work

spec = demo_work.checksum.spec
call = spec.call


def blind(job):
    found = call(job)
    return None if isinstance(found, str) else found


object.__setattr__(spec, "call", blind)
sys.exit(demo.main(sys.argv[1:]))
"""


def test_the_demo_fails_when_a_checksum_is_wrong(folder: Path, temporary: Path) -> None:
    """Every job meets the end that it should, but its worker gave no checksum."""
    done = _finished([sys.executable, "-c", BLIND, str(folder), "--plain"], temporary)

    assert done.returncode == 1, done.stdout + done.stderr
    assert "FAILED: 0 of 4 jobs did not meet the end they should in time, 0 ended" in done.stdout
    assert "3 gave a wrong checksum" in done.stdout


def test_the_demo_refuses_a_folder_without_files(tmp_path: Path, temporary: Path) -> None:
    """There is nothing to show."""
    (tmp_path / "empty").mkdir()

    done = _run("demo", tmp_path / "empty", temporary=temporary)

    assert done.returncode == 2
    assert "there are no files" in done.stderr


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM], ids=lambda how: how.name)
def test_the_demo_leaves_nothing_behind_when_it_is_interrupted(
    folder: Path, temporary: Path, how: signal.Signals
) -> None:
    """Ctrl-C and SIGTERM end it in order, its database gone."""
    with subprocess.Popen(
        _command("demo", folder),
        cwd=ROOT,
        env=_environment(temporary),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as demo:
        assert demo.stdout is not None
        while "scheduled" not in demo.stdout.readline():
            assert demo.poll() is None
        demo.send_signal(how)
        out, err = demo.communicate(timeout=TIMEOUT)

    assert demo.returncode == {signal.SIGINT: 130, signal.SIGTERM: 143}[how], out + err
    assert "Traceback" not in err
    assert list(temporary.iterdir()) == []


def test_the_demo_draws_on_a_terminal(folder: Path, temporary: Path) -> None:
    """On a terminal it shows tree, queues and lateness, and redraws them."""
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        _command("demo", folder),
        cwd=ROOT,
        env=_environment(temporary) | {"LINES": "30"},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    ) as demo:
        os.close(theirs)
        shown = _read_all(ours)
        demo.wait(TIMEOUT)
    os.close(ours)

    assert demo.returncode == 0, shown
    for part in ("stager", "producer", "idle", "done", "p99", "OK: 4 jobs"):
        assert part in shown
    assert "\x1b[2K" in shown


def _read_all(terminal: int) -> str:
    """Read what a program writes on its terminal until it ends."""
    data, end = b"", SYSTEM_CLOCK.monotonic() + TIMEOUT
    while SYSTEM_CLOCK.monotonic() < end:
        if not select.select([terminal], [], [], 1.0)[0]:
            continue
        try:
            more = os.read(terminal, 65536)
        except OSError:  # so a terminal says on Linux that nobody is left at its other side
            break
        if not more:
            break
        data += more
    return data.decode("utf-8", "replace")


def test_the_host_with_an_actor_of_its_own(temporary: Path) -> None:
    """Its actor schedules jobs, stands beside Oban in the tree, and ends before it."""
    done = _run("host_supervisor", temporary=temporary)

    assert done.returncode == 0, done.stdout + done.stderr
    assert "week 47 is job 2" in done.stdout
    assert "├─ Oban" in done.stdout
    assert "└─ reports" in done.stdout
    assert "ends after 2 orders, shutdown" in done.stdout
    assert list(temporary.iterdir()) == []


def test_the_actor_that_listens(temporary: Path) -> None:
    """It hears of the queue whose job became available."""
    done = _run("listening", temporary=temporary)

    assert done.returncode == 0, done.stdout + done.stderr
    assert "queue mailers has work" in done.stdout
    assert "job 1 is available" in done.stdout
    assert list(temporary.iterdir()) == []


def test_the_plugin_of_the_hosts(temporary: Path) -> None:
    """One class, asked for a run, says what it found."""
    done = _run("own_plugin", temporary=temporary)

    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout == "{'waiting': {'mailers': 3}}\n"
    assert list(temporary.iterdir()) == []


def test_the_executor_of_the_hosts(temporary: Path) -> None:
    """Its processes run the jobs, and what they came to is told."""
    done = _run("foreign_executor", temporary=temporary)

    assert done.returncode == 0, done.stdout + done.stderr
    assert " 1229 primes below 10000\n" in done.stdout
    assert len(done.stdout.splitlines()) == 20
    assert [left for left in temporary.iterdir() if left.name.startswith("oban-")] == []


@pytest.mark.parametrize("module", ["host_supervisor", "listening", "own_plugin"])
def test_the_examples_take_an_address(module: str, pg_own_url: str, temporary: Path) -> None:
    """Both run on PostgreSQL too."""
    done = _run(module, pg_own_url, temporary=temporary)

    assert done.returncode == 0, done.stdout + done.stderr

"""The option `imports`: modules whose workers are there before the first job runs."""

import asyncio
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from oban_actors import ConfigError, Job
from oban_actors.worker_registry import registered
from tests.queues.work import Work, wait_state
from tests.support.instances import Starter

MODULE = """
from oban_actors import worker

@worker(name="tests.imported", queue="alpha")
def imported(job):
    return None
"""


def test_workers_of_modules_that_are_named(
    start_oban: Starter, work: Work, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A row's name imports nothing; the option does, as the tree starts and not before."""
    module = f"imported_{start_oban.database.kind}"
    (tmp_path / f"{module}.py").write_text(MODULE.replace("tests.imported", f"tests.{module}"))
    monkeypatch.syspath_prepend(str(tmp_path))
    oban = start_oban.make(queues={"alpha": 1}, imports=[module])
    assert f"tests.{module}" not in registered()
    one = oban.insert(Job.new(worker=f"tests.{module}", queue="alpha"))
    oban.start()

    wait_state(oban, one, "completed")
    assert module in sys.modules


APP = """
from oban_actors import Oban

db = object()
oban = Oban("sqlite:///{file}", imports=["app_workers"], queues={{"alpha": 1}})
oban.migrate()
oban.start()
print("started", flush=True)
oban.stop()
"""


def test_a_module_that_leads_back_to_the_one_that_starts(tmp_path: Path) -> None:
    """As where a web server imports the program, and the program starts its tree meanwhile."""
    (tmp_path / "app.py").write_text(APP.format(file=tmp_path / "jobs.db"))
    (tmp_path / "app_workers.py").write_text("from app import db\n")
    done = subprocess.run(
        [sys.executable, "-c", "import app"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )

    assert (done.returncode, done.stderr, done.stdout) == (0, "", "started\n")


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
def test_a_start_that_is_cancelled_leaves_nothing(
    start_oban: Starter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its thread starts the tree all the same, which then is stopped."""
    begun, go_on = threading.Event(), threading.Event()
    oban = start_oban.make(queues={"alpha": 1})
    verify = oban.repo.verify

    def slow() -> Any:
        begun.set()
        go_on.wait(60)
        return verify()

    monkeypatch.setattr(oban.repo, "verify", slow)

    async def main() -> None:
        starting = asyncio.ensure_future(oban.__aenter__())
        await asyncio.to_thread(begun.wait, 60)
        starting.cancel()
        await asyncio.sleep(0)
        go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await starting

    asyncio.run(main())
    assert not oban.alive


def test_a_module_that_is_not_there(start_oban: Starter) -> None:
    """The tree does not start without it, and says which one it is, and who has named it."""
    oban = start_oban.make(queues={"alpha": 1}, imports=["tests.queues.nowhere"])
    said = r"imports: module 'tests\.queues\.nowhere' can't be imported: .*No module named"

    for start in (oban.start, oban.child_spec):
        with pytest.raises(ConfigError, match=said) as caught:
            start()
        assert isinstance(caught.value.__cause__, ModuleNotFoundError)
    assert not oban.alive

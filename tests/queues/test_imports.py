"""The option `imports`: modules whose workers are there before the first job runs."""

import sys
from pathlib import Path

import pytest

from oban_actors import Job
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


def test_a_module_that_is_not_there(start_oban: Starter) -> None:
    """The tree does not start without it, and says which one it is."""
    oban = start_oban.make(queues={"alpha": 1}, imports=["tests.queues.nowhere"])

    with pytest.raises(ModuleNotFoundError, match=r"tests\.queues\.nowhere"):
        oban.start()
    assert not oban.alive

"""What stands in a row, a notification or an answer of a process is data: nothing of it is run."""

import ast
import io
import json
import pickle
import sys
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta, timezone
from functools import cache
from pathlib import Path
from typing import Any

import pytest

import oban_actors
from oban_actors import Job, worker
from oban_actors.claim import Claim
from oban_actors.queues.remote import payload, perform_here
from oban_actors.running import Running
from oban_actors.tracing import performing
from oban_actors.worker import registered
from oban_actors.worker_registry import forget
from tests.queues.work import wait_state
from tests.support.instances import Starter
from tests.workers.running import claimed, performer

PACKAGE = Path(oban_actors.__file__).parent

IMPORTS = {
    "queues/remote.py": "the module of a registered worker, in a process of ours",
    "settings/plugins.py": "plugins that the host's own settings name",
    "tracing.py": "the function that the attached tracer names, in a process of ours",
    "worker_registry.py": "the option imports, as the host gave it",
}
"""Where modules are imported by a name that is a value, and whose value that is."""

PROCESSES = {"queues/process_child.py", "queues/process_slot.py"}
"""Where `multiprocessing` is: its pipes pickle, between a process and the ones that it started."""

LOOKED_AT = (ast.Attribute, ast.Import, ast.ImportFrom, ast.Name, ast.alias, ast.keyword)

UNSAFE_CALLS = {"eval", "exec", "compile", "__import__", "execfile", "breakpoint"}
UNSAFE_MODULES = {
    *("pickle", "_pickle", "cPickle", "cloudpickle", "dill", "jsonpickle", "marshal", "shelve"),
    *("code", "codeop", "imp", "runpy", "pty", "yaml", "xmlrpc", "copyreg"),
}
UNSAFE_ATTRIBUTES = {
    ("os", "system"),
    ("os", "popen"),
    ("subprocess", "getoutput"),
    ("connection", "Listener"),
    ("connection", "Client"),
}


@cache
def nodes() -> list[tuple[str, ast.AST]]:
    """Give what matters here of all of the package's code."""
    return [
        (str(path.relative_to(PACKAGE)), node)
        for path in sorted(PACKAGE.rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, LOOKED_AT)
    ]


def modules_of(node: ast.AST) -> list[str]:
    """Name the modules that a statement imports."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        return [node.module or ""]
    return []


def test_no_code_is_made_of_data() -> None:
    """Nothing unpickles, evaluates or runs a shell, wherever one looks in the package."""
    found = [
        (file, name)
        for file, node in nodes()
        for name in modules_of(node)
        if name.partition(".")[0] in UNSAFE_MODULES
    ]
    for file, node in nodes():
        if isinstance(node, ast.Name) and node.id in UNSAFE_CALLS:
            found.append((file, node.id))
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            found += [(file, node.attr)] * ((node.value.id, node.attr) in UNSAFE_ATTRIBUTES)
        if isinstance(node, ast.keyword) and node.arg == "shell":
            found.append((file, "shell="))

    assert found == []


def test_where_modules_are_imported_by_name() -> None:
    """In the places that are known, each for a name of the host's own."""
    found = {
        file
        for file, node in nodes()
        if (isinstance(node, ast.Attribute) and node.attr in ("import_module", "find_spec"))
        or (isinstance(node, ast.Name) and node.id in ("import_module", "find_spec"))
        or (isinstance(node, ast.alias) and node.name in ("import_module", "find_spec", "pkgutil"))
    }

    assert found == set(IMPORTS)


def test_where_processes_talk_by_pickle() -> None:
    """In the two files that are known."""
    found = {
        file
        for file, node in nodes()
        for name in modules_of(node)
        if name.split(".")[0] == "multiprocessing"
    }

    assert found == PROCESSES


# What goes between processes


MOMENTS = {each.__name__: each for each in (datetime, timedelta, timezone)}


class Plain(pickle.Unpickler):
    """Reads what is plain data, and moments."""

    def find_class(self, module: str, name: str) -> Any:
        """Refuse all other classes and functions."""
        if module == "datetime" and name in MOMENTS:
            return MOMENTS[name]
        raise pickle.UnpicklingError(f"{module}.{name}")


def plain(value: object) -> Any:
    """Send a value as a pipe does, and read it as who takes only data."""
    return Plain(io.BytesIO(pickle.dumps(value))).load()


class Bomb:
    """A value that would run code where it is unpickled."""

    def __reduce__(self) -> Any:
        """Say what."""
        return (sys.exit, ("unpickled",))

    def __repr__(self) -> str:
        return "a bomb"


@pytest.fixture(autouse=True)
def _registry() -> Iterator[None]:
    """Forget what a test registered."""
    before = set(registered())
    yield
    for name in set(registered()) - before:
        forget(name)


def claim_of(job: Job) -> Claim:
    """Make a claim of a job that has been through much."""
    job.errors = [{"at": "x", "attempt": 1, "error": "y"}]
    return claimed(job)


def test_only_plain_data_goes_to_a_process() -> None:
    """A job's fields, as JSON has them, and moments; what a worker is, is a name."""
    job = Job.new({"a": [1, None, {"b": "c"}]}, worker="x", tags=["t"], meta={"m": 1.5})
    claim = claim_of(job)
    sent = ("run", "module", "name", payload(claim, performing(job), performer()))

    assert plain(sent) == sent


@pytest.mark.parametrize("how", ["return", "raise", "cancel", "nested"])
def test_only_plain_data_comes_back(how: str) -> None:
    """What a worker returns or raises is written as JSON or text before it leaves its process."""

    @worker(name="security.bomb")
    def bomb(job: Job) -> Any:
        if how == "raise":
            raise ValueError(Bomb())
        if how == "cancel":
            raise oban_actors.Cancel(Bomb())
        return Bomb() if how == "return" else {"in": [Bomb()]}

    claim = claim_of(bomb.new())
    outcome = perform_here(
        __name__, "security.bomb", payload(claim, performing(claim.job), performer()), Running()
    )

    assert plain(outcome) == outcome
    assert "a bomb" in json.dumps(outcome)


# What stands in rows


class Watch:
    """Notes what somebody tries to import."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def find_spec(self, name: str, _path: Sequence[str] | None, _target: Any = None) -> None:
        """Note it, and leave it to the others."""
        self.asked.append(name)


NAMES = (
    "security_never.module.function",
    "security_never:function",
    "Elixir.security_never.Worker",
    "os.system",
    "builtins.exec",
    "__import__('security_never')",
    "../security_never",
)


@pytest.mark.parametrize("executor", ["threads", "processes"])
def test_a_row_imports_nothing(
    start_oban: Starter, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, executor: str
) -> None:
    """A row that names a module that is there, by worker, meta or args, has it not imported."""
    (tmp_path / "security_never.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(str(tmp_path))
    watch = Watch()
    monkeypatch.setattr(sys, "meta_path", [watch, *sys.meta_path])
    oban = start_oban(queues={"alpha": {"limit": 4, "executor": executor}})
    says = dict.fromkeys(("module", "resume", "worker", "name", "__class__"), "security_never")
    jobs = oban.insert_all(
        [Job.new(says, worker=name, queue="alpha", meta=says, tags=[name]) for name in NAMES]
    )
    for job, name in zip(jobs, NAMES, strict=True):
        [error] = wait_state(oban, job, "retryable").errors
        assert f"unknown worker: {name.removeprefix('Elixir.')}" in error["error"]

    assert [name for name in watch.asked if "never" in name] == []
    assert "security_never" not in sys.modules

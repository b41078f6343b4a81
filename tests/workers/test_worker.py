"""Defining workers: names, options, and the jobs that `new` builds."""

import asyncio
import os
import pickle
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from oban_actors import ConfigError, InvalidJob, Job, JobState, Snooze, worker
from oban_actors.backoff import retry_delay
from oban_actors.worker import find_worker, registered
from tests.workers import jobs
from tests.workers.running import claimed, run

pytestmark = pytest.mark.usefixtures("registry")


def test_names_are_module_and_qualified_name() -> None:
    """Functions and classes alike, found by that name, also as Elixir writes it."""
    assert jobs.plain.spec.name == "tests.workers.jobs.plain"
    assert find_worker("tests.workers.jobs.PlainAsync").target is jobs.PlainAsync
    assert find_worker("Elixir.tests.workers.jobs.plain") is jobs.plain.spec
    assert find_worker("tests.workers.jobs.nobody") is None
    assert registered()["tests.workers.jobs.Plain"].kind == "sync"


def test_new_uses_the_declared_defaults() -> None:
    """What `worker` was told goes into each job; what `new` is told goes before it."""

    @worker(name="w", queue="mail", max_attempts=5, priority=2, tags=["A"], meta={"m": 1})
    def one(job: Job) -> None: ...

    job = one.new({"to": "a"})
    other = one.new(queue="other", schedule_in=60, tags=[])

    assert (job.worker, job.queue, job.max_attempts, job.priority) == ("w", "mail", 5, 2)
    assert (job.args, job.tags, job.meta, job.state) == ({"to": "a"}, ["a"], {"m": 1}, "available")
    assert (other.queue, other.tags, other.state) == ("other", [], JobState.SCHEDULED)


def test_defaults_that_are_given_once_are_kept() -> None:
    """What an iterator gives counts for each job, not only for the first that is built."""

    @worker(
        name="w",
        tags=iter(["a"]),
        unique={"fields": iter(["args"]), "keys": iter(["to"]), "states": iter(["available"])},
        replace={"scheduled": iter(["tags"])},
    )
    def one(job: Job) -> None: ...

    for made in (one.new(), one.new()):
        assert made.tags == ["a"]
        assert (made.unique.fields, made.unique.keys) == (("args",), ("to",))
        assert made.unique.states == ("available",)
        assert made.replace == {"scheduled": ("tags",)}


def test_unique_options_merge() -> None:
    """What `new` says of uniqueness replaces only what it names, as in Oban."""

    @worker(name="w", unique={"period": 60, "keys": ["to"]})
    def one(job: Job) -> None: ...

    unique = one.new(unique={"period": 90}).unique

    assert one.new().unique.period == 60
    assert (unique.period, list(unique.keys)) == (90, ["to"])


def test_a_function_is_called_as_before() -> None:
    """A decorated function keeps its name, its docstring, its result, and can be pickled."""
    assert jobs.plain(Job.new({"do": "value"}, worker="x")) == {"answer": 42}
    name = jobs.plain.__name__  # type: ignore[attr-defined]  # set at run time
    assert (name, jobs.plain.__doc__) == ("plain", "A sync function.")
    assert pickle.loads(pickle.dumps(jobs.plain)) is jobs.plain  # noqa: S301 (our own bytes)
    assert asyncio.run(jobs.plain_async(Job.new(worker="x"))) is None


def test_a_subclass_is_no_worker_by_itself() -> None:
    """A job built from it would run its base, so it is refused."""

    class Sub(jobs.PlainAsync): ...

    with pytest.raises(ConfigError, match=r"Sub is no worker: decorate it with @worker"):
        Sub.new()


def test_classes_get_new() -> None:
    """A class that derives from nothing has `new` as one that derives from Worker."""
    job: Job = jobs.Plain.new({"a": 1})  # type: ignore[attr-defined]  # for whom Worker is

    assert (job.worker, job.args) == ("tests.workers.jobs.Plain", {"a": 1})
    assert jobs.PlainAsync.new().queue == "media"


def test_aliases() -> None:
    """Jobs under a worker's former names still find it."""

    @worker(name="new", aliases=["old", "Elixir.Older"])
    def one(job: Job) -> None: ...

    assert find_worker("old") is find_worker("Older") is find_worker("new") is one.spec
    assert "old" not in registered()


def test_a_name_has_one_worker() -> None:
    """A second worker of a name, or alias, is refused with both places; nothing changes."""

    @worker(name="taken", aliases=["also"])
    def one(job: Job) -> None: ...

    for options in ({"name": "taken"}, {"name": "also"}, {"name": "x", "aliases": ["taken"]}):
        with pytest.raises(ConfigError, match=r"is taken by .*<locals>\.one: give another"):

            @worker(**options)
            def two(job: Job) -> None: ...

    assert find_worker("taken") is one.spec
    assert find_worker("x") is None


def test_reloading_replaces() -> None:
    """The same place under the same name is the same worker, as a reloaded module has it."""

    def define(attempts: int, *aliases: str) -> Any:
        @worker(name="again", max_attempts=attempts, aliases=aliases)
        def one(job: Job) -> None: ...

        return one

    define(1, "former")
    second = define(2)

    assert find_worker("again") is second.spec
    assert find_worker("former") is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_atempts": 3}, r"unknown option 'max_atempts' for worker, did you mean 'max_attem"),
        ({"max_attempts": 0}, r"worker 'w': invalid value for 'max_attempts': .*got: 0"),
        ({"queue": ""}, r"worker 'w': invalid value for 'queue': .*got: ''"),
        ({"priority": 10}, r"invalid value for 'priority': expected an integer from 0 to 9"),
        ({"tags": "mail"}, r"invalid value for 'tags': expected a list of strings"),
        ({"meta": {"a": object()}}, r"invalid value for 'meta.a': expected a JSON value"),
        ({"unique": {"perod": 3}}, r"worker 'w': .*perod"),
        ({"timeout": 0}, r"'timeout': expected a positive number of seconds, or a function of"),
        ({"timeout": "1"}, r"invalid value for 'timeout'"),
        ({"timeout": True}, r"invalid value for 'timeout'"),
        ({"backoff": -1}, r"'backoff': expected a number of seconds or a function of the job"),
        ({"name": " "}, r"invalid value for 'name'"),
        ({"name": "x" * 128}, r"invalid value for 'name'"),
        ({"aliases": "old"}, r"invalid value for 'aliases': expected a list of names"),
        ({"aliases": [1]}, r"invalid value for 'aliases.0'"),
    ],
)
def test_options_are_checked_at_definition(options: dict[str, Any], message: str) -> None:
    """A bad option is refused with its name, its value and what was expected."""
    with pytest.raises(ConfigError, match=message):

        @worker(**{"name": "w"} | options)
        def one(job: Job) -> None: ...

    assert find_worker("w") is None


def test_local_functions_need_a_name() -> None:
    """Their place does not tell them, so nothing could find them again."""
    with pytest.raises(ConfigError, match=r"defined within a function.*name="):

        @worker
        def one(job: Job) -> None: ...


def test_unknown_options_of_new_are_refused() -> None:
    """A misspelt option of a job does not silently count for nothing."""
    with pytest.raises(InvalidJob, match="did you mean 'schedule_in'"):
        jobs.plain.new(schedule_inn=3)  # type: ignore[call-arg]  # that is the point


class Custom:
    """A worker with its own times."""

    answer: Any = 5

    def perform(self, job: Job) -> None:
        """Fail."""
        raise ValueError

    def backoff(self, job: Job) -> Any:
        """Give what the test says."""
        return self._say(job)

    def timeout(self, job: Job) -> Any:
        """Give what the test says."""
        return self._say(job)

    def _say(self, job: Job) -> Any:
        match job.args["say"]:
            case "raise":
                raise OSError
            case "exit":
                sys.exit()
            case "delta":
                return timedelta(seconds=90)
            case "async":
                return jobs.plain_async(job)
            case other:
                return other


@pytest.mark.parametrize(
    ("say", "backoff", "limit"),
    [(7, 7.0, 7.0), ("delta", 90.0, 90.0), (0, 0.0, None), ("raise", None, None)]
    + [(bad, None, None) for bad in ("exit", "text", "async", -1, True, 1e300)],
)
def test_methods_decide_times(
    say: Any, backoff: float | None, limit: float | None, caplog: pytest.LogCaptureFixture
) -> None:
    """A method's time counts; what is none, or raises, falls back to the default and is logged."""
    worker(name="custom")(Custom)
    spec = find_worker("custom")
    job = Job.new({"say": say}, worker="custom")
    claim = run(claimed(job))

    delay = claim.ack.delay
    default = retry_delay(1, 20, rand=lambda: 0.0)
    if backoff is None:
        assert default <= delay <= default * 1.1
        assert "backoff of worker custom failed, so its default counts" in caplog.text
    else:
        assert delay == backoff
    assert spec.timeout_for(job) == limit
    assert ("timeout of worker custom failed" in caplog.text) == (limit is None)


def test_options_may_be_functions_or_timedeltas() -> None:
    """Functions get the job, and a timedelta counts as its seconds."""
    worker(name="a", timeout=timedelta(minutes=1), backoff=3)(lambda _job: None)
    worker(name="b", timeout=lambda job: job.attempt, backoff=lambda _job: 9)(lambda _job: None)
    job = claimed(Job.new(worker="b"), attempt=4).job

    assert (find_worker("a").timeout_for(job), find_worker("a").backoff_for(job)) == (60.0, 3)
    assert (find_worker("b").timeout_for(job), find_worker("b").backoff_for(job)) == (4.0, 9.0)


@pytest.mark.parametrize("seconds", [-1, float("nan"), float("inf"), "1", None, True, 1e300])
def test_snooze_takes_times_only(seconds: Any) -> None:
    """A Snooze for no time is refused where it is made, so it is a failure of the job."""
    with pytest.raises(ValueError, match="invalid value for 'seconds'"):
        Snooze(seconds)


_SCRIPT = """
from oban_actors import worker
from oban_actors.worker import registered

@worker{options}
def hello(job): ...

if __name__ == "__main__":
    print(*registered())
"""


@pytest.mark.parametrize(
    ("options", "arguments", "out"),
    [
        ("", ["-m", "app.script"], "app.script.hello"),
        ("(name='h')", ["app/script.py"], "h"),
        ("", ["app/script.py"], "give it a name by name="),
    ],
)
def test_workers_of_the_main_module(
    tmp_path: Path, options: str, arguments: list[str], out: str
) -> None:
    """A script's worker has the name that others import it by, or is told to take one."""
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "script.py").write_text(_SCRIPT.format(options=options))

    done = _python(arguments, tmp_path)

    assert out in done


def _python(arguments: list[str], place: Path) -> str:
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=place,
        env=os.environ | {"PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    return done.stdout + done.stderr

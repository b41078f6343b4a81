"""What tests of cron share: workers, instances on a virtual clock, and what is in the table."""

import json
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import pytest

from oban_actors import ActorError, Evaluate, Job, NoProcess, Oban, PluginResult, Worker, worker
from oban_actors.actors import VirtualClock
from oban_actors.plugins import Cron
from tests.support.events import Event
from tests.support.instances import Starter, Tables
from tests.support.waiting import wait_until

CRON = ("plugin", "cron")
QUIET: dict[str, Any] = {"notifier": "isolated", "stager": False}


@worker(name="tests.cron.report", queue="alpha", max_attempts=3, tags=["daily"])
def report(job: Job) -> None:
    """Do nothing."""


@worker(name="tests.cron.warm", queue="alpha")
class Warm:
    """Likewise."""

    def perform(self, job: Job) -> None:
        """Do nothing."""


@worker(name="tests.cron.only_one", queue="alpha", unique={"period": "infinity"})
def only_one(job: Job) -> None:
    """Likewise."""


@worker(name="tests.cron.alone", queue="alpha", unique={"period": "infinity", "fields": ["worker"]})
def alone(job: Job) -> None:
    """Likewise."""


@worker(name="tests.cron.moody", queue="alpha")
class Moody(Worker):
    """Builds no jobs while it is told not to."""

    fails = False

    @classmethod
    def new(cls, args: Any = None, **options: Any) -> Job:
        """Build one, or fail."""
        if cls.fails:
            raise LookupError("bad mood")
        return super().new(args, **options)

    def perform(self, job: Job) -> None:
        """Do nothing."""


@worker(name="tests.cron.replacing", queue="alpha", unique={"period": "infinity"})
class Replacing(Worker):
    """Has the meta of its jobs replaced in the one that is there."""

    @classmethod
    def new(cls, args: Any = None, **options: Any) -> Job:
        """Build one."""
        return super().new(args, replace=["meta"], **options)

    def perform(self, job: Job) -> None:
        """Do nothing."""


@worker(name="tests.cron.unstorable", queue="alpha")
class Unstorable(Worker):
    """Builds jobs by hand, which no table takes."""

    @classmethod
    def new(cls, args: Any = None, **options: Any) -> Job:
        """Build one."""
        job = super().new(args, **options)
        job.args = {"at": object()}
        return job

    def perform(self, job: Job) -> None:
        """Do nothing."""


class NoKey:
    """A codec whose key server is away."""

    def encode(self, args: dict[str, Any]) -> dict[str, Any]:
        """Raise."""
        raise ConnectionError("no key")

    def decode(self, args: dict[str, Any]) -> dict[str, Any]:
        """Raise."""
        raise ConnectionError("no key")


@worker(name="tests.cron.locked", queue="alpha", codec=NoKey())
def locked(job: Job) -> None:
    """Do nothing."""


EVERY_MINUTE = ("* * * * *", report)
NINE = ("0 9 * * *", report)


def of_cron(event: Event) -> bool:
    """Whether an event is of a look of Cron."""
    return event.metadata.get("plugin") is Cron


def clock_at(text: str) -> VirtualClock:
    """Make a clock that shows a time in UTC."""
    return VirtualClock(datetime.fromisoformat(text).replace(tzinfo=UTC))


def start(
    one: Starter, clock: VirtualClock, *entries: Sequence[Any], leader: bool = True, **options: Any
) -> Oban:
    """Start a node with a crontab, and wait until it has looked once."""
    cron = Cron(list(entries), **options.pop("cron", {}))
    peer = {"kind": "isolated", "leader": leader}
    oban = one(clock=clock, plugins=[cron], **{"peer": peer, **QUIET, **options})
    # What the start itself leads to, its first look too, is over before.
    for name in ("notifier", CRON):
        oban.whereis(name).proxy().actor_urn.get(timeout=60)
    evaluate(oban)
    return oban


def evaluate(oban: Oban) -> list[Job]:
    """Let a node look, and give the jobs that it inserted."""
    result = oban.ask(CRON, Evaluate(), timeout=60)
    assert isinstance(result, PluginResult)
    assert result.error is None
    jobs: list[Job] = result.extra["jobs"]
    return jobs


def crash(oban: Oban) -> None:
    """Let a node's actor crash, and wait until another one has looked."""
    old = oban.whereis(CRON)
    with pytest.raises(ActorError):
        old.ask("a bug", timeout=30)

    def is_new() -> bool:
        with suppress(NoProcess):
            return oban.whereis(CRON) != old
        return False

    wait_until(is_new)


def minutes(obans: Sequence[Oban], clock: VirtualClock, count: int) -> None:
    """Let minutes pass, one by one, with all nodes having looked in each."""
    for _ in range(count):
        clock.advance(60)
        for oban in obans:
            evaluate(oban)


def runs(tables: Tables, worker: str = "tests.cron.report") -> list[str]:
    """List the due minutes of all runs in the table, sorted, as `DD HH:MM`."""
    found = tables.execute("SELECT meta FROM {jobs} WHERE worker = :worker", worker=worker)
    metas = [json.loads(meta) if isinstance(meta, str) else meta for (meta,) in found]
    moments = sorted(datetime.fromisoformat(meta["cron_at"]) for meta in metas)
    return [moment.strftime("%d %H:%M") for moment in moments]


def crons(tables: Tables) -> str:
    """Name the table of marks."""
    return f'"{tables.schema}".oban_actors_crons' if tables.schema else "oban_actors_crons"

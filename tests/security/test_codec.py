"""Args that stand in the table encoded: what a worker's codec sees, and who sees plain ones."""

import json
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

from oban_actors import (
    ArgsCodec,
    CodecError,
    ConfigError,
    InvalidJob,
    Job,
    Oban,
    Snooze,
    worker,
)
from oban_actors.args_codec import MARK, OURS, is_encoded
from oban_actors.cli.job_view import as_data
from oban_actors.job_secrets import shown_args
from oban_actors.plugins import Cron
from oban_actors.queues.remote import payload, perform_here
from oban_actors.running import Running
from oban_actors.testing import all_enqueued, assert_enqueued, perform_job
from oban_actors.tracing import performing
from oban_actors.worker import registered
from oban_actors.worker_registry import forget
from tests.queues.work import read, wait_state
from tests.security import work
from tests.security.test_redacting import shows_none
from tests.support.events import recording
from tests.support.instances import Starter
from tests.workers.running import claimed, performer, run, text


@pytest.fixture(autouse=True)
def _registry() -> Iterator[None]:
    """Forget what a test registered."""
    before = set(registered())
    yield
    for name in set(registered()) - before:
        forget(name)


def stored(start_oban: Starter, job: Job) -> str:
    """Give the whole row of a job as text."""
    [row] = start_oban.tables.execute("SELECT * FROM {jobs} WHERE id = :id", id=job.id)
    return f"{row} {json.dumps(row.args)}"


# From the host's hands to the worker's


def test_the_table_holds_them_encoded(start_oban: Starter) -> None:
    """What is inserted, alone or with others, is read back encoded, and marked as such."""
    oban = start_oban.make()
    given = work.sealed.new(work.args())
    one = oban.insert(given)
    two, other = oban.insert_all(iter([work.asealed.new(work.args()), work.careful.new({"a": 1})]))

    assert given.args == work.args()
    for job in (one, two, read(oban, one)):
        assert job.args.keys() == {"data", MARK}
        assert is_encoded(job.args)
        assert shows_none(job.args)
        assert work.Marker().decode(job.args) == work.args()
        assert shows_none(stored(start_oban, job))
    assert other.args == {"a": 1}
    assert as_data(read(oban, one))["args"] == read(oban, one).args


@pytest.mark.parametrize("executor", ["threads", pytest.param("processes", marks=pytest.mark.slow)])
def test_the_worker_gets_them_plain(start_oban: Starter, executor: str) -> None:
    """In threads, on the loop and in other processes; all others see the row as it is."""
    oban = start_oban(queues={"alpha": {"limit": 2, "executor": executor}})
    with recording("oban.job.start", "oban.job.stop", "oban.engine.insert_all_jobs.start") as told:
        jobs = oban.insert_all([each.new(work.args()) for each in (work.sealed, work.asealed)])
        for job in jobs:
            wait_state(oban, job, "completed")
        told.wait_for_count(2, "oban.job.stop")

    assert {event.metadata["result"] for event in told.all("oban.job.stop")} != set()
    for event in told.all():
        assert shows_none(event.metadata)
        for job in (event.metadata.get("job"), *event.metadata.get("changesets", ())):
            assert job is None or is_encoded(job.args)


def test_only_encoded_args_go_to_other_processes() -> None:
    """What is sent to a process is the row; the key is needed there alone."""
    job = work.sealed.new()
    job.args = work.sealed.spec.codec.encode(work.args()) | {MARK: OURS}
    claim = claimed(job)

    assert shows_none(json.dumps(payload(claim, performing(job), performer()), default=str))


@pytest.mark.parametrize("kind", [work.sealed, work.asealed])
def test_a_codec_redacts_all_unless_told_otherwise(start_oban: Starter, kind: Any) -> None:
    """Errors stand in the table too, so they show none of the values."""
    oban = start_oban(queues={"alpha": 2})
    job = oban.insert(kind.new(work.args("chain")))
    after = wait_state(oban, job, "retryable")

    assert "ValueError" in after.errors[0]["error"]
    assert shows_none(stored(start_oban, job))
    assert after.args == job.args


def test_a_part_may_be_shown() -> None:
    """With `redact`, only that is left out of errors; with none, nothing is."""
    seen = {}
    for redact in (["card"], []):

        @worker(name=f"security.{redact}", codec=work.Marker(), redact=redact)
        def show(job: Job) -> None:
            raise ValueError(f"{job.args['card']} of {job.args['name']}")

        claim = run(claimed(show.new({"card": work.CARD, "name": "Annette"})))
        seen[bool(redact)] = text(claim).splitlines()[0]

    assert seen[True] == "** (ValueError) [redacted] of Annette"
    assert seen[False] == f"** (ValueError) {work.CARD} of Annette"


def test_hooks_get_them_plain() -> None:
    """A back-off and a time-out decide by what the worker would see."""

    @worker(
        name="security.hooks",
        codec=work.Marker(),
        timeout=lambda job: job.args["seconds"],
        backoff=lambda job: timedelta(seconds=job.args["seconds"]),
    )
    def hooks(job: Job) -> None:
        raise ValueError

    job = hooks.new({"seconds": 77})
    job.args = hooks.spec.codec.encode(job.args) | {MARK: OURS}

    assert hooks.spec.timeout_for(job) == 77
    assert run(claimed(job)).ack.delay == 77


def test_a_job_of_its_own() -> None:
    """The worker's job tells of its run while that lasts, and no longer."""
    held = []

    @worker(name="security.held", codec=work.Marker())
    def hold(job: Job) -> Snooze:
        assert job.running is not None
        assert job.cancelled is False
        held.append(job)
        return Snooze(1)

    claim = run(claimed(hold.new({"a": 1})))

    assert claim.verdict == "snoozed"
    assert held[0] is not claim.job
    assert held[0].running is None


# Changes


def test_an_update_encodes_too(start_oban: Starter) -> None:
    """New args are encoded; those that were read encoded stay so."""
    oban = start_oban.make()
    job = oban.insert(work.sealed.new(work.args()))
    new = work.args() | {"do": "error"}

    updated = oban.update_job(job, {"args": new})
    assert work.Marker().decode(updated.args) == new
    again = oban.update_job(job, lambda old: {"args": old.args, "priority": 3})
    assert again.args == updated.args
    assert oban.insert(Job.new(again.args, worker=again.worker)).args == updated.args


def test_replace_encodes_too(start_oban: Starter) -> None:
    """What goes into the row that is there is encoded as in a new one."""
    oban = start_oban.make()
    options: dict[str, Any] = {
        "unique": {"fields": ["worker", "meta"], "keys": ["account"]},
        "meta": {"account": 7},
        "replace": ["args"],
    }
    oban.insert(work.sealed.new({"card": "1"}, **options))
    there = oban.insert(work.sealed.new(work.args(), **options))

    assert there.conflict is True
    assert work.Marker().decode(there.args) == work.args()


def test_cron_encodes_too(start_oban: Starter) -> None:
    """The jobs of an entry are inserted as all others are."""
    cron = Cron([("@reboot", work.sealed, {"args": work.args()})])
    oban = start_oban.leading(plugins=[cron])
    jobs: list[Job] = []
    wait_for = recording("oban.plugin.stop")
    with wait_for as told:
        while not (jobs := oban.all_jobs()):
            told.clear()
            told.wait_for("oban.plugin.stop")

    assert work.Marker().decode(jobs[0].args) == work.args()


# Rows that were there before, and rows of others


def test_plain_rows_still_run(start_oban: Starter) -> None:
    """A codec may be given to a worker whose jobs wait, or come from programs without it."""
    oban = start_oban.make()
    start_oban.tables.execute(
        "INSERT INTO {jobs} (worker, queue, args) VALUES "
        "('tests.security.work.sealed', 'alpha', :args)",
        args=json.dumps(work.args()),
    )
    [job] = oban.all_jobs()

    assert set(shown_args(job).values()) == {"[redacted]"}
    assert oban.drain_queue("alpha").success == 1


def test_encoded_rows_without_a_codec(start_oban: Starter) -> None:
    """A worker whose codec was removed fails, and does not see what it can't read."""

    @worker(name="security.bare", queue="alpha")
    def bare(job: Job) -> None:
        raise AssertionError(job.args)

    oban = start_oban.make()
    job = oban.insert(Job.new({"data": "x", MARK: OURS}, worker="security.bare", queue="alpha"))
    oban.drain_queue("alpha")

    error = read(oban, job).errors[0]["error"]
    assert "CodecError" in error
    assert "worker 'security.bare' has no codec" in error
    outcome = perform_here(__name__, "security.bare", _payload(job), Running())
    assert "has no codec" in outcome["error"]


def _payload(job: Job) -> dict[str, Any]:
    claim = claimed(job)
    return payload(claim, performing(job), performer())


class Refusing(work.Marker):
    """A codec that shows all it knows as it fails."""

    def encode(self, args: dict[str, Any]) -> dict[str, Any]:
        """Refuse it."""
        raise ValueError(f"can't encode {args}")

    def decode(self, args: dict[str, Any]) -> dict[str, Any]:
        """Refuse it, with what it has read so far."""
        raise ValueError(f"can't trust {super().decode(args)}")


@pytest.mark.parametrize("attempts", [1, 2])
def test_what_can_not_be_decoded(start_oban: Starter, attempts: int) -> None:
    """It is the job's failure, as any other; the codec's words are not shown, only its place."""

    @worker(name="security.refusing", queue="alpha", codec=Refusing())
    def refusing(job: Job) -> None:
        raise AssertionError(job.args)

    oban = start_oban.make()
    args = work.Marker().encode(work.args()) | {MARK: OURS}
    job = oban.insert(refusing.new(args, max_attempts=attempts))
    with recording("oban.job.exception") as told:
        result = oban.drain_queue("alpha")
    after = read(oban, job)

    assert (result.discard, result.failure) == ((1, 0) if attempts == 1 else (0, 1))
    assert after.state == ("discarded" if attempts == 1 else "retryable")
    [error] = after.errors
    assert "the codec of worker 'security.refusing' can't decode the args" in error["error"]
    assert "test_codec.py" in error["error"]
    assert "ValueError" in error["error"]
    assert shows_none(stored(start_oban, job))
    assert isinstance(told.all()[0].metadata["error"], CodecError)
    assert shows_none(told.all()[0].metadata)


def test_what_can_not_be_encoded(start_oban: Starter) -> None:
    """Nothing is inserted, the caller is told, and the codec's words are not shown."""

    class Odd(work.Marker):
        def encode(self, args: dict[str, Any]) -> Any:
            return args["give"]

    @worker(name="security.odd", codec=Odd())
    def odd(job: Job) -> None: ...

    @worker(name="security.refusing", codec=Refusing())
    def refusing(job: Job) -> None: ...

    oban = start_oban.make()
    with pytest.raises(CodecError, match="can't encode the args: ValueError") as failed:
        oban.insert_all([work.careful.new(), refusing.new(work.args())])
    assert shows_none(failed.value)
    assert failed.value.__context__ is failed.value.__cause__ is None
    with pytest.raises(InvalidJob, match="gave what is no args"):
        oban.insert(odd.new({"give": "text"}))
    with pytest.raises(InvalidJob, match="gave a key 'encoded_by'"):
        oban.insert(odd.new({"give": {MARK: 1}}))
    assert oban.all_jobs() == []


# Unique


def test_unique_by_args_needs_a_codec_that_is_deterministic() -> None:
    """Refused as the worker is declared, and for a job that asks for it, with the way out."""
    with pytest.raises(ConfigError, match="deterministic = True"):
        worker(name="security.unique", codec=work.Marker(), unique=True)(work.act)
    keys = {"keys": ["card"]}
    with pytest.raises(ConfigError, match=r"unique.keys 'card' can't be looked for"):
        worker(name="security.unique", codec=work.Deterministic(), unique=keys)(work.act)
    worker(name="security.unique", codec=work.Marker(), unique={"fields": ["worker"]})(work.act)


def test_unique_jobs(start_oban: Starter) -> None:
    """Equal args are equal where the codec says so; a job that asks for more is refused."""
    w = worker(name="security.same", codec=work.Deterministic(), unique=True)(work.act)
    oban = start_oban.make()
    one, two, three = oban.insert_all([w.new({"a": n}) for n in (1, 1, 2)])

    assert (one.conflict, two.conflict, three.conflict) == (False, True, False)
    assert oban.insert(w.new({"a": 1})).id == one.id
    with pytest.raises(InvalidJob, match="can't have unique jobs so"):
        oban.insert(work.sealed.new(work.args(), unique=True))
    with pytest.raises(InvalidJob, match="can't be looked for"):
        oban.insert(w.new({"a": 1}, unique={"keys": ["a"]}))


# The option, and tests of hosts


@pytest.mark.parametrize("given", [1, "fernet", object(), work.Marker])
def test_refused(given: Any) -> None:
    """What is no codec is refused when the program is loaded."""
    with pytest.raises(ConfigError, match=r"'codec': expected an object with encode\(args\)"):
        worker(name="security.refused", codec=given)(work.act)


def test_an_odd_attribute() -> None:
    """What a codec says of itself is checked too."""

    class Odd(work.Marker):
        deterministic = "yes"

    with pytest.raises(ConfigError, match=r"codec\.deterministic"):
        worker(name="security.refused", codec=Odd())(work.act)
    assert isinstance(work.Marker(), ArgsCodec)


def test_the_helpers_for_tests(start_oban: Starter) -> None:
    """`perform_job` goes the whole way; `assert_enqueued` finds by plain args."""
    oban: Oban = start_oban.make()
    assert perform_job(work.sealed, work.args()) > 10
    inline = start_oban.make(testing="inline")
    assert inline.insert(work.sealed.new(work.args())).state == "completed"

    oban.insert(work.sealed.new(work.args()))
    assert is_encoded(assert_enqueued(oban, args={"card": work.CARD}).args)
    assert len(all_enqueued(oban, worker=work.sealed)) == 1
    with pytest.raises(AssertionError) as failed:
        assert_enqueued(oban, worker="none")
    assert shows_none(failed.value)

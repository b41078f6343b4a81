"""Values that a worker redacts are shown nowhere: in errors, logs, events, spans, by the CLI."""

import io
import json
import logging
from traceback import format_exception, walk_tb
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from rich.console import Console

from oban_actors import ConfigError, DatabaseError, Job, Oban, RedactedError, worker
from oban_actors.cli.job_view import as_data, show_job
from oban_actors.job_secrets import shown_args
from oban_actors.logger import attach_default_logger, detach_default_logger
from oban_actors.metrics import otel
from oban_actors.redacting import LEAST, MOST, REDACTED, Redaction, redact_option
from oban_actors.testing import assert_enqueued, perform_job
from oban_actors.worker_registry import forget
from tests.queues.work import read, wait_state
from tests.security import work
from tests.support.events import recording
from tests.support.instances import Starter
from tests.workers.running import claimed, run, text

KINDS = (work.careful, work.acareful, work.Careful)
EVENTS = ("oban.job.start", "oban.job.stop", "oban.job.exception", "oban.engine.insert_job.stop")


def shows_none(told: object) -> bool:
    """Whether none of the secrets stands in what is told, in any writing."""
    written = told if isinstance(told, str) else f"{told!r} {told}"
    assert [each for each in work.SECRETS if each in written] == []
    return True


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("do", ["error", "chain", "exit"])
def test_errors_of_a_run(kind: Any, do: str) -> None:
    """What a worker raises is told with all of its text but the values, and with its place."""
    claim = run(claimed(kind.new(work.args(do))))

    assert isinstance(claim.error, RedactedError)
    assert claim.error.kind == ("SystemExit" if do == "exit" else "ValueError")
    assert shows_none(text(claim))
    assert shows_none(claim.error)
    assert f"card {REDACTED}, street '{REDACTED}', pin {REDACTED}" in text(claim)
    assert text(claim).startswith(f"** ({claim.error.kind}) ")
    assert "work.py" in text(claim)
    assert "guarded_call.py" not in text(claim)
    assert claim.error.__cause__ is claim.error.__context__ is None
    frames = [frame for frame, _ in walk_tb(claim.error.__traceback__)]
    assert all(shows_none(frame.f_locals) for frame in frames)
    assert not any("clean" in frame.f_locals for frame in frames)
    assert ("caused by ** (LookupError)" in text(claim)) == (do == "chain")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("do", ["return cancel", "raise cancel"])
def test_reasons_of_a_cancel(kind: Any, do: str) -> None:
    """The reason goes to the row without the values."""
    claim = run(claimed(kind.new(work.args(do))))

    assert claim.verdict == "cancelled"
    assert REDACTED in text(claim)
    assert shows_none(text(claim))
    assert shows_none(claim.result)


def test_everything_that_is_told_of_a_run(
    start_oban: Starter, caplog: pytest.LogCaptureFixture
) -> None:
    """Row, telemetry, logger, spans and command line show the args' other values, and not these."""
    spans = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(spans))
    oban = start_oban(queues={"alpha": 2})
    attach_default_logger(args=True)
    instrumentation = otel.attach(tracer_provider=provider)
    try:
        with caplog.at_level(logging.DEBUG), recording(*EVENTS) as told:
            done, failed = oban.insert_all(
                [work.careful.new(work.args(do)) for do in (None, "chain")]
            )
            told.wait_for("oban.job.exception")
            told.wait_for("oban.job.stop")
            row = read(oban, failed)
    finally:
        instrumentation.detach()
        detach_default_logger()
        provider.shutdown()

    expected = {
        "card": REDACTED,
        "address": {"street": REDACTED, "city": "Lyon"},
        "pin": REDACTED,
        "do": "chain",
    }
    assert row.args["card"] == work.CARD
    assert shows_none(row.errors)
    assert shows_none(row)
    assert as_data(row)["args"] == expected
    out = io.StringIO()
    show_job(Console(file=out, width=500), row)
    assert "Lyon" in out.getvalue()
    assert shows_none(out.getvalue())
    for event in told.all():
        assert shows_none(event.metadata)
    [start] = told.all("oban.job.start", lambda event: event.metadata["id"] == failed.id)
    assert start.metadata["args"] == expected
    logged = [json.loads(record.message) for record in caplog.records if "job:" in record.message]
    assert expected in [each["args"] for each in logged]
    assert shows_none(caplog.text)
    assert len(spans.get_finished_spans()) >= 2
    assert [shows_none(span.to_json()) for span in spans.get_finished_spans()]
    assert shows_none(oban.tree())
    assert done.meta["redact"] == list(work.REDACT)


@pytest.mark.parametrize("count", [1, 2])
def test_a_row_that_is_refused(start_pg: Starter, count: int) -> None:
    """PostgreSQL quotes the whole of it in its detail, which no traceback nor event shows."""
    oban = start_pg.make()
    start_pg.tables.execute("ALTER TABLE {jobs} ADD CONSTRAINT no_card CHECK (NOT args ? 'card')")
    jobs = [work.careful.new(work.args("chain")) for _ in range(count)]

    with recording() as told, pytest.raises(DatabaseError, match="no_card") as raised:
        oban.insert_all(jobs) if count > 1 else oban.insert(jobs[0])
    assert shows_none("".join(format_exception(raised.value)))
    [failed] = [event for event in told.all() if event.name.endswith("exception")]
    assert shows_none(failed.metadata["stacktrace"])
    assert shows_none(failed.metadata["reason"])


def test_who_does_not_know_the_worker(start_oban: Starter) -> None:
    """The row says itself what is not shown, so another program's command line hides it too."""

    @worker(name="security.Foreign", redact=["card", "list.key"])
    def foreign(job: Job) -> None: ...

    oban = start_oban.make()
    args = {"card": "4111", "list": [{"key": 1, "other": 2}, 3], "lists": "seen"}
    made = oban.insert(foreign.new(args, meta={"mine": 1}))
    forget("security.Foreign")
    row = read(oban, made)

    assert row.args == args
    assert row.meta == {"mine": 1, "redact": ["card", "list.key"]}
    shown = {"card": REDACTED, "list": [{"key": REDACTED, "other": 2}, 3], "lists": "seen"}
    assert shown_args(row) == shown
    assert as_data(row)["args"] == shown


def test_an_update_keeps_the_note(start_oban: Starter) -> None:
    """New meta says it too, unless it says otherwise itself, and so does that of a new worker."""
    oban = start_oban.make()
    told = worker(redact=["card"], name="tests.Told")(lambda _: None)
    job = oban.insert(told.new({"card": "4111"}))
    assert job.meta == {"redact": ["card"]}

    assert oban.update_job(job, {"meta": {"x": 1}}).meta == {"x": 1, "redact": ["card"]}
    assert oban.update_job(job, {"priority": 1}).meta == {"x": 1, "redact": ["card"]}
    assert oban.update_job(job, {"meta": {"redact": True}}).meta == {"redact": True}

    other = oban.insert(Job.new({"card": "4111"}, worker="tests.Other", meta={"y": 2}))
    changed = oban.update_job(other, {"worker": "tests.Told"})
    assert changed.meta == {"y": 2, "redact": ["card"]}

    worker(redact=["pin", "card"], name="tests.More")(lambda _: None)
    assert oban.update_job(other, {"worker": "tests.More"}).meta["redact"] == ["card", "pin"]
    assert oban.update_job(other, {"worker": "tests.Told"}).meta["redact"] == ["card", "pin"]
    worker(redact=True, name="tests.Most")(lambda _: None)
    assert oban.update_job(other, {"worker": "tests.Most"}).meta["redact"] is True


def test_another_worker_shows_no_more(start_oban: Starter) -> None:
    """Whatever meta is given with it, and where only the worker before said it."""
    oban = start_oban.make()
    told = worker(redact=["card"], name="tests.Known")(lambda _: None)
    worker(redact=["pin"], name="tests.Pinned")(lambda _: None)
    worker(name="tests.Open")(lambda _: None)
    other = {"worker": "tests.Pinned"}

    job = oban.insert(told.new({"card": "4111"}))
    copied = oban.update_job(job, other | {"meta": {**job.meta, "x": 1}})
    assert copied.meta == {"redact": ["card", "pin"], "x": 1}
    job = oban.insert(told.new({"card": "4111"}))
    assert oban.update_job(job, other | {"meta": {"x": 1}}).meta == copied.meta

    whole = told.new({"card": "4111"}, unique={"fields": ["worker", "meta"]})
    job = oban.insert(whole)
    assert job.meta == {}
    assert shown_args(oban.update_job(job, {"worker": "tests.Open"})) == {"card": REDACTED}


def test_too_many_paths_hide_all(start_oban: Starter) -> None:
    """A row says no more than so many of them."""
    oban = start_oban.make()
    for name in ("One", "Two"):
        paths = [f"{name}.{nth}" for nth in range(600)]
        worker(redact=paths, name=f"tests.{name}")(lambda _: None)
    job = oban.insert(Job.new({"One": 1}, worker="tests.One"))

    changed = oban.update_job(job, {"worker": "tests.Two"})
    assert changed.meta["redact"] is True
    assert shown_args(changed) == {"One": REDACTED}


def test_a_row_without_the_note(start_oban: Starter) -> None:
    """Where the worker is known here, no note is needed: a row of an Elixir program's, say."""
    start_oban.make()
    start_oban.tables.execute(
        "INSERT INTO {jobs} (worker, args) VALUES ('tests.security.work.careful', :args)",
        args=json.dumps({"card": "4111"}),
    )
    [row] = start_oban.make().all_jobs()

    assert row.meta == {}
    assert shown_args(row) == {"card": REDACTED}


@pytest.mark.parametrize("told", [1, "card", {"card": 1}, [1, None], [], ["x"] * 1_001, None])
def test_hostile_notes(told: object) -> None:
    """Whatever somebody wrote in the place of the note breaks nothing, and hides nothing."""
    job = Job(worker="none", args={"card": "4111"}, meta={"redact": told})

    assert shown_args(job) == {"card": "4111"}


def test_unique_by_all_of_the_meta(start_oban: Starter) -> None:
    """The note makes no job differ from those that were there before it."""
    oban = start_oban.make()
    options: dict[str, Any] = {"unique": {"fields": ["worker", "meta"]}, "meta": {"of": 1}}
    start_oban.tables.execute(
        "INSERT INTO {jobs} (worker, meta) VALUES ('tests.security.work.careful', :meta)",
        meta='{"of":1}',
    )

    assert oban.insert(work.careful.new(work.args(), **options)).conflict is True


def test_hooks(caplog: pytest.LogCaptureFixture) -> None:
    """A back-off that raises is logged without the values."""

    def back_off(job: Job) -> float:
        raise ValueError(f"card {job.args['card']}")

    @worker(name="security.hook", redact=["card"], backoff=back_off)
    def hook(job: Job) -> None:
        raise ValueError

    run(claimed(hook.new({"card": work.CARD})))
    forget("security.hook")

    assert f"card {REDACTED}" in caplog.text
    assert shows_none(caplog.text)


def test_tests_of_the_host_get_the_error_itself(start_oban: Starter) -> None:
    """Who runs a worker in its own thread knows its args, and gets what it raised."""
    with pytest.raises(ValueError, match=work.CARD):
        perform_job(work.careful, work.args("error"))
    with pytest.raises(ValueError, match=work.CARD):
        start_oban.make(testing="inline").insert(work.careful.new(work.args("error")))


def test_a_failed_assertion_of_a_test(start_oban: Starter) -> None:
    """It shows what waits without the values: CI keeps its logs."""
    oban = start_oban.make()
    oban.insert(work.careful.new(work.args()))
    with pytest.raises(AssertionError, match="Lyon") as failed:
        assert_enqueued(oban, worker="nobody")

    assert shows_none(str(failed.value))


# The option


@pytest.mark.parametrize("given", ["card", b"c", {"card": 1}, 7, [7], ["a..b"], [""], ["a\0"]])
def test_refused(given: object) -> None:
    """What is no list of keys is refused when the program is loaded, by name."""
    with pytest.raises(ConfigError, match="redact"):
        worker(name="security.refused", redact=given)(work.act)  # type: ignore[call-overload]  # what is tested


def test_none() -> None:
    """Nothing redacted is no redaction at all, and costs no run anything."""
    assert redact_option("redact", None) is redact_option("redact", ()) is None
    assert redact_option("redact", False) is None
    assert redact_option("redact", True) == Redaction(None)
    assert redact_option("redact", (each for each in ("a", "a"))) == Redaction(("a",))
    assert worker(name="security.none")(work.act).spec.call is work.act
    forget("security.none")


def test_all_of_it() -> None:
    """All values, however deep."""
    redaction = Redaction(None)
    args = {"a": [1, {"b": "secret text"}], "c": None}

    assert redaction.shown(args) == {"a": REDACTED, "c": REDACTED}
    assert redaction.cleaner(args)("it was secret text, not 1") == f"it was {REDACTED}, not 1"


def test_too_many_values() -> None:
    """Where looking for them all would take too long, no text is shown."""
    clean = Redaction(None).cleaner({"all": [f"value{n}" for n in range(MOST + 1)]})

    assert "value7" not in clean("value7 was wrong")
    assert clean("") == ""


def test_what_is_cut_off() -> None:
    """A value at the place where a long message is cut leaves no beginning behind."""

    @worker(name="security.long", redact=["card"])
    def long(job: Job) -> None:
        raise ValueError("x" * (32 * 1024 - 8) + job.args["card"] + "y" * 100_000)

    claim = run(claimed(long.new({"card": work.CARD})))
    forget("security.long")

    assert work.CARD[:LEAST] not in text(claim)


KEYS = st.text("ab.é\"' ", min_size=1, max_size=3)
VALUES = st.recursive(
    st.text(min_size=LEAST, max_size=12) | st.integers(10**LEAST, 10**20) | st.none(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=60)
@given(
    st.dictionaries(KEYS, VALUES, max_size=4), st.lists(KEYS.filter(lambda k: all(k.split("."))))
)
def test_any_args(args: dict[str, Any], keys: list[str]) -> None:
    """Whatever is named is in no text, however it is written there; the rest stays as it is."""
    for redaction in (Redaction(tuple(keys)), Redaction(None)):
        hidden = list(redaction._values(args))
        clean, shown = redaction.cleaner(args), redaction.shown(args)
        for written in (repr(args), json.dumps(args), str(hidden)):
            left = clean(written)
            for value in hidden:
                # Where values hold each other, parts that are too short to be one may stay.
                assert str(value) not in left.replace(REDACTED, "") or str(value) in REDACTED
        assert shown.keys() == args.keys()
        again = redaction.shown(shown)
        assert again == shown
    assert Redaction(("none",)).shown(args) == args
    assert shown_args(Job(worker="x", args=args, meta={"redact": True})) == dict.fromkeys(
        args, REDACTED
    )


@pytest.mark.slow
def test_a_queue_in_processes(start_oban: Starter) -> None:
    """A process queue tells its failures alike."""
    oban: Oban = start_oban(queues={"alpha": {"limit": 1, "executor": "processes"}})
    job = oban.insert(work.careful.new(work.args("chain")))
    errors = wait_state(oban, job, "retryable").errors

    assert f"card {REDACTED}" in errors[0]["error"]
    assert shows_none(errors)

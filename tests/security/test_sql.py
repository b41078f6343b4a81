"""No name and no value becomes part of a statement: it is refused before, or stands in its row."""

import re
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from oban_actors import (
    Config,
    ConfigError,
    InvalidJob,
    Job,
    Notify,
    Oban,
)
from oban_actors.doctor import examine
from oban_actors.doctor.exam import identifier, literal
from oban_actors.errors import WireError
from oban_actors.plugins import Cron
from oban_actors.unique import ALL, Unique
from tests.security.hostile_tree import NAMES, use_a_tree
from tests.security.statements import CANARY, HOSTILE, TEXTS, statements, tables_of
from tests.support.databases import Database
from tests.support.instances import Starter

FEW = settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
FIELDS = ("args", "meta", "queue", "worker")


@pytest.fixture
def oban(start_oban: Starter) -> Oban:
    """An instance with its tables, whose tree does not run."""
    return start_oban.make()


def clean(seen: list[str]) -> bool:
    """Whether no statement has a piece of what was given."""
    assert seen
    return not any(CANARY in each for each in seen)


def job_of(text: str, other: str) -> Job:
    """Make a job of which everything that may be text is the host's text."""
    return Job.new(
        {text: other, "nested": {other: [text]}},
        worker=text,
        queue=other,
        tags=[text, other],
        meta={other: text},
    )


@FEW
@given(text=TEXTS, other=TEXTS)
def test_jobs(start_oban: Starter, oban: Oban, text: str, other: str) -> None:
    """Whatever a job is made of stands in its row, through every call that takes text."""
    try:
        job = job_of(text, other)
    except InvalidJob:
        assert UNSTORABLE.search(text + other) or max(len(text), len(other)) > 127
        return
    before = tables_of(start_oban.tables.engine, start_oban.tables.schema)
    with statements() as seen:
        made = oban.insert(job)
        everything(oban, made)
    assert clean(seen)
    assert tables_of(start_oban.tables.engine, start_oban.tables.schema) == before


def everything(oban: Oban, made: Job) -> None:
    """Find, change, run and delete a job by its texts."""
    args, meta, tags = made.args, made.meta, made.tags
    read = oban.get_job(made.id or 0)
    assert read is not None
    assert (read.args, read.meta, read.tags) == (args, meta, tags)
    chosen: dict[str, Any] = {
        "worker": made.worker,
        "queue": [made.queue, "none"],
        "tags": tags,
        "args": args,
        "meta": meta,
    }
    assert [each.id for each in oban.all_jobs(**chosen)] == [made.id]
    changes = {"worker": made.queue, "queue": made.worker, "args": meta, "meta": args, "tags": tags}
    changed = oban.update_job(made, changes)
    assert (changed.worker, changed.queue, changed.args) == (made.queue, made.worker, meta)
    oban.update_job(made, {name: getattr(made, name) for name in changes})
    assert oban.cancel_all_jobs(**chosen) == 1
    assert oban.retry_all_jobs(worker=made.worker, state="cancelled") == 1
    assert oban.drain_queue(made.queue, with_limit=1).failure == 1
    error = oban.all_jobs(**chosen)[0].errors[0]
    assert error["error"].startswith(f"** (RuntimeError) unknown worker: {made.worker}".rstrip())
    assert oban.delete_all_jobs(**chosen) == 1


@FEW
@given(
    text=TEXTS,
    other=TEXTS,
    fields=st.lists(st.sampled_from(FIELDS), min_size=1, unique=True),
    keyed=st.booleans(),
    period=st.sampled_from([60, "infinity"]),
)
@example(text="a", other=f"{CANARY}\x1f", fields=["args", "meta"], keyed=False, period=60)
def test_unique_jobs(
    oban: Oban, text: str, other: str, fields: list[str], *, keyed: bool, period: Any
) -> None:
    """Unique keys and values are looked for literally, and replaced by literal ones."""
    keys = [text, other] if keyed and {"args", "meta"} & set(fields) else []
    unique = {"fields": fields, "keys": keys, "states": "all", "period": period}
    replace = ["args", "meta", "queue", "worker", "tags"]
    try:
        job = job_of(text, other)
        job.unique = None
        twin = Job.new(
            job.args,
            worker=text,
            queue=other,
            meta=job.meta,
            tags=[other],
            unique=unique,
            replace=replace,
        )
    except InvalidJob:
        return
    oban.delete_all_jobs(everything=True)
    with statements() as seen:
        first = oban.insert(job)
        again = oban.insert(twin)
        both = oban.insert_all([twin, twin])

    assert clean(seen)
    assert (again.id, again.conflict) == (first.id, True)
    assert (again.args, again.worker, again.tags) == (job.args, text, twin.tags)
    assert [each.id for each in both] == [first.id] * 2


HANDMADE = (
    {"timestamp": "inserted_at) OR (1=1"},
    {"fields": ("worker) OR (1=1",)},
    {"states": ("available'); DROP TABLE oban_jobs; --",)},
    {"states": ["available'); DROP TABLE oban_jobs; --"]},
    {"period": "1 second'"},
    {"keys": (1,)},
)


@pytest.mark.parametrize("given", HANDMADE, ids=str)
def test_handmade_unique(oban: Oban, given: dict[str, Any]) -> None:
    """An `Unique` that was made by hand is checked as a mapping is, before any statement."""
    made = Unique(**given)
    job = Job.new(worker="x")
    job.unique = made
    with statements() as seen, pytest.raises(InvalidJob, match="unique"):
        oban.insert(job)
    with pytest.raises(InvalidJob, match="unique"):
        Job.new(worker="x", unique=made)
    assert seen == []
    assert Job.new(worker="x", unique=Unique(states=ALL)).unique == Unique(states=ALL)


@pytest.mark.parametrize("name", ["replace", "state", "order", "fields"])
def test_words_that_become_sql(oban: Oban, name: str) -> None:
    """Names of columns, states and fields are known ones, or refused."""
    for text in (*HOSTILE, "id; --", "id desc", "-id, (select 1)"):
        calls: dict[str, Callable[[str], Any]] = {
            "replace": lambda word: oban.insert(Job.new(worker="x", unique=True, replace=[word])),
            "state": lambda word: oban.all_jobs(state=word),
            "order": lambda word: oban.all_jobs(order=[word]),
            "fields": lambda word: Job.new(worker="x", unique={"fields": [word]}),
        }
        with statements() as seen, pytest.raises(ValueError, match="expected"):
            calls[name](text)
        assert seen == []


# Names of an instance


@settings(max_examples=200)
@given(st.text(max_size=70) | TEXTS | st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,60}\n?"))
def test_any_prefix(text: str) -> None:
    """A prefix is a plain identifier, or refused before anything happens."""
    try:
        prefix = Config.build(prefix=text).prefix
    except ConfigError:
        assert not re.fullmatch("[A-Za-z_][A-Za-z0-9_]{0,50}", text) or text.startswith("pg_")
    else:
        assert re.fullmatch("[A-Za-z_][A-Za-z0-9_]*", prefix, re.ASCII)
        assert prefix == text


@pytest.mark.parametrize("text", ["select", "User", "_", "A" * 51])
def test_prefixes_that_are_words_of_sql(pg_url: str, pg_conninfo: str, text: str) -> None:
    """What is allowed is meant literally, in its case, also where SQL has the word."""
    oban = Oban(pg_url, prefix=text)
    try:
        oban.migrate()
        oban.insert(Job.new(worker="x", unique=True))
        assert oban.drain_queue("default").failure == 1
        assert examine(oban.repo) is not None
        with psycopg.connect(pg_conninfo, autocommit=True) as connection:
            there = connection.execute(
                "SELECT true FROM pg_namespace WHERE nspname = %s", [text]
            ).fetchone()
    finally:
        oban.rollback()
        oban.repo.close()
        with psycopg.connect(pg_conninfo, autocommit=True) as connection:
            connection.execute(
                psycopg.sql.SQL("DROP SCHEMA {}").format(psycopg.sql.Identifier(text))
            )
    assert there == (True,)


@settings(max_examples=100)
@given(TEXTS, st.sampled_from(["name", "node", "queue", "cron"]))
def test_any_name(text: str, what: str) -> None:
    """Names of instances, nodes, queues and entries are taken as they are, or refused at once."""
    try:
        if what == "queue":
            assert list(Config.build(queues={text: 1}).queues) == [text]
        elif what == "cron":
            Cron([("@daily", text, {"name": text})]).validate()
        else:
            assert getattr(Config.build(**{what: text}), what) == text
    except ConfigError:
        assert UNSTORABLE.search(text) or not text.isprintable() or " " in text or len(text) > 127


@pytest.mark.parametrize("text", NAMES, ids=range(len(NAMES)))
def test_a_tree_of_hostile_names(start_oban: Starter, text: str) -> None:
    """Nothing of them is a part of a statement that goes through SQLAlchemy, but a parameter."""
    with statements() as seen:
        use_a_tree(start_oban, text)

    assert clean(seen)


@FEW
@given(st.lists(TEXTS | st.text(max_size=80), min_size=1, max_size=3))
def test_channels(start_oban: Starter, listening: Oban, channels: list[str]) -> None:
    """What is said on a channel of any name comes on this one, or the name is refused."""
    try:
        heard = start_oban.hear(listening, *channels)
    except WireError:
        return
    for channel in channels:
        listening.ask("notifier", Notify(channel, [{"on": channel}]), timeout=30)
        assert heard.wait_for(channel)[0] == {"on": channel}


@pytest.fixture
def listening(start_oban: Starter) -> Oban:
    """An instance that runs."""
    return start_oban(stager=None, peer=False)


# Statements that people are given to copy


@FEW
@given(TEXTS.filter(lambda text: not UNSTORABLE.search(text)))
def test_statements_that_are_shown(database: Database, text: str) -> None:
    """What the doctor suggests holds names as text that neither database takes for more."""
    engine = sa.create_engine(database.url, poolclass=sa.NullPool)
    with engine.connect() as connection:
        statement = f"SELECT {literal(text)} AS {identifier(text[:20])}"
        driver: Any = connection.connection.driver_connection
        cursor = driver.execute(statement)
        assert cursor.fetchone() == (text,)
        assert cursor.description[0][0] == text[:20]

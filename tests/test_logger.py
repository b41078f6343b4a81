"""The default logger: one record for what matters, in Oban's words, without secrets."""

import json
import logging
import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from oban_actors import telemetry
from oban_actors.config import Config
from oban_actors.errors import ConfigError
from oban_actors.job import Job
from oban_actors.logger import attach_default_logger, detach_default_logger

CONFIG = Config.build(name="Oban", node="web.1")
JOB = replace(
    Job.new({"secret": 1}, worker="W", queue="alpha", tags=["a"], meta={"m": 1}), id=7, attempt=1
)
JOB_FIELDS = {
    "attempt": 1,
    "id": 7,
    "max_attempts": 20,
    "meta": {"m": 1},
    "queue": "alpha",
    "tags": ["a"],
    "worker": "W",
}
TIMES = {"duration": 1_234_567, "queue_time": 2_000}
SHUTDOWN = "jobs were orphaned because they didn't finish executing in the allotted time"
LOCAL = (
    "job staging switched to local mode. local mode polls for jobs for every queue; "
    "restore global mode with a functional notifier"
)
ISOLATED = "notifier can't receive messages from any nodes, functionality degraded"
CLUSTERED = "notifier is receiving messages from other nodes"
GLOBAL = "job staging switched back to global mode"
SOLITARY = "notifier only receiving messages from its own node, functionality may be degraded"


class Pruner:
    """Stands for a plugin that names itself by its class."""


class Caught(logging.Handler):
    """Keeps the records of the logger `oban_actors`."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep it."""
        self.records.append(record)

    @property
    def lines(self) -> list[dict[str, Any]]:
        """Messages read back as JSON."""
        return [json.loads(record.getMessage()) for record in self.records]


@pytest.fixture
def caught() -> Iterator[Caught]:
    """What was logged at any level; default loggers are detached at the end."""
    logger = logging.getLogger("oban_actors")
    handler, level = Caught(), logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    yield handler
    logger.removeHandler(handler)
    logger.setLevel(level)
    for name in (None, "Oban", "Other"):
        detach_default_logger(name)


def send(event: str, measurements: dict[str, Any], **metadata: Any) -> None:
    """Execute an event of the instance."""
    telemetry.execute(event, measurements, {"conf": CONFIG, **metadata})


@pytest.mark.parametrize(
    ("event", "measurements", "metadata", "fields"),
    [
        (
            "oban.job.start",
            {"system_time": 99},
            {"job": JOB},
            {"event": "job:start", **JOB_FIELDS, "system_time": 99},
        ),
        (
            "oban.job.stop",
            TIMES,
            {"job": JOB, "state": "success"},
            {
                "event": "job:stop",
                **JOB_FIELDS,
                "duration": 1234,
                "queue_time": 2,
                "state": "success",
            },
        ),
        (
            "oban.job.exception",
            TIMES,
            {"job": JOB, "state": "failure", "kind": "error", "reason": ValueError("no")},
            {
                "event": "job:exception",
                **JOB_FIELDS,
                "duration": 1234,
                "queue_time": 2,
                "state": "failure",
                "error": "ValueError: no",
            },
        ),
        (
            "oban.plugin.stop",
            {"duration": 5000},
            {
                "plugin": Pruner,
                "leader": True,
                "pruned_count": 2,
                "pruned_jobs": [1, 2],
                "telemetry_span_context": 9,
            },
            {
                "event": "plugin:stop",
                "plugin": "Pruner",
                "duration": 5,
                "leader": True,
                "pruned_count": 2,
            },
        ),
        (
            "oban.plugin.stop",
            {"duration": 5000},
            {"plugin": "Stager", "staged_count": 0, "error": OSError("away")},
            {
                "event": "plugin:stop",
                "plugin": "Stager",
                "duration": 5,
                "staged_count": 0,
                "error": "OSError: away",
            },
        ),
        (
            "oban.plugin.exception",
            {"duration": 5000},
            {"plugin": "Stager", "kind": "error", "reason": ValueError("no")},
            {
                "event": "plugin:exception",
                "plugin": "Stager",
                "duration": 5,
                "error": "ValueError: no",
            },
        ),
        (
            "oban.queue.shutdown",
            {"elapsed": 15},
            {"queue": "alpha", "orphaned": [1, 2]},
            {
                "event": "queue:shutdown",
                "elapsed": 15,
                "message": SHUTDOWN,
                "orphaned": [1, 2],
                "queue": "alpha",
            },
        ),
    ],
    ids=[
        "job start",
        "job stop",
        "job exception",
        "plugin stop",
        "plugin error",
        "plugin exception",
        "orphans",
    ],
)
def test_what_is_logged(
    event: str,
    measurements: dict[str, Any],
    metadata: dict[str, Any],
    fields: dict[str, Any],
    caught: Caught,
) -> None:
    """Each event gives one JSON object with Oban's fields and words, at the default level."""
    attach_default_logger()

    send(event, measurements, **metadata)

    assert caught.lines == [{"source": "oban", **fields}]
    [record] = caught.records
    assert (record.name, record.levelno) == ("oban_actors", logging.INFO)
    assert "\n" not in record.getMessage()
    assert "secret" not in record.getMessage()


@pytest.mark.parametrize(
    ("status", "message"),
    [("isolated", ISOLATED), ("solitary", SOLITARY), ("clustered", CLUSTERED)],
)
def test_notifier_switches(status: str, message: str, caught: Caught) -> None:
    """Each status has its words."""
    attach_default_logger()

    send("oban.notifier.switch", {}, status=status)

    fields = {"connectivity_status": status, "message": message}
    assert caught.lines == [{"source": "oban", "event": "notifier:switch", **fields}]


@pytest.mark.parametrize(("mode", "message"), [("local", LOCAL), ("global", GLOBAL)])
def test_stager_switches(mode: str, message: str, caught: Caught) -> None:
    """Each mode has its words."""
    attach_default_logger()

    send("oban.stager.switch", {}, mode=mode)

    fields = {"message": message, "mode": mode}
    assert caught.lines == [{"source": "oban", "event": "stager:switch", **fields}]


@pytest.mark.parametrize(
    ("leader", "message"), [(True, "peer became leader"), (False, "peer is no longer leader")]
)
def test_elections(message: str, caught: Caught, *, leader: bool) -> None:
    """A change of leadership is told with its node."""
    attach_default_logger()

    send("oban.peer.election.stop", {"duration": 1}, leader=leader, was_leader=not leader)

    fields = {"leader": leader, "message": message, "node": "web.1", "was_leader": not leader}
    assert caught.lines == [{"source": "oban", "event": "peer:election", **fields}]


@pytest.mark.parametrize(
    ("event", "measurements", "metadata"),
    [
        ("oban.peer.election.stop", {"duration": 1}, {"leader": True, "was_leader": True}),
        ("oban.peer.election.stop", {"duration": 1}, {"leader": False, "was_leader": None}),
        ("oban.plugin.stop", {"duration": 1}, {"plugin": "Stager", "leader": True}),
        ("oban.plugin.stop", {"duration": 1}, {"plugin": "Stager", "staged_count": 0}),
        ("oban.queue.shutdown", {"elapsed": 0}, {"queue": "a", "orphaned": []}),
        ("oban.notifier.switch", {}, {"status": "unknown"}),
        ("oban.stager.switch", {}, {"mode": "odd"}),
        ("oban.plugin.init", {}, {"plugin": "Stager"}),
    ],
    ids=[
        "still leader",
        "still follower",
        "idle",
        "idle with a count",
        "no orphans",
        "unknown status",
        "unknown mode",
        "not listened to",
    ],
)
def test_what_is_not_worth_a_record(
    event: str, measurements: dict[str, Any], metadata: dict[str, Any], caught: Caught
) -> None:
    """No change, nothing done and nothing lost are not logged, and don't end the logger."""
    attach_default_logger()

    send(event, measurements, **metadata)

    assert caught.records == []
    assert detach_default_logger() is True


@pytest.mark.parametrize("event", ["job.start", "job.stop", "job.exception", "plugin.exception"])
def test_an_event_without_its_facts_does_not_end_the_logger(event: str, caught: Caught) -> None:
    """A host may send events of its own making: what is missing is logged as null."""
    attach_default_logger()

    telemetry.execute(f"oban.{event}")

    assert len(caught.lines) == 1
    assert detach_default_logger() is True


def test_a_dict_instead_of_json(caught: Caught) -> None:
    """Structured loggers get the fields themselves."""
    attach_default_logger(encode=False)

    send("oban.stager.switch", {}, mode="global")

    assert caught.records[0].msg == {
        "source": "oban",
        "event": "stager:switch",
        "message": GLOBAL,
        "mode": "global",
    }


def test_args_are_logged_only_when_asked_for(caught: Caught) -> None:
    """Arguments may be secret, so that is the host's choice."""
    attach_default_logger(args=True)

    send("oban.job.start", {"system_time": 1}, job=JOB, args={"secret": "[redacted]"})
    send("oban.stager.switch", {}, mode="global")

    assert caught.lines[0]["args"] == {"secret": "[redacted]"}
    assert "args" not in caught.lines[1]


def test_what_json_does_not_know_is_text(caught: Caught) -> None:
    """No value of an event ends the logger."""
    attach_default_logger()
    moment = datetime(2026, 11, 24, tzinfo=UTC)

    send("oban.queue.shutdown", {"elapsed": moment}, queue=None, orphaned=[ValueError("x"), "\n"])

    [line] = caught.lines
    assert line["elapsed"] == "2026-11-24 00:00:00+00:00"
    assert line["orphaned"] == ["ValueError: x", "\n"]
    assert "\n" not in caught.records[0].getMessage()


def test_levels(caught: Caught) -> None:
    """Records have the level given, and none are made that nobody takes."""
    attach_default_logger("warning")
    send("oban.stager.switch", {}, mode="global")
    logging.getLogger("oban_actors").setLevel(logging.ERROR)
    send("oban.stager.switch", {}, mode="global")

    assert [record.levelno for record in caught.records] == [logging.WARNING]


def test_only_some_events(caught: Caught) -> None:
    """Categories that were not asked for are not listened to."""
    attach_default_logger(events=["stager", "peer"])

    send("oban.stager.switch", {}, mode="global")
    send("oban.notifier.switch", {}, status="isolated")
    send("oban.peer.election.stop", {}, leader=True, was_leader=False)

    assert [line["event"] for line in caught.lines] == ["stager:switch", "peer:election"]
    assert not telemetry.attached("oban.notifier.switch")


def test_only_one_instance(caught: Caught) -> None:
    """A logger with a name hears only the instance of that name, and stands beside others."""
    attach_default_logger(name="Oban")
    attach_default_logger(name="Other", level="error")

    send("oban.stager.switch", {}, mode="global")
    telemetry.execute("oban.stager.switch", {}, {"mode": "global"})

    assert [record.levelno for record in caught.records] == [logging.INFO]


def test_it_is_attached_once(caught: Caught) -> None:
    """A second one under the same name is refused; detaching tells whether it was there."""
    attach_default_logger()

    with pytest.raises(ValueError, match=r"^handler 'oban-default-logger' is already attached$"):
        attach_default_logger()

    assert detach_default_logger() is True
    assert detach_default_logger() is False
    assert detach_default_logger("Oban") is False
    attach_default_logger(name="Oban")
    assert detach_default_logger("Oban") is True


LEVELS = "one of 'debug', 'info', 'warning', 'error', 'critical'"
CATEGORIES = "one of 'job', 'notifier', 'peer', 'plugin', 'queue', 'stager'"


@pytest.mark.parametrize(
    ("options", "path", "expected", "got"),
    [
        ({"level": "loud"}, "level", LEVELS, "'loud'"),
        ({"level": 20}, "level", LEVELS, "20"),
        ({"encode": 1}, "encode", "a boolean", "1"),
        ({"args": None}, "args", "a boolean", "None"),
        ({"name": 1}, "name", "a string or None", "1"),
        ({"events": "job"}, "events", "'all' or a list of categories", "'job'"),
        ({"events": []}, "events", "'all' or a list of categories", "[]"),
        ({"events": None}, "events", "'all' or a list of categories", "None"),
        ({"events": ["jobs"]}, "events", CATEGORIES, "'jobs'"),
    ],
    ids=["level", "number", "encode", "args", "name", "text", "empty", "none", "category"],
)
def test_options_are_checked(
    options: dict[str, Any], path: str, expected: str, got: str, caught: Caught
) -> None:
    """A wrong option is named, and nothing is attached."""
    message = f"invalid value for '{path}': expected {expected}, got: {got}"
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        attach_default_logger(**options)

    assert detach_default_logger() is False

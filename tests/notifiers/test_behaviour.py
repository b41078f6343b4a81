"""What all notifiers do alike."""

import base64
import gzip
import json
from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any

import pytest

from oban_actors.errors import WireError
from oban_actors.messages import (
    Listen,
    Notification,
    Notify,
)
from tests.notifiers.rig import Rig
from tests.support.events import Recorder

END = {"the": "end"}


def test_a_listener_gets_a_dict_with_string_keys(rig: Rig) -> None:
    """What is sent arrives as JSON makes it, on its channel."""
    node = rig.node()
    ear = node.hear("signal")
    payload: Any = {1: (2, [3]), "on": date(2026, 1, 2), "ünï": None}

    node.publish("signal", payload)

    ear.wait_for({"1": [2, [3]], "on": "2026-01-02", "ünï": None})
    first = ear.messages[-1]
    assert isinstance(first, Notification)
    assert first.channel == "signal"
    assert type(first.payload) is dict


def test_times_are_written_as_oban_writes_them(rig: Rig) -> None:
    """Moments are UTC with a Z; local ones stay as they are."""
    node = rig.node()
    ear = node.hear("signal")
    moment = datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone(timedelta(hours=2)))

    node.publish("signal", {"at": moment, "utc": moment.astimezone(UTC)})

    ear.wait_for({"at": "2026-01-02T01:04:05Z", "utc": "2026-01-02T01:04:05Z"})


def test_channels_are_apart(rig: Rig) -> None:
    """Who listens to one channel does not hear another; any name will do."""
    node = rig.node()
    one, both = node.hear("my.own-Channel"), node.hear("my.own-Channel", "leader")

    node.publish("leader", {"down": "Oban"})
    node.publish("my.own-Channel", END)

    one.wait_for(END)
    both.wait_for({"down": "Oban"}, END)
    assert one.payloads() == [END]


def test_ident_says_for_whom(rig: Rig) -> None:
    """For any node, for this one, or without an ident: heard. For others: not."""
    node = rig.node(name="Oban", node="web.1")
    ear = node.hear("signal")

    node.publish(
        "signal",
        {"n": 1, "ident": "any"},
        {"n": 2, "ident": "Oban.web.1"},
        {"n": 3, "ident": "Oban.web.2"},
        {"n": 4},
        {"n": 5, "ident": 7},
        {"n": 6, "ident": ["any"]},
        END,
    )

    ear.wait_for(END)
    assert [payload.get("n") for payload in ear.payloads()] == [1, 2, 4, None]


def test_unlisten_ends_it(rig: Rig) -> None:
    """Who stopped listening hears nothing more, others do; other channels are untouched."""
    node = rig.node()
    gone, stays = node.hear("signal", "leader"), node.hear("signal")

    gone.leave("signal")
    node.publish("signal", {"n": 1})
    node.publish("leader", END)

    gone.wait_for(END)
    stays.wait_for({"n": 1})
    assert gone.payloads() == [END]


def test_listening_twice_is_hearing_once(rig: Rig) -> None:
    """A subscription is one, however often it is asked for."""
    node = rig.node()
    ear = node.hear("signal", "signal")
    node.ask(Listen(["signal"], ear.ref))

    node.publish("signal", {"n": 1}, END)

    ear.wait_for(END)
    assert ear.payloads() == [{"n": 1}, END]


def test_delivered_at_commit(rig: Rig) -> None:
    """Nothing is heard while the transaction is open."""
    node = rig.node()
    ear = node.hear("signal")

    with node.repo.engine.connect() as connection:
        with connection.begin():
            if rig.kind == "postgres":
                connection.exec_driver_sql("BEGIN")
            elif rig.kind == "sqlite":
                connection.exec_driver_sql("BEGIN IMMEDIATE")
            node.publisher.publish(connection, "signal", [END])
            node.ask(Listen(["signal"], ear.ref))
            assert ear.payloads() == []
        ear.wait_for(END)


def test_never_on_rollback(rig: Rig) -> None:
    """What a failed transaction or savepoint sent was never sent."""
    node = rig.node()
    ear = node.hear("signal")

    def fail(connection: Any) -> None:
        node.publisher.publish(connection, "signal", [{"n": 1}])
        raise LookupError

    def fail_in_part(connection: Any) -> None:
        node.publisher.publish(connection, "signal", [{"n": 2}])
        with connection.begin_nested() as savepoint:
            node.publisher.publish(connection, "signal", [{"n": 3}])
            savepoint.rollback()
        with connection.begin_nested():
            node.publisher.publish(connection, "signal", [{"n": 4}])
        node.publisher.publish(connection, "signal", [END])

    with pytest.raises(LookupError):
        node.repo.transaction(fail)
    node.repo.transaction(fail_in_part)

    ear.wait_for(END)
    assert ear.payloads() == [{"n": 2}, {"n": 4}, END]


def test_a_savepoint_older_than_all_that_was_sent(rig: Rig) -> None:
    """Its rollback takes all back, though it began unseen."""
    node = rig.node()
    ear = node.hear("signal")

    def work(connection: Any) -> None:
        with connection.begin_nested() as savepoint:
            node.publisher.publish(connection, "signal", [{"n": 1}])
            savepoint.rollback()
        node.publisher.publish(connection, "signal", [END])

    node.repo.transaction(work)

    ear.wait_for(END)
    assert ear.payloads() == [END]


def test_once_in_each_transaction(rig: Rig) -> None:
    """Equal payloads of one transaction are one, those of the next one are another."""
    node = rig.node()
    ear = node.hear("signal", "leader")
    same = {"queue": "alpha"}

    def work(connection: Any) -> None:
        node.publisher.publish(connection, "signal", [same, same])
        with connection.begin_nested() as savepoint:
            node.publisher.publish(connection, "signal", [same, {"n": 1}])
            savepoint.rollback()
        node.publisher.publish(connection, "signal", [{"n": 1}, same])
        node.publisher.publish(connection, "leader", [same])

    node.repo.transaction(work)
    node.publish("signal", same)
    node.publish("signal", END)

    ear.wait_for(END)
    assert ear.payloads("signal") == [same, {"n": 1}, same, END]
    assert ear.payloads("leader") == [same]


def test_many_payloads_in_one_call(rig: Rig) -> None:
    """All come, in their order."""
    node = rig.node()
    ear = node.hear("insert")
    many = [{"queue": f"queue {n}"} for n in range(2_500)]

    node.publish("insert", *many)

    ear.wait_for(many[-1])
    assert ear.payloads() == many


def test_no_payloads_are_no_error(rig: Rig) -> None:
    """Nothing to say is said by saying nothing."""
    node = rig.node()
    ear = node.hear("insert")

    node.publish("insert")
    node.publish("insert", END)

    ear.wait_for(END)
    assert ear.payloads() == [END]


def test_the_longest_payload(rig: Rig) -> None:
    """7,999 bytes arrive; one more is refused with all that stood beside it."""
    node = rig.node()
    ear = node.hear("signal")
    longest = {"x": "é" + "y" * (7_999 - len('{"x":"é"}'.encode()))}
    too_long = {"x": longest["x"] + "y"}

    with pytest.raises(WireError, match="at most 7999 bytes of JSON, this one has 8000: split it"):
        node.publish("signal", {"n": 1}, too_long)
    with pytest.raises(WireError):
        node.ask(Notify("signal", [too_long]))
    node.publish("signal", longest)

    ear.wait_for(longest)
    assert ear.payloads() == [longest]


@pytest.mark.parametrize("bad", ["", "x" * 60, "nul\0", 7], ids=["empty", "long", "nul", "int"])
def test_a_channel_that_can_not_be(rig: Rig, bad: Any) -> None:
    """It is refused where it is named, and the Notifier goes on."""
    node = rig.node()
    ear = node.hear("signal")

    with pytest.raises(WireError, match="channel"):
        node.ask(Listen([bad], ear.ref))
    with pytest.raises(WireError, match="channel"):
        node.publish(bad, END)
    node.tell(Listen([bad], ear.ref))
    node.root.runtime.registry.subscribe(str(bad), ear.ref)
    node.publish("signal", END)

    ear.wait_for(END)
    with pytest.raises(WireError, match="list of channels"):
        node.ask(Listen("signal", ear.ref))


def test_what_can_not_be_read_is_dropped(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    """The Notifier lives, and says so once, without the payload."""
    node = rig.node()
    ear = node.hear("signal")
    notifier = node.notifier
    bomb = base64.b64encode(gzip.compress(b'{"x":"' + b"y" * 5_000_000 + b'"}')).decode()

    node.inject(
        "signal",
        [
            "",
            "secret",
            "{",
            "[]",
            '[{"n":1}]',
            "7",
            "null",
            '{"n":NaN}',
            "[" * 7_900,
            '{"n":' + "9" * 7_900 + "}",
            "x" * 7_999,
            "H4sI",
            "Z:",
            "Z:secret",
            "H4sIAAAAAAAAA6tWyg",
            bomb,
            f"Z:{bomb}",
            "Z:" + base64.b64encode(b"{}").decode(),
            "Z:" + base64.b64encode(gzip.compress(b"[7]")).decode(),
        ],
    )
    node.publish("signal", END)

    ear.wait_for(END)
    assert ear.payloads() == [END]
    assert node.notifier is notifier
    records = [record.getMessage() for record in caplog.records if "dropped" in record.msg]
    assert records
    assert len(records) <= 2
    assert "secret" not in "".join(records)


def test_what_elixir_may_send(rig: Rig) -> None:
    """Plain JSON, gzip in base64, and the same with a mark, as its versions have it."""
    node = rig.node()
    ear = node.hear("signal")
    packed = [base64.b64encode(gzip.compress(json.dumps({"n": n}).encode())) for n in (1, 2)]

    node.inject("signal", [packed[0].decode(), "Z:" + packed[1].decode(), '{"queue" : "alpha"}'])

    ear.wait_for({"n": 1}, {"n": 2}, {"queue": "alpha"})


def test_a_dead_listener_is_dropped(rig: Rig) -> None:
    """Others go on hearing, and who comes after the last one hears too."""
    node = rig.node()
    dead, alive = node.hear("signal"), node.hear("leader")
    dead.stop()

    node.publish("signal", {"n": 1})
    node.publish("leader", END)
    alive.wait_for(END)
    assert node.root.runtime.registry.channels() == {"leader"}
    next_one = node.hear("signal")
    node.publish("signal", END)

    next_one.wait_for(END)
    assert dead.payloads() == []


def test_told_to_notify(rig: Rig) -> None:
    """It sends in a transaction of its own, asked or told."""
    node = rig.node()
    ear = node.hear("signal")

    assert node.ask(Notify("signal", [{"n": 1}])) is None
    node.tell(Notify("signal", [END]))

    ear.wait_for({"n": 1}, END)


def test_what_is_published_already_is_told_here(rig: Rig) -> None:
    """Local listeners get it as it would have come, without the database."""
    node = rig.node()
    ear = node.hear("signal")

    node.ask(Notify("signal", [{1: (2,)}, {"ident": "Oban.elsewhere"}], published=True))  # type: ignore[dict-item]  # keys as a careless host has them

    ear.wait_for({"1": [2]})
    assert ear.payloads() == [{"1": [2]}]


def test_telemetry(rig: Rig, events: Recorder) -> None:
    """Each call is a span with the instance, the channel and the payloads."""
    node = rig.node()

    node.publish("signal", {"n": 1}, {"n": 2})
    with pytest.raises(WireError):
        node.publish("signal", {"n": object()})

    stop = events.wait_for("oban.notifier.notify.stop")
    assert stop.metadata["conf"] is node.config
    assert stop.metadata["channel"] == "signal"
    assert list(stop.metadata["payload"]) == [{"n": 1}, {"n": 2}]
    assert stop.measurements["duration"] > 0
    events.wait_for("oban.notifier.notify.exception")

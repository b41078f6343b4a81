"""Telemetry: who is told what, and that no handler can hurt the sender."""

import logging
import sys
import threading
from collections.abc import Iterator, Mapping
from typing import Any, NoReturn

import pytest

from oban_actors import telemetry
from oban_actors.telemetry import attach, attach_many, attached, detach, execute, span

Heard = list[tuple[str, dict[str, Any], dict[str, Any]]]


class Boom(Exception):
    """Raised by tests."""


@pytest.fixture
def heard() -> Iterator[Heard]:
    """What a handler of the events `t.*` used here was called with."""
    events: Heard = []

    def handle(event: str, measurements: Mapping[str, Any], metadata: Mapping[str, Any]) -> None:
        events.append((event, dict(measurements), dict(metadata)))

    names = ["t.one", "t.two", "t.span.start", "t.span.stop", "t.span.exception"]
    attach_many("heard", [*names, telemetry.HANDLER_FAILURE], handle)
    yield events
    detach("heard")


def boom(*_: object) -> NoReturn:
    """A handler that raises."""
    raise Boom("handler")


def test_a_handler_is_called_with_the_event(heard: Heard) -> None:
    """Name, measurements and metadata arrive as they were sent."""
    execute("t.one", {"count": 1}, {"queue": "a"})
    execute("t.two")
    execute("t.other", {"count": 2})

    assert heard == [("t.one", {"count": 1}, {"queue": "a"}), ("t.two", {}, {})]


def test_handlers_are_called_in_the_order_of_attaching() -> None:
    """The first attached hears it first."""
    order: list[str] = []
    attach("a", "t.one", lambda *_: order.append("a"))
    attach("b", "t.one", lambda *_: order.append("b"))

    execute("t.one")

    assert order == ["a", "b"]
    assert (detach("a"), detach("b")) == (True, True)


def test_a_detached_handler_hears_nothing(heard: Heard) -> None:
    """Detaching ends all its events, and only once."""
    assert attached("t.one")
    assert detach("heard") is True
    assert detach("heard") is False

    execute("t.one")
    execute("t.two")

    assert heard == []
    assert not attached("t.one")


def test_an_id_is_taken_once(heard: Heard) -> None:
    """A second handler of the same id is refused and the first one stays."""
    with pytest.raises(ValueError, match=r"^handler 'heard' is already attached$"):
        attach("heard", "t.three", boom)

    execute("t.one")

    assert len(heard) == 1
    assert not attached("t.three")


@pytest.mark.parametrize("events", [[], "", ["t.one", ""]])
def test_events_need_names(events: list[str] | str) -> None:
    """A handler of nothing is refused."""
    with pytest.raises(ValueError, match=r"^expected names of events, got: "):
        attach_many("nothing", events, boom)


def test_a_handler_must_be_callable() -> None:
    """What can't be called is refused at once, not when the event comes."""
    with pytest.raises(TypeError, match=r"^expected a callable handler, got: 'x'$"):
        attach("x", "t.one", "x")  # type: ignore[arg-type]  # the point of the test


def test_an_event_named_twice_is_heard_once() -> None:
    """Duplicates among the names don't double the calls."""
    calls: list[object] = []
    attach_many("twice", ["t.one", "t.one"], lambda *_: calls.append(1))

    execute("t.one")

    assert calls == [1]
    detach("twice")


@pytest.mark.parametrize("error", [Boom("handler"), SystemExit(3)])
def test_a_raising_handler_is_detached_and_logged(
    error: BaseException, heard: Heard, caplog: pytest.LogCaptureFixture
) -> None:
    """The sender and the other handlers don't notice, the log says so, without the metadata."""

    def fail(*_: object) -> NoReturn:
        raise error

    attach_many("failing", ["t.zero", "t.one"], fail)

    with caplog.at_level(logging.ERROR, "oban_actors.telemetry"):
        execute("t.zero", {}, {"args": "secret"})

    assert not attached("t.zero")
    assert detach("failing") is False
    [record] = caplog.records
    assert record.name == "oban_actors.telemetry"
    assert record.getMessage() == "handler 'failing' raised on t.zero and was detached"
    assert record.exc_info is not None
    assert record.exc_info[1] is error
    assert "secret" not in caplog.text
    [(event, measurements, metadata)] = heard
    assert event == "oban.telemetry.handler.failure"
    assert measurements.keys() == {"system_time", "monotonic_time"}
    assert (metadata["event"], metadata["handler_id"]) == ("t.zero", "failing")
    assert metadata["reason"] is error


def test_a_failing_handler_of_failures_ends_too(caplog: pytest.LogCaptureFixture) -> None:
    """Handlers that raise about each other's failures are all detached, without recursion."""
    attach("first", "t.one", boom)
    attach("second", telemetry.HANDLER_FAILURE, boom)

    execute("t.one")

    assert not attached("t.one")
    assert not attached(telemetry.HANDLER_FAILURE)
    assert len(caplog.records) == 2


def test_a_handler_may_detach_itself_and_attach_others(heard: Heard) -> None:
    """The table may change while an event is handled; that event is not affected."""

    def replace(*_: object) -> None:
        detach("self")
        attach("other", "t.zero", lambda *_: execute("t.one"))

    attach("self", "t.zero", replace)

    execute("t.zero")
    assert heard == []
    execute("t.zero")

    assert [event for event, *_ in heard] == ["t.one"]
    detach("other")


def test_a_span_tells_of_start_and_stop(heard: Heard) -> None:
    """Times are integers, the metadata given and set is there, and one context joins both."""
    with span("t.span", {"plugin": "P"}) as s:
        s.set(staged_count=2)

    [(start, began, first), (stop, ended, second)] = heard
    assert (start, stop) == ("t.span.start", "t.span.stop")
    assert began.keys() == {"system_time", "monotonic_time"}
    assert ended.keys() == {"duration", "monotonic_time"}
    assert all(type(value) is int for value in [*began.values(), *ended.values()])
    assert ended["monotonic_time"] - began["monotonic_time"] == ended["duration"] >= 0
    context = first["telemetry_span_context"]
    assert first == {"plugin": "P", "telemetry_span_context": context}
    assert second == {**first, "staged_count": 2}


def test_spans_have_their_own_contexts(heard: Heard) -> None:
    """Nested and later spans can be told apart."""
    with span("t.span"), span("t.span"):
        pass

    assert len({metadata["telemetry_span_context"] for *_, metadata in heard}) == 2


@pytest.mark.parametrize(
    ("error", "kind"), [(Boom("boom"), "error"), (SystemExit(1), "exit")], ids=["error", "exit"]
)
def test_a_raising_span_tells_of_the_exception(
    error: BaseException, kind: str, heard: Heard
) -> None:
    """The error goes on to the caller, and the event has its kind, reason and stacktrace."""

    def fail() -> NoReturn:
        with span("t.span", {"plugin": "P"}) as s:
            s.set(leader=True)
            raise error

    with pytest.raises(type(error)) as caught:
        fail()

    assert caught.value is error
    assert [event for event, *_ in heard] == ["t.span.start", "t.span.exception"]
    _, measurements, metadata = heard[1]
    assert measurements.keys() == {"duration", "monotonic_time"}
    assert (metadata["plugin"], metadata["leader"]) == ("P", True)
    assert metadata["kind"] == kind
    assert metadata["reason"] is error
    assert metadata["stacktrace"].startswith("Traceback (most recent call last):\n")
    assert type(error).__name__ in metadata["stacktrace"]


def test_a_span_does_not_change_what_it_was_given() -> None:
    """The caller's mapping stays as it was."""
    about = {"plugin": "P"}

    with span("t.span", about) as s:
        s.set(staged_count=2)

    assert about == {"plugin": "P"}


def test_handlers_come_and_go_in_many_threads() -> None:
    """With a thread switch at any moment no handler is lost, doubled or left over."""
    counts = [0] * 8
    start = threading.Barrier(len(counts))

    def churn(mine: int) -> None:
        def count(*_: object) -> None:
            counts[mine] += 1

        start.wait(30)
        for _ in range(200):
            attach(mine, f"t.churn.{mine}", count)
            execute(f"t.churn.{mine}")
            assert detach(mine)

    switch = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        threads = [threading.Thread(target=churn, args=(i,)) for i in range(len(counts))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    finally:
        sys.setswitchinterval(switch)

    assert counts == [200] * 8
    assert not any(attached(f"t.churn.{i}") for i in range(8))

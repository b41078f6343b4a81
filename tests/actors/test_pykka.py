"""pykka underneath and beside: what is overridden, what stays, and the host's own actors."""

import inspect
import logging
import threading
from importlib.metadata import requires
from typing import Any

import pykka
import pytest
from pykka import messages
from pykka._envelope import Envelope

from oban_actors.actors import NORMAL, GenServer, Mailbox, ServerCrashed, Supervisor
from oban_actors.actors.reply import Reply
from tests.actors.conftest import StartLab, StartTree
from tests.actors.lab import Boom, Gate, Journal, Lab, Run, crash, gone, lab
from tests.support.waiting import wait_until


class Plain(pykka.ThreadingActor):
    """An actor of the host's own."""

    def on_receive(self, message: Any) -> Any:
        """Answer with the question."""
        return message


@pytest.fixture
def plain() -> Any:
    """A plain pykka actor that runs beside ours, as a host's may."""
    ref = Plain.start()
    yield ref
    if ref.is_alive():
        ref.stop()


def _parameters(function: Any) -> list[str]:
    return list(inspect.signature(function).parameters)


def test_overridden_members() -> None:
    """The members of pykka that are overridden or used from within are still what they were."""
    actor, future = pykka.ThreadingActor, pykka.Future
    assert {
        name: _parameters(getattr(actor, name))
        for name in (
            "_create_actor_inbox",
            "_create_future",
            "_actor_loop",
            "_start_actor_loop",
            "_handle_receive",
            "__init__",
            "start",
            "stop",
        )
    } == {
        "_create_actor_inbox": [],
        "_create_future": [],
        "_actor_loop": ["self"],
        "_start_actor_loop": ["self"],
        "_handle_receive": ["self", "message"],
        "__init__": ["self", "_args", "_kwargs"],
        "start": ["args", "kwargs"],
        "stop": ["self"],
    }
    assert {
        name: _parameters(getattr(future, name))
        for name in (
            "get",
            "set",
            "set_exception",
            "set_get_hook",
            "__init__",
        )
    } == {
        "get": ["self", "timeout"],
        "set": ["self", "value"],
        "set_exception": ["self", "exc_info"],
        "set_get_hook": ["self", "func"],
        "__init__": ["self"],
    }
    assert _parameters(Envelope) == ["message", "reply_to"]
    assert messages._ActorStop() == ()
    assert actor.use_daemon_thread is False
    assert GenServer.use_daemon_thread is True
    assert {"put", "get", "empty"} <= set(dir(Mailbox))


def test_version_is_bounded() -> None:
    """What is overridden may change in pykka's next major version, so that is not taken."""
    (pin,) = (one for one in requires("oban_actors") or () if one.startswith("pykka"))
    assert set(pin.removeprefix("pykka").split(",")) == {">=4.5", "<5"}


def test_refs_are_pykkas(start: StartLab) -> None:
    """`ask`, `tell`, `stop` and `proxy` of a reference do what pykka says they do."""
    ref = start()
    assert isinstance(ref, pykka.ActorRef)
    assert ref.is_alive()
    assert ref.actor_class is Lab
    assert ref.ask("one") == "one"
    assert ref.ask("two", block=False).get(timeout=5) == "two"
    ref.tell("three")
    assert ref.stop(block=False).get(timeout=5) is True
    assert ref.stop() is False
    assert not ref.is_alive()


def test_stop_is_in_order(start: StartLab, journal: Journal) -> None:
    """`ref.stop()` comes after what was sent before; what was asked after is refused."""
    gate, ref = Gate(), start()
    ref.tell(Run(gate))
    ref.tell("before")
    stopped = ref.stop(block=False)
    late = ref.ask("after", block=False)
    again = ref.stop(block=False)
    gate.open()
    assert stopped.get() is True
    assert again.get() is True
    with pytest.raises(pykka.ActorDeadError):
        late.get()
    assert journal.lines[1:] == [("info", "lab", "before"), ("end", "lab", "normal")]
    assert gone(ref).exit_reason == NORMAL


def test_stop_of_itself(start: StartLab) -> None:
    """Pykka's `self.stop()` ends the actor in order."""
    ref = start()
    ref.ask(Run(lambda me: me.stop()))
    assert gone(ref).exit_reason == NORMAL


def test_proxy(start: StartLab) -> None:
    """A proxy reads, writes and calls; a call that raises is a crash like any other."""
    ref = start()
    proxy = ref.proxy()
    proxy.tag = "changed"
    assert proxy.tag.get() == "changed"
    assert proxy.handle_call("via proxy", None).get() == "via proxy"
    with pytest.raises(ServerCrashed):
        proxy.handle_call(crash(), None).get()
    assert not ref.is_alive()


def test_all_ways_at_once(tree: StartTree) -> None:
    """Many threads ask, tell, use proxies and stop, while the supervisor keeps it running."""
    root = tree([lab("a")], max_restarts=10**9, max_seconds=0.001)
    answers: list[object] = []
    errors: list[BaseException] = []

    def use(number: int) -> None:
        for turn in range(200):
            ref = wait_until(lambda: root.whereis("a"))
            try:
                answers.append(ref.ask(number, timeout=30))
                ref.tell(number)
                ref.proxy().tag.get(timeout=30)
                if turn % 20 == number:
                    ref.stop(timeout=30)
            except pykka.ActorDeadError:
                continue
            except BaseException as error:  # noqa: BLE001 -- shown below
                errors.append(error)

    threads = [threading.Thread(target=use, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert len(answers) > 200


@pytest.mark.parametrize("error", [Boom(), SystemExit(1), KeyboardInterrupt()])
def test_hosts_actors_are_untouched(plain: Any, tree: StartTree, error: BaseException) -> None:
    """Whatever happens in our tree, a host's own actors go on; in pykka alone they would end."""
    root = tree([lab("a")])
    with pytest.raises(ServerCrashed):
        root.ask("a", crash(error))
    root.stop()
    assert plain.ask("still there?") == "still there?"
    assert pykka.ActorRegistry.get_all() == [plain]


def test_pykka_knows_roots_only(plain: Any, tree: StartTree, start: StartLab) -> None:
    """Only roots stand in pykka's registry, so that whoever ends all there ends trees in order."""
    inner = Supervisor.child_spec([lab("b")], id="inner")
    root = tree([lab("a"), inner])
    assert pykka.ActorRegistry.get_all() == [plain, root.ref]
    lone = start()
    assert pykka.ActorRegistry.get_by_class(Lab) == [lone]


def test_stop_all(plain: Any, tree: StartTree, journal: Journal) -> None:
    """`pykka.ActorRegistry.stop_all()`, called by the host, ends each tree in its order."""
    ends: list[object] = []
    inner = Supervisor.child_spec([lab("b", journal), lab("c", journal)], id="inner")
    root = tree([lab("a", journal), inner, lab("d", journal)], on_exit=ends.append)
    journal.clear()
    assert pykka.ActorRegistry.stop_all() == [True, True]
    assert journal.lines == [("end", tag, "shutdown") for tag in "dcba"]
    assert root.wait(30) == NORMAL
    assert pykka.ActorRegistry.get_all() == []
    assert not plain.is_alive()


def test_stop_all_from_within(tree: StartTree, journal: Journal) -> None:
    """A member of a tree that ends all hangs nobody: it is refused to wait for its own end."""
    root = tree([lab("a", journal, shutdown=None)])
    root.tell("a", Run(lambda _: pykka.ActorRegistry.stop_all()))
    assert root.wait(60) == NORMAL


def test_ours_asks_plain_and_back(plain: Any, tree: StartTree) -> None:
    """Actors of both kinds ask each other."""
    root = tree([lab("a")])
    assert root.ask("a", Run(lambda me: me.ask(plain, "to plain"))) == "to plain"

    class Caller(Plain):
        def on_receive(self, message: Any) -> Any:
            return root.ask("a", message)

    caller = Caller.start()
    assert caller.ask("to ours") == "to ours"
    caller.stop()


def test_plain_futures_are_answered(start: StartLab) -> None:
    """A future of ours is one of pykka's."""
    assert isinstance(Reply(), pykka.Future)
    assert isinstance(start().ask(1, block=False), Reply)


def test_pykkas_log_is_quiet(tree: StartTree, caplog: pytest.LogCaptureFixture) -> None:
    """Our crashes are logged by our logger alone."""
    root = tree([lab("a")])
    with caplog.at_level(logging.INFO), pytest.raises(ServerCrashed):
        root.ask("a", crash())
    assert {record.name for record in caplog.records} == {"oban_actors.actors"}

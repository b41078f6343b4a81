"""Monitors: one `Down` for each watch, also of the dead, and none after a demonitor."""

from typing import Any

import pykka
import pytest

from oban_actors.actors import Continue, Down, GenServer, Monitor, Ref, ServerCrashed
from oban_actors.actors.process import process_of
from tests.actors.conftest import StartLab
from tests.actors.lab import Boom, Gate, Lab, Run, crash, gone
from tests.support.waiting import wait_until


class Watcher(GenServer):
    """Watches whom it is asked to watch, and keeps what it hears."""

    def __init__(self) -> None:
        super().__init__()
        self.downs: list[Down] = []

    def handle_call(self, message: Any, sender: Any) -> Any:
        """Watch a reference, end a watch, run a function, or give what was heard."""
        if isinstance(message, pykka.ActorRef):
            return self.monitor(message)
        if isinstance(message, Monitor):
            return self.demonitor(message)
        if isinstance(message, Run):
            return message.do(self)  # type: ignore[arg-type]  # as good as a Lab here
        return list(self.downs)

    def handle_info(self, message: Any) -> None:
        """Keep it."""
        self.downs.append(message)


@pytest.fixture
def watcher() -> Any:
    """A watcher for one test."""
    ref = Watcher.start()
    yield ref
    ref.stop()


def _kinds(watcher: Ref) -> list[str]:
    return [down.reason.kind for down in watcher.ask("downs")]


def test_one_down_for_each_watch(watcher: Ref, start: StartLab) -> None:
    """Each watch hears of the end once, with the watch, the reference and the reason."""
    ref = start()
    watches = [watcher.ask(ref), watcher.ask(ref)]
    with pytest.raises(ServerCrashed):
        ref.ask(crash(Boom("why")))
    downs = watcher.ask("downs")
    assert [down.monitor for down in downs] == watches
    assert all(down.ref is ref for down in downs)
    assert [str(down.reason) for down in downs] == ["crashed: Boom('why')"] * 2


def test_watching_the_dead(watcher: Ref) -> None:
    """Whoever watches a dead actor hears at once, with `noproc`."""
    ref = Lab.start()
    ref.stop()
    watcher.ask(ref)
    assert _kinds(watcher) == ["noproc"]


def test_demonitor(watcher: Ref, start: StartLab) -> None:
    """A watch that is ended hears nothing; ending it twice is no error."""
    ref = start()
    kept, ended = watcher.ask(ref), watcher.ask(ref)
    watcher.ask(ended)
    watcher.ask(ended)
    assert process_of(ref).monitors == [kept]
    ref.stop()
    assert [down.monitor for down in watcher.ask("downs")] == [kept]


def test_demonitor_takes_back_what_is_on_its_way(watcher: Ref, start: StartLab) -> None:
    """A `Down` that is in the inbox already is dropped by a demonitor."""
    gate, ref = Gate(), start()
    watch = watcher.ask(ref)

    def hold(me: Any) -> None:
        gate()
        me.demonitor(watch)

    held = watcher.ask(Run(hold), block=False)
    gate.wait()
    ref.stop()
    assert len(watcher.actor_inbox) == 1  # type: ignore[arg-type]  # our Mailbox has a length
    gate.open()
    held.get()
    assert _kinds(watcher) == []


def test_work_put_off_at_a_down(start: StartLab) -> None:
    """Whoever hears of an end may put off what follows, as at any other message."""
    done: list[object] = []

    class Heir(GenServer):
        def handle_call(self, message: Any, sender: Any) -> Any:
            return done if message is None else self.monitor(message)

        def handle_info(self, message: Any) -> Continue:
            return Continue(message.reason.kind)

        def handle_continue(self, arg: object) -> None:
            done.append(arg)

    heir, ref = Heir.start(), start()
    heir.ask(ref)
    ref.stop()
    assert heir.ask(None) == ["normal"]
    heir.stop()


def test_none_is_lost_in_the_race(watcher: Ref) -> None:
    """A watch begun while its target ends hears of it, whatever the timing."""
    for _ in range(300):
        ref = Lab.start()
        ref.tell(crash(SystemExit))
        watcher.ask(ref)
        gone(ref)
    wait_until(lambda: len(_kinds(watcher)) == 300)
    assert set(_kinds(watcher)) <= {"crashed", "noproc"}


def test_watches_of_the_dead_do_not_pile_up(start: StartLab) -> None:
    """A watcher that keeps crashing and coming back leaves no watches at its long-lived target."""
    target = start()
    for _ in range(100):
        watcher = Watcher.start()
        watcher.ask(target)
        watcher.stop()
    assert len(process_of(target).monitors) <= 1


def test_plain_pykka_actor_cannot_be_watched(watcher: Ref) -> None:
    """A plain pykka actor has no entry in our process table, and that is said."""
    plain = pykka.ThreadingActor.start()
    with pytest.raises(ServerCrashed, match="expected a reference to a GenServer"):
        watcher.ask(plain)
    plain.stop()


def test_down_comes_before_the_answer(watcher: Ref, start: StartLab) -> None:
    """Who watches has heard before the asker whose question was fatal gets its error."""
    ref = start()
    watcher.ask(ref)
    with pytest.raises(ServerCrashed):
        ref.ask(crash())
    assert _kinds(watcher) == ["crashed"]

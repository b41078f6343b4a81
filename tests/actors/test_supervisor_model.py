"""A supervisor against a pure model of OTP's rules, driven by hypothesis."""

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any, Literal

import pykka
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from oban_actors.actors import (
    IGNORE,
    NORMAL,
    SHUTDOWN,
    DeleteChild,
    Reason,
    RestartChild,
    Root,
    ServerCrashed,
    StartChild,
    StartFailed,
    Supervisor,
    TerminateChild,
    UnknownChild,
    VirtualClock,
    WhichChildren,
)
from tests.actors.lab import Boom, Gate, Hooks, Journal, Lab, crash, lab, settled, stopping

IDS = "abcd"
MAX_RESTARTS = 3
MAX_SECONDS = 5.0

Fate = Literal["fail", "ignore"]
Outcome = Literal["done", "unknown", "refused", "failed"]


@dataclass(eq=False)
class Modelled:
    """One child of the model."""

    id: str
    type: str
    up: bool = False
    unheard: bool = False
    restarting: bool = False


@dataclass
class Model:
    """OTP's rules, written down from its documentation, with nothing of the code under test."""

    strategy: str
    children: list[Modelled] = field(default_factory=list)
    fates: dict[str, list[Fate]] = field(default_factory=dict)
    now: float = 0.0
    restarts: list[float] = field(default_factory=list)
    alive: bool = True
    inbox: list[tuple[Modelled, str]] = field(default_factory=list)
    log: list[tuple[str, ...]] = field(default_factory=list)

    def find(self, id_: str) -> Modelled | None:
        """The child of this id."""
        return next((child for child in self.children if child.id == id_), None)

    def start(self, id_: str, type_: str) -> Outcome:
        """What start_child does."""
        if self.find(id_):
            return "refused"
        child = Modelled(id_, type_)
        self.children.append(child)
        if not self._begin(child):
            self.children.remove(child)
            return "failed"
        return "done"

    def terminate(self, id_: str) -> Outcome:
        """What terminate_child does."""
        child = self.find(id_)
        if child is None:
            return "unknown"
        self._end(child)
        return "done"

    def restart(self, id_: str) -> Outcome:
        """What restart_child does."""
        child = self.find(id_)
        if child is None or child.up:
            return "unknown"
        return "done" if self._begin(child) else "failed"

    def delete(self, id_: str) -> Outcome:
        """What delete_child does."""
        child = self.find(id_)
        if child is None or child.up:
            return "unknown"
        self.children.remove(child)
        return "done"

    def exits(self, *ends: tuple[str, str]) -> None:
        """What exits do that come before the supervisor has heard of the first."""
        for id_, kind in ends:
            child = self.find(id_)
            assert child is not None
            child.up, child.unheard = False, True
            self.log.append(("end", id_, kind))
            self.inbox.append((child, kind))
        while self.inbox and self.alive:
            child, kind = self.inbox.pop(0)
            if kind == "try again" and child in self.children and child.restarting:
                self._bring_back(child)
            elif child in self.children and child.unheard:
                self._hear(child, kind)

    def _hear(self, child: Modelled, kind: str) -> None:
        child.unheard = False
        if child.type == "permanent" or (child.type == "transient" and kind == "crashed"):
            self._bring_back(child)
        elif child.type == "temporary":
            self.children.remove(child)

    def shut_down(self) -> None:
        """End all, the last first."""
        for child in reversed(list(self.children)):
            self._end(child)
        self.alive = False

    def _bring_back(self, child: Modelled) -> None:
        self.restarts = [self.now, *(at for at in self.restarts if at >= self.now - MAX_SECONDS)]
        if len(self.restarts) > MAX_RESTARTS:
            self.shut_down()
            return
        first = {
            "one_for_one": self.children.index(child),
            "rest_for_one": self.children.index(child),
            "one_for_all": 0,
        }[self.strategy]
        group = self.children[first:] if self.strategy != "one_for_one" else [child]
        for one in reversed(group):
            self._end(one)
        for one in group:
            if one in self.children and not self._begin(one):
                one.restarting = True
                self.inbox.append((one, "try again"))
                return

    def _begin(self, child: Modelled) -> bool:
        child.restarting = False
        fates = self.fates.get(child.id, [])
        fate = fates.pop(0) if fates else None
        if fate == "fail":
            self.log.append(("fail", child.id))
            return False
        if fate == "ignore":
            if child.type == "temporary":
                self.children.remove(child)
            return True
        child.up = True
        self.log.append(("start", child.id))
        return True

    def _end(self, child: Modelled) -> None:
        if child.up:
            self.log.append(("end", child.id, "shutdown"))
        child.up = child.unheard = child.restarting = False
        if child.type == "temporary":
            self.children.remove(child)


ENDS = {
    "normal": NORMAL,
    "shutdown": SHUTDOWN,
    "drained": Reason("shutdown", "drained"),
}
any_id = st.sampled_from(IDS)
any_end = st.sampled_from([*ENDS, "error", "exit"])
any_type = st.sampled_from(["permanent", "transient", "temporary"])


class Held(Supervisor):
    """A supervisor that can be kept busy."""

    def handle_info(self, message: Any) -> None:
        """Stand before the gate, or do as any supervisor."""
        if isinstance(message, Gate):
            message()
        else:
            super().handle_info(message)


class SupervisorMachine(RuleBasedStateMachine):
    """Does the same to a supervisor and to the model, and compares all that can be seen."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = VirtualClock()
        self.journal = Journal()
        self.fates: dict[str, list[Fate]] = {}
        self.root: Root | None = None

    @initialize(
        strategy=st.sampled_from(["one_for_one", "rest_for_one", "one_for_all"]),
        types=st.lists(any_type, max_size=len(IDS)),
    )
    def begin(self, strategy: Any, types: list[str]) -> None:
        """Start a tree."""
        self.strategy = strategy
        self.model = Model(strategy)
        for id_, type_ in zip(IDS, types, strict=False):
            self.model.start(id_, type_)
        self.root = Held.start(
            [self._spec(id_, type_) for id_, type_ in zip(IDS, types, strict=False)],
            strategy=strategy,
            clock=self.clock,
            max_restarts=MAX_RESTARTS,
            max_seconds=MAX_SECONDS,
        )
        self.compare()

    def _spec(self, id_: str, type_: str) -> Any:
        def init(me: Lab) -> Any:
            fates = self.fates.get(me.tag, [])
            fate = fates.pop(0) if fates else None
            if fate == "fail":
                me.journal("fail", me.tag)
                raise Boom("init")
            return IGNORE if fate == "ignore" else None

        return lab(id_, self.journal, hooks=Hooks(init=init), restart=type_)

    def alive(self) -> bool:
        """Whether there is a tree to do something to."""
        return self.root is not None and self.root.alive

    @precondition(alive)
    @rule(id_=any_id, end=any_end)
    def child_ends(self, id_: str, end: str) -> None:
        """A child stops by itself, or crashes."""
        self.children_end({id_: end})

    @precondition(alive)
    @rule(ends=st.dictionaries(any_id, any_end, min_size=2), failing=st.sets(any_id))
    def children_end(self, ends: dict[str, str], failing: Collection[str] = ()) -> None:
        """Some end, and their supervisor, busy, hears of all at once; some fail to start again."""
        assert self.root is not None
        for id_ in failing:
            self._set_fates(id_, ["fail"])
        gate, exits = Gate(), []
        if len(ends) > 1:
            self.root.ref.tell(gate)
            gate.wait()
        for id_, end in ends.items():
            child = self.model.find(id_)
            ref = self.root.whereis(id_)
            assert (ref is not None) == (child is not None and child.up)
            if ref is None:
                continue
            if end in ENDS:
                ref.ask(stopping(ENDS[end]))
            else:
                with pytest.raises(ServerCrashed):
                    ref.ask(crash(Boom if end == "error" else SystemExit))
            exits.append((id_, ENDS[end].kind if end in ENDS else "crashed"))
        gate.open()
        self.model.exits(*exits)
        self.compare()

    @precondition(alive)
    @rule(id_=any_id, type_=any_type)
    def start_child(self, id_: str, type_: str) -> None:
        """A child is added."""
        outcome = self._ask(StartChild(self._spec(id_, type_)))
        assert outcome == self.model.start(id_, type_)
        self.compare()

    @precondition(alive)
    @rule(id_=any_id)
    def terminate_child(self, id_: str) -> None:
        """A child is ended by hand."""
        assert self._ask(TerminateChild(id_)) == self.model.terminate(id_)
        self.compare()

    @precondition(alive)
    @rule(id_=any_id)
    def restart_child(self, id_: str) -> None:
        """A child that was ended is started by hand."""
        assert self._ask(RestartChild(id_)) == self.model.restart(id_)
        self.compare()

    @precondition(alive)
    @rule(id_=any_id)
    def delete_child(self, id_: str) -> None:
        """A child that was ended is forgotten."""
        assert self._ask(DeleteChild(id_)) == self.model.delete(id_)
        self.compare()

    @precondition(alive)
    @rule(id_=any_id, times=st.integers(1, 4))
    def next_starts_fail(self, id_: str, times: int) -> None:
        """The next starts of a child will fail."""
        self._set_fates(id_, ["fail"] * times)

    @precondition(alive)
    @rule(id_=any_id)
    def next_start_is_ignored(self, id_: str) -> None:
        """The next start of a child will be ignored."""
        self._set_fates(id_, ["ignore"])

    @precondition(alive)
    @rule(seconds=st.sampled_from([0.5, 2.5, MAX_SECONDS, MAX_SECONDS + 0.5]))
    def time_passes(self, seconds: float) -> None:
        """The window of restarts moves on."""
        self.clock.advance(seconds)
        self.model.now = self.clock.monotonic()

    @precondition(lambda self: self.root is not None and not self.root.alive)
    @rule(types=st.lists(any_type, min_size=1, max_size=len(IDS)))
    def begin_again(self, types: list[str]) -> None:
        """After a supervisor gave up, a new one starts."""
        self.fates.clear()
        self.journal.clear()
        now = self.model.now
        self.begin(self.strategy, types)
        self.model.now = now

    def compare(self) -> None:
        """All that can be seen of the supervisor is what the model says."""
        assert self.root is not None
        alive = settled(self.root)
        if not alive:
            assert self.root.wait(30) == SHUTDOWN
        assert alive == self.model.alive
        assert self.journal.lines == self.model.log
        ups = [child.id for child in self.model.children if child.up]
        assert Counter(map(str, self.root.runtime.registry.names())) == Counter(ups)
        if alive:
            children = self.root.ref.ask(WhichChildren())
            assert list(children) == [child.id for child in self.model.children]
            assert [id_ for id_, ref in children.items() if ref is not None] == ups
            assert all(ref is self.root.whereis(id_) for id_, ref in children.items())
            window = [at for at in self.model.restarts if at >= self.model.now - MAX_SECONDS]
            assert self.root.tree().recent_restarts == len(window)

    def teardown(self) -> None:
        """The tree ends in reverse, and leaves nothing."""
        if self.root is None:
            return
        if self.root.alive:
            self.model.shut_down()
            self.root.stop()
        assert self.journal.lines == self.model.log
        assert self.root.runtime.registry.names() == {}
        assert pykka.ActorRegistry.get_all() == []

    def _ask(self, message: object) -> Outcome:
        assert self.root is not None
        try:
            self.root.ref.ask(message)
        except StartFailed:
            return "failed"
        except UnknownChild:
            return "unknown"
        except ValueError:
            return "refused"
        return "done"

    def _set_fates(self, id_: str, fates: list[Fate]) -> None:
        self.fates[id_] = list(fates)
        self.model.fates[id_] = list(fates)


TestSupervisorMachine = pytest.mark.slow(SupervisorMachine.TestCase)
TestSupervisorMachine.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)

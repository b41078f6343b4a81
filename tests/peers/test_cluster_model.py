"""Several nodes, one row, faults at every point: the Peer's own steps against a model."""

from dataclasses import dataclass, field, replace

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from oban_actors.peers.identity import owner
from oban_actors.peers.lease import FARTHEST, Lease, Step
from oban_actors.peers.standing import DEAD_AFTER
from oban_actors.peers.terms import Plan, Row, Rules, Unlock, Withdraw

RULES = Rules("", lease=15.0, renew=5.0, fast=True)
NODES = 3
ELIXIR = "web.1"
FAULTS = st.sampled_from(["none", "none", "none", "before", "after"])
SETTLING = int(DEAD_AFTER / FARTHEST * 3) + 10
DELAYS = st.sampled_from([0.0, 0.01, 0.5, 3.0])


@dataclass
class Standing:
    """The row in the table."""

    node: str
    term: str
    expires_at: float


@dataclass
class World:
    """A table, a lock and time; transactions take place in the middle of their duration."""

    now: float = 0.0
    behind: float = 0.0
    row: Standing | None = None
    terms: int = 0
    lock: str | None = None
    nodes: dict[str, Lease] = field(default_factory=dict)

    def act(self, name: str, fault: str = "none", delay: float = 0.0) -> None:
        """Let a node do what it has planned, as the Peer would."""
        self._take(name, self.nodes[name].checked(self.now))
        lease = self.nodes[name]
        plan = lease.plan(self.now)
        if plan is Plan.LOCK or (plan is Plan.RENEW and lease.wants_lock):
            got = self.lock in (None, name)
            self.lock = name if got else self.lock
            lease = self.nodes[name] = lease.tried(self.now, got=got).lease
            plan = lease.plan(self.now)
        if plan not in (Plan.WAIT, Plan.LOCK):
            self._take(name, self._hold(lease, plan, fault, delay))

    def follow(self, name: str) -> None:
        """Let a node act until it waits; it must not act for ever without time passing."""
        for _ in range(10):
            self.act(name)
            if self.nodes[name].next_at(0.0) > self.now:
                return
        raise AssertionError(f"{self.nodes[name]} never waits")

    @property
    def clock(self) -> float:
        """What the database's clock shows."""
        return self.now - self.behind

    def leaders(self) -> list[str]:
        """Who believes to lead."""
        return [name for name, lease in self.nodes.items() if lease.leads(self.now)]

    def _hold(self, lease: Lease, plan: Plan, fault: str, delay: float) -> Step:
        started, dead = self.now, lease.dead(self.now)
        self.now += delay / 2
        won, row = (False, None) if fault == "before" else self._execute(lease, plan, dead)
        self.now += delay / 2
        if fault != "none":
            return lease.failed(self.now)
        if plan is Plan.LOOK:
            return lease.looked(row, self.now)
        if plan is Plan.CLAIM:
            return (
                lease.won(row, started, self.now) if won and row else lease.refused(row, self.now)
            )
        if won and row:
            return lease.renewed(row, started, self.now)
        return lease.not_renewed(row, self.now)

    def _execute(self, lease: Lease, plan: Plan, dead: Row | None) -> tuple[bool, Row | None]:
        row, mine = self.row, self.row is not None and owner(self.row.node) == lease.rules.node
        if plan is Plan.CLAIM:
            found = self._read()
            seized = mine or (row and row.node == lease.prey) or (found and found.is_as(dead))
            if row and row.expires_at > self.clock and not seized:
                return False, found
            self.terms += 1
            self.row = Standing(lease.writes, f"t{self.terms}", self.clock + RULES.lease)
            return True, self._read()
        held = lease.held
        if plan is Plan.RENEW and held and row and mine and row.expires_at > self.clock:  # noqa: SIM102 (as the two statements are)
            if (row.term, str(row.expires_at)) == (held.term, held.written):
                self.row = Standing(lease.writes, row.term, self.clock + RULES.lease)
                return True, self._read()
        return False, self._read()

    def _read(self) -> Row | None:
        row = self.row
        if row is None:
            return None
        return Row(row.node, row.term, str(row.expires_at), row.expires_at - self.clock)

    def _take(self, name: str, step: Step) -> None:
        self.nodes[name] = step.lease
        for effect in step.effects:
            if isinstance(effect, Withdraw):
                if self.row and owner(self.row.node) == name:
                    self.row = None
                for one, lease in self.nodes.items():
                    self.nodes[one] = lease.down(self.now)
            elif isinstance(effect, Unlock) and self.lock == name:
                self.lock = None


class Cluster(RuleBasedStateMachine):
    """Nodes act, fail, are slow, hear or miss things and die, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World()
        self.born = 0
        for _ in range(NODES):
            self.start()

    def start(self) -> None:
        """Add a node."""
        self.born += 1
        name = f"web.1/oban_actors:{self.born}"
        self.world.nodes[name] = Lease(replace(RULES, node=name))

    def name(self, index: int) -> str:
        """Pick a node."""
        names = list(self.world.nodes)
        return names[index % len(names)]

    @rule(index=st.integers(0, NODES - 1), fault=FAULTS, delay=DELAYS)
    def act(self, index: int, fault: str, delay: float) -> None:
        """A node does what is due, well, badly or slowly."""
        self.world.act(self.name(index), fault, delay)

    @rule(seconds=st.sampled_from([0.1, 1.0, 1.4, 4.9, 7.0, 14.0, 20.0, 300.0]))
    def pass_time(self, seconds: float) -> None:
        """Time passes and nobody acts, as on a machine that is suspended or overloaded."""
        self.world.now += seconds

    @rule(index=st.integers(0, NODES - 1))
    def ask_for_an_election(self, index: int) -> None:
        """Somebody tells a node to elect."""
        name = self.name(index)
        self.world.nodes[name] = self.world.nodes[name].hurried(self.world.now)

    @rule(index=st.integers(0, NODES - 1))
    def beat(self, index: int) -> None:
        """The leader's beat reaches one node."""
        name = self.name(index)
        for one in self.world.leaders():
            self.world.nodes[name] = self.world.nodes[name].beat(one, 1.0, self.world.now)

    @rule(index=st.integers(0, NODES - 1))
    def hear_of_a_resignation(self, index: int) -> None:
        """A stale `down` comes."""
        name = self.name(index)
        self.world.nodes[name] = self.world.nodes[name].down(self.world.now)

    @rule(index=st.integers(0, NODES - 1), seconds=st.sampled_from([0.1, 5.0, 60.0]))
    def ask_to_resign(self, index: int, seconds: float) -> None:
        """A node is asked to leave leadership to another one."""
        name = self.name(index)
        lease = self.world.nodes[name]
        self.world._take(name, lease.resigned(seconds, "it was asked", self.world.now))

    @rule(index=st.integers(0, NODES - 1))
    def kill(self, index: int) -> None:
        """A node dies where it stands, its session with it, and another one starts."""
        name = self.name(index)
        del self.world.nodes[name]
        if self.world.lock == name:
            self.world.lock = None
        self.start()

    @rule(index=st.integers(0, NODES - 1), node=st.sampled_from([ELIXIR, "web.2"]))
    def ping(self, index: int, node: str) -> None:
        """An Elixir node's ping reaches one node."""
        name = self.name(index)
        self.world._take(name, self.world.nodes[name].pinged(7, node, self.world.now))

    @precondition(lambda self: self.world.row is None)
    @rule()
    def let_elixir_lead(self) -> None:
        """An Elixir node takes the free lease."""
        self.world.row = Standing(ELIXIR, "elixir", self.world.clock + 30.0)

    @precondition(lambda self: self.world.row is not None)
    @rule()
    def let_an_old_elixir_node_renew(self) -> None:
        """An Elixir node up to 2.23.0 renews whoever's row."""
        assert self.world.row is not None
        self.world.row = replace(self.world.row, expires_at=self.world.clock + 30.0)

    @rule(seconds=st.sampled_from([40.0, 4000.0]))
    def set_the_clock_back(self, seconds: float) -> None:
        """The database's clock is, and each row that stands ends later by that."""
        self.world.behind += seconds

    @invariant()
    def at_most_one_leads(self) -> None:
        """Never two at the same time, and whoever leads has the row, unexpired."""
        leaders = self.world.leaders()
        assert len(leaders) <= 1
        if leaders:
            assert self.world.row is not None
            assert owner(self.world.row.node) == leaders[0]
            assert self.world.row.expires_at > self.world.clock

    @invariant()
    def only_a_leader_keeps_the_lock(self) -> None:
        """A follower's session holds the lock only within its claim."""
        for lease in self.world.nodes.values():
            assert lease.held is not None or not lease.locked

    def teardown(self) -> None:
        """Left alone, the nodes find one leader, and it stays."""
        world = self.world
        if world.row is not None and owner(world.row.node) is None:
            # Elixir's are respected however far ahead they end.
            world.behind = min(world.behind, world.now - world.row.expires_at)
        for _ in range(SETTLING):
            world.now += FARTHEST / 3
            for name in list(world.nodes):
                world.follow(name)
            self.at_most_one_leads()
        for _ in range(400):
            world.now += 0.25
            for name in list(world.nodes):
                world.follow(name)
            self.at_most_one_leads()
        before = world.leaders()
        assert len(before) == 1
        for _ in range(100):
            world.now += 0.25
            for name in list(world.nodes):
                world.follow(name)
            assert world.leaders() == before


@pytest.mark.parametrize("pause", [0.5, 4.0, 13.0, 20.0])
def test_a_clock_set_back_makes_no_second_leader(pause: float) -> None:
    """However often a follower looks: only who has been silent for very long is replaced."""
    names = ["web.1/oban_actors:1", "web.1/oban_actors:2"]
    world = World(nodes={name: Lease(replace(RULES, node=name)) for name in names})
    one, two = names
    world.follow(one)
    world.behind = 4000.0
    acts_at = pause
    while world.now < 2 * DEAD_AFTER:
        world.now += 0.5
        if world.now >= acts_at:
            world.act(one)
            acts_at += pause
        world.nodes[two] = world.nodes[two].hurried(world.now)
        world.act(two)
        assert len(world.leaders()) <= 1


def test_a_clock_set_back_keeps_nobody_from_leading() -> None:
    """Where no lock says that the holder died, it is replaced once nobody can believe in it."""
    rules = replace(RULES, fast=False)
    names = ["web.1/oban_actors:1", "web.1/oban_actors:2"]
    world = World(nodes={name: Lease(replace(rules, node=name)) for name in names})
    one, two = names
    world.follow(one)
    world.behind = 4000.0
    del world.nodes[one]
    while not world.leaders():
        world.now += 0.5
        world.follow(two)

    assert DEAD_AFTER <= world.now <= DEAD_AFTER + FARTHEST + 1


TestCluster = Cluster.TestCase
TestCluster.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)

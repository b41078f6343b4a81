"""The watch over producers: who is dead, decided from what looks have shown, whatever happens."""

from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st

from oban_actors.plugins.watch import Sighting, Suspect, Watch

BEAT = 10.0
LOOK = 10.0


def sighting(at: float, server: str = "a", took: float = 0.0, **beats: str | None) -> Sighting:
    """Make what a look shows that ends so many seconds after it began."""
    return Sighting(at, at + took, server, beats)


def watched(*sightings: Sighting, time: float = 60.0) -> Watch:
    """Give a watch after these looks."""
    watch = Watch(time)
    for each in sightings:
        watch = watch.looked(each)
    return watch


def test_a_beat_that_stays_the_same_for_a_whole_watch_is_a_death() -> None:
    """Not sooner; who beats meanwhile lives."""
    watch = watched(*(sighting(at, dead="x", alive=str(at)) for at in range(0, 60, 10)))
    assert watch.dead() == []
    assert watch.due_in(50.0) == 10.0

    watch = watch.looked(sighting(60.0, dead="x", alive="60"))
    assert watch.dead() == ["dead"]
    # The dead one is not waited for; the living one could be dead a whole watch later.
    assert watch.due_in(60.0) == 60.0


def test_absent_is_a_beat_too() -> None:
    """Claims without a row count from when they were first seen, and a row is a sign of life."""
    looks = [sighting(at, gone=None) for at in range(0, 70, 10)]

    assert watched(*looks).dead() == ["gone"]
    assert watched(*looks[:-1], sighting(60.0, gone="x")).dead() == []
    assert watched(*looks[:-1], sighting(60.0)).suspects == {}


def test_what_lies_between_two_looks_counts() -> None:
    """From the end of the first to the begin of the last one, however long each took."""
    looks = [sighting(at, took=4.0, dead="x") for at in range(0, 70, 10)]

    assert watched(*looks).dead() == []
    assert watched(*looks, sighting(64.0, dead="x")).dead() == ["dead"]


def test_the_longest_dead_first() -> None:
    """In the order of their last beats."""
    looks = [sighting(0, b="b"), *(sighting(at, a="a", b="b") for at in range(10, 90, 10))]

    assert watched(*looks).dead() == ["b", "a"]


def test_a_lag_lets_others_go_first() -> None:
    """Who has one waits longer, and is due later."""
    watch = watched(*(sighting(at, dead="x") for at in range(0, 70, 10)))

    assert watch.dead(5.0) == []
    assert watch.due_in(60.0, 5.0) == 5.0
    assert watch.looked(sighting(65.0, dead="x")).dead(5.0) == ["dead"]


def test_it_begins_anew() -> None:
    """After a failed look, a restart of the server, or a time without looks."""
    looks = [sighting(at, dead="x") for at in range(0, 60, 10)]
    watch = watched(*looks)

    assert watch.broken().looked(sighting(60.0, dead="x")).suspects == {"dead": Suspect("x", 60.0)}
    restarted = watch.looked(sighting(60.0, "b", dead="x"))
    assert restarted.suspects == {"dead": Suspect("x", 60.0)}
    late = watch.looked(sighting(50.0 + watch.gap + 1, dead="x"))
    assert late.suspects == {"dead": Suspect("x", 71.0)}
    slow = watch.looked(sighting(60.0, took=11.0, dead="x"))
    assert slow.suspects == {"dead": Suspect("x", 71.0)}


def test_a_decision_is_stale_after_a_gap() -> None:
    """Who slept since the look does nothing of what it decided."""
    watch = watched(sighting(0.0))

    assert watch.fresh(watch.gap)
    assert not watch.fresh(watch.gap + 1)
    assert not watch.broken().fresh(0.0)
    assert watch.due_in(0.0) is None


@dataclass
class World:
    """A server that goes away, nodes that beat and stop, and a watcher that sleeps at times."""

    watch: Watch = field(default_factory=lambda: Watch(60.0))
    now: float = 0.0
    server: int = 0
    beats: dict[str, int] = field(default_factory=dict)
    beat_at: dict[str, float] = field(default_factory=dict)
    next_beat: dict[str, float] = field(default_factory=dict)
    stopped: dict[str, float] = field(default_factory=dict)
    away_until: float = 0.0
    next_look: float = 0.0
    deaths: list[tuple[str, float]] = field(default_factory=list)

    def run(self, seconds: float) -> None:
        """Let time pass."""
        end = self.now + seconds
        while True:
            due = min([self.next_look, *self.next_beat.values()])
            if due > end:
                self.now = end
                return
            self.now = max(self.now, due)
            for name in [n for n, at in self.next_beat.items() if at <= self.now]:
                self._beat(name)
            if self.next_look <= self.now:
                self._look()

    def _beat(self, name: str) -> None:
        self.next_beat[name] = self.now + BEAT
        if self.now >= self.away_until:
            self.beats[name] = self.beats.get(name, 0) + 1
            self.beat_at[name] = self.now

    def _look(self) -> None:
        self.next_look = self.now + LOOK
        if self.now < self.away_until:
            self.watch = self.watch.broken()
            return
        beats = {name: str(count) for name, count in self.beats.items()}
        self.watch = self.watch.looked(Sighting(self.now, self.now, str(self.server), beats))
        self.deaths += [(name, self.now) for name in self.watch.dead()]


steps = st.lists(
    st.one_of(
        st.tuples(st.just("run"), st.floats(0.1, 100)),
        st.tuples(st.just("away"), st.floats(0.1, 300)),
        st.tuples(st.just("sleep"), st.floats(0.1, 300)),
        st.tuples(st.just("stop"), st.just(0.0)),
    ),
    max_size=25,
)


@given(steps, st.floats(0, 10), st.floats(0, 10))
def test_nobody_who_beats_is_dead_and_who_stopped_is_found(
    script: list[tuple[str, float]], first: float, second: float
) -> None:
    """Whatever the server and the watcher do; once both are there for long enough."""
    world = World(next_beat={"alive": first, "mortal": second})
    stopped = False
    for what, seconds in script:
        match what:
            case "run":
                world.run(seconds)
            case "away":
                # Each time it comes back it is another one.
                world.server += 1
                world.away_until = world.now + seconds
                world.run(seconds)
            case "sleep":
                world.next_look = max(world.next_look, world.now + seconds)
                world.run(seconds)
            case _:
                stopped = True
                world.next_beat.pop("mortal", None)
    for name, at in world.deaths:
        assert name == "mortal"
        assert at - world.beat_at["mortal"] >= 60
    before = world.now
    world.run(max(0.0, world.next_look - world.now, world.away_until - world.now) + 80)
    found = {name for name, at in world.deaths if at > before}
    assert found <= {"mortal"}
    assert found == ({"mortal"} if stopped and "mortal" in world.beats else set())

"""Fixtures for the actors' tests: trees that are ended, and a look at what pykka still knows."""

from collections.abc import Callable, Iterator
from typing import Any

import pykka
import pytest

from oban_actors.actors import Root, Supervisor, VirtualClock
from tests.actors.lab import Journal, Lab

StartTree = Callable[..., Root]
StartLab = Callable[..., Any]


@pytest.fixture(autouse=True)
def _nothing_left() -> Iterator[None]:
    yield
    assert pykka.ActorRegistry.get_all() == []


@pytest.fixture
def journal() -> Journal:
    """What the actors of this test did."""
    return Journal()


@pytest.fixture
def clock() -> VirtualClock:
    """A clock that this test moves."""
    return VirtualClock()


@pytest.fixture
def tree(_nothing_left: None) -> Iterator[StartTree]:
    """Starts trees, as `Supervisor.start` does, and ends them after the test."""
    roots: list[Root] = []

    def start(*args: Any, **kwargs: Any) -> Root:
        roots.append(Supervisor.start(*args, **kwargs))
        return roots[-1]

    yield start
    for root in reversed(roots):
        root.stop(60)


@pytest.fixture
def start(_nothing_left: None, journal: Journal) -> Iterator[StartLab]:
    """Starts Labs on their own, with this test's journal, and ends them after the test."""
    refs: list[Any] = []

    def start(tag: str = "lab", **options: Any) -> Any:
        refs.append(Lab.start_link((tag, journal, options.pop("hooks", None)), {}, **options))
        return refs[-1]

    yield start
    for ref in refs:
        ref.stop()

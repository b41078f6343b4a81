"""Hosting: every actor that is started meanwhile runs as a thread of the hub."""

import logging
import threading
import types
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from typing import Any
from unittest import mock

from oban_actors import config
from oban_actors.actors import gen_server, mailbox, process, reasons
from oban_actors.actors.registry import Registry
from oban_actors.claim import Claim
from oban_actors.notifiers import postgres
from oban_actors.plugins import rescuing
from oban_actors.plugins.watch import Sighting, Watch
from oban_actors.queues import producer, roster, watchman
from oban_actors.repo import repo, transactions
from tests.simulation.hub import Hub
from tests.simulation.link import SimAttempt, SimLink
from tests.simulation.seams import SimCondition, SimEvent, SimMailbox, SimReply, SimSelectMailbox

Patches = list[tuple[Any, str, Any]]

SILENCE = 1.0
"""Seconds that a client waits beyond a statement's time: in proportion to the other times here."""


@contextmanager
def hosted(hub: Hub) -> Iterator[None]:
    """Let all actors that are started meanwhile be threads of the hub."""
    with ExitStack() as stack:
        for owner, name, value in [*_threads(hub), *_clocks(hub), *_chance(hub)]:
            stack.enter_context(mock.patch.object(owner, name, value))
        stack.callback(logging.disable, logging.root.manager.disable)
        logging.disable(logging.CRITICAL)
        yield


def _threads(hub: Hub) -> Patches:
    real_ident = threading.get_ident

    def ident() -> int:
        return real_ident() if hub.current is None else hub.current.number

    def start(actor: Any) -> None:
        assert hub.current is not None
        hub.spawn(hub.current.machine, actor._actor_loop)

    server = gen_server.GenServer
    reply = type("HubReply", (SimReply,), {"hub": hub})
    return [
        (server, "_create_actor_inbox", staticmethod(partial(SimMailbox, hub))),
        (server, "_create_future", staticmethod(reply)),
        (server, "_start_actor_loop", start),
        (process, "threading", _with(process, Event=partial(SimEvent, hub))),
        (roster, "threading", _with(roster, Condition=partial(SimCondition, hub))),
        # No other threads are to be let run, but other programs would be.
        (producer, "time", types.SimpleNamespace(sleep=lambda _: None)),
        (threading, "get_ident", ident),
        (
            postgres.PostgresNotifier,
            "_create_actor_inbox",
            staticmethod(partial(SimSelectMailbox, hub)),
        ),
        # An end of the simulation is a crash of all: nobody reads where they stood.
        (reasons, "traceback", types.SimpleNamespace(format_exception=lambda error: [repr(error)])),
        (postgres, "Attempt", SimAttempt),
        (postgres, "Link", SimLink),
    ]


def _clocks(hub: Hub) -> Patches:
    def monotonic() -> float:
        return 0.0 if hub.current is None else hub.current.machine.monotonic()

    measuring = (gen_server, mailbox, process, producer, roster, watchman, postgres)
    return [
        *((module, "real_monotonic", monotonic) for module in measuring),
        (transactions, "SYSTEM_CLOCK", types.SimpleNamespace(monotonic=monotonic)),
        (repo, "GRACE", SILENCE),
    ]


def _chance(hub: Hub) -> Patches:
    """Take identities from the seed, and give sets an order that is the same in each process."""
    channels_of, looked_at = Registry.channels, Watch.looked

    def uuid4() -> uuid.UUID:
        return uuid.UUID(int=hub.rng.getrandbits(128), version=4)

    def channels(registry: Registry) -> dict[str, None]:
        return dict.fromkeys(sorted(channels_of(registry)))

    def looked(watch: Watch, sighting: Sighting) -> Watch:
        return looked_at(watch, replace(sighting, beats=dict(sorted(sighting.beats.items()))))

    return [
        *((module, "uuid4", uuid4) for module in (uuid, config, rescuing)),
        (Claim, "__hash__", lambda claim: hash(claim.id)),
        (Registry, "channels", channels),
        (Watch, "looked", looked),
    ]


def _with(module: Any, **others: Callable[..., Any]) -> types.SimpleNamespace:
    return types.SimpleNamespace(**vars(module.threading) | others)

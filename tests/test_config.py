"""Config: defaults, what each option takes, and the exact words for what it doesn't."""

import re
import socket
from dataclasses import FrozenInstanceError, fields, replace
from datetime import timedelta
from typing import Any, get_type_hints

import pytest

from oban_actors.actors.clock import SYSTEM_CLOCK, VirtualClock
from oban_actors.config import (
    Config,
    NotifierOptions,
    PeerOptions,
    PulseOptions,
    QueueOptions,
    StagerOptions,
)
from oban_actors.errors import ConfigError
from oban_actors.options import Options


def refused(message: str) -> Any:
    """Expect a ConfigError with exactly this message."""
    return pytest.raises(ConfigError, match=f"^{re.escape(message)}$")


class Plugin:
    """The least that a plugin is."""

    @classmethod
    def child_spec(cls) -> object:
        """Not called by Config."""


class CheckedPlugin(Plugin):
    """A plugin with options to check."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.checked = 0

    def validate(self) -> None:
        """Raise what it was made with."""
        self.checked += 1
        if self.error is not None:
            raise self.error


def test_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without options an instance is as documented."""
    monkeypatch.delenv("OBAN_NODE", raising=False)
    monkeypatch.delenv("DYNO", raising=False)
    monkeypatch.setattr(socket, "gethostname", lambda: "web.1")

    config = Config.build()

    assert replace(config, identity="i") == Config(
        name="Oban",
        node="web.1",
        identity="i",
        prefix="public",
        stager=StagerOptions(interval=1.0, limit=5_000),
        peer=PeerOptions(
            kind="database", mode="yield", leader=True, lease=15.0, renew=5.0, advisory_lock=True
        ),
        notifier=NotifierOptions(kind="auto", listen_url=None),
        pulse=PulseOptions(interval=10.0),
        engine="auto",
        plugins=(),
        queues={},
        shutdown_grace_period=15.0,
        insert_notify=True,
        clock=SYSTEM_CLOCK,
        statement_timeout=30.0,
        lock_timeout=5.0,
        connect_timeout=5.0,
        pool_size=4,
        elixir_indexes=False,
        unique_keys=(),
        unique_meta_keys=(),
        testing="disabled",
    )


@pytest.mark.parametrize(
    ("environment", "node"),
    [
        ({"OBAN_NODE": "a", "DYNO": "b"}, "a"),
        ({"DYNO": "b"}, "b"),
        ({"OBAN_NODE": "", "DYNO": ""}, "host"),
    ],
    ids=["own", "dyno", "host"],
)
def test_node_comes_from_the_environment(
    environment: dict[str, str], node: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """OBAN_NODE goes before DYNO, that before the host's name; empty ones don't count."""
    for name in ("OBAN_NODE", "DYNO"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(socket, "gethostname", lambda: "host")

    assert Config.build().node == node
    assert Config.build(node="given").node == "given"


def test_a_host_without_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """There is a node even where the host has no name."""
    monkeypatch.delenv("OBAN_NODE", raising=False)
    monkeypatch.delenv("DYNO", raising=False)
    monkeypatch.setattr(socket, "gethostname", lambda: "")

    assert Config.build().node == "localhost"


def test_identity_is_unique_and_no_option() -> None:
    """Two instances on one node never share what holds leases, and nobody can make them."""
    first, second = Config.build(node="n"), Config.build(node="n")

    assert first.identity != second.identity
    assert len(first.identity) == 32
    with refused("unknown option 'identity'"):
        Config.build(identity="n")


def test_a_config_is_frozen() -> None:
    """Nothing of it can be changed, its queues included."""
    config = Config.build(queues={"a": 1})

    with pytest.raises(FrozenInstanceError):
        config.name = "Other"  # type: ignore[misc]  # the point of the test
    with pytest.raises(TypeError):
        config.queues["b"] = QueueOptions(limit=1)  # type: ignore[index]  # as above


def test_a_config_made_by_hand_is_checked_too() -> None:
    """There is no way around the checks."""
    with refused("invalid value for 'pool_size': expected a positive integer, got: 0"):
        replace(Config.build(), pool_size=0)


def test_a_config_can_be_a_key() -> None:
    """It can be hashed whatever its plugins and queues are."""
    config = Config.build(queues={"a": 1}, plugins=[Plugin()])

    assert {config: 1}[config] == 1


def test_its_repr_has_no_secrets() -> None:
    """Neither addresses nor plugins are written out."""
    config = Config.build(notifier={"listen_url": "postgresql://u:secret@h/d"}, plugins=[Plugin()])

    assert "secret" not in repr(config)
    assert "Plugin" not in repr(config)
    assert config.notifier.listen_url == "postgresql://u:secret@h/d"


def test_the_typed_options_are_the_config() -> None:
    """What type checkers accept is what `build` accepts."""
    names = {each.name for each in fields(Config)} - {"identity"}

    assert get_type_hints(Options).keys() == names


@pytest.mark.parametrize(
    ("option", "given", "kept"),
    [
        ("name", "MyApp.Oban", "MyApp.Oban"),
        ("name", "{:oban, 1}", "{:oban, 1}"),
        ("prefix", "_Private9", "_Private9"),
        ("prefix", "p" * 51, "p" * 51),
        ("stager", None, None),
        ("stager", False, None),
        ("stager", {}, StagerOptions()),
        ("stager", {"interval": None}, None),
        ("stager", {"interval": 30}, StagerOptions(interval=30.0)),
        ("stager", {"interval": timedelta(milliseconds=1)}, StagerOptions(interval=0.001)),
        ("stager", StagerOptions(limit=1), StagerOptions(limit=1)),
        ("peer", None, None),
        ("peer", False, None),
        ("peer", "isolated", PeerOptions(kind="isolated")),
        (
            "peer",
            {"kind": "isolated", "leader": False},
            PeerOptions(kind="isolated", leader=False),
        ),
        ("peer", {"mode": "equal"}, PeerOptions(mode="equal")),
        ("peer", {"lease": timedelta(seconds=1), "renew": 0.5}, PeerOptions(lease=1, renew=0.5)),
        ("peer", {"advisory_lock": False}, PeerOptions(advisory_lock=False)),
        ("notifier", "isolated", NotifierOptions(kind="isolated")),
        ("notifier", {"kind": "sqlite"}, NotifierOptions(kind="sqlite")),
        (
            "notifier",
            {"kind": "postgres", "listen_url": "postgresql+psycopg://h/d"},
            NotifierOptions(kind="postgres", listen_url="postgresql+psycopg://h/d"),
        ),
        ("pulse", {"interval": 1}, PulseOptions(interval=1.0)),
        ("engine", "sqlite", "sqlite"),
        ("queues", None, {}),
        ("queues", False, {}),
        (
            "queues",
            {"a": 1, "b": {"limit": 2, "paused": True}, "c": QueueOptions(limit=3)},
            {
                "a": QueueOptions(limit=1),
                "b": QueueOptions(limit=2, paused=True),
                "c": QueueOptions(limit=3),
            },
        ),
        ("plugins", None, ()),
        ("plugins", False, ()),
        ("plugins", [Plugin], (Plugin,)),
        ("plugins", [CheckedPlugin], (CheckedPlugin,)),
        ("shutdown_grace_period", 0, 0.0),
        ("statement_timeout", timedelta(minutes=1), 60.0),
        ("insert_notify", False, False),
        ("pool_size", 1, 1),
        ("elixir_indexes", True, True),
        ("unique_keys", ["id"], (("id",),)),
        ("unique_meta_keys", ["id"], (("id",),)),
        ("unique_keys", ("id", ["b", "a", "b"], ("a", "b")), (("id",), ("a", "b"))),
    ],
)
def test_options_that_pass(option: str, given: object, kept: object) -> None:
    """Each option takes what it should, and keeps it in one form."""
    assert getattr(Config.build(**{option: given}), option) == kept


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"queuess": {}}, "unknown option 'queuess', did you mean 'queues'?"),
        ({"foo": 1}, "unknown option 'foo'"),
        (
            {"stager": {"intervall": 1}},
            "unknown option 'intervall' for stager, did you mean 'interval'?",
        ),
        ({"peer": {"leese": 1}}, "unknown option 'leese' for peer, did you mean 'lease'?"),
        (
            {"notifier": {"listen_ulr": "x"}},
            "unknown option 'listen_ulr' for notifier, did you mean 'listen_url'?",
        ),
        ({"pulse": {"foo": 1}}, "unknown option 'foo' for pulse"),
        (
            {"queues": {"a": {"limits": 1}}},
            "unknown option 'limits' for queues.a, did you mean 'limit'?",
        ),
    ],
)
def test_unknown_options(options: dict[str, Any], message: str) -> None:
    """The message has the owner's path and the nearest known option."""
    with refused(message):
        Config.build(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"peer": {"leader": False}},
            "option 'peer.leader' needs the kind 'isolated'; peer=False never leads",
        ),
        (
            {"notifier": {"kind": "sqlite", "listen_url": "postgresql://h/d"}},
            "option 'notifier.listen_url' needs the kind 'postgres', got: 'sqlite'",
        ),
        (
            {"notifier": {"listen_url": "postgresql://h/d"}, "engine": "sqlite"},
            "option 'notifier.listen_url' needs the engine 'postgres'",
        ),
        (
            {"queues": {"a": {"paused": True}}},
            "invalid value for 'queues.a': missing required option 'limit'",
        ),
    ],
)
def test_options_that_do_not_go_together(options: dict[str, Any], message: str) -> None:
    """Each option may be right, and the whole wrong."""
    with refused(message):
        Config.build(**options)


def test_every_prefix_leaves_room_for_channels() -> None:
    """The longest prefix makes names that PostgreSQL keeps whole."""
    config = Config.build(prefix="p" * 51)

    for channel in ("insert", "leader", "signal", "gossip", "sonar", "stager", "actors"):
        assert len(config.channel(channel).encode()) <= 63


def test_plugins_check_themselves() -> None:
    """A plugin's own check is called once; its error is told with its place and class."""
    plugin = CheckedPlugin()
    assert Config.build(plugins=[plugin]).plugins == (plugin,)
    assert plugin.checked == 1

    with refused("invalid value for 'plugins[0]' (CheckedPlugin): interval is wrong"):
        Config.build(plugins=[CheckedPlugin(ConfigError("interval is wrong"))])
    with refused("invalid value for 'plugins[1]' (CheckedPlugin): 'bad'"):
        Config.build(plugins=[Plugin(), CheckedPlugin(ValueError("bad"))])


def test_a_plugin_is_given_once() -> None:
    """The same object can't be two children."""
    plugin = Plugin()

    with refused("invalid value for 'plugins': found duplicate plugins: ['Plugin']"):
        Config.build(plugins=[plugin, Plugin(), plugin])


def test_a_virtual_clock_is_a_clock() -> None:
    """Tests bring their own time."""
    clock = VirtualClock()

    assert Config.build(clock=clock).clock is clock


def test_channels_and_addresses() -> None:
    """Names on the wire are Oban's, and a node knows what is meant for it."""
    config = Config.build(name="Oban", node="web.1", prefix="private")

    assert config.channel("insert") == "private.oban_insert"
    assert config.ident == "Oban.web.1"
    assert config.matches_ident("any")
    assert config.matches_ident("Oban.web.1")
    assert config.matches_ident(None)
    assert not config.matches_ident("Oban.web.2")
    assert not config.matches_ident(7)
    assert not config.matches_ident(["any"])

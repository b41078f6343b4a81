"""Options that are refused: the path, what was expected, and what came without secrets."""

from dataclasses import fields
from typing import Any

import pytest

from oban_actors.config import (
    Config,
    HealthOptions,
    NotifierOptions,
    PeerOptions,
    PulseOptions,
    QueueOptions,
    StagerOptions,
)
from oban_actors.errors import ConfigError

PRINTABLE = "a printable string of 1 to 255 characters"
IDENTIFIER = "a name of letters, digits and underscores that begins with no digit"
SHORT = "at most 51 characters, so that the names of channels fit"
INTERVAL = "a positive number of seconds or None"
SECONDS = "a positive number of seconds"
MAPPING = "a mapping of options"
KIND = "a kind or a mapping of options"
ALTERNATIVES = ", None or False"
KINDS = "one of 'auto', 'postgres', 'sqlite', 'isolated'"
QUEUE = "a non-blank string of at most 127 characters"
URL = "a URL that begins with 'postgresql://' or None"
EXECUTOR = "'threads', 'processes' or a concurrent.futures.Executor"
UNIQUE_KEYS = "a list of keys, or of lists of keys that go together"
SOME_KEYS = "a key, or a list of 1 to 8 of them"
STORABLE = "text without NUL characters and lone surrogates"
A_KEY = "a non-blank string of at most 200 characters"
HOST = "a non-blank string of at most 255 characters"
PARTS: dict[str, type] = {
    "": Config,
    "stager": StagerOptions,
    "peer": PeerOptions,
    "notifier": NotifierOptions,
    "pulse": PulseOptions,
    "health": HealthOptions,
    "queues.a": QueueOptions,
}
OPTIONS = [
    (part, field.name)
    for part, kind in PARTS.items()
    for field in fields(kind)
    if field.name != "identity"
]

REFUSED: list[tuple[dict[str, Any], str, str, str | None]] = [
    ({"name": ""}, "name", PRINTABLE, "''"),
    ({"name": " "}, "name", PRINTABLE, "' '"),
    ({"name": "a\x00"}, "name", PRINTABLE, r"'a\x00'"),
    ({"name": None}, "name", PRINTABLE, "None"),
    ({"node": ""}, "node", f"{PRINTABLE} without spaces", "''"),
    ({"node": "a b"}, "node", f"{PRINTABLE} without spaces", "'a b'"),
    ({"node": "a\nb"}, "node", f"{PRINTABLE} without spaces", r"'a\nb'"),
    ({"node": 1}, "node", f"{PRINTABLE} without spaces", "1"),
    ({"prefix": ""}, "prefix", IDENTIFIER, "''"),
    ({"prefix": "1a"}, "prefix", IDENTIFIER, "'1a'"),
    ({"prefix": 'a"; drop'}, "prefix", IDENTIFIER, "'a\"; drop'"),
    ({"prefix": "a\n"}, "prefix", IDENTIFIER, r"'a\n'"),
    ({"prefix": "ä"}, "prefix", IDENTIFIER, "'ä'"),
    ({"prefix": None}, "prefix", IDENTIFIER, "None"),
    ({"prefix": "p" * 52}, "prefix", SHORT, repr("p" * 52)),
    ({"prefix": "pg_jobs"}, "prefix", "a name that does not begin with 'pg_'", "'pg_jobs'"),
    ({"stager": True}, "stager", MAPPING + ALTERNATIVES, "True"),
    ({"stager": 1.0}, "stager", MAPPING + ALTERNATIVES, "1.0"),
    ({"stager": {"interval": 0}}, "stager.interval", INTERVAL, "0"),
    ({"stager": {"interval": -1}}, "stager.interval", INTERVAL, "-1"),
    ({"stager": {"interval": "1"}}, "stager.interval", INTERVAL, "'1'"),
    ({"stager": {"interval": True}}, "stager.interval", INTERVAL, "True"),
    ({"stager": {"limit": 0}}, "stager.limit", "a positive integer", "0"),
    ({"stager": {"limit": 1.5}}, "stager.limit", "a positive integer", "1.5"),
    ({"stager": {"interval": None, "limit": 0}}, "stager.limit", "a positive integer", "0"),
    ({"stager": StagerOptions(limit=0)}, "stager.limit", "a positive integer", "0"),
    ({"peer": True}, "peer", KIND + ALTERNATIVES, "True"),
    ({"peer": "global"}, "peer", "one of 'database', 'isolated'", "'global'"),
    ({"peer": {"kind": 1}}, "peer.kind", "one of 'database', 'isolated'", "1"),
    ({"peer": {"mode": "no"}}, "peer.mode", "one of 'yield', 'equal'", "'no'"),
    ({"peer": {"leader": 1}}, "peer.leader", "a boolean", "1"),
    ({"peer": {"lease": 0}}, "peer.lease", SECONDS, "0"),
    ({"peer": {"lease": 601}}, "peer.lease", "at most 600 seconds", "601"),
    ({"peer": {"renew": None}}, "peer.renew", SECONDS, "None"),
    ({"peer": {"renew": 8}}, "peer.renew", "at most half of 'peer.lease', 7.5 seconds", "8.0"),
    ({"peer": {"lease": 9}}, "peer.renew", "at most half of 'peer.lease', 4.5 seconds", "5.0"),
    ({"peer": {"advisory_lock": "x"}}, "peer.advisory_lock", "a boolean", "'x'"),
    ({"notifier": None}, "notifier", KIND, "None"),
    ({"notifier": "pg"}, "notifier", KINDS, "'pg'"),
    ({"notifier": "postgresql://u:secret@h"}, "notifier", KINDS, "'postgresql://...'"),
    (
        {"notifier": {"listen_url": "host=h password=secret"}},
        "notifier.listen_url",
        URL,
        "something else, not shown",
    ),
    (
        {"notifier": "sqlite", "engine": "postgres"},
        "notifier.kind",
        "one for the engine 'postgres'",
        "'sqlite'",
    ),
    ({"pulse": None}, "pulse", MAPPING, "None"),
    ({"pulse": {"interval": 0}}, "pulse.interval", SECONDS, "0"),
    (
        {"pulse": {"interval": 10.5}},
        "pulse.interval",
        "at most 10 seconds, since others take a silent node for dead",
        "10.5",
    ),
    ({"health": "x"}, "health", f"{MAPPING}, a port{ALTERNATIVES}", "'x'"),
    ({"health": True}, "health.port", "an integer from 0 to 65535", "True"),
    ({"health": {"port": -1}}, "health.port", "an integer from 0 to 65535", "-1"),
    ({"health": {"port": 1, "host": ""}}, "health.host", HOST, "''"),
    ({"health": {"port": 1, "hosts": "a"}}, "health.hosts", "a list of names of hosts", "'a'"),
    ({"health": {"port": 1, "hosts": [1]}}, "health.hosts[0]", HOST, "1"),
    ({"health": {"port": 1, "patience": None}}, "health.patience", SECONDS, "None"),
    (
        {"health": {"port": 1, "patience": 59}},
        "health.patience",
        "at least twice 'statement_timeout', 60 seconds",
        "59.0",
    ),
    ({"health": {"port": 1, "interval": 0}}, "health.interval", SECONDS, "0"),
    ({"imports": "shop"}, "imports", "a list of names of modules", "'shop'"),
    ({"imports": ["shop", "a b"]}, "imports[1]", "the name of a module", "'a b'"),
    ({"testing": True}, "testing", "one of 'disabled', 'manual', 'inline'", "True"),
    ({"engine": "mysql"}, "engine", "one of 'auto', 'postgres', 'sqlite'", "'mysql'"),
    ({"plugins": "x"}, "plugins", "a list of plugins", "'x'"),
    ({"plugins": [1]}, "plugins[0]", "a plugin, an object with child_spec()", "1"),
    ({"queues": ["a"]}, "queues", "a mapping of names to limits or options", "['a']"),
    ({"queues": {"": 1}}, "queues", QUEUE, "''"),
    ({"queues": {1: 1}}, "queues", QUEUE, "1"),
    ({"queues": {"q" * 128: 1}}, "queues", QUEUE, None),
    (
        {"queues": {"*": 1}},
        "queues",
        "another name than '*', which means all queues",
        "'*'",
    ),
    ({"queues": {"a": 0}}, "queues.a", "a positive integer", "0"),
    ({"queues": {"a": True}}, "queues.a", "a positive integer", "True"),
    ({"queues": {"a": None}}, "queues.a", "a limit or a mapping of options", "None"),
    ({"queues": {"a": {"limit": 0}}}, "queues.a.limit", "a positive integer", "0"),
    (
        {"queues": {"a": {"limit": 1, "paused": 1}}},
        "queues.a.paused",
        "a boolean",
        "1",
    ),
    (
        {"queues": {"a": {"limit": 1, "executor": "fibers"}}},
        "queues.a.executor",
        EXECUTOR,
        "'fibers'",
    ),
    ({"queues": {"a": {"limit": 1, "executor": None}}}, "queues.a.executor", EXECUTOR, "None"),
    (
        {"queues": {"a": {"limit": 1, "dispatch_cooldown": -1}}},
        "queues.a.dispatch_cooldown",
        "a non-negative number of seconds",
        "-1",
    ),
    (
        {"shutdown_grace_period": -1},
        "shutdown_grace_period",
        "a non-negative number of seconds",
        "-1",
    ),
    ({"insert_notify": None}, "insert_notify", "a boolean", "None"),
    ({"clock": None}, "clock", "a clock, as oban_actors.actors has them", "None"),
    ({"statement_timeout": None}, "statement_timeout", SECONDS, "None"),
    ({"statement_timeout": 1e-9}, "statement_timeout", "at least 0.001 seconds", "1e-09"),
    ({"lock_timeout": 0}, "lock_timeout", SECONDS, "0"),
    ({"connect_timeout": 1e9}, "connect_timeout", "at most 2147483 seconds", "1000000000.0"),
    ({"pool_size": 0}, "pool_size", "a positive integer", "0"),
    ({"elixir_indexes": "no"}, "elixir_indexes", "a boolean", "'no'"),
    ({"unique_keys": "id"}, "unique_keys", UNIQUE_KEYS, "'id'"),
    ({"unique_keys": 7}, "unique_keys", UNIQUE_KEYS, "7"),
    ({"unique_meta_keys": "id"}, "unique_meta_keys", UNIQUE_KEYS, "'id'"),
    ({"unique_meta_keys": [[]]}, "unique_meta_keys[0]", SOME_KEYS, "[]"),
    ({"unique_keys": [""]}, "unique_keys[0]", A_KEY, "''"),
    ({"unique_keys": ["id", []]}, "unique_keys[1]", SOME_KEYS, "[]"),
    ({"unique_keys": [list("abcdefghi")]}, "unique_keys[0]", SOME_KEYS, None),
    ({"unique_keys": [["id", 7]]}, "unique_keys[0][1]", A_KEY, "7"),
    ({"unique_keys": [["a\0"]]}, "unique_keys[0][0]", STORABLE, None),
]


@pytest.mark.parametrize(
    ("options", "path", "expected", "got"),
    REFUSED,
    ids=[f"{path}-{index}" for index, (_, path, *_) in enumerate(REFUSED)],
)
def test_options_that_are_refused(
    options: dict[str, Any], path: str, expected: str, got: str | None
) -> None:
    """The message has the path, what was expected and, without secrets, what came."""
    with pytest.raises(ConfigError) as caught:
        Config.build(**options)

    message = f"invalid value for '{path}': expected {expected}, got: "
    assert str(caught.value).startswith(message)
    assert got is None or str(caught.value) == message + got
    assert "secret" not in str(caught.value)


def test_each_option_is_refused_above() -> None:
    """None is left out, of the instance or of a part."""
    refused = {path for _, path, *_ in REFUSED}

    assert {".".join(filter(None, option)) for option in OPTIONS} - {"queues.a"} <= refused


@pytest.mark.parametrize(("part", "option"), OPTIONS)
def test_each_option_is_recognised_misspelt(part: str, option: str) -> None:
    """Whoever doubles its last letter is told its name, and whose option it is."""
    name = option + option[-1]
    given: dict[str, Any] = {name: 1}
    for owner in reversed(part.split(".") if part else []):
        given = {owner: given}
    place = f" for {part}" if part else ""

    with pytest.raises(ConfigError) as caught:
        Config.build(**given)

    assert str(caught.value) == f"unknown option {name!r}{place}, did you mean {option!r}?"

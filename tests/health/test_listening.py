"""Where the endpoint listens: what may be asked for, and who keeps a port."""

import os
import socket
from typing import Any

import pytest

from oban_actors import Address, ConfigError, Oban, StartFailed
from tests.health.client import ANY, address, get
from tests.support.databases import Database
from tests.support.instances import Starter


def test_a_port_that_is_taken_is_an_error_of_the_configuration(start_oban: Starter) -> None:
    """Nothing starts, and the message names option, address and reason."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        oban = start_oban.make(health=port)
        with pytest.raises(ConfigError, match=rf"'health': can't listen on 127.0.0.1 port {port}:"):
            oban.start()
    assert not oban.alive
    oban.start()  # the port is free again, and so is everything else
    assert address(oban).port == port


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_a_fork_keeps_no_port(start_oban: Starter) -> None:
    """A child that lives on does not hold the port of a parent whose tree has ended."""
    oban = start_oban(health=ANY)
    port = address(oban).port
    reading, writing = os.pipe()
    running, runs = os.pipe()
    child = os.fork()
    if child == 0:  # pragma: no cover (another process)
        os.write(runs, b"!")
        os.close(writing)
        os.read(reading, 1)
        os._exit(0)
    try:
        os.read(running, 1)  # a child that has yet to run has given nothing back yet
        oban.stop()
        socket.create_server(("127.0.0.1", port)).close()
    finally:
        for end in (writing, reading, running, runs):
            os.close(end)
        os.waitpid(child, 0)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (True, "'health.port': expected an integer from 0 to 65535, got: True"),
        (65_536, "'health.port': expected an integer from 0 to 65535"),
        ({}, "'health': missing required option 'port'"),
        ("4000", "'health': expected a mapping of options, a port, None or False"),
        ({"port": 1, "hots": []}, "unknown option 'hots' for health, did you mean 'hosts'?"),
        ({"port": 1, "host": ""}, "'health.host': expected a non-blank string"),
        ({"port": 1, "hosts": "a"}, "'health.hosts': expected a list of names of hosts"),
        ({"port": 1, "hosts": [1]}, "'health.hosts[0]': expected a non-blank string"),
        ({"port": 1, "interval": 0}, "'health.interval': expected a positive number"),
        ({"port": 1, "patience": 59}, "'health.patience': expected at least twice"),
    ],
)
def test_wrong_options_are_refused(given: Any, message: str) -> None:
    """By name, before anything starts."""
    with pytest.raises(ConfigError) as refused:
        Oban("sqlite:///jobs.db", health=given)
    assert message in str(refused.value)


def test_a_port_is_enough(sqlite: Database) -> None:
    """And None or False mean no endpoint."""
    assert Oban(sqlite.url, health=4000).config.health.port == 4000
    assert Oban(sqlite.url, health={"port": 1, "hosts": ["A.b"]}).config.health.hosts == ("a.b",)
    assert Oban(sqlite.url, health=False).config.health is None
    assert Oban(sqlite.url).config.health is None
    assert Oban(sqlite.url, health=4000, testing="manual").config.health is None


@pytest.mark.parametrize("asked", ["127.0.0.1", "::1"])
def test_all_addresses_at_once(start_oban: Starter, asked: str) -> None:
    """`::` is every address of either kind."""
    if not socket.has_dualstack_ipv6():
        pytest.skip("needs IPv6")
    where = address(start_oban(health={"port": 0, "host": "::"}))

    assert get(Address(asked, where.port), "/live").status == 200


def test_a_host_that_is_nobodys_is_refused(start_oban: Starter) -> None:
    """An address that this machine has not can't be listened on."""
    oban = start_oban.make(health={"port": 0, "host": "203.0.113.7"})
    with pytest.raises((ConfigError, StartFailed), match=r"can't listen on 203\.0\.113\.7"):
        oban.start()

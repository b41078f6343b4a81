"""Settings: which source counts, and what each may hold."""

from pathlib import Path
from typing import Any

import pytest

from oban_actors import Oban
from oban_actors.config import NotifierOptions, PeerOptions, QueueOptions, StagerOptions
from oban_actors.options import HealthOptions
from oban_actors.settings import load
from tests.settings.loading import Load, refused

# Which source counts


def test_nothing_given_is_all_defaults(settings: Load) -> None:
    """No file, no variable, no keyword: as `Oban` itself, and no database."""
    found = settings()

    assert found.config.stager == StagerOptions()
    assert found.origins == {}
    assert found.file is None
    assert found.address() is None
    with refused(
        "there is no database: give an address, set OBAN_DATABASE_URL, or write database_url in "
        "oban.toml"
    ):
        found.make(Oban)


def test_keywords_go_before_variables_before_the_file(settings: Load) -> None:
    """Option by option, those of parts too; queues are taken whole."""
    found = settings(
        """
        database_url = "sqlite:///file.db"
        name = "File"
        prefix = "file"
        pool_size = 2
        queues = { mailers = 10, media = 4 }
        [stager]
        interval = 0.5
        limit = 10
        """,
        {
            "OBAN_PREFIX": "env",
            "OBAN_POOL_SIZE": "3",
            "OBAN_STAGER_LIMIT": "20",
            "OBAN_QUEUES": "a=1",
        },
        pool_size=7,
        stager={"interval": 2},
    )

    config = found.config
    assert (config.name, config.prefix, config.pool_size) == ("File", "env", 7)
    assert config.stager == StagerOptions(interval=2.0, limit=20)
    assert config.queues == {"a": QueueOptions(limit=1)}
    assert found.origins["stager.limit"] == "OBAN_STAGER_LIMIT"
    assert found.origins["name"] == "oban.toml"
    assert found.origins["pool_size"] == ""
    assert found.file == "oban.toml"


def test_a_kind_alone_leaves_the_other_options(settings: Load) -> None:
    """`peer="isolated"` and `OBAN_PEER=isolated` say the kind; False and objects replace all."""
    toml = "[peer]\nmode = 'equal'"

    assert settings(toml, peer="isolated").config.peer == PeerOptions(kind="isolated", mode="equal")
    assert settings(toml, {"OBAN_PEER": "isolated"}).config.peer == PeerOptions(
        kind="isolated", mode="equal"
    )
    assert settings(toml, peer=PeerOptions(lease=30)).config.peer == PeerOptions(lease=30)
    assert settings(toml, peer=False).config.peer is None
    assert settings(toml, {"OBAN_PEER": "off"}).config.peer is None
    assert settings("peer = false", {"OBAN_PEER_MODE": "equal"}).config.peer == PeerOptions(
        mode="equal"
    )


@pytest.mark.parametrize(
    ("variables", "option", "value"),
    [
        ({"OBAN_NAME": "Billing"}, "name", "Billing"),
        ({"OBAN_NODE": "web.1"}, "node", "web.1"),
        ({"OBAN_NAME": "  "}, "name", "Oban"),
        ({"OBAN_INSERT_NOTIFY": "no"}, "insert_notify", False),
        ({"OBAN_ELIXIR_INDEXES": "TRUE"}, "elixir_indexes", True),
        ({"OBAN_STATEMENT_TIMEOUT": "2.5"}, "statement_timeout", 2.5),
        ({"OBAN_IMPORTS": "shop.mail, shop.media"}, "imports", ("shop.mail", "shop.media")),
        ({"OBAN_UNIQUE_KEYS": "id, tenant"}, "unique_keys", (("id",), ("tenant",))),
        ({"OBAN_UNIQUE_META_KEYS": "id"}, "unique_meta_keys", (("id",),)),
        ({"OBAN_UNIQUE_KEYS": '[["tenant", "id"]]'}, "unique_keys", (("id", "tenant"),)),
        ({"OBAN_QUEUES": "mailers=10, media=4"}, "queues", {"mailers": 10, "media": 4}),
        ({"OBAN_QUEUES": '{"a": {"limit": 3, "paused": true}}'}, "queues", {"a": 3}),
        ({"OBAN_QUEUES": "none"}, "queues", {}),
        ({"OBAN_STAGER": "none"}, "stager", None),
        ({"OBAN_STAGER_INTERVAL": "none"}, "stager", None),
        ({"OBAN_STAGER": '{"limit": 7}'}, "stager", StagerOptions(limit=7)),
        ({"OBAN_NOTIFIER": "isolated"}, "notifier", NotifierOptions(kind="isolated")),
        ({"OBAN_TESTING": "manual"}, "testing", "manual"),
        ({"OBAN_PLUGINS": "none"}, "plugins", ()),
    ],
)
def test_variables_are_read_as_their_options_ask(
    settings: Load, variables: dict[str, str], option: str, value: Any
) -> None:
    """Text becomes a number, a boolean, a list, queues or none; empty is as not given."""
    found = getattr(settings("", variables).config, option)

    assert (
        {name: how.limit for name, how in found.items()} if option == "queues" else found
    ) == value


# Which file


def test_the_project_file_is_read_where_there_is_no_own(tmp_path: Path) -> None:
    """`[tool.oban_actors]` counts, unless there is an `oban.toml`; other tables are not ours."""
    project = tmp_path / "pyproject.toml"
    project.write_text("[tool.other]\nname = 'x'")
    assert load(environ={}, directory=tmp_path).file is None
    project.write_text("[tool.oban_actors]\nname = 'Project'")
    assert load(environ={}, directory=tmp_path).config.name == "Project"
    (tmp_path / "oban.toml").write_text("name = 'Own'")
    assert load(environ={}, directory=tmp_path).config.name == "Own"
    assert (
        load(environ={}, directory=tmp_path, config_file="pyproject.toml").config.name == "Project"
    )


def test_the_file_may_be_named(tmp_path: Path) -> None:
    """By keyword, else by `OBAN_CONFIG`; one that is not there is an error."""
    (tmp_path / "a.toml").write_text("name = 'A'")
    (tmp_path / "b.toml").write_text("name = 'B'")
    named = {"OBAN_CONFIG": "b.toml"}

    assert load(environ=named, directory=tmp_path).config.name == "B"
    assert load(environ=named, directory=tmp_path, config_file="a.toml").config.name == "A"
    with refused("OBAN_CONFIG: there is no file 'c.toml'"):
        load(environ={"OBAN_CONFIG": "c.toml"}, directory=tmp_path)
    (tmp_path / "pyproject.toml").write_text("")
    with refused("there is no table [tool.oban_actors] in 'pyproject.toml'"):
        load(environ={}, directory=tmp_path, config_file="pyproject.toml")


def test_a_port_alone_is_an_endpoint(settings: Load) -> None:
    """`health=8085` and `OBAN_HEALTH=8085` say the port, and leave the other options."""
    toml = "[health]\nport = 1\npatience = 90"

    assert settings(toml, health=8085).config.health == HealthOptions(port=8085, patience=90)
    assert settings(toml, {"OBAN_HEALTH": "8085"}).config.health == HealthOptions(
        port=8085, patience=90
    )
    hosts = {"OBAN_HEALTH_HOSTS": "a.example, b.example"}
    assert settings(toml, hosts).config.health == HealthOptions(
        port=1, patience=90, hosts=("a.example", "b.example")
    )
    assert settings(toml, {"OBAN_HEALTH": "none"}).config.health is None


# The instance


@pytest.mark.parametrize("turned", [False, True])
def test_a_part_as_a_whole_leaves_its_other_options(settings: Load, *, turned: bool) -> None:
    """A JSON object gives what it names; whatever order the process got its variables in."""
    toml = "[health]\nhost = '127.0.0.2'\nport = 1000"
    environ = {"OBAN_HEALTH": '{"port": 4000}', "OBAN_HEALTH_HOSTS": "a.example"}
    if turned:
        environ = dict(reversed(environ.items()))

    health = settings(toml, environ).config.health
    assert health is not None
    assert (health.host, health.port, health.hosts) == ("127.0.0.2", 4000, ("a.example",))
    limits = {"OBAN_STAGER_LIMIT": "5", "OBAN_STAGER": '{"limit": 100}'}
    if turned:
        limits = dict(reversed(limits.items()))
    stager = settings("", limits).config.stager
    assert stager is not None
    assert stager.limit == 5
    assert settings("stager = false", {"OBAN_STAGER": "{}"}).config.stager is not None
    whole = dict(reversed({"OBAN_HEALTH": "off", "OBAN_HEALTH_PORT": "4000"}.items()))
    found = settings(toml, whole).config.health
    assert found is not None
    assert (found.host, found.port) == ("127.0.0.1", 4000)


def test_what_kubernetes_says_of_a_service_is_none_of_ours(settings: Load) -> None:
    """Of one that is called `oban-health`, or like any other part."""
    environ = {
        "OBAN_HEALTH_SERVICE_HOST": "10.0.0.1",
        "OBAN_HEALTH_SERVICE_PORT": "8085",
        "OBAN_HEALTH_SERVICE_PORT_HTTP": "8085",
        "OBAN_HEALTH_PORT": "tcp://10.0.0.1:8085",
        "OBAN_HEALTH_PORT_8085_TCP": "tcp://10.0.0.1:8085",
        "OBAN_HEALTH_PORT_8085_TCP_ADDR": "10.0.0.1",
        "OBAN_HEALTH_PORT_8085_TCP_PROTO": "tcp",
    }

    assert settings("", environ).config.health is None


def test_an_instance_is_made_of_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`Oban.from_settings` reads the working directory and this process's variables."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "oban.toml").write_text("queues = { a = 2 }")
    monkeypatch.setenv("OBAN_DATABASE_URL", f"sqlite:///{tmp_path / 'jobs.db'}")
    oban = Oban.from_settings(name="Mine")

    assert oban.migrate() == 1
    assert oban.config.name == "Mine"
    assert oban.config.queues == {"a": QueueOptions(limit=2)}
    oban.stop()

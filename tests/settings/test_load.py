"""Settings: which source counts, what each may hold, and who is named where one is wrong."""

import logging
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from oban_actors import ConfigError, Oban, Plugin, PluginRun
from oban_actors.config import NotifierOptions, PeerOptions, QueueOptions, StagerOptions
from oban_actors.options import HealthOptions
from oban_actors.plugins.cron import Cron
from oban_actors.settings import Settings, load
from oban_actors.settings.plugins import KNOWN

Load = Callable[..., Settings]
SECRET = "hunter2"


@dataclass(frozen=True)
class Sweeper(Plugin):
    """A host's own plugin."""

    interval: float = 60.0
    table: str = "rubbish"

    def validate(self) -> None:
        """Refuse what is no interval."""
        if self.interval <= 0:
            raise ValueError("interval has to be positive")

    def perform(self, run: PluginRun) -> Mapping[str, Any]:
        """Never runs here."""
        raise NotImplementedError


SWEEPER = f"{__name__}:Sweeper"


@pytest.fixture
def settings(tmp_path: Path) -> Load:
    """Load settings from the file `oban.toml` with this text, and these variables."""

    def loaded(
        toml: str = "", /, environ: Mapping[str, str] | None = None, **given: Any
    ) -> Settings:
        if toml:
            (tmp_path / "oban.toml").write_text(toml, "utf-8")
        return load(environ=environ or {}, directory=tmp_path, **given)

    return loaded


def refused(message: str) -> Any:
    """Expect a ConfigError with exactly this message."""
    return pytest.raises(ConfigError, match=f"^{re.escape(message)}$")


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


def test_a_file_that_is_no_toml_tells_where_but_not_what(settings: Load) -> None:
    """Its text may hold a password."""
    with pytest.raises(ConfigError, match=r"^oban.toml: it is no valid TOML: at line 1") as error:
        settings(f"database_url = postgresql://u:{SECRET}@host/db")
    assert SECRET not in repr(error.value)


# Who is named


@pytest.mark.parametrize(
    ("toml", "variables", "message"),
    [
        ("queus = {}", {}, "oban.toml: unknown option 'queus', did you mean 'queues'?"),
        ("clock = 1", {}, "oban.toml: unknown option 'clock'"),
        (
            "[stager]\nintervall = 1",
            {},
            "oban.toml: unknown option 'intervall' for stager, did you mean 'interval'?",
        ),
        (
            "queues = { a = { limmit = 1, limit = 1 } }",
            {},
            "oban.toml: unknown option 'limmit' for queues.a, did you mean 'limit'?",
        ),
        (
            "queues = { a = 0 }",
            {},
            "oban.toml: invalid value for 'queues.a': expected a positive integer, got: 0",
        ),
        (
            "imports = ['a', 'b c']",
            {},
            "oban.toml: invalid value for 'imports[1]': expected the name of a module, got: 'b c'",
        ),
        (
            "",
            {"OBAN_STAGER_INTERVAL": "x"},
            (
                "OBAN_STAGER_INTERVAL: invalid value for 'stager.interval': expected a "
                "positive number of seconds or None, got: 'x'"
            ),
        ),
        (
            "",
            {"OBAN_STAGER_LIMMIT": "1"},
            (
                "OBAN_STAGER_LIMMIT: unknown variable 'OBAN_STAGER_LIMMIT' for stager, did "
                "you mean 'OBAN_STAGER_LIMIT'?"
            ),
        ),
        (
            "",
            {"OBAN_QUEUES": "mailers"},
            (
                "OBAN_QUEUES: invalid value for 'queues': expected queues as name=limit, "
                "separated by commas, a JSON object, or none, got: 'mailers'"
            ),
        ),
        (
            "",
            {"OBAN_INSERT_NOTIFY": "maybe"},
            (
                "OBAN_INSERT_NOTIFY: invalid value for 'insert_notify': expected a boolean, "
                "got: 'maybe'"
            ),
        ),
        (
            "[peer]\nlease = 8",
            {"OBAN_PEER_RENEW": "5"},
            (
                "OBAN_PEER_RENEW and oban.toml: invalid value for 'peer.renew': expected at "
                "most half of 'peer.lease', 4 seconds, got: 5.0"
            ),
        ),
        (
            "engine = 'sqlite'",
            {"OBAN_NOTIFIER_KIND": "postgres"},
            (
                "OBAN_NOTIFIER_KIND: invalid value for 'notifier.kind': expected one for "
                "the engine 'sqlite', got: 'postgres'"
            ),
        ),
        (
            "plugins = { prunner = {} }",
            {},
            "oban.toml: unknown option 'prunner' for plugins, did you mean 'pruner'?",
        ),
        (
            "plugins = { 'no.such:Thing' = {} }",
            {},
            (
                "oban.toml: invalid value for 'plugins': 'no.such:Thing' can't be imported: \"No "
                "module named 'no'\""
            ),
        ),
        (
            f"plugins = {{ '{SWEEPER}' = {{ tabel = 'x' }} }}",
            {},
            (
                f"oban.toml: invalid value for 'plugins.{SWEEPER}': unknown option 'tabel' for "
                "Sweeper, did you mean 'table'?"
            ),
        ),
        (
            f"plugins = {{ '{SWEEPER}' = {{ interval = 0 }} }}",
            {},
            "oban.toml: invalid value for 'plugins[0]': 'interval has to be positive'",
        ),
        (
            "database_url = 5",
            {},
            "oban.toml: invalid value for 'database_url': expected a URL, got: something else",
        ),
    ],
)
def test_who_is_wrong_is_named(
    settings: Load, toml: str, variables: dict[str, str], message: str
) -> None:
    """The message begins with the variable or the file, and names the option and the value."""
    with refused(message):
        settings(toml, variables)


def test_a_keyword_is_named_as_the_caller_calls_it(settings: Load) -> None:
    """As it is where nothing was said; the file is innocent of what was laid over it."""
    with refused("invalid value for 'pool_size': expected a positive integer, got: 0"):
        settings("pool_size = 3", pool_size=0)
    with refused(
        "--queues: invalid value for 'queues': expected a mapping of names to limits or "
        "options, got: 5"
    ):
        settings("", queues=5, names={"queues": "--queues"})


def test_a_database_that_no_url_can_be_is_named_but_not_shown(settings: Load) -> None:
    """Its variable is, and nothing of its text."""
    found = settings("", {"OBAN_DATABASE_URL": f"mysql://u:{SECRET}@host/db"})

    with pytest.raises(ConfigError, match=r"^OBAN_DATABASE_URL: ") as error:
        found.make(Oban)
    assert SECRET not in str(error.value)
    assert SECRET not in repr(found)
    assert SECRET not in str(found.address())


def test_passwords_are_in_no_message(settings: Load) -> None:
    """Also not one that stands where it does not belong."""
    url = f"postgresql://u:{SECRET}@host/db"
    for wrong in (
        {"OBAN_QUEUES": url},
        {"OBAN_POOL_SIZE": url},
        {"OBAN_NOTIFIER_LISTEN_URL": SECRET},
    ):
        with pytest.raises(ConfigError) as error:
            settings("", wrong)
        assert SECRET not in str(error.value)
    found = settings("", {"OBAN_DATABASE_URL": f"{url}?password={SECRET}"})
    assert found.address() == "postgresql://u@host/db"


def test_a_variable_that_nearly_is_one_of_ours_is_warned_of(
    settings: Load, caplog: pytest.LogCaptureFixture
) -> None:
    """Others may have variables that begin so too, so it is no error."""
    with caplog.at_level(logging.WARNING):
        settings("", {"OBAN_QUEUS": "a=1", "OBAN_ZZZ": "1", "HOME": "/"})

    assert [record.message for record in caplog.records] == [
        "OBAN_QUEUS is no variable of ours; did you mean OBAN_QUEUES?"
    ]


# Plugins


def test_plugins_come_by_name_or_place(settings: Load) -> None:
    """With a table of options, `true` for the defaults; `false` leaves one out."""
    toml = f"[plugins.'{SWEEPER}']\ntable = 'dust'"

    (plugin,) = settings(toml).config.plugins
    assert plugin == Sweeper(table="dust")
    assert settings(f"plugins = ['{SWEEPER}']").config.plugins == (Sweeper(),)
    assert settings(f"plugins = {{ '{SWEEPER}' = true }}").config.plugins == (Sweeper(),)
    assert settings(f"plugins = {{ '{SWEEPER}' = false }}").config.plugins == ()
    variable = {"OBAN_PLUGINS": f'{{"{SWEEPER}": {{"table": "ash"}}}}'}
    assert settings(toml, variable).config.plugins == (Sweeper(table="ash"),)
    assert settings(toml, plugins=[Sweeper(interval=1)]).config.plugins == (Sweeper(interval=1),)


# The instance


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


def test_a_crontab_is_a_list_of_tables(settings: Load) -> None:
    """`[[plugins.cron.crontab]]`, or the lists that `Cron` itself takes."""
    toml = """
        [plugins.cron]
        timezone = "Europe/Berlin"
        crontab = [["@hourly", "shop.Hourly"]]
        """
    tables = """
        [plugins.cron]
        timezone = "Europe/Berlin"
        [[plugins.cron.crontab]]
        expression = "0 9 * * MON"
        worker = "shop.Report"
        args = { week = true }
        queue = "reports"
        """
    (plugin,) = settings(toml).config.plugins
    assert plugin.entries == Cron([("@hourly", "shop.Hourly")], timezone="Europe/Berlin").entries
    (plugin,) = settings(tables).config.plugins
    options = {"args": {"week": True}, "queue": "reports"}
    report = ("0 9 * * MON", "shop.Report", options)
    assert plugin.entries == Cron([report], timezone="Europe/Berlin").entries
    with refused(
        "oban.toml: invalid value for 'plugins.cron.crontab[0]': missing required option 'worker'"
    ):
        settings("[[plugins.cron.crontab]]\nexpression = '@daily'")


@pytest.mark.parametrize("name", sorted(KNOWN))
def test_the_library_s_own_plugins_have_names(settings: Load, name: str) -> None:
    """With their defaults; an option that they don't have is named."""
    (plugin,) = settings(f"plugins = ['{name}']").config.plugins

    assert isinstance(plugin, Plugin)
    with pytest.raises(ConfigError, match=rf"^oban.toml: invalid value for 'plugins.{name}': unkn"):
        settings(f"plugins = {{ {name} = {{ nonsense_option = 1 }} }}")

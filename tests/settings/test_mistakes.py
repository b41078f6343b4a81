"""Settings: who is named where something is wrong, and that no password is."""

import logging
from pathlib import Path

import pytest

from oban_actors import ConfigError, Oban
from tests.settings.loading import SWEEPER, Load, refused

SECRET = "hunter2"


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
                "oban.toml: invalid value for 'plugins': 'no.such:Thing' can't be imported: "
                "\"(ModuleNotFoundError) No module named 'no'\""
            ),
        ),
        (
            "plugins = { 'tests.settings.loading:Nothing' = {} }",
            {},
            (
                "oban.toml: invalid value for 'plugins': 'tests.settings.loading:Nothing' can't be "
                "imported: \"(AttributeError) module 'tests.settings.loading' has no attribute "
                "'Nothing'\""
            ),
        ),
        (
            "plugins = { pruner = { max_age = '1d' } }",
            {},
            (
                "oban.toml: invalid value for 'plugins[0]' (Pruner): invalid value for 'max_age': "
                "expected a non-negative number of seconds, a timedelta, 'never' or None, got: '1d'"
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
            "oban.toml: invalid value for 'plugins[0]' (Sweeper): 'interval has to be positive'",
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


def test_a_file_that_is_no_toml_tells_where_but_not_what(settings: Load) -> None:
    """Its text may hold a password."""
    with pytest.raises(ConfigError, match=r"^oban.toml: it is no valid TOML: at line 1") as error:
        settings(f"database_url = postgresql://u:{SECRET}@host/db")
    assert SECRET not in repr(error.value)


def test_a_plugin_whose_module_fails_is_named(
    settings: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever its module raises as it is imported."""
    (tmp_path / "broken_plugin.py").write_text("raise RuntimeError('boom')\n")
    monkeypatch.syspath_prepend(tmp_path)

    with refused(
        "oban.toml: invalid value for 'plugins': 'broken_plugin:X' can't be imported: "
        "'(RuntimeError) boom'"
    ):
        settings("plugins = { 'broken_plugin:X' = {} }")

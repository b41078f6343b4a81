"""How commands end: one line on stderr, an exit code that means something, no secrets."""

import errno
import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from oban_actors.cli.exits import exit_code
from oban_actors.cli.output import duration, log_to_stderr, safe
from oban_actors.errors import (
    CommitUnknown,
    ConfigError,
    DatabaseUnavailable,
    InvalidJob,
    SchemaMissing,
    SchemaTooNew,
    UndefinedTable,
)
from tests.cli.commands import SCRIPT, command, environment
from tests.cli.conftest import Cli
from tests.support.databases import Database

SECRET = "hunter2"


# Exit codes


def test_a_port_that_is_taken_is_worth_another_try() -> None:
    """Whoever has it may end, as the node before this one."""
    taken = ConfigError("can't listen")
    taken.__cause__ = OSError(errno.EADDRINUSE, "Address already in use")
    other = ConfigError("can't listen")
    other.__cause__ = OSError(errno.EADDRNOTAVAIL, "Cannot assign requested address")

    assert (exit_code(taken), exit_code(other)) == (5, 2)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConfigError("x"), 2),
        (InvalidJob("a row that nobody can read"), 1),
        (DatabaseUnavailable("x"), 3),
        (SchemaMissing("x"), 4),
        (SchemaTooNew("x"), 4),
        (UndefinedTable("x"), 4),
        (CommitUnknown("x"), 1),
        (RuntimeError("x"), 1),
    ],
)
def test_each_error_has_its_exit_code(error: Exception, code: int) -> None:
    """As docs/cli.md lists them."""
    assert exit_code(error) == code


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("nope",), 2, "error: No such command 'nope'; see oban-actors --help\n"),
        (("jobs", "nope"), 2, "error: No such command 'nope'; see oban-actors jobs --help\n"),
        (
            ("queues", "x"),
            2,
            "error: Got unexpected extra argument (x); see oban-actors queues --help\n",
        ),
        (
            ("queues",),
            2,
            (
                "error: there is no database: give an address, set OBAN_DATABASE_URL, or write "
                "database_url in oban.toml\n"
            ),
        ),
        (("--config", "no.toml", "queues"), 2, "error: there is no file 'no.toml'\n"),
        (
            ("queues", "--prefix", "1x"),
            2,
            (
                "error: --prefix: invalid value for 'prefix': expected a name of letters, "
                "digits and underscores that begins with no digit, got: '1x'\n"
            ),
        ),
        (
            ("start", "--queues", "a"),
            2,
            (
                "error: --queues: invalid value for 'queues': expected queues as "
                "name=limit, separated by commas, a JSON object, or none, got: 'a'\n"
            ),
        ),
        (
            ("start", "--queues", "a=0"),
            2,
            "error: --queues: invalid value for 'queues.a': expected a positive integer, got: 0\n",
        ),
        (
            ("start", "--import", "a b"),
            2,
            (
                "error: --import: invalid value for 'imports[0]': expected the name of a "
                "module, got: 'a b'\n"
            ),
        ),
    ],
)
def test_what_is_wrong_is_said_in_one_line(
    bare: Cli, directory: Path, words: tuple[str, ...], code: int, message: str
) -> None:
    """And where it came from."""
    done = bare(*words)

    assert (done.code, done.out, done.err) == (code, "", message)


def test_nobody_answers(bare: Cli, directory: Path) -> None:
    """Exit code 3, and the password in the address is not shown."""
    done = bare("queues", "--database-url", f"postgresql://u:{SECRET}@127.0.0.1:1/x")

    assert done.code == 3
    assert done.err.startswith("error: connection failed: ")
    assert done.err.count("\n") == 1
    assert SECRET not in done.err


def test_debug_shows_the_traceback(bare: Cli, directory: Path) -> None:
    """Which nobody else sees."""
    told = bare("--debug", "queues")

    assert "Traceback (most recent call last)" in told.err
    assert told.err.endswith("database_url in oban.toml\n")


def test_no_secret_is_shown(bare: Cli, directory: Path, shell: pytest.MonkeyPatch) -> None:
    """In the wrong place, or in an address that can't be read."""
    for words in (
        ("queues", "--database-url", f"mysql://u:{SECRET}@h/x"),
        ("queues", "--database-url", f"postgresql://u:{SECRET}@h:port/x"),
        ("queues", "--name", f"postgresql://u:{SECRET}@h/" + "x" * 300),
        ("start", "--queues", f"postgresql://u:{SECRET}@h/x"),
    ):
        done = bare(*words)
        assert done.code == 2, done
        assert SECRET not in done.err
    shell.setenv("OBAN_NOTIFIER_LISTEN_URL", f"postgresql://u:{SECRET}@h/x")
    done = bare("config", "check", "--database-url", f"postgresql://u:{SECRET}@h/x")
    assert done.code == 0
    assert SECRET not in done.out
    assert "postgresql://u@h/x" in done.out


# config check


def test_config_check_says_where_options_come_from(
    bare: Cli, directory: Path, shell: pytest.MonkeyPatch
) -> None:
    """Options, variables, file and defaults; the modules are imported; no database is needed."""
    (directory / "oban.toml").write_text(
        "database_url = 'postgresql://127.0.0.1:1/x'\nimports = ['shop_work']\n[stager]\nlimit = 5"
        "\n[queues]\nalpha = 3"
    )
    (directory / "shop_work.py").write_text(
        "from oban_actors import worker\n@worker(name='shop.work')\ndef work(job): ...\n"
    )
    shell.setenv("OBAN_STAGER_INTERVAL", "0.5")
    done = bare("config", "check", "--name", "Shop", "--json")

    assert done.code == 0, done.err
    found = done.json
    options = {each["option"]: (each["value"], each["source"]) for each in found["options"]}
    assert found["file"] == "oban.toml"
    assert found["database"] == "postgresql://127.0.0.1:1/x"
    assert "shop.work" in found["workers"]
    assert options["name"] == ("Shop", "--name")
    assert options["stager.limit"] == (5, "oban.toml")
    assert options["stager.interval"] == (0.5, "OBAN_STAGER_INTERVAL")
    assert options["queues.alpha"][0]["limit"] == 3
    assert options["queues.alpha"][1] == "oban.toml"
    assert options["pool_size"] == (4, "default")
    assert "OBAN_STAGER_INTERVAL" in bare("config", "check").out


PLUGINS = """
database_url = 'sqlite:///x.db'
imports = ['shop_parts']
[queues]
alpha = 3
[plugins]
lifeline = true
[plugins.pruner]
max_age = "never"
[plugins."shop_parts:Own"]
days = 3
token = "{secret}"
[plugins.cron]
timezone = "Europe/Berlin"
crontab = [
  ["* * * * *", "shop.patr"],
  ["@daily", "shop.part", {{queue = "zz"}}],
  ["@hourly", "shop.part"],
]
"""

OWN = """
from dataclasses import dataclass, field
from oban_actors import Plugin, worker

@worker(name="shop.part", queue="alpha")
def work(job): ...

@dataclass(frozen=True, kw_only=True)
class Own(Plugin):
    days: int = 1
    token: str = ""
    seen: int = field(init=False)

    def perform(self, run):
        pass
"""


def test_config_check_shows_plugins_and_notes_what_others_must_have(
    bare: Cli, directory: Path
) -> None:
    """Their options with where they came from; what a build may want to fail for."""
    (directory / "oban.toml").write_text(PLUGINS.format(secret=SECRET))
    (directory / "shop_parts.py").write_text(OWN)
    done = bare("config", "check", "--json")
    assert done.code == 0, done.err
    options = {each["option"]: (each["value"], each["source"]) for each in done.json["options"]}

    assert options["plugins[0]"] == ("Lifeline", "oban.toml")
    assert options["plugins[0].limit"] == (1000, "default")
    assert options["plugins[1].max_age"] == (None, "oban.toml")
    assert options["plugins[2].days"] == (3, "oban.toml")
    assert options["plugins[2].token"] == ("(given, not shown)", "oban.toml")
    assert options["plugins[3].crontab[1]"] == (
        {
            "expression": "@daily",
            "timezone": "Europe/Berlin",
            "worker": "shop.part",
            "queue": "zz",
        },
        "oban.toml",
    )
    unknown = "no imported module has a worker 'shop.patr'"
    assert done.json["notes"] == [
        f"plugins[3].crontab[0]: {unknown}, did you mean 'shop.part'?",
        "plugins[3].crontab[1]: its queue 'zz' does not run on this node",
    ]
    strict = bare("config", "check", "--strict")
    assert strict.code == 1
    assert strict.err == "".join(f"note: {note}\n" for note in done.json["notes"])
    assert SECRET not in strict.out + done.out
    assert bare("config", "check", "--strict", "--json").code == 1


@pytest.mark.parametrize("words", [(), ("jobs",), ("queue",), ("config",)])
def test_a_group_without_a_command_shows_its_help(bare: Cli, words: tuple[str, ...]) -> None:
    """As it stands, and not squeezed into one line."""
    done = bare(*words)

    assert done.code == 2
    assert done.out == ""
    assert done.err.startswith(f"Usage: {' '.join(('oban-actors', *words))} [OPTIONS] COMMAND")
    assert done.err == bare(*words, "--help").out


@pytest.mark.parametrize(
    ("toml", "message"),
    [
        ("queus = {}", "oban.toml: unknown option 'queus', did you mean 'queues'?"),
        ("x = @", "oban.toml: it is no valid TOML: at line 1, column 5"),
        (
            "database_url = 'sqlite:///x.db'\nimports = ['no_such_module']",
            (
                "imports: module 'no_such_module' can't be imported: (ModuleNotFoundError) "
                "No module named 'no_such_module'"
            ),
        ),
        (
            "database_url = 'mysql://x/y'",
            "oban.toml: ",
        ),
    ],
)
def test_config_check_refuses(bare: Cli, directory: Path, toml: str, message: str) -> None:
    """Exit code 2, with the file's name in front."""
    (directory / "oban.toml").write_text(toml)
    done = bare("config", "check")

    assert done.code == 2
    assert done.err.startswith(f"error: {message}")
    assert done.err.count("\n") == 1


# tree


# The process


@pytest.mark.slow
def test_without_click_it_says_what_to_install() -> None:
    """One line, no traceback."""
    program = (
        "import sys; sys.modules['click'] = None\n"
        "from oban_actors.cli import main; sys.exit(main(['queues']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60
    )

    assert done.returncode == 2
    assert done.stderr == (
        "error: the command line needs click and rich: pip install 'oban_actors[cli]'\n"
    )


@pytest.mark.slow
def test_a_reader_that_has_enough_is_no_error(sqlite: Database) -> None:
    """`oban-actors ... | head -1` says nothing on stderr."""
    assert command("migrate", database=sqlite).code == 0
    with subprocess.Popen(
        [SCRIPT, "config", "check"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(sqlite),
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        said = process.stderr.read()
        process.wait(60)

    assert said == ""


# Words


def test_a_job_can_forge_no_line_of_the_log(capsys: pytest.CaptureFixture[str], shell: Any) -> None:
    """Line breaks of a message are set in, and what a terminal would obey is written out."""
    log_to_stderr(logging.INFO, "%(levelname)s %(message)s")
    logging.getLogger("oban_actors").info("job %s", "x\nERROR it is over\r\x1b[2J")

    assert capsys.readouterr().err == "INFO job x\n  ERROR it is over\\r\\x1b[2J\n"


def test_a_shell_may_say_anything_of_its_width(bare: Cli, directory: Path, shell: Any) -> None:
    """What is no number of columns counts for nothing."""
    shell.setenv("COLUMNS", "wide")

    done = bare("config", "check", "--database-url", "sqlite:///jobs.db")

    assert (done.code, done.err) == (0, "")


def test_text_is_made_safe() -> None:
    """What is printed stays; all else is written out, line ends too."""
    assert safe("Grüße, 東京 ☃ [b] :smile:") == "Grüße, 東京 ☃ [b] :smile:"
    assert safe("a\x1b[0m\n\r\t\x00\x9b\u202e\u2028\ud800") == (
        "a\\x1b[0m\\n\\r\\t\\x00\\x9b\\u202e\\u2028\\ud800"
    )


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, None),
        (0.04, "0.0s"),
        (9.94, "9.9s"),
        (59.9, "59s"),
        (61, "1m 1s"),
        (7_260, "2h 1m"),
        (90_000, "1d 1h"),
        (-5, "-5.0s"),
        (-3_700, "-1h 1m"),
    ],
)
def test_times_are_told_in_two_units(seconds: float | None, text: str | None) -> None:
    """Enough to know, short enough for a column."""
    assert duration(seconds) == text

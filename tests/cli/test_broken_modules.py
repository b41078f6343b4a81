"""Modules of the host's that fail as a command imports them."""

from pathlib import Path

import pytest

from tests.cli.conftest import Cli

_PRICES = """
def table():
    raise LookupError("no prices\x1b[2J")

table()
"""


@pytest.mark.parametrize(
    ("toml", "says"),
    [
        ("imports = ['{module}']", "imports: module '{module}' can't be imported: {why}"),
        (
            "plugins = {{ '{module}:Own' = {{}} }}",
            "oban.toml: invalid value for 'plugins': '{module}:Own' can't be imported: ",
        ),
    ],
)
@pytest.mark.parametrize(
    ("text", "why", "trace"),
    [
        (
            "import broken_prices\n",
            "(LookupError) no prices",
            [
                "Traceback (most recent call last):",
                '  File "{directory}/broken_shop.py", line 1, in <module>',
                '  File "{directory}/broken_prices.py", line 5, in <module>',
                '  File "{directory}/broken_prices.py", line 3, in table',
                "LookupError: no prices\\x1b[2J",
            ],
        ),
        (
            "import no_such_module\n",
            "(ModuleNotFoundError) No module named 'no_such_module'",
            [
                "Traceback (most recent call last):",
                '  File "{directory}/broken_shop.py", line 1, in <module>',
                "ModuleNotFoundError: No module named 'no_such_module'",
            ],
        ),
        (
            "import sys\nsys.exit(0)\n",
            "(SystemExit) 0",
            [
                "Traceback (most recent call last):",
                '  File "{directory}/broken_shop.py", line 2, in <module>',
                "SystemExit: 0",
            ],
        ),
        (
            "def (\n",
            "(SyntaxError) invalid syntax (broken_shop.py, line 1)",
            [
                '  File "{directory}/broken_shop.py", line 1',
                "SyntaxError: invalid syntax",
            ],
        ),
    ],
)
def test_what_fails_within_a_module_is_shown(
    bare: Cli, directory: Path, toml: str, says: str, text: str, why: str, trace: list[str]
) -> None:
    """From the module on, without what has imported it; the last line is the error as ever."""
    (directory / "broken_shop.py").write_text(text)
    (directory / "broken_prices.py").write_text(_PRICES)
    (directory / "oban.toml").write_text(
        "database_url = 'sqlite:///x.db'\n" + toml.format(module="broken_shop")
    )
    done = bare("config", "check")

    assert done.code == 2
    *way, last = done.err.splitlines()
    assert last.startswith(f"error: {says.format(module='broken_shop', why=why)}")
    shown = [line for line in way if not line.startswith("    ")]
    assert shown == [line.format(directory=directory) for line in trace]

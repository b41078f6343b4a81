"""Fixtures: the command within the test's own process, where nothing but its words matters."""

import io
import logging
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from oban_actors.cli import main
from tests.cli.commands import Done
from tests.support.databases import Database

Cli = Callable[..., Done]


@pytest.fixture
def shell(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """A shell without variables of ours; logging is afterwards as it was."""
    for name in [name for name in os.environ if name.startswith("OBAN_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("COLUMNS", "200")
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    root.handlers = []
    yield monkeypatch
    root.handlers, root.level = handlers, level


@pytest.fixture
def bare(shell: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    """Runs a command that is told of no database."""

    def run(*words: str, text: str = "") -> Done:
        shell.setattr(sys, "stdin", io.StringIO(text))
        code = main(words)
        said = capsys.readouterr()
        return Done(code, said.out, said.err)

    return run


@pytest.fixture
def cli(bare: Cli, database: Database, shell: pytest.MonkeyPatch) -> Cli:
    """Runs a command on the test's database."""
    shell.setenv("OBAN_DATABASE_URL", database.url)
    shell.setenv("OBAN_PREFIX", database.prefix)
    return bare


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path[:])
    return tmp_path

"""What the README and the pages below docs/ say holds: samples run, and lists are complete."""

import ast
import re
import subprocess
from collections.abc import Iterator
from dataclasses import MISSING, Field, fields
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pytest
import sqlalchemy as sa
from alembic.migration import MigrationContext
from alembic.operations import Operations
from psycopg.sql import SQL, Identifier

from oban_actors import DatabaseError, IsLeader, Job, Oban, Stage
from oban_actors.config import (
    Config,
    HealthOptions,
    NotifierOptions,
    PeerOptions,
    PulseOptions,
    StagerOptions,
)
from oban_actors.repo.slots import FOR_ACTORS, FOR_BEATS, FOR_ELECTIONS, RESERVE
from tests.support.databases import new_database
from tests.support.postgres import Server
from tests.support.waiting import wait_until

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "oban_actors"
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
POSTGRES = "postgresql+psycopg://app@localhost/app"

RIGHTS = """
GRANT USAGE ON SCHEMA background TO {role};
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA background TO {role};
GRANT USAGE ON SEQUENCE background.oban_jobs_id_seq TO {role}
"""
"""What docs/database.md says that running needs."""

_SAMPLE = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)
_FENCE = re.compile(r"^```\w*\n(.*?)^```", re.DOTALL | re.MULTILINE)
_LINK = re.compile(r"\]\(([^)#]+)(?:#[^)]*)?\)")
_TOML = re.compile(r"^```toml\n(.*?)^```", re.DOTALL | re.MULTILINE)
_CONSOLE = re.compile(r"^```console\n(.*?)^```", re.DOTALL | re.MULTILINE)
_MAKE = re.compile(r"^make ([a-z]+)", re.MULTILINE)
_MAKE_IN_TEXT = re.compile(r"`make ([a-z]+)")
_TEST = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")
_TABLE_ROW = re.compile(r"^\| `([a-z_.]+)`(.*)$", re.MULTILINE)


def _id(page: Path) -> str:
    return page.name


def _samples(page: Path) -> list[str]:
    return _SAMPLE.findall(page.read_text("utf-8"))


def _run(page: Path, url: str) -> None:
    """Run a page's samples in their order, in one namespace."""
    known: dict[str, Any] = {"__name__": page.stem}
    try:
        for number, sample in enumerate(_samples(page), 1):
            code = compile(sample.replace(POSTGRES, url), f"{page.name} sample {number}", "exec")
            exec(code, known)  # noqa: S102 (our own samples)
    finally:
        for value in known.values():
            if isinstance(value, Oban):
                value.repo.close()


@pytest.mark.parametrize("page", [page for page in PAGES if _samples(page)], ids=_id)
def test_the_samples_of_a_page_run(
    page: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    """A reader who copies the samples of a page, in their order, sees what the page says."""
    monkeypatch.chdir(tmp_path)
    if POSTGRES not in page.read_text("utf-8"):
        _run(page, POSTGRES)
        return
    server: Server = request.getfixturevalue("postgres_server")
    with new_database(server) as name:
        _run(page, server.url(name))


def test_the_alembic_sample_makes_and_drops_the_tables(tmp_path: Path) -> None:
    """The migration shown runs under Alembic in both directions."""
    sample = next(s for s in _samples(ROOT / "docs/database.md") if "alembic" in s)
    migration: dict[str, Any] = {}
    exec(sample, migration)  # noqa: S102 (our own sample)
    engine = sa.create_engine(f"sqlite:///{tmp_path / 'jobs.db'}", poolclass=sa.NullPool)
    with engine.begin() as connection, Operations.context(MigrationContext.configure(connection)):
        migration["upgrade"]()
        made = set(sa.inspect(connection).get_table_names())
    with engine.begin() as connection, Operations.context(MigrationContext.configure(connection)):
        migration["downgrade"]()
        left = set(sa.inspect(connection).get_table_names())

    assert {"oban_jobs", "oban_peers"} <= made
    assert not {name for name in left if name.startswith("oban_")}


@pytest.fixture
def restricted_url(postgres_server: Server) -> Iterator[str]:
    """Address of a database with tables in `background`, for a role with the rights named only."""
    role = f"oban_test_{uuid4().hex[:12]}"
    with new_database(postgres_server) as name:
        owner = Oban(postgres_server.url(name), prefix="background")
        owner.migrate()
        owner.repo.close()
        with psycopg.connect(postgres_server.conninfo(name), autocommit=True) as connection:
            connection.execute(SQL("CREATE ROLE {}").format(Identifier(role)))
            connection.execute(SQL(RIGHTS).format(role=Identifier(role)))
        url = sa.make_url(postgres_server.url(name))
        acting = url.update_query_dict({"options": f"-c role={role}"})
        yield acting.render_as_string(hide_password=False)
    with psycopg.connect(postgres_server.conninfo(), autocommit=True) as connection:
        connection.execute(SQL("DROP ROLE {}").format(Identifier(role)))


def test_a_tree_runs_with_the_rights_that_are_named(
    restricted_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """With what docs/database.md says running needs, it leads, inserts and stages, and no more."""
    with Oban(restricted_url, prefix="background") as oban:
        job = oban.insert(Job.new(worker="docs.Worker", schedule_in=-1))
        wait_until(lambda: oban.ask("peer", IsLeader()))
        staged = oban.ask("stager", Stage(), timeout=30)
        found = oban.get_job(job.id or 0)
        with pytest.raises(DatabaseError):
            oban.rollback()

    assert staged.error is None
    assert found is not None
    assert found.state == "available"
    assert [record for record in caplog.records if record.levelname != "INFO"] == []


def test_the_configurations_of_operating_are_accepted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A node starts with what the guide shows as its file, and listens where the guide says."""
    monkeypatch.chdir(tmp_path)
    node, pooled = _TOML.findall((ROOT / "docs/operating.md").read_text("utf-8"))

    Path("oban.toml").write_text(node, "utf-8")
    plugins = Oban.from_settings("sqlite:///jobs.db").config.plugins
    Path("oban.toml").write_text(pooled, "utf-8")
    listen_url = Oban.from_settings().config.notifier.listen_url

    assert {type(plugin).__name__ for plugin in plugins} == {"Lifeline", "Pruner", "Cron"}
    assert listen_url is not None
    assert "db:5432" in listen_url


def test_the_connections_of_operating_are_counted() -> None:
    """How many connections a node has at most is what the code allows, and one to listen."""
    page = (ROOT / "docs/operating.md").read_text("utf-8")

    assert f"**`pool_size` + {RESERVE + 1}, with the Reindexer + {RESERVE + 2}**" in page
    assert re.search(rf"^\| the tree's actors,.* \| {FOR_ACTORS} \|", page, re.MULTILINE)
    assert re.search(rf"^\| elections,.* \| {FOR_ELECTIONS} \|", page, re.MULTILINE)
    assert re.search(rf"^\| beats,.* \| {FOR_BEATS} \|", page, re.MULTILINE)
    assert f"up to `pool_size` + {RESERVE} of each" in page


@pytest.mark.parametrize("page", PAGES, ids=_id)
def test_what_a_page_points_to_is_there(page: Path) -> None:
    """Links to files lead somewhere, and every `make` target that is named exists."""
    text = page.read_text("utf-8")
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))

    local = [link for link in _LINK.findall(text) if "://" not in link]
    assert [link for link in local if not (page.parent / link).exists()] == []
    named = _MAKE.findall("\n".join(_CONSOLE.findall(text))) + _MAKE_IN_TEXT.findall(text)
    assert set(named) <= targets


@pytest.mark.parametrize("page", PAGES, ids=_id)
def test_the_tests_that_a_page_names_are_there(page: Path) -> None:
    """What is said to be tested has a test of that name."""
    named = _TEST.findall(page.read_text("utf-8"))

    assert [f"{file}::{name}" for file, name in named if not _has_test(file, name)] == []


def _has_test(file: str, name: str) -> bool:
    path = ROOT / file
    return (
        path.exists()
        and re.search(rf"^def {name}\(", path.read_text("utf-8"), re.MULTILINE) is not None
    )


def test_every_option_is_listed_with_its_default() -> None:
    """The tables of docs/configuration.md have all options of `Config` and of its parts."""
    page = (ROOT / "docs/configuration.md").read_text("utf-8")
    main, *parts = re.split(r"^### ", page, flags=re.MULTILINE)
    tables = {"": main} | {part.split("`")[1]: part for part in parts}
    kinds: dict[str, type] = {
        "": Config,
        "stager": StagerOptions,
        "peer": PeerOptions,
        "notifier": NotifierOptions,
        "pulse": PulseOptions,
        "health": HealthOptions,
    }
    for name, kind in kinds.items():
        rows = dict(_TABLE_ROW.findall(tables[name]))
        options = {field.name: field for field in fields(kind) if field.name != "identity"}
        assert set(rows) == set(options), name
        for option, field in options.items():
            shown = rows[option].split("|")[2].strip()
            assert _agrees(shown, field), f"{name}.{option}: {shown}"


def _agrees(shown: str, field: "Field[Any]") -> bool:
    """Whether a default is shown as it is; those that a function gives are described instead."""
    value = field.default
    if value is MISSING or field.name in {"clock", "plugins"}:
        return shown != ""
    text = shown.strip("`").replace('"', "'")
    return text == repr(value) or (isinstance(value, float) and float(text) == value)


def test_every_event_is_listed() -> None:
    """docs/telemetry.md has exactly the events that the code emits."""
    emitted = set()
    for path in PACKAGE.rglob("*.py"):
        # What listens names events that others emit, and metrics by names of their own.
        if path.name != "logger.py" and path.parent.name != "metrics":
            names = re.findall(r'"(oban\.[a-z_.]+)"', path.read_text("utf-8"))
            emitted |= {name for name in names if not name.endswith(".toml")}
    page = (ROOT / "docs/telemetry.md").read_text("utf-8")

    assert set(dict(_TABLE_ROW.findall(page))) & _like_events(page) == emitted


def _like_events(page: str) -> set[str]:
    return set(re.findall(r"`(oban\.[a-z_.]+)`", page))


def test_every_file_has_its_place_in_the_rooms() -> None:
    """The rooms of docs/architecture.md are the files of the package, no more and no less."""
    page = (ROOT / "docs/architecture.md").read_text("utf-8")
    block = next(found for found in _FENCE.findall(page) if found.startswith("oban_actors/\n"))
    shown, folder = set(), ""
    for line in block.splitlines()[1:]:
        if line.startswith("  ") and line[2] != " ":
            first = line.split()[0]
            folder = first if first.endswith("/") else ""
            shown |= set() if folder else {first}
        elif folder:
            shown |= {folder + name for name in line.split() if name.endswith(".py")}
    files = {str(path.relative_to(PACKAGE)) for path in PACKAGE.rglob("*.py")}

    assert shown == {name for name in files if name == "__init__.py" or "__init__" not in name}


def test_imports_run_the_way_that_is_shown() -> None:
    """No room imports one that stands behind it in docs/architecture.md."""
    page = (ROOT / "docs/architecture.md").read_text("utf-8")
    lines = re.findall(r"^\d+\. ((?:`[a-z_]+`,? ?)+)$", page, re.MULTILINE)
    order = [name for line in lines for name in re.findall(r"`([a-z_]+)`", line)]
    wrong = [
        f"{path.relative_to(PACKAGE)} imports {room}"
        for path in PACKAGE.rglob("*.py")
        if path != PACKAGE / "__init__.py"
        for room in _rooms_imported_by(path)
        if order.index(room) > order.index(_room(path))
    ]

    assert wrong == []
    assert {_room(path) for path in PACKAGE.rglob("*.py")} == {*order, "__init__"}


def _room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def _rooms_imported_by(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module == "oban_actors":
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("oban_actors."):
            found.add((node.module or "").split(".")[1])
    return found


def test_make_help_tells_the_targets() -> None:
    """`make help`, which the README points to, names the two commands."""
    told = subprocess.run(
        ["make", "help"],  # noqa: S607 (whichever make the user has)
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    ).stdout

    assert "make demo" in told
    assert "make test" in told

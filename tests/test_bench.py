"""The benches with tiny numbers, so that they can't rot; and what brings figures into the docs."""

import json
import xml.etree.ElementTree as ET
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.bench import (
    bench_actors,
    bench_drains,
    bench_flat,
    bench_growth,
    bench_idle,
    bench_inserting,
    bench_lateness,
    bench_libraries,
    bench_notifier,
    bench_notifying,
    bench_peers,
    bench_queues,
    bench_staging,
    bench_switching,
    pages,
)
from tests.bench.__main__ import _setting, _sizes, main
from tests.bench.plots import Chart, page
from tests.bench.report import Report
from tests.support.postgres import Server

ROOT = Path(__file__).resolve().parent.parent

pytestmark = [pytest.mark.db, pytest.mark.slow]

TINY: dict[ModuleType, Any] = {
    bench_queues: bench_queues.Size(
        jobs=60, slow_jobs=30, limits=(10,), rounds=1, inserts=2, backlogs=(20,), seconds=0.1
    ),
    bench_flat: bench_flat.Size(rows=(100, 300), rounds=1, jobs=3),
    bench_idle: bench_idle.Size(
        rounds=1,
        settle=0.1,
        seconds=1.2,
        many=3,
        cases=(bench_idle.LEADER, bench_idle.FOLLOWER),
    ),
    bench_drains: bench_drains.Size(
        jobs=(20,), limits=(10,), nodes=(2,), limit=10, rounds=1, kinds=("threads",)
    ),
    bench_growth: bench_growth.Size(
        nodes=(2,), jobs=20, limit=10, rounds=1, seconds=0.3, rate=10.0, batches=(2,)
    ),
    bench_lateness: bench_lateness.Size(jobs=3, seconds=0.2, nodes=1, burst=3),
    bench_notifying: bench_notifying.Size(clients=(2,), seconds=0.2, rounds=1),
    bench_staging: bench_staging.Size(jobs=(60, 90), limits=(20,), rounds=1),
    bench_switching: bench_switching.Size(
        intervals=(0.005,), tells=100, asks=5, restarts=2, timers=5, spread=0.1, alone=0.05
    ),
}
"""Sizes of those that take one."""

NAMES = {
    bench_queues: (
        "PostgreSQL, the bare loop, batch 10",
        "PostgreSQL, threads, limit 10",
        "PostgreSQL, async, limit 10, ratio",
        "PostgreSQL, limit 10, commits",
        "PostgreSQL, limit 10, WAL",
        "SQLite, threads, limit 10",
        "SQLite, async, limit 10",
        "insert to start, bare, p50",
        "insert to start, p50",
        "memory beside 20 queued",
    ),
    bench_flat: (
        "a staging pass, 300 finished, before autovacuum, ratio",
        "the queues with work, 300 in backlog, after, ratio",
        "a fetch, 300 scheduled, after, ratio",
        "an acknowledgement, 300 just drained, before autovacuum, ratio",
    ),
    bench_idle: (
        "leader, CPU",
        "leader, connections",
        "CPU, 3 queues",
        "memory above its libraries",
        "follower, transactions begun",
    ),
    bench_drains: (
        "PostgreSQL, 20 jobs, threads, 2 processes",
        "SQLite, 20 jobs, threads, 2 processes",
        "PostgreSQL, from end to durable, threads, limit 10, p99",
        "SQLite, from end to durable, threads, limit 10, p99",
    ),
    bench_growth: (
        "drain, 2 nodes",
        "2 nodes, 10 x 2 jobs a second: notifications",
        "2 nodes, 10 x 2 jobs a second: turns",
        "2 nodes, 10 x 2 jobs a second: passes of the leader",
    ),
    bench_lateness: ("PostgreSQL, ratio of p99", "SQLite, 1 nodes, p50"),
    bench_notifying: ("2 clients insert singly", "2 clients, ratio"),
    bench_staging: (
        "PostgreSQL, 60 due, limit 20, ratio",
        "PostgreSQL, a fresh job beside 60 due, limit 20, p99",
        "SQLite, 60 due",
    ),
    bench_switching: (
        "5 ms, 0 busy threads: ask, p99",
        "5 ms, 2 busy threads: restart, p99",
        "5 ms, 2 busy threads: they compute",
    ),
}
"""Some of what they report."""

CONSTANTS: dict[ModuleType, dict[str, Any]] = {
    bench_actors: {"ROUNDS": 1, "TELLS": 100, "ASKS": 20, "LIVES": 5, "RESTARTS": 3, "TIMERS": 20}
    | {"SPREAD": 0.1, "CHILDREN": 3},
    bench_inserting: {"BULK": 50, "ROUNDS": 1, "FINISHED": 200, "SAMPLES": 4},
    bench_libraries: {"LIBRARIES": (), "JOBS": 20, "ROUNDS": 1, "LIMIT": 10, "STARTS": 5},
    bench_notifier: {"SAMPLES": 5, "BURST": 20, "BATCH": 10, "IDLE": 0.1},
    bench_peers: {"RENEWALS": 2, "HANDOVERS": 1, "KILLS": 1},
}
"""What makes the others small."""


def _id(module: ModuleType) -> str:
    return module.__name__.rpartition("bench_")[2]


def _run(module: ModuleType, *given: Any) -> dict[str, float]:
    report = Report(_id(module))
    module.run(report, *given)
    assert report.table()
    return {figure.name: figure.value for figure in report.figures}


@pytest.mark.parametrize("module", TINY, ids=_id)
def test_it_measures(
    module: ModuleType, postgres_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each figure that is named is there, and none is nothing."""
    # The one that all tests share: they make databases of their own on it.
    if hasattr(module, "PostgresServer"):
        monkeypatch.setattr(module, "PostgresServer", lambda **_: nullcontext(postgres_server))
    if hasattr(module, "AHEAD"):
        monkeypatch.setattr(module, "AHEAD", 0.5)

    figures = _run(module, TINY[module])

    for name in NAMES[module]:
        assert figures[name] > 0, name


@pytest.mark.parametrize("module", CONSTANTS, ids=_id)
def test_it_measures_something(module: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """It runs to its end, and reports figures."""
    for name, value in CONSTANTS[module].items():
        assert hasattr(module, name), name
        monkeypatch.setattr(module, name, value)

    assert max(_run(module).values()) > 0


def _known() -> list[str]:
    return sorted(
        path.stem.removeprefix("bench_") for path in (ROOT / "tests/bench").glob("bench_*.py")
    )


def test_every_bench_is_run_here() -> None:
    """None is left out."""
    assert set(_known()) == {_id(module) for module in (*TINY, *CONSTANTS)}


def test_every_bench_has_its_place_in_the_docs() -> None:
    """The figures of each one have one place."""
    text = "".join((ROOT / "docs" / name).read_text("utf-8") for name in pages.PAGES)

    assert sorted(found[2] for found in pages.BLOCK.finditer(text)) == _known()


def test_sizes_can_be_set(capsys: pytest.CaptureFixture[str]) -> None:
    """A size is given by its name, a tuple by commas, and one that there is not is refused."""
    settings = [_setting("flat.rows=10,1_000"), _setting("flat.rounds=3")]

    assert _sizes(["flat"], settings) == {"flat": (bench_flat.Size(rows=(10, 1_000), rounds=3),)}
    for wrong in ("flat.nothing=1", "idle.rounds=1", "actors.rounds=1"):
        with pytest.raises(SystemExit):
            main(["flat", "actors", f"--set={wrong}"])
        assert "there is no such size" in capsys.readouterr().err


@pytest.fixture
def figures_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file that a run of the command wrote."""
    monkeypatch.setattr(bench_switching, "run", _fake)
    file = tmp_path / "figures.json"
    main(["switching", f"--json={file}", "--note=it was busy"])
    return file


def _fake(report: Report) -> None:
    report.add_samples("ask", [1.0, 2.0, 3.0], "ms", goal="< 5", median="< 4")
    report.group = "flat"
    for rows, cost in ((10, 0.5), (1_000, 0.6)):
        report.add(f"a fetch, {rows:,} finished, before autovacuum", cost, "ms")
    report.add("a fetch, 1,000 finished, before autovacuum, ratio", 1.2, "of 10", "< 1.5")
    report.add_series("a fetch, finished, before autovacuum", [(10, 0.5), (1_000, 0.6)], "ms")


def test_figures_come_into_the_docs(figures_file: Path, tmp_path: Path) -> None:
    """A table stands where a page asks for it, and a plot beside it; the rest of it is left."""
    asked = "before\n<!-- figures: {} -->\n{}<!-- end -->\n"
    text = asked.format("flat", "old\n") + asked.format("queues", "kept\n")
    (tmp_path / "performance.md").write_text(text)

    pages.main([str(figures_file), f"--docs={tmp_path}"])

    found = (tmp_path / "performance.md").read_text()
    assert "| a fetch | 0.5 / 0.6 |" in found
    assert "it was busy" in found
    assert "fsync=on" in found
    assert "old" not in found
    assert "kept" in found
    ET.fromstring((tmp_path / "flat.svg").read_text())  # noqa: S314 (our own)


def test_a_figure_is_shown_with_its_spread(figures_file: Path) -> None:
    """What belongs together stands in one row."""
    given = json.loads(figures_file.read_text())

    table = pages._table("switching", given)

    assert "| ask | p50 2; p99 3; max 3 ms | p50 < 4; p99 < 5 |" in table


@pytest.mark.parametrize(
    "points", [[(1.0, 5.0)], [(1.0, 5.0), (10.0, 5.0)], [(2.0, 0.001), (3, 9)]]
)
@pytest.mark.parametrize("log", [False, True])
def test_any_line_can_be_drawn(points: list[tuple[float, float]], log: bool) -> None:  # noqa: FBT001 (a case)
    """One point, level lines and wide spans are drawn within the picture."""
    chart = Chart("a < b", {"one": points}, "x", "y", log_x=log, log_y=log)

    drawn = ET.fromstring(page([chart, replace(chart, title="&")]))  # noqa: S314 (our own)

    lines = [each for each in drawn.iter() if each.tag.endswith("polyline")]
    assert len(lines) == 2
    for line in lines:
        for pair in line.attrib["points"].split():
            x, y = map(float, pair.split(","))
            assert 0 <= x <= 380
            assert 0 <= y <= 260
